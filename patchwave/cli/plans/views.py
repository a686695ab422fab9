"""A plan, and what has changed between two, as tables. Everything here is a pure function of documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from patchwave.cli.json_fields import Json
from patchwave.cli.output import plain
from patchwave.cli.plans.lanes import Lane, clock, lanes_of, name_of, peak
from patchwave.cli.rendering import Cell, Listing, number_of
from patchwave.domain.planning.plan import Makespan, Plan, PlannedMachine
from patchwave.domain.planning.plan_diff import PlanDiff, Position

MAX_ROWS = 200
"""Rows of one table; the rest is counted, and in the JSON."""


def plan_tables(plan: Plan, diff: PlanDiff | None = None, most: int | None = MAX_ROWS) -> list[RenderableType]:
    """The whole plan: in short, ring by ring, wave by wave, machine by machine, and what is left out.

    Each table has at most so many rows, and counts the rest; ``None`` shows all of them.
    """
    lanes = lanes_of(plan)
    parts: list[RenderableType] = [plan_facts(plan), Text()]
    if plan.time_zones:
        parts += [_time_zones(plan), Text()]
    if plan.machines:
        parts += [_rings(plan, lanes), Text(), _waves(lanes, most), Text(), _machines(plan.machines, most)]
    if plan.excluded:
        parts += [Text(), _excluded(plan, most)]
    if diff is not None:
        parts += [Text(), diff_table(diff, most)]
    return parts


def plan_facts(plan: Plan) -> RenderableType:
    """The summary of the plan, and its warnings."""
    line = Text.assemble(
        (plain(plan.policy), "bold"),
        f"  {number_of(len(plan.machines), 'machine')} in {number_of(len(plan.rings), 'ring')}, {took(plan.makespan)}",
    )
    if plan.excluded:
        line.append(f"; {len(plan.excluded)} left out", style="yellow")
    return Group(line, *(Text(plain(note), style="yellow") for note in plan.notes))


def took(makespan: Makespan) -> str:
    """How long a run takes by its plan, in words."""
    shortest = clock(makespan.lower_bound_seconds)
    return f"{clock(makespan.predicted_seconds)} hours as predicted ({shortest} at the very least)"


def diff_table(diff: PlanDiff, most: int | None = MAX_ROWS) -> RenderableType:
    """What has changed since an earlier plan, a line per machine."""
    if diff.is_empty:
        return Text("Nothing has changed since the earlier plan.")
    rows = [
        *(("planned now", machine.id, "", _placed(machine)) for machine in diff.added),
        *(("gone", machine, "", "") for machine in diff.removed),
        *(("left out now", machine.id, "", machine.detail) for machine in diff.excluded),
        *(("moved", machine.id, _position(machine.before), _position(machine.after)) for machine in diff.moved),
        *(("retimed", machine.id, clock(machine.before), clock(machine.after)) for machine in diff.retimed),
    ]
    table = _table(
        [
            {"changed": change, "machine": name_of(machine), "before": before, "now": after}
            for change, machine, before, after in rows
        ],
        most,
        prose=["before", "now"],
    )
    before, after = diff.makespan.before.predicted_seconds, diff.makespan.after.predicted_seconds
    return Group(table, Text(f"The run takes {clock(after)} hours; it took {clock(before)}."))


def _time_zones(plan: Plan) -> RenderableType:
    """The hours of each zone, of machines that read their own clocks."""
    rows = [
        {
            "time zone": each.time_zone,
            "machines": each.machines,
            "opens (UTC)": f"{each.opens_at:%Y-%m-%d %H:%M}",
            "closes (UTC)": f"{each.closes_at:%Y-%m-%d %H:%M}",
            "too late": each.late_machines or "",
        }
        for each in plan.time_zones
    ]
    return _table(rows, None, right=("machines", "too late"), title=["time zone"])


def _rings(plan: Plan, lanes: Sequence[Lane]) -> RenderableType:
    rows: list[Json] = []
    for ring in plan.rings:
        mine = [lane for lane in lanes if lane.ring.name == ring.name]
        row = {
            "ring": Text(plain(ring.name), style="bold"),
            "machines": ring.machines,
            "approval": "needed" if ring.approval else "",
            "starts": clock(min(lane.start for lane in mine)) if mine else "",
            "ends": clock(max(lane.end for lane in mine)) if mine else "",
            "phases": "; then ".join(" beside ".join(regions) for regions in ring.phases),
        }
        rows.append(row)
    return _table(rows, None, right=("machines", "starts", "ends"), prose=["phases"])


def _waves(lanes: Sequence[Lane], most: int | None) -> RenderableType:
    rows = [
        {
            "ring": lane.ring.name,
            "phase": lane.phase,
            "lane": lane.region,
            "wave": wave.number,
            "machines": len(wave.machines),
            "at once": peak(wave.machines),
            "starts": clock(wave.start),
            "ends": clock(wave.end),
            "first": name_of(wave.machines[0].id),
        }
        for lane in lanes
        for wave in lane.waves
    ]
    right = ("phase", "wave", "machines", "at once", "starts", "ends")
    return _table(rows, most, right=right, title=["ring", "lane"])


def _machines(machines: Sequence[PlannedMachine], most: int | None) -> RenderableType:
    rows = [
        {
            "machine": name_of(machine.id),
            "ring": machine.ring,
            "phase": machine.phase,
            "lane": machine.lane,
            "wave": machine.wave,
            "starts": clock(machine.predicted_start),
            "ends": clock(machine.predicted_end),
            "why": "; ".join(machine.placement_reasons),
        }
        for machine in machines
    ]
    return _table(rows, most, right=("phase", "wave", "starts", "ends"), prose=["why"])


def _excluded(plan: Plan, most: int | None) -> RenderableType:
    rows = [
        {"left out": name_of(machine.id), "reason": machine.reason, "detail": machine.detail}
        for machine in plan.excluded
    ]
    reasons = Counter(machine.reason for machine in plan.excluded)
    in_order = sorted(reasons.items(), key=lambda each: (-each[1], each[0]))
    counted = Text(", ".join(f"{count} {plain(reason)}" for reason, count in in_order))
    return Group(_table(rows, most, prose=["detail"]), counted)


def _placed(machine: PlannedMachine) -> str:
    at = Position(ring=machine.ring, phase=machine.phase, lane=machine.lane, wave=machine.wave)
    return f"{_position(at)} at {clock(machine.predicted_start)}"


def _position(position: Position) -> str:
    return f"{position.ring}, phase {position.phase}, {position.lane}, wave {position.wave}"


def _table(
    rows: Sequence[Json],
    most: int | None,
    *,
    right: Sequence[str] = (),
    prose: Sequence[str] = (),
    title: Sequence[str] = (),
) -> RenderableType:
    """At most so many rows, whose keys are the headings; the rest is counted."""
    columns: dict[str, Cell] = {heading: heading for heading in rows[0]}
    table = Listing(rows[:most], columns, right=right, prose=prose, title=title)
    if most is None or len(rows) <= most:
        return table
    return Group(table, Text(f"and {len(rows) - most} more: --all", style="bright_black"))
