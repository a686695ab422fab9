"""One mutant against the tests that run its lines, in a process of its own that is forked from a warm one.

What runs when a function is called is put into a process that has collected all tests already: the mutated code takes
the place of the function's. What runs at import is imported anew, in a process that has imported none of our modules.
"""

from __future__ import annotations

import ast
import gc
import importlib.abc
import importlib.machinery
import inspect
import os
import signal
import sys
import time
from collections.abc import Iterator, Sequence
from enum import StrEnum
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from pathlib import Path
from types import CodeType, FunctionType, ModuleType
from typing import Any, NamedTuple, cast

import hypothesis
import pytest

_PYTEST_OPTIONS = ["-q", "-x", "-p", "no:cacheprovider", "-p", "no:xdist", "--no-header", "--tb=no", "--timeout=60"]


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
    is_at_import: bool = False


class Bench:
    """Tries mutants, one at a time."""

    def __init__(self, root: Path, folders: Sequence[str]) -> None:
        self._root = root
        self._warm, at_work = Pipe()
        self._trial: Trial | None = None
        self._cold: _Attempt | None = None
        self._pid = os.fork()
        if self._pid == 0:
            self._warm.close()
            _serve(root, folders, at_work)
        at_work.close()

    def begin(self, trial: Trial) -> None:
        """Start a trial; the one before it has ended."""
        self._trial = trial
        if trial.is_at_import:
            self._begin_cold(trial)
        else:
            self._warm.send(trial)

    def look(self) -> Verdict | None:
        """How it ended; ``None`` while it runs."""
        assert self._trial is not None
        if self._cold is None:
            if not self._warm.poll():
                return None
            verdict = self._warm.recv()
            if verdict is not Verdict.SURVIVED:
                return verdict
            # Something that was made at import may have kept what the mutated code would make: once more, from there.
            self._begin_cold(self._trial)
        if self._cold is None:
            return None
        verdict = _look(self._cold)
        if verdict is not None:
            self._cold = None
        return verdict

    def _begin_cold(self, trial: Trial) -> None:
        self._cold = _fork(trial)
        if self._cold is None:
            _run(self._root, trial)

    def close(self) -> None:
        """End the process that waits for mutants."""
        self._warm.close()
        os.waitpid(self._pid, 0)


class _Attempt(NamedTuple):
    pid: int
    ends_at: float


def _fork(trial: Trial) -> _Attempt | None:
    """A process of its own, in a group of its own; in that process ``None``."""
    pid = os.fork()
    if pid == 0:
        os.setpgid(0, 0)
        return None
    return _Attempt(pid, time.monotonic() + 30 + 5 * trial.seconds)


def _look(attempt: _Attempt) -> Verdict | None:
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


# --- a process that has collected the tests


class _Server:
    """A pytest plugin: in the place of the tests, waits for mutants, and forks for each."""

    def __init__(self, root: Path, mutants: Connection) -> None:
        self._root = root
        self._mutants = mutants

    def pytest_configure(self) -> None:
        quick_examples()

    @pytest.hookimpl(tryfirst=True)
    def pytest_runtestloop(self, session: pytest.Session) -> bool | None:
        by_id = {item.nodeid: item for item in session.items}
        while True:
            try:
                trial = cast(Trial, self._mutants.recv())
            except EOFError:
                return True
            attempt = _fork(trial)
            if attempt is None:
                put_in_place(self._root / trial.file, trial.tree)
                session.items[:] = [by_id[test] for test in trial.tests]
                return None
            while (verdict := _look(attempt)) is None:
                time.sleep(0.01)
            self._mutants.send(verdict)


def _serve(root: Path, folders: Sequence[str], mutants: Connection) -> None:
    code: int = pytest.ExitCode.INTERNAL_ERROR
    try:
        _silence()
        os.chdir(root)
        code = pytest.main([*_PYTEST_OPTIONS, *folders], plugins=[_Server(root, mutants)])
    finally:
        os._exit(int(code))


def put_in_place(path: Path, tree: ast.Module) -> None:
    """Give each function of a module that is imported the code that it has in the mutated module."""
    original = compile(path.read_text(encoding="utf-8"), str(path), "exec", dont_inherit=True)
    changed = compile(tree, str(path), "exec", dont_inherit=True)
    pairs = dict(_changed_functions(original, changed))
    for each in gc.get_objects():
        if isinstance(each, FunctionType) and each.__code__.co_filename == str(path):
            each.__code__ = pairs.get(each.__code__, each.__code__)


def _changed_functions(original: CodeType, changed: CodeType) -> Iterator[tuple[CodeType, CodeType]]:
    """Pairs of the code of functions on the level of the module and of its classes, where they differ."""
    for one, other in zip(_parts(original), _parts(changed), strict=True):
        if one.co_flags & inspect.CO_NEWLOCALS and one.co_flags & inspect.CO_OPTIMIZED:
            if one != other:
                yield one, other
        else:
            yield from _changed_functions(one, other)


def _parts(code: CodeType) -> list[CodeType]:
    return [each for each in code.co_consts if isinstance(each, CodeType)]


# --- a process that imports a mutated module


def _run(root: Path, trial: Trial) -> None:
    code: int = pytest.ExitCode.INTERNAL_ERROR
    try:
        _silence()
        os.chdir(root)
        name = trial.file.removesuffix(".py").replace("/", ".")
        sys.meta_path.insert(0, _Finder(name, root / trial.file, trial.tree))
        files = list(dict.fromkeys(test.partition("::")[0] for test in trial.tests))
        code = pytest.main([*_PYTEST_OPTIONS, *files], plugins=[Selection(trial.tests)])
    finally:
        # Nothing of the parent's is cleaned up twice.
        os._exit(int(code))


def _silence() -> None:
    silence = os.open(os.devnull, os.O_WRONLY)
    os.dup2(silence, 1)
    os.dup2(silence, 2)


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
