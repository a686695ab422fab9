"""Orchestrations on the whole host, and workers that die under them."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from local.functions_host.tests.running import RunningHost


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    with RunningHost(tmp_path_factory.mktemp("host"), "--workers", "2") as running:
        yield running


def test_timer_children_event_and_continue_as_new(host: RunningHost) -> None:
    host.start("whole", {"seen": []}, "whole")
    for value in ("first", "second"):
        assert host.client.post("/api/instances/whole/events/go", json=value).status_code == 202
    assert host.ended("whole") == {"status": "COMPLETED", "output": [[6, "first"], [6, "second"]], "failure": None}


def test_a_fan_out_runs_on_all_workers(host: RunningHost) -> None:
    host.start("fan_out", 40, "fan")
    assert host.ended("fan")["output"] == sum(2 * n for n in range(40))


def test_an_exception_without_text_fails_the_activity_with_its_type(host: RunningHost) -> None:
    host.start("failing", "", "failing")
    assert host.ended("failing")["output"] == ["TimeoutError", "", True]
    host.start("failing", "with: colon", "failing 2")
    assert host.ended("failing 2")["output"] == ["TimeoutError", "with: colon", True]


def test_functions_that_do_not_exist_fail_the_instance(host: RunningHost) -> None:
    host.start("missing", "", "no activity")
    assert "'no_such_activity' does not exist" in host.ended("no activity")["failure"][1]
    host.start("no_such_orchestrator", "", "no orchestrator")
    assert "'no_such_orchestrator' does not exist" in host.ended("no orchestrator")["failure"][1]


def test_a_running_instance_is_not_started_again(host: RunningHost) -> None:
    host.start("whole", {"seen": []}, "once")
    assert host.client.post("/api/start/whole", params={"id": "once"}, json={"seen": []}).status_code == 500
    for value in (1, 2):
        host.client.post("/api/instances/once/events/go", json=value)
    assert host.ended("once")["status"] == "COMPLETED"


def test_a_killed_worker_mid_activity(host: RunningHost) -> None:
    host.start("run_slow", {"seconds": 1.5, "id": "kill"}, "kill activity")
    started = host.wait_for(lambda: host.notes("slow started"))
    host.kill_worker(started[0]["pid"])
    ended = host.ended("kill activity")
    assert ended["status"] == "COMPLETED"
    starts = [note["pid"] for note in host.notes("slow started")]
    assert len(starts) == 2
    assert starts[0] != starts[1]
    assert [note["pid"] for note in host.notes("slow ended")] == [starts[1]]
    assert ended["output"] == [{"pid": starts[1]}, "done"]


def test_a_killed_worker_mid_turn(host: RunningHost, tmp_path: Path) -> None:
    release = tmp_path / "release"
    host.start("stuck_turn", {"release": str(release)}, "kill turn")
    turns = host.wait_for(lambda: host.notes("turn"))
    host.kill_worker(turns[0]["pid"])
    release.touch()
    assert host.ended("kill turn") == {"status": "COMPLETED", "output": "after the turn", "failure": None}
    assert len(host.notes("turn")) == 2


def test_all_workers_killed_at_once(host: RunningHost) -> None:
    before = len(host.notes("slow started"))
    for n in range(4):
        host.start("run_slow", {"seconds": 0.5, "id": n}, f"survivor {n}")
    host.wait_for(lambda: len(host.notes("slow started")) == before + 4)
    for pid in host.workers:
        host.kill_worker(pid)
    for n in range(4):
        assert host.ended(f"survivor {n}")["output"][1] == "done"


def test_an_activity_past_the_function_timeout_fails(tmp_path: Path) -> None:
    app = tmp_path / "app"
    app.mkdir()
    sample = Path(__file__).parent / "sample_app"
    (app / "function_app.py").write_text((sample / "function_app.py").read_text())
    (app / "host.json").write_text('{"version": "2.0", "functionTimeout": "00:00:01"}')
    with RunningHost(tmp_path / "host", app=app) as host:
        host.start("run_slow", {"seconds": 30}, "late")
        failure = host.ended("late")["failure"]
        assert "Timeout value of 0:00:01 was exceeded" in failure[1]
        assert not host.notes("slow ended")


def test_overhead_of_one_turn_and_one_activity(host: RunningHost) -> None:
    started = time.monotonic()
    for n in range(30):
        host.start("fan_out", 1, f"pace {n}")
    for n in range(30):
        assert host.ended(f"pace {n}")["status"] == "COMPLETED"
    # Two turns, one activity and two HTTP requests each; generous, since the machine may be busy.
    assert (time.monotonic() - started) / 30 < 0.15
