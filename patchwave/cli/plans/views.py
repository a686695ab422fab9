"""A plan, and what has changed between two, as tables. Everything here is a pure function of documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from patchwave.cli.output import plain
from patchwave.cli.plans.lanes import Lane, clock, lanes_of, name_of, peak
from patchwave.cli.rendering import new_table
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
        f"  {_count(len(plan.machines), 'machine')} in {_count(len(plan.rings), 'ring')}, {took(plan.makespan)}",
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
    table = new_table("changed", "machine", "before", "now")
    rows = [
        *(("planned now", machine.id, "", _placed(machine)) for machine in diff.added),
        *(("gone", machine, "", "") for machine in diff.removed),
        *(("left out now", machine.id, "", machine.detail) for machine in diff.excluded),
        *(("moved", machine.id, _position(machine.before), _position(machine.after)) for machine in diff.moved),
        *(("retimed", machine.id, clock(machine.before), clock(machine.after)) for machine in diff.retimed),
    ]
    for change, machine, before, after in rows[:most]:
        table.add_row(change, _name(machine), _folding(before), _folding(after))
    _count_rest(table, rows, most)
    before, after = diff.makespan.before.predicted_seconds, diff.makespan.after.predicted_seconds
    return Group(table, Text(f"The run takes {clock(after)} hours; it took {clock(before)}."))


def _rings(plan: Plan, lanes: Sequence[Lane]) -> RenderableType:
    table = new_table("ring", "machines", "approval", "starts", "ends", "phases", right=("machines", "starts", "ends"))
    for ring in plan.rings:
        mine = [lane for lane in lanes if lane.ring.name == ring.name]
        phases = "; then ".join(" beside ".join(map(plain, regions)) for regions in ring.phases)
        table.add_row(
            Text(plain(ring.name), style="bold"),
            str(ring.machines),
            "needed" if ring.approval else "",
            clock(min(lane.start for lane in mine)) if mine else "",
            clock(max(lane.end for lane in mine)) if mine else "",
            _folding(phases),
        )
    return table


def _waves(lanes: Sequence[Lane], most: int | None) -> RenderableType:
    numbers = ("phase", "wave", "machines", "at a time", "starts", "ends")
    table = new_table(
        "ring", "phase", "lane", "wave", "machines", "at a time", "starts", "ends", "first", right=numbers
    )  # fmt: skip
    rows = [(lane, wave) for lane in lanes for wave in lane.waves]
    for lane, wave in rows[:most]:
        table.add_row(
            Text(plain(lane.ring.name)),
            str(lane.phase),
            Text(plain(lane.region)),
            str(wave.number),
            str(len(wave.machines)),
            str(peak(wave.machines)),
            clock(wave.start),
            clock(wave.end),
            _name(wave.machines[0].id),
        )
    _count_rest(table, rows, most)
    return table


def _machines(machines: Sequence[PlannedMachine], most: int | None) -> RenderableType:
    right = ("phase", "wave", "starts", "ends")
    table = new_table("machine", "ring", "phase", "lane", "wave", "starts", "ends", "why", right=right)
    for machine in machines[:most]:
        table.add_row(
            _name(machine.id),
            Text(plain(machine.ring)),
            str(machine.phase),
            Text(plain(machine.lane)),
            str(machine.wave),
            clock(machine.predicted_start),
            clock(machine.predicted_end),
            _folding("; ".join(machine.placement_reasons)),
        )
    _count_rest(table, machines, most)
    return table


def _excluded(plan: Plan, most: int | None) -> RenderableType:
    table = new_table("left out", "reason", "detail")
    for machine in plan.excluded[:most]:
        table.add_row(_name(machine.id), Text(plain(machine.reason)), _folding(machine.detail))
    _count_rest(table, plan.excluded, most)
    reasons = Counter(machine.reason for machine in plan.excluded)
    in_order = sorted(reasons.items(), key=lambda each: (-each[1], each[0]))
    return Group(table, Text(", ".join(f"{count} {plain(reason)}" for reason, count in in_order)))


def _placed(machine: PlannedMachine) -> str:
    at = Position(ring=machine.ring, phase=machine.phase, lane=machine.lane, wave=machine.wave)
    return f"{_position(at)} at {clock(machine.predicted_start)}"


def _position(position: Position) -> str:
    return f"{position.ring}, phase {position.phase}, {position.lane}, wave {position.wave}"


def _name(machine_id: str) -> Text:
    return Text(plain(name_of(machine_id)), overflow="fold")


def _folding(text: str) -> Text:
    return Text(plain(text), overflow="fold")


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _count_rest(table: Table, rows: Sequence[object], most: int | None) -> None:
    if most is not None and len(rows) > most:
        table.add_row(Text(f"and {len(rows) - most} more: --all", style="bright_black"))
