"""Installations and patches of Arc machines, which only Resource Graph knows: the queries, and their rows.

Rows are minutes behind. See `patchwave.domain.azure.hybrid_machine` for what Resource Manager tells.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from patchwave.domain.azure.hybrid_machine import read_summary
from patchwave.domain.azure.patch_results import PatchSummary
from patchwave.domain.core.documents import Json, list_or_empty, object_or_none, parse_instant, str_or_empty
from patchwave.domain.core.ids import MachineId
from patchwave.domain.fleet.discovery import literal, starts_with

_INSTALLATIONS = "microsoft.hybridcompute/machines/patchinstallationresults"
_ASSESSED_PATCHES = "microsoft.hybridcompute/machines/patchassessmentresults/softwarepatches"


def newest_installations() -> str:
    """The newest installation of each Arc machine: ``machine, id, properties``."""
    return "\n".join(
        [
            "patchinstallationresources",
            f"| where type =~ {literal(_INSTALLATIONS)}",
            "| extend machine = tostring(split(tolower(id), '/patchinstallationresults/')[0]),"
            " startedAt = todatetime(properties.startDateTime)",
            "| summarize arg_max(startedAt, id, properties) by machine",
            "| order by id asc",
        ]
    )


def installations_of(machine: MachineId) -> str:
    """The installations of one Arc machine: ``id, properties``."""
    return _under("patchinstallationresources", _INSTALLATIONS, f"{machine.text}/patchInstallationResults/")


def patches_of(machine: MachineId, result: Json) -> str:
    """The patches of a result: ``id, properties``. Those of an assessment may still be of the one before."""
    activity = str_or_empty(result.get("installationActivityId"))
    if activity:
        kind = f"{_INSTALLATIONS}/softwarepatches"
        above = f"{machine.text}/patchInstallationResults/{activity}/softwarePatches/"
        return _under("patchinstallationresources", kind, above)
    above = f"{machine.text}/patchAssessmentResults/latest/softwarePatches/"
    return _under("patchassessmentresources", _ASSESSED_PATCHES, above)


def _under(table: str, kind: str, above: str) -> str:
    lines = [table, f"| where {starts_with('id', above)}", f"| where type =~ {literal(kind)}"]
    return "\n".join([*lines, "| project id, properties", "| order by id asc"])


def read_newest(rows: Iterable[Mapping[str, Any]]) -> PatchSummary | None:
    """The newest of the installations of one machine."""
    found = [read_summary(object_or_none(row.get("properties")) or {}) for row in rows]
    dated = [(each.start_time, each) for each in found if each.start_time is not None]
    return max(dated, key=lambda each: each[0])[1] if dated else next(iter(found), None)


def with_patches(result: Json, rows: Sequence[Mapping[str, Any]]) -> Json:
    """The result with the patches of the rows; those of an earlier assessment are left out."""
    since = parse_instant(result.get("startDateTime"))
    patches = [_patch(row) for row in rows]
    if str_or_empty(result.get("installationActivityId")):
        return result | {"patches": patches}
    written = [(parse_instant(patch["lastModifiedDateTime"]), patch) for patch in patches]
    fresh = [patch for at, patch in written if at is None or since is None or at >= since]
    return result | {"availablePatches": fresh}


def _patch(row: Mapping[str, Any]) -> Json:
    """A row in the form of the list of a virtual machine's result."""
    properties = object_or_none(row.get("properties")) or {}
    listed = properties.get("classifications")
    return properties | {
        "patchId": str_or_empty(row.get("id")).rpartition("/")[2],
        "name": properties.get("patchName"),
        "classifications": list_or_empty(listed) if not isinstance(listed, str) else [listed],
        "publishedDate": properties.get("publishedDateTime"),
        "lastModifiedDateTime": properties.get("lastModifiedDateTime"),
        "assessmentState": properties.get("assessmentState") or "Available",
    }
