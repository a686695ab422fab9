"""Hooks in a machine's orchestration: snapshot and pre script before the installation, post script after it."""

from __future__ import annotations

from durabletask import task

from orchestrators.operation import Requeue
from orchestrators.runtime import Steps
from orchestrators.waits import Waits
from patchwave.domain.core.outcome import Outcome, OutcomeKind
from patchwave.domain.machine.hooks import HookResult, HookState, ScriptRequest, When
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.contracts import Activity
from patchwave.domain.workflow.machine import MachineRef

MAX_REFUSALS = 6
"""Transient refusals of a hook, such as another command in the guest, before it counts as failed."""


def before_install(machine: MachineRef, waits: Waits) -> Steps[Outcome | Requeue | None]:
    """Take the snapshot, then run the pre script; the machine's outcome when it must not be patched.

    The snapshot comes first: it shows the machine before any change. Completed hooks are not repeated
    when the machine is requeued.
    """
    result = yield from _carry_out(waits, contracts.TAKE_SNAPSHOT, machine)
    if result is None:
        script = ScriptRequest(run_id=machine.run_id, machine_key=machine.machine_key, when=When.BEFORE)
        result = yield from _carry_out(waits, contracts.RUN_SCRIPT, script)
    return result


def after_install(machine: MachineRef, waits: Waits, outcome: OutcomeKind | None = None) -> Steps[str]:
    """Run the post script; returns the sentence about its failure, or an empty string.

    A failed script never changes the machine's outcome, which is about its patches. That includes a failed activity,
    which would otherwise hide the installation's result.

    ``outcome`` is that of the installation; the script gets it in its environment.
    """
    script = ScriptRequest(run_id=machine.run_id, machine_key=machine.machine_key, when=When.AFTER, outcome=outcome)
    try:
        result = yield from _carry_out(waits, contracts.RUN_SCRIPT, script)
    except task.TaskFailedError:
        return "Patchwave itself failed on the script after the installation: it is not known whether it ran."
    return result.message if isinstance(result, Outcome) else ""


def _carry_out[Request](
    waits: Waits, activity: Activity[Request, HookResult], request: Request
) -> Steps[Outcome | Requeue | None]:
    """Call the activity, one step per call, until the hook is done or has failed."""
    result = yield from waits.poll(activity, request, MAX_REFUSALS, lambda result: result.state is not HookState.WAIT)
    return Requeue() if result.state is HookState.REQUEUED else result.outcome
