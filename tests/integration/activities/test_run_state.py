"""What the orchestrators ask of and say to the run's row."""

from __future__ import annotations

from datetime import timedelta

import pytest

from activities.run import get_run_controls, set_run_state, stop_run, trip_error_budget
from patchwave.domain.core.documents import format_instant
from patchwave.domain.runs.error_budget import ErrorBudgetExceeded
from patchwave.domain.runs.run import Run, RunControls, RunState
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.run import RunRef, SetRunState, StopRun
from patchwave.storage import RecordMissing, Storage
from patchwave.wiring import Services
from tests.support.factories import NOW, RUN, command, run

POLICY = {
    "name": "monthly",
    "scope": {"osTypes": ["Linux"]},
    "rings": [{"name": "canary", "percent": 5}, {"name": "broad", "approval": {}}],
}


@pytest.fixture
async def live(storage: Storage) -> Storage:
    """Records with a run that has started."""
    await storage.runs.create(run(policy_snapshot=POLICY))
    await storage.runs.start(RUN, NOW)
    return storage


async def stored(storage: Storage) -> Run:
    found = await storage.runs.get(RUN)
    assert found
    return found


def gate(scope: str, *, ends_run: bool = False) -> ErrorBudgetExceeded:
    return ErrorBudgetExceeded(run_id=RUN, scope=scope, failures=3, limit=2, ends_run=ends_run)


async def lines(storage: Storage) -> list[tuple[str, str]]:
    return [(line["action"], line["actor"]) for line in (await storage.audit.list_page(RUN, 50, None)).items]


async def test_controls_are_read_from_the_row(services: Services, live: Storage) -> None:
    assert await get_run_controls(services, RunRef(run_id=RUN)) == RunControls()
    await live.runs.pause(RUN, command())
    await live.runs.resume(RUN, command())
    await live.runs.pause(RUN, command())
    await live.runs.decide_ring(RUN, "broad", command(), approved=False)
    await live.runs.cancel(RUN, command())
    assert await get_run_controls(services, RunRef(run_id=RUN)) == RunControls(
        is_canceled=True, is_paused=True, resume_count=1, decided={"broad": False}
    )


async def test_controls_without_a_run_fail(services: Services, storage: Storage) -> None:
    with pytest.raises(RecordMissing):
        await get_run_controls(services, RunRef(run_id=RUN))


async def test_a_state_is_shown(services: Services, live: Storage) -> None:
    request = SetRunState(run_id=RUN, state=RunState.AWAITING_APPROVAL, waiting_for="broad")
    shown = await set_run_state(services, request)
    assert shown.since is not None
    assert contracts.SET_RUN_STATE.result.encode(shown)["since"] == format_instant(
        (await stored(live)).approvals_asked["broad"]
    )
    assert ((await stored(live)).state, (await stored(live)).waiting_for) == (RunState.AWAITING_APPROVAL, "broad")
    running = SetRunState(run_id=RUN, state=RunState.RUNNING)
    assert (await set_run_state(services, running)).since is None
    assert ((await stored(live)).state, (await stored(live)).waiting_for) == (RunState.RUNNING, "")


async def test_an_approval_counts_from_its_first_request_in_any_generation(services: Services, live: Storage) -> None:
    await live.runs.ask_approval(RUN, "broad", NOW)
    await live.runs.set_state(RUN, RunState.RUNNING)
    again = await set_run_state(
        services, SetRunState(run_id=RUN, state=RunState.AWAITING_APPROVAL, waiting_for="broad")
    )
    assert again.since == NOW
    other = await set_run_state(services, SetRunState(run_id=RUN, state=RunState.AWAITING_APPROVAL, waiting_for="last"))
    assert other.since is not None
    assert other.since > NOW + timedelta(minutes=1)
    assert set((await stored(live)).approvals_asked) == {"broad", "last"}


async def test_a_gate_that_closes_twice_is_one(services: Services, live: Storage) -> None:
    for _ in range(2):
        controls = await trip_error_budget(services, gate("ring:broad"))
        assert controls.blocked_scopes == ["ring:broad"]
        assert controls.stop_reason == ""
    assert ((await stored(live)).state, (await stored(live)).blocked_scopes) == (RunState.HELD, ["ring:broad"])
    assert await lines(live) == [("gate_closed", "patchwave")]


async def test_a_gate_may_end_the_run(services: Services, live: Storage) -> None:
    for _ in range(2):
        controls = await trip_error_budget(services, gate("run", ends_run=True))
        assert "used up: 3 failed, 2 may" in controls.stop_reason
        assert controls.blocked_scopes == []
    assert await lines(live) == [("gate_closed", "patchwave")]


async def test_a_stop_keeps_its_first_reason(services: Services, live: Storage) -> None:
    for reason in ("The ring broad was rejected.", "something else"):
        told = await stop_run(services, StopRun(run_id=RUN, reason=reason))
        assert told.stop_reason == "The ring broad was rejected."
    assert (await stored(live)).stop_reason == "The ring broad was rejected."
    assert await lines(live) == [("run_stopped", "patchwave")]
