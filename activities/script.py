"""run_script: the policy's script on a machine before or after its installation.

Called until it is done; each call does the next step and returns how long to wait. The script runs at most once,
because its at-most-once row is written before the POST and completed with Azure's response.
"""

from __future__ import annotations

import uuid
from datetime import timedelta

from activities.context import MachineContext, declare_call, load_machine, now, renew_lease, save_accepted, wait_seconds
from activities.hooks import DONE, reason_not_to_begin, refused_call
from patchwave.domain.azure.errors import NO_ANSWER, ArmFailure, is_throttling
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
from patchwave.domain.policy.hooks import BeforeScript, Script
from patchwave.domain.policy.scope import OsType
from patchwave.domain.runs.commands import terminal_outcome, unapproved
from patchwave.domain.runs.intent import IntentState
from patchwave.wiring import Services

_SCRIPT_RESERVE = timedelta(minutes=5)
"""Azure needs about half a minute, sometimes more, to pass a script to the guest and its output back."""
_ANSWER_TIME = timedelta(minutes=3)
"""An execution that sent a script and has not stored the response after this time is dead."""
MAX_UNCLEAR_POLLS = 20


async def run_script(services: Services, request: ScriptRequest) -> HookResult:
    """Run the policy's script, and store its output."""
    context = await load_machine(services, request.run_id, request.machine_key)
    hooks = context.policy.hooks
    script = hooks.before if request.when is When.BEFORE else hooks.after
    os_type = OsType.read(context.machine.os_type)
    text = script.text_for(os_type) if script is not None else None
    if script is None or os_type is None or text is None:
        return DONE
    if request.when is When.AFTER:
        await renew_lease(context)
    return await _ScriptStep(context, request, script, os_type, text).go_on()


