"""What Azure asks of a maintenance configuration for guest patching, checked before any call.

Azure refuses some of it with texts that name no limit, and takes the rest to patch nothing in silence. Sources:
"Maintenance configurations" and its troubleshooting page for the limits, the TypeSpec for words and forms, the install
API for KB numbers and package masks.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta

from patchwave.domain.azure.install_request import (
    LinuxClassification,
    RebootSetting,
    WindowsClassification,
    is_package_mask,
    normalize_kb,
    read_package_mask,
)
from patchwave.domain.calendar.wall_clock import from_wall_clock, is_on_the_clock
from patchwave.domain.calendar.windows_time_zones import ZONES, documented_name, is_old, windows_name
from patchwave.domain.core.documents import list_or_empty, object_or_none
from patchwave.domain.core.region_pairs import region_name
from patchwave.domain.core.validation import Problem, suggest
from patchwave.domain.maintenance.configuration import (
    IN_GUEST_PATCH,
    VISIBILITIES,
    InstallPatches,
    LinuxPatches,
    MaintenanceConfiguration,
    MaintenanceWindow,
    WindowsPatches,
)
from patchwave.domain.maintenance.recurrence import RecurEvery, Unit

MIN_WINDOW = timedelta(hours=1, minutes=30)
MAX_WINDOW = timedelta(hours=3, minutes=55)
MIN_NOTICE = timedelta(minutes=15)
"""From creating or changing a schedule to its next run."""
NOTICE_WITH_EVENTS = timedelta(minutes=40)
"""The same where a pre-event is subscribed to: Azure cancels a run that is nearer."""
MAX_CONFIGURATIONS = 250
"""Schedules of a subscription in one region."""
MAX_ENTRIES = 1_000
"""Of a list of classifications, KB numbers or masks: more than any real one has."""
MAX_NAMES = 127
"""Resource group and configuration name together: under 128 characters."""

_WINDOW = "properties.maintenanceWindow"
_HANDOVER = (23 * 60 + 45, 24 * 60)


def check_configuration(
    configuration: MaintenanceConfiguration, now: datetime, existing: MaintenanceConfiguration | None = None
) -> list[Problem]:
    """Everything that stands against sending this configuration, each with its path and the limit.

    Args:
        configuration: what is to be; its id says under which names.
        now: UTC.
        existing: what is in place, for a change: its start may lie in the past when it stays as it is, and a value
            that Azure holds already is not refused.
    """
    values = list(_check_values(configuration))
    if existing is not None:
        held = set(_check_values(existing))
        values = [problem for problem in values if problem not in held]
    problems = [*_check_names(configuration), *_check_kind(configuration), *values]
    window = configuration.window
    if window is None or configuration.unreadable or any(problem.path.startswith(_WINDOW) for problem in values):
        return problems
    return [*problems, *_check_times(window, now, existing.window if existing else None)]


def check_number(configuration: MaintenanceConfiguration, others: Iterable[MaintenanceConfiguration]) -> list[Problem]:
    """Whether there is room for one more schedule beside the others of its subscription."""
    region = region_name(configuration.location)
    count = sum(each.patches_guests and region_name(each.location) == region for each in others)
    if count < MAX_CONFIGURATIONS:
        return []
    message = f"{region} has {count} schedules of this subscription already; it holds at most {MAX_CONFIGURATIONS}"
    return [Problem(path="location", message=message)]


def advice(configuration: MaintenanceConfiguration, now: datetime) -> list[str]:
    """What Azure permits and may not do as expected, in sentences."""
    notes: list[str] = []
    following = configuration.next_occurrence(now)
    if following is not None and following.at_utc - now < NOTICE_WITH_EVENTS:
        notes.append("The next run is under 40 minutes away: where a pre-event is subscribed to, Azure cancels it.")
    elif following is not None and following.at_utc - now < timedelta(hours=1):
        notes.append("The next run is under an hour away: Azure may still run it the old way, for it caches schedules.")
    if configuration.window is not None and not configuration.unreadable:
        local = now.astimezone(configuration.window.zone)
        if _HANDOVER[0] <= local.hour * 60 + local.minute < _HANDOVER[1]:
            notes.append("Microsoft advises against creating schedules from 23:45 to midnight.")
        if is_old(configuration.window.time_zone):
            notes.append(
                f"{configuration.window.time_zone} is an old zone, in which Windows may still keep daylight saving:"
                " Azure may run an hour earlier in summer than is shown here."
            )
    patches = configuration.install_patches
    linux = patches.linux_parameters if patches is not None else None
    if linux is not None:
        notes += _misread_masks([*linux.package_name_masks_to_include, *linux.package_name_masks_to_exclude])
    return notes


def _misread_masks(masks: Iterable[str]) -> Iterator[str]:
    """Masks in the form of Microsoft's text, ``name_version``, which the Linux agent takes for names."""
    for mask in filter(is_package_mask, masks):
        try:
            read = read_package_mask(mask)
        except ValueError as error:
            yield f"The Linux agent takes all of {mask} for a name: {error}."
            continue
        if read != mask:
            yield f"The Linux agent takes all of {mask} for a name, and no package has it: write {read}."


