"""One run of a schedule: announcement, start, end, and the result of each machine.

All values are as of a given time, because Resource Graph lags.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from local.azure_simulator.clock import Clock
from local.azure_simulator.compute.operations import Operation
from local.azure_simulator.hybrid_compute.machine import AnyMachine
from local.azure_simulator.maintenance.configurations import Configuration
from local.azure_simulator.server.json_readers import object_or_none

ANNOUNCED_SECONDS = 40 * 60.0
"""Before the start: the event goes out and the machines of the run are known."""
CUT_OFF_SECONDS = 60.0
"""Before the start: what the event's ``cancellationCutOffDateTime`` says in the published sample. The prose says ten
minutes; a recorded cancellation eight minutes before the start was taken."""
SUCCEEDED, FAILED, CANCELLED, UNRESPONSIVE = "Succeeded", "Failed", "Cancelled", "ShutdownOrUnresponsive"
_GOOD = (SUCCEEDED, "CompletedWithWarnings")


@dataclass(slots=True)
class MachineRun:
    """One machine of a run: an installation, or the reason for none."""

    machine: AnyMachine
    operation: Operation | None = None
    refused: str = ""
    """The status of a machine without an installation."""
    message: str = ""

    def status(self, then: float, window_end: float, clock: Clock) -> tuple[str, float | None]:
        """The status after the start, and when it ended if it has."""
        operation = self.operation
        if operation is None:
            return self.refused, None
        if not operation.is_over(min(then, window_end)):
            return ("InProgress", None) if then < window_end else (FAILED, window_end)
        result = object_or_none(operation.result(clock) if operation.completion.status == SUCCEEDED else None)
        return str(result.get("status", FAILED)), operation.ends


@dataclass(slots=True, eq=False)
class Occurrence:
    """One run of a configuration. Moments are simulated seconds; ``name`` is the start on the calendar."""

    configuration: Configuration
    name: str
    announced: float
    starts: float
    window_end: float
    machines: dict[str, MachineRun] = field(default_factory=dict[str, MachineRun])
    is_by_hand: bool = False
    """Fired manually, outside the schedule."""
    cancelled: float | None = None
    message: str = ""
    has_begun: bool = False
    ended: float | None = None

    @property
    def id(self) -> str:
        """The correlation id, in lower case, as Azure writes it into rows and events."""
        return f"{self.configuration.folded}/providers/microsoft.maintenance/applyupdates/{self.name}"

    @property
    def cut_off(self) -> float:
        """The last moment at which it can be cancelled."""
        return self.starts - CUT_OFF_SECONDS

    def status(self, then: float, clock: Clock) -> str:
        """The status of the whole run."""
        if self.cancelled is not None and self.cancelled <= then:
            return CANCELLED
        if then < self.starts or not self.has_begun:
            return "Pending"
        if self.ended is None or then < self.ended:
            return "InProgress"
        is_good = all(self.machine_status(each, then, clock)[0] in _GOOD for each in self.machines)
        return SUCCEEDED if is_good else FAILED

    def machine_status(self, folded: str, then: float, clock: Clock) -> tuple[str, float | None]:
        """The status of one machine, and when it ended if it has."""
        if self.cancelled is not None and self.cancelled <= then:
            return CANCELLED, self.cancelled
        if then < self.starts or not self.has_begun:
            return "Pending", None
        status, ended = self.machines[folded].status(then, self.window_end, clock)
        return status, self.starts if ended is None and self.machines[folded].operation is None else ended

    def planned_end(self) -> float:
        """The end of the last installation, at the latest that of the window."""
        ends = [each.operation.ends for each in self.machines.values() if each.operation is not None]
        return min(max(ends, default=self.starts), self.window_end)