class _ScriptStep:
    """The next step of one script on one machine."""

    def __init__(
        self, context: MachineContext, request: ScriptRequest, script: Script, os_type: OsType, text: str
    ) -> None:
        self._context = context
        self._settings, self._storage = context.settings, context.storage
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
        if not self._settings.scripts_enabled:
            return self._judged(scripts_are_off(only_roles_miss=self._settings.scripts))
        guard = await self._storage.at_most_once.get(self._request.run_id, self._request.machine_key, self._call)
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
            return self._still_runs()
        return await self._end(guard, script_unknown(self._request.when))

    async def _reason_to_stop(self, guard: AtMostOnceRecord | None) -> HookResult | None:
        """Why the script must not run. A post script also runs after a stop: it may undo what the pre script did."""
        if self._request.when is When.AFTER:
            refused = unapproved(self._context.run, self._context.machine)
            return None if refused is None else HookResult.stopped(refused)
        if guard is None or guard.state is IntentState.REFUSED:
            return await reason_not_to_begin(self._context)
        over = terminal_outcome(self._context.run, self._context.machine)
        return None if over is None else HookResult.stopped(over)

    async def _send(self, refused: AtMostOnceRecord | None) -> HookResult:
        what = f"The script {self._request.when} the installation was refused"
        view = await self._context.services.resource_manager.read_machine(self._context.machine_id)
        if isinstance(view, ArmFailure):
            return self._refusal(what, view)
        if view.is_being_changed:
            # Azure would refuse it, and such a refusal looks the same as one that our own script caused.
            busy = f"{what}: another operation is running on the machine."
            return HookResult.wait(wait_seconds(self._settings, polls=2), busy)
        guard = AtMostOnceRecord(
            run_id=self._request.run_id,
            machine_key=self._request.machine_key,
            call=self._call,
            token=uuid.uuid4().hex,
            created_at=now(),
            deadline_at=now() + self._script.timeout + _SCRIPT_RESERVE,
            changed_at=_changed_at(view),
        )
        if not await declare_call(self._storage, guard, refused):
            return self._still_runs()
        variables = self._request.variables(self._context.policy.name, self._context.machine.name)
        lines = wrap_script(self._text, self._os_type, self._script.timeout, variables)
        command = command_of(self._os_type)
        submission = await self._context.services.run_commands.send(self._context.machine_id, command, lines)
        if submission.accepted:
            await save_accepted(self._storage, guard, submission)
            return self._still_runs()
        if submission.is_uncertain:
            why = submission.failure.text if submission.failure else ""
            return await self._end(guard, script_unknown(self._request.when, why))
        failure = submission.failure or NO_ANSWER
        known = {"failure": failure.text} if submission.is_open else {"state": IntentState.REFUSED}
        await self._storage.at_most_once.save(guard.model_copy(update=known))
        refusal = self._refusal(what, failure)
        if submission.is_open and refusal.state is not HookState.WAIT:
            return HookResult.wait(wait_seconds(self._settings, failure.retry_after), f"{what}: {failure.clause}.")
        return refusal

    def _refusal(self, what: str, failure: ArmFailure) -> HookResult:
        refusal = refused_call(self._settings, what, failure)
        if refusal.state is HookState.FAILED and refusal.outcome is not None:
            return self._judged(refusal.outcome.message)
        return refusal

    async def _find(self, guard: AtMostOnceRecord) -> HookResult:
        """The state of a script whose POST got an ambiguous refusal. It is never sent twice.

        The machine only shows that it is being changed or was. If it shows neither after a while, the script was not
        accepted.
        """
        view = await self._context.services.resource_manager.read_machine(self._context.machine_id)
        at = now()
        if isinstance(view, ArmFailure) or view.is_being_changed:
            asked = view.retry_after if isinstance(view, ArmFailure) else None
            if at < guard.deadline_at:
                return self._still_runs(asked, ran_for=at - guard.created_at)
        elif _changed_at(view) == guard.changed_at:
            if at < guard.created_at + timedelta(seconds=self._settings.poll_seconds * SETTLES_IN_POLLS):
                return self._still_runs()
            await self._storage.at_most_once.save(guard.model_copy(update={"state": IntentState.REFUSED}))
            return self._still_runs()
        return await self._end(guard, script_unknown(self._request.when, guard.failure))

    async def _follow(self, guard: AtMostOnceRecord) -> HookResult:
        when, machine = self._request.when, self._context.machine_id
        reading = await self._context.services.run_commands.poll(machine, guard.async_url, guard.location_url)
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
        return self._still_runs(reading.retry_after, ran_for=at - guard.created_at)

    async def _unclear(self, guard: AtMostOnceRecord, reading: PollReading) -> HookResult:
        if reading.failure is not None and is_throttling(reading.failure):
            return await self._wait(guard, reading)
        polls = guard.unclear_polls + 1
        if polls >= MAX_UNCLEAR_POLLS:
            why = reading.failure.text if reading.failure else ""
            return await self._end(guard, script_unknown(self._request.when, why))
        counted = guard.model_copy(update={"unclear_polls": polls})
        await self._storage.at_most_once.save(counted)
        return await self._wait(counted, reading)

    async def _end(self, guard: AtMostOnceRecord, failure: str, output: str = "") -> HookResult:
        """Store the result: the machine's row first, since an ended at-most-once row means that both are written."""
        if failure and self._goes_on_after_failure:
            output = f"{failure}\n{output}".strip()
        column = "pre_script_output" if self._request.when is When.BEFORE else "post_script_output"
        machine = self._context.machine
        kept = {column: shorten_output(output)}
        await self._storage.machines.update(self._request.run_id, machine.key, machine.stage, completion=None, **kept)
        await self._storage.at_most_once.save(guard.model_copy(update={"ended_at": now(), "failure": failure}))
        return self._judged(failure)

    def _still_runs(self, asked: float | None = None, *, ran_for: timedelta = timedelta(0)) -> HookResult:
        wait = wait_seconds(self._settings, asked, ran_for=ran_for)
        return HookResult.wait(wait, script_overdue(self._request.when, self._script.timeout), counts_as_attempt=False)

    def _judged(self, failure: str) -> HookResult:
        return HookResult.failed(failure) if failure and not self._goes_on_after_failure else DONE

    @property
    def _goes_on_after_failure(self) -> bool:
        return isinstance(self._script, BeforeScript) and self._script.on_failure == "continue"


def _changed_at(view: MachineView) -> str:
    return format_instant(view.changed_at) if view.changed_at else ""
