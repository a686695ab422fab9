"""assess_machine and install_patches: submit an operation at most once (safety rules 1, 2 and 6 to 9).

The order keeps a machine safe: the intent is written before the POST, and Azure's response after it. An intent stays
declared as long as the POST may have been accepted. Before another POST, the machine's patch status decides whether the
earlier one was accepted.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

from activities.context import MachineContext, acquire_lease, load_machine, locked_by, now, retry_after, wait_seconds
from activities.patch_pinning import what_to_install
from activities.poll_operation import first_poll_delay, report_of
from activities.window import frozen
from patchwave.azure.rate_limiter import START_MAX_WAIT_POLLS, RateLimit
from patchwave.azure.virtual_machines import Submission
from patchwave.domain.azure.errors import NO_ANSWER, ArmFailure, classify, is_throttling
from patchwave.domain.azure.install_request import InstallParameters, LinuxParameters, RebootSetting, WindowsParameters
from patchwave.domain.azure.instance_view import MachineView
from patchwave.domain.azure.operation import OperationKind, UnsafeUrl, check_operation_url, operation_id
from patchwave.domain.azure.patch_results import PatchSummary
from patchwave.domain.core.documents import str_or_empty
from patchwave.domain.core.outcome import Outcome
from patchwave.domain.fleet.exclusions import unknown_system
from patchwave.domain.policy.install import shortest_installation
from patchwave.domain.policy.rollout import RebootMode
from patchwave.domain.policy.scope import OsType
from patchwave.domain.runs import outcome_rules as verdicts
from patchwave.domain.runs.intent import Intent, IntentState, Origin, is_unanswered, origin, shorten
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.scheduling.window import deadline, permitted_duration
from patchwave.domain.workflow.operation import OperationReport, StartOperation, StartResult, StartState
from patchwave.domain.workflow.start_blocker import start_blocker
from patchwave.storage import bucket_key
from patchwave.wiring import Services

_LOG = logging.getLogger("patchwave.submit")
_ASSESS_TIME = timedelta(hours=1)
"""Expected duration of an assessment at most. It usually takes minutes; beyond this it hangs."""
_GRACE_POLLS = 4
"""Poll intervals after which a machine that shows no trace of an operation did not receive it. The extension reports
within seconds."""
_ARC_GRACE_POLLS = 20
"""The same of an Arc machine, whose installations only Resource Graph shows, minutes late."""


class _Resolved(NamedTuple):
    """The previous POST, if there was one: Azure certainly did not accept it."""

    intent: Intent | None
    previous_activity_id: str
    """The machine's newest operation that is not ours."""
    earliest: datetime | None
    """When the first POST without a response was sent: its operation may still appear."""
    has_reservation: bool


class _Permission(NamedTuple):
    """The machine may get the POST."""

    os_type: OsType
    duration: timedelta
    parameters: InstallParameters | None
    """``None`` for an assessment."""


async def submit(services: Services, request: StartOperation) -> StartResult:
    """Submit an assessment or an installation.

    Resolve the POST before this one, pass the gates, declare the intent, send. Each step may end or defer it.
    """
    context = await load_machine(services, request.run_id, request.machine_key)
    resolved = await _resolve(context, request)
    if isinstance(resolved, StartResult):
        return resolved
    permission = await _pass_gates(context, request, has_reservation=resolved.has_reservation)
    if isinstance(permission, StartResult):
        return permission
    declared = await _declare(context, request, resolved, permission)
    if isinstance(declared, StartResult):
        return declared
    # With hundreds of machines in flight, the gates were passed a while ago.
    blocked = await _recheck_commands(context, declared)
    if blocked is not None:
        return blocked
    return await _conclude(context, declared, await _send(context, declared, permission.parameters))


async def _resolve(context: MachineContext, request: StartOperation) -> _Resolved | StartResult:
    """Find out what became of the POST of an earlier call, which may have been accepted."""
    intent = await context.storage.intents.find(request.run_id, request.machine_key, request.kind)
    if intent is None:
        if request.is_last:
            return _ended(NO_ANSWER)
        return _Resolved(None, request.previous_activity_id, None, has_reservation=False)
    has_reservation = _is_throttled(intent, request) and start_blocker(context.run, context.machine) is None
    if has_reservation:
        # Wait for the reservation before the machine is read: one read for each POST.
        later = await _reserve(context, request)
        if later is not None:
            return later
    if intent.attempt < request.attempt:
        # A new attempt: the operation of the previous one must not be taken for it.
        return _Resolved(intent, intent.activity_id or request.previous_activity_id, None, has_reservation)
    settled = await _settle_post(context, request, intent)
    if isinstance(settled, StartResult):
        return settled
    previous, earliest = settled
    return _Resolved(intent, previous, earliest, has_reservation)


