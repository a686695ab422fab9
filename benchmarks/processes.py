"""Memory, threads and processor time of other processes, as Linux tells them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self

_EVERY_SECONDS = 0.5


class Watch:
    """Looks at processes until the end of a ``with`` statement; elsewhere than on Linux it sees nothing.

    Args:
        find: process ids by what they are called in the report; asked again each time.
    """

    def __init__(self, find: Callable[[], Mapping[str, int]]) -> None:
        self._find = find
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._look_often, name="watch", daemon=True)
        self._first: dict[tuple[str, int], float] = {}
        self._seen: dict[str, dict[str, float]] = {}

    def __enter__(self) -> Self:
        self._look()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._look()

    def document(self) -> dict[str, Any]:
        """By name: ``megabytes`` and ``threads`` at their peak, and ``cpuSeconds`` since the begin."""
        return {name: {key: round(value, 2) for key, value in seen.items()} for name, seen in self._seen.items()}

    def _look_often(self) -> None:
        while not self._end.wait(_EVERY_SECONDS):
            self._look()

    def _look(self) -> None:
        for name, process in self._find().items():
            status = _status(process)
            if not status:
                continue
            used = _cpu_seconds(process)
            begun = self._first.setdefault((name, process), used)
            seen = self._seen.setdefault(name, {"megabytes": 0.0, "threads": 0.0, "cpuSeconds": 0.0})
            seen["megabytes"] = max(seen["megabytes"], int(status["VmHWM"].split()[0]) / 1024)
            seen["threads"] = max(seen["threads"], int(status["Threads"]))
            seen["cpuSeconds"] = used - begun


def _status(process: int) -> dict[str, str]:
    try:
        lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    except OSError:
        return {}
    found = dict(line.split(":", 1) for line in lines if ":" in line)
    return {key: value.strip() for key, value in found.items()} if "VmHWM" in found else {}


def _cpu_seconds(process: int) -> float:
    try:
        fields = Path(f"/proc/{process}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
