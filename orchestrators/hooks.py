"""The hooks of a machine, as parts of its orchestrator: snapshot and script before the installation, a script after."""

from __future__ import annotations

from durabletask import task

from orchestrators.operation import Requeue
from orchestrators.patience import Patience
from orchestrators.runtime import Context, Steps, call
from orchestrators.waits import Waits
from patchwave.domain.core.outcome import Outcome, OutcomeKind
from patchwave.domain.machine.hooks import HookResult, HookState, ScriptRequest, When
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.contracts import Activity
from patchwave.domain.workflow.messages import MachineRef

MAX_REFUSALS = 6
"""How often a hook is refused for a reason that passes, such as another command in the guest, before it has failed."""


def before_install(context: Context, machine: MachineRef, waits: Waits) -> Steps[Outcome | Requeue | None]:
    """Take the snapshot, then run the script; the machine's outcome when it must not be patched.

    The snapshot comes first: it shows the machine as it was before the run changed anything. What was done stays done
    when the machine is put back: nothing is repeated when its turn comes again.
    """
    result = yield from _carry_out(context, waits, contracts.TAKE_SNAPSHOT, machine)
    if result is None:
        script = ScriptRequest(run_id=machine.run_id, machine_key=machine.machine_key, when=When.BEFORE)
        result = yield from _carry_out(context, waits, contracts.RUN_SCRIPT, script)
    return result


def after_install(
    context: Context, machine: MachineRef, waits: Waits, outcome: OutcomeKind | None = None
) -> Steps[str]:
    """Run the script after the installation; the sentence about what failed, empty when all is well.

    What becomes of the script never changes the outcome of a machine: that is about its patches. Not even an
    activity that failed for good does, as then nobody would learn of the installation.

    Args:
        context: of the machine's orchestration.
        machine: in its run.
        waits: of the machine's orchestration.
        outcome: how the installation went; the script finds it in its environment.
    """
    script = ScriptRequest(run_id=machine.run_id, machine_key=machine.machine_key, when=When.AFTER, outcome=outcome)
    try:
        result = yield from _carry_out(context, waits, contracts.RUN_SCRIPT, script)
    except task.TaskFailedError:
        return "Patchwave itself failed on the script after the installation: it is not known whether it ran."
    return result.message if isinstance(result, Outcome) else ""


def _carry_out[Request](
    context: Context, waits: Waits, activity: Activity[Request, HookResult], request: Request
) -> Steps[Outcome | Requeue | None]:
    """Call the activity, which does the next step each time, until the hook is done or has failed."""
    patience = Patience(context, MAX_REFUSALS)
    while True:
        result = yield from call(context, activity, request)
        if result.state is HookState.REQUEUED:
            return Requeue()
        if result.state is not HookState.WAIT:
            return result.outcome
        pause = patience.pause(result.wait_seconds, counts_as_attempt=result.counts_as_attempt)
        if pause is None:
            return result.outcome
        yield from waits.wait(pause)
