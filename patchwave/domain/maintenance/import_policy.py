"""Policies of a maintenance configuration and its assignments: the same moments, the same machines, the same patches.

A schedule of Azure starts all of its machines at the same time. So do the policies, except for Patchwave's rules for
paired regions and availability sets. They can be made more careful afterwards.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from patchwave.domain.azure.install_request import LinuxParameters, RebootSetting, WindowsParameters
from patchwave.domain.calendar.schedule import Schedule
from patchwave.domain.core.documents import Document, Json, without_empty
from patchwave.domain.core.duration import format_duration
from patchwave.domain.core.validation import Problem, explain
from patchwave.domain.maintenance.assignment import Assignment
from patchwave.domain.maintenance.configuration import (
    IN_GUEST_PATCH,
    IN_GUEST_PATCH_MODE,
    LinuxPatches,
    MaintenanceConfiguration,
    WindowsPatches,
)
from patchwave.domain.maintenance.conversion_report import ConversionReport, ConvertedField
from patchwave.domain.maintenance.schedule_mapping import recurrence_of
from patchwave.domain.maintenance.scope_mapping import scopes_of
from patchwave.domain.policy.install import Install
from patchwave.domain.policy.policy import Policy, PolicyError, parse_policy
from patchwave.domain.policy.scope import OsType, Scope

AT_ONCE: Json = {"maxConcurrent": "100%", "separateZones": False}
"""What a policy says to start its machines at the same time, as a schedule does."""

_MAX_NAME = 32
_WINDOW, _PATCHES = "properties.maintenanceWindow", "properties.installPatches"
_PARAMETERS = {
    OsType.WINDOWS: ("windowsParameters", WindowsParameters),
    OsType.LINUX: ("linuxParameters", LinuxParameters),
}
_STAYS = {
    "type": "A policy is Patchwave's own.",
    "location": "A policy has no region: its scope says where the machines are.",
    "tags": "A policy has no tags.",
    "systemData": "Who wrote a policy, and when, is in its audit log.",
    "properties.namespace": "It says nothing about patches.",
    "properties.visibility": "Every user of the service sees its policies.",
}


class ImportResult(Document):
    """What a configuration becomes. With ``problems`` the policies do not mean the same, or cannot all be put."""

    policies: list[Policy]
    fields: list[ConvertedField]
    problems: list[Problem]


def policies_of(
    configuration: MaintenanceConfiguration, assignments: Sequence[Assignment], name: str = ""
) -> ImportResult:
    """The policies of a configuration and everything that is assigned to it, disabled.

    There are several when no single scope can hold the machines; they have the same schedule, and numbers behind
    their names.

    Args:
        configuration: as Azure has it.
        assignments: all that it has.
        name: of the policy; made of the configuration's own name unless given.
    """
    moved = ConversionReport()
    base = _names(configuration, name, moved) | AT_ONCE
    if not configuration.patches_guests:
        scope = configuration.properties.maintenance_scope
        moved.lost(
            "properties.maintenanceScope", f"is {scope!r}: only {IN_GUEST_PATCH} installs patches inside machines"
        )
        return ImportResult(policies=[], fields=moved.fields, problems=moved.problems)
    _kind(configuration, moved)
    install, systems = _install(configuration, moved)
    schedule = _schedule(configuration, moved)
    scopes = scopes_of(assignments, systems, moved) if systems else []
    if not assignments:
        moved.lost("assignments", "are none: nothing is assigned to the configuration, so that there is no scope")
    if schedule is not None:
        base["schedule"] = schedule.to_wire()
        maximum = {"maximumDuration": format_duration(schedule.window)}
        install |= maximum if _is_valid(Install, maximum) else {}
    policies = [
        policy
        for number, scope in enumerate(scopes, start=1)
        if (policy := _policy(base | {"install": install}, scope, number, moved)) is not None
    ]
    if len(policies) > 1:
        message = f"are {len(policies)} selections that no single scope holds: one policy for each."
        moved.carried("assignments", "scope", message)
    return ImportResult(policies=policies, fields=moved.fields, problems=moved.problems)


def policy_name(text: str) -> str:
    """A name for a policy, as near to the text as names of policies can be."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower())[:_MAX_NAME].strip("-") or "imported"


def _names(configuration: MaintenanceConfiguration, name: str, moved: ConversionReport) -> Json:
    made = name or policy_name(configuration.name)
    moved.carried("id", "description")
    moved.carried("name", "name", "" if made == configuration.name else f"It becomes {made}.")
    # The schedule still patches the machines: two at the same minute are worse than none.
    return {"name": made, "description": f"Moved from {configuration.id}"[:1000], "enabled": False}


