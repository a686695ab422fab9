"""A maintenance configuration with its assignments of a policy, or every reason why there can be none.

When, where and what a policy patches is carried exactly or the policy is refused. How carefully it does that has no
place in a schedule, which starts all of its machines at once: the export needs consent to the loss of each such key by
its name.
"""

from collections.abc import Collection, Iterator, Mapping
from datetime import datetime

from patchwave.domain.core.documents import Document, Json, object_or_none
from patchwave.domain.core.duration import format_duration
from patchwave.domain.core.ids import ConfigurationId
from patchwave.domain.core.validation import Problem
from patchwave.domain.maintenance.assignment import Assignment
from patchwave.domain.maintenance.configuration import (
    IN_GUEST_PATCH,
    IN_GUEST_PATCH_MODE,
    ConfigurationProperties,
    InstallPatches,
    LinuxPatches,
    MaintenanceConfiguration,
    MaintenanceWindow,
    WindowsPatches,
)
from patchwave.domain.maintenance.conversion_report import ConversionReport, ConvertedField, NotConvertible
from patchwave.domain.maintenance.import_policy import AT_ONCE
from patchwave.domain.maintenance.schedule_mapping import window_of
from patchwave.domain.maintenance.scope_mapping import assignments_of
from patchwave.domain.maintenance.validation import check_configuration
from patchwave.domain.policy.install import Install
from patchwave.domain.policy.policy import Policy, PolicyMode
from patchwave.domain.policy.scope import OsType

CARE: Mapping[str, str] = {
    "maxConcurrent": "limits how many machines install at a time; a schedule starts all of them at once",
    "limits": "limits machines at a time by region or tag; a schedule starts all of them at once",
    "mutuallyExclusiveTag": "keeps machines with the same value of a tag apart; a schedule does not look at it",
    "rings": "orders the machines; a schedule has no order",
    "phases": "orders the regions; a schedule has no order",
    "phaseOrder": "orders the regions; a schedule has no order",
    "separateZones": "keeps zones apart; a schedule does not",
    "availabilitySets": "patches a smaller part of an availability set at a time than Azure does",
    "scaleSets": "patches a part of a scale set at a time; a schedule starts all of its members at once",
    "ramp": "begins with few machines; a schedule starts all of them at once",
    "bake": "waits between waves or rings; a schedule has none",
    "errorBudget": "stops after failures; a schedule goes on whatever happens",
    "rebootMode": "restarts machines apart from their installation; a schedule restarts them as they install",
    "pinRings": "installs in later rings what the first one got; a schedule has no rings",
    "withoutPin": "says what is done where nothing can be pinned; a schedule has no rings",
    "startStopped": "starts stopped machines; a schedule leaves them out (docs/how-to/update-manager.md)",
    "hooks.snapshot": "takes a snapshot of each machine; a schedule has events, and no step of its own",
    "hooks.before": "runs a script in each machine; a schedule has events, and no step of its own",
    "hooks.after": "runs a script in each machine; a schedule has events, and no step of its own",
    "health": "checks machines in a way of its own; a schedule checks none",
    "assess": "assesses on a schedule of its own; a schedule of Update Manager does not, see assessmentMode",
    "retryInNextWindow": "leaves a machine that failed to a person; a schedule takes it in each of its runs",
    "events": "assesses on events of Azure; a schedule does not",
    "maintenance": "is pre and post maintenance of scheduled runs; the policy goes on doing that",
    "notifications": "tells people about its runs; a schedule notifies no channel",
    "schedule.continueInNextWindow": "goes on in the next window; a schedule begins anew each time",
    "install.maximumDuration": "lets a machine take less than the window; a schedule gives it all of it",
    "install.linux.maintenanceRunId": "names the run to the Linux agent; a schedule does so itself",
}
"""How carefully a policy works: what an export loses, by path. Each may be given up."""

_CARELESS = Policy.model_validate({"name": "careless", "scope": {"osTypes": list(OsType)}} | AT_ONCE).to_wire()
_PATCHES = "properties.installPatches"
_ONLY_ON_REQUEST = "is known to installations on request only; a schedule would install more than the policy"


class ExportResult(Document):
    """What a policy becomes: the configuration, its assignments, and what became of each field."""

    configuration: MaintenanceConfiguration
    assignments: list[Assignment]
    all_machines: bool
    """The assignments are of whole subscriptions, as the scope of the policy is."""
    fields: list[ConvertedField]


