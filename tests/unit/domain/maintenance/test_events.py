"""Events of Azure in both schemas and both casings; anything else is passed over."""

from __future__ import annotations

from typing import Any

import pytest

from patchwave.domain.core.ids import MachineId
from patchwave.domain.maintenance.events import EventKind, read_event

MACHINE = (
    "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg-web"
    "/providers/Microsoft.Compute/virtualMachines/web-01"
)
MAINTENANCE = (
    "/subscriptions/11111111-1111-1111-1111-111111111111/resourcegroups/rg/providers/microsoft.maintenance"
    "/maintenanceconfigurations/monthly/providers/microsoft.maintenance/applyupdates/20230509150000"
)


def written(**changes: Any) -> dict[str, Any]:
    event = {
        "id": "e-1",
        "topic": "/subscriptions/11111111-1111-1111-1111-111111111111",
        "subject": MACHINE,
        "eventType": "Microsoft.Resources.ResourceWriteSuccess",
        "data": {"operationName": "Microsoft.Compute/virtualMachines/write", "resourceUri": MACHINE},
        "dataVersion": "2",
    }
    return event | changes


def pascal(value: dict[str, Any]) -> dict[str, Any]:
    return {key[:1].upper() + key[1:]: pascal(item) if isinstance(item, dict) else item for key, item in value.items()}


def test_the_write_of_a_machine() -> None:
    for event in (written(), pascal(written()), written(subject=MACHINE.replace("resourceGroups", "resourcegroups"))):
        found = read_event(event)
        assert found is not None
        assert (found.kind, found.id) == (EventKind.RESOURCE_WRITTEN, "e-1")
        assert found.machine is not None
        assert found.machine.folded == MACHINE.lower()
        assert found.topic == "/subscriptions/11111111-1111-1111-1111-111111111111"


def test_the_start_of_a_machine() -> None:
    action = {"operationName": "Microsoft.Compute/virtualMachines/start/action", "resourceUri": MACHINE}
    event = written(eventType="Microsoft.Resources.ResourceActionSuccess", data=action)
    for each in (event, pascal(event)):
        found = read_event(each)
        assert found is not None
        assert found.kind is EventKind.RESOURCE_ACTION
        assert found.machine is not None
        assert found.machine.folded == MACHINE.lower()


@pytest.mark.parametrize(
    "operation",
    [
        "Microsoft.Compute/virtualMachines/deallocate/action",
        "Microsoft.Compute/virtualMachines/restart/action",
        "Microsoft.Compute/virtualMachines/write",
        "",
        None,
    ],
)
def test_of_actions_only_a_start_counts(operation: str | None) -> None:
    event = written(eventType="Microsoft.Resources.ResourceActionSuccess", data={"operationName": operation})
    assert read_event(event) is None


def test_cloud_events() -> None:
    event = written(type="microsoft.resources.resourcewritesuccess", specversion="1.0", source="/subscriptions/x")
    del event["eventType"], event["topic"]
    found = read_event(event)
    assert found is not None
    assert found.machine is not None
    assert found.topic == "/subscriptions/x"


@pytest.mark.parametrize(
    "event",
    [
        {},
        written(id=""),
        written(id=7),
        written(id=None),
        written(eventType="Microsoft.Resources.ResourceDeleteSuccess"),
        written(eventType=None),
        written(data={"operationName": "Microsoft.Compute/virtualMachines/extensions/write"}),
        written(subject=MACHINE + "/extensions/patching", data=None),
        written(subject=MACHINE.replace("virtualMachines", "disks"), data={}),
        written(subject=MACHINE + "'", data={}),
    ],
)
def test_other_events_are_passed_over(event: dict[str, Any]) -> None:
    assert read_event(event) is None


def test_before_and_after_a_maintenance_share_the_id_and_are_two_events() -> None:
    kinds = ("PreMaintenanceEvent", "PostMaintenanceEvent")
    keys = set[str]()
    for kind in kinds:
        event = {"id": MAINTENANCE, "eventType": f"Microsoft.Maintenance.{kind}", "subject": "monthly", "data": None}
        found = read_event(event)
        assert found is not None
        assert found.machine is None
        keys.add(found.key)
    assert len(keys) == len(kinds)


def test_the_write_of_an_arc_machine_is_one_of_a_machine() -> None:
    arc = MACHINE.replace("Microsoft.Compute/virtualMachines", "Microsoft.HybridCompute/machines")
    write = {"operationName": "Microsoft.HybridCompute/machines/write", "resourceUri": arc}
    found = read_event(written(subject=arc, data=write))
    assert found is not None
    assert found.machine == MachineId.parse(arc)
    extension = write | {"operationName": "Microsoft.HybridCompute/machines/extensions/write"}
    assert read_event(written(subject=arc, data=extension)) is None
