"""The plan of a run: one row per machine in plan order, and a head row that marks the plan as complete.

The head row is written last. Without it there is no plan, whatever rows an interrupted planner has left; with it the
plan never changes.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from patchwave.domain.core.documents import list_or_empty
from patchwave.domain.core.ids import machine_key
from patchwave.domain.planning.placement_codec import PlacedMachine
from patchwave.domain.planning.plan import ExcludedMachine, Makespan, Plan, PlannedMachine, PlannedTimeZone
from patchwave.domain.planning.plan import PlannedRing as RingOfPlan
from patchwave.domain.planning.reservation import Groups
from patchwave.domain.workflow.run import PlanSummary
from patchwave.storage.engine.entity_codec import Columns, get_json, pack, unpack, wire_names
from patchwave.storage.engine.paging import Page, read_page
from patchwave.storage.engine.rows import Change, Row
from patchwave.storage.engine.store import Repository
from patchwave.storage.errors import RecordMissing
from patchwave.storage.reservations import PHASES, groups_key
from patchwave.storage.run_patches import MACHINES

PLACEMENTS = "o~"
"""Row key prefix of a placement: ``o~{ring}~{phase}~{rank}``, with ring and phase as positions from 0."""
EXCLUSIONS = "x~"
"""Row key prefix of an excluded machine: ``x~{machineKey}``."""
HEAD = "plan"
"""Row key of the head row."""
_POSITION = "position"
_SHOWN_ON_MACHINES = ("ring", "phase", "lane", "wave", "placementReasons")


class PlanRepository(Repository):
    """Plans of runs."""

    async def save(
        self,
        run_id: str,
        plan: Plan,
        placed: Sequence[PlacedMachine],
        planned: PlanSummary,
        expected: Mapping[str, float] | None = None,
        groups: Mapping[tuple[int, int], Groups] | None = None,
    ) -> PlanSummary:
        """Store the plan, and each machine's placement in its row; returns the stored plan in short.

        A repeated call completes an interrupted one: it replaces rows, and removes those that are not in the plan. A
        complete plan stays as it is.

        Args:
            plan: the whole plan.
            placed: its machines, in the order of each phase.
            planned: the plan in short, for the orchestrator.
            expected: seconds that the last installation of machines took, by key.
            groups: concurrency groups that each phase reserves, by the positions of ring and phase, from 0.

        Raises:
            ValueError: ``placed`` and the plan have different machines.
        """
        stored = await self.get_summary(run_id)
        if stored is not None:
            return stored
        rows = _placements(plan, placed) | _exclusions(plan)
        rows |= {groups_key(*place): pack(each.to_wire()) for place, each in (groups or {}).items()}
        await self._remove_leftovers(run_id, rows)
        await self._store.results.apply_all(run_id, [Change("replace", key, columns) for key, columns in rows.items()])
        await self._store.results.merge_all(run_id, [_shown(machine, expected or {}) for machine in plan.machines])
        if await self._store.results.insert(run_id, HEAD, _head(plan, planned)):
            return planned
        stored = await self.get_summary(run_id)
        if stored is None:
            raise RecordMissing(f"the plan of run {run_id} was removed while it was read")
        return stored

    async def get_summary(self, run_id: str) -> PlanSummary | None:
        """The plan in short, or ``None`` while the run has no plan."""
        row = await self._store.results.get(run_id, HEAD)
        return None if row is None else PlanSummary.model_validate(get_json(row.columns, "planned"))

    async def get(self, run_id: str) -> Plan | None:
        """The whole plan, or ``None`` while the run has none. Scans all its rows."""
        head = await self._store.results.get(run_id, HEAD)
        if head is None:
            return None
        zones = get_json(head.columns, "timeZones")
        machines, excluded = await asyncio.gather(
            self._in_order(run_id, PLACEMENTS), self._in_order(run_id, EXCLUSIONS)
        )
        return Plan(
            version=head.columns["version"],
            policy=head.columns["policy"],
            rings=[RingOfPlan.model_validate(ring) for ring in get_json(head.columns, "rings")],
            machines=[unpack(PlannedMachine, columns) for columns in machines],
            excluded=[unpack(ExcludedMachine, columns) for columns in excluded],
            makespan=Makespan.model_validate(get_json(head.columns, "makespan")),
            begins_at=head.columns.get("beginsAt"),
            time_zones=[PlannedTimeZone.model_validate(zone) for zone in list_or_empty(zones)],
            notes=get_json(head.columns, "notes"),
        )

    async def list_placements(
        self, run_id: str, ring: int, phase: int, limit: int, cursor: str | None
    ) -> Page[PlacedMachine]:
        """Machines of a phase in plan order; ring and phase as positions from 0."""
        results, prefix = self._store.results, _prefix(ring, phase)
        return await read_page(results, run_id, _placed, prefix=prefix, limit=limit, cursor=cursor, select=_PLACED)

    async def _in_order(self, run_id: str, prefix: str) -> list[Columns]:
        rows = [row.columns async for row in self._store.results.scan(run_id, prefix=prefix)]
        return sorted(rows, key=lambda columns: int(columns[_POSITION]))

    async def _remove_leftovers(self, run_id: str, rows: Mapping[str, Columns]) -> None:
        leftovers: list[Change] = []
        for prefix in (PLACEMENTS, EXCLUSIONS, PHASES):
            scan = self._store.results.scan(run_id, prefix=prefix, select=[])
            leftovers += [Change("delete", row.key, {}, row.etag) async for row in scan if row.key not in rows]
        await self._store.results.apply_all(run_id, leftovers)


_PLACED = wire_names(PlacedMachine, without=["attempt"])


def _placements(plan: Plan, placed: Sequence[PlacedMachine]) -> dict[str, Columns]:
    """The machines' rows by row key, each with its position in the document and its rank in the phase."""
    ring_numbers = {ring.name: number for number, ring in enumerate(plan.rings)}
    machines = {machine_key(machine.id): (at, machine) for at, machine in enumerate(plan.machines)}
    if len(machines) != len(plan.machines) or sorted(machines) != sorted(one.key for one in placed):
        raise ValueError("the plan and the places are not of the same machines")
    ranks: Counter[str] = Counter()
    rows: dict[str, Columns] = {}
    for one in placed:
        position, machine = machines[one.key]
        prefix = _prefix(ring_numbers[machine.ring], machine.phase - 1)
        values = {**machine.to_wire(), **{name: one.to_wire()[name] for name in _PLACED}, _POSITION: position}
        rows[f"{prefix}{ranks[prefix]:06d}"] = pack(values)
        ranks[prefix] += 1
    return rows


def _exclusions(plan: Plan) -> dict[str, Columns]:
    return {
        EXCLUSIONS + machine_key(machine.id): pack({**machine.to_wire(), _POSITION: position})
        for position, machine in enumerate(plan.excluded)
    }


def _shown(machine: PlannedMachine, expected: Mapping[str, float]) -> Change:
    """The placement columns of the machine's own row."""
    key, values = machine_key(machine.id), machine.to_wire()
    columns = {name: values[name] for name in _SHOWN_ON_MACHINES}
    if key in expected:
        columns["expectedSeconds"] = expected[key]
    return Change("merge", MACHINES + key, pack(columns))


def _head(plan: Plan, planned: PlanSummary) -> Columns:
    values: dict[str, Any] = plan.to_wire()
    names = ["version", "policy", "rings", "makespan", "notes"] + (["beginsAt", "timeZones"] if plan.begins_at else [])
    return pack({**{name: values[name] for name in names}, "planned": planned})


def _placed(row: Row) -> PlacedMachine:
    return unpack(PlacedMachine, row.columns)


def _prefix(ring: int, phase: int) -> str:
    return f"{PLACEMENTS}{ring:02d}~{phase:03d}~"
