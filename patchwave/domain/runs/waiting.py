"""What a machine waits for that nothing is done on, in words; made when it is asked for, of what is stored anyway."""

from collections.abc import Sequence

from patchwave.domain.runs.commands import describe_scope, holds
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.runs.run import Mode, Run, RunState

_WAITS = (Stage.WAITING, Stage.ASSESSED, Stage.INSTALLED)


def waiting_for(run: Run, machine: MachineRecord, rings: Sequence[str], phase: tuple[int, int] | None) -> str:
    """What the machine waits for; empty when it waits for nothing, has ended, or is being worked on.

    Args:
        run: its run.
        machine: its row.
        rings: the rings of the plan, in order.
        phase: the positions of the ring and the phase that the run is in, from 0; ``None`` between two.
    """
    if machine.outcome is not None or machine.stage not in _WAITS or run.state.is_final or run.mode is Mode.MAINTENANCE:
        return ""
    if run.cancel_requested_at is not None or run.stop_reason:
        return "the end of the run: nothing more starts in it"
    if run.state is RunState.PAUSED:
        return "the run, which is paused, to be resumed"
    own = (rings.index(machine.ring), machine.phase - 1) if machine.ring in rings else None
    is_behind = own is not None and (phase is None or own > phase)
    for scope in run.blocked_scopes:
        if holds(scope, machine) or is_behind:
            return f"the run to be resumed or cancelled: the error budget of {describe_scope(scope)} is used up"
    if machine.stage is Stage.WAITING and own is None:
        return "its assessment"
    if run.state is RunState.AWAITING_APPROVAL:
        return f"the approval of the ring {run.waiting_for}"
    if run.waiting_for:
        return run.waiting_for
    if own is None:
        return "the plan of the run"
    if phase is not None and own[0] > phase[0]:
        return f"the ring {rings[phase[0]]} before its own"
    if phase is not None and own > phase:
        return f"phase {phase[1] + 1} of its ring before its own, which is phase {machine.phase}"
    why = "; ".join(machine.placement_reasons)
    return f"a free slot in {machine.lane}{f': {why}' if why else ''}"
