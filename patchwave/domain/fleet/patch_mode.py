"""What patches a machine by itself, and which changes of that Azure allows.

A machine's patch mode, the flag ``bypassPlatformSafetyChecksOnUserSchedule`` and the schedules that are attached to it
decide together: eight scenarios, of which five patch nothing, most of them silently. Sources: Update Manager's page on
the prerequisites of scheduled patching (the eight scenarios), "Automatic VM Guest Patching for Azure VMs" (modes and
the changes between them), and the enumerations of Microsoft.Compute 2025-04-01.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import NamedTuple, Self

from pydantic import Field, model_validator

from patchwave.domain.core.documents import Document, Json, UtcDatetime, format_instant, object_or_none
from patchwave.domain.policy.scope import OsType


class PatchMode(StrEnum):
    """``patchSettings.patchMode`` of both systems."""

    AUTOMATIC_BY_PLATFORM = "AutomaticByPlatform"
    AUTOMATIC_BY_OS = "AutomaticByOS"
    """Windows only: Windows Update decides."""
    MANUAL = "Manual"
    """Windows only."""
    IMAGE_DEFAULT = "ImageDefault"
    """Linux only: what the image brings, such as unattended-upgrades."""

    @property
    def systems(self) -> tuple[OsType, ...]:
        if self is PatchMode.AUTOMATIC_BY_PLATFORM:
            return (OsType.WINDOWS, OsType.LINUX)
        return (OsType.LINUX,) if self is PatchMode.IMAGE_DEFAULT else (OsType.WINDOWS,)


class AssessmentMode(StrEnum):
    """``patchSettings.assessmentMode``: AutomaticByPlatform assesses every 24 hours, whatever patches the machine."""

    AUTOMATIC_BY_PLATFORM = "AutomaticByPlatform"
    IMAGE_DEFAULT = "ImageDefault"


class PatchSettings(Document):
    """What a machine is set to. A mode of ``None`` is a word that this code does not know."""

    os_type: OsType
    patch_mode: PatchMode | None
    assessment_mode: AssessmentMode | None
    bypass: bool = Field(default=False, description="bypassPlatformSafetyChecksOnUserSchedule.")
    hotpatching: bool = Field(default=False, description="enableHotpatching; Windows only.")
    enable_automatic_updates: bool = Field(
        default=True, description="Windows only, and fixed when the machine is created."
    )
    provision_vm_agent: bool = Field(default=True, description="provisionVMAgent.")

    @classmethod
    def read(cls, os_type: str, configuration: object) -> Self | None:
        """Read ``windowsConfiguration`` or ``linuxConfiguration``; ``None`` for a system that guest patching lacks.

        Absent keys have Azure's defaults: AutomaticByOS on Windows (Manual where automatic updates are off) and
        ImageDefault on Linux; agent and automatic updates are on.
        """
        system = OsType.read(os_type)
        if system is None:
            return None
        bag = object_or_none(configuration) or {}
        settings = object_or_none(bag.get("patchSettings")) or {}
        platform = object_or_none(settings.get("automaticByPlatformSettings")) or {}
        updates = bag.get("enableAutomaticUpdates") is not False
        by_default = PatchMode.AUTOMATIC_BY_OS if updates else PatchMode.MANUAL
        return cls(
            os_type=system,
            patch_mode=_word(
                PatchMode,
                settings.get("patchMode"),
                by_default if system is OsType.WINDOWS else PatchMode.IMAGE_DEFAULT,
            ),
            assessment_mode=_word(AssessmentMode, settings.get("assessmentMode"), AssessmentMode.IMAGE_DEFAULT),
            bypass=platform.get("bypassPlatformSafetyChecksOnUserSchedule") is True,
            hotpatching=settings.get("enableHotpatching") is True,
            enable_automatic_updates=updates,
            provision_vm_agent=bag.get("provisionVMAgent") is not False,
        )

    @property
    def is_by_platform(self) -> bool:
        """Whether Azure orchestrates patching at all."""
        return self.patch_mode is PatchMode.AUTOMATIC_BY_PLATFORM


def _word[Word: StrEnum](words: type[Word], text: object, by_default: Word) -> Word | None:
    if text is None or text == "":
        return by_default
    return next((word for word in words if word.value.casefold() == str(text).casefold()), None)


# --- what patches it --------------------------------------------------------------------------------------------


class AttachedSchedule(Document):
    """A maintenance configuration of scope InGuestPatch that is attached to a machine, directly or by its filter."""

    configuration_id: str
    next_at: UtcDatetime | None = Field(default=None, description="Its next start; null once it has ended.")

    @property
    def name(self) -> str:
        """The last part of the id."""
        return self.configuration_id.rstrip("/").rpartition("/")[2]


class PatchSource(StrEnum):
    """What patches a machine without a request."""

    SCHEDULE = "schedule"
    PLATFORM = "platform"
    """Azure's own automatic guest patching: Critical and Security, within 30 days of a release, in off-peak hours."""
    OPERATING_SYSTEM = "operating_system"
    """Windows Update in the guest, or what the Linux image brings; Azure neither orders nor sees it."""
    POLICY = "policy"
    """A policy of Patchwave and nothing else; no setting of the machine says so."""
    NONE = "none"
    UNKNOWN = "unknown"


