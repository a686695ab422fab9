"""Which tests run which lines of the modules that are mutated, and how long each test takes.

A pytest plugin on `sys.monitoring`: a line that was seen in a test costs nothing more until the next test.
"""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Generator, Sequence
from pathlib import Path
from types import CodeType
from typing import Any

import pytest

_TOOL = sys.monitoring.COVERAGE_ID


class Tracer:
    """Lines by test, as ``{test: {file: [line]}}``, and seconds by test, also of those that run no such line."""

    def __init__(self, root: Path, files: Sequence[str]) -> None:
        self._files = {str(root / file): file for file in files}
        self._seen: defaultdict[str, set[int]] = defaultdict(set)
        self.lines: dict[str, dict[str, list[int]]] = {}
        self.seconds: dict[str, float] = {}

    def start(self) -> None:
        """Begin to listen; once a process."""
        sys.monitoring.use_tool_id(_TOOL, "mutants")
        sys.monitoring.register_callback(_TOOL, sys.monitoring.events.LINE, self._see)
        sys.monitoring.set_events(_TOOL, sys.monitoring.events.LINE)

    def _see(self, code: CodeType, line: int) -> Any:
        file = self._files.get(code.co_filename)
        if file is not None:
            self._seen[file].add(line)
        return sys.monitoring.DISABLE

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        self._seen.clear()
        sys.monitoring.restart_events()
        began = time.monotonic()
        result = yield
        self.seconds[item.nodeid] = time.monotonic() - began
        if self._seen:
            self.lines[item.nodeid] = {file: sorted(lines) for file, lines in self._seen.items()}
        return result
