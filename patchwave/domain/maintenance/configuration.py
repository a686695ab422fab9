"""Maintenance configurations of Microsoft.Maintenance: the schedules of Update Manager, as Azure writes them.

The models have the names and the shape of Azure's own body, so that a body of ``az rest`` or of a template is one of
ours. They hold whatever Azure holds, right or wrong: what a configuration must keep to is asked of
`patchwave.domain.maintenance.validation`, before a call. Words of an enumeration are read in every spelling that Azure
answers with, and held and written in the documented one; an unknown word is kept as it is. Source: "How to
programmatically manage updates for Azure VMs" and the TypeSpec of Microsoft.Maintenance.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from functools import cached_property
from itertools import islice
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from pydantic import AfterValidator, Field

from patchwave.domain.azure.install_request import RebootSetting
from patchwave.domain.calendar.schedule import Occurrence, find_zone
from patchwave.domain.calendar.wall_clock import from_wall_clock
from patchwave.domain.core.documents import Document, Json, lower_keys, read_leniently, str_or_empty, without_empty
from patchwave.domain.core.ids import ConfigurationId
from patchwave.domain.maintenance.recurrence import RecurEvery

IN_GUEST_PATCH = "InGuestPatch"
"""The maintenance scope of schedules that patch inside machines."""
IN_GUEST_PATCH_MODE = "InGuestPatchMode"
"""The extension property without which such a schedule patches nothing."""
NEVER_EXPIRES = "9999-12-31 23:59:59"
"""What Azure writes for a schedule without an end."""

_END_OF_TIME = datetime(9899, 12, 31, tzinfo=UTC)
VISIBILITIES = ("Custom", "Public")
_PATCH_MODES = ("User", "Platform")
_TIME_FORMS = ("%Y-%m-%d %H:%M", "%Y-%m-%d %H:%M:%S")
_DURATION = re.compile(r"([0-9]{1,3}):([0-5][0-9])(?::00)?")


def _spelled(text: str, known: Iterable[str]) -> str:
    """The documented spelling of a word, which Azure compares without case; an unknown word as it is."""
    return next((word for word in known if word.casefold() == text.strip().casefold()), text)


def _spell_reboot(text: str) -> str:
    setting = RebootSetting.read(text)
    return text if setting is None else setting.value


def _spell_extension(given: dict[str, str]) -> dict[str, str]:
    spelled: dict[str, str] = {}
    for name, value in given.items():
        is_mode = name.casefold() == IN_GUEST_PATCH_MODE.casefold()
        spelled |= {IN_GUEST_PATCH_MODE: _spelled(value, _PATCH_MODES)} if is_mode else {name: value}
    return spelled


class MaintenanceWindow(Document):
    """When a schedule runs. Times are of the wall clock in ``time_zone``."""

    start_date_time: str = Field(
        default="", description="First possible start, YYYY-MM-DD hh:mm, at least 15 min ahead."
    )
    expiration_date_time: str = Field(
        default="", description="No run starts after it, YYYY-MM-DD hh:mm; never unless given."
    )
    duration: str = Field(default="", description="Length of the window, HH:MM, from 01:30 to 03:55.")
    time_zone: str = Field(default="", description="Windows name of the zone, such as W. Europe Standard Time.")
    recur_every: str = Field(
        default="",
        description="Rate: Day, 3Days, Week Saturday,Sunday, Month day23,day24, Month Third Sunday Offset6, 6Hours.",
    )

    @property
    def start(self) -> datetime:
        """The start, on the wall clock.

        Raises:
            ValueError: it cannot be read.
        """
        return parse_wall_clock(self.start_date_time)

    @property
    def zone(self) -> ZoneInfo:
        """The zone.

        Raises:
            ValueError: there is none of that name.
        """
        return find_zone(self.time_zone)

    @property
    def length(self) -> timedelta:
        """The duration.

        Raises:
            ValueError: it cannot be read.
        """
        found = _DURATION.fullmatch(self.duration.strip())
        if found is None:
            raise ValueError(f"{self.duration!r} is not a duration; write HH:MM such as 03:55")
        return timedelta(hours=int(found[1]), minutes=int(found[2]))

    @property
    def expires_at(self) -> datetime | None:
        """The moment after which no run starts, in UTC; ``None`` when there is no end.

        Raises:
            ValueError: it or the zone cannot be read.
        """
        if not self.expiration_date_time.strip():
            return None
        wall = parse_wall_clock(self.expiration_date_time)
        return None if wall.replace(tzinfo=UTC) > _END_OF_TIME else from_wall_clock(wall, self.zone)

    def occurrences(self, after: datetime, until: datetime | None = None) -> Iterator[Occurrence]:
        """The runs that start strictly after one UTC moment and not after the other, oldest first.

        Raises:
            ValueError: some part of the window cannot be read; raised when the first one is asked for.
        """
        last = min(moment for moment in (until, self.expires_at, _END_OF_TIME) if moment is not None)
        rate, length = RecurEvery.parse(self.recur_every), self.length
        for moment in rate.occurrences(self.start, self.zone, after, last):
            yield Occurrence(moment, moment + length)


class WindowsPatches(Document):
    """What is installed on Windows: ``installPatches.windowsParameters``."""

    classifications_to_include: tuple[str, ...] = Field(
        default=(),
        description="Critical, Security, UpdateRollup, FeaturePack, ServicePack, Definition, Tools, Updates.",
    )
    kb_numbers_to_include: tuple[str, ...] = Field(default=(), description="Installed in any case, as KB4512508.")
    kb_numbers_to_exclude: tuple[str, ...] = Field(default=(), description="Never installed, as KB4512508.")
    exclude_kbs_requiring_reboot: bool = Field(default=False, description="Leave out updates that need a restart.")


class LinuxPatches(Document):
    """What is installed on Linux: ``installPatches.linuxParameters``."""

    classifications_to_include: tuple[str, ...] = Field(default=(), description="Critical, Security, Other.")
    package_name_masks_to_include: tuple[str, ...] = Field(
        default=(), description="Installed in any case: a name with * and ?, or name=version."
    )
    package_name_masks_to_exclude: tuple[str, ...] = Field(
        default=(), description="Never installed: a name with * and ?."
    )


class InstallPatches(Document):
    """What is installed, and how machines restart."""

    reboot_setting: Annotated[str, AfterValidator(_spell_reboot)] = Field(
        default="IfRequired", description="IfRequired, Never or Always; AlwaysReboot and NeverReboot are read as well."
    )
    windows_parameters: WindowsPatches | None = Field(default=None, description="What to install on Windows.")
    linux_parameters: LinuxPatches | None = Field(default=None, description="What to install on Linux.")


class ConfigurationProperties(Document):
    """``properties`` of a maintenance configuration."""

    namespace: str | None = Field(default=None, description="Namespace of the resource.")
    extension_properties: Annotated[dict[str, str], AfterValidator(_spell_extension)] = Field(
        default_factory=dict[str, str], description="InGuestPatchMode: User, for schedules that patch machines."
    )
    maintenance_scope: Annotated[str, AfterValidator(lambda text: _spelled(text, (IN_GUEST_PATCH,)))] = Field(
        default=IN_GUEST_PATCH, description="InGuestPatch."
    )
    visibility: Annotated[str, AfterValidator(lambda text: _spelled(text, VISIBILITIES))] = Field(
        default="Custom", description="Custom or Public."
    )
    maintenance_window: MaintenanceWindow | None = Field(default=None, description="When it runs.")
    install_patches: InstallPatches | None = Field(default=None, description="What is installed.")
    configuration_type: str = Field(default="", description="Azure's to give.")


class MaintenanceConfiguration(Document):
    """A maintenance configuration. ``id``, ``name``, ``type`` and ``system_data`` are Azure's to give."""

    id: str = Field(default="", description="Fully qualified identifier of the resource.")
    name: str = Field(default="", description="Name of the resource.")
    type: str = Field(default="", description="Type of the resource.")
    location: str = Field(default="", description="Region of the schedule.")
    tags: dict[str, str] = Field(default_factory=dict[str, str], description="Tags of the resource.")
    properties: ConfigurationProperties = Field(default_factory=ConfigurationProperties)
    system_data: dict[str, Any] | None = Field(default=None, description="Who made and changed it, and when.")

    @property
    def configuration_id(self) -> ConfigurationId:
        """The id, parsed.

        Raises:
            ValueError: it is no id of a configuration.
        """
        return ConfigurationId.parse(self.id)

    @property
    def window(self) -> MaintenanceWindow | None:
        return self.properties.maintenance_window

    @property
    def install_patches(self) -> InstallPatches | None:
        return self.properties.install_patches

    @property
    def patches_guests(self) -> bool:
        return self.properties.maintenance_scope.casefold() == IN_GUEST_PATCH.casefold()

    @property
    def in_guest_patch_mode(self) -> str:
        """The extension property ``InGuestPatchMode``; empty when it is missing."""
        return self.properties.extension_properties.get(IN_GUEST_PATCH_MODE, "")

    @cached_property
    def unreadable(self) -> str:
        """Why its occurrences cannot be computed; empty when they can."""
        if self.window is None:
            return "it has no maintenance window"
        try:
            next(self.window.occurrences(datetime(2000, 1, 1, tzinfo=UTC)), None)
        except ValueError as error:
            return str(error)
        return ""

    def occurrences(self, after: datetime, until: datetime | None = None) -> Iterator[Occurrence]:
        """Its runs strictly after one UTC moment and not after the other; none when its window cannot be read."""
        if self.window is not None and not self.unreadable:
            yield from self.window.occurrences(after, until)

    def next_occurrence(self, after: datetime) -> Occurrence | None:
        """The first run after a moment; ``None`` when there is none, or its window cannot be read."""
        return next(islice(self.occurrences(after), 1), None)

    def has_ended(self, now: datetime) -> bool:
        """Whether no run will ever come, although its window can be read."""
        return not self.unreadable and self.next_occurrence(now) is None

    def to_azure(self) -> Json:
        """The body of the PUT: without what Azure gives, and without empty members."""
        body = self.to_wire()
        properties = {name: value for name, value in body["properties"].items() if name != "configurationType"}
        return without_empty({"location": body["location"], "tags": body["tags"], "properties": properties})


