"""What we send to the assess and install calls of Microsoft.Compute, checked before any call.

Follows the REST page "Virtual Machines - Install Patches", api-version 2025-04-01; assessing sends no body. Azure
answers a wrong value with a 400 that still costs a token of the per-machine budget, or accepts it and silently
selects nothing: so every value is checked here, with a message that names the field and the fix.
"""

import re
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field, PlainSerializer, model_validator

from patchwave.domain.core.documents import Document, Json, UtcDatetime, without_empty
from patchwave.domain.core.duration import Duration, between, format_duration

MIN_DURATION = timedelta(minutes=20)
"""No agent starts an installation in less; what each system needs is in `patchwave.domain.scheduling.window`."""
MAX_DURATION = timedelta(hours=24) - timedelta.resolution
"""The Linux agent parses the duration as %H:%M:%S."""

_KB = re.compile(r"(?:KB)?([0-9]{5,8})", re.IGNORECASE)
_NAME_MASK = re.compile(r"[A-Za-z0-9*?]+")
_VERSION_STARTS = re.compile(r"(?<!x86)_(?=[0-9])")
_VERSION_MAY_START = re.compile(r"(?<!x86)_(?=[vV]?[0-9]|[*?]|$)")
_VERSION = re.compile(r"(?=.*[.:~^])[0-9][A-Za-z0-9*?+.:~^-]*(?:_[0-9][A-Za-z0-9*?+.:~^-]*)*")
"""Versions begin with a digit. Without one of these characters it may be the end of a name: ``libopenssl1_1``."""
_HOLDS_VERSION = re.compile(r"_[0-9](?:[^_]*[.:~^]|(?![0-9]*(?:[_-]|$)))")
_ENDS_WITH_ARCHITECTURE = re.compile(r"\.(?:x86_64|noarch|i686|aarch64)$")
_PACKAGE_MASK = re.compile(r"[A-Za-z0-9*?][A-Za-z0-9*?+._:~-]*(?:=[A-Za-z0-9*?][A-Za-z0-9*?+._:~^-]*)?")


class RebootSetting(StrEnum):
    """``VMGuestPatchRebootSetting``. Update Manager's NeverReboot and AlwaysReboot are refused by this API."""

    IF_REQUIRED = "IfRequired"
    NEVER = "Never"
    ALWAYS = "Always"

    @classmethod
    def read(cls, text: str) -> "RebootSetting | None":
        """The setting of a text from Azure, in either vocabulary and any case; ``None`` when it is none.

        A maintenance configuration that was sent with ``Always`` or ``Never`` is answered with ``AlwaysReboot`` or
        ``NeverReboot`` (recorded).
        """
        return _REBOOT_WORDS.get(text.strip().casefold())


_REBOOT_WORDS = {setting.value.casefold(): setting for setting in RebootSetting} | {
    "rebootifrequired": RebootSetting.IF_REQUIRED,
    "neverreboot": RebootSetting.NEVER,
    "alwaysreboot": RebootSetting.ALWAYS,
}


class WindowsClassification(StrEnum):
    """``VMGuestPatchClassificationWindows``."""

    CRITICAL = "Critical"
    SECURITY = "Security"
    UPDATE_ROLLUP = "UpdateRollUp"
    FEATURE_PACK = "FeaturePack"
    SERVICE_PACK = "ServicePack"
    DEFINITION = "Definition"
    TOOLS = "Tools"
    UPDATES = "Updates"


class LinuxClassification(StrEnum):
    """``VMGuestPatchClassificationLinux``."""

    CRITICAL = "Critical"
    SECURITY = "Security"
    OTHER = "Other"


MaximumDuration = Annotated[
    Duration,
    between(
        MIN_DURATION,
        MAX_DURATION,
        "must be at least PT20M and under PT24H: shorter cannot start, the Linux agent reads no longer",
    ),
    PlainSerializer(format_duration, return_type=str),
]
"""What the install call takes: whole minutes."""


def normalize_kb(text: str) -> str:
    """``KB`` and digits; bare digits get the prefix that the API demands.

    Raises:
        ValueError: neither.
    """
    found = _KB.fullmatch(text.strip())
    if found is None:
        raise ValueError(f"{text!r} is not a KB number; write KB and its digits such as KB4512508")
    return f"KB{found[1]}"


def _check_name_mask(text: str) -> str:
    if _NAME_MASK.fullmatch(text) is None:
        raise ValueError(f"{text!r} is not a name mask; use letters, digits, * and ? only, and at least one of them")
    return text


def is_package_mask(text: str) -> bool:
    """Whether the text is a package name with * and ?, or ``name=version``; versions may have epochs, ~ and ^."""
    return _PACKAGE_MASK.fullmatch(text) is not None