def _kind(configuration: MaintenanceConfiguration, moved: ConversionReport) -> None:
    """What says nothing of when, where and what."""
    body = configuration.to_wire()
    for path, message in _STAYS.items():
        holder: Mapping[str, Any] = body["properties"] if "." in path else body
        if holder[path.rpartition(".")[2]]:
            moved.left(path, message)
    moved.left("properties.maintenanceScope", "A policy always patches inside machines.")
    for key, value in configuration.properties.extension_properties.items():
        path = f"properties.extensionProperties.{key}"
        if key.casefold() != IN_GUEST_PATCH_MODE.casefold():
            moved.left(path, "It says nothing about patches.")
        elif value.casefold() == "user":
            moved.left(path, "A policy always installs what it says itself.")
    if configuration.in_guest_patch_mode.casefold() != "user":
        given = configuration.in_guest_patch_mode
        moved.lost(
            f"properties.extensionProperties.{IN_GUEST_PATCH_MODE}",
            f"is {given!r}, not 'User': the schedule patches nothing, and a policy would"
            if given
            else "is missing: the schedule patches nothing, and a policy would",
        )


# --- when ----------------------------------------------------------------------------------------------------


def _schedule(configuration: MaintenanceConfiguration, moved: ConversionReport) -> Schedule | None:
    window = configuration.window
    if window is None:
        moved.lost(_WINDOW, "is missing: it is not known when the schedule runs")
        return None
    try:
        start = window.start
        if start.second:
            raise ValueError(f"{window.start_date_time!r} has seconds; a policy begins on the minute")
        document = {
            "startDate": start.date().isoformat(),
            "time": f"{start:%H:%M}",
            "timeZone": window.time_zone.strip(),
            "window": format_duration(window.length),
            "recurrence": recurrence_of(window),
        }
        schedule = Schedule.model_validate(document)
    except ValidationError as error:
        for problem in explain(error, Schedule):
            moved.lost(_WINDOW, f"{problem.path} {problem.message}")
        return None
    except ValueError as error:
        moved.lost(_WINDOW, str(error))
        return None
    moved.carried(f"{_WINDOW}.startDateTime", "schedule.time", "Its date is schedule.startDate.")
    moved.carried(
        f"{_WINDOW}.duration", "schedule.window", "Also install.maximumDuration: a machine may take all of it."
    )
    moved.carried(f"{_WINDOW}.timeZone", "schedule.timeZone")
    moved.carried(f"{_WINDOW}.recurEvery", "schedule.recurrence")
    if window.expires_at is not None:
        moved.carried(f"{_WINDOW}.expirationDateTime", "schedule.recurrence", "It is the rule's UNTIL, in UTC.")
    elif window.expiration_date_time:
        moved.left(f"{_WINDOW}.expirationDateTime", "It stands for never.")
    return schedule


# --- what ----------------------------------------------------------------------------------------------------


def _install(configuration: MaintenanceConfiguration, moved: ConversionReport) -> tuple[Json, frozenset[OsType]]:
    """The install section, and for which systems the configuration installs anything that a policy can say."""
    patches = configuration.install_patches
    if patches is None:
        moved.lost(_PATCHES, "is missing: it is not known what the schedule installs")
        return {}, frozenset()
    install: Json = {}
    reboot = RebootSetting.read(patches.reboot_setting)
    if reboot is None:
        known = ", ".join(setting.value for setting in RebootSetting)
        moved.lost(f"{_PATCHES}.rebootSetting", f"{patches.reboot_setting!r} is not one of {known}")
    else:
        moved.carried(f"{_PATCHES}.rebootSetting", "install.rebootSetting")
        install["rebootSetting"] = reboot.value
    sections = {OsType.WINDOWS: patches.windows_parameters, OsType.LINUX: patches.linux_parameters}
    systems: set[OsType] = set()
    for system, section in sections.items():
        found = _parameters(system, section, moved)
        if found is not None:
            systems.add(system)
            install[system.value.lower()] = found
    if not systems and not moved.problems:
        moved.lost(_PATCHES, "selects nothing: there is nothing to install")
    return install, frozenset(systems)


def _parameters(system: OsType, section: WindowsPatches | LinuxPatches | None, moved: ConversionReport) -> Json | None:
    key, model = _PARAMETERS[system]
    path, given = f"{_PATCHES}.{key}", without_empty(section.to_wire()) if section else {}
    if not any(name.endswith("ToInclude") for name in given):
        message = f"It selects nothing to install on {system.value}: the policy leaves these machines out."
        moved.carried(path, "scope.osTypes", message)
        return None
    try:
        model.model_validate(given)
    except ValidationError as error:
        for problem in explain(error, model):
            place = path if problem.path == "$" else f"{path}.{problem.path}"
            moved.lost(place, problem.message)
        return None
    for name in given:
        moved.carried(f"{path}.{name}", f"install.{system.value.lower()}.{name}")
    return given


# --- together ------------------------------------------------------------------------------------------------


def _policy(base: Json, scope: Scope, number: int, moved: ConversionReport) -> Policy | None:
    suffix = f"-{number}" if number > 1 else ""
    name = base["name"][: _MAX_NAME - len(suffix)].rstrip("-") + suffix
    try:
        return parse_policy(base | {"name": name, "scope": scope.to_wire()})
    except PolicyError as error:
        for problem in error.errors:
            moved.lost("$", f"would make a policy that is not valid: {problem.path} {problem.message}")
        return None


def _is_valid(model: type[Document], document: Json) -> bool:
    try:
        model.model_validate(document)
    except ValidationError:
        return False
    return True