def parse_wall_clock(text: str) -> datetime:
    """A time of the wall clock as Azure writes it, ``YYYY-MM-DD hh:mm`` with or without seconds.

    Raises:
        ValueError: it is none.
    """
    for form in _TIME_FORMS:
        try:
            return datetime.strptime(text.strip(), form)  # noqa: DTZ007 - wall-clock time
        except ValueError:
            continue
    raise ValueError(f"{text!r} is not a time; write YYYY-MM-DD hh:mm such as 2026-12-08 22:00")


def format_wall_clock(wall: datetime) -> str:
    return f"{wall:%Y-%m-%d %H:%M}"


def read_configuration(body: Mapping[str, Any]) -> MaintenanceConfiguration | None:
    """Read Azure's body or a row of Resource Graph leniently; ``None`` when it is no maintenance configuration.

    Keys count without case, unknown ones and odd values are passed over. The id is written in our casing.
    """
    try:
        identity = ConfigurationId.parse(str_or_empty(lower_keys(body).get("id")))
    except ValueError:
        return None
    found = read_leniently(MaintenanceConfiguration, body)
    properties = found.properties
    if "maintenance_scope" not in properties.model_fields_set:
        properties = properties.model_copy(update={"maintenance_scope": ""})
    return found.model_copy(
        update={
            "id": str(identity),
            "name": found.name or identity.name,
            "type": "Microsoft.Maintenance/maintenanceConfigurations",
            "properties": properties,
        }
    )
