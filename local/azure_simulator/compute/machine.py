"""One virtual machine: power, agent, pending patches, reboots, and at most one patch operation.

Nothing ticks: a machine stores scheduled events, and ``settle`` applies those that are due. An idle fleet of thousands
costs nothing.
"""

from __future__ import annotations

import random
import uuid
from dataclasses import replace
from typing import Any

from local.azure_simulator.arm.names import folded
from local.azure_simulator.clock import NEVER, Clock
from local.azure_simulator.compute.behavior import Simulation
from local.azure_simulator.compute.guest_agent import Completion, Guest, assess, install, refused_completion
from local.azure_simulator.compute.install_request import InstallRequest
from local.azure_simulator.compute.operations import Operation
from local.azure_simulator.compute.patches import Patch, generate, spelt_out
from local.azure_simulator.server import errors

BOOT_SECONDS = 30.0
"""From PowerState/running until the agent reports."""
_TRANSITIONS = {
    "start": ("starting", "running"),
    "powerOff": ("stopping", "stopped"),
    "deallocate": ("deallocating", "deallocated"),
    "restart": ("running", "running"),
}
_POWER_SECONDS = {"powerOff": 20.0, "deallocate": 35.0, "restart": 25.0}
_PREEMPTED = {
    "code": "OperationPreempted",
    "message": "Operation execution has been preempted by a more recent operation.",
}
_INSTALL_COUNTS = (
    "notSelectedPatchCount", "excludedPatchCount", "pendingPatchCount", "installedPatchCount", "failedPatchCount",
)  # fmt: skip