def _check_names(configuration: MaintenanceConfiguration) -> Iterator[Problem]:
    try:
        identity = configuration.configuration_id
    except ValueError as error:
        yield Problem(path="id", message=str(error))
        return
    length = len(identity.resource_group) + len(identity.name)
    if length > MAX_NAMES:
        yield Problem(
            path="name",
            message=f"is too long: resource group and name have {length} characters together,"
            " fewer than 128 are allowed",
        )
    if not configuration.location.strip():
        yield Problem(path="location", message="is missing; give the region of the schedule, such as westeurope")


def _check_kind(configuration: MaintenanceConfiguration) -> Iterator[Problem]:
    """Without these it would patch nothing inside machines, whether Azure holds it already or not."""
    if not configuration.patches_guests:
        yield Problem(
            path="properties.maintenanceScope",
            message=f"must be {IN_GUEST_PATCH}: other scopes maintain hosts and services, not the inside of machines",
        )
    if configuration.in_guest_patch_mode.casefold() != "user":
        given = f", not {configuration.in_guest_patch_mode!r}" if configuration.in_guest_patch_mode else ""
        yield Problem(
            path="properties.extensionProperties.InGuestPatchMode",
            message=f"must be User{given}: without it Azure refuses the schedule, or patches nothing",
        )


def _check_values(configuration: MaintenanceConfiguration) -> Iterator[Problem]:
    """Each value by itself, whatever the time is."""
    yield from _one_of("properties.visibility", configuration.properties.visibility, VISIBILITIES)
    yield from _check_window(configuration.window)
    yield from _check_patches(configuration.install_patches)


def _check_window(window: MaintenanceWindow | None) -> Iterator[Problem]:
    if window is None:
        yield Problem(path=_WINDOW, message="is missing; give startDateTime, duration, timeZone and recurEvery")
        return
    problems = [
        *_readable(f"{_WINDOW}.startDateTime", lambda: window.start),
        *_check_duration(f"{_WINDOW}.duration", window),
        *_check_zone(f"{_WINDOW}.timeZone", window.time_zone),
        *_check_rate(f"{_WINDOW}.recurEvery", window.recur_every),
    ]
    if window.expiration_date_time and not problems:
        problems = list(_readable(f"{_WINDOW}.expirationDateTime", lambda: window.expires_at))
    yield from problems
    if not problems and not is_on_the_clock(window.start, window.zone):
        yield Problem(
            path=f"{_WINDOW}.startDateTime",
            message=f"{window.start_date_time} is skipped in {window.time_zone}, where daylight saving begins; Azure"
            " refuses such a start: give another day or time",
        )


def _check_times(window: MaintenanceWindow, now: datetime, before: MaintenanceWindow | None) -> Iterator[Problem]:
    start, expires = from_wall_clock(window.start, window.zone), window.expires_at
    if expires is not None and expires <= max(now, start):
        yield Problem(path=f"{_WINDOW}.expirationDateTime", message="must lie after the start and in the future")
        return
    is_kept = before is not None and (before.start_date_time, before.time_zone) == (
        window.start_date_time,
        window.time_zone,
    )
    if not is_kept and start - now < MIN_NOTICE:
        yield Problem(
            path=f"{_WINDOW}.startDateTime",
            message=f"is {_minutes_ahead(start - now)}; a schedule starts at least 15 minutes ahead",
        )
        return
    following = next(window.occurrences(now), None)
    if following is None:
        yield Problem(path=f"{_WINDOW}.recurEvery", message="has no run before expirationDateTime; make it later")
    elif following.at_utc - now < MIN_NOTICE:
        yield Problem(
            path=f"{_WINDOW}.startDateTime",
            message=f"the next run is {_minutes_ahead(following.at_utc - now)}; a change needs at least 15 minutes",
        )


def _check_duration(path: str, window: MaintenanceWindow) -> Iterator[Problem]:
    problems = list(_readable(path, lambda: window.length))
    yield from problems
    if not problems and not MIN_WINDOW <= window.length <= MAX_WINDOW:
        yield Problem(path=path, message=f"is {window.duration}; a guest patching window has 01:30 to 03:55")


def _check_zone(path: str, name: str) -> Iterator[Problem]:
    if documented_name(name):
        return
    windows = windows_name(name)
    hint = f'did you mean "{windows}"?' if windows else suggest(name, ZONES)
    yield Problem(
        path=path,
        message=f"{name!r} is not a Windows time zone; write for example W. Europe Standard Time"
        + (f"; {hint}" if hint else ""),
    )