async def _pass_gates(
    context: MachineContext, request: StartOperation, *, has_reservation: bool
) -> _Permission | StartResult:
    """Commands, rate limit, lease, freezes, window and pins may each block the POST."""
    blocked = start_blocker(context.run, context.machine)
    if blocked is None and not has_reservation:
        blocked = await _reserve(context, request)
    blocked = blocked or await _take_lease(context)
    if blocked is not None:
        return blocked
    held = await frozen(context) if request.kind is OperationKind.INSTALL else None
    if held is not None:
        return _ended_with(held)
    os_type = OsType.read(context.machine.os_type)
    if os_type is None:
        return _ended_with(unknown_system())
    duration = _duration(context, request.kind, os_type, now())
    if request.kind is OperationKind.INSTALL and context.is_before_window:
        # The admission has let it through too early: no installation starts by day, whatever the reason.
        return StartResult(state=StartState.REQUEUED)
    if duration is None:
        if context.policy.continues:
            return StartResult(state=StartState.REQUEUED)
        return _ended_with(verdicts.window_closed(shortest_installation(context.policy.install, os_type)))
    parameters = await _parameters(context, os_type, duration) if request.kind is OperationKind.INSTALL else None
    if isinstance(parameters, Outcome):
        return _ended_with(parameters)
    return _Permission(os_type, duration, parameters)


async def _declare(
    context: MachineContext, request: StartOperation, resolved: _Resolved, permission: _Permission
) -> Intent | StartResult:
    """Write the intent before the POST, so that a crash cannot hide it."""
    sent_at = now()
    declared = Intent(
        run_id=request.run_id,
        machine_key=request.machine_key,
        machine_id=context.machine.id,
        location=context.machine.location,
        os_type=permission.os_type.value,
        kind=request.kind,
        attempt=request.attempt,
        created_at=resolved.earliest or sent_at,
        sent_at=sent_at,
        deadline_at=deadline(sent_at, permission.duration),
        previous_activity_id=resolved.previous_activity_id,
        is_retry=resolved.earliest is not None,
        parameters=shorten(permission.parameters.to_azure()) if permission.parameters is not None else None,
    ).following(resolved.intent)
    intents = context.storage.intents
    if resolved.intent is None:
        _, is_ours_to_send = await intents.declare(declared)
    else:
        is_ours_to_send = await intents.redeclare(resolved.intent, declared)
    if is_ours_to_send:
        return declared
    # Another execution of this activity is running, or died: the next call resolves its intent.
    return StartResult(state=StartState.WAIT, wait_seconds=wait_seconds(context.settings), counts_as_attempt=False)


def _is_throttled(intent: Intent, request: StartOperation) -> bool:
    """Whether Azure throttled the newest POST, and another one may follow."""
    if intent.attempt < request.attempt or intent.state is not IntentState.DECLARED:
        return False
    return intent.answer is not None and intent.answer.status == 429 and not request.is_last


async def _settle_post(
    context: MachineContext, request: StartOperation, intent: Intent
) -> tuple[str, datetime | None] | StartResult:
    """Resolve the previous POST: the result that ends this call, or what the next POST needs to know.

    That is the machine's newest operation that is not ours, and the time before the first POST without a response, if
    there was one: its operation may still appear.
    """
    is_retry = intent.is_retry
    previous = request.previous_activity_id or intent.previous_activity_id
    if intent.state is IntentState.ACCEPTED:
        return _accepted(context, intent)
    if intent.state is IntentState.DECLARED:
        settled = await _ask_machine(context, request, intent)
        if isinstance(settled, StartResult):
            return settled
        is_retry = is_retry or is_unanswered(intent)
        previous = settled or previous
    # From here on the POST was certainly not accepted.
    answer = intent.answer or NO_ANSWER
    if request.is_last or (intent.answer is not None and not classify(answer).kind.may_pass):
        await context.storage.intents.save(intent.model_copy(update={"state": IntentState.REFUSED}))
        return _ended(answer)
    return previous, intent.created_at if is_retry else None


async def _send(context: MachineContext, intent: Intent, parameters: InstallParameters | None) -> Submission:
    manager, location = context.services.resource_manager, context.machine.location
    if parameters is None:
        return await manager.assess(context.machine_id, location, intent)
    return await manager.install(context.machine_id, location, parameters, intent)


async def _parameters(context: MachineContext, os_type: OsType, duration: timedelta) -> InstallParameters | Outcome:
    chosen = await what_to_install(context, os_type)
    if isinstance(chosen, Outcome):
        return chosen
    # A machine that was started for the installation restarts during it: no user depends on it.
    restarts_apart = context.policy.reboot_mode is RebootMode.SEPARATE and not context.machine.powered_on_by_run
    return InstallParameters(
        maximum_duration=duration,
        reboot_setting=RebootSetting.NEVER if restarts_apart else context.policy.install.reboot_setting,
        windows_parameters=chosen if isinstance(chosen, WindowsParameters) else None,
        linux_parameters=chosen if isinstance(chosen, LinuxParameters) else None,
    )


