"""take_snapshot and run_script: the policy's hooks on a machine before and after its installation.

Both are called until they are done. Each call does the next step and returns how long to wait. A snapshot is taken once
because its name follows from run and machine. A script runs at most once because its at-most-once row is written before
the POST and completed with Azure's response.
"""

from __future__ import annotations

import uuid
from datetime import timedelta

from activities.context import MachineContext, acquire_lease, load_machine, locked_by, now, renew_lease, wait_seconds
from activities.window import frozen
from patchwave.azure.run_command import open_run_commands
from patchwave.azure.snapshots import open_snapshots
from patchwave.azure.virtual_machines import open_resource_manager
from patchwave.domain.azure.errors import ArmFailure, ErrorClass, classify, is_throttling
from patchwave.domain.azure.instance_view import MachineView
from patchwave.domain.azure.operation import PollReading, PollState
from patchwave.domain.core.documents import format_instant
from patchwave.domain.machine.at_most_once import AtMostOnceRecord, GuardedCall
from patchwave.domain.machine.hooks import (
    HookResult,
    HookState,
    ScriptRequest,
    When,
    script_failure,
    script_overdue,
    script_unknown,
    scripts_are_off,
)
from patchwave.domain.machine.power import SETTLES_IN_POLLS
from patchwave.domain.machine.script import command_of, read_script_end, shorten_output, wrap_script
from patchwave.domain.machine.snapshot import (
    OsDisk,
    SnapshotId,
    SnapshotView,
    rollback_advice,
    snapshot_body,
    snapshot_of,
    snapshot_tags,
)
from patchwave.domain.maintenance.occurrence import too_late_to_prepare
from patchwave.domain.policy.hooks import BeforeScript, Script, SnapshotHook
from patchwave.domain.policy.install import shortest_installation
from patchwave.domain.policy.scope import OsType
from patchwave.domain.runs.commands import terminal_outcome, unapproved
from patchwave.domain.runs.intent import IntentState
from patchwave.domain.runs.outcome_rules import window_closed
from patchwave.domain.scheduling.window import cutoff
from patchwave.domain.workflow.machine import MachineRef
from patchwave.domain.workflow.start_blocker import start_blocker
from patchwave.settings import load_settings
from patchwave.storage import open_storage

_SCRIPT_RESERVE = timedelta(minutes=5)
"""Azure needs about half a minute, sometimes more, to pass a script to the guest and its output back."""
_ANSWER_TIME = timedelta(minutes=3)
"""An execution that sent a script and has not stored the response after this time is dead."""
MAX_UNCLEAR_POLLS = 20
_DONE = HookResult(state=HookState.DONE)
_REQUEUED = HookResult(state=HookState.REQUEUED)


# --- the snapshot


async def take_snapshot(request: MachineRef) -> HookResult:
    """Take the policy's snapshot, and store how to roll back to it."""
    context = await load_machine(request.run_id, request.machine_key)
    hook = context.policy.hooks.snapshot
    if hook is None or context.machine.rollback_instructions:
        return _DONE
    result = await _take_snapshot(context, hook)
    # No wait here: when the window leaves no time for the installation, the hook is not needed.
    late = _too_late(context) if result.state is HookState.WAIT else None
    return late or result


async def _take_snapshot(context: MachineContext, hook: SnapshotHook) -> HookResult:
    over = terminal_outcome(context.run, context.machine)
    if over is not None:
        return HookResult.stopped(over)
    disks = open_snapshots()
    disk = await disks.read_os_disk(context.machine_id)
    if isinstance(disk, ArmFailure):
        return _refused("The OS disk could not be read", disk)
    if disk is None:
        return HookResult.failed("No snapshot can be taken of the OS disk: it is ephemeral, or not a managed disk.")
    snapshot = snapshot_of(context.run.id, context.machine_id, hook.resource_group)
    view = await disks.read_snapshot(snapshot)
    if isinstance(view, ArmFailure):
        if view.status != 404:
            return _refused("The snapshot could not be looked for", view)
        refusal = await _reason_not_to_begin(context)
        if refusal is not None:
            return refusal
        tags = snapshot_tags(context.run.id, context.machine.key, now() + hook.keep)
        body = snapshot_body(disk, tags, incremental=hook.incremental)
        submission = await disks.take_snapshot(snapshot, body)
        if submission.accepted or submission.is_uncertain:
            not_there = f"The snapshot {snapshot.name} did not appear."
            return HookResult.wait(wait_seconds(), not_there, counts_as_attempt=submission.is_uncertain)
        return _refused("No snapshot could be taken", submission.failure)
    if not view.belongs_to(context.run.id, context.machine.key):
        return HookResult.failed(f"There is a snapshot {snapshot.name} that this run did not take: delete it.")
    if view.has_failed:
        return HookResult.failed(f"The snapshot {snapshot.name} is in the state {view.state}: delete it.")
    if not view.is_ready:
        return HookResult.wait(
            wait_seconds(), f"The snapshot {snapshot.name} did not get ready.", counts_as_attempt=False
        )
    await _keep_advice(context, disk, snapshot, view)
    return _DONE


