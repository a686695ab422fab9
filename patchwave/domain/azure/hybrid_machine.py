"""Arc machines: their state, and their patch results in the form of virtual machines.

An Arc machine has no instance view. Its agent's status decides whether it can be patched, its latest assessment is a
resource of its own, and its installations are rows of Resource Graph. A result counts what is available by
classification, calls its error ``errorDetails``, and lists no patches: those are rows of Resource Graph as well, a
minute or more later (`patchwave.domain.fleet.arc_results`).

Sources: Microsoft.HybridCompute 2026-07-15, its recordings in azure-powershell (2023 and 2024) and azure-cli-extensions
(2025), and "Access Azure Update Manager operations data using Azure Resource Graph". [inferred]: that
``patchAssessmentResults/latest`` can be read from Resource Manager with the properties of the result, and that a row of
``patchinstallationresources`` exists as soon as an installation is accepted.
"""

from typing import override

from pydantic import AliasPath, Field

from patchwave.domain.azure.instance_view import MachineView
from patchwave.domain.azure.patch_results import PatchSummary, Text
from patchwave.domain.core.documents import Json, count_or_zero, object_or_none
from patchwave.domain.core.patches import count_urgent

_COUNTS = "availablePatchCountByClassification"
_OF_INSTALLATION = ("installed", "failed", "pending", "excluded", "notSelected")


class HybridMachineView(MachineView):
    """``GET machines/{name}``, with its latest assessment and its newest installation where they are known."""

    os_type: Text = Field(default="", validation_alias=AliasPath("properties", "osType"))
    status: Text = Field(default="", validation_alias=AliasPath("properties", "status"))
    """``Connected``, ``Disconnected``, ``Expired``, ``Error`` or ``AwaitingConnection``."""

    @property
    def is_connected(self) -> bool:
        return self.status.casefold() == "connected"

    @property
    @override
    def is_up(self) -> bool:
        return self.is_connected


# --- results in the form of virtual machines -----------------------------------------------------------------


def to_compute_result(result: Json) -> Json:
    """A result of an assessment or installation, with the counts and the error of those of virtual machines."""
    counts = object_or_none(result.get(_COUNTS))
    made = result | {"error": result.get("errorDetails")}
    if counts is None:
        return made
    by_name = {name: count_or_zero(count) for name, count in counts.items() if name.casefold() != "total"}
    urgent = count_urgent(by_name)
    return made | {
        "criticalAndSecurityPatchCount": urgent,
        "otherPatchCount": sum(by_name.values()) - urgent,
        "availablePatches": [],
    }


def count_patches(result: Json) -> int:
    """How many patches a result of `to_compute_result` counts, and so how many its list has when it is complete."""
    names = ("criticalAndSecurityPatchCount", "otherPatchCount", *(f"{name}PatchCount" for name in _OF_INSTALLATION))
    return sum(count_or_zero(result.get(name)) for name in names)


def read_summary(properties: Json) -> PatchSummary:
    """The summary of an assessment or installation from the properties of its resource or row."""
    times = {"startTime": properties.get("startDateTime"), "lastModifiedTime": properties.get("lastModifiedDateTime")}
    return PatchSummary.model_validate(to_compute_result(properties) | times)
