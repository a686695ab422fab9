"""A machine of the fleet with what it is set to, as Resource Graph shows both, minutes behind.

`build_queries` with `SETTINGS_COLUMNS` asks for it. The configurations of the two systems are not fetched whole: that
of Linux holds the SSH keys.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import cached_property
from typing import Any

from patchwave.domain.core.documents import parse_instant
from patchwave.domain.core.folding import fold
from patchwave.domain.core.outcome import Reason
from patchwave.domain.fleet.discovery import (
    DiscoveredMachine,
    evaluate_boundary,
    evaluate_duplicates,
    read_row,
    select_discovered,
)
from patchwave.domain.fleet.eligibility import NO_ANSWERS, AzureAnswers, Cause, Eligibility, Obstacle, evaluate
from patchwave.domain.fleet.patch_mode import PatchSettings
from patchwave.domain.fleet.supported_images import IMAGE_TABLE, ImageTable
from patchwave.domain.policy.boundary import Boundary
from patchwave.domain.policy.scope import OsType, Scope

_WINDOWS, _LINUX = "properties.osProfile.windowsConfiguration", "properties.osProfile.linuxConfiguration"
SETTINGS_COLUMNS = (
    f"windowsPatchSettings = {_WINDOWS}.patchSettings",
    f"windowsAutomaticUpdates = {_WINDOWS}.enableAutomaticUpdates",
    f"windowsProvisionAgent = {_WINDOWS}.provisionVMAgent",
    f"linuxPatchSettings = {_LINUX}.patchSettings",
    f"linuxProvisionAgent = {_LINUX}.provisionVMAgent",
    "allowExtensions = properties.osProfile.allowExtensionOperations",
    "timeCreated = tostring(properties.timeCreated)",
)
"""What is asked for beside the columns of a discovered machine."""


@dataclass(frozen=True)
class FleetMachine:
    """A machine and what it is set to; ``settings`` of ``None`` is a system that guest patching does not know."""

    found: DiscoveredMachine
    settings: PatchSettings | None
    agent_version: str = ""
    """Of the VM agent. Resource Graph does not show it: empty unless it was read beside, and for one that is off."""
    allows_extensions: bool = True
    created_at: datetime | None = None
    images: ImageTable = field(default=IMAGE_TABLE, repr=False)
    answers: AzureAnswers = NO_ANSWERS

    @cached_property
    def folded(self) -> str:
        return fold(self.found.id)

    @property
    def is_arc(self) -> bool:
        return self.found.is_arc

    @property
    def is_duplicate(self) -> bool:
        """Whether it is a virtual machine of Azure under another name, which no run patches."""
        return self.found.problem_reason is Reason.DUPLICATE

    @cached_property
    def eligibility(self) -> Eligibility:
        if self.found.problem:
            cause = Cause.UNIFORM_SCALE_SET if self.found.is_uniform_set else Cause.UNREADABLE_ID
            return Eligibility(obstacles=(Obstacle(cause=cause, sentence=self.found.problem),))
        if self.is_arc:
            # The conditions are those of virtual machines.
            return Eligibility()
        return evaluate(
            self.settings,
            image=self.found.image,
            agent_version=self.agent_version,
            extensions=self.allows_extensions,
            images=self.images,
            answers=self.answers,
        )

    @property
    def unsupported(self) -> str:
        """Why Azure's automatic patching leaves it out, whatever it is set to; empty when nothing says so."""
        return self.eligibility.sentence


def read_machine(row: Mapping[str, Any]) -> FleetMachine:
    return _with_settings(read_row(row), row)


def select_fleet(
    scope: Scope, rows: Iterable[Mapping[str, Any]], images: ImageTable = IMAGE_TABLE
) -> list[FleetMachine]:
    """The machines of the scope among the rows: each once, ordered by id."""
    by_id = {fold(found.id): (found, row) for row in rows if (found := read_row(row))}
    chosen = select_discovered(scope, (found for found, _ in by_id.values()))
    return [_with_settings(found, by_id[fold(found.id)][1], images) for found in chosen]


def without_twins(machines: Iterable[FleetMachine], twins: Iterable[Mapping[str, Any]]) -> list[FleetMachine]:
    """The same machines; an Arc machine that is a virtual machine of Azure has that as its problem.

    Args:
        machines: of both types.
        twins: rows of `twins_queries`.
    """
    listed = list(machines)
    judged = evaluate_duplicates([machine.found for machine in listed], twins)
    return [replace(machine, found=found) for machine, found in zip(listed, judged, strict=True)]


def within_boundary(machines: Iterable[FleetMachine], boundary: Boundary) -> list[FleetMachine]:
    """The same machines; the boundary is the problem of each that it leaves out."""
    listed = list(machines)
    judged = evaluate_boundary([machine.found for machine in listed], boundary)
    return [replace(machine, found=found) for machine, found in zip(listed, judged, strict=True)]


def _with_settings(found: DiscoveredMachine, row: Mapping[str, Any], images: ImageTable = IMAGE_TABLE) -> FleetMachine:
    system = "linux" if OsType.read(found.os_type) is OsType.LINUX else "windows"
    configuration = {
        "patchSettings": row.get(f"{system}PatchSettings"),
        "enableAutomaticUpdates": row.get("windowsAutomaticUpdates"),
        "provisionVMAgent": row.get(f"{system}ProvisionAgent"),
    }
    return FleetMachine(
        found=found,
        settings=None if found.is_uniform_set else PatchSettings.read(found.os_type, configuration),
        allows_extensions=row.get("allowExtensions") is not False,
        created_at=parse_instant(row.get("timeCreated")),
        images=images,
    )