def _check_rate(path: str, text: str) -> Iterator[Problem]:
    try:
        rate = RecurEvery.parse(text)
    except ValueError as error:
        yield Problem(path=path, message=str(error))
        return
    if rate.unit is Unit.MONTH and not rate.days and rate.nth is None:
        yield Problem(
            path=path,
            message=f"{text!r} does not say on which day of the month, which Azure refuses; write for example"
            f" {rate} day17 or {rate} Third Saturday",
        )
    if rate.is_too_often:
        yield Problem(path=path, message=f"is {rate}; a guest patching schedule repeats at least 6 hours apart")


def _check_patches(patches: InstallPatches | None) -> Iterator[Problem]:
    path = "properties.installPatches"
    if patches is None or not (_selects(patches.windows_parameters) or _selects(patches.linux_parameters)):
        yield Problem(
            path=path,
            message="selects nothing; give classificationsToInclude, KB numbers or package masks for Windows or Linux",
        )
        return
    long = list(_check_lengths(path, patches))
    if long:
        yield from long
        return
    yield from _one_of(f"{path}.rebootSetting", patches.reboot_setting, [word.value for word in RebootSetting])
    if patches.windows_parameters is not None:
        yield from _check_windows(f"{path}.windowsParameters", patches.windows_parameters)
    if patches.linux_parameters is not None:
        yield from _check_linux(f"{path}.linuxParameters", patches.linux_parameters)


def _check_lengths(path: str, patches: InstallPatches) -> Iterator[Problem]:
    for name, value in patches.to_wire().items():
        for key, entries in (object_or_none(value) or {}).items():
            if len(list_or_empty(entries)) > MAX_ENTRIES:
                yield Problem(path=f"{path}.{name}.{key}", message=f"is too long; at most {MAX_ENTRIES:,}")


def _selects(parameters: WindowsPatches | LinuxPatches | None) -> bool:
    if parameters is None:
        return False
    included = (
        parameters.kb_numbers_to_include
        if isinstance(parameters, WindowsPatches)
        else parameters.package_name_masks_to_include
    )
    return bool(parameters.classifications_to_include or included)


def _check_windows(path: str, parameters: WindowsPatches) -> Iterator[Problem]:
    known = [word.value for word in WindowsClassification]
    for index, word in enumerate(parameters.classifications_to_include):
        yield from _one_of(f"{path}.classificationsToInclude[{index}]", word, known)
    yield from _check_kbs(f"{path}.kbNumbersToInclude", parameters.kb_numbers_to_include)
    yield from _check_kbs(f"{path}.kbNumbersToExclude", parameters.kb_numbers_to_exclude)


def _check_kbs(path: str, numbers: Sequence[str]) -> Iterator[Problem]:
    for index, number in enumerate(numbers):
        try:
            full = normalize_kb(number)
        except ValueError as error:
            yield Problem(path=f"{path}[{index}]", message=str(error))
            continue
        if not number.strip().upper().startswith("KB"):
            yield Problem(
                path=f"{path}[{index}]", message=f"{number!r} has no prefix, which Azure refuses; write {full}"
            )


def _check_linux(path: str, parameters: LinuxPatches) -> Iterator[Problem]:
    known = [word.value for word in LinuxClassification]
    for index, word in enumerate(parameters.classifications_to_include):
        yield from _one_of(f"{path}.classificationsToInclude[{index}]", word, known)
    chosen = {word.casefold() for word in parameters.classifications_to_include}
    if "other" in chosen and len(chosen & {"critical", "security"}) == 1:
        yield Problem(
            path=f"{path}.classificationsToInclude",
            message="the Linux agent refuses Other with exactly one of Critical and Security; give both or neither",
        )
    for name, masks in (
        ("packageNameMasksToInclude", parameters.package_name_masks_to_include),
        ("packageNameMasksToExclude", parameters.package_name_masks_to_exclude),
    ):
        for index, mask in enumerate(masks):
            if not is_package_mask(mask):
                yield Problem(
                    path=f"{path}.{name}[{index}]",
                    message=f"{mask!r} is not a package mask; write a name with * and ?, or name=version",
                )


def _one_of(path: str, value: str, known: Iterable[str]) -> Iterator[Problem]:
    words = list(known)
    if value.casefold() not in {word.casefold() for word in words}:
        hint = suggest(value, words)
        yield Problem(path=path, message=f"{value!r} is not one of {', '.join(words)}" + (f"; {hint}" if hint else ""))


def _readable(path: str, read: Callable[[], object]) -> Iterator[Problem]:
    try:
        read()
    except ValueError as error:
        yield Problem(path=path, message=str(error))


def _minutes_ahead(distance: timedelta) -> str:
    minutes = int(distance.total_seconds() // 60)
    return f"{minutes} minutes ahead" if minutes >= 0 else "in the past"
