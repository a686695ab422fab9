"""The last check before an operation is sent to a machine."""

from __future__ import annotations

from patchwave.domain.runs.commands import holds, terminal_outcome
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Run
from patchwave.domain.workflow.operation import StartResult, StartState


def start_blocker(run: Run, machine: MachineRecord) -> StartResult | None:
    """Why nothing may be sent to the machine now, or ever in this run; ``None``: it may.

    Checked last before an operation is sent: the phase that started the machine may not have read the command yet.
    """
    outcome = terminal_outcome(run, machine)
    if outcome is not None:
        return StartResult(state=StartState.ENDED, outcome=outcome)
    if run.paused_at is not None or any(holds(scope, machine) for scope in run.blocked_scopes):
        return StartResult(state=StartState.REQUEUED)
    return None
