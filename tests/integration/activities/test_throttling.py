"""Being throttled uses up no attempt: every activity says so of a 429, and of a 503 that names a time."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from activities import health, hooks, machine, maintenance_machine, power, snapshot, window
from patchwave.azure.compute import Submission
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.instance_view import MachineView
from patchwave.domain.azure.operation import OperationKind, PollReading, PollState
from patchwave.domain.core.documents import format_instant
from patchwave.domain.core.outcome import OutcomeKind, Reason
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary
from patchwave.domain.machine.at_most_once import AtMostOnceRecord, GuardedCall
from patchwave.domain.machine.health import HealthRequest, HealthResult, HealthState, Moment
from patchwave.domain.machine.hooks import HookState
from patchwave.domain.machine.power import not_started
from patchwave.domain.machine.preflight import Readiness
from patchwave.domain.runs.intent import Intent, IntentState
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.domain.workflow.machine import MachineRef, PowerRequest, PreflightRequest, VerifyRequest
from patchwave.domain.workflow.maintenance_run import PowerState
from patchwave.storage import Storage
from patchwave.storage.at_most_once import AtMostOnceRepository
from patchwave.wiring import Services
from tests.support.azure_bodies import machine as sample
from tests.support.scripted_azure import KEY, NOW, ONE, RUN_ID
from tests.support.simulator import SUBSCRIPTION

THROTTLED = ArmFailure(status=429, code="TooManyRequests", message="too many GETs", retry_after=20)
OVERLOADED = ArmFailure(status=503, code="ServerBusy", retry_after=20)
LOCALLY_THROTTLED = ArmFailure(status=429, code="LocallyThrottled", retry_after=20)
DOWN = ArmFailure(status=503)
BROKEN = ArmFailure(status=500)
ANSWERS = [(THROTTLED, False), (OVERLOADED, False), (LOCALLY_THROTTLED, False), (DOWN, False), (BROKEN, True)]
REF = MachineRef(run_id=RUN_ID, machine_key=KEY)
PREFLIGHT = PreflightRequest(run_id=RUN_ID, machine_key=KEY, start_stopped=True)
CHANGE = PowerRequest(run_id=RUN_ID, machine_key=KEY, since=NOW)


SCHEDULE = {"timeZone": "UTC", "time": "02:00", "window": "PT4H", "recurrence": "FREQ=WEEKLY;BYDAY=SA"}
GOES_ON = {"schedule": SCHEDULE | {"continueInNextWindow": True}}


class Azure:
    """Answers every read, power call and poll alike."""

    def __init__(self, read: MachineView | ArmFailure, answer: ArmFailure = THROTTLED) -> None:
        self.read = read
        self.answer = answer
        self.sent: list[str] = []
        self.kept_for: list[Moment | None] = []

    async def read_machine(self, *_: object, keep_for: Moment | None = None, **__: object) -> MachineView | ArmFailure:
        self.kept_for.append(keep_for)
        return self.read

    async def poll(self, *_: object) -> PollReading:
        return PollReading(state=PollState.UNCLEAR, failure=self.answer, retry_after=self.answer.retry_after)

    async def start(self, *_: object) -> Submission:
        return self._refuse("start")

    async def stop(self, *_: object, **__: object) -> Submission:
        return self._refuse("stop")

    async def restart(self, *_: object) -> Submission:
        return self._refuse("restart")

    def _refuse(self, call: str) -> Submission:
        self.sent.append(call)
        return Submission(accepted=False, failure=self.answer)


async def prepare(
    services: Services,
    storage: Storage,
    read: MachineView | ArmFailure,
    answer: ArmFailure = THROTTLED,
    *,
    window: timedelta | None = None,
    mode: Mode = Mode.PATCH,
    policy: dict[str, Any] | None = None,
    **fields: Any,
) -> Azure:
    """A machine of a run whose window ends so long from now, and Azure that answers so."""
    snapshot = {"name": "monthly", "scope": {"subscriptions": [SUBSCRIPTION]}, **(policy or {})}
    run = Run(
        id=RUN_ID,
        policy="monthly",
        mode=mode,
        state=RunState.QUEUED,
        trigger=Trigger(kind=TriggerKind.HTTP),
        created_at=NOW,
        policy_snapshot=snapshot,
        window_end=None if window is None else NOW + window,
    )
    await storage.runs.create(run)
    row = MachineRecord(
        id=ONE, key=KEY, name="vm-1", subscription_id=SUBSCRIPTION, resource_group="rg-sim", os_type="Linux",
        stage=Stage.ASSESSED, **fields,
    )  # fmt: skip
    await storage.machines.add(RUN_ID, [row])
    azure = Azure(read, answer)
    vars(services).update(resource_manager=azure)
    return azure


def shown(power_state: str) -> MachineView:
    return MachineView.model_validate(sample(power_state))


# --- preflights


@pytest.mark.parametrize(("failure", "counts"), ANSWERS)
async def test_looks(services: Services, storage: Storage, failure: ArmFailure, counts: bool) -> None:
    await prepare(services, storage, failure)
    result = await machine.preflight_machine(services, PREFLIGHT)
    assert (result.preflight.readiness, result.counts_as_attempt, result.requeued) == (Readiness.WAIT, counts, False)
    request = VerifyRequest(run_id=RUN_ID, machine_key=KEY, installed_at=None)
    verified = await machine.verify_machine(services, request)
    assert (verified.is_ready, verified.counts_as_attempt) == (False, counts)
    again = await maintenance_machine.check_machine_power(services, REF)
    assert (again.state, again.counts_as_attempt) == (PowerState.WAIT, counts)
    if failure.retry_after:
        assert result.wait_seconds >= 20
        assert verified.wait_seconds >= 20
        assert again.wait_seconds >= 20


async def test_the_first_preflight_serves_the_health_check_before_too(services: Services, storage: Storage) -> None:
    azure = await prepare(services, storage, shown("running"))
    await machine.preflight_machine(services, PREFLIGHT)
    assert azure.kept_for == [Moment.BEFORE]


async def test_known_facts_of_a_machine_are_not_written_anew(services: Services, storage: Storage) -> None:
    body = sample("running")
    body["properties"]["storageProfile"]["osDisk"]["osType"] = "Windows"
    await prepare(services, storage, MachineView.model_validate(body))
    await machine.preflight_machine(services, PREFLIGHT)
    row = await storage.machines.get(RUN_ID, KEY)
    assert row is not None
    assert row.os_type == "Linux"


@pytest.mark.parametrize(
    ("installed", "is_done_here"),
    [(timedelta(minutes=-10), False), (None, False), (timedelta(0), True)],
    ids=["installed before", "never installed", "installed by this run"],
)
async def test_an_assessment_that_is_not_outdated_counts(
    services: Services,
    storage: Storage,
    installed: timedelta | None,
    is_done_here: bool,
) -> None:
    status = {}
    if installed is not None:
        began = (NOW + installed).isoformat()
        status = {"lastPatchInstallationSummary": {"installationActivityId": "a", "startTime": began}}
    read = MachineView.model_validate(sample("running", patchStatus=status))
    found = AssessmentSummary(status="Succeeded", at=NOW - timedelta(minutes=5))
    done = InstallationSummary(status="Succeeded") if is_done_here else None
    await prepare(services, storage, read, assessment=found, installation=done)
    result = await machine.preflight_machine(services, PREFLIGHT)
    assert (result.assessment, result.assess_attempt) == (found, 1)


@pytest.mark.parametrize(("known", "attempt"), [(None, 1), (1, 2), (3, 4)])
async def test_an_assessment_that_is_outdated_is_made_again(
    services: Services, storage: Storage, known: int | None, attempt: int
) -> None:
    newer = {"installationActivityId": "other", "startTime": NOW.isoformat(), "status": "Succeeded"}
    read = MachineView.model_validate(sample("running", patchStatus={"lastPatchInstallationSummary": newer}))
    found = AssessmentSummary(status="Succeeded", at=NOW - timedelta(minutes=5))
    await prepare(services, storage, read, assessment=found)
    if known is not None:
        await storage.intents.declare(
            Intent(
                run_id=RUN_ID, machine_id=ONE, machine_key=KEY, kind=OperationKind.ASSESS, attempt=known,
                created_at=NOW, sent_at=NOW, deadline_at=NOW + timedelta(hours=1), state=IntentState.REFUSED,
            )
        )  # fmt: skip
    result = await machine.preflight_machine(services, PREFLIGHT)
    assert (result.assessment, result.assess_attempt) == (None, attempt)


async def test_a_throttled_preflight_after_the_window_is_the_end(services: Services, storage: Storage) -> None:
    await prepare(services, storage, THROTTLED, window=timedelta(hours=-1))
    result = await machine.preflight_machine(services, PREFLIGHT)
    assert (result.preflight.readiness, result.requeued) == (Readiness.SKIP, False)
    outcome = result.preflight.outcome
    assert outcome is not None
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.FAILED, Reason.THROTTLED)
    assert "too many GETs" in outcome.message


async def test_a_machine_of_a_continued_run_is_left_for_the_next_window(services: Services, storage: Storage) -> None:
    await prepare(services, storage, THROTTLED, window=timedelta(hours=-1), policy=GOES_ON, powered_on_by_run=True)
    result = await machine.preflight_machine(services, PREFLIGHT)
    assert (result.requeued, result.powered_on_by_run) == (True, True)


async def test_an_assessment_run_waits_behind_its_window(services: Services, storage: Storage) -> None:
    await prepare(services, storage, THROTTLED, window=timedelta(hours=-1), mode=Mode.ASSESS)
    result = await machine.preflight_machine(services, PREFLIGHT)
    assert (result.preflight.readiness, result.counts_as_attempt) == (Readiness.WAIT, False)


# --- power


@pytest.mark.parametrize(("failure", "counts"), ANSWERS)
async def test_reads_of_power(services: Services, storage: Storage, failure: ArmFailure, counts: bool) -> None:
    await prepare(services, storage, failure, powered_on_by_run=True, power_state="deallocated")
    started = await power.start_machine(services, CHANGE)
    stopped = await power.stop_machine(services, CHANGE)
    for result in (started, stopped):
        assert (result.accepted, result.counts_as_attempt, result.wait_seconds > 0) == (False, counts, True)
        assert result.failure == failure


async def test_calls_of_power(services: Services, storage: Storage) -> None:
    azure = await prepare(services, storage, shown("deallocated"))
    started = await power.start_machine(services, CHANGE)
    assert (started.counts_as_attempt, started.failure, started.wait_seconds >= 20) == (False, THROTTLED, True)
    azure.read = shown("running")
    stopped = await power.stop_machine(services, CHANGE)
    assert (stopped.counts_as_attempt, stopped.failure, stopped.wait_seconds >= 20) == (False, THROTTLED, True)
    assert azure.sent == ["start", "stop"]


@pytest.mark.parametrize(("minutes", "least", "most"), [(1, 20, 33), (10, 60, 60)])
async def test_a_change_of_power_that_takes_long_is_polled_less_often(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch, minutes: int, least: float, most: float
) -> None:
    await prepare(services, storage, shown("running"), BROKEN, powered_on_by_run=True)
    monkeypatch.setattr(power, "now", lambda: NOW)
    guard = AtMostOnceRecord(
        run_id=RUN_ID, machine_key=KEY, call=GuardedCall.STOP, token="t", change_id=format_instant(CHANGE.since),
        created_at=NOW - timedelta(minutes=minutes), deadline_at=NOW + timedelta(minutes=5),
        state=IntentState.ACCEPTED, async_url="https://a.example/op",
    )  # fmt: skip
    await storage.at_most_once.declare(guard)
    waiting = await power.stop_machine(services, CHANGE)
    assert (waiting.is_open, waiting.counts_as_attempt) == (True, False)
    assert least <= waiting.wait_seconds <= most


@pytest.mark.parametrize(("policy", "left"), [({}, False), (GOES_ON, True)])
async def test_behind_the_window_a_throttled_start_is_given_up(
    services: Services, storage: Storage, policy: dict[str, Any], left: bool
) -> None:
    await prepare(services, storage, THROTTLED, window=timedelta(hours=-1), policy=policy)
    started = await power.start_machine(services, CHANGE)
    assert (started.accepted, started.wait_seconds, started.requeued) == (False, 0, left)
    off = machine.evaluate(shown("deallocated"), start_stopped=False).outcome
    assert off is not None
    outcome = not_started(off, started.failure)
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.SKIPPED, Reason.THROTTLED)
    assert "too many GETs" in outcome.message


async def test_a_throttled_restart_keeps_all_its_time(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    azure = await prepare(services, storage, shown("running"))
    at = NOW
    monkeypatch.setattr(power, "now", lambda: at)
    for _ in range(4):
        asked = await power.restart_machine(services, REF)
        assert (asked.counts_as_attempt, asked.failure, asked.wait_seconds >= 20) == (False, THROTTLED, True)
        # What a 429 says is believed once the machine has shown nothing for a while.
        at += timedelta(minutes=20)
    assert azure.sent == ["restart"] * 4


async def test_a_restart_that_another_execution_sends_is_polled_later(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    azure = await prepare(services, storage, shown("running"))

    async def declare(_: Storage, guard: AtMostOnceRecord) -> AtMostOnceRecord:
        return guard.model_copy(update={"token": "another"})

    monkeypatch.setattr(AtMostOnceRepository, "declare", declare)
    asked = await power.restart_machine(services, REF)
    assert (asked.accepted, asked.is_open, asked.wait_seconds > 0) == (False, True, True)
    assert azure.sent == []


@pytest.mark.parametrize(("stage", "fails"), [(Stage.RESTARTING, True), (Stage.INSTALLED, False)])
async def test_a_restart_in_another_window_has_all_its_time_again(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch, stage: Stage, fails: bool
) -> None:
    azure = await prepare(services, storage, shown("running"), BROKEN)
    at = NOW
    monkeypatch.setattr(power, "now", lambda: at)
    assert (await power.restart_machine(services, REF)).wait_seconds
    at += timedelta(minutes=40)
    await storage.machines.update(RUN_ID, KEY, stage)
    again = await power.restart_machine(services, REF)
    assert (again.wait_seconds == 0) is fails
    assert azure.sent == ["restart"] * 2


@pytest.mark.parametrize(("failure", "is_over"), [(THROTTLED, False), (DOWN, False), (BROKEN, True)])
async def test_a_restart_whose_polls_are_throttled_is_not_taken_for_done(
    services: Services, storage: Storage, failure: ArmFailure, is_over: bool
) -> None:
    await prepare(services, storage, shown("running"), failure)
    guard = AtMostOnceRecord(
        run_id=RUN_ID, machine_key=KEY, call=GuardedCall.RESTART, token="t", created_at=NOW - timedelta(minutes=10),
        deadline_at=NOW + timedelta(minutes=20), state=IntentState.ACCEPTED, async_url="https://a.example/op",
    )  # fmt: skip
    await storage.at_most_once.declare(guard)
    await storage.at_most_once.save(guard)
    polled = await power.restart_machine(services, REF)
    assert polled.accepted is is_over
    if not is_over:
        assert (polled.counts_as_attempt, polled.wait_seconds >= 20) == (False, True)


@pytest.mark.parametrize(("seconds", "is_over"), [(-1, False), (0, True)])
async def test_a_restart_is_given_up_at_its_deadline(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch, seconds: int, is_over: bool
) -> None:
    azure = await prepare(services, storage, shown("running"))

    async def runs(*_: object) -> PollReading:
        return PollReading(state=PollState.RUNNING)

    monkeypatch.setattr(azure, "poll", runs)
    deadline = NOW + timedelta(minutes=20)
    guard = AtMostOnceRecord(
        run_id=RUN_ID, machine_key=KEY, call=GuardedCall.RESTART, token="t", created_at=NOW, deadline_at=deadline,
        state=IntentState.ACCEPTED, async_url="https://a.example/op",
    )  # fmt: skip
    await storage.at_most_once.declare(guard)
    monkeypatch.setattr(power, "now", lambda: deadline + timedelta(seconds=seconds))
    polled = await power.restart_machine(services, REF)
    assert (polled.accepted, polled.wait_seconds == 0) == (False, is_over)
    assert (polled.failure is not None) is is_over


async def test_a_restart_that_shows_is_followed_from_then_on(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = MachineView.model_validate(sample("running", vmAgent={"statuses": []}))
    azure = await prepare(services, storage, read)
    guard = AtMostOnceRecord(
        run_id=RUN_ID, machine_key=KEY, call=GuardedCall.RESTART, token="t", created_at=NOW - timedelta(minutes=1),
        deadline_at=NOW + timedelta(minutes=20),
    )  # fmt: skip
    await storage.at_most_once.declare(guard)
    await storage.machines.update(RUN_ID, KEY, Stage.RESTARTING)
    monkeypatch.setattr(power, "now", lambda: NOW)
    shows = await power.restart_machine(services, REF)
    assert (shows.accepted, shows.is_open, shows.wait_seconds > 0) == (False, False, True)
    kept = await storage.at_most_once.get(RUN_ID, KEY, GuardedCall.RESTART)
    assert kept is not None
    assert kept.state is IntentState.ACCEPTED
    assert azure.sent == []


@pytest.mark.parametrize(("failure", "counts"), ANSWERS)
async def test_a_restart_that_cannot_be_checked_stays_open(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch, failure: ArmFailure, counts: bool
) -> None:
    azure = await prepare(services, storage, failure)
    guard = AtMostOnceRecord(
        run_id=RUN_ID, machine_key=KEY, call=GuardedCall.RESTART, token="t", created_at=NOW - timedelta(minutes=1),
        deadline_at=NOW + timedelta(minutes=20),
    )  # fmt: skip
    await storage.at_most_once.declare(guard)
    await storage.machines.update(RUN_ID, KEY, Stage.RESTARTING)
    monkeypatch.setattr(power, "now", lambda: NOW)
    looked = await power.restart_machine(services, REF)
    assert (looked.accepted, looked.is_open, looked.counts_as_attempt) == (False, True, counts)
    assert looked.failure == failure
    assert azure.sent == []


# --- health


async def test_health_is_checked_for_as_long_as_it_is_throttled(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    off = {"health": {"resourceHealth": False}}
    await prepare(services, storage, THROTTLED, window=timedelta(hours=1), policy=off)

    async def check(moment: Moment) -> HealthResult:
        request = HealthRequest(run_id=RUN_ID, machine_key=KEY, moment=moment, looked_for=36_000)
        return await health.check_health(services, request)

    before = await check(Moment.BEFORE)
    assert (before.state, before.counts_as_attempt, before.wait_seconds) == (HealthState.WAIT, False, 20)
    row = await storage.machines.get(RUN_ID, KEY)
    assert row is not None
    assert row.health_before is None, "nothing is known of it yet"
    monkeypatch.setattr(window, "now", lambda: NOW + timedelta(hours=2))
    assert (await check(Moment.BEFORE)).state is HealthState.OK


# --- hooks


class Snapshots:
    async def read_os_disk(self, *_: object) -> ArmFailure:
        return THROTTLED


async def test_a_throttled_snapshot_is_waited_for_until_no_time_is_left(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    policy = {"hooks": {"snapshot": {"keep": "PT24H"}}}
    await prepare(services, storage, THROTTLED, window=timedelta(hours=4), policy=policy)
    vars(services).update(snapshots=Snapshots())
    waits = await snapshot.take_snapshot(services, REF)
    assert (waits.state, waits.counts_as_attempt, waits.wait_seconds >= 20) == (HookState.WAIT, False, True)
    monkeypatch.setattr(hooks, "now", lambda: NOW + timedelta(hours=4))
    ended = await snapshot.take_snapshot(services, REF)
    assert ended.state is HookState.FAILED
    assert ended.outcome is not None
    assert ended.outcome.reason is Reason.WINDOW_CLOSED