async def _take_lease(context: MachineContext) -> StartResult | None:
    """Leave the machine alone when another run holds its lease (rule 6)."""
    # The lease of the preflight may have expired while the request waited.
    holder = await acquire_lease(context)
    return None if holder is None else _ended_with(locked_by(holder))


async def _reserve(context: MachineContext, request: StartOperation) -> StartResult | None:
    """Reserve a rate-limit slot and wait for it. For a distant slot, the orchestrator sleeps instead."""
    rate_limits, name = context.services.rate_limits, _bucket(context)
    rate_limit = _rate_limit(context)
    if rate_limits.is_time_to_ask(name) and (until := await context.storage.throttling.until(name)) is not None:
        rate_limit.throttle_until(until.timestamp())
    slot = request.reserved_at.timestamp() if request.reserved_at else rate_limit.reserve()
    later = await rate_limit.wait_until(slot, context.settings.poll_seconds * START_MAX_WAIT_POLLS)
    if later is None:
        return None
    moment = datetime.fromtimestamp(later, UTC)
    return StartResult(
        state=StartState.WAIT,
        wait_seconds=(moment - now()).total_seconds(),
        counts_as_attempt=False,
        reserved_at=moment,
    )


def _rate_limit(context: MachineContext) -> RateLimit:
    rate_limits, machine = context.services.rate_limits, context.machine_id
    if machine.is_arc:
        return rate_limits.of_arc_patches(machine.subscription_id)
    return rate_limits.of_patches(machine.subscription_id, context.machine.location)


async def _recheck_commands(context: MachineContext, declared: Intent) -> StartResult | None:
    """Read the commands to the run and the machine again, right before the POST."""
    storage = context.storage
    stage = Stage.ASSESSING if declared.kind is OperationKind.ASSESS else Stage.INSTALLING
    skip = await storage.machines.begin_operation(declared.run_id, declared.machine_key, stage, now())
    run = await storage.runs.get(declared.run_id)
    blocked = start_blocker(run or context.run, context.machine.model_copy(update={"skip_command": skip}))
    if blocked is not None:
        withheld = {"state": IntentState.REFUSED, "is_withheld": True}
        await storage.intents.save(declared.model_copy(update=withheld))
    return blocked


def _duration(context: MachineContext, kind: OperationKind, os_type: OsType, at: datetime) -> timedelta | None:
    """The maximum duration of the operation; ``None`` when the window leaves too little."""
    if kind is OperationKind.ASSESS:
        return _ASSESS_TIME
    return permitted_duration(at, context.window_end, context.policy.install, os_type)


async def _conclude(context: MachineContext, intent: Intent, submission: Submission) -> StartResult:
    """Store Azure's response, and return how to continue."""
    storage = context.storage
    if submission.accepted:
        accepted = _accept(context, intent, submission)
        report = None
        if submission.reading is not None:
            # Stored first: no other response has the list of patches.
            report = await report_of(context.services, context.machine_id, accepted, submission.reading)
        await storage.intents.save(accepted)
        return _accepted(context, accepted, report)
    failure = submission.failure or NO_ANSWER
    # A later POST may replace this response: the log keeps its reason.
    _LOG.info(
        "Azure did not accept it: %s of machine %s, attempt %d: %s",
        intent.kind,
        intent.machine_key,
        intent.attempt,
        failure.text,
    )
    if is_throttling(failure) and failure.retry_after and not submission.throttles_one_machine:
        await storage.throttling.throttle(_bucket(context), now() + timedelta(seconds=failure.retry_after))
    if submission.is_open:
        return await _wait_for_the_machine(context, intent, failure, submission.throttles_one_machine)
    await storage.intents.save(intent.model_copy(update={"state": IntentState.REFUSED, "answer": failure}))
    verdict = classify(failure)
    if not verdict.kind.may_pass:
        return _ended(failure)
    return StartResult(
        state=StartState.WAIT, outcome=verdict.to_outcome(failure), **retry_after(context.settings, failure, polls=2)
    )


