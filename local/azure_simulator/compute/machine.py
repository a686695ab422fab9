"""One virtual machine: power, agent, reboots, and the patch status of its instance view."""

from __future__ import annotations

import uuid
from dataclasses import replace
from typing import Any

from local.azure_simulator.clock import NEVER, Clock
from local.azure_simulator.compute.behavior import Simulation
from local.azure_simulator.compute.enablement import enabled_at
from local.azure_simulator.compute.guest_agent import Completion, Guest, assess, install, refused_completion
from local.azure_simulator.compute.install_request import InstallRequest
from local.azure_simulator.compute.operations import Operation
from local.azure_simulator.compute.patchable import PatchableMachine
from local.azure_simulator.server import errors
from local.azure_simulator.server.json_readers import dig

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
_TOO_OLD = {"code": "CL_AGENT_TOO_OLD", "message": "Unsupported older Azure Linux Agent version"}
_INSTALL_COUNTS = (
    "notSelectedPatchCount", "excludedPatchCount", "pendingPatchCount", "installedPatchCount", "failedPatchCount",
)  # fmt: skip


_BY_SCHEDULE = InstallRequest(120.0, "IfRequired", {"classificationsToInclude": ["Critical", "Security"]})


class Machine(PatchableMachine[Simulation]):
    """A virtual machine. ``given`` is its ARM document from the fleet file (properties and all)."""

    TYPE = "Microsoft.Compute/virtualMachines"

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
        self.zones = zones or []
        self.update_domain: int | None = None
        self.fault_domain: int | None = None
        self.scale_set_monitors_health = False
        """Whether its scale set brings the Application Health extension."""
        self.available_summary: dict[str, Any] | None = None
        self.install_summary: dict[str, Any] | None = None
        self._transition: tuple[str, float, str] | None = None
        self._agent_ready_at = 0.0
        self.power = power
        self.is_hibernated = False
        """Deallocated with its memory on disk; a start or another deallocation ends that."""
        self.recreated: float | None = None
        """When it was deleted and created again under its old name."""
        self.command_until = 0.0
        """End of the current run command; a guest runs one at a time."""
        self.changed_at = 0.0
        """When its power last changed."""
        self.unhealthy_until = 0.0
        """End of the unhealthy state after an installation."""
        self.patch_extension = ""
        """``installed`` or ``failed``; empty without the extension."""
        self.enabled_by: float | None = None
        """When the enablement that is in progress would end; none without one."""
        self.behave(simulation)
        self._remember(simulation)

    def _behave(self, fresh: set[str]) -> None:
        simulation = self.simulation
        if "power" in fresh and simulation.power is not None:
            self.is_hibernated = simulation.power == "hibernated"
            self.power = "deallocated" if self.is_hibernated else simulation.power
            self._transition = None
        if "patch_extension" in fresh:
            by_default = "installed" if self.is_by_platform else "missing"
            given = simulation.patch_extension or by_default
            self.patch_extension = "" if given == "missing" else given
        if "recreated" in fresh and simulation.recreated:
            self.recreated = self.clock.now()
        if "deleted" in fresh and simulation.deleted:
            # As by autoscale, which takes a member away whatever it does (inferred: the operation ends preempted).
            self._preempt(self.clock.now())
        if "busy" in fresh and simulation.busy and simulation.busy_with == "install":
            activity_id = str(uuid.UUID(int=self._source.getrandbits(128), version=4))
            self.install_summary = self._running_install_summary(activity_id, self.clock.now())

    # -- views ------------------------------------------------------------------------------------------------------

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

    @property
    def is_by_platform(self) -> bool:
        """Whether its patch mode or its assessment mode is AutomaticByPlatform."""
        half = "windowsConfiguration" if self.os_type == "Windows" else "linuxConfiguration"
        settings = dig(self.given, "properties", "osProfile", half, "patchSettings")
        return any(dig(settings, key) == "AutomaticByPlatform" for key in ("patchMode", "assessmentMode"))

    def _is_rebooting(self, now: float) -> bool:
        if self.active is None or self.active.completion.reboot is None:
            return False
        start, end = self.active.completion.reboot
        return start <= now - self.active.started < end

    @property
    def app_health(self) -> str | None:
        """What the Application Health extension reports; none without the extension."""
        known = self.simulation.app_health
        return "healthy" if known is None and self.scale_set_monitors_health else known

    @property
    def is_changing_power(self) -> bool:
        return self._transition is not None or self.power == "creating"

    def last_changed(self, now: float) -> float | None:
        """End of the last change of power, settings or a run command; None during one."""
        ends = (self.updating_until, self.command_until)
        if self._transition is not None or any(now < end for end in ends):
            return None
        return max(self.changed_at, *ends)

    def state(self, now: float) -> dict[str, Any]:
        """What ``/_sim/state`` shows of a virtual machine alone."""
        return {"power": self.power, "hibernated": self.is_hibernated, "agent": self.agent(now)}

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
        super().settle(now)
        if self.enabled_by is not None and now >= self.enabled_by:
            self._end_enablement(now)

    def _finish(self, operation: Operation) -> None:
        super()._finish(operation)
        if not operation.completion.touches_guest:
            return
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
        made = assess(self._view_of_agent())
        if made.result is not None:
            result = made.result(operation.id, self.clock.stamp(operation.ends), modified)
            self.available_summary = _available_summary(result, modified)

    # -- automatic guest patching -----------------------------------------------------------------------------------

    def settings_changed(self, now: float) -> None:
        """Begin or end the enablement, as the new patch settings say."""
        self.enabled_by = None
        if self.is_by_platform and self.patch_extension != "installed":
            self.enabled_by = self._enabled_at(now)

    def _enabled_at(self, moment: float) -> float:
        return self.clock.moment(enabled_at(self.clock.calendar(moment)))

    def _end_enablement(self, now: float) -> None:
        """Install the extension and assess; what could not happen while the machine was off is for the next hours."""
        if self.power != "running" or self.active is not None or self.agent(now) != "ready":
            self.enabled_by = self._enabled_at(now)
            return
        self.enabled_by = None
        self._end_own("assess", assess(self._view_of_agent()), now)

    def _remember(self, simulation: Simulation) -> None:
        """What was before the simulator's start."""
        installed, assessed = simulation.installed_hours_ago, simulation.assessed_hours_ago
        if installed is not None:
            self._end_own("install", install(self._view_of_agent(), _BY_SCHEDULE), -installed * 3600)
        if assessed is not None:
            self._end_own("assess", assess(self._view_of_agent()), -assessed * 3600)

    def _end_own(self, kind: str, completion: Completion, at: float) -> None:
        """An operation that no client started has ended at that time."""
        self.patch_extension = "installed"
        if completion.result is None:
            return
        made = Operation(
            id=str(uuid.UUID(int=self._source.getrandbits(128), version=4)),
            kind=kind,
            machine=self.folded,
            subscription_id=self.subscription_id,
            location=self.location,
            started=at - completion.seconds,
            completion=completion,
            api_version="",
            polling_query="",
            location_query="",
            by_platform=True,
        )
        self.own_operations.append(made)
        self._finish(made)

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
        if self.is_busy(now):
            raise errors.busy(verb, self.name)
        guest = self._view_of_agent()
        return assess(guest) if request is None else install(guest, request)

    def _view_of_agent(self) -> Guest:
        return self._guest(self.simulation.agent, _TOO_OLD if self.simulation.agent == "old" else None)

    def begin(self, operation: Operation) -> None:
        """Start an accepted assessment or installation."""
        super().begin(operation)
        if not operation.completion.touches_guest:
            return
        self.patch_extension = self.patch_extension or "installed"
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
