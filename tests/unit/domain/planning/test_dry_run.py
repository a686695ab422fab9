"""Drafts: which machines a policy is for, what is known of them, and ids that do not exist."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from patchwave.domain.fleet.discovery import read_row
from patchwave.domain.fleet.scale_sets import ScaleSet
from patchwave.domain.planning.dry_run import FoundMachine, plan_dry_run
from patchwave.domain.planning.plan import Plan
from patchwave.domain.planning.topology import Topology
from patchwave.domain.policy.policy import parse_inline_policy

NOW = datetime(2026, 12, 1, 12, tzinfo=UTC)
GROUP = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg/providers/Microsoft.Compute"


def found(name: str, *, known: dict[str, Any] | None = None, **columns: Any) -> FoundMachine:
    row = read_row(
        {"id": f"{GROUP}/virtualMachines/{name}", "location": "westeurope", "osType": "Linux", "tags": {}} | columns
    )
    assert row is not None
    return FoundMachine(row, **(known or {}))


def draft(*machines: FoundMachine, **policy: Any) -> Plan:
    return plan_dry_run(
        machines, parse_inline_policy({"scope": {"osTypes": ["Linux"]}} | policy), Topology.of(), NOW
    ).plan


def names(plan: Plan) -> list[str]:
    return sorted(machine.id.rpartition("/")[2] for machine in plan.machines)


def test_only_machines_of_the_scope_are_planned_and_the_others_counted():
    policy = parse_inline_policy({"scope": {"tags": {"values": {"env": ["test"]}}}})
    machines = [found("in", tags={"ENV": "Test"}), found("out", tags={"env": "prod"}), found("bare")]
    made = plan_dry_run(machines, policy, Topology.of(), NOW)
    assert (names(made.plan), made.outside) == (["in"], 2)


def test_a_machine_whose_id_cannot_be_read_is_left_out_with_the_reason():
    plan = draft(found("odd..name"), found("vm"))
    assert names(plan) == ["vm"]
    assert [(machine.id, machine.reason) for machine in plan.excluded] == [
        (f"{GROUP}/virtualMachines/odd..name", "unreadable_id")
    ]
    assert "patch it by other means" in plan.excluded[0].detail


def test_ids_that_do_not_exist_are_left_out():
    ids = [f"{GROUP}/virtualMachines/{name}" for name in ("here", "GONE", "excluded")]
    plan = draft(found("HERE"), scope={"machineIds": ids, "exclude": {"machineIds": [ids[2]]}})
    assert names(plan) == ["HERE"]
    assert [(machine.id, machine.reason) for machine in plan.excluded] == [(ids[1], "not_found")]


@pytest.mark.parametrize(
    ("columns", "known", "reason"),
    [
        ({"tags": {"patchwave-hold": "moving"}}, {}, "hold_tag"),
        ({"powerState": "PowerState/deallocated"}, {}, "not_running"),
        ({"powerState": "PowerState/hibernated"}, {}, "hibernated"),
        ({}, {"pending": 0}, "no_pending_patches"),
    ],
)
def test_what_a_run_would_leave_out(columns: dict[str, Any], known: dict[str, Any], reason: str):
    plan = draft(found("vm", known=known, **columns))
    assert [machine.reason for machine in plan.excluded] == [reason]


@pytest.mark.parametrize("system", ["", "Solaris"])
def test_a_machine_of_an_unknown_system_is_left_out_as_in_a_run(system: str):
    policy = parse_inline_policy({"scope": {"locations": ["westeurope"]}})
    plan = plan_dry_run([found("odd", osType=system), found("vm")], policy, Topology.of(), NOW).plan
    assert names(plan) == ["vm"]
    assert [(machine.id, machine.reason, machine.detail) for machine in plan.excluded] == [
        (
            f"{GROUP}/virtualMachines/odd",
            "unsupported",
            "Azure does not tell whether the machine runs Windows or Linux.",
        )
    ]


def test_what_is_known_decides_the_times():
    plan = draft(found("fast", known={"seconds": 300.0}), found("endless", known={"seconds": 1e6}), found("new"))
    took = {each.id.rpartition("/")[2]: each.predicted_end - each.predicted_start for each in plan.machines}
    # No history: the default for Linux. A machine that restarted days later: the longest that the policy allows.
    assert took == {"fast": 300, "endless": 7200, "new": 1200}


def test_fault_domains_of_a_scale_set_are_kept_apart():
    member: dict[str, Any] = {"scaleSetId": f"{GROUP}/virtualMachineScaleSets/web"}
    machines = [found(f"vm{number:02d}", faultDomain=str(number % 2), **member) for number in range(20)]
    plan = draft(*machines, maxConcurrent=100)
    most = 0
    for one in plan.machines:
        beside = [
            other for other in plan.machines if other.predicted_start <= one.predicted_start < other.predicted_end
        ]
        assert {int(other.id[-1]) % 2 for other in beside} == {int(one.id[-1]) % 2}
        most = max(most, len(beside))
    assert most == 4
    assert any("fault domain 1 of web after fault domain 0" in each.placement_reasons for each in plan.machines)


def test_scale_sets_that_cannot_be_planned_are_named():
    uniform, none = f"{GROUP}/virtualMachineScaleSets/uniform", f"{GROUP}/virtualMachineScaleSets/none"
    machines = [found("vm"), FoundMachine(read_row({"id": uniform, "location": "westeurope", "instances": 4}))]
    plan = plan_dry_run(
        machines, parse_inline_policy({"scope": {"scaleSets": [uniform, none]}}), Topology.of(), NOW
    ).plan
    assert plan.machines == []
    left_out = {machine.id: machine.reason for machine in plan.excluded}
    assert left_out == {uniform: "uniform_scale_set", none: "not_found"}


@pytest.mark.parametrize(("monitors_health", "is_said"), [(False, True), (True, False), (None, False)])
def test_a_scale_set_that_nothing_watches_is_said_in_the_plan(monitors_health: bool | None, is_said: bool):
    web = f"{GROUP}/virtualMachineScaleSets/web"
    topology = Topology.of(scale_sets=[ScaleSet(id=web.upper(), monitors_health=monitors_health)])
    machines = [found("member", scaleSetId=web, faultDomain=0), found("alone")]
    plan = plan_dry_run(machines, parse_inline_policy({"scope": {"osTypes": ["Linux"]}}), topology, NOW).plan
    assert any(note.startswith("Scale set WEB has no Application Health extension") for note in plan.notes) == is_said
    said = [each.id for each in plan.machines if "WEB has no Application Health extension" in each.placement_reasons]
    assert said == [f"{GROUP}/virtualMachines/member"] * is_said


def test_update_domains_are_kept_apart():
    in_set = {"availabilitySetId": f"{GROUP}/availabilitySets/av"}
    machines = [found(f"vm{number:02d}", known={"update_domain": number % 2}, **in_set) for number in range(12)]
    plan = draft(*machines, maxConcurrent=100)
    for one in plan.machines:
        for other in plan.machines:
            if int(one.id[-1]) % 2 != int(other.id[-1]) % 2:
                assert one.predicted_end <= other.predicted_start or other.predicted_end <= one.predicted_start
