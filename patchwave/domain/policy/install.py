"""The install section of a policy: what is installed on which system, how it restarts, and how long it may take."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, Field, StrictInt

from patchwave.domain.azure.install_request import (
    MAX_DURATION,
    MIN_DURATION,
    LinuxClassification,
    LinuxParameters,
    RebootSetting,
    WindowsClassification,
    WindowsParameters,
)
from patchwave.domain.core.documents import Document
from patchwave.domain.core.duration import Duration, between, format_duration, parse_duration
from patchwave.domain.policy.scope import OsType

MIN_MAXIMUM_DURATION = timedelta(minutes=30)
"""With less, service packs of Windows could never start."""

MAX_MASKS = 200
"""In one list of a policy: each mask is compared with every pending patch of every machine."""

_PATTERN = r"^[Pp][Tt](?=[0-9])([0-9]{1,4}[Hh])?([0-9]{1,5}[Mm])?([0-9]{1,6}[Ss])?$"


def _check_masks[Parameters: (WindowsParameters, LinuxParameters)](value: Parameters) -> Parameters:
    # Not at the lists themselves: what pins add to them in a run may be longer.
    for name, masks in value:
        if "masks" in name and len(masks or ()) > MAX_MASKS:
            alias = type(value).model_fields[name].alias or name
            raise ValueError(f"has {len(masks):,} {alias}; at most {MAX_MASKS}")
    return value


class Install(Document):
    """How patches are installed."""

    windows: Annotated[WindowsParameters, AfterValidator(_check_masks)] = Field(
        default=WindowsParameters(
            classifications_to_include=[WindowsClassification.CRITICAL, WindowsClassification.SECURITY]
        ),
        title="Windows",
        description="What to install on Windows machines; Critical and Security unless given.",
    )
    linux: Annotated[LinuxParameters, AfterValidator(_check_masks)] = Field(
        default=LinuxParameters(
            classifications_to_include=[LinuxClassification.CRITICAL, LinuxClassification.SECURITY]
        ),
        title="Linux",
        description="What to install on Linux machines; Critical and Security unless given.",
    )
    reboot_setting: RebootSetting = Field(
        default=RebootSetting.IF_REQUIRED,
        title="Reboot setting",
        description="Whether a machine restarts after installing: IfRequired, Never or Always. With"
        " rebootMode: separate it does not count: machines restart apart, those that need it.",
    )
    maximum_duration: Annotated[
        Duration,
        between(
            MIN_MAXIMUM_DURATION,
            MAX_DURATION,
            "must be at least PT30M and under PT24H: shorter cannot start, the Linux agent reads no longer",
        ),
    ] = Field(
        default=parse_duration("PT2H"),
        title="Maximum duration",
        description="The longest an installation may take on one machine, PTnHnM, at least PT30M and under PT24H. "
        "It is shortened when the window ends earlier.",
        json_schema_extra={"pattern": _PATTERN},
        examples=["PT2H", "PT1H30M"],
    )
    minimum_duration: Annotated[
        Duration,
        between(MIN_DURATION, MAX_DURATION, "must be at least PT20M and under PT24H: no agent starts anything in less"),
    ] = Field(
        default=parse_duration("PT1H"),
        title="Minimum duration",
        description="No installation starts when less than this is left of the window, PTnHnM, at least PT20M. The"
        " maximum duration counts instead when that is shorter. Windows needs 25 minutes in any case, with service"
        " packs 30; Linux 20.",
        json_schema_extra={"pattern": _PATTERN},
        examples=["PT1H", "PT30M"],
    )
    approval_delay_days: Annotated[StrictInt, Field(ge=0, le=60)] = Field(
        default=0,
        title="Approval delay in days",
        description="Install only what was this old when the run began, 0 to 60 days: on Windows since its publication,"
        " on Linux since Patchwave first saw the version on any machine.",
    )


# What the guest agents need to begin at all, with the reboot that they keep free inside the maximum duration.
_WINDOWS_NEEDS = timedelta(minutes=25)
"""15 to scan, download and install, 10 for the reboot."""
_SERVICE_PACKS_NEED = timedelta(minutes=30)
"""20 and 10."""
_LINUX_NEEDS = timedelta(minutes=20)
"""5 for a package, 15 for the reboot."""


def shortest_installation(install: Install, os_type: OsType) -> timedelta:
    """The floor: with less than this left of the window, no installation starts on such a machine.

    It is the policy's minimum duration (its maximum, when that is shorter), and never less than the agent needs.
    """
    if os_type is OsType.LINUX:
        needs = _LINUX_NEEDS
    elif WindowsClassification.SERVICE_PACK in install.windows.classifications_to_include:
        needs = _SERVICE_PACKS_NEED
    else:
        needs = _WINDOWS_NEEDS
    return max(needs, min(install.minimum_duration, install.maximum_duration))


def too_short(window: timedelta, install: Install, os_types: Iterable[OsType]) -> str:
    """Why no installation could ever start in a window of this length; empty when it can on each of the systems."""
    for os_type in os_types:
        floor = shortest_installation(install, os_type)
        if window < floor:
            return (
                f"{format_duration(window)} is shorter than one installation on {os_type.value}, which needs"
                f" {format_duration(floor)}; make the window longer, or install.minimumDuration shorter"
            )
    return ""
