"""A plan drawn over time for a terminal: how many machines of each lane are worked on, and when."""

from __future__ import annotations

import math
from collections.abc import Iterator

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.text import Text

from patchwave.cli.output import plain
from patchwave.cli.plans.lanes import Lane, at_a_time, clock, lanes_of, name_of, peak, ticks, total_seconds
from patchwave.cli.plans.views import plan_facts
from patchwave.domain.planning.plan import Plan, PlannedMachine

MAX_MACHINES = 60
"""A plan with more machines is drawn lane by lane only."""

_HEIGHTS = " ▁▂▃▄▅▆▇█"
_LANE = "cyan"
_WAVES = ("green", "blue")
"""Waves of a lane take turns, so that one can see where the next begins."""
_QUIET = "bright_black"
_LABEL_SHARE = 0.4
_NARROWEST = 10


def timeline(plan: Plan) -> RenderableType:
    """The plan in short, and its drawing over the width of the terminal."""
    if not plan.machines:
        return plan_facts(plan)
    return Group(plan_facts(plan), Text(), _Drawing(plan))


class _Drawing:
    """A row per lane and, in a small plan, a row per machine under it; as wide as the console."""

    def __init__(self, plan: Plan) -> None:
        self._lanes = lanes_of(plan)
        self._seconds = total_seconds(plan.machines)
        self._has_machines = len(plan.machines) <= MAX_MACHINES
        self._peak = max(peak(lane.machines) for lane in self._lanes)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        rows = list(self._rows())
        widest = max(len(label) for label, _, _ in rows)
        labels = min(widest, int(options.max_width * _LABEL_SHARE))
        width = max(_NARROWEST, options.max_width - labels - 2)
        yield self._axis(labels, width)
        for label, lane, machine in rows:
            line = Text(_fitted(label, labels), style="" if machine else "bold", no_wrap=True, overflow="crop")
            line.append("  ")
            line.append_text(self._lane_bar(lane, width) if machine is None else self._machine_bar(machine, width))
            yield line
        yield Text(
            f"{'':{labels}}  {_HEIGHTS[1]} to {_HEIGHTS[-1]}: up to {self._peak} machines at a time", style=_QUIET
        )

    def _rows(self) -> Iterator[tuple[str, Lane, PlannedMachine | None]]:
        for lane in self._lanes:
            place = f"{lane.ring.name} {lane.phase} {lane.region}"
            approval = " (after approval)" if lane.ring.approval and lane.phase == 1 else ""
            yield plain(f"{place}, {len(lane.machines)}{approval}"), lane, None
            for wave in lane.waves if self._has_machines else ():
                for machine in wave.machines:
                    yield plain(f"  {wave.number} {name_of(machine.id)}"), lane, machine

    def _axis(self, labels: int, width: int) -> Text:
        line = " " * (labels + 2)
        for moment in ticks(self._seconds, most=max(2, width // 12)):
            column = labels + 2 + int(moment / self._seconds * width) if self._seconds else labels + 2
            if column >= len(line):
                line = f"{line:{column}}{clock(moment)}"
        return Text(line, style=_QUIET, no_wrap=True, overflow="crop")

    def _lane_bar(self, lane: Lane, width: int) -> Text:
        counts = at_a_time(lane.machines, width, self._seconds)
        steps = len(_HEIGHTS) - 1
        return Text("".join(_HEIGHTS[math.ceil(count / self._peak * steps)] for count in counts), style=_LANE)

    def _machine_bar(self, machine: PlannedMachine, width: int) -> Text:
        scale = width / self._seconds if self._seconds else 0.0
        start = min(int(machine.predicted_start * scale), width - 1)
        length = max(1, round(machine.predicted_end * scale) - start)
        return Text(" " * start + "━" * length, style=_WAVES[machine.wave % len(_WAVES)])


def _fitted(label: str, width: int) -> str:
    return f"{label:{width}}" if len(label) <= width else f"{label[: width - 1]}…"
