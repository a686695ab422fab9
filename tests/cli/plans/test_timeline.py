"""Drawings of plans: true to their times, and safe whatever stands in a name."""

from __future__ import annotations

import io
from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from rich.console import Console

from patchwave.cli.plans.lanes import at_a_time, clock, lanes_of, peak, ticks, total_seconds
from patchwave.cli.plans.timeline_svg import draw
from patchwave.cli.plans.timeline_text import timeline
from patchwave.domain.planning.plan import ExcludedMachine, Makespan, Plan, PlannedMachine, PlannedRing

NAMESPACE = "{http://www.w3.org/2000/svg}"


def machine(name: str, start: float, end: float, *, lane: str = "westeurope", wave: int = 1) -> PlannedMachine:
    return PlannedMachine(
        id=f"/x/{name}",
        ring="all",
        phase=1,
        lane=lane,
        wave=wave,
        predicted_start=start,
        predicted_end=end,
        placement_reasons=["&"],
    )


def plan(*machines: PlannedMachine, name: str = "monthly") -> Plan:
    regions = sorted({each.lane for each in machines})
    return Plan(
        policy=name,
        rings=[PlannedRing(name="all", machines=len(machines), phases=[regions], approval=True)],
        machines=list(machines),
        excluded=[ExcludedMachine(id="/x/<out>", reason="hold_tag", detail="<&>")],
        makespan=Makespan(predicted_seconds=total_seconds(list(machines)), lower_bound_seconds=0),
    )


def printed(drawn: Plan, width: int = 100) -> list[str]:
    stream = io.StringIO()
    Console(file=stream, width=width, color_system=None).print(timeline(drawn))
    return stream.getvalue().splitlines()


_MACHINES = st.lists(
    st.builds(
        lambda start, seconds, lane, wave: machine("m", start, start + seconds, lane=lane, wave=wave),
        st.floats(0, 10_000),
        st.floats(1, 5_000),
        st.sampled_from(["westeurope", "eastus"]),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=12,
)


@given(_MACHINES, st.integers(1, 50))
def test_how_many_run_at_a_time(machines: list[PlannedMachine], slots: int):
    seconds = total_seconds(machines)
    counts = at_a_time(machines, slots, seconds)
    moments = [each.predicted_start for each in machines]
    running = [sum(each.predicted_start <= at < each.predicted_end for each in machines) for at in moments]
    assert max(counts) == max(running) == peak(machines)
    for slot, count in enumerate(counts):
        middle = (slot + 0.5) * seconds / slots
        assert count >= sum(each.predicted_start <= middle < each.predicted_end for each in machines)


@given(_MACHINES, st.integers(20, 200))
def test_the_terminal_keeps_its_width(machines: list[PlannedMachine], width: int):
    assert all(len(line) <= width for line in printed(plan(*machines), width))


def test_one_after_the_other_is_drawn_one_after_the_other():
    lines = printed(plan(machine("first", 0, 600), machine("second", 600, 1200, wave=2)))
    first, second = (next(line for line in lines if name in line) for name in ("first", "second"))
    assert first.rindex("━") + 1 == second.index("━")
    assert "(after approval)" in "".join(lines)


def test_a_large_plan_is_drawn_by_lanes():
    many = [machine(f"vm-{number}", number * 10, number * 10 + 600) for number in range(61)]
    lines = printed(plan(*many))
    assert not any("vm-" in line for line in lines)
    assert any("westeurope, 61" in line for line in lines)
    assert "up to 60 machines at a time" in lines[-1]


def test_a_plan_without_machines():
    assert "0 machines" in printed(plan())[0]
    assert ElementTree.fromstring(draw(plan())).tag == f"{NAMESPACE}svg"


_ODD_NAMES = st.text(st.characters(exclude_categories=()), min_size=1, max_size=40)


@given(_ODD_NAMES, _ODD_NAMES)
@example("\ufffe\uffff\ud800", "\x00\x1b[2J")
def test_svg_is_well_formed_whatever_the_names_are(name: str, policy: str):
    text = draw(plan(machine(name, 0, 600), name=policy))
    root = ElementTree.fromstring(text.encode("utf-8"))
    assert {element.tag.removeprefix(NAMESPACE) for element in root.iter()} <= {
        "svg", "title", "style", "rect", "text", "line", "polygon",
    }  # fmt: skip


def test_svg_escapes():
    text = draw(plan(machine("<script>alert(1)</script>", 0, 600), name='"><script>'))
    assert "<script" not in text
    root = ElementTree.fromstring(text)
    assert "<script>" in "".join(root.itertext())


@given(_MACHINES)
def test_bars_of_the_svg_are_as_long_as_the_machines_take(machines: list[PlannedMachine]):
    root = ElementTree.fromstring(draw(plan(*machines)))
    bars = [each for each in root.iter(f"{NAMESPACE}rect") if each.get("class") in ("odd", "even")]
    assert len(bars) == len(machines)
    width = float(root.get("width", "0"))
    height = float(root.get("height", "0"))
    for bar in bars:
        assert float(bar.get("x", "-1")) >= 0
        assert float(bar.get("x", "0")) + float(bar.get("width", "0")) <= width
        assert float(bar.get("y", "0")) + float(bar.get("height", "0")) <= height


def test_a_large_plan_is_an_area_per_lane_in_the_svg():
    many = [machine(f"vm-{number}", number, number + 600, lane=f"region{number % 3}") for number in range(301)]
    root = ElementTree.fromstring(draw(plan(*many)))
    assert len(list(root.iter(f"{NAMESPACE}polygon"))) == 3


def test_lanes_are_in_the_order_of_the_plan():
    made = plan(machine("b", 0, 10, lane="westeurope", wave=2), machine("a", 10, 20, lane="eastus"))
    reordered = made.model_copy(
        update={"rings": [made.rings[0].model_copy(update={"phases": [["westeurope", "eastus"]]})]}
    )
    assert [lane.region for lane in lanes_of(reordered)] == ["westeurope", "eastus"]


@pytest.mark.parametrize(
    ("seconds", "most", "step"), [(600, 12, 60), (21_600, 12, 1800), (86_400 * 3, 10, 43_200), (86_400 * 400, 10, None)]
)
def test_marks_of_the_axis(seconds: float, most: int, step: int | None):
    marks = ticks(seconds, most)
    assert marks[0] == 0
    assert len(marks) <= most + 1
    if step is not None:
        assert marks[1] == step


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (3_900, "1:05"), (90_000, "25:00"), (29, "0:00")])
def test_offsets(seconds: float, text: str):
    assert clock(seconds) == text
