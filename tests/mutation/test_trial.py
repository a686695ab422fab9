"""A mutant is tried in a process of its own: killed by a test that looks, alive under one that does not."""

from __future__ import annotations

import asyncio
import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest

from local import ROOT
from tests.mutation.operators import mutations
from tests.mutation.trial import put_in_place

SOURCE = "def larger(a, b):\n    return a if a > b else b\n\ndef endless(a):\n    return a + 1\n"
TESTS = """
from thing import larger

def test_that_looks():
    assert larger(2, 1) == 2

def test_that_does_not():
    larger(2, 1)
"""
PROGRAM = """
import json, sys, time
from pathlib import Path
from tests.mutation.operators import mutations
from tests.mutation.trial import Bench, Trial

root = Path(sys.argv[1])
mutants = {each.key: each for each in (make() for make in mutations((root / "thing.py").read_text()))}
tree = mutants["larger: return a if a > b else b => return a if not a > b else b"].tree
bench = Bench(root, ["tests"])
verdicts = []
for is_at_import in (False, True):
    for test in ("test_that_looks", "test_that_does_not", "test_that_is_not_there"):
        bench.begin(Trial("thing.py", tree, [f"tests/test_thing.py::{test}"], 1, is_at_import))
        while (verdict := bench.look()) is None:
            time.sleep(0.01)
        verdicts.append(verdict)
bench.close()
print(json.dumps(verdicts))
"""


def test_verdicts_follow_the_tests_that_were_chosen(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "thing.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "tests" / "test_thing.py").write_text(TESTS, encoding="utf-8")
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n', encoding="utf-8")
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    # A selection that finds no test must not pass for a survivor, and not for a success of the tests either.
    assert json.loads(ended.stdout) == ["killed", "survived", "killed"] * 2


KINDS = """
from functools import cache

class Thing:
    @property
    def size(self):
        return 1 + 1

    @classmethod
    async def wait(cls, most=3):
        return [each for each in range(most) if each > 1]

@cache
def steps(base):
    following = base + 1
    yield following
"""


def test_mutated_code_takes_the_place_of_each_kind_of_function(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "kinds_of_functions.py"
    path.write_text(KINDS, encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    kinds = importlib.import_module("kinds_of_functions")

    def told() -> object:
        return kinds.Thing().size, asyncio.run(kinds.Thing.wait()), list(kinds.steps.__wrapped__(1))

    taken: set[str] = set()
    for mutant in (make() for make in mutations(KINDS)):
        importlib.reload(kinds)
        if "yield" in mutant.before:
            continue
        assert told() == (2, [2], [2])
        put_in_place(path, mutant.tree)
        if told() != (2, [2], [2]):
            taken.add(mutant.function)
    assert taken == {"Thing.size", "Thing.wait", "steps"}


def test_the_trace_has_the_lines_of_each_test(tmp_path: Path) -> None:
    (tmp_path / "tests").mkdir()
    (tmp_path / "thing.py").write_text(SOURCE, encoding="utf-8")
    (tmp_path / "tests" / "test_thing.py").write_text(TESTS, encoding="utf-8")
    options = '[tool.pytest.ini_options]\npythonpath = ["."]\nmarkers = ["chaos", "bench", "fuzz"]\n'
    (tmp_path / "pyproject.toml").write_text(options, encoding="utf-8")
    output = tmp_path / "trace.json"
    command = [sys.executable, "-m", "tests.mutation.trace_tests", str(output), "thing.py", "tests/test_thing.py"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": ""}
    subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, timeout=60, check=True)
    trace = json.loads(output.read_text(encoding="utf-8"))
    assert trace["lines"]["tests/test_thing.py::test_that_looks"] == {"thing.py": [2]}
    assert set(trace["seconds"]) == {"tests/test_thing.py::test_that_looks", "tests/test_thing.py::test_that_does_not"}