def configuration_of(
    policy: Policy, identity: ConfigurationId, location: str, now: datetime, given_up: Collection[str] = ()
) -> ExportResult:
    """The maintenance configuration that does what the policy does, from its next occurrence on.

    Args:
        policy: what to export.
        identity: of the configuration that it is to become.
        location: region of the configuration, and of the assignments of single machines.
        now: UTC.
        given_up: paths of `CARE` that may be lost.

    Raises:
        NotConvertible: every problem at once, each with its path.
    """
    moved = ConversionReport()
    for path in sorted(set(given_up) - set(CARE)):
        moved.lost(path, f"cannot be given up; these can: {', '.join(CARE)}")
    if not policy.enabled:
        moved.lost("enabled", "is false; a schedule has no switch, and would begin to patch: enable the policy first")
    if policy.mode is PolicyMode.ASSESS:
        moved.lost("mode", "is assess; a schedule installs, and has no mode that only looks")
    _care(policy, given_up, moved)
    for problem in _unknown_to_schedules(policy.install):
        moved.lost(problem.path, problem.message)
    window, assignments = MaintenanceWindow(), list[Assignment]()
    if policy.schedule is None:
        moved.lost("schedule", "is missing: the policy never runs by itself, and a schedule does nothing else")
    else:
        try:
            window = window_of(policy.schedule, now)
        except NotConvertible as error:
            moved.problems += error.problems
    try:
        assignments = assignments_of(policy.scope, identity, location)
    except NotConvertible as error:
        moved.problems += error.problems
    if moved.problems:
        raise NotConvertible(moved.problems)
    configuration = _configuration(policy, identity, location, window)
    if problems := check_configuration(configuration, now):
        raise NotConvertible(problems)
    _tell(policy, moved)
    return ExportResult(
        configuration=configuration,
        assignments=assignments,
        all_machines=any(each.filter is not None and each.filter.is_empty for each in assignments),
        fields=moved.fields,
    )


def _care(policy: Policy, given_up: Collection[str], moved: ConversionReport) -> None:
    """What differs from a policy that starts everything at once, and is as careful as Azure."""
    document = policy.to_wire()
    for path, sentence in CARE.items():
        differs = _at(document, path) != _at(_CARELESS, path)
        if path == "install.maximumDuration":
            differs = policy.schedule is not None and policy.install.maximum_duration < policy.schedule.window
        elif path == "schedule.continueInNextWindow":
            differs = policy.continues
        if differs and path in given_up:
            moved.left(path, f"Given up: it {sentence}.")
        elif differs:
            moved.lost(path, sentence)


def _at(document: Json, path: str) -> object:
    value: object = document
    for key in path.split("."):
        value = (object_or_none(value) or {}).get(key)
    return value


def _unknown_to_schedules(install: Install) -> Iterator[Problem]:
    """What decides which patches are installed, and no schedule can say."""
    if install.approval_delay_days:
        message = f"waits {install.approval_delay_days} days; a schedule installs whatever is there when it runs"
        yield Problem(path="install.approvalDelayDays", message=message)
    windows = install.windows
    for name, value in {
        "maxPatchPublishDate": windows.max_patch_publish_date,
        "patchNameMasksToInclude": windows.patch_name_masks_to_include,
        "patchNameMasksToExclude": windows.patch_name_masks_to_exclude,
    }.items():
        if value:
            yield Problem(path=f"install.windows.{name}", message=_ONLY_ON_REQUEST)


def _configuration(
    policy: Policy, identity: ConfigurationId, location: str, window: MaintenanceWindow
) -> MaintenanceConfiguration:
    install, systems = policy.install, policy.scope.systems
    windows = WindowsPatches(
        classifications_to_include=tuple(word.value for word in install.windows.classifications_to_include),
        kb_numbers_to_include=tuple(install.windows.kb_numbers_to_include),
        kb_numbers_to_exclude=tuple(install.windows.kb_numbers_to_exclude),
        exclude_kbs_requiring_reboot=install.windows.exclude_kbs_requiring_reboot,
    )
    linux = LinuxPatches(
        classifications_to_include=tuple(word.value for word in install.linux.classifications_to_include),
        package_name_masks_to_include=tuple(install.linux.package_name_masks_to_include),
        package_name_masks_to_exclude=tuple(install.linux.package_name_masks_to_exclude),
    )
    return MaintenanceConfiguration(
        id=str(identity),
        name=identity.name,
        location=location,
        properties=ConfigurationProperties(
            extension_properties={IN_GUEST_PATCH_MODE: "User"},
            maintenance_scope=IN_GUEST_PATCH,
            maintenance_window=window,
            install_patches=InstallPatches(
                reboot_setting=install.reboot_setting.value,
                windows_parameters=windows if OsType.WINDOWS in systems else None,
                linux_parameters=linux if OsType.LINUX in systems else None,
            ),
        ),
    )


def _tell(policy: Policy, moved: ConversionReport) -> None:
    window = "properties.maintenanceWindow"
    moved.carried("schedule.recurrence", f"{window}.recurEvery", "An end of it is expirationDateTime.")
    moved.carried("schedule.time", f"{window}.startDateTime", "The first occurrence that a new schedule can have.")
    moved.carried("schedule.timeZone", f"{window}.timeZone")
    moved.carried("schedule.window", f"{window}.duration")
    moved.carried("install.rebootSetting", f"{_PATCHES}.rebootSetting")
    for system in policy.scope.systems:
        name = system.value.lower()
        moved.carried(f"install.{name}", f"{_PATCHES}.{name}Parameters")
    shortest = format_duration(policy.install.minimum_duration)
    moved.left("install.minimumDuration", f"{shortest} counts for late starts; a schedule starts everything at once.")
    moved.carried("scope", "assignments")
    if policy.description:
        moved.left("description", "A configuration has none.")