async def _wait_for_the_machine(
    context: MachineContext, intent: Intent, failure: ArmFailure, throttles_one_machine: bool
) -> StartResult:
    """An ambiguous response: the intent stays declared, and the next call reads the machine."""
    storage = context.storage
    answered = intent.model_copy(update={"answer": failure})
    await storage.intents.save(answered)
    if is_unanswered(answered):
        # It may well have been accepted, which an early read shows.
        return StartResult(state=StartState.WAIT, **retry_after(context.settings, failure))
    is_throttled = failure.status == 429
    wait = wait_seconds(context.settings, failure.retry_after, polls=1 if is_throttled else 2)
    if is_throttled and not failure.retry_after and not throttles_one_machine:
        await storage.throttling.throttle(_bucket(context), now() + timedelta(seconds=wait))
    # Most likely it was refused. Only a read after the grace can tell.
    wait = max(wait, _grace(context).total_seconds())
    return StartResult(state=StartState.WAIT, wait_seconds=wait, counts_as_attempt=not is_throttled)


def _accept(context: MachineContext, intent: Intent, submission: Submission) -> Intent:
    """The intent with both URLs, unchanged. An unsafe URL is dropped, and the machine is polled instead."""
    async_url = _safe(context, submission.async_url)
    location_url = _safe(context, submission.location_url)
    result = submission.reading.result if submission.reading is not None else {}
    reported = str_or_empty(result.get("installationActivityId")) or str_or_empty(result.get("assessmentActivityId"))
    return intent.model_copy(
        update={
            "state": IntentState.ACCEPTED,
            "accepted_at": now(),
            "async_url": async_url,
            "location_url": location_url,
            "activity_id": operation_id(async_url) or operation_id(location_url) or reported,
        }
    )


def _safe(context: MachineContext, url: str) -> str:
    if not url:
        return ""
    try:
        return check_operation_url(url, context.settings.manager_url, context.machine_id.subscription_id)
    except UnsafeUrl as refusal:
        _LOG.warning("An operation URL of machine %s is not followed: %s", context.machine.key, refusal)
        return ""


async def _ask_machine(context: MachineContext, request: StartOperation, intent: Intent) -> StartResult | str:
    """Resolve a POST that may have been accepted. If it was not, return the machine's newest operation.

    The machine's patch status shows an accepted operation within seconds, that of an Arc machine within minutes. Only
    when it shows none after the grace may the POST be sent again.
    """
    view = await context.services.resource_manager.read_machine(context.machine_id, settles=True)
    if isinstance(view, ArmFailure):
        return StartResult(state=StartState.WAIT, **retry_after(context.settings, view))
    newest = _newest(view, intent.kind)
    match origin(intent, newest):
        case Origin.OURS:
            return await _adopt(context, intent, view)
        case Origin.UNCLEAR if request.is_last:
            undecided = verdicts.unsettled(intent.answer, is_shown=True)
            return StartResult(state=StartState.ENDED, outcome=undecided, may_run=True)
        case Origin.UNCLEAR:
            return StartResult(state=StartState.WAIT, wait_seconds=wait_seconds(context.settings, polls=2))
        case Origin.OTHER:
            left = (intent.sent_at + _grace(context) - now()).total_seconds()
            if left > 0:
                wait = wait_seconds(context.settings, left)
                return StartResult(state=StartState.WAIT, wait_seconds=wait, counts_as_attempt=False)
            return newest.activity_id if newest is not None else ""


def _grace(context: MachineContext) -> timedelta:
    polls = _ARC_GRACE_POLLS if context.machine_id.is_arc else _GRACE_POLLS
    return timedelta(seconds=context.settings.poll_seconds * polls)


async def _adopt(context: MachineContext, intent: Intent, view: MachineView) -> StartResult:
    """Adopt our operation from the machine's status: it is polled there, because its signed URL is lost."""
    summary = _newest(view, intent.kind)
    adopted = intent.model_copy(
        update={
            "state": IntentState.ACCEPTED,
            "accepted_at": now(),
            "activity_id": summary.activity_id if summary else "",
            "adopted": True,
        }
    )
    await context.storage.intents.save(adopted)
    return _accepted(context, adopted)


def _accepted(context: MachineContext, intent: Intent, report: OperationReport | None = None) -> StartResult:
    """The result for an accepted operation: its report, or the wait until its first poll."""
    if report is not None:
        return StartResult(state=StartState.ACCEPTED, report=report)
    wait = first_poll_delay(context.services.poll_schedule, intent, context.machine.expected_seconds)
    return StartResult(state=StartState.ACCEPTED, wait_seconds=wait)


def _ended(failure: ArmFailure) -> StartResult:
    return _ended_with(classify(failure).to_outcome(failure))


def _ended_with(outcome: Outcome) -> StartResult:
    return StartResult(state=StartState.ENDED, outcome=outcome)


def _newest(view: MachineView, kind: OperationKind) -> PatchSummary | None:
    return view.last_assessment if kind is OperationKind.ASSESS else view.last_installation


def _bucket(context: MachineContext) -> str:
    machine = context.machine_id
    return bucket_key(machine.subscription_id, context.machine.location, is_arc=machine.is_arc)
