"""A Flexible scale set from end to end, judged by what Azure saw; a Uniform one beside it is left out by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from patchwave.cli.app import run
from patchwave.domain.core.ids import machine_key
from patchwave.domain.planning.topology import PlannerMachine, Topology
from patchwave.domain.policy.policy import parse_policy
from tests.support.plan_invariants import Interval, broken_rules
from tests.support.product import Product, wait_until

type Json = dict[str, Any]

GROUP = "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/rg/providers/Microsoft.Compute"
WEB, OLD = f"{GROUP}/virtualMachineScaleSets/vmss-web", f"{GROUP}/virtualMachineScaleSets/vmss-old"
SIZE, DOMAINS = 12, 3
MEMBERS = [f"{GROUP}/virtualMachines/web-{number:02}" for number in range(SIZE)]
DELETED = MEMBERS[7]
POLICY: Json = {"scope": {"scaleSets": [WEB, OLD]}, "maxConcurrent": 50}


def entry(one: str, minutes: int, **fields: Any) -> Json:
    simulation = {"assessMinutes": 1, "installMinutes": minutes, "pendingPatches": 2}
    return {"id": one, "location": "westeurope", "osType": "Linux", "simulation": simulation, **fields}


def fleet() -> Json:
    """Twelve members over three fault domains that Azure assigns, in their order; and a machine of no set."""
    health = {"name": "health", "properties": {"type": "ApplicationHealthLinux"}}
    flexible = {
        "orchestrationMode": "Flexible",
        "platformFaultDomainCount": DOMAINS,
        "virtualMachineProfile": {"extensionProfile": {"extensions": [health]}},
    }
    member = {"virtualMachineScaleSet": {"id": WEB}}
    return {
        "machines": [
            *(entry(one, 90 if one == DELETED else 10 + index, **member) for index, one in enumerate(MEMBERS)),
            entry(f"{GROUP}/virtualMachines/alone", 5),
        ],
        "scaleSets": [
            {"id": WEB, "location": "westeurope", "properties": flexible},
            {"id": OLD, "location": "westeurope", "sku": {"name": "Standard_D2s_v5", "capacity": 5}},
        ],
    }


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    folder = tmp_path_factory.mktemp("scale-sets")
    file = folder / "fleet.json"
    file.write_text(json.dumps(fleet()))
    product = Product.open(folder, file)
    try:
        yield product
    finally:
        product.close()


def is_installing(product: Product, one: str) -> bool:
    return any(each["machine"] == one and each["end"] is None for each in product.intervals())


def test_a_scale_set_is_patched_by_its_rules_while_autoscale_deletes_a_member(sets: Product) -> None:
    run_id = start(sets, POLICY)
    wait_until(lambda: is_installing(sets, DELETED) or None, timeout=120, what=lambda: str(sets.run(run_id)))
    sets.simulate(DELETED, deleted=True)
    run = sets.wait(run_id, timeout=200)
    assert (run["state"], run["machines"], run["countsByOutcome"]) == ("completed", 13, {"patched": 11, "skipped": 2})
    rows = sets.machines(run_id)
    uniform, gone = rows[OLD.lower()], rows[DELETED.lower()]
    assert (uniform["outcome"], uniform["reason"]) == ("skipped", "uniform_scale_set")
    assert "5 instances" in uniform["message"]
    assert (gone["outcome"], gone["reason"]) == ("skipped", "not_found")
    assert "no longer exists" in gone["message"]
    installs = [Interval(machine_key(each["machine"]), each["start"], each["end"]) for each in sets.intervals()]
    assert sorted(each.key for each in installs) == sorted(map(machine_key, MEMBERS))
    assert max(sum(each.start <= one.start < each.end for each in installs) for one in installs) == 2
    machines = [
        PlannerMachine(
            id=one, key=machine_key(one), location="westeurope", scale_set=WEB, fault_domain=str(number % DOMAINS)
        )
        for number, one in enumerate(MEMBERS)
    ]
    assert broken_rules(installs, machines, parse_policy({"name": "judged", **POLICY}), Topology.of()) == []
    at_once = [Interval(machine.key, 0, 10) for machine in machines]
    assert len(broken_rules(at_once, machines, parse_policy({"name": "judged", **POLICY}), Topology.of())) > SIZE


def test_the_live_plan_and_eligibility_name_the_uniform_set(sets: Product) -> None:
    plan = sets.api.post("/api/plans", json={"policy": POLICY}).json()
    assert {machine["id"]: machine["reason"] for machine in plan["excluded"]} == {OLD: "uniform_scale_set"}
    shown = sets.api.get("/api/fleet/eligibility", params={"scaleSet": OLD}).json()
    assert shown["byCause"] == {"uniform_scale_set": 1}


def test_a_scale_set_without_members_is_a_row_with_a_reason(sets: Product) -> None:
    missing = WEB.replace("vmss-web", "vmss-none")
    run_id = start(sets, {"scope": {"scaleSets": [missing]}})
    run = sets.wait(run_id)
    assert (run["machines"], run["countsByOutcome"]) == (1, {"skipped": 1})
    row = sets.machines(run_id)[missing.lower()]
    assert (row["reason"], row["message"].partition(":")[0]) == ("not_found", "No member of this scale set was found")


def start(product: Product, policy: Json) -> str:
    reply = product.api.post("/api/runs", json={"policy": policy, "mode": "patch"})
    assert reply.status_code == 202, reply.text
    return str(reply.json()["id"])


def test_the_fleet_of_this_test_is_one_of_the_plan_command_too(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, policy = tmp_path / "fleet.json", tmp_path / "policy.json"
    file.write_text(json.dumps(fleet()))
    policy.write_text(json.dumps(POLICY))
    assert run(["plan", "--fleet", str(file), "--policy", str(policy), "-o", "json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {machine["id"] for machine in plan["machines"]} == set(MEMBERS)
    assert [machine["reason"] for machine in plan["excluded"]] == ["uniform_scale_set"]
