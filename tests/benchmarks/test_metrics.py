"""The arithmetic of the benchmark: bounds, exponents, bars and tables, on figures that are made up."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks import estate, report
from benchmarks.growth import slope
from benchmarks.metrics import FOLLOWS, PARENTS, POLLS, all_metrics, bound_minutes
from benchmarks.scenario import most_at_once
from patchwave.domain.workflow import contracts
from tests.benchmarks.samples import SIZES, Json, results, run


def judged(document: Json) -> dict[tuple[str, str], bool | None]:
    return {(metric.id, metric.what): metric.passed for metric in all_metrics(document)}


@given(st.floats(-2, 3), st.floats(0.1, 1e6), st.lists(st.integers(1, 10**6), min_size=2, max_size=8, unique=True))
def test_the_slope_of_a_power_is_its_exponent(exponent: float, factor: float, sizes: list[int]) -> None:
    assert slope({size: factor * size**exponent for size in sizes}) == pytest.approx(exponent, abs=1e-6)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(1, 10)), max_size=20))
def test_most_at_once_is_the_most_at_any_moment(given_intervals: list[tuple[int, int]]) -> None:
    intervals = [(float(start), float(start + length)) for start, length in given_intervals]
    moments = [sum(start <= moment + 0.5 < end for start, end in intervals) for moment in range(41)]
    assert most_at_once(intervals) == max(moments)


@given(st.integers(1, 20_000))
def test_no_faster_than_the_bucket_allows(operations: int) -> None:
    minutes = estate.throttle_minutes(operations)
    available = estate.PATCH_OPERATIONS_AT_ONCE + minutes * estate.PATCH_OPERATIONS_A_MINUTE
    assert available == pytest.approx(max(operations, estate.PATCH_OPERATIONS_AT_ONCE))


def test_the_bound_of_ten_thousand_is_that_of_the_reference() -> None:
    assert estate.throttle_minutes(20_000) == 97
    assert bound_minutes(run(10_000)) == pytest.approx(97 + 2.5 + 8.5)


def test_a_small_fleet_is_bound_by_its_two_waves() -> None:
    assert bound_minutes(run(250)) == 3 + 9


def test_the_bucket_fills_while_the_last_assessments_run() -> None:
    assert estate.throttle_minutes(1_000) == 2
    assert estate.throttle_minutes(1_000, after=2, taken=1_000) == 5
    assert estate.throttle_minutes(1_000, after=5, taken=1_000) == 2


def test_a_fleet_is_the_same_for_the_same_seed(tmp_path: Path) -> None:
    first, again, other = (
        estate.write_fleet(tmp_path / str(number), 30, seed).read_text() for number, seed in enumerate((1, 1, 2))
    )
    assert first == again != other
    machines = json.loads(first)["machines"]
    assert len({machine["id"].lower() for machine in machines}) == 30
    assert {machine["location"] for machine in machines} == {estate.LOCATION}
    low, high = estate.INSTALL_MINUTES
    assert all(low <= machine["simulation"]["installMinutes"] <= high for machine in machines)


def test_the_clock_gives_each_machine_its_seconds() -> None:
    for machines in (100, 1_000, 10_000):
        real_seconds = estate.expected_minutes(machines) * 60 / estate.speed_for(machines, 0.1, 20)
        assert real_seconds == pytest.approx(max(20, machines * 0.1))


def test_every_metric_is_there_and_judged() -> None:
    found = judged(results())
    assert {name for name, _ in found} == {f"M{number}" for number in range(1, 13)} | {"extra"}
    assert [key for key, passed in found.items() if passed is False] == []
    assert report.missed({"metrics": [metric.to_wire() for metric in all_metrics(results())]}) == []


def change(*path: str | int, to: Any) -> Json:
    changed = copy.deepcopy(results())
    at: Any = changed
    for step in path[:-1]:
        at = at[step]
    at[path[-1]] = to
    return changed


@pytest.mark.parametrize(
    ("name", "changed"),
    [
        ("M1", change("polling", "960", to=165 * 960)),
        ("M2", change("polling", "960", to=150 * 960)),
        ("M3", change("runs", 2, "host", "orchestrators", "patch_phase", "replayedEvents", to=4_000 * 9.5)),
        ("M3", change("runs", 2, "host", "orchestrators", "patch_machine", "replayedEvents", to=4_000 * 900)),
        ("M4", change("runs", 0, "host", "orchestrators", "patch_machine", "longestHistory", to=2_501)),
        ("M5", change("runs", 1, "host", "orchestrators", "patch_run", "largestWorkItem", to=2**20 + 1)),
        ("M5", change("runs", 1, "host", "orchestrators", "patch_run", "largestPayload", to=2**18 + 1)),
        ("M5", change("runs", 1, "host", "orchestrators", "patch_machine", "resultBytes", to=8_200 * 1_000)),
        ("M5", change("runs", 2, "host", "orchestrators", "patch_phase", "largestInput", to=4_000)),
        ("M5", change("runs", 2, "host", "orchestrators", "patch_phase", "largestState", to=2**18 + 1)),
        ("M6", change("runs", 0, "operations", "install", "perMachine", "most", to=2)),
        ("M6", change("runs", 0, "operations", "assess", "perMachine", "least", to=0)),
        ("M7", change("runs", 0, "azure", "peakReads", to=19)),
        ("M7", change("runs", 2, "azure", "reads", to=4_000 * 40)),
        ("M8", change("runs", 0, "azure", "requests", "poll", "429", to=100)),
        ("M8", change("runs", 0, "azure", "early", to={"reads": 1})),
        ("M9", change("runs", 1, "makespanMinutes", to=30.0)),
        ("M10", change("stop", "mostAtOnce", to=21)),
        ("M10", change("stop", "startedAfterStop", to=1)),
        ("M11", change("runs", 1, "storage", "transactions", to=3_001)),
        ("M11", change("runs", 2, "storage", "batchedRows", to=499)),
        ("M11", change("runs", 0, "storage", "peakRows", to=1_001)),
        ("M12", change("crashes", "lost", to=1)),
        ("extra", change("fleetReads", "queries", to=26)),
        ("extra", change("fleetReads", "cpuSeconds", to=3.1)),
        ("M12", change("crashes", "completed", to=0.99)),
        ("M12", change("crashes", "kills", to=0)),
    ],
)
def test_a_bar_that_is_missed_is_reported(name: str, changed: Json) -> None:
    assert {key[0] for key, passed in judged(changed).items() if passed is False} >= {name}


def test_one_size_has_no_exponent_and_misses_nothing() -> None:
    document = results() | {"runs": [run(1_000)]}
    assert not [key for key, passed in judged(document).items() if passed is False]
    assert judged(document)["M3", "Exponent of replayed events in the fleet"] is None


def test_the_tables_have_a_column_for_each_size() -> None:
    document = results()
    document["metrics"] = [metric.to_wire() for metric in all_metrics(change("stop", "startedAfterStop", to=1))]
    document["peers"] = [report.peer("Patchwave", run(1_000), ("worker", "host"))]
    text = report.render(document)
    columns = {line.count("|") for line in text.splitlines() if line.startswith("| M") or line.startswith("| extra")}
    assert columns == {len(SIZES) + 6}
    assert "**miss**" in text
    assert "250 machines at speed 10, the worker busy for 25%" in text
    assert "| 1,000 | Patchwave | 4.0 | 0 | 0 | 1.10 | 273 | 150 | 10 |" in text


def test_the_page_keeps_its_hand_written_parts() -> None:
    page = "before\n<!-- begin: make bench -->\nold\n<!-- end: make bench -->\nafter\n"
    document = results() | {"metrics": []}
    written = report.page_with(page, document)
    assert (written.startswith("before\n"), written.endswith("after\n")) == (True, True)
    assert "old" not in written
    assert report.page_with(written, document) == written
    with pytest.raises(ValueError, match="make bench"):
        report.page_with("nothing", document)


def test_names_are_those_of_the_app() -> None:
    assert set(PARENTS) == {contracts.PATCH_RUN.name, contracts.PATCH_PHASE.name}
    assert (contracts.AWAIT_OPERATION.name, contracts.POLL_OPERATION.name) == (FOLLOWS, POLLS)
