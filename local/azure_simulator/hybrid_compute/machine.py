"""One Arc machine: its contact with Azure, and patch operations that wait for it.

The Connected Machine agent works on without contact, and reports when it is back. Sources: "Troubleshoot Azure
Arc-enabled servers in disconnected scenarios" (2025) for the fifteen minutes until a machine counts as disconnected,
and for the six hours for which operations are queued. These six hours, the code of a conflict (``HCRP409``) and its
words are published for extensions, and assumed of patch operations, which are carried out by one. Assumptions are also
the refusal of an expired machine, and the errors of an old agent and of an operation that waited too long.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from local.azure_simulator.clock import NEVER, Clock
from local.azure_simulator.compute.guest_agent import Completion, Guest, assess, install
from local.azure_simulator.compute.install_request import InstallRequest
from local.azure_simulator.compute.machine import Machine
from local.azure_simulator.compute.operations import Operation
from local.azure_simulator.compute.patchable import PatchableMachine
from local.azure_simulator.hybrid_compute.behavior import ArcSimulation, ConnectionStatus
from local.azure_simulator.server import errors

SILENT_SECONDS = 15 * 60.0
"""Without heartbeats for so long, a machine counts as disconnected."""
EXTENSIONS = {"Windows": "WindowsOsUpdateExtension", "Linux": "LinuxOsUpdateExtension"}
_COUNTS = ("excluded", "notSelected", "pending", "installed", "failed")
_TOO_OLD = {"code": "AGENT_TOO_OLD", "message": "The version of the Connected Machine agent is not supported."}

type AnyMachine = Machine | ArcMachine


@dataclass(frozen=True, slots=True, kw_only=True)
class Unreported(Completion):
    """The completion that Azure sees of a machine without contact: a failure at the time-out."""

    report: Completion
    """What the machine has to report, from the acceptance."""
    is_delivered: bool
    """Whether the machine had contact when the operation began; otherwise its work begins with the contact."""


class ArcMachine(PatchableMachine[ArcSimulation]):
    """An Arc machine. ``given`` is its ARM document from the fleet file (properties and all)."""

    TYPE = "Microsoft.HybridCompute/machines"

    def __init__(
        self,
        *,
        machine_id: str,
        location: str,
        os_type: str,
        simulation: ArcSimulation,
        seed: int,
        clock: Clock,
        tags: dict[str, str] | None = None,
        given: dict[str, Any] | None = None,
        status: ConnectionStatus = "Connected",
    ) -> None:
        super().__init__(
            machine_id=machine_id,
            location=location,
            os_type=os_type,
            simulation=simulation,
            seed=seed,
            clock=clock,
            tags=tags,
            given=given,
        )
        self.has_extension = False
        """Whether the update extension is installed, which the first operation does."""
        self.assessments: list[Operation] = []
        """Those that have ended, oldest first, with the one that follows an installation."""
        self._lost_at = NEVER
        self._back_at = NEVER
        self._beyond: ConnectionStatus | None = None
        """A status that no heartbeat changes: Expired, Error, or AwaitingConnection."""
        self._change_status(status, clock.now())
        self.behave(simulation)

    def _behave(self, fresh: set[str]) -> None:
        if "status" in fresh and self.simulation.status is not None:
            self._change_status(self.simulation.status, self.clock.now())

    # -- contact ----------------------------------------------------------------------------------------------------

    def has_contact(self, now: float) -> bool:
        return self._beyond is None and not self._lost_at <= now < self._back_at

    def status(self, now: float) -> ConnectionStatus:
        """The status that Azure shows, which lags behind a loss of contact."""
        if self._beyond is not None:
            return self._beyond
        return "Disconnected" if self._lost_at + SILENT_SECONDS <= now < self._back_at else "Connected"

    def status_changed(self, now: float) -> float:
        """When the status changed last; before the start of the simulator for the first one."""
        if self.status(now) == "Disconnected":
            return self._lost_at + SILENT_SECONDS
        return self._back_at if self._back_at <= now else 0.0

    def _change_status(self, status: ConnectionStatus, now: float) -> None:
        self._beyond = None if status in ("Connected", "Disconnected") else status
        if status == "Connected":
            if self._lost_at <= now < self._back_at:
                self._back_at = now
            elif now < self._lost_at:
                self._lost_at = self._back_at = NEVER
        elif not self._lost_at <= now < self._back_at:
            self._lost_at, self._back_at = now - SILENT_SECONDS, NEVER
        if self.active is not None:
            self._reconsider(self.active, now)

    def _reconsider(self, operation: Operation, now: float) -> None:
        """Let a running operation wait for contact, or end with the report that contact brings."""
        known = operation.completion
        if not self.has_contact(now):
            if not isinstance(known, Unreported):
                operation.completion = self._unreported(operation.kind, known, is_delivered=True)
        elif isinstance(known, Unreported):
            waited = now - operation.started
            seconds = max(known.report.seconds, waited) if known.is_delivered else waited + known.report.seconds
            operation.completion = replace(known.report, seconds=seconds)

    def _outage(self, kind: str, now: float) -> tuple[float, float]:
        """When the machine is next, or already, without contact, and when that ends, if an operation begins now."""
        if self._beyond is not None:
            return now, NEVER
        after, until = self.simulation.disconnects_after_minutes, self.simulation.reconnects_after_minutes
        if kind == "install" and after is not None and self.has_contact(now):
            lost = now + after * 60
            return lost, NEVER if until is None else lost + until * 60
        return (self._lost_at, self._back_at) if now < self._back_at else (NEVER, NEVER)

    # -- patch operations -------------------------------------------------------------------------------------------

    def plan(self, kind: str, request: InstallRequest | None, now: float) -> Completion:
        """The predicted result of an assessment or installation that is accepted now.

        Raises:
            ArmError: 409 for an expired machine, or one with another operation.
        """
        self.settle(now)
        if self._beyond == "Expired":
            raise errors.refusal(409, "HCRP409", f"The machine '{self.name}' has expired and must be connected again.")
        if self.is_busy(now):
            raise errors.extension_busy(EXTENSIONS[self.os_type])
        guest = self._view_of_agent()
        report = assess(guest) if request is None else install(guest, request)
        if report.status != "Succeeded":
            report = Completion(report.seconds, result=_failure(kind, report.error or {}))
        lost, back = self._outage(kind, now)
        if lost <= now:
            return self._reported_late(kind, report, back - now + report.seconds, is_delivered=False)
        if report.seconds < lost - now:
            return report
        return self._reported_late(kind, report, max(report.seconds, back - now), is_delivered=True)

    def _view_of_agent(self) -> Guest:
        return self._guest(self.simulation.agent, _TOO_OLD if self.simulation.agent == "old" else None)

    def begin(self, operation: Operation) -> None:
        """Start an accepted assessment or installation."""
        super().begin(operation)
        if self.has_contact(operation.started):
            self.has_extension = True
            lost, back = self._outage(operation.kind, operation.started)
            if lost != NEVER:
                self._lost_at, self._back_at = lost, back

    def _finish(self, operation: Operation) -> None:
        super()._finish(operation)
        if operation.kind == "assess":
            self.assessments.append(operation)
        elif not isinstance(operation.completion, Unreported):
            self._assess_after_install(operation)

    def _assess_after_install(self, operation: Operation) -> None:
        """The extension assesses again after an installation, under the same activity id (recorded)."""
        made = assess(self._view_of_agent())
        if made.result is not None:
            completion = replace(operation.completion, result=made.result)
            followed = replace(operation, kind="assess", completion=completion, graph_row=None, _result=None)
            self.assessments.append(followed)

    def _reported_late(self, kind: str, report: Completion, seconds: float, *, is_delivered: bool) -> Completion:
        if seconds <= self.simulation.operation_timeout_minutes * 60:
            return replace(report, seconds=seconds)
        return self._unreported(kind, report, is_delivered=is_delivered)

    def _unreported(self, kind: str, report: Completion, *, is_delivered: bool) -> Unreported:
        error: dict[str, Any] = {
            "code": "OperationTimedOut",
            "message": "The machine did not report in time.",
            "details": [],
        }
        return Unreported(
            self.simulation.operation_timeout_minutes * 60,
            result=_failure(kind, error),
            # The patches are on the machine, though Azure does not know it.
            removed=report.removed if is_delivered else frozenset(),
            reboot_pending=report.reboot_pending if is_delivered else None,
            report=report,
            is_delivered=is_delivered,
        )

    def state(self, now: float) -> dict[str, Any]:
        """What ``/_sim/state`` shows of an Arc machine alone."""
        return {"status": self.status(now), "hasContact": self.has_contact(now)}


def _failure(kind: str, error: dict[str, Any]) -> Callable[[str, str, str], dict[str, Any]]:
    """A result without any patch, in the form of the guest agent's."""

    def result(activity_id: str, started: str, modified: str) -> dict[str, Any]:
        del modified
        common = {"status": "Failed", "startDateTime": started, "error": error}
        if kind == "assess":
            counts: dict[str, Any] = {"criticalAndSecurityPatchCount": 0, "otherPatchCount": 0, "availablePatches": []}
            return common | counts | {"assessmentActivityId": activity_id, "rebootPending": False}
        return common | {
            "installationActivityId": activity_id,
            "rebootStatus": "Unknown",
            "maintenanceWindowExceeded": False,
            **{f"{name}PatchCount": 0 for name in _COUNTS},
            "patches": [],
        }

    return result