async def _keep_advice(context: MachineContext, disk: OsDisk, snapshot: SnapshotId, view: SnapshotView) -> None:
    advice = rollback_advice(context.machine_id, disk, snapshot, view.expires())
    await open_storage().machines.update(
        context.run.id,
        context.machine.key,
        context.machine.stage,
        snapshot_id=snapshot.text,
        rollback_instructions=advice,
    )


# --- the scripts


async def run_script(request: ScriptRequest) -> HookResult:
    """Run the policy's script, and store its output."""
    context = await load_machine(request.run_id, request.machine_key)
    hooks = context.policy.hooks
    script = hooks.before if request.when is When.BEFORE else hooks.after
    os_type = OsType.read(context.machine.os_type)
    text = script.text_for(os_type) if script is not None else None
    if script is None or os_type is None or text is None:
        return _DONE
    if request.when is When.AFTER:
        await renew_lease(context)
    return await _ScriptStep(context, request, script, os_type, text).go_on()


class _ScriptStep:
    """The next step of one script on one machine."""

    def __init__(
        self, context: MachineContext, request: ScriptRequest, script: Script, os_type: OsType, text: str
    ) -> None:
        self._context = context
        self._request = request
        self._script = script
        self._os_type = os_type
        self._text = text
        self._call = GuardedCall.BEFORE_SCRIPT if request.when is When.BEFORE else GuardedCall.AFTER_SCRIPT

    async def go_on(self) -> HookResult:
        """Take the next step. With ``onFailure: continue`` no failure of the script counts against the machine."""
        result = await self._step()
        if self._goes_on_after_failure and result.state is HookState.WAIT:
            return result.model_copy(update={"outcome": None})
        return result

    async def _step(self) -> HookResult:
        settings = load_settings()
        if not settings.scripts_enabled:
            return self._judged(scripts_are_off(only_roles_miss=settings.scripts))
        guard = await open_storage().at_most_once.get(self._request.run_id, self._request.machine_key, self._call)
        if guard is not None and guard.ended_at is not None:
            return self._judged(guard.failure)
        refusal = await self._reason_to_stop(guard)
        if refusal is not None:
            return refusal
        if guard is None or guard.state is IntentState.REFUSED:
            return await self._send(guard)
        if guard.state is IntentState.ACCEPTED:
            return await self._follow(guard)
        if guard.failure:
            return await self._find(guard)
        if now() < guard.created_at + _ANSWER_TIME:
            return self._still_runs(wait_seconds())
        return await self._end(guard, script_unknown(self._request.when))

    async def _reason_to_stop(self, guard: AtMostOnceRecord | None) -> HookResult | None:
        """Why the script must not run. A post script also runs after a stop: it may undo what the pre script did."""
        if self._request.when is When.AFTER:
            refused = unapproved(self._context.run, self._context.machine)
            return None if refused is None else HookResult.stopped(refused)
        if guard is None or guard.state is IntentState.REFUSED:
            return await _reason_not_to_begin(self._context)
        over = terminal_outcome(self._context.run, self._context.machine)
        return None if over is None else HookResult.stopped(over)

    async def _send(self, refused: AtMostOnceRecord | None) -> HookResult:
        storage = open_storage()
        what = f"The script {self._request.when} the installation was refused"
        view = await open_resource_manager().read_machine(self._context.machine_id)
        if isinstance(view, ArmFailure):
            return self._refusal(what, view)
        if view.is_being_changed:
            # Azure would refuse it, and such a refusal looks the same as one that our own script caused.
            return HookResult.wait(wait_seconds(polls=2), f"{what}: another operation is running on the machine.")
        guard = AtMostOnceRecord(
            run_id=self._request.run_id,
            machine_key=self._request.machine_key,
            call=self._call,
            token=uuid.uuid4().hex,
            created_at=now(),
            deadline_at=now() + self._script.timeout + _SCRIPT_RESERVE,
            changed_at=_changed_at(view),
        )
        if refused is None:
            is_first = (await storage.at_most_once.declare(guard)).token == guard.token
        else:
            is_first = await storage.at_most_once.redeclare(refused, guard)
        if not is_first:
            # Another execution of this activity is running: the next call sees its result.
            return self._still_runs(wait_seconds())
        variables = self._request.variables(self._context.policy.name, self._context.machine.name)
        lines = wrap_script(self._text, self._os_type, self._script.timeout, variables)
        submission = await open_run_commands().send(self._context.machine_id, command_of(self._os_type), lines)
        if submission.accepted:
            accepted = {
                "state": IntentState.ACCEPTED,
                "async_url": submission.async_url,
                "location_url": submission.location_url,
            }
            await storage.at_most_once.save(guard.model_copy(update=accepted))
            return self._still_runs(wait_seconds())
        if submission.is_uncertain:
            why = submission.failure.text if submission.failure else ""
            return await self._end(guard, script_unknown(self._request.when, why))
        failure = submission.failure or ArmFailure(status=0, message="Azure gave no answer")
        known = {"failure": failure.text} if submission.is_open else {"state": IntentState.REFUSED}
        await storage.at_most_once.save(guard.model_copy(update=known))
        refusal = self._refusal(what, failure)
        if submission.is_open and refusal.state is not HookState.WAIT:
            return HookResult.wait(wait_seconds(failure.retry_after), f"{what}: {failure.clause}.")
        return refusal

    def _refusal(self, what: str, failure: ArmFailure) -> HookResult:
        refusal = _refused(what, failure)
        if refusal.state is HookState.FAILED and refusal.outcome is not None:
            return self._judged(refusal.outcome.message)
        return refusal

    async def _find(self, guard: AtMostOnceRecord) -> HookResult:
        """The state of a script whose POST got an ambiguous refusal. It is never sent twice.

        The machine only shows that it is being changed or was. If it shows neither after a while, the script was not
        accepted.
        """
        view = await open_resource_manager().read_machine(self._context.machine_id)
        at = now()
        if isinstance(view, ArmFailure) or view.is_being_changed:
            asked = view.retry_after if isinstance(view, ArmFailure) else None
            if at < guard.deadline_at:
                return self._still_runs(max(wait_seconds(asked), (at - guard.created_at).total_seconds() / 10))
        elif _changed_at(view) == guard.changed_at:
            if at < guard.created_at + timedelta(seconds=load_settings().poll_seconds * SETTLES_IN_POLLS):
                return self._still_runs(wait_seconds())
            await open_storage().at_most_once.save(guard.model_copy(update={"state": IntentState.REFUSED}))
            return self._still_runs(wait_seconds())
        return await self._end(guard, script_unknown(self._request.when, guard.failure))

    async def _follow(self, guard: AtMostOnceRecord) -> HookResult:
        when, machine = self._request.when, self._context.machine_id
        reading = await open_run_commands().poll(machine, guard.async_url, guard.location_url)
        match reading.state:
            case PollState.RUNNING:
                return await self._wait(guard, reading)
            case PollState.UNCLEAR:
                return await self._unclear(guard, reading)
            case PollState.SUCCEEDED:
                end = read_script_end(reading.result)
                return await self._end(guard, script_failure(when, end, self._script.timeout), end.output)
            case PollState.FAILED:
                why = reading.failure.clause if reading.failure else "Azure gave no reason"
                return await self._end(guard, f"The script {when} the installation failed: {why}.")
            case PollState.LOST | PollState.SUCCEEDED_WITHOUT_RESULT:
                return await self._end(guard, script_unknown(when, reading.failure.text if reading.failure else ""))

    async def _wait(self, guard: AtMostOnceRecord, reading: PollReading) -> HookResult:
        at = now()
        if at >= guard.deadline_at:
            return await self._end(guard, script_overdue(self._request.when, self._script.timeout))
        # A tenth of the elapsed time: a long script does not fill the history with polls.
        ran_for = (at - guard.created_at).total_seconds()
        return self._still_runs(max(wait_seconds(reading.retry_after), ran_for / 10))

    async def _unclear(self, guard: AtMostOnceRecord, reading: PollReading) -> HookResult:
        if reading.failure is not None and is_throttling(reading.failure):
            return await self._wait(guard, reading)
        polls = guard.unclear_polls + 1
        if polls >= MAX_UNCLEAR_POLLS:
            why = reading.failure.text if reading.failure else ""
            return await self._end(guard, script_unknown(self._request.when, why))
        counted = guard.model_copy(update={"unclear_polls": polls})
        await open_storage().at_most_once.save(counted)
        return await self._wait(counted, reading)

    async def _end(self, guard: AtMostOnceRecord, failure: str, output: str = "") -> HookResult:
        """Store the result: the machine's row first, since an ended at-most-once row means that both are written."""
        if failure and self._goes_on_after_failure:
            output = f"{failure}\n{output}".strip()
        column = "pre_script_output" if self._request.when is When.BEFORE else "post_script_output"
        machine = self._context.machine
        storage = open_storage()
        kept = {column: shorten_output(output)}
        await storage.machines.update(self._request.run_id, machine.key, machine.stage, completion=None, **kept)
        await storage.at_most_once.save(guard.model_copy(update={"ended_at": now(), "failure": failure}))
        return self._judged(failure)

    def _still_runs(self, seconds: float) -> HookResult:
        overdue = script_overdue(self._request.when, self._script.timeout)
        return HookResult.wait(seconds, overdue, counts_as_attempt=False)

    def _judged(self, failure: str) -> HookResult:
        return HookResult.failed(failure) if failure and not self._goes_on_after_failure else _DONE

    @property
    def _goes_on_after_failure(self) -> bool:
        return isinstance(self._script, BeforeScript) and self._script.on_failure == "continue"


