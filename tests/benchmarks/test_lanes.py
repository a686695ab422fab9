"""Measurements side by side: in processes of their own, the longest first, and what a failure leaves."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from benchmarks.lanes import Step, measured

LANES = 2


def look(seconds: float) -> dict[str, float]:
    """When this ran, and where."""
    begun = time.time()
    time.sleep(seconds)
    return {"process": os.getpid(), "begun": begun, "ended": time.time()}


def fail() -> None:
    raise RuntimeError("no measurement")


def test_each_has_a_process_and_the_longest_begins_first() -> None:
    kept: dict[str, Any] = {}
    lengths = {"short": 0.1, "long": 5.0, "middle": 0.3}
    steps = [
        Step(name, seconds, partial(look, seconds), partial(kept.__setitem__, name))
        for name, seconds in lengths.items()
    ]
    assert [step.name for step in measured(steps, LANES)][-1] == "long"
    assert len({each["process"] for each in kept.values()} | {os.getpid()}) == 4
    assert kept["middle"]["begun"] < kept["long"]["ended"]
    assert kept["short"]["begun"] >= kept["middle"]["ended"]


def test_what_was_measured_is_kept_when_another_fails() -> None:
    kept: dict[str, Any] = {}
    steps = [
        Step("good", 3, partial(look, 0.0), partial(kept.__setitem__, "good")),
        Step("bad", 2, fail, partial(kept.__setitem__, "bad")),
        Step("later", 1, partial(look, 0.0), partial(kept.__setitem__, "later")),
    ]
    with pytest.raises(RuntimeError, match="no measurement"):
        list(measured(steps, 1))
    assert set(kept) == {"good"}


def report(path: Path) -> None:
    """Say which process this is, and stay."""
    path.write_text(str(os.getpid()))
    time.sleep(60)


def measure_for_long(path: Path) -> None:
    """What the test below runs in a process that it kills."""
    list(measured([Step("long", 60, partial(report, path), partial(dict[str, Any]().__setitem__, "long"))], LANES))


def test_no_measurement_outlives_the_command(tmp_path: Path) -> None:
    path = tmp_path / "pid"
    program = (
        f"from pathlib import Path; from {__name__} import measure_for_long; measure_for_long(Path({str(path)!r}))"
    )
    with subprocess.Popen([sys.executable, "-c", program], stderr=subprocess.DEVNULL) as command:
        process = int(_soon(lambda: path.read_text() if path.exists() else ""))
        command.kill()
    _soon(lambda: not _is_alive(process))


def _soon[T](look: Callable[[], T]) -> T:
    deadline = time.monotonic() + 20
    while not (found := look()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.05)
    return found


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except (ProcessLookupError, FileNotFoundError):
        return False
    return state != "Z"
