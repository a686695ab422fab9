"""The patch extension of a guest: course and result of an assessment or installation.

Everything is decided when the operation is accepted, from the machine's state, its overrides and the request; then only
time passes. Sources: recordings for bodies and key order, the Linux patch extension for windows, reboots and error
lists.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from local.azure_simulator.clock import NEVER, Clock
from local.azure_simulator.compute.behavior import PatchSimulation
from local.azure_simulator.compute.install_request import InstallRequest
from local.azure_simulator.compute.patches import Patch, select
from local.azure_simulator.server.json_readers import list_or_empty

GOAL_STATE_SECONDS = 9.4
"""From the operation's start until the extension begins (recorded)."""
REFUSAL_SECONDS = 18.0
"""Seconds until an operation that can never work fails (Arm64, recorded)."""
STATUS_LIMIT_BYTES = 126 * 1024
LINUX_LOG = "/var/log/azure/Microsoft.CPlat.Core.LinuxPatchExtension/0.core.log"


@dataclass(frozen=True, slots=True)
class Completion:
    """The predetermined result of an operation, and its effects."""

    seconds: float
    """Simulated seconds from acceptance; infinite when it never ends."""
    status: str = "Succeeded"
    """The outer status, of the operation."""
    error: dict[str, Any] | None = None
    result: Callable[[str, str, str], dict[str, Any]] | None = None
    """Makes the inner result from activity id, start stamp and end stamp."""
    removed: frozenset[str] = frozenset()
    reboot: tuple[float, float] | None = None
    """Start and end, in simulated seconds from acceptance."""
    reboot_pending: bool | None = None
    """The machine's state afterwards; none keeps it."""
    touches_guest: bool = True
    """Whether the instance view's patch summaries change."""


@dataclass(slots=True)
class Guest:
    """The extension's view of a machine."""

    name: str
    os_type: str
    agent: str
    """``notReady``, or any other state, in which it takes the operation."""
    pending: list[Patch]
    reboot_pending: bool
    simulation: PatchSimulation
    source: random.Random
    failures: dict[str, int] = field(default_factory=dict[str, int])
    """Operations that have failed already by ``operationFails``, by kind."""
    too_old: dict[str, str] | None = None
    """The error of an agent that is too old to patch."""


def refused_completion(code: str, message: str) -> Completion:
    """An operation that fails before it reaches the guest."""
    return Completion(REFUSAL_SECONDS, "Failed", {"code": code, "message": message}, touches_guest=False)


def blocked(guest: Guest, kind: str) -> Completion | None:
    """The result of an operation that never starts, or none."""
    simulation = guest.simulation
    if simulation.architecture == "Arm64":
        return refused_completion(
            "VMGuestPatchInternalError", "An internal execution error occurred. Please retry later."
        )
    if guest.agent == "notReady":
        return refused_completion(
            "VMAgentStatusCommunicationError",
            f"VM '{guest.name}' has not reported status for VM agent or extensions. Verify that the OS is up and "
            "healthy, the VM has a running VM agent, and that it can establish outbound connections to Azure storage.",
        )
    failure = simulation.operation_fails
    if failure is not None and failure.kind in (None, kind):
        failed = guest.failures.get(kind, 0)
        if failure.times is None or failed < failure.times:
            guest.failures[kind] = failed + 1
            return refused_completion(failure.code, failure.message)
    if simulation.never_ends is True or simulation.never_ends == kind:
        return Completion(NEVER)
    return None