def read_package_mask(text: str) -> str:
    """A package mask in the form that the Linux agent reads: a name with * and ?, or ``name=version``.

    The API text of Microsoft says ``name_version``, which the agent takes for a name: such a mask selects nothing, and
    excludes nothing (azure-cli issue 32333). It is translated where only one reading is possible.

    Raises:
        ValueError: it is no mask, or it may be a name as well as a name with a version.
    """
    if "=" not in text:
        splits = [(text[: found.start()], text[found.end() :]) for found in _VERSION_STARTS.finditer(text)]
        readings = [
            f"{name}={version}"
            for name, version in splits
            if _VERSION.fullmatch(version)
            and not _HOLDS_VERSION.search(name)
            and not _ENDS_WITH_ARCHITECTURE.search(version)
        ]
        if len(readings) == 1 and is_package_mask(readings[0]):
            return readings[0]
        unclear = _VERSION_MAY_START.search(text)
        if unclear is not None and is_package_mask(text):
            pinned = f"{text[: unclear.start()]}={text[unclear.end() :] or '*'}"
            raise ValueError(
                f"{text!r} may be a name, or a name with a version; write {pinned} for the version, or {text}=* when "
                "all of it is the name"
            )
    if not is_package_mask(text):
        raise ValueError(f"{text!r} is not a package mask; write a name with * and ?, or pin a version as name=version")
    return text


def _fold_classification(value: object) -> object:
    """Documents and portals spell ``UpdateRollup``: classifications are compared without case."""
    if not isinstance(value, str):
        return value
    words = {word.casefold(): word.value for kind in (WindowsClassification, LinuxClassification) for word in kind}
    return words.get(value.casefold(), value)


KbNumber = Annotated[str, AfterValidator(normalize_kb)]
NameMask = Annotated[str, AfterValidator(_check_name_mask)]
PackageMask = Annotated[str, AfterValidator(read_package_mask)]


class WindowsParameters(Document):
    """``WindowsParameters`` of the install call. Patch name masks exist since api-version 2025-04-01."""

    classifications_to_include: list[Annotated[WindowsClassification, BeforeValidator(_fold_classification)]] = Field(
        default_factory=list[WindowsClassification], description="Update classifications to install."
    )
    kb_numbers_to_include: list[KbNumber] = Field(
        default_factory=list[str], description="Updates to install in any case, as KB4512508."
    )
    kb_numbers_to_exclude: list[KbNumber] = Field(
        default_factory=list[str], description="Updates never to install, as KB4512508."
    )
    exclude_kbs_requiring_reboot: bool = Field(
        default=False, description="Leave out updates whose reboot behaviour is not NeverReboots."
    )
    max_patch_publish_date: UtcDatetime | None = Field(
        default=None, description="Install only what was published until this time."
    )
    patch_name_masks_to_include: list[NameMask] = Field(
        default_factory=list[str], description="Name masks to install, of letters, digits, * and ?."
    )
    patch_name_masks_to_exclude: list[NameMask] = Field(
        default_factory=list[str], description="Name masks never to install, of letters, digits, * and ?."
    )

    @model_validator(mode="after")
    def _selects_something(self) -> Self:
        if not (self.classifications_to_include or self.kb_numbers_to_include or self.patch_name_masks_to_include):
            raise ValueError(
                "selects nothing: give at least one of classificationsToInclude, kbNumbersToInclude, "
                "patchNameMasksToInclude"
            )
        return self


class LinuxParameters(Document):
    """``LinuxParameters`` of the install call.

    Versions are pinned as ``name=version``, which is how the agent splits a mask; see `read_package_mask`.
    """

    classifications_to_include: list[Annotated[LinuxClassification, BeforeValidator(_fold_classification)]] = Field(
        default_factory=list[LinuxClassification],
        description="Update classifications to install. Other needs both Critical and Security, or neither.",
    )
    package_name_masks_to_include: list[PackageMask] = Field(
        default_factory=list[str],
        description="Packages to install in any case: a name with * and ?, or name=version. name_version is read as"
        " name=version, and refused where it may be a name.",
    )
    package_name_masks_to_exclude: list[PackageMask] = Field(
        default_factory=list[str],
        description="Packages never to install: a name with * and ?. The agent ignores a version behind it: every"
        " version is left out.",
    )
    maintenance_run_id: str | None = Field(
        default=None, description="Identifier that automatic guest patching on Linux gives a run."
    )

    @model_validator(mode="after")
    def _selects_something_the_agent_accepts(self) -> Self:
        chosen = set(self.classifications_to_include)
        if not (chosen or self.package_name_masks_to_include):
            raise ValueError(
                "selects nothing: give at least one of classificationsToInclude, packageNameMasksToInclude"
            )
        pair = {LinuxClassification.CRITICAL, LinuxClassification.SECURITY}
        if LinuxClassification.OTHER in chosen and len(chosen & pair) == 1:
            raise ValueError(
                "classificationsToInclude: the Linux agent refuses Other with exactly one of Critical and Security; "
                "give both or neither"
            )
        return self


class InstallParameters(Document):
    """``VirtualMachineInstallPatchesParameters``: the body of the install call, for one operating system."""

    maximum_duration: MaximumDuration
    reboot_setting: RebootSetting
    windows_parameters: WindowsParameters | None = None
    linux_parameters: LinuxParameters | None = None

    @model_validator(mode="after")
    def _one_system(self) -> Self:
        if (self.windows_parameters is None) == (self.linux_parameters is None):
            raise ValueError("give exactly one of windowsParameters and linuxParameters")
        return self

    def to_azure(self) -> Json:
        return without_empty(self.to_wire())
