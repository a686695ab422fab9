"""A plan drawn over time as SVG: a picture for a change request or a page, with the reasons as tooltips.

The picture is built as a tree of elements, so that whatever stands in a tag or a name is escaped by the writer.
"""

from __future__ import annotations

from collections.abc import Sequence
from xml.etree import ElementTree
from xml.etree.ElementTree import Element, SubElement

from patchwave.cli.output import plain
from patchwave.cli.plans.lanes import Lane, at_a_time, clock, lanes_of, name_of, peak, ticks, total_seconds
from patchwave.domain.planning.plan import Plan, PlannedMachine

MAX_MACHINES = 300
"""A plan with more machines is drawn as how many machines of each lane run at a time."""

_WIDTH = 1200
_LABELS = 260
_MARGIN = 20
_LINE = 16
_BAR = 10
_CHART = 36
_HEADER = 80
_ROOM = 70
"""What a short word beside a line takes."""
_SLOTS = 240
_MAX_LABEL = 34
_NO_CHARACTERS = {0xFFFE: " ", 0xFFFF: " "}
_NAMESPACE = "http://www.w3.org/2000/svg"
_STYLE = """
text { font: 12px system-ui, sans-serif; fill: #24292f }
.title { font-size: 16px; font-weight: 600 }
.lane { font-weight: 600 }
.quiet { fill: #6e7781 }
.grid { stroke: #d0d7de }
.approval { stroke: #bf8700; stroke-width: 2; stroke-dasharray: 4 3 }
.odd { fill: #0969da }
.even { fill: #54aeff }
.band { fill: #f6f8fa }
"""


def draw(plan: Plan) -> str:
    """The document, as text of one ``svg`` element."""
    return _Picture(plan).text()


