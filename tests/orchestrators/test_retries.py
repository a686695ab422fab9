"""Retry budgets: attempts are counted, throttling is not, and ends in a day; the same in every loop that asks Azure."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import datetime
from typing import Any

import pytest

from local.functions_host.durable.workbench import Workbench
from orchestrators.machine import patch_machine
from orchestrators.operation import await_operation
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.machine.health import HealthResult, HealthState
from patchwave.domain.machine.preflight import Preflight, Readiness
from patchwave.domain.runs.run import Mode, Step
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.contracts import Signal
from patchwave.domain.workflow.machine import MachineWork, PowerResult, PreflightResult, Verified
from patchwave.domain.workflow.operation import StartResult, StartState
from patchwave.domain.workflow.run import MachineOptions
from tests.support import scripted_fleet
from tests.support.scripted_fleet import Fleet, Script

KEY = "b" * 24
FAILURE = ArmFailure(status=429, code="TooManyRequests", message="too many")
OUTCOME = Outcome(outcome=OutcomeKind.FAILED, reason=Reason.THROTTLED, message="Azure is limiting requests. (HTTP 429)")
PREFLIGHT = PreflightResult(
    preflight=Preflight(readiness=Readiness.WAIT, outcome=OUTCOME), wait_seconds=20, counts_as_attempt=False
)
SEEN = Verified(is_ready=False, wait_seconds=20, counts_as_attempt=False)
POWER = PowerResult(accepted=False, wait_seconds=20, failure=FAILURE, counts_as_attempt=False)
HEALTH = HealthResult(state=HealthState.WAIT, wait_seconds=20, counts_as_attempt=False)
START = StartResult(state=StartState.WAIT, wait_seconds=20, counts_as_attempt=False)
DONE = PowerResult(accepted=True)
TAKEN = PowerResult(accepted=True, wait_seconds=30)


class Played:
    """A machine taken through a step, and the moments at which one activity was asked."""

    def __init__(
        self, script: Script, watched: str, *, step: Step = Step.PATCH, cancel_at: int = 0, **options: bool
    ) -> None:
        self.fleet = Fleet([KEY], {KEY: script})
        self.at: list[datetime] = []
        self.inputs: list[Any] = []
        answer = self.fleet.activities()[watched]
        work = MachineWork(
            run_id=scripted_fleet.RUN_ID,
            machine_key=KEY,
            step=step,
            options=MachineOptions(mode=Mode.PATCH).model_copy(update={"start_stopped": True, **options}),
            phase="phase",
        )

        def watch(data: Any) -> Any:
            self.at.append(bench.now())
            self.inputs.append(data)
            if len(self.at) == cancel_at:
                # From inside, so that virtual time cannot pass between the cancel and its delivery.
                bench.client.raise_orchestration_event("machine", Signal.CANCEL)
                time.sleep(0.3)
            return answer(data)

        activities = self.fleet.activities() | {watched: watch}
        with Workbench([patch_machine, await_operation], activities) as bench:
            ended = bench.run(contracts.PATCH_MACHINE.name, work.to_wire(), instance_id="machine", timeout=90)
            self.events = len(ended.history)

    @property
    def outcome(self) -> tuple[str, str]:
        return self.fleet.outcomes[KEY]

    @property
    def message(self) -> str:
        return str(self.fleet.recorded[KEY][0]["outcome"]["message"])

    @property
    def minutes(self) -> float:
        """From the first time that it was asked to the last."""
        return (self.at[-1] - self.at[0]).total_seconds() / 60


THIRTY: dict[str, tuple[Callable[[], Script], str, Step]] = {
    "preflight": (
        lambda: Script(preflights=[PREFLIGHT] * 30 + [scripted_fleet.READY]),
        contracts.PREFLIGHT_MACHINE.name,
        Step.PATCH,
    ),
    "verify": (
        lambda: Script(verifications=[SEEN] * 30 + [scripted_fleet.READY_AGAIN]),
        contracts.VERIFY_MACHINE.name,
        Step.PATCH,
    ),
    "health": (lambda: Script(health=[HEALTH] * 30 + [scripted_fleet.WELL]), contracts.CHECK_HEALTH.name, Step.PATCH),
    "start": (
        lambda: Script(
            preflights=[scripted_fleet.NEEDS_START] * 31 + [scripted_fleet.READY], starts=[POWER] * 30 + [TAKEN]
        ),
        contracts.START_MACHINE.name,
        Step.PATCH,
    ),
    "install": (
        lambda: Script(install_starts=[START] * 30 + [scripted_fleet.ACCEPTED]),
        contracts.INSTALL_PATCHES.name,
        Step.PATCH,
    ),
    "stop": (
        lambda: Script(preflights=[scripted_fleet.NEEDS_START, scripted_fleet.READY], stops=[POWER] * 30 + [DONE]),
        contracts.STOP_MACHINE.name,
        Step.PATCH,
    ),
}


@pytest.mark.parametrize("where", THIRTY)
def test_thirty_times_throttled_and_then_done(where: str) -> None:
    script, watched, step = THIRTY[where]
    played = Played(script(), watched, step=step, health=where == "health")
    assert played.outcome == ("patched", "ok")
    assert len(played.at) == 31 + (where == "health")
    # Ten waits as asked for, then a tenth of the time that it has lasted.
    pauses = [(later - at).total_seconds() for at, later in zip(played.at, played.at[1:], strict=False)][:30]
    assert all(20 <= pause <= 45 for pause in pauses[:10]) or where == "start"
    assert 120 <= pauses[29] <= 160
    assert 22 <= played.minutes <= 45
    if where == "health":
        assert {asked["lookedFor"] for asked in played.inputs} == {0}, "it is no part of the time to settle"


FOR_EVER: dict[str, tuple[Callable[[], Script], str, tuple[str, str], str]] = {
    "preflight": (
        lambda: Script(preflights=[PREFLIGHT]),
        contracts.PREFLIGHT_MACHINE.name,
        ("failed", "throttled"),
        "HTTP 429",
    ),
    "stop": (
        lambda: Script(preflights=[scripted_fleet.NEEDS_START, scripted_fleet.READY], stops=[POWER]),
        contracts.STOP_MACHINE.name,
        ("patched_with_warnings", "power_not_restored"),
        "TooManyRequests",
    ),
}


@pytest.mark.parametrize("where", FOR_EVER)
def test_throttling_ends_in_a_day_and_is_the_reason(where: str) -> None:
    script, watched, outcome, said = FOR_EVER[where]
    played = Played(script(), watched)
    assert played.outcome == outcome
    assert said in played.message
    assert 23 * 60 <= played.minutes <= 24 * 60 + 5
    assert len(played.at) <= 160
    assert played.events <= 1_500


def test_a_start_that_is_throttled_for_a_day_is_settled_for_another_and_keeps_its_lock() -> None:
    played = Played(Script(install_starts=[START]), contracts.INSTALL_PATCHES.name)
    assert played.outcome == ("unknown", "operation_lost")
    assert played.fleet.recorded[KEY][0]["keepLease"] is True
    settling = [asked["isLast"] for asked in played.inputs].index(True)
    assert not any(asked["isLast"] for asked in played.inputs[:settling])
    assert 23 * 60 <= (played.at[settling - 1] - played.at[0]).total_seconds() / 60 <= 24 * 60 + 5
    assert 23 * 60 <= (played.at[-1] - played.at[settling]).total_seconds() / 60 <= 24 * 60 + 5
    assert all(asked["isLast"] for asked in played.inputs[settling:])
    assert played.events <= 2_500


def test_tries_that_count_are_counted_beside_those_that_do_not() -> None:
    locked = scripted_fleet.LOCKED
    mixed = [PREFLIGHT, locked] * 5 + [PREFLIGHT, locked, scripted_fleet.READY]
    played = Played(Script(preflights=mixed), contracts.PREFLIGHT_MACHINE.name)
    assert played.outcome == ("skipped", "locked_by_run")
    assert len(played.at) == 12


CANCELED_START = StartResult(state=StartState.ENDED, outcome=Outcome.canceled())
LONG = 780


@pytest.mark.parametrize(
    ("script", "watched"),
    [
        (Script(install_starts=[START.model_copy(update={"wait_seconds": LONG})] * 2 + [CANCELED_START]), "install"),
        (
            Script(
                preflights=[
                    scripted_fleet.NEEDS_START,
                    scripted_fleet.NEEDS_START,
                    scripted_fleet.NEEDS_START,
                    scripted_fleet.STOPPED,
                ],
                starts=[POWER.model_copy(update={"wait_seconds": LONG})],
            ),
            "start",
        ),
        (
            Script(
                preflights=[scripted_fleet.NEEDS_START, scripted_fleet.READY],
                stops=[POWER.model_copy(update={"wait_seconds": LONG})] * 2 + [DONE],
            ),
            "stop",
        ),
    ],
)
def test_a_cancel_ends_the_wait_for_what_azure_throttles(script: Script, watched: str) -> None:
    activity = {
        "install": contracts.INSTALL_PATCHES.name,
        "start": contracts.START_MACHINE.name,
        "stop": contracts.STOP_MACHINE.name,
    }[watched]
    played = Played(script, activity, cancel_at=2)
    assert LONG - 10 <= (played.at[1] - played.at[0]).total_seconds() <= LONG + 20
    if watched != "start":
        assert (played.at[2] - played.at[1]).total_seconds() < 10
    ended = {
        "install": ("canceled", "canceled_by_user"),
        "start": ("skipped", "not_running"),
        "stop": ("patched", "ok"),
    }
    assert played.outcome == ended[watched]


def test_a_cancel_ends_the_wait_for_a_preflight() -> None:
    long = PREFLIGHT.model_copy(update={"wait_seconds": 780})
    ended = PreflightResult(preflight=Preflight(readiness=Readiness.SKIP, outcome=Outcome.canceled()))
    played = Played(Script(preflights=[long, long, ended]), contracts.PREFLIGHT_MACHINE.name, cancel_at=2)
    assert played.outcome == ("canceled", "canceled_by_user")
    assert 770 <= (played.at[1] - played.at[0]).total_seconds() <= 800
    assert (played.at[2] - played.at[1]).total_seconds() < 10


# --- behind the window


REQUEUED = PreflightResult(preflight=Preflight(readiness=Readiness.SKIP, outcome=OUTCOME), requeued=True)


@pytest.mark.parametrize(
    ("step", "stage", "left"),
    [(Step.ASSESS, "ready", False), (Step.PATCH, "ready", True), (Step.RESTART, "installed", True)],
)
def test_a_machine_that_is_left_waits_for_another_window(step: Step, stage: str, left: bool) -> None:
    played = Played(Script(preflights=[REQUEUED]), contracts.PREFLIGHT_MACHINE.name, step=step)
    assert played.fleet.recorded == {}
    [released] = played.fleet.calls_of(contracts.RELEASE_MACHINE.name)
    assert (released["stage"], released["requeued"]) == (stage, left)
    assert played.fleet.power == []


def test_one_that_an_earlier_turn_started_is_stopped_meanwhile() -> None:
    ours = REQUEUED.model_copy(update={"powered_on_by_run": True})
    played = Played(Script(preflights=[ours]), contracts.PREFLIGHT_MACHINE.name)
    assert played.fleet.recorded == {}
    assert played.fleet.power == [("stop", KEY)]


def test_a_start_that_was_throttled_to_the_end_is_left_too() -> None:
    has_skipped_machines = PowerResult(accepted=False, failure=FAILURE, requeued=True)
    script = Script(
        preflights=[scripted_fleet.NEEDS_START, scripted_fleet.NEEDS_START, scripted_fleet.STOPPED],
        starts=[POWER, has_skipped_machines],
    )
    played = Played(script, contracts.START_MACHINE.name)
    assert played.fleet.recorded == {}
    assert played.fleet.power == [("start", KEY), ("start", KEY), ("stop", KEY)]
    [released] = played.fleet.calls_of(contracts.RELEASE_MACHINE.name)
    assert (released["stage"], released["requeued"]) == ("ready", True)