def assess(guest: Guest) -> Completion:
    """The result of an assessment of this guest."""
    ended = blocked(guest, "assess")
    if ended is not None:
        return ended
    minutes = guest.simulation.assess_minutes
    seconds = guest.source.uniform(110, 175) if minutes is None else minutes * 60
    pending = list(guest.pending)
    problems = _problems(guest)
    is_broken = guest.too_old or guest.simulation.assess_fails or guest.simulation.guest_problem
    status = "Failed" if is_broken else "Succeeded"
    if guest.simulation.assess_fails:
        problems.append(_detail("PACKAGE_MANAGER_FAILURE", "Unexpected return code (100) from package manager."))
    if guest.simulation.superseded:
        status, problems = "Failed", [_superseded()]
    shown = [] if status == "Failed" else pending
    reboot_pending = guest.reboot_pending
    windows = guest.os_type == "Windows"

    def result(activity_id: str, started: str, modified: str) -> dict[str, Any]:
        items = [patch.assessed(activity_id, modified) for patch in shown]
        kept, cut = _cut(items)
        return {
            "status": status,
            "assessmentActivityId": activity_id,
            "rebootPending": reboot_pending,
            "criticalAndSecurityPatchCount": sum(patch.is_critical_or_security for patch in shown),
            "otherPatchCount": sum(not patch.is_critical_or_security for patch in shown),
            "startDateTime": started,
            "availablePatches": kept,
            "error": error_list(problems + cut, windows),
        }

    return Completion(seconds, result=result)


def install(guest: Guest, request: InstallRequest) -> Completion:
    """The result of an installation: selection, window, failures, reboot."""
    ended = blocked(guest, "install")
    if ended is not None:
        return ended
    simulation = guest.simulation
    problems = _problems(guest)
    if guest.too_old or simulation.guest_problem:
        return _nothing(guest, "Failed", problems, 30)
    if guest.os_type != "Windows" and _invalid_combination(request.parameters):
        return _nothing(guest, "Failed", [_detail("ERROR", "Invalid classification combination.")], 30)
    if simulation.superseded:
        return _nothing(guest, "Failed", [_superseded()], 75)
    return _Installation(guest, request, problems).completion()


