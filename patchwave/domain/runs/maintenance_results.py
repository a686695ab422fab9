"""What became of a machine in a scheduled run: Update Manager's word, compared with its results and the machine itself.

Update Manager calls a machine done whose installation left patches out, still needs a restart, or never took place.
"""

from typing import Annotated, Self

from pydantic import BeforeValidator, Field, model_validator

from patchwave.domain.azure.instance_view import Power
from patchwave.domain.azure.patch_results import InstalledPatch, InstallResult, Text
from patchwave.domain.core.documents import ExternalDocument, Json, object_or_none
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import InstallationSummary
from patchwave.domain.fleet.exclusions import hibernated
from patchwave.domain.maintenance.occurrence import MaintenanceOccurrence
from patchwave.domain.runs import outcome_rules
from patchwave.domain.runs.machine_record import MachineRecord

_DONE = frozenset({"succeeded", "completed", "completedwithwarnings"})
_FAILED = frozenset({"failed", "timedout"})
_CANCELED = frozenset({"cancel", "canceled", "cancelled"})
_NOT_RUNNING = frozenset({"shutdownorunresponsive"})
_NOTHING = frozenset({"noupdatespending"})
_TELLS = _DONE | _FAILED | _CANCELED | _NOTHING
"""Words that say more of a machine than that it was off."""
_SUMMARY = "patchinstallationresults/"


class MaintenanceUpdateRow(ExternalDocument):
    """A machine's row of ``microsoft.maintenance/applyupdates``: whether it is in the run, and how it ended there."""

    resource_id: Text = ""
    status: Text = ""
    error_message: Text = ""

    @classmethod
    def read(cls, row: Json) -> tuple[MachineId, Self] | None:
        """The virtual machine and its row; ``None`` for a row about anything else, such as an Arc machine."""
        update = cls.model_validate(row | (object_or_none(row.get("properties")) or {}))
        machine = MachineId.find_vm(update.resource_id)
        return machine and (machine, update)


class InstallationRow(ExternalDocument):
    """A row of ``patchInstallationResults``. Names differ from Resource Manager's: ``errorDetails``."""

    id: Text = ""
    result: Annotated[InstallResult, BeforeValidator(lambda value: object_or_none(value) or {})] = Field(
        default_factory=InstallResult
    )

    @model_validator(mode="before")
    @classmethod
    def _rename(cls, row: Json) -> Json:
        properties = object_or_none(row.get("properties")) or {}
        return {"id": row.get("id"), "result": {"error": object_or_none(properties.get("errorDetails")), **properties}}

    @property
    def machine(self) -> MachineId | None:
        """The machine; ``None`` when the id is of another form."""
        return MachineId.find(self.id[: fold(self.id).rfind(_SUMMARY)].rstrip("/"))

    @property
    def is_over(self) -> bool:
        """Whether the counts are final."""
        return self.result.status.value not in ("InProgress", "Unknown")


def read_patch(row: Json) -> tuple[str, InstalledPatch]:
    """The id of the installation that a patch belongs to, in lower case, and the patch.

    Resource Graph calls it ``patchName``; its id is the last part of the row's.
    """
    text = str(row.get("id") or "")
    parent, _, patch_id = text.rpartition("/")
    properties = object_or_none(row.get("properties")) or {}
    named = {"name": properties.get("patchName"), "patchId": patch_id, **properties}
    return fold(parent.rpartition("/")[0]), InstalledPatch.model_validate(named)


def awaits_result(machine: MachineRecord) -> bool:
    """Whether Resource Graph may still come to know more: it shows the result of an installation minutes late."""
    word = machine.update_manager_status.casefold()
    return machine.installation is None and word not in _CANCELED | _NOT_RUNNING | _NOTHING


def is_in_progress(machine: MachineRecord) -> bool:
    """Whether Azure may still be at work on the machine: there is no result, and no final word of Update Manager's."""
    word = machine.update_manager_status.casefold()
    return machine.installation is None and word not in _DONE | _FAILED | _CANCELED | _NOT_RUNNING | _NOTHING


def has_status_mismatch(machine: MachineRecord) -> bool:
    """Whether Update Manager called the machine done, and it is not."""
    return (
        machine.update_manager_status.casefold() in _DONE
        and machine.outcome is not None
        and machine.outcome.needs_person
    )


def conclude(occurrence: MaintenanceOccurrence, machine: MachineRecord) -> Outcome:
    """The outcome of a machine once all is known that will be. What failed before the run is told with it."""
    outcome = _conclude(occurrence, machine)
    if machine.pre_tasks_error and machine.pre_tasks_error not in outcome.message:
        outcome = outcome.model_copy(update={"message": f"{outcome.message} {machine.pre_tasks_error}"})
    return outcome


