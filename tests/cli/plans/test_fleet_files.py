"""Fleet files as people have them: every form, what is put right and said, and what is refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from local import ROOT
from local.azure_simulator.clock import Clock
from local.azure_simulator.fleet import read_fleet as read_as_simulator
from patchwave.cli.errors import RefusedError
from patchwave.cli.plans.fleet_files import Fleet, read_fleet

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-web/providers/Microsoft.Compute"


def machine(name: str, **fields: Any) -> dict[str, Any]:
    """An entry as ``az vm list`` prints it, in its shortest form."""
    return {"id": f"{GROUP}/virtualMachines/{name}", "location": "westeurope", **fields}


def read(folder: Path, document: object) -> Fleet:
    path = folder / "fleet.json"
    path.write_text(json.dumps(document), encoding="utf-8")
    return read_fleet(path)


@pytest.mark.parametrize(
    "document",
    [
        [machine("vm", osType="Windows")],
        {"value": [machine("vm", properties={"storageProfile": {"osDisk": {"osType": "Windows"}}})]},
        {"data": [machine("vm", osType="windows", type="microsoft.compute/virtualmachines")]},
        {"machines": [machine("vm", osProfile={"windowsConfiguration": {"provisionVMAgent": True}})], "owner": "team"},
    ],
    ids=["az vm list -d", "ARM list", "Resource Graph", "with more beside it"],
)
def test_the_forms_of_a_fleet_file(tmp_path: Path, document: object):
    fleet = read(tmp_path, document)
    assert [(each.machine.name, each.machine.os_type) for each in fleet.machines] == [("vm", "Windows")]
    assert fleet.notes == []


ARC = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-arc/providers/Microsoft.HybridCompute/machines"


@pytest.mark.parametrize("is_flat", [True, False], ids=["az connectedmachine list", "ARM list"])
def test_arc_machines_are_machines_with_a_status(tmp_path: Path, is_flat: bool):
    fields = {"osType": "linux", "status": "Disconnected", "cloudMetadata": {"provider": "AWS"}}
    entry = {"id": f"{ARC}/srv-01", "name": "srv-01", "location": "westeurope", "tags": {"site": "a"}}
    fleet = read(tmp_path, [entry | (fields if is_flat else {"properties": fields}), machine("vm", vmId="x")])
    (arc, vm) = fleet.machines
    assert (arc.machine.is_arc, arc.machine.os_type, arc.machine.power_state) == (True, "Linux", "Disconnected")
    assert (arc.machine.problem, vm.machine.problem, fleet.notes) == ("", "", [])


def test_a_virtual_machine_that_is_an_arc_machine_as_well_is_planned_once(tmp_path: Path):
    unique = "01234567-89ab-cdef-0123-456789abcdef"
    entry = {"id": f"{ARC}/srv-01", "location": "westeurope", "osType": "linux", "status": "Connected", "vmId": unique}
    fleet = read(tmp_path, [entry, machine("vm", properties={"vmId": unique.upper()})])
    assert [bool(each.machine.problem) for each in fleet.machines] == [True, False]
    assert f"{GROUP}/virtualMachines/vm" in fleet.machines[0].machine.problem


def test_what_powershell_writes_is_read(tmp_path: Path):
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps([machine("vm")]), encoding="utf-16")
    assert len(read_fleet(path).machines) == 1


def test_standard_input():
    assert len(read_fleet(Path("-"), json.dumps([machine("vm")]).encode()).machines) == 1


def test_unknown_fields_are_passed_over(tmp_path: Path):
    fleet = read(tmp_path, [machine("vm", colour="red", properties={"next": {"year": [1]}}, simulation={"news": 1})])
    assert len(fleet.machines) == 1
    assert fleet.notes == []


def test_a_machine_that_is_listed_twice_in_another_case_is_merged(tmp_path: Path):
    first = machine("vm", tags={"env": "prod"}, zones=None)
    again = machine("vm", location="eastus", zones=["2"], tags={"ENV": "test", "app": "shop"})
    fleet = read(tmp_path, [first, again | {"id": str(again["id"]).upper()}])
    (found,) = fleet.machines
    assert found.machine.location == "westeurope"
    assert found.machine.zones == ("2",)
    assert found.machine.tags == {"env": "prod", "app": "shop"}
    assert fleet.notes == [
        f"[1] is [0] again ({first['id']}): merged; where they differ, [0] is right",
    ]


@pytest.mark.parametrize(
    ("entry", "complaint"),
    [
        (None, "not an object"),
        ({"id": 5}, "5 is not the id of a machine"),
        ({"id": "/subscriptions/x"}, "'/subscriptions/x' is not the id of a machine"),
        (machine("vm", location=""), "it has no location"),
        (machine("vm", osType="Plan9"), "osType must be Windows or Linux, not 'Plan9'"),
        (machine("vm", simulation={"updateDomain": "two"}), "its update domain must be a whole number"),
        (machine("vm", simulation={"pendingPatches": "many"}), "pendingPatches must be a number"),
        (machine("vm", simulation={"installMinutes": "long"}), "installMinutes and rebootMinutes must be numbers"),
    ],
)
def test_a_broken_machine_is_left_out_and_reported_by_position(tmp_path: Path, entry: object, complaint: str):
    fleet = read(tmp_path, {"value": [machine("good"), entry]})
    assert [each.machine.name for each in fleet.machines] == ["good"]
    (note,) = fleet.notes
    assert note.startswith("value[1] is left out: ")
    assert complaint in note


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "is not JSON"),
        ('"fleet"', "holds no fleet"),
        ('{"fleet": []}', "holds no fleet"),
        ('[{"id": 5}]', "holds no machine that can be read"),
        ("[" * 100_000, "is not JSON"),
    ],
)
def test_what_is_no_fleet_is_refused(tmp_path: Path, text: str, complaint: str):
    path = tmp_path / "fleet.json"
    path.write_text(text)
    with pytest.raises(RefusedError, match=complaint):
        read_fleet(path)


def test_many_broken_machines_are_not_all_listed(tmp_path: Path):
    with pytest.raises(RefusedError) as refused:
        read(tmp_path, [{"id": number} for number in range(100)])
    assert len(refused.value.details) == 21
    assert refused.value.details[-1].message == "and 80 more"


def test_scale_sets_and_fault_domains_in_each_form(tmp_path: Path):
    scale_set = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/virtualMachineScaleSets/web"
    member = {"virtualMachineScaleSet": {"id": scale_set}}
    fleet = read(
        tmp_path,
        [
            machine("flat", platformFaultDomain=1, **member),
            machine("spread", platformFaultDomain=-1, **member),
            machine("arm", properties=member | {"instanceView": {"platformFaultDomain": 0}}),
            machine("rows", scaleSetId=scale_set, faultDomain="2"),
            machine("alone"),
        ],
    )
    known = [(each.machine.scale_set_id, each.machine.fault_domain) for each in fleet.machines]
    assert known == [(scale_set, "1"), (scale_set, ""), (scale_set, "0"), (scale_set, "2"), ("", "")]


def test_uniform_scale_sets_are_left_out_by_name_and_flexible_ones_are_their_members(tmp_path: Path):
    sets = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/g/providers/Microsoft.Compute"
    sets += "/virtualMachineScaleSets"
    members = [machine("one", virtualMachineScaleSet={"id": f"{sets}/NAMED"})]
    listed = [
        {"id": f"{sets}/uniform", "location": "westeurope", "sku": {"capacity": 5}},
        {"id": f"{sets}/named", "location": "westeurope"},
    ]
    flexible = {"id": f"{sets}/flexible", "location": "westeurope", "properties": {"orchestrationMode": "Flexible"}}
    fleet = read(tmp_path, {"machines": [*members, flexible], "scaleSets": listed})
    shown = {each.machine.name: each.machine.problem_reason.value for each in fleet.machines if each.machine.problem}
    assert shown == {"uniform": "uniform_scale_set"}
    assert [each.machine.name for each in fleet.machines] == ["one", "uniform"]
    assert fleet.notes == []


def test_an_empty_fleet_is_one(tmp_path: Path):
    assert read(tmp_path, []).machines == []


def test_what_a_plan_can_use(tmp_path: Path):
    assessed = {
        "availablePatchSummary": {"status": "Succeeded", "criticalAndSecurityPatchCount": 3, "otherPatchCount": 4}
    }
    fleet = read(
        tmp_path,
        [
            machine("said", simulation={"pendingPatches": 2, "installMinutes": 30, "rebootMinutes": 5}),
            machine(
                "listed", simulation={"pendingPatches": [{"name": "a", "minutes": 7}, {"name": "b", "minutes": 8}]}
            ),
            machine("seen", instanceView={"patchStatus": assessed, "platformUpdateDomain": 3}),
            machine("unknown", powerState="VM deallocated"),
        ],
    )
    known = [(each.pending, each.seconds, each.update_domain) for each in fleet.machines]
    assert known == [(2, 2100.0, None), (2, 900.0, None), (7, None, 3), (None, None, None)]
    assert fleet.machines[3].machine.power_state == "PowerState/deallocated"


def test_places_beside_the_machines(tmp_path: Path):
    mapping = {"subscriptionId": SUBSCRIPTION, "location": "West Europe", "logicalZone": "1", "physicalZone": "az3"}
    fleet = read(
        tmp_path,
        {
            "machines": [machine("vm")],
            "zoneMappings": [mapping, {"location": "eastus"}],
            "regionPairs": [["West Europe", "italynorth"], ["eastus"], "westus"],
        },
    )
    assert fleet.topology.physical_zone(SUBSCRIPTION.upper(), "westeurope", "1") == "az3"
    assert "italynorth" in fleet.topology.conflicts("westeurope")
    assert fleet.topology.conflicts("ukwest") == {"uksouth"}
    assert [note.partition(" ")[0] for note in fleet.notes] == ["zoneMappings[1]", "regionPairs[1]", "regionPairs[2]"]


_MIXED: dict[str, Any] = {
    "value": [
        machine("one", osType="Linux", zones=["1"], tags={"a": "b"}),
        machine("two", location="East US", properties={"storageProfile": {"osDisk": {"osType": "Windows"}}}),
        machine("ONE", zones=["2"]),
        {"id": 5},
        machine("three", osProfile={"windowsConfiguration": {}}, powerState="VM stopped"),
        machine("four", osType="BeOS"),
        machine("five", location=None),
    ]
}


@pytest.mark.parametrize(
    "document", [_MIXED, *[json.loads(path.read_text()) for path in (ROOT / "fleets").glob("*.json")]]
)
def test_the_simulator_reads_the_same_machines(tmp_path: Path, document: object):
    """The simulator is an independent reading of Azure and shares no code: what both make of a file must agree."""
    path = tmp_path / "fleet.json"
    path.write_text(json.dumps(document))
    simulated, read = read_as_simulator(path, Clock(60), 1), read_fleet(path)
    assert [(each.id, each.location, each.os_type, tuple(each.zones), each.tags) for each in simulated.machines] == [
        (found.id, found.location, found.os_type, found.zones, found.tags)
        for found in (each.machine for each in read.machines)
    ]
    left_out = [
        sorted(note.partition(" is ")[0] for note in notes if "left out" in note)
        for notes in (simulated.notes, read.notes)
    ]
    assert left_out[0] == left_out[1]


CUT = [
    # As `az graph query` prints it (truncated-az-graph.json, truncated-arm-list.json).
    ({"count": 1, "data": [machine("g1")], "skip_token": "ew0KICAiJGlkIjogIjEi…", "total_records": 2345}, "1 of 2,345"),
    ({"data": [machine("g1")], "skip_token": "ew0K", "total_records": None}, "skip token"),
    ({"data": [machine("g1")], "$skipToken": "ew0K", "resultTruncated": "true"}, "skip token"),
    ({"data": [machine("g1")], "count": 1, "totalRecords": 2}, "1 of 2 rows"),
    ({"data": [], "totalRecords": 2}, "0 of 2 rows"),
    ({"data": [machine("g1")], "resultTruncated": "true"}, "resultTruncated"),
    ({"data": [machine("g1")], "result_truncated": True}, "resultTruncated"),
    ({"value": [machine("n1")], "nextLink": "https://management.azure.com/subscriptions/x?$skiptoken=y"}, "nextLink"),
    ({"value": [machine("n1")], "@odata.nextLink": "https://management.azure.com/x?$skiptoken=y"}, "nextLink"),
]


@pytest.mark.parametrize(("document", "why"), CUT)
def test_one_page_of_a_longer_list_is_refused(tmp_path: Path, document: object, why: str):
    with pytest.raises(RefusedError) as refused:
        read(tmp_path, document)
    assert why in refused.value.message
    assert "az vm list --subscription ID -o json > fleet.json" in refused.value.message


@pytest.mark.parametrize(
    "document",
    [
        {"count": 1, "data": [machine("g1")], "skip_token": None, "total_records": 1},
        {"data": [machine("g1")], "$skipToken": "", "resultTruncated": "false", "totalRecords": 1},
        {"value": [machine("g1")], "nextLink": None},
        {"machines": [machine("g1")], "totalRecords": "unknown"},
    ],
)
def test_a_whole_list_may_say_that_it_is_whole(tmp_path: Path, document: object):
    assert len(read(tmp_path, document).machines) == 1
