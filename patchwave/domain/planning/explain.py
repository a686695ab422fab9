"""Why a machine starts when it does, in words."""

from bisect import bisect_left
from collections.abc import Iterable, Mapping

from patchwave.domain.planning.admission import RUN_GROUP, ramp_limit
from patchwave.domain.planning.constraints import ConcurrencyConstraints, slot_order
from patchwave.domain.planning.critical_path import Job
from patchwave.domain.planning.timeline import Slice


class PlanExplainer:
    """Says of the machines of one phase what decided when they start."""

    def __init__(
        self,
        constraints: ConcurrencyConstraints,
        jobs: Iterable[Job],
        slices: Mapping[str, Slice],
        *,
        ramp: bool = False,
        ended: int = 0,
    ) -> None:
        self._constraints = constraints
        self._slices = slices
        self._ramp = ramp
        self._ended = ended
        self._ends = sorted(each.end for each in slices.values())
        members: dict[str, set[str]] = {}
        for job in jobs:
            for place in job.permits:
                if place.slot:
                    members.setdefault(place.group, set()).add(place.slot)
        self._slots: dict[tuple[str, str], str] = {}
        for group, slots in members.items():
            after = ""
            for slot in sorted(slots, key=slot_order):
                words = constraints.slots[group, slot]
                self._slots[group, slot] = f"{words.name}{words.of}{after}"
                # Which region of a pair goes first follows from their windows.
                after = "" if group.startswith("pair:") else f" after {words.name}"

    def reasons(self, job: Job, wave: int) -> list[str]:
        """Its zone and update domain, the rules that may hold it, and what did hold it if that is none of them."""
        rules = self._constraints.rules
        said = [self._slots[place.group, place.slot] for place in job.permits if place.slot]
        said += [rules[place.group] for place in job.permits if place.group in rules and place.group != RUN_GROUP]
        start, _, after = self._slices[job.key]
        if after == RUN_GROUP:
            said.append(self._why_run(start))
        elif after.startswith("wave:"):
            said.append(f"wave {wave} after wave {wave - 1}")
        return said

    def _why_run(self, start: float) -> str:
        """The whole run held the machine until this moment: by its own capacity, or by what the ramp let it have."""
        rule = self._constraints.rules.get(RUN_GROUP, "")
        has_ramped = ramp_limit(self._ended + bisect_left(self._ends, start)) >= self._constraints.run_capacity
        if self._ramp and not (rule and has_ramped):
            return "the ring begins with 1, 2, 4, … at a time"
        return rule
