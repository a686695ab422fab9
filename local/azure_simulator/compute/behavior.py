"""The ``simulation`` overrides of a machine, which change its default behaviour."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from local.azure_simulator.server.json_readers import Strict

PowerState = Literal["running", "stopped", "deallocated", "hibernated", "creating"]
AgentState = Literal["ready", "notReady", "missing", "old"]
GuestProblem = Literal["packagekit", "updateServiceDisabled", "sourceUnreachable"]


class PendingPatch(Strict):
    """One pending patch in a fleet file."""

    name: str
    version: str | None = None
    kb: str | None = Field(default=None, pattern=r"^[0-9]+$")
    classification: str = "Security"
    severity: Literal["Critical", "Important"] | None = None
    needs_reboot: bool = False
    published: str | None = None
    minutes: float | None = Field(default=None, ge=0)
    older: list[str] = Field(default_factory=list[str])
    """Older versions in a Linux repository, installed when a request names them."""


class FiredAlert(Strict):
    """An Azure Monitor alert on the machine."""

    rule: str
    severity: Literal["Sev0", "Sev1", "Sev2", "Sev3", "Sev4"] = "Sev1"
    condition: Literal["Fired", "Resolved"] = "Fired"
    state: Literal["New", "Acknowledged", "Closed"] = "New"
    hours_ago: float = Field(default=0.5, ge=0)
    """When it fired, in hours of the wall clock before the simulator's start."""


class OperationFailure(Strict):
    """An operation that is accepted and then fails as a whole (HTTP 200, status Failed)."""

    code: str = "VMGuestPatchInternalError"
    message: str = "An internal execution error occurred. Please retry later."
    times: int | None = Field(default=None, ge=1)
    """How many operations fail; none means all of them."""
    kind: Literal["assess", "install"] | None = None


class PatchSimulation(Strict):
    """Overrides of any machine that is patched. Minutes are simulated minutes. An unknown key is an error."""

    architecture: Literal["x64", "Arm64"] = "x64"
    agent_version: str | None = None
    """Version that the agent reports; none gives a current one, or an old one for an old agent."""
    busy: bool | float = False
    """Another operation holds the machine: true for good, a number for so many minutes."""
    pending_patches: int | list[PendingPatch] | None = None
    needs_ubuntu_pro: bool | int = False
    """Number of pending Security-ESM packages that cannot be installed (true: 12)."""
    reboot_pending: bool = False
    reboot_required: bool | None = None
    """Whether the pending patches need a reboot; none leaves it to the patches."""
    reboot_behavior: Literal["completes", "required", "fails"] = "completes"
    assess_minutes: float | None = Field(default=None, ge=0)
    install_minutes: float | None = Field(default=None, ge=0)
    reboot_minutes: float | None = Field(default=None, ge=0)
    assess_fails: bool = False
    guest_problem: GuestProblem | None = None
    """What is wrong in the guest: assessments and installations fail, and their errors tell it."""
    install_fails: bool | int = False
    """Number of selected patches that fail (true: 1)."""
    install_warns: bool = False
    window_too_short: bool = False
    never_ends: bool | Literal["assess", "install"] = False
    superseded: bool = False
    forbidden: bool = False
    forbidden_polls: bool = False
    rejects_kb: list[str] = Field(default_factory=list)
    operation_fails: OperationFailure | None = None
    alerts: list[FiredAlert] = Field(default_factory=list[FiredAlert])
    gone: bool = False
    """Known to Resource Graph, but calls on the machine return 404, as just after a deletion."""
    deleted: bool = False
    """Deleted everywhere; its assignments stay."""

    @property
    def is_gone(self) -> bool:
        return self.gone or self.deleted


class Simulation(PatchSimulation):
    """Overrides of one virtual machine."""

    power: PowerState | None = None
    agent: AgentState = "ready"
    update_domain: int | None = Field(default=None, ge=0, le=19)
    """The update domain in its availability set; none counts the members of the set in fives."""
    image_unsupported: bool = False
    busy_with: Literal["extension", "install"] = "extension"
    """Whether that other operation shows in the patch status as another client's installation."""
    start_minutes: float = Field(default=0.7, ge=0)
    start_fails: bool = False
    patch_extension: Literal["installed", "failed", "missing"] | None = None
    """The patch extension at the start; none has it on machines that are set to AutomaticByPlatform."""
    assessed_hours_ago: float | None = Field(default=None, ge=0)
    """Azure assessed the machine so many simulated hours before the simulator's start."""
    installed_hours_ago: float | None = Field(default=None, ge=0)
    """A schedule patched the machine so many simulated hours before the simulator's start."""
    summary_stuck: bool = False
    """The available-patch summary in the instance view stays InProgress for good."""
    refuses_late: bool = False
    """A machine that is not running accepts the call and fails the operation, where others answer 409."""
    update_fails: bool = False
    """A PATCH or PUT of the machine is accepted and fails."""
    snapshot_fails: bool = False
    """A snapshot of the OS disk is accepted and ends in the state Failed."""
    script_exit: int = 0
    """The exit code of scripts that come by run command."""
    script_minutes: float = Field(default=0.5, ge=0)
    resource_health: Literal["Available", "Unavailable", "Degraded", "Unknown"] = "Available"
    app_health: Literal["healthy", "unhealthy", "initializing", "unknown"] | None = None
    """State of the Application Health extension; none without the extension."""
    unhealthy_after_install: bool | float = False
    """An installation leaves the machine unhealthy: for good, or for so many minutes."""
    recreated: bool = False
    """Deleted and created again under its old name when this is set."""