class PatchOwnership(Document):
    """What will patch a machine, when, and why, or why nothing will.

    ``scenario`` counts the eight: 1 to 4 with AutomaticByPlatform, 5 to 8 with any other mode; in each four, the flag
    with and without schedule, then no flag with and without schedule. Arc machines have none. ``is_mistake``: a
    schedule is attached that Azure cannot carry out, which it reports as an error of each occurrence.
    """

    scenario: int | None
    patcher: PatchSource
    at: UtcDatetime | None = None
    sentence: str
    is_mistake: bool = False


def patch_ownership(
    settings: PatchSettings,
    schedules: Sequence[AttachedSchedule] = (),
    *,
    unsupported: str = "",
    is_undecided: bool = False,
) -> PatchOwnership:
    """What will patch a machine that is set so, with these schedules attached.

    Args:
        settings: what the machine is set to.
        schedules: what is attached to it; those that have ended count as attached, but patch nothing.
        unsupported: why Azure's automatic patching leaves the machine out although it is set to it; empty if it
            does not.
        is_undecided: whether it is not known if Azure's automatic patching takes the machine.
    """
    scenario = 1 + 4 * (not settings.is_by_platform) + 2 * (not settings.bypass) + (not schedules)
    names = ", ".join(schedule.name for schedule in schedules)
    coming = [(schedule.next_at, schedule.name) for schedule in schedules if schedule.next_at is not None]
    at, is_mistake, patcher = None, scenario != 1 and bool(schedules), PatchSource.NONE
    match settings.patch_mode, scenario:
        case None, _:
            is_mistake, patcher = False, PatchSource.UNKNOWN
            sentence = "Azure names a patch mode that is not known here."
        case _, 1 if coming:
            patcher, (at, name) = PatchSource.SCHEDULE, min(coming)
            sentence = f"The schedule {name} patches it at {format_instant(at)}."
        case _, 1:
            sentence = f"Set to follow a schedule, and what is attached has ended: {names}."
        case _, 2:
            sentence = "Set to follow a schedule, and none is attached: only patched on demand, as Patchwave does."
        case _, 3:
            sentence = (
                f"The schedule {names} fails on this machine: it needs the bypass flag, which is off, and with a"
                " schedule attached Azure does not patch by itself."
            )
        case _, 4 if unsupported:
            sentence = f"Set to Azure's automatic patching, which leaves this machine out: {unsupported}"
        case _, 4 if is_undecided:
            patcher = PatchSource.UNKNOWN
            sentence = "Set to Azure's automatic patching, and it is not known whether that takes the machine."
        case _, 4:
            patcher = PatchSource.PLATFORM
            sentence = "Azure patches it: Critical and Security, in its off-peak hours, within 30 days of a release."
        case mode, _:
            # The four scenarios of the other modes: the flag changes nothing, and a schedule is an error.
            patcher, sentence = _OUTSIDE_AZURE[mode]
            sentence += f" The schedule {names} fails: it needs AutomaticByPlatform." if schedules else ""
    return PatchOwnership(scenario=scenario, patcher=patcher, at=at, sentence=sentence, is_mistake=is_mistake)


