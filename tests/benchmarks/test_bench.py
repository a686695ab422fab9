"""The benchmark's own machinery at a tiny size: what three counters say of one run agrees."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import fleet_reads, polling
from benchmarks.metrics import all_metrics
from benchmarks.peers.runs import run_flat_app, run_script
from benchmarks.report import peer
from benchmarks.scenario import Scene, patch_fleet, stop_under_a_cap

TIMEOUT = 100


@pytest.mark.bench
@pytest.mark.timeout(300)
def test_host_simulator_and_storage_count_the_same_run(tmp_path: Path) -> None:
    machines = 10
    run = patch_fleet(Scene(tmp_path, machines, speed=480, seed=1), TIMEOUT)
    assert run["outcomes"] == {"patched": machines}
    requests, activities = run["azure"]["requests"], run["host"]["activities"]
    for kind in ("assess", "install"):
        assert requests[kind] == {"202": machines}
        assert run["operations"][kind]["perMachine"] == {"least": 1, "most": 1}
    assert activities["install_patches"]["executions"] >= machines
    assert activities["record_outcome"]["executions"] >= machines
    assert run["operations"]["install"]["firstMinute"] >= run["operations"]["assess"]["lastMinute"]
    assert run["storage"]["transactions"] > 0
    metrics = all_metrics({"polling": {"60": 84 * 60, "120": 84 * 120}, "runs": [run]})
    assert {each.id for each in metrics} >= {f"M{number}" for number in (1, 2, 3, 4, 5, 6, 7, 8, 9, 11)}
    correct = {each.what: each.passed for each in metrics if each.id in ("M1", "M2", "M4", "M6", "M8")}
    assert False not in correct.values(), correct


def test_replayed_events_follow_the_closed_form() -> None:
    # 8K+4 per poll with executions of K=10 polls, without the timer behind the last one.
    assert polling.replayed_events(30) == 30 * 84 - 80


@pytest.mark.bench
@pytest.mark.timeout(300)
def test_a_stop_under_a_cap(tmp_path: Path) -> None:
    stop = stop_under_a_cap(Scene(tmp_path, 40, speed=120, seed=1), TIMEOUT, 8)
    assert stop["state"] == "canceled"
    assert 0 < stop["mostAtOnce"] <= 8
    assert stop["started"] < 40
    assert stop["startedAfterStop"] == 0


@pytest.mark.bench
@pytest.mark.timeout(300)
def test_peers_patch_the_same_fleet(tmp_path: Path) -> None:
    script = peer("script", run_script(Scene(tmp_path / "a", 8, speed=240, seed=1), TIMEOUT), ("script",))
    flat = peer("flat", run_flat_app(Scene(tmp_path / "b", 8, speed=240, seed=1), TIMEOUT), ("worker",))
    assert script["notPatched"] == flat["notPatched"] == 0
    # The SDK polls on a thread for each operation, beside the one that waits for it.
    assert script["threads"] > 8
    assert script["replayedPerMachine"] is None
    assert flat["replayedPerMachine"] > 0


@pytest.mark.bench
@pytest.mark.timeout(300)
def test_a_read_of_a_fleet_with_a_history(tmp_path: Path) -> None:
    read = fleet_reads.measure(tmp_path, machines=60)
    # One page of machines; assessments, installations, extensions, assignments; configurations, cancelled runs.
    assert read["queries"] == 7
    assert read["cpuSeconds"] < 3
