"""One mutant against the tests that run its lines, in a process of its own that is forked from a warm one."""

from __future__ import annotations

import ast
import importlib.abc
import importlib.machinery
import os
import signal
import sys
import time
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any, NamedTuple

import hypothesis
import pytest

QUIET = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", "--tb=no", "--timeout=60"]


class Verdict(StrEnum):
    """What became of a mutant."""

    KILLED = "killed"
    SURVIVED = "survived"
    TIMED_OUT = "timed_out"
    """No end in several times the usual time: killed too."""


class Trial(NamedTuple):
    """A mutated module and the tests to run, in their order."""

    file: str
    tree: ast.Module
    tests: Sequence[str]
    seconds: float
    """What the tests usually take."""


class Attempt(NamedTuple):
    """A trial under way."""

    pid: int
    ends_at: float


def begin(root: Path, trial: Trial) -> Attempt:
    """Fork; the child runs the tests and ends with pytest's exit code."""
    pid = os.fork()
    if pid == 0:
        _run(root, trial)
    return Attempt(pid, time.monotonic() + 30 + 5 * trial.seconds)


def look(attempt: Attempt) -> Verdict | None:
    """How it ended; ``None`` while it runs."""
    pid, status = os.waitpid(attempt.pid, os.WNOHANG)
    if pid == 0:
        if time.monotonic() < attempt.ends_at:
            return None
        os.killpg(attempt.pid, signal.SIGKILL)
        os.waitpid(attempt.pid, 0)
        return Verdict.TIMED_OUT
    return Verdict.SURVIVED if os.waitstatus_to_exitcode(status) == pytest.ExitCode.OK else Verdict.KILLED


def quick_examples() -> None:
    """Properties with the same examples each time and no search for the smallest one that fails."""
    phases = [hypothesis.Phase.explicit, hypothesis.Phase.generate]
    hypothesis.settings.register_profile("mutants", deadline=None, derandomize=True, database=None, phases=phases)
    hypothesis.settings.load_profile("mutants")


class Selection:
    """A pytest plugin: only these tests, in this order."""

    def __init__(self, tests: Sequence[str]) -> None:
        self._rank = {test: rank for rank, test in enumerate(tests)}

    def pytest_configure(self) -> None:
        quick_examples()

    @pytest.hookimpl(trylast=True)
    def pytest_collection_modifyitems(self, config: pytest.Config, items: list[pytest.Item]) -> None:
        chosen = sorted((item for item in items if item.nodeid in self._rank), key=lambda item: self._rank[item.nodeid])
        if len(chosen) < len(self._rank):
            raise pytest.UsageError("a test that the trace names is not there any more")
        items[:] = chosen


def _run(root: Path, trial: Trial) -> None:
    code: int = pytest.ExitCode.INTERNAL_ERROR
    try:
        os.setpgid(0, 0)
        silence = os.open(os.devnull, os.O_WRONLY)
        os.dup2(silence, 1)
        os.dup2(silence, 2)
        os.chdir(root)
        name = trial.file.removesuffix(".py").replace("/", ".")
        sys.meta_path.insert(0, _Finder(name, root / trial.file, trial.tree))
        files = list(dict.fromkeys(test.partition("::")[0] for test in trial.tests))
        code = pytest.main([*QUIET, *files], plugins=[Selection(trial.tests)])
    finally:
        # Nothing of the parent's is cleaned up twice.
        os._exit(int(code))


class _Finder(importlib.abc.MetaPathFinder):
    def __init__(self, name: str, path: Path, tree: ast.Module) -> None:
        self._name = name
        self._loader = _Loader(path, tree)

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname != self._name:
            return None
        return importlib.machinery.ModuleSpec(fullname, self._loader, origin=str(self._loader.path))


class _Loader(importlib.abc.InspectLoader):
    def __init__(self, path: Path, tree: ast.Module) -> None:
        self.path = path
        self._tree = tree

    def get_source(self, fullname: str) -> str:
        del fullname
        return self.path.read_text(encoding="utf-8")

    def get_code(self, fullname: str) -> CodeType:
        del fullname
        # Not cached: the file of byte code belongs to the source.
        return compile(self._tree, str(self.path), "exec", dont_inherit=True)

    def exec_module(self, module: ModuleType) -> None:
        module.__file__ = str(self.path)
        code: Any = self.get_code(module.__name__)
        exec(code, module.__dict__)