def arc_ownership(schedules: Sequence[AttachedSchedule] = ()) -> PatchOwnership:
    """What will patch an Arc machine: a schedule, which needs no patch mode there, or nothing by itself."""
    coming = [(schedule.next_at, schedule.name) for schedule in schedules if schedule.next_at is not None]
    if coming:
        at, name = min(coming)
        sentence = f"The schedule {name} patches it at {format_instant(at)}."
        return PatchOwnership(scenario=None, patcher=PatchSource.SCHEDULE, at=at, sentence=sentence)
    sentence = "No schedule is attached, and Azure patches no Arc machine by itself."
    if schedules:
        sentence = f"What is attached has ended: {', '.join(schedule.name for schedule in schedules)}."
    return PatchOwnership(scenario=None, patcher=PatchSource.NONE, sentence=sentence)


_OUTSIDE_AZURE = {
    PatchMode.MANUAL: (PatchSource.NONE, "Manual: nothing patches it by itself."),
    PatchMode.AUTOMATIC_BY_OS: (PatchSource.OPERATING_SYSTEM, "Windows Update patches it, whenever it decides to."),
    PatchMode.IMAGE_DEFAULT: (
        PatchSource.OPERATING_SYSTEM,
        "What its image brings may patch it, such as unattended-upgrades; Azure does nothing.",
    ),
}


# --- changes ---------------------------------------------------------------------------------------------------


class WantedSettings(Document):
    """What machines shall be set to; what is left out stays as it is."""

    patch_mode: PatchMode | None = Field(default=None, description="The patch mode to set.")
    assessment_mode: AssessmentMode | None = Field(default=None, description="The assessment mode to set.")
    bypass: bool | None = Field(
        default=None,
        description="bypassPlatformSafetyChecksOnUserSchedule: true hands the machine to schedules and to Patchwave,"
        " false to Azure's automatic patching.",
    )

    @model_validator(mode="after")
    def _wants_something(self) -> Self:
        if self.patch_mode is None and self.assessment_mode is None and self.bypass is None:
            raise ValueError("changes nothing: give at least one of patchMode, assessmentMode, bypass")
        if self.bypass is not None and self.patch_mode not in (None, PatchMode.AUTOMATIC_BY_PLATFORM):
            raise ValueError("bypass is of AutomaticByPlatform only: leave it out, or set that patchMode")
        return self

    def is_met_by(self, settings: PatchSettings) -> bool:
        return (
            self.patch_mode in (None, settings.patch_mode)
            and self.assessment_mode in (None, settings.assessment_mode)
            and self.bypass in (None, settings.bypass)
        )

    @property
    def hands_to_azure(self) -> bool:
        """Whether machines shall be patched, or assessed, by Azure itself: that is what eligibility is about."""
        is_patched = self.patch_mode is PatchMode.AUTOMATIC_BY_PLATFORM and not self.bypass
        return is_patched or self.bypass is False or self.assessment_mode is AssessmentMode.AUTOMATIC_BY_PLATFORM

    def to_azure(self, os_type: OsType) -> Json:
        """The body of ``PATCH virtualMachines/{name}``: only what is to change, as a PATCH keeps the rest."""
        settings: Json = {}
        if self.patch_mode is not None:
            settings["patchMode"] = self.patch_mode.value
        if self.assessment_mode is not None:
            settings["assessmentMode"] = self.assessment_mode.value
        if self.bypass is not None:
            settings["automaticByPlatformSettings"] = {"bypassPlatformSafetyChecksOnUserSchedule": self.bypass}
        system = "windowsConfiguration" if os_type is OsType.WINDOWS else "linuxConfiguration"
        return {"properties": {"osProfile": {system: {"patchSettings": settings}}}}