class _Installation:
    """An installation, by simulated minutes."""

    def __init__(self, guest: Guest, request: InstallRequest, problems: list[dict[str, str]]) -> None:
        self.guest = guest
        self.request = request
        self.problems = problems
        self.windows = guest.os_type == "Windows"
        self.shown: list[Patch] = []
        self.states: dict[str, str] = {}
        self.minutes = 0.0
        self.window_exceeded = False

    def completion(self) -> Completion:
        guest, simulation = self.guest, self.guest.simulation
        selection = select(guest.pending, self.request.parameters, guest.os_type)
        installable = [patch for patch in selection.selected if not patch.is_esm]
        known = {patch.patch_id for patch in guest.pending}
        # Pending patches, and older versions that the request named.
        self.shown = guest.pending + [patch for patch in selection.selected if patch.patch_id not in known]
        self.states = {patch.patch_id: "Excluded" for patch in selection.excluded}
        self.states |= {patch.patch_id: "NotSelected" for patch in selection.not_selected + selection.passed_over}
        # The Linux extension reports packages that need a subscription as Failed, yet the run as a success.
        self.states |= {patch.patch_id: "Failed" for patch in selection.selected if patch.is_esm}
        self._install(installable)
        failed = [patch for patch in installable if self.states[patch.patch_id] == "Failed"]
        installed = [patch for patch in installable if self.states[patch.patch_id] == "Installed"]
        texts = (f"Failed to install {patch.name}. [Exit code: 100]" for patch in failed)
        self.problems += [_detail("OPERATION_FAILED", text) for text in texts]
        reboot, reboot_status, pending = self._reboot(installed)
        if self.window_exceeded:
            text = "Stopped patch installation as it is past the maintenance window cutoff time."
            self.problems.append(_detail("ERROR", text))
        status = "Failed" if failed or self.window_exceeded or reboot_status == "Failed" else "Succeeded"
        if status == "Succeeded" and simulation.install_warns:
            status = "CompletedWithWarnings"
            self.problems.append(_detail("WARNING", "All patches are installed, but some needed more than one try."))
        result = _install_result(
            guest, self.shown, self.states, status, reboot_status, self.window_exceeded, self.problems
        )
        return Completion(
            GOAL_STATE_SECONDS + self.minutes * 60,
            result=result,
            removed=frozenset(patch.patch_id for patch in installed),
            reboot=reboot,
            reboot_pending=pending,
        )

    def _install(self, installable: list[Patch]) -> None:
        simulation = self.guest.simulation
        total = sum(patch.minutes for patch in installable)
        scale = 1.0
        scan = self.guest.source.uniform(0.8, 1.6)
        if simulation.install_minutes is not None:
            scan = simulation.install_minutes * (0.1 if installable else 1)
            scale = simulation.install_minutes * 0.9 / total if total else 1.0
        self.minutes += scan
        failing = int(simulation.install_fails)
        for index, patch in enumerate(installable):
            stopped = simulation.window_too_short and index >= len(installable) // 2
            if stopped or self.request.minutes - self.minutes <= self._reserve(patch):
                self.window_exceeded = True
                for rest in installable[index:]:
                    self.states[rest.patch_id] = "Pending"
                return
            self.minutes += patch.minutes * scale
            self.states[patch.patch_id] = "Failed" if index < failing else "Installed"

    def _reserve(self, patch: Patch) -> float:
        """Minutes of the window that must be left before another patch starts."""
        if self.windows:
            return 30 if patch.classification == "ServicePack" else 25
        return 5 if self.request.reboot_setting == "Never" else 20

    def _reboot(self, installed: list[Patch]) -> tuple[tuple[float, float] | None, str, bool]:
        guest, simulation = self.guest, self.guest.simulation
        needed = any(patch.needs_reboot for patch in installed)
        if installed and simulation.reboot_required is not None:
            needed = simulation.reboot_required
        wanted = guest.reboot_pending or needed
        setting = self.request.reboot_setting
        if setting == "Never" or not (wanted or setting == "Always"):
            return None, "Required" if wanted else "NotNeeded", wanted
        if simulation.reboot_behavior == "required":
            return None, "Required", True
        if self.request.minutes - self.minutes < (10 if self.windows else 15):
            self.window_exceeded = True
            return None, "Required", True
        minutes = simulation.reboot_minutes
        minutes = guest.source.uniform(1.0, 2.5) if minutes is None else minutes
        start = GOAL_STATE_SECONDS + self.minutes * 60
        self.minutes += minutes
        window = (start, start + minutes * 60)
        if simulation.reboot_behavior == "fails":
            self.problems.append(_detail("ERROR", "Reboot failed to proceed on the machine in a timely manner."))
            return window, "Failed", True
        return window, "Completed", False


def _nothing(guest: Guest, status: str, problems: list[dict[str, str]], seconds: float) -> Completion:
    pending = list(guest.pending)
    states = {patch.patch_id: "Pending" for patch in pending}
    result = _install_result(guest, pending, states, status, "NotNeeded", False, problems)
    return Completion(GOAL_STATE_SECONDS + seconds, result=result)


def _install_result(
    guest: Guest,
    pending: list[Patch],
    states: dict[str, str],
    status: str,
    reboot_status: str,
    window_exceeded: bool,
    problems: list[dict[str, str]],
) -> Callable[[str, str, str], dict[str, Any]]:
    windows = guest.os_type == "Windows"
    tally = list(states.values())

    def result(activity_id: str, started: str, modified: str) -> dict[str, Any]:
        del modified  # items of an installation carry no time
        kept, cut = _cut([patch.installed(states[patch.patch_id]) for patch in pending])
        return {
            "status": status,
            "installationActivityId": activity_id,
            "rebootStatus": reboot_status,
            "maintenanceWindowExceeded": window_exceeded,
            "excludedPatchCount": tally.count("Excluded"),
            "notSelectedPatchCount": tally.count("NotSelected"),
            "pendingPatchCount": tally.count("Pending"),
            "installedPatchCount": tally.count("Installed"),
            "failedPatchCount": tally.count("Failed"),
            "patches": kept,
            "startDateTime": started,
            **({} if windows else {"maintenanceRunId": ""}),
            "error": error_list(problems + cut, windows),
        }

    return result