class _Picture:
    """Rows from top to bottom: a band per ring, a heading per lane, under it its machines or their number."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._lanes = lanes_of(plan)
        self._seconds = total_seconds(plan.machines) or 1.0
        self._has_machines = len(plan.machines) <= MAX_MACHINES
        self._peak = max((peak(lane.machines) for lane in self._lanes), default=1)
        self._height = _HEADER + self._height_of(self._lanes) + _MARGIN
        self._root = Element(
            "svg",
            {
                "xmlns": _NAMESPACE,
                "viewBox": f"0 0 {_WIDTH} {self._height}",
                "width": str(_WIDTH),
                "height": str(self._height),
                "role": "img",
            },
        )

    def text(self) -> str:
        """Draw everything."""
        plan = self._plan
        summary = f"{len(plan.machines)} machines, {clock(plan.makespan.predicted_seconds)} hours"
        SubElement(self._root, "title").text = _plain(f"Plan of policy {plan.policy}: {summary}")
        SubElement(self._root, "style").text = _STYLE
        SubElement(self._root, "rect", {"width": "100%", "height": "100%", "fill": "#ffffff"})
        self._write(_MARGIN, 26, f"Plan of policy {plan.policy}", "title")
        shortest = clock(plan.makespan.lower_bound_seconds)
        left_out = f"; {len(plan.excluded)} left out" if plan.excluded else ""
        self._write(_MARGIN, 46, f"{summary} (at least {shortest}){left_out}", "quiet")
        self._bands()
        self._axis()
        top = float(_HEADER)
        for lanes in self._by_ring():
            top = self._ring(lanes, top)
        ElementTree.indent(self._root)
        return ElementTree.tostring(self._root, encoding="unicode") + "\n"

    def _by_ring(self) -> list[list[Lane]]:
        rings: dict[str, list[Lane]] = {}
        for lane in self._lanes:
            rings.setdefault(lane.ring.name, []).append(lane)
        return list(rings.values())

    def _bands(self) -> None:
        """A shade behind every other ring, so that one sees where each begins."""
        top = _HEADER
        for number, lanes in enumerate(self._by_ring()):
            height = self._height_of(lanes)
            if number % 2 == 0:
                band = {"x": "0", "y": str(top), "width": str(_WIDTH), "height": str(height), "class": "band"}
                SubElement(self._root, "rect", band)
            top += height

    def _ring(self, lanes: Sequence[Lane], top: float) -> float:
        if lanes[0].ring.approval:
            start = self._x(min(lane.start for lane in lanes))
            gate = self._line(start, top, start, top + self._height_of(lanes), "approval")
            SubElement(gate, "title").text = _plain(f"Ring {lanes[0].ring.name} waits for an approval")
            self._beside(start, top + 12, "approval")
        for lane in lanes:
            place = f"{lane.ring.name}, phase {lane.phase}: {lane.region}"
            self._write(_MARGIN, top + 12, place, "lane")
            top += _LINE
            if self._has_machines:
                for row, machine in enumerate(lane.machines):
                    self._machine(machine, top + row * _LINE)
            else:
                self._chart(lane, top)
            top += self._body(lane) + _LINE // 2
        return top

    def _height_of(self, lanes: Sequence[Lane]) -> int:
        return sum(_LINE + self._body(lane) + _LINE // 2 for lane in lanes)

    def _body(self, lane: Lane) -> int:
        return len(lane.machines) * _LINE if self._has_machines else _CHART

    def _machine(self, machine: PlannedMachine, top: float) -> None:
        name = name_of(machine.id)
        self._write(_MARGIN + 12, top + 11, name, "quiet")
        start, end = self._x(machine.predicted_start), self._x(machine.predicted_end)
        bar = SubElement(
            self._root,
            "rect",
            {
                "x": _number(start),
                "y": _number(top + (_LINE - _BAR) / 2),
                "width": _number(max(1.0, end - start)),
                "height": str(_BAR),
                "rx": "2",
                "class": "odd" if machine.wave % 2 else "even",
            },
        )
        times = f"{clock(machine.predicted_start)} to {clock(machine.predicted_end)}"
        lines = [f"{name}: wave {machine.wave}, {times}", *machine.placement_reasons]
        SubElement(bar, "title").text = "\n".join(map(_plain, lines))

    def _chart(self, lane: Lane, top: float) -> None:
        """How many machines of a lane run at a time, as an area."""
        bottom = top + _CHART
        width = (_WIDTH - _LABELS - _MARGIN) / _SLOTS
        points: list[str] = [f"{_LABELS},{_number(bottom)}"]
        for slot, count in enumerate(at_a_time(lane.machines, _SLOTS, self._seconds)):
            y = _number(bottom - _CHART * count / self._peak)
            points += [f"{_number(_LABELS + slot * width)},{y}", f"{_number(_LABELS + (slot + 1) * width)},{y}"]
        points.append(f"{_WIDTH - _MARGIN},{_number(bottom)}")
        area = SubElement(self._root, "polygon", {"points": " ".join(points), "class": "odd"})
        SubElement(area, "title").text = _plain(
            f"{lane.region}: {len(lane.machines)} machines in {len(lane.waves)} waves,"
            f" up to {peak(lane.machines)} at a time"
        )
        self._write(_MARGIN + 12, top + 14, f"{len(lane.machines)} machines, {len(lane.waves)} waves", "quiet")

    def _axis(self) -> None:
        for moment in ticks(self._seconds, most=12):
            x = self._x(moment)
            self._line(x, _HEADER - 18, x, self._height - _MARGIN, "grid")
            self._beside(x, _HEADER - 8, clock(moment))

    def _beside(self, x: float, y: float, text: str) -> None:
        """A short word at a line: on its right, unless the picture ends there."""
        is_last = x > _WIDTH - _ROOM
        place = {"x": _number(x - 3 if is_last else x + 3), "y": _number(y), "class": "quiet"}
        SubElement(self._root, "text", place | ({"text-anchor": "end"} if is_last else {})).text = text

    def _line(self, x1: float, y1: float, x2: float, y2: float, style: str) -> Element:
        ends = {"x1": _number(x1), "y1": _number(y1), "x2": _number(x2), "y2": _number(y2)}
        return SubElement(self._root, "line", {**ends, "class": style})

    def _write(self, x: float, y: float, text: str, style: str) -> None:
        shown = _plain(text)
        if x < _LABELS and style == "quiet" and len(shown) > _MAX_LABEL and y > _HEADER:
            shown = shown[: _MAX_LABEL - 1] + "…"
        SubElement(self._root, "text", {"x": _number(x), "y": _number(y), "class": style}).text = shown

    def _x(self, seconds: float) -> float:
        return _LABELS + (_WIDTH - _LABELS - _MARGIN) * seconds / self._seconds


def _plain(text: str) -> str:
    """Text without what no XML document may hold."""
    return plain(text).translate(_NO_CHARACTERS)


def _number(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
