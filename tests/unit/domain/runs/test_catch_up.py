"""Catch-ups: after which runs they start, by which rules, and with which rings."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from patchwave.domain.core.ids import MachineId
from patchwave.domain.planning.topology import PlannerMachine
from patchwave.domain.policy.policy import parse_policy
from patchwave.domain.runs.catch_up import CatchUpStep, next_step, origin_of, policy_for, rings_of, run_of_tick
from patchwave.domain.runs.run import ApprovalDecision, Run, RunState, Trigger, TriggerKind
from tests.support.factories import run as a_run

OPENS = datetime(2026, 11, 10, 19, tzinfo=UTC)
CLOSES = OPENS + timedelta(hours=4)
SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
SCHEDULE = {"recurrence": "second Tuesday", "time": "20:00", "timeZone": "Europe/Berlin", "window": "PT4H"}
RUN = "20261110T190000Z-monthly"


def vm(number: int) -> str:
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm-{number}"


def origin(state: RunState = RunState.COMPLETED, *, policy: dict[str, Any] | None = None, **fields: Any) -> Run:
    document = {"name": "monthly", "scope": {"subscriptions": [SUBSCRIPTION]}, "schedule": SCHEDULE} | (policy or {})
    given: dict[str, Any] = {"occurrence": OPENS, "window_end": CLOSES} | fields
    return a_run(OPENS, state=state, policy_snapshot=parse_policy(document).to_wire(), **given)


def planner_machine(number: int) -> PlannerMachine:
    parsed = MachineId.parse(vm(number))
    return PlannerMachine(id=parsed.text, key=parsed.key, location="westeurope", os_type="Linux", image="", tags={})


@pytest.mark.parametrize(
    ("state", "step"),
    [
        (RunState.COMPLETED, CatchUpStep.START),
        (RunState.EMPTY, CatchUpStep.START),
        (RunState.QUEUED, CatchUpStep.WAIT),
        (RunState.RUNNING, CatchUpStep.WAIT),
        (RunState.AWAITING_APPROVAL, CatchUpStep.WAIT),
        (RunState.PAUSED, CatchUpStep.WAIT),
        (RunState.HELD, CatchUpStep.WAIT),
        (RunState.AWAITING_WINDOW, CatchUpStep.WAIT),
        (RunState.CANCELED, CatchUpStep.DROP),
        (RunState.STOPPED, CatchUpStep.DROP),
        (RunState.FAILED, CatchUpStep.DROP),
    ],
)
def test_only_a_run_that_ended_well_is_followed(state: RunState, step: CatchUpStep) -> None:
    assert next_step(origin(state), (), OPENS + timedelta(hours=1)) is step


def test_one_catch_up_at_a_time() -> None:
    at = OPENS + timedelta(hours=1)
    assert next_step(origin(), {RUN}, at) is CatchUpStep.WAIT
    assert next_step(origin(), {"20261110T190000Z-weekly"}, at) is CatchUpStep.START


def test_nothing_starts_without_time_for_an_installation() -> None:
    """An hour has to be left unless the policy says otherwise."""
    latest = CLOSES - timedelta(hours=1)
    assert next_step(origin(), (), latest) is CatchUpStep.START
    assert next_step(origin(), (), latest + timedelta(seconds=1)) is CatchUpStep.DROP
    assert next_step(origin(RunState.RUNNING), (), CLOSES) is CatchUpStep.DROP


@pytest.mark.parametrize("missing", [{"window_end": None}, {"occurrence": None}])
def test_a_run_without_a_window_has_no_catch_up(missing: dict[str, Any]) -> None:
    assert next_step(origin(**missing), (), OPENS) is CatchUpStep.DROP
    assert next_step(None, (), OPENS) is CatchUpStep.DROP


def test_all_workers_of_one_tick_mean_the_same_run() -> None:
    tick = OPENS + timedelta(minutes=35)
    ids = {run_of_tick(origin(), tick + timedelta(seconds=seconds)).text for seconds in (0, 1, 299)}
    assert len(ids) == 1
    (one,) = ids
    assert one.startswith("20261110T193500Z-monthly-")
    assert run_of_tick(origin(), tick + timedelta(minutes=5)).text not in ids
    assert run_of_tick(origin(id="20261110T180000Z-monthly"), tick).text not in ids


def test_a_catch_up_names_the_first_run_of_its_window() -> None:
    first = origin()
    trigger = Trigger(kind=TriggerKind.TIMER, retry_of=first.id)
    assert (origin_of(first), origin_of(origin(id="20261110T193500Z-monthly-1a2b3c4d", trigger=trigger))) == (RUN, RUN)


def test_it_follows_the_rules_of_the_run_for_its_machines_alone() -> None:
    rings = [
        {"name": "canary", "tags": {"values": {"ring": ["canary"]}}, "approval": {}},
        {"name": "broad", "approval": {}},
    ]
    schedule = SCHEDULE | {"continueInNextWindow": True}
    decided = ApprovalDecision(actor="ana", approved=True, at=OPENS)
    first = origin(policy={"rings": rings, "schedule": schedule, "maxConcurrent": 7}, decisions={"broad": decided})
    narrowed = policy_for(first, [vm(1), vm(2)], {})
    assert narrowed.scope.machine_ids == (vm(1), vm(2))
    assert narrowed.scope.subscriptions == (SUBSCRIPTION,)
    assert narrowed.max_concurrent == 7
    assert [(ring.name, ring.approval is None) for ring in narrowed.rings] == [("canary", False), ("broad", True)]
    assert narrowed.schedule is not None
    assert narrowed.schedule.continue_in_next_window is False
    # It is a policy that can be stored and read again.
    assert parse_policy(narrowed.to_wire(), is_narrowed=True) == narrowed


def test_a_ring_that_was_rejected_still_needs_its_approval() -> None:
    decided = ApprovalDecision(actor="ana", approved=False, at=OPENS)
    first = origin(policy={"rings": [{"name": "broad", "approval": {}}]}, decisions={"broad": decided})
    assert policy_for(first, [vm(1)], {}).rings[0].approval is not None


def test_machines_stay_in_their_rings() -> None:
    """A ring in per cent would take others of so few machines."""
    rings = [{"name": "canary", "percent": 10}, {"name": "broad"}]
    first = origin(policy={"rings": rings})
    policy = parse_policy(first.policy_snapshot or {})
    machines = [planner_machine(number) for number in range(40)]
    canaries = rings_of(policy, machines, {each.id for each in machines})["canary"]
    assert len(canaries) == 4
    others = [each.id for each in machines if each.id not in canaries]
    back = [canaries[0], others[0], others[1]]
    found = rings_of(policy, machines, set(back))
    assert found == {"canary": [canaries[0]], "broad": sorted(others[:2], key=back.index)}
    canary, broad = policy_for(first, back, found).rings
    assert (canary.percent, canary.machine_ids, broad.machine_ids) == (None, [canaries[0]], None)
    without_canaries = policy_for(first, others[:2], {"broad": others[:2]}).rings[0]
    assert without_canaries.machine_ids is not None
    assert not set(without_canaries.machine_ids) & {each.id for each in machines}
