"""Timer triggers: on time, once when late, and with the data of the real host."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from local.functions_host.functions import Function, Functions
from local.functions_host.host_json import HostJsonError
from local.functions_host.timers import Timers


def _functions(schedule: str, **trigger: object) -> Functions:
    binding = {"type": "timerTrigger", "name": "timer", "direction": "IN", "schedule": schedule, **trigger}
    return Functions([Function("1", "tick", binding, [binding])])


class _Runs:
    def __init__(self) -> None:
        self.data: list[dict[str, Any]] = []
        self.ran = asyncio.Event()

    async def __call__(self, _: Function, data: dict[str, Any]) -> bool:
        self.data.append(data)
        self.ran.set()
        return True


async def _serve(functions: Functions, file: Path, seconds: float) -> _Runs:
    """Runs the timers until one ran, or for so long."""
    runs = _Runs()
    task = asyncio.create_task(Timers(functions, runs, file).run())
    try:
        async with asyncio.timeout(seconds):
            await runs.ran.wait()
        await asyncio.sleep(0.02)
    except TimeoutError:
        pass
    task.cancel()
    return runs


def _status(file: Path, following: datetime) -> None:
    stamp = "2026-01-01T00:00:00+00:00"
    file.write_text(json.dumps({"tick": {"Last": stamp, "Next": following.isoformat(), "LastUpdated": stamp}}))


async def test_a_timer_runs_on_time(tmp_path: Path) -> None:
    runs = await _serve(_functions("* * * * * *"), tmp_path / "timers.json", 2.5)
    assert [data["IsPastDue"] for data in runs.data] == [False]
    # More than once a minute: no status is kept.
    assert runs.data[0]["ScheduleStatus"] is None
    assert not (tmp_path / "timers.json").exists()


async def test_a_timer_that_never_ran_does_not_run_at_the_start(tmp_path: Path) -> None:
    file = tmp_path / "timers.json"
    runs = await _serve(_functions("0 0 3 1 1 *"), file, 0.1)
    assert runs.data == []
    kept = json.loads(file.read_text())["tick"]
    assert kept["Last"].startswith("0001-")
    assert kept["Next"].endswith("-01-01T03:00:00+00:00")


async def test_a_missed_occurrence_runs_once_and_is_marked_as_late(tmp_path: Path) -> None:
    file = tmp_path / "timers.json"
    missed = datetime.now(UTC).replace(microsecond=0) - timedelta(days=3)
    _status(file, missed)
    runs = await _serve(_functions("0 */10 * * * *"), file, 1)
    assert len(runs.data) == 1
    assert runs.data[0] == {
        "Schedule": {"AdjustForDST": True},
        "ScheduleStatus": {
            "Last": "2026-01-01T00:00:00+00:00",
            "Next": missed.isoformat(),
            "LastUpdated": "2026-01-01T00:00:00+00:00",
        },
        "IsPastDue": True,
    }
    kept = json.loads(file.read_text())["tick"]
    assert kept["Last"] == missed.isoformat()
    assert datetime.fromisoformat(kept["Next"]) > datetime.now(UTC)
    assert (await _serve(_functions("0 */10 * * * *"), file, 0.1)).data == []


async def test_without_monitor_nothing_is_late(tmp_path: Path) -> None:
    file = tmp_path / "timers.json"
    _status(file, datetime.now(UTC) - timedelta(days=3))
    assert (await _serve(_functions("0 0 3 1 1 *", useMonitor=False), file, 0.1)).data == []


async def test_an_app_without_timers_does_not_end_the_others(tmp_path: Path) -> None:
    runs = _Runs()
    task = asyncio.create_task(Timers(Functions([]), runs, tmp_path / "timers.json").run())
    await asyncio.sleep(0.05)
    assert not task.done()
    task.cancel()


async def test_run_on_startup(tmp_path: Path) -> None:
    runs = await _serve(_functions("0 0 3 1 1 *", runOnStartup=True), tmp_path / "timers.json", 1)
    assert [data["IsPastDue"] for data in runs.data] == [False]


async def test_a_broken_status_file_is_made_anew(tmp_path: Path) -> None:
    file = tmp_path / "timers.json"
    for text in ("", "[]", '{"tick": {"Last": 1}}'):
        file.write_text(text)
        assert (await _serve(_functions("0 0 3 1 1 *"), file, 0.1)).data == []
        assert "Next" in json.loads(file.read_text())["tick"]


def test_the_schedule_may_be_a_setting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def run(_: Function, __: dict[str, Any]) -> bool:
        return True

    monkeypatch.setenv("SAMPLE_SCHEDULE", "0 0 3 * * *")
    Timers(_functions("%SAMPLE_SCHEDULE%"), run, tmp_path / "timers.json")
    monkeypatch.delenv("SAMPLE_SCHEDULE")
    with pytest.raises(HostJsonError, match=r"tick: .*SAMPLE_SCHEDULE, which is not set"):
        Timers(_functions("%SAMPLE_SCHEDULE%"), run, tmp_path / "timers.json")