class Machine:
    """A virtual machine. ``given`` is its ARM document from the fleet file (properties and all)."""

    def __init__(
        self,
        *,
        machine_id: str,
        location: str,
        os_type: str,
        simulation: Simulation,
        seed: int,
        clock: Clock,
        zones: list[str] | None = None,
        tags: dict[str, str] | None = None,
        given: dict[str, Any] | None = None,
        power: str = "running",
    ) -> None:
        parts = machine_id.split("/")
        self.id = machine_id
        self.folded = folded(machine_id)
        self.subscription_id, self.resource_group, self.name = parts[2], parts[4], parts[8]
        self.location = location
        self.os_type = os_type
        self.zones = zones or []
        self.tags = tags or {}
        self.given = given or {}
        self.clock = clock
        self.update_domain: int | None = None
        self.fault_domain: int | None = None
        self.accepted = {"assess": 0, "install": 0}
        self.active: Operation | None = None
        self.available_summary: dict[str, Any] | None = None
        self.install_summary: dict[str, Any] | None = None
        self.graph_row: dict[str, Any] | None = None
        """Cached for the Resource Graph tables: building thousands of rows for each query is slow."""
        self._source = random.Random(f"{seed}:{self.folded}")
        self._pending: list[Patch] | None = None
        self._failures: dict[str, int] = {}
        self._transition: tuple[str, float, str] | None = None
        self._agent_ready_at = 0.0
        self.power = power
        self.is_hibernated = False
        """Deallocated with its memory on disk; a start or another deallocation ends that."""
        self.reboot_pending = False
        self.busy_until = 0.0
        self.recreated: float | None = None
        """When it was deleted and created again under its old name."""
        self.updating_until = 0.0
        """End of the current PATCH or PUT of the machine."""
        self.command_until = 0.0
        """End of the current run command; a guest runs one at a time."""
        self.changed_at = 0.0
        """When its power last changed."""
        self.unhealthy_until = 0.0
        """End of the unhealthy state after an installation."""
        self.behave(simulation)

    def behave(self, simulation: Simulation, changed: set[str] | None = None) -> None:
        """Apply new overrides.

        Args:
            simulation: all overrides of the machine from now on.
            changed: the changed fields; those of a state (power, busy, pending patches, a pending reboot) take effect
                at once. None means all of them.
        """
        self.simulation = simulation
        fresh = set(Simulation.model_fields) if changed is None else changed
        if "power" in fresh and simulation.power is not None:
            self.is_hibernated = simulation.power == "hibernated"
            self.power = "deallocated" if self.is_hibernated else simulation.power
            self._transition = None
        if "reboot_pending" in fresh:
            self.reboot_pending = simulation.reboot_pending
        if fresh & {"pending_patches", "needs_ubuntu_pro"}:
            self._pending = None
        if "recreated" in fresh and simulation.recreated:
            self.recreated = self.clock.now()
        if "busy" in fresh:
            now, busy = self.clock.now(), simulation.busy
            self.busy_until = NEVER if busy is True else now + float(busy) * 60
            if busy and simulation.busy_with == "install":
                activity_id = str(uuid.UUID(int=self._source.getrandbits(128), version=4))
                self.install_summary = self._running_install_summary(activity_id, now)

    # -- views ------------------------------------------------------------------------------------------------------

    @property
    def pending(self) -> list[Patch]:
        """The pending patches; generated on first use."""
        if self._pending is None:
            wanted = self.simulation.pending_patches
            pro = self.simulation.needs_ubuntu_pro
            esm = 12 if pro is True else int(pro)
            listed = spelt_out(wanted, self.os_type, self._source) if isinstance(wanted, list) else []
            count = 0 if isinstance(wanted, list) else wanted
            self._pending = listed + generate(self.os_type, count, esm, self._source, self.clock.started_at)
        return self._pending

    def agent(self, now: float) -> str:
        """``ready``, ``notReady``, ``booting``, ``absent`` (the key is missing) as an instance view shows it."""
        if self.power in ("creating", "deallocated", "deallocating") or self.simulation.agent == "missing":
            return "absent"
        if self.power in ("stopped", "stopping"):
            return "ready"  # stale, as in Azure: the last status stays until the next report
        if self.power == "starting" or now < self._agent_ready_at:
            return "booting"
        if self.simulation.agent == "notReady" or self._is_rebooting(now):
            return "notReady"
        return "ready"

    def _is_rebooting(self, now: float) -> bool:
        if self.active is None or self.active.completion.reboot is None:
            return False
        start, end = self.active.completion.reboot
        return start <= now - self.active.started < end

    @property
    def is_changing_power(self) -> bool:
        return self._transition is not None or self.power == "creating"

    def last_changed(self, now: float) -> float | None:
        """End of the last change of power, settings or a run command; None during one."""
        ends = (self.updating_until, self.command_until)
        if self._transition is not None or any(now < end for end in ends):
            return None
        return max(self.changed_at, *ends)

    def is_made_unhealthy(self, now: float) -> bool:
        """Whether an installation made it unhealthy."""
        return now < self.unhealthy_until

    # -- time -------------------------------------------------------------------------------------------------------

    def settle(self, now: float) -> None:
        """Apply all events that are due by ``now``."""
        if self._transition is not None and now >= self._transition[1]:
            target, at, kind = self._transition
            self._transition = None
            self.power = target
            self.changed_at = at
            if kind in ("start", "restart"):
                self._agent_ready_at = at + BOOT_SECONDS
                self.reboot_pending = False
        if self.active is not None and self.active.is_over(now):
            self._finish(self.active)

    def _finish(self, operation: Operation) -> None:
        self.active = None
        completion = operation.completion
        if not completion.touches_guest:
            return
        self._pending = [left for patch in self.pending if (left := patch.without(completion.removed)) is not None]
        if completion.reboot_pending is not None:
            self.reboot_pending = completion.reboot_pending
        result = operation.result(self.clock)
        modified = self.clock.stamp(operation.ends)
        if operation.kind == "assess" and result is not None:
            if not self.simulation.summary_stuck:
                self.available_summary = _available_summary(result, modified)
        elif operation.kind == "install" and result is not None:
            self.install_summary = _install_summary(result, modified)
            self._assess_after_install(operation, modified)
            broken = self.simulation.unhealthy_after_install
            if broken:
                self.unhealthy_until = NEVER if broken is True else operation.ends + float(broken) * 60

    def _assess_after_install(self, operation: Operation, modified: str) -> None:
        """The extension assesses again after every installation."""
        if self.simulation.summary_stuck:
            return
        made = assess(self._guest())
        if made.result is not None:
            result = made.result(operation.id, self.clock.stamp(operation.ends), modified)
            self.available_summary = _available_summary(result, modified)

    # -- patch operations -------------------------------------------------------------------------------------------

    def plan(self, kind: str, request: InstallRequest | None, now: float) -> Completion:
        """The predicted result of an assessment or installation that is accepted now.

        Raises:
            ArmError: Azure's immediate errors: unsupported image, not running, no agent, another operation.
        """
        self.settle(now)
        verb = "installPatches" if kind == "install" else "assessPatches"
        if self.simulation.image_unsupported:
            raise errors.unsupported_image()
        if self.power != "running":
            if self.simulation.refuses_late:
                message = "Cannot modify extensions in the VM when the VM is not running."
                return refused_completion("OperationNotAllowed", message)
            if self.power in ("starting", "stopping", "creating"):
                raise errors.changing_power(self.name)
            raise errors.deallocated(verb, self.name) if self.power != "stopped" else errors.not_running()
        if self.simulation.agent == "missing":
            raise errors.extensions_disallowed()
        if self.active is not None or now < max(self.busy_until, self.updating_until):
            raise errors.busy(verb, self.name)
        return assess(self._guest()) if request is None else install(self._guest(), request)

    def begin(self, operation: Operation) -> None:
        """Start an accepted assessment or installation."""
        if not operation.maintenance_run:
            self.accepted[operation.kind] += 1
        self.active = operation
        if not operation.completion.touches_guest:
            return
        if operation.kind == "install":
            self.install_summary = self._running_install_summary(operation.id, operation.started)
        else:
            stamp = self.clock.stamp(operation.started)
            self.available_summary = {
                "status": "InProgress",
                "assessmentActivityId": operation.id,
                "rebootPending": self.reboot_pending,
                "criticalAndSecurityPatchCount": 0,
                "otherPatchCount": 0,
                "startTime": stamp,
                "lastModifiedTime": stamp,
            }

    def _running_install_summary(self, activity_id: str, started: float) -> dict[str, Any]:
        stamp = self.clock.stamp(started)
        shown = {"status": "InProgress", "installationActivityId": activity_id, "maintenanceWindowExceeded": False}
        return shown | dict.fromkeys(_INSTALL_COUNTS, 0) | {"startTime": stamp, "lastModifiedTime": stamp}

    def _guest(self) -> Guest:
        return Guest(
            name=self.name,
            os_type=self.os_type,
            pending=self.pending,
            reboot_pending=self.reboot_pending,
            simulation=self.simulation,
            source=self._source,
            failures=self._failures,
        )

    # -- power ------------------------------------------------------------------------------------------------------

    def change_power(self, kind: str, now: float) -> Completion:
        """Begin start, powerOff, deallocate or restart, which ends a running patch operation.

        Raises:
            ArmError: 409 during another change, or for a restart of a stopped machine.
        """
        self.settle(now)
        if self.is_changing_power:
            raise errors.changing_power(self.name)
        if kind == "restart" and self.power != "running":
            raise errors.not_running()
        meanwhile, target = _TRANSITIONS[kind]
        self.is_hibernated = False
        if self.power == target and kind != "restart":
            return Completion(1.0, touches_guest=False)
        seconds = self.simulation.start_minutes * 60 if kind == "start" else _POWER_SECONDS[kind]
        if kind == "start" and self.simulation.start_fails:
            message = "Allocation failed. We do not have sufficient capacity for the requested VM size in this region."
            return Completion(seconds, "Failed", {"code": "AllocationFailed", "message": message}, touches_guest=False)
        self._preempt(now)
        self.power = meanwhile
        if kind == "restart":
            self._agent_ready_at = now + seconds + BOOT_SECONDS
        self._transition = (target, now + seconds, kind)
        return Completion(seconds, touches_guest=False)

    def _preempt(self, now: float) -> None:
        operation, self.active = self.active, None
        if operation is None:
            return
        cut = now - operation.started
        operation.completion = replace(
            operation.completion, seconds=cut, status="Canceled", error=_PREEMPTED, result=None
        )
        for summary in (self.install_summary, self.available_summary):
            if summary is not None and summary["status"] == "InProgress":
                summary["status"] = "Failed"
                summary["lastModifiedTime"] = self.clock.stamp(now)


def _available_summary(result: dict[str, Any], modified: str) -> dict[str, Any]:
    kept = ("status", "assessmentActivityId", "rebootPending", "criticalAndSecurityPatchCount", "otherPatchCount")
    return _summary(result, modified, kept)


def _install_summary(result: dict[str, Any], modified: str) -> dict[str, Any]:
    kept = ("status", "installationActivityId", "maintenanceWindowExceeded", *_INSTALL_COUNTS)
    return _summary(result, modified, kept)


def _summary(result: dict[str, Any], modified: str, kept: tuple[str, ...]) -> dict[str, Any]:
    times = {"startTime": result["startDateTime"], "lastModifiedTime": modified, "error": result["error"]}
    return {key: result[key] for key in kept} | times
