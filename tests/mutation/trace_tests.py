"""Runs test files under the tracer: ``python -m tests.mutation.trace_tests OUTPUT MODULES TEST_FILES...``."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from tests.mutation.tracing import Tracer
from tests.mutation.trial import quick_examples


class _Quick:
    def pytest_configure(self) -> None:
        quick_examples()


def main() -> int:
    """Write the trace; the exit code is pytest's."""
    output, modules, *test_files = sys.argv[1:]
    tracer = Tracer(Path.cwd(), modules.split(","))
    tracer.start()
    selected = ["-m", "not chaos and not bench and not fuzz"]
    options = ["-q", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", "--tb=short"]
    code = pytest.main([*options, *selected, *test_files], plugins=[tracer, _Quick()])
    Path(output).write_text(json.dumps({"lines": tracer.lines, "seconds": tracer.seconds}), encoding="utf-8")
    return int(code)


if __name__ == "__main__":
    sys.exit(main())