def _conclude(occurrence: MaintenanceOccurrence, machine: MachineRecord) -> Outcome:
    if machine.installation is not None:
        return _judge(machine, machine.installation)
    if occurrence.canceled_at is not None:
        if machine.pre_tasks_error:
            return Outcome.skipped(Reason.HOOK_FAILED, f"{machine.pre_tasks_error} The scheduled run was cancelled.")
        message = "The scheduled run was cancelled: the work before it failed on other machines."
        return Outcome.of(OutcomeKind.CANCELED, Reason.OCCURRENCE_CANCELED, message)
    return _without_result(machine)


def _judge(machine: MachineRecord, installation: InstallationSummary) -> Outcome:
    """By the rules for our own installations, then by the assessment that came after."""
    after = machine.assessment
    outcome = outcome_rules.evaluate_installation(
        _result(installation),
        reboot_pending=after.reboot_pending if after else None,
        needs_subscription=after.needs_subscription if after else 0,
    )
    is_told = any(each.text in outcome.message for each in installation.errors)
    if machine.update_manager_error and outcome.outcome.needs_person and not is_told:
        outcome = outcome.model_copy(
            update={"message": f"{outcome.message} Update Manager reports: {machine.update_manager_error}"}
        )
    missing = _missing(machine)
    if missing and outcome.outcome in (OutcomeKind.PATCHED, OutcomeKind.NOTHING_TO_INSTALL):
        return Outcome.of(
            OutcomeKind.PATCHED_WITH_WARNINGS,
            Reason.STATUS_MISMATCH,
            f"Update Manager reported {machine.update_manager_status or installation.status}, but the"
            f" machine still misses {missing} critical and security patches: look at the"
            " configuration's classifications and exclusions.",
        )
    return outcome


def _without_result(machine: MachineRecord) -> Outcome:
    status, missing = machine.update_manager_status, _missing(machine)
    word = status.casefold()
    if word in _NOTHING or (word in _DONE and machine.assessment is not None and not missing):
        return Outcome.of(
            OutcomeKind.NOTHING_TO_INSTALL,
            Reason.NO_PENDING_PATCHES,
            f"Update Manager reported {status} without an installation, and nothing is missing.",
        )
    if word in _DONE:
        found = (
            f"the machine misses {missing} critical and security patches"
            if missing
            else "the machine was not assessed afterwards"
        )
        return Outcome.of(
            OutcomeKind.FAILED,
            Reason.STATUS_MISMATCH,
            f"Update Manager reported {status}, but there is no installation, and {found}.",
        )
    if machine.power_state == Power.HIBERNATED.value and word not in _TELLS:
        return hibernated()
    if word in _NOT_RUNNING:
        return Outcome.skipped(Reason.NOT_RUNNING, "Update Manager found the machine stopped or unresponsive.")
    if word in _CANCELED:
        message = "The scheduled run was cancelled before it reached this machine."
        return Outcome.of(OutcomeKind.CANCELED, Reason.OCCURRENCE_CANCELED, message)
    if word in _FAILED:
        why = machine.update_manager_error or "it gives no reason"
        return Outcome.of(
            OutcomeKind.FAILED,
            Reason.UPDATE_MANAGER_FAILED,
            f"Update Manager reported {status} without the result of an installation: {why}",
        )
    said = f"last said {status}" if status else "never said how it went"
    return Outcome.of(
        OutcomeKind.UNKNOWN,
        Reason.RESULT_MISSING,
        f"Resource Graph shows no result of the scheduled run, and Update Manager {said}: look at the machine.",
    )


def _missing(machine: MachineRecord) -> int:
    """Critical and security patches that the assessment after the run still found and that could be installed."""
    after = machine.assessment
    return 0 if after is None else max(0, after.critical_and_security - after.needs_subscription)


def _result(kept: InstallationSummary) -> InstallResult:
    return InstallResult.model_validate(
        {
            "status": kept.status,
            "rebootStatus": kept.reboot_status,
            "maintenanceWindowExceeded": kept.window_exceeded,
            "installedPatchCount": kept.installed,
            "failedPatchCount": kept.failed,
            "pendingPatchCount": kept.pending,
            "excludedPatchCount": kept.excluded,
            "notSelectedPatchCount": kept.not_selected,
            "error": {"details": [each.to_wire() for each in kept.errors]},
        }
    )