# --- both


async def _reason_not_to_begin(context: MachineContext) -> HookResult | None:
    """Why no hook may begin on the machine, ``None`` if it may: the same reasons that block an installation.

    Extends the lease, which may have to last longer than the preflight expected.
    """
    refusal = start_blocker(context.run, context.machine)
    if refusal is not None:
        return _REQUEUED if refusal.outcome is None else HookResult.stopped(refusal.outcome)
    held = await frozen(context)
    if held is not None:
        return HookResult.stopped(held)
    late = _too_late(context)
    if late is not None:
        return late
    holder = await acquire_lease(context)
    return None if holder is None else HookResult.stopped(locked_by(holder))


def _too_late(context: MachineContext) -> HookResult | None:
    """The end when the window leaves no time for the installation, or Azure is about to begin its own."""
    occurrence = context.run.maintenance
    if occurrence is not None:
        return HookResult.stopped(too_late_to_prepare()) if now() >= occurrence.pre_deadline else None
    os_type, end = OsType.read(context.machine.os_type), context.run.window_end
    if os_type is None or end is None or now() <= cutoff(end, context.policy.install, os_type):
        return None
    if context.policy.continues:
        return _REQUEUED
    return HookResult.stopped(window_closed(shortest_installation(context.policy.install, os_type)))


def _changed_at(view: MachineView) -> str:
    return format_instant(view.changed_at) if view.changed_at else ""


def _refused(what: str, failure: ArmFailure | None) -> HookResult:
    """The result of a refused call: retried after a transient failure, else failed."""
    failure = failure or ArmFailure(status=0, message="Azure gave no answer")
    verdict = classify(failure)
    message = f"{what}: {failure.clause}."
    if is_throttling(failure):
        return HookResult.wait(wait_seconds(failure.retry_after), message, counts_as_attempt=False)
    match verdict.kind:
        case ErrorClass.RETRY_LATER | ErrorClass.BUSY:
            return HookResult.wait(wait_seconds(failure.retry_after, polls=2), message)
        case ErrorClass.FORBIDDEN:
            return HookResult.failed(f"{what}: {verdict.to_outcome(failure).message}")
        case _:
            return HookResult.failed(message)