def _invalid_combination(parameters: dict[str, Any]) -> bool:
    wanted = {str(value).casefold() for value in list_or_empty(parameters.get("classificationsToInclude"))}
    return "other" in wanted and len(wanted & {"critical", "security"}) == 1


def _problems(guest: Guest) -> list[dict[str, str]]:
    made: list[dict[str, str]] = []
    if guest.too_old:
        made.append(guest.too_old)
    if guest.simulation.guest_problem is not None:
        made.append(_detail(*_GUEST_PROBLEMS[guest.simulation.guest_problem, guest.os_type == "Windows"]))
    esm = sum(patch.is_esm for patch in guest.pending)
    if esm:
        text = f"{esm} patches requires Ubuntu Pro for Infrastructure with Extended Security Maintenance"
        made.append(_detail("UA_ESM_REQUIRED", text))
    return made


_PACKAGEKIT = ("OPERATION_FAILED", "Unexpected return code (1) on command: systemctl disable packagekit")
_DISABLED = ("0x80070422", "The Windows Update service is disabled, or has no enabled devices: 0x80070422.")
_GUEST_PROBLEMS = {
    ("packagekit", False): _PACKAGEKIT,
    ("packagekit", True): _PACKAGEKIT,
    ("updateServiceDisabled", False): _DISABLED,
    ("updateServiceDisabled", True): _DISABLED,
    ("sourceUnreachable", True): ("0x8024402C", "Windows Update cannot reach its server: 0x8024402C."),
    ("sourceUnreachable", False): (
        "PACKAGE_MANAGER_FAILURE",
        "Customer environment error: Investigate and resolve unexpected return code (100) from package manager on "
        "command: sudo apt-get -q update",
    ),
}
"""By the problem and whether the guest is Windows. The texts for Linux are the extension's own, the codes for Windows
those of "Troubleshoot issues with Azure Update Manager"; the wording of the latter is made up."""


def _superseded() -> dict[str, str]:
    return _detail("NEWER_OPERATION_SUPERSEDED", "Execution was stopped due to a newer operation taking precedence.")


def _detail(code: str, message: str) -> dict[str, str]:
    return {"code": code, "message": message[:128]}


def _cut(items: list[dict[str, Any]]) -> tuple[list[dict[str, Any]], list[dict[str, str]]]:
    """The extension's status file is limited: a longer list is cut, and only the counts stay correct."""
    size = 0
    for index, item in enumerate(items):
        size += len(json.dumps(item, separators=(",", ":"))) + 1
        if size > STATUS_LIMIT_BYTES:
            note = "Package lists were truncated to limit reporting data volume. In-VM logs contain complete lists."
            return items[:index], [_detail("PACKAGE_LIST_TRUNCATED", note)]
    return items, []


def error_list(problems: list[dict[str, str]], windows: bool) -> dict[str, Any]:
    """The ``error`` object, which is present on success too."""
    if not problems:
        if windows:
            return {"details": [], "code": "Success", "message": "0 error/s reported"}
        return {"details": [], "code": "0", "message": "0 error/s reported."}
    latest = problems[-5:]
    message = f"{len(problems)} error/s reported. The latest {len(latest)} error/s are shared in detail."
    if not windows:
        message += f" To view all errors, review this log file on the machine: {LINUX_LOG}"
    return {"details": latest, "code": "1", "message": message}


def stamps(clock: Clock, started: float, ended: float) -> tuple[str, str]:
    """The result's start (when the extension began) and the stamp of its items."""
    return clock.stamp(min(ended, started + GOAL_STATE_SECONDS)), clock.stamp_in_seconds(ended)
