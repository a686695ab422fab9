"""A start is sent at most once, whatever Azure answers: what is written, what is asked, and how long is waited."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta

import pytest

from activities import submit_operation
from activities.submit_operation import submit
from patchwave.azure.compute import Submission
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.install_request import RebootSetting
from patchwave.domain.azure.instance_view import MachineView
from patchwave.domain.azure.operation import OperationKind, PollReading, PollState
from patchwave.domain.core.outcome import OutcomeKind, Reason
from patchwave.domain.runs.intent import Intent, IntentState
from patchwave.domain.workflow.operation import OperationState, StartOperation, StartResult, StartState
from patchwave.storage import Storage, bucket_key
from patchwave.wiring import Services
from tests.support.factories import command
from tests.support.scripted_azure import (
    KEY,
    NOW,
    ONE,
    RUN_ID,
    URL,
    Script,
    azure,
    intent,
    prepare,
    prepared,
    shown,
    view,
)
from tests.support.simulator import SUBSCRIPTION

__all__ = ["azure", "prepared"]

OPERATION = "0f3c5a1e-2222-4333-8444-555555555555"
ACCEPTED = Submission(accepted=True, async_url=f"{URL}{OPERATION}?p=1", location_url=f"{URL}{OPERATION}?monitor=true")
CONFLICT = ArmFailure(status=409, code="Conflict", message="Another operation is in progress.")
LOST = Submission(
    accepted=False, failure=ArmFailure(status=0, code="ServerDisconnectedError", message="gone"), is_uncertain=True
)
NOTHING = view()
BUCKET = bucket_key(SUBSCRIPTION, "westeurope")


def refused(status: int, code: str = "", message: str = "", retry_after: float | None = None) -> Submission:
    failure = ArmFailure(status=status, code=code, message=message, retry_after=retry_after)
    return Submission(accepted=False, failure=failure, is_uncertain=status >= 500)


BUSY = Submission(accepted=False, failure=CONFLICT)
STOPPED = refused(409, "OperationNotAllowed", "The operation requires the VM to be running.")


async def start(services: Services, kind: OperationKind = OperationKind.INSTALL, **fields: object) -> StartResult:
    request = StartOperation(run_id=RUN_ID, machine_key=KEY, kind=kind).model_copy(update=fields)
    return await submit(services, request)


async def stored(storage: Storage, kind: OperationKind = OperationKind.INSTALL) -> Intent:
    found = await storage.intents.get(RUN_ID, KEY, kind)
    assert found is not None
    return found


# --- what is written and sent


@pytest.mark.parametrize(
    ("kind", "stage", "given"),
    [
        (OperationKind.INSTALL, "installing", timedelta(hours=2)),
        (OperationKind.ASSESS, "assessing", timedelta(hours=1)),
    ],
)
async def test_an_accepted_start_is_written_down_whole(
    services: Services, prepared: Storage, azure: Script, kind: OperationKind, stage: str, given: timedelta
) -> None:
    azure.posts = [ACCEPTED]
    result = await start(services, kind, previous_activity_id="before")
    assert (result.state, result.outcome, result.report) == (StartState.ACCEPTED, None, None)
    assert 0 < result.wait_seconds <= 600
    ((machine, location, parameters, sent),) = azure.sent
    reserve = timedelta(minutes=55)
    assert await stored(prepared, kind) == intent(
        kind,
        state=IntentState.ACCEPTED,
        deadline_at=NOW + given + reserve,
        previous_activity_id="before",
        accepted_at=NOW,
        async_url=ACCEPTED.async_url,
        location_url=ACCEPTED.location_url,
        activity_id=OPERATION,
        parameters=None if parameters is None else parameters.to_azure(),
    )
    assert (machine, location, sent.state, sent.kind) == (ONE, "westeurope", IntentState.DECLARED, kind)
    if parameters is not None:
        assert parameters.maximum_duration == given
        assert parameters.reboot_setting is RebootSetting.IF_REQUIRED
        assert parameters.windows_parameters is None
        assert parameters.linux_parameters is not None
    row = await prepared.machines.get(RUN_ID, KEY)
    assert row is not None
    assert row.stage == stage


async def test_a_start_that_was_accepted_is_not_sent_again(
    services: Services, prepared: Storage, azure: Script
) -> None:
    azure.posts = [ACCEPTED]
    assert [(await start(services)).state for _ in range(3)] == [StartState.ACCEPTED] * 3
    assert len(azure.sent) == 1


async def test_the_location_alone_has_the_id(services: Services, prepared: Storage, azure: Script) -> None:
    azure.posts = [Submission(accepted=True, location_url=f"{URL}{OPERATION}&monitor=true")]
    await start(services)
    assert (await stored(prepared)).activity_id == OPERATION


async def test_an_unsafe_url_is_dropped_and_the_log_does_not_hold_it(
    services: Services, prepared: Storage, azure: Script, caplog: pytest.LogCaptureFixture
) -> None:
    evil = f"https://evil.example/operations/{OPERATION}"
    azure.posts = [Submission(accepted=True, async_url=evil, location_url=ACCEPTED.location_url)]
    with caplog.at_level(logging.WARNING, "patchwave.submit"):
        assert (await start(services)).state is StartState.ACCEPTED
    found = await stored(prepared)
    assert (found.async_url, found.location_url, found.activity_id) == ("", ACCEPTED.location_url, OPERATION)
    assert [KEY in line and "evil" not in line for line in caplog.messages] == [True]


async def test_a_202_without_any_url_is_accepted(services: Services, prepared: Storage, azure: Script) -> None:
    azure.posts = [Submission(accepted=True)]
    assert (await start(services)).state is StartState.ACCEPTED
    found = await stored(prepared)
    assert (found.state, found.activity_id, found.async_url) == (IntentState.ACCEPTED, "", "")


async def test_a_second_attempt_recognizes_the_operation_of_the_first(
    services: Services, prepared: Storage, azure: Script
) -> None:
    azure.posts = [ACCEPTED, Submission(accepted=True)]
    await start(services, OperationKind.ASSESS, previous_activity_id="before")
    azure.later(300)
    assert (
        await start(services, OperationKind.ASSESS, attempt=2, previous_activity_id="before")
    ).state is StartState.ACCEPTED
    found = await stored(prepared, OperationKind.ASSESS)
    assert (found.attempt, found.previous_activity_id, found.is_retry) == (2, OPERATION, False)
    assert [(each.number, each.state, each.activity_id, each.parameters) for each in found.attempts] == [
        (1, IntentState.ACCEPTED, OPERATION, None),
        (2, IntentState.ACCEPTED, "", None),
    ]
    assert found.created_at == found.sent_at == NOW + timedelta(seconds=300)


@pytest.mark.parametrize(
    ("powered_on_by_run", "setting"), [(False, RebootSetting.NEVER), (True, RebootSetting.IF_REQUIRED)]
)
async def test_restarts_apart_are_left_to_the_restart(
    services: Services, storage: Storage, azure: Script, powered_on_by_run: bool, setting: RebootSetting
) -> None:
    await prepare(storage, policy={"rebootMode": "separate"}, powered_on_by_run=powered_on_by_run)
    azure.posts = [ACCEPTED]
    await start(services)
    parameters = azure.sent[0][2]
    assert parameters is not None
    assert parameters.reboot_setting is setting


async def test_a_machine_of_no_known_system_is_skipped(services: Services, storage: Storage, azure: Script) -> None:
    await prepare(storage, os_type="")
    result = await start(services)
    assert result.outcome is not None
    assert (result.outcome.outcome, result.outcome.reason) == (OutcomeKind.SKIPPED, Reason.UNSUPPORTED)
    assert azure.sent == []


async def test_a_machine_that_another_run_has_locked_is_left_alone(
    services: Services, prepared: Storage, azure: Script
) -> None:
    await prepared.leases.acquire(KEY, "another-run", NOW, NOW + timedelta(hours=2))
    result = await start(services)
    assert result.state is StartState.ENDED
    assert result.outcome is not None
    assert (result.outcome.reason, result.outcome.message) == (
        Reason.LOCKED_BY_RUN,
        "The run another-run has locked this machine: it works on it, or has left something running in its guest.",
    )
    assert azure.sent == []


# --- a result in the answer


async def test_a_200_with_the_result_is_kept_and_needs_no_poll(
    services: Services, prepared: Storage, azure: Script
) -> None:
    patch = {"patchId": "p", "name": "curl", "version": "8", "installationState": "Installed"}
    told = {
        "status": "Succeeded",
        "installationActivityId": OPERATION,
        "installedPatchCount": 1,
        "rebootStatus": "NotNeeded",
        "patches": [patch],
    }
    azure.posts = [Submission(accepted=True, reading=PollReading(state=PollState.SUCCEEDED, result=told))]
    result = await start(services)
    assert result.state is StartState.ACCEPTED
    assert result.report is not None
    assert (result.report.state, result.report.adopted) == (OperationState.ENDED, False)
    assert result.report.installation is not None
    assert (result.report.installation.installed_patch_count, result.report.installation.patches) == (1, [])
    found = await stored(prepared)
    assert (found.state, found.activity_id) == (IntentState.ACCEPTED, OPERATION)
    row = await prepared.machines.get(RUN_ID, KEY)
    assert row is not None
    assert row.installation is not None
    assert row.installation.installed == 1


async def test_an_assessment_in_the_answer_is_kept(services: Services, prepared: Storage, azure: Script) -> None:
    told = {"status": "Succeeded", "assessmentActivityId": OPERATION, "criticalAndSecurityPatchCount": 3}
    azure.posts = [Submission(accepted=True, reading=PollReading(state=PollState.SUCCEEDED, result=told))]
    result = await start(services, OperationKind.ASSESS)
    assert result.report is not None
    assert result.report.assessment is not None
    assert result.report.assessment.critical_and_security == 3
    assert (await stored(prepared, OperationKind.ASSESS)).activity_id == OPERATION


# --- refusals that are certain


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (refused(400, "InvalidParameter", "x"), OutcomeKind.FAILED, Reason.OPERATION_FAILED),
        (refused(403, "AuthorizationFailed", "x"), OutcomeKind.SKIPPED, Reason.FORBIDDEN),
        (refused(403, "RequestDisallowedByPolicy", "x"), OutcomeKind.SKIPPED, Reason.DISALLOWED_BY_POLICY),
        (refused(404, "ResourceNotFound", "x"), OutcomeKind.SKIPPED, Reason.NOT_FOUND),
        (STOPPED, OutcomeKind.SKIPPED, Reason.NOT_RUNNING),
        (refused(409, "ScopeLocked", "scope(s) are locked: '/s'"), OutcomeKind.SKIPPED, Reason.SCOPE_LOCKED),
    ],
)
async def test_a_refusal_that_is_certain_ends_it_at_once(
    services: Services, prepared: Storage, azure: Script, answer: Submission, kind: OutcomeKind, reason: Reason
) -> None:
    azure.posts = [answer]
    # The second execution, after a lost result, sends nothing either.
    for result in (await start(services), await start(services)):
        assert (result.state, result.may_run) == (StartState.ENDED, False)
        assert result.outcome is not None
        assert (result.outcome.outcome, result.outcome.reason) == (kind, reason)
    found = await stored(prepared)
    assert (found.state, found.answer) == (IntentState.REFUSED, answer.failure)
    assert (len(azure.sent), azure.read) == (1, [])


async def test_a_refused_token_is_retried_without_a_read(services: Services, prepared: Storage, azure: Script) -> None:
    azure.posts = [refused(401, "ExpiredAuthenticationToken", "x"), ACCEPTED]
    result = await start(services)
    assert (result.state, result.wait_seconds, result.counts_as_attempt) == (StartState.WAIT, 60, True)
    assert result.outcome is not None
    assert result.outcome.reason is Reason.FORBIDDEN
    assert (await stored(prepared)).state is IntentState.REFUSED
    azure.later(60)
    assert (await start(services)).state is StartState.ACCEPTED
    found = await stored(prepared)
    assert (found.is_retry, found.created_at, found.answer) == (False, NOW + timedelta(seconds=60), None)
    assert azure.read == []
    bodies = [parameters.to_azure() for _, _, parameters, _ in azure.sent if parameters is not None]
    assert [(each.number, each.state, each.parameters) for each in found.attempts] == [
        (1, IntentState.REFUSED, bodies[0]),
        (2, IntentState.ACCEPTED, bodies[1]),
    ]
    assert bodies[0]["rebootSetting"] == "IfRequired"
    assert found.attempts[0].answer == "HTTP 401 ExpiredAuthenticationToken: x"


async def test_a_call_that_was_kept_back_is_refused_and_no_attempt(
    services: Services, prepared: Storage, azure: Script
) -> None:
    azure.posts = [refused(429, "LocallyThrottled", "later", retry_after=20)]
    result = await start(services)
    assert (result.state, result.wait_seconds, result.counts_as_attempt) == (StartState.WAIT, 20.05, False)
    assert (await stored(prepared)).state is IntentState.REFUSED


# --- no answer


@pytest.mark.parametrize(
    ("answer", "counts"),
    [(LOST, True), (refused(500, "InternalError", "x"), True), (refused(503, "ServerBusy", "x"), False)],
)
async def test_without_an_answer_the_machine_is_read_until_the_grace_period_is_over(
    services: Services, prepared: Storage, azure: Script, answer: Submission, counts: bool
) -> None:
    foreign = shown("foreign", NOW - timedelta(minutes=6))
    azure.posts, azure.reads = [answer, ACCEPTED], [NOTHING, NOTHING, foreign]
    first = await start(services, previous_activity_id="before")
    assert (first.state, first.wait_seconds, first.counts_as_attempt, first.outcome) == (
        StartState.WAIT,
        30,
        counts,
        None,
    )
    assert (await stored(prepared)).state is IntentState.DECLARED
    assert (await stored(prepared)).answer == answer.failure
    azure.later(60)
    early = await start(services, previous_activity_id="before")
    assert (early.state, early.wait_seconds, early.counts_as_attempt) == (StartState.WAIT, 60.05, False)
    azure.later(59)
    last = await start(services, previous_activity_id="before")
    assert (last.state, last.wait_seconds, last.counts_as_attempt) == (StartState.WAIT, 1.05, False)
    assert len(azure.sent) == 1
    azure.later(1)
    assert (await start(services, previous_activity_id="before")).state is StartState.ACCEPTED
    found = await stored(prepared)
    assert (found.is_retry, found.created_at, found.sent_at) == (True, NOW, NOW + timedelta(seconds=120))
    assert (found.previous_activity_id, found.answer) == ("foreign", None)
    assert len(azure.sent) == 2


async def test_without_an_answer_what_is_ours_is_adopted(services: Services, prepared: Storage, azure: Script) -> None:
    azure.posts, azure.reads = [LOST], [shown("ours", NOW - timedelta(minutes=2))]
    await start(services)
    azure.later(30)
    assert (await start(services)).state is StartState.ACCEPTED
    found = await stored(prepared)
    assert (found.state, found.adopted, found.activity_id) == (IntentState.ACCEPTED, True, "ours")
    assert found.accepted_at == NOW + timedelta(seconds=30)
    assert len(azure.sent) == 1


async def test_an_assessment_is_found_in_its_own_summary(services: Services, prepared: Storage, azure: Script) -> None:
    told = {"assessmentActivityId": "ours", "startTime": NOW.isoformat(), "status": "InProgress"}
    other = {"installationActivityId": "other", "startTime": NOW.isoformat(), "status": "InProgress"}
    azure.posts = [LOST]
    azure.reads = [view(availablePatchSummary=told, lastPatchInstallationSummary=other)]
    await start(services, OperationKind.ASSESS)
    assert (await start(services, OperationKind.ASSESS)).state is StartState.ACCEPTED
    assert (await stored(prepared, OperationKind.ASSESS)).activity_id == "ours"


@pytest.mark.parametrize(
    ("failure", "wait", "counts"),
    [
        (ArmFailure(status=500), 30, True),
        (ArmFailure(status=503), 30, False),
        (ArmFailure(status=0, message="gone"), 30, True),
        (ArmFailure(status=429, retry_after=7), 7.05, False),
        (ArmFailure(status=503, retry_after=7), 7.05, False),
    ],
)
async def test_an_unreadable_machine_is_read_again_later(
    services: Services, prepared: Storage, azure: Script, failure: ArmFailure, wait: float, counts: bool
) -> None:
    azure.posts, azure.reads = [LOST], [failure]
    await start(services)
    azure.later(600)
    result = await start(services)
    assert (result.state, result.wait_seconds, result.counts_as_attempt, result.outcome) == (
        StartState.WAIT,
        wait,
        counts,
        None,
    )
    assert len(azure.sent) == 1


# --- answers that prove nothing


@pytest.mark.parametrize(
    ("answer", "wait", "counts"),
    [
        (BUSY, 120, True),
        (refused(409, "Conflict", "x", retry_after=300), 300.05, True),
        (refused(422, "x", "y"), 120, True),
        (refused(429, "TooManyRequests", "x", retry_after=3), 120, False),
        (refused(429, "TooManyRequests", "x", retry_after=600), 600.05, False),
        (refused(429), 120, False),
    ],
)
async def test_an_answer_that_proves_nothing_waits_for_the_grace(
    services: Services, prepared: Storage, azure: Script, answer: Submission, wait: float, counts: bool
) -> None:
    azure.posts = [answer]
    result = await start(services)
    assert (result.state, result.wait_seconds, result.counts_as_attempt) == (StartState.WAIT, wait, counts)
    assert (result.outcome, result.reserved_at) == (None, None)
    found = await stored(prepared)
    assert (found.state, found.answer) == (IntentState.DECLARED, answer.failure)


@pytest.mark.usefixtures("prepared")
async def test_the_reason_of_an_answer_that_passes_stays_in_the_log(
    services: Services, azure: Script, caplog: pytest.LogCaptureFixture
) -> None:
    """The row of a machine that is patched in the end does not hold it."""
    azure.posts = [refused(409, "Conflict", "see https://h/x?sig=c2VjcmV0")]
    with caplog.at_level(logging.INFO, "patchwave.submit"):
        await start(services)
    [line] = caplog.messages
    assert (
        line == f"Azure did not accept it: install of machine {KEY}, attempt 1: HTTP 409 Conflict: see https://h/x?***"
    )


@pytest.mark.parametrize(
    ("answer", "pause"),
    [
        (refused(429, retry_after=40), 40),
        (refused(429), 30),
        (refused(503, retry_after=50), 50),
        (refused(503), None),
        (refused(409, "Conflict", "x", retry_after=60), None),
    ],
)
async def test_throttling_stops_the_budget_and_nothing_else_does(
    services: Services, prepared: Storage, azure: Script, answer: Submission, pause: float | None
) -> None:
    azure.posts = [answer]
    await start(services)
    until = await prepared.throttling.until(BUCKET)
    assert until == (None if pause is None else NOW + timedelta(seconds=pause))


@pytest.mark.parametrize("retry_after", [40, None])
async def test_a_limit_of_one_machine_throttles_no_other(
    services: Services, prepared: Storage, azure: Script, retry_after: float | None
) -> None:
    azure.posts = [replace(refused(429, retry_after=retry_after), throttles_one_machine=True)]
    result = await start(services)
    assert (result.state, result.counts_as_attempt) == (StartState.WAIT, False)
    assert await prepared.throttling.until(BUCKET) is None


@pytest.mark.parametrize("answer", [BUSY, refused(429)])
async def test_what_began_after_the_post_is_ours_whatever_the_answer_was(
    services: Services, prepared: Storage, azure: Script, answer: Submission
) -> None:
    azure.posts, azure.reads = [answer], [shown("ours", NOW + timedelta(seconds=9))]
    await start(services, previous_activity_id="before")
    azure.later(120)
    assert (await start(services, previous_activity_id="before")).state is StartState.ACCEPTED
    found = await stored(prepared)
    assert (found.state, found.adopted, found.activity_id) == (IntentState.ACCEPTED, True, "ours")
    assert len(azure.sent) == 1


@pytest.mark.parametrize(
    "foreign", [shown("before", NOW + timedelta(seconds=9)), shown("foreign", NOW - timedelta(minutes=6))]
)
async def test_a_busy_post_never_adopts_an_installation_of_others(
    services: Services, prepared: Storage, azure: Script, foreign: MachineView
) -> None:
    azure.posts, azure.reads = [BUSY, BUSY], [foreign, foreign]
    await start(services, previous_activity_id="before")
    azure.later(120)
    second = await start(services, previous_activity_id="before")
    assert (second.state, second.counts_as_attempt) == (StartState.WAIT, True)
    found = await stored(prepared)
    assert (found.state, found.adopted, found.is_retry) == (IntentState.DECLARED, False, False)
    assert found.created_at == found.sent_at == NOW + timedelta(seconds=120)
    assert len(azure.sent) == 2


async def test_while_it_may_be_ours_nothing_is_sent_and_nothing_adopted(
    services: Services, prepared: Storage, azure: Script
) -> None:
    perhaps = shown("perhaps", NOW - timedelta(seconds=20))
    azure.posts, azure.reads = [BUSY], [perhaps, perhaps]
    await start(services)
    azure.later(3_600)
    result = await start(services)
    assert (result.state, result.wait_seconds, result.counts_as_attempt) == (StartState.WAIT, 60, True)
    assert result.outcome is None
    end = await start(services, is_last=True)
    assert (end.state, end.may_run) == (StartState.ENDED, True)
    assert end.outcome is not None
    assert (end.outcome.outcome, end.outcome.reason) == (OutcomeKind.UNKNOWN, Reason.OPERATION_LOST)
    assert "nothing tells whose it is" in end.outcome.message
    assert "HTTP 409 Conflict" in end.outcome.message
    found = await stored(prepared)
    assert (found.state, found.adopted) == (IntentState.DECLARED, False)
    assert len(azure.sent) == 1


async def test_a_throttled_post_costs_one_read_and_no_attempt(
    services: Services, prepared: Storage, azure: Script
) -> None:
    azure.posts, azure.reads = [refused(429, retry_after=3), refused(429, retry_after=3), ACCEPTED], [NOTHING, NOTHING]
    for _ in range(2):
        result = await start(services)
        assert (result.state, result.counts_as_attempt) == (StartState.WAIT, False)
        azure.later(120)
    assert (await start(services)).state is StartState.ACCEPTED
    assert (len(azure.sent), len(azure.read)) == (3, 2)
    assert (await stored(prepared)).is_retry is False


async def test_a_throttled_start_reads_no_machine_before_its_reserved_time(
    services: Services, prepared: Storage, azure: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    azure.posts, azure.reads = [refused(429, retry_after=3)], []
    await start(services)
    slot = NOW + timedelta(minutes=9)
    away = StartResult(state=StartState.WAIT, wait_seconds=540, counts_as_attempt=False, reserved_at=slot)

    async def reserve(*_: object) -> StartResult:
        return away

    monkeypatch.setattr(submit_operation, "_reserve", reserve)
    assert await start(services) == away
    assert (len(azure.sent), len(azure.read)) == (1, 0)


async def test_a_final_error_ends_it_once_the_machine_was_read(
    services: Services, prepared: Storage, azure: Script
) -> None:
    azure.posts, azure.reads = [refused(422, "Unprocessable", "Words of Azure.")], [NOTHING]
    await start(services)
    azure.later(120)
    for result in (await start(services), await start(services)):
        assert result.state is StartState.ENDED
        assert result.outcome is not None
        assert (result.outcome.outcome, result.outcome.reason) == (OutcomeKind.FAILED, Reason.OPERATION_FAILED)
        assert "Words of Azure." in result.outcome.message
    assert (await stored(prepared)).state is IntentState.REFUSED
    assert (len(azure.sent), len(azure.read)) == (1, 1)


# --- when the retries are used up


@pytest.mark.parametrize(
    ("answer", "kind", "reason"),
    [
        (BUSY, OutcomeKind.SKIPPED, Reason.OPERATION_CONFLICT),
        (refused(429), OutcomeKind.FAILED, Reason.THROTTLED),
        (refused(503, "ServerBusy", "x"), OutcomeKind.FAILED, Reason.UNREACHABLE),
        (LOST, OutcomeKind.FAILED, Reason.UNREACHABLE),
    ],
)
async def test_the_last_call_sends_nothing_and_ends_with_the_reason(
    services: Services, prepared: Storage, azure: Script, answer: Submission, kind: OutcomeKind, reason: Reason
) -> None:
    azure.posts, azure.reads = [answer], [NOTHING, NOTHING]
    await start(services)
    azure.later(60)
    early = await start(services, is_last=True)
    assert (early.state, early.counts_as_attempt, early.wait_seconds) == (StartState.WAIT, False, 60.05)
    azure.later(60)
    result = await start(services, is_last=True)
    assert (result.state, result.may_run) == (StartState.ENDED, False)
    assert result.outcome is not None
    assert (result.outcome.outcome, result.outcome.reason) == (kind, reason)
    assert answer.failure is not None
    assert answer.failure.text in result.outcome.message
    assert (await stored(prepared)).state is IntentState.REFUSED
    assert len(azure.sent) == 1


async def test_the_last_call_without_a_post_sends_none(services: Services, prepared: Storage, azure: Script) -> None:
    result = await start(services, is_last=True)
    assert result.outcome is not None
    assert (result.outcome.outcome, result.outcome.reason) == (OutcomeKind.FAILED, Reason.UNREACHABLE)
    assert "Azure gave no answer" in result.outcome.message
    assert azure.sent == []
    assert await prepared.intents.get(RUN_ID, KEY, OperationKind.INSTALL) is None


# --- a stop does not hide what may run


@pytest.mark.parametrize("answer", [LOST, BUSY, refused(429)])
async def test_a_cancelled_run_still_finds_what_was_accepted(
    services: Services, prepared: Storage, azure: Script, answer: Submission
) -> None:
    azure.posts, azure.reads = [answer], [NOTHING, shown("ours", NOW + timedelta(seconds=9))]
    await start(services)
    await prepared.runs.cancel(RUN_ID, command())
    azure.later(60)
    assert (await start(services)).state is StartState.WAIT
    azure.later(60)
    assert (await start(services)).state is StartState.ACCEPTED


async def test_a_cancelled_run_sends_nothing_once_nothing_runs(
    services: Services, prepared: Storage, azure: Script
) -> None:
    azure.posts, azure.reads = [refused(429)], [NOTHING]
    await start(services)
    await prepared.runs.cancel(RUN_ID, command())
    azure.later(120)
    result = await start(services)
    assert result.outcome is not None
    assert result.outcome.outcome is OutcomeKind.CANCELED
    assert len(azure.sent) == 1


# --- Arc machines

ARC = ONE.replace("Microsoft.Compute/virtualMachines", "Microsoft.HybridCompute/machines")
POLL = 30.0


async def test_an_arc_machine_shows_an_installation_late_and_is_given_time(
    services: Services, storage: Storage, azure: Script
) -> None:
    await prepare(storage, id=ARC)
    assert services.settings.poll_seconds == POLL
    azure.posts = [LOST, ACCEPTED]
    azure.reads = [NOTHING, NOTHING, NOTHING]
    await start(services)
    for seconds, sent in ((4 * POLL, 1), (14 * POLL, 1), (2 * POLL, 2)):
        azure.later(seconds)
        await start(services)
        assert len(azure.sent) == sent
    assert azure.settling == [True, True, True]
    assert {machine for machine, *_ in azure.sent} == {ARC}
    assert (await stored(storage)).is_retry


async def test_an_installation_that_an_arc_machine_shows_in_time_is_ours(
    services: Services, storage: Storage, azure: Script
) -> None:
    await prepare(storage, id=ARC)
    azure.posts = [LOST]
    azure.reads = [NOTHING, shown("ours", NOW)]
    await start(services)
    azure.later(6 * POLL)
    await start(services)
    azure.later(6 * POLL)
    assert (await start(services)).state is StartState.ACCEPTED
    found = await stored(storage)
    assert (found.adopted, found.activity_id, len(azure.sent)) == (True, "ours", 1)


async def test_throttling_of_arc_machines_stops_no_region(services: Services, storage: Storage, azure: Script) -> None:
    await prepare(storage, id=ARC)
    azure.posts = [refused(429, "SubscriptionRequestsThrottled", retry_after=60)]
    await start(services)
    assert await storage.throttling.until(BUCKET) is None
    assert await storage.throttling.until(bucket_key(SUBSCRIPTION, "northeurope", is_arc=True)) is not None