class RefusalCode(StrEnum):
    """Why Azure would refuse a change."""

    OTHER_SYSTEM = "other_system"
    FIXED_AT_CREATION = "fixed_at_creation"
    """``enableAutomaticUpdates``, which decides between AutomaticByOS and Manual."""
    HOTPATCH = "hotpatch"
    NO_AGENT = "no_agent"
    NOT_BY_PLATFORM = "not_by_platform"


class Refusal(Document):
    """A change that Azure does not allow, and what to do instead."""

    code: RefusalCode
    sentence: str


class _Change(NamedTuple):
    """A change that a rule looks at: the settings of a machine, what is wanted, and the mode that it would have."""

    settings: PatchSettings
    wanted: WantedSettings
    mode: PatchMode | None

    @property
    def is_by_platform(self) -> bool:
        return self.mode is PatchMode.AUTOMATIC_BY_PLATFORM

    def sets(self, mode: PatchMode) -> bool:
        return self.wanted.patch_mode is mode

    def other_system(self) -> str:
        """Why the system of the machine has no such mode."""
        mode, system = self.wanted.patch_mode, self.settings.os_type
        if mode is None or system in mode.systems:
            return ""
        others = ", ".join(each for each in PatchMode if system in each.systems)
        return f"{system} has no mode {mode.value}; it has {others}."


def _fixed(is_now: str, wanted: str, instead: str) -> str:
    return (
        f"{wanted} needs another enableAutomaticUpdates than {is_now}, which is fixed when a machine is created: choose"
        f" {instead} or AutomaticByPlatform."
    )


_REFUSALS: tuple[tuple[RefusalCode, Callable[[_Change], bool], str], ...] = (
    (
        RefusalCode.FIXED_AT_CREATION,
        lambda change: change.sets(PatchMode.AUTOMATIC_BY_OS) and not change.settings.enable_automatic_updates,
        _fixed("false", "AutomaticByOS", "Manual"),
    ),
    (
        RefusalCode.FIXED_AT_CREATION,
        lambda change: change.sets(PatchMode.MANUAL) and change.settings.enable_automatic_updates,
        _fixed("true", "Manual", "AutomaticByOS"),
    ),
    (
        RefusalCode.HOTPATCH,
        lambda change: change.settings.hotpatching and not change.is_by_platform,
        "Hotpatching needs AutomaticByPlatform: turn enableHotpatching off first.",
    ),
    (
        RefusalCode.HOTPATCH,
        lambda change: change.settings.hotpatching and bool(change.wanted.bypass),
        "Hotpatching needs the platform's safety checks, which the bypass flag turns off: turn enableHotpatching"
        " off first.",
    ),
    (
        RefusalCode.NOT_BY_PLATFORM,
        lambda change: change.wanted.bypass is not None and not change.is_by_platform,
        "The bypass flag is of AutomaticByPlatform: set that patch mode as well.",
    ),
    (
        RefusalCode.NO_AGENT,
        lambda change: (
            not change.settings.provision_vm_agent
            and (
                change.sets(PatchMode.AUTOMATIC_BY_PLATFORM)
                or change.wanted.assessment_mode is AssessmentMode.AUTOMATIC_BY_PLATFORM
            )
        ),
        "AutomaticByPlatform needs the VM agent, and the machine was created with provisionVMAgent off.",
    ),
)
"""Why Azure refuses a change; the first rule that applies decides, after that of the operating system."""


def refusal_of(settings: PatchSettings, wanted: WantedSettings) -> Refusal | None:
    """Why this machine cannot be set so; ``None`` when Azure allows it, or when it is set so already."""
    if wanted.is_met_by(settings):
        return None
    change = _Change(settings, wanted, wanted.patch_mode or settings.patch_mode)
    if sentence := change.other_system():
        return Refusal(code=RefusalCode.OTHER_SYSTEM, sentence=sentence)
    refusals = (Refusal(code=code, sentence=text) for code, applies, text in _REFUSALS if applies(change))
    return next(refusals, None)
