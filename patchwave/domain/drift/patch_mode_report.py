"""What each machine of the fleet is set to, and what will patch it: one row for each, for people and for filters."""

from collections.abc import Iterable
from enum import StrEnum

from pydantic import Field

from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.drift.fleet_index import PatchCoverage
from patchwave.domain.fleet.eligibility import Eligibility
from patchwave.domain.fleet.exclusions import HOLD_TAG, hold_reason
from patchwave.domain.fleet.patch_mode import AssessmentMode, PatchMode, PatchOwnership, PatchSettings, PatchSource


class MachineModes(Document):
    """A machine with its settings, and what will patch it and when.

    ``scenario`` and ``sentence`` are of `PatchOwnership`; ``at`` is the next start of the schedule that will patch it.
    """

    id: str
    name: str
    subscription_id: str
    resource_group: str
    location: str
    os_type: str
    power_state: str
    image: str
    agent_version: str = Field(description="Of the VM agent; empty when Azure does not tell it, as of one that is off.")
    settings: PatchSettings | None = Field(description="Null for a system that guest patching does not know.")
    schedules: list[str] = Field(description="Ids of the maintenance configurations that are attached to it.")
    policies: list[str] = Field(description="Names of the policies that cover it and will run.")
    patched_by: PatchSource
    at: UtcDatetime | None
    scenario: int | None = Field(description="1 to 8: patch mode, bypass flag, schedule (docs/how-to/patch-modes.md).")
    is_mistake: bool = Field(description="A schedule is attached that fails on it.")
    sentence: str
    eligibility: Eligibility


class PatchModeCounts(Document):
    """A fleet in numbers; each adds up to ``machines``."""

    machines: int
    by_patcher: dict[str, int]
    by_patch_mode: dict[str, int]
    by_assessment_mode: dict[str, int]
    mistakes: int = 0
    """Machines on which a schedule fails."""
    eligible: int = 0


def describe(standing: PatchCoverage) -> MachineModes:
    machine, patching = standing.machine, standing.patching
    found = machine.found
    return MachineModes(
        id=found.id,
        name=found.name,
        subscription_id=found.subscription_id,
        resource_group=found.resource_group,
        location=found.location,
        os_type=found.os_type,
        power_state=found.power_state.rpartition("/")[2],
        image=found.image,
        agent_version=machine.agent_version,
        settings=machine.settings,
        schedules=[attached.configuration.id for attached in standing.attached],
        policies=list(standing.policies),
        patched_by=_patched_by(standing),
        at=patching.at if patching else None,
        scenario=patching.scenario if patching else None,
        is_mistake=bool(patching and patching.is_mistake),
        sentence=_sentence(standing, patching),
        eligibility=machine.eligibility,
    )


def count(machines: Iterable[MachineModes]) -> PatchModeCounts:
    listed = list(machines)
    return PatchModeCounts(
        machines=len(listed),
        by_patcher=_tally((machine.patched_by for machine in listed), PatchSource),
        by_patch_mode=_tally((machine.settings and machine.settings.patch_mode for machine in listed), PatchMode),
        by_assessment_mode=_tally(
            (machine.settings and machine.settings.assessment_mode for machine in listed), AssessmentMode
        ),
        mistakes=sum(machine.is_mistake for machine in listed),
        eligible=sum(machine.eligibility.is_eligible for machine in listed),
    )


def _patched_by(standing: PatchCoverage) -> PatchSource:
    patcher = standing.patching.patcher if standing.patching else PatchSource.NONE
    if patcher is PatchSource.NONE and standing.policies:
        return PatchSource.POLICY
    return patcher


def _sentence(standing: PatchCoverage, patching: PatchOwnership | None) -> str:
    """All that is to be said; a hold keeps only Patchwave from the machine."""
    said = [patching.sentence if patching else "Guest patching does not know its system."]
    if standing.machine.found.is_uniform_set:
        said.clear()
    if standing.machine.found.problem:
        said.append(standing.machine.found.problem)
    if note := standing.machine.eligibility.image_note:
        said.append(note)
    if standing.policies:
        what = "policies" if len(standing.policies) > 1 else "policy"
        said.append(f"Covered by the {what} {', '.join(standing.policies)} of Patchwave.")
    said += standing.resting
    hold = hold_reason(standing.machine.found.tags)
    if hold is not None and not any(HOLD_TAG in sentence for sentence in said):
        said.append(hold)
    return " ".join(said)


def _tally(words: Iterable[StrEnum | None], order: type[StrEnum]) -> dict[str, int]:
    """How often each word is there, in the order of its kind, without zeros; ``unknown`` for none."""
    counts: dict[str, int] = {}
    for word in words:
        key = "unknown" if word is None else word.value
        counts[key] = counts.get(key, 0) + 1
    listed = [*(word.value for word in order), "unknown"]
    return {key: counts[key] for key in dict.fromkeys(listed) if key in counts}
