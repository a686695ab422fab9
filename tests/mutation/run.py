"""`make mutants`: would the tests notice a fault in the code that keeps machines safe?

Samples mutants of each file of the safety core by a seed, runs against each the tests that run its line, and prints
the share that was killed. ADR 33 has the reasons.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import json
import os
import random
import subprocess
import sys
import tempfile
import time
import tomllib
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from local import ROOT
from local.azurite import Azurite
from tests.mutation.operators import Mutant, mutations
from tests.mutation.trial import Bench, Trial, Verdict, quick_examples

SAFETY_CORE = (
    "activities/machine.py",
    "activities/poll_operation.py",
    "activities/power.py",
    "activities/submit_operation.py",
    "activities/phase.py",
    "patchwave/storage/run_machines.py",
    "patchwave/storage/machine_results.py",
    "patchwave/storage/leases.py",
    "patchwave/storage/intents.py",
    "patchwave/domain/planning/admission.py",
    "patchwave/domain/azure/errors.py",
    "patchwave/domain/policy/gates.py",
    "patchwave/domain/azure/instance_view.py",
    "patchwave/domain/azure/operation.py",
    "patchwave/domain/azure/patch_results.py",
    "patchwave/domain/machine/preflight.py",
    "patchwave/domain/runs/commands.py",
    "patchwave/domain/runs/error_budget.py",
    "patchwave/domain/runs/intent.py",
    "patchwave/domain/runs/outcome_rules.py",
    "patchwave/domain/scheduling/window.py",
    "orchestrators/machine.py",
    "orchestrators/operation.py",
    "orchestrators/phase.py",
    "orchestrators/phase_reconciler.py",
    "orchestrators/phase_starter.py",
    "orchestrators/phase_window.py",
    "orchestrators/preflight.py",
    "orchestrators/waits.py",
)
"""What decides whether something is sent to a machine, and what is recorded of it."""
TESTS = ("tests/unit", "tests/orchestrators", "tests/integration/activities", "tests/integration/storage")
BAR = 0.9
_MAX_TRIAL = 20.0
"""Seconds of tests for one mutant: the quickest that run its line, up to here."""
_WARM = (
    "aiohttp",
    "azure.data.tables.aio",
    "azure.durable_functions",
    "azure.functions",
    "azure.identity.aio",
    "azure.mgmt.compute.aio",
    "durabletask.task",
    "pydantic",
    "starlette.applications",
    "trustme",
    "uvicorn",
)
_EQUIVALENT = Path(__file__).with_name("equivalent.toml")


class Trace(NamedTuple):
    """Which test runs which lines, and how long it takes."""

    lines: dict[str, dict[str, list[int]]]
    seconds: dict[str, float]

    def tests_of(self, file: str, lines: Sequence[int], *, at_import: bool) -> list[str]:
        """The tests that run one of these lines, the quickest first, as many as a trial may take.

        ``at_import``: of what runs at import (fields, defaults, constants) a test may depend without running a line of
        the file. Those of the file's own tests come first then.
        """
        wanted = set(lines)
        own = f"/test_{Path(file).stem}.py::"
        found = {test for test, seen in self.lines.items() if wanted.intersection(seen.get(file, ()))}
        first = {test for test in self.seconds if at_import and own in test}
        found = sorted(found | first, key=lambda test: (test not in first, self.seconds[test], test))
        spent = itertools.accumulate(self.seconds[test] for test in found)
        return [test for test, until in zip(found, spent, strict=True) if until <= _MAX_TRIAL] or found[:1]


class Result(NamedTuple):
    """One mutant and what became of it; without a verdict no test runs its line."""

    file: str
    mutant: Mutant
    verdict: Verdict


def main() -> int:
    """Print the table; the exit code is 1 when a file misses the bar."""
    parser = argparse.ArgumentParser(prog="make mutants", description=__doc__)
    parser.add_argument("--seed", type=int, default=20261130)
    parser.add_argument("--sample", type=int, default=25, help="mutants of each file; 0 for all of them")
    parser.add_argument("--minutes", type=float, default=10, help="after the trace; then no further mutant is tried")
    parser.add_argument("files", nargs="*", default=SAFETY_CORE, help="the safety core when none is named")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, _storage(Path(folder)) as storage:
        os.environ["PATCHWAVE_TEST_STORAGE"] = storage.connection_string
        trace = _trace(options.files)
        _warm_up()
        sample = _sample(options.files, options.seed, options.sample, trace)
        results: list[Result] = []
        for result in _try_all(sample, time.monotonic() + 60 * options.minutes):
            _print_survivor(result)
            results.append(result)
    return _report(options.files, results)


def _storage(folder: Path) -> Azurite:
    return Azurite(folder / "data", log_directory=folder, environment=os.environ, keep=False)


# --- which tests run which lines


def _trace(files: Sequence[str]) -> Trace:
    """Run all tests once, on both processors; what was traced at the same revision of everything is kept."""
    kept = ROOT / ".local" / "mutants" / f"{_digest(files)}.json"
    if not kept.exists():
        print("running the tests once, to see which lines each of them runs", flush=True)
        kept.parent.mkdir(parents=True, exist_ok=True)
        for old in kept.parent.iterdir():
            old.unlink()
        parts = _run_parts(files, os.cpu_count() or 1)
        merged = Trace({}, {})
        for part in parts:
            merged.lines.update(part["lines"])
            merged.seconds.update(part["seconds"])
        kept.write_text(json.dumps(merged._asdict()), encoding="utf-8")
    return Trace(**json.loads(kept.read_text(encoding="utf-8")))


def _run_parts(files: Sequence[str], count: int) -> list[dict[str, Any]]:
    test_files = sorted(str(path.relative_to(ROOT)) for each in TESTS for path in (ROOT / each).rglob("test_*.py"))
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / f"{number}.json" for number in range(count)]
        running = [
            subprocess.Popen(
                [sys.executable, "-m", "tests.mutation.trace_tests", str(output), ",".join(files), *part],
                cwd=ROOT,
            )
            for output, part in zip(outputs, (test_files[number::count] for number in range(count)), strict=True)
        ]
        codes = [process.wait() for process in running]
        if any(codes):
            sys.exit("The tests fail without a mutant: mend them first.")
        return [json.loads(output.read_text(encoding="utf-8")) for output in outputs]


def _digest(files: Sequence[str]) -> str:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        check=True,
    )
    digest = hashlib.sha256(" ".join(files).encode())
    for name in sorted(listed.stdout.decode().split("\0")):
        path = ROOT / name
        if path.suffix in {".py", ".toml", ".json", ".yaml", ".txt"} and path.is_file():
            digest.update(name.encode() + path.read_bytes())
    return digest.hexdigest()[:16]


# --- the trials


def _sample(files: Sequence[str], seed: int, size: int, trace: Trace) -> list[tuple[str, Mutant, list[str]]]:
    """Mutants of all files in turn, so that a lack of time shortens every file alike."""
    by_file = [list(_sample_file(file, seed, size, trace)) for file in files]
    return [each for row in itertools.zip_longest(*by_file) for each in row if each is not None]


def _sample_file(file: str, seed: int, size: int, trace: Trace) -> Iterator[tuple[str, Mutant, list[str]]]:
    source = (ROOT / file).read_text(encoding="utf-8")
    makers = mutations(source)
    random.Random(f"{seed}:{file}").shuffle(makers)
    listed = _equivalent(file)
    made = (make() for make in makers)
    wanted = (mutant for mutant in made if mutant.key not in listed)
    for mutant in itertools.islice(wanted, size or None):
        lines = list(_lines_of(mutant, source))
        yield file, mutant, trace.tests_of(file, lines, at_import=_is_at_import(mutant))


def _lines_of(mutant: Mutant, source: str) -> Iterator[int]:
    """The lines to run: its own, or of what runs at import, those that use the name that it binds."""
    yield mutant.line
    if not _is_at_import(mutant):
        return
    for number, text in enumerate(source.splitlines(), 1):
        if any(name in text for name in mutant.names):
            yield number


def _is_at_import(mutant: Mutant) -> bool:
    """Whether its line runs when the module is imported, and not when something is called."""
    return not mutant.function or bool(mutant.names)


def _equivalent(file: str) -> dict[str, str]:
    """Mutants that change nothing that anything could notice, by their key, with the reason."""
    listed = tomllib.loads(_EQUIVALENT.read_text(encoding="utf-8"))
    return {each["mutant"]: each["reason"] for each in listed.get(file, [])}


def _try_all(sample: Sequence[tuple[str, Mutant, list[str]]], ends_at: float) -> Iterator[Result]:
    waiting = list(reversed(sample))
    idle = [Bench(ROOT, TESTS) for _ in range(os.cpu_count() or 1)]
    running: list[tuple[Bench, str, Mutant]] = []
    done = 0
    while waiting or running:
        while waiting and idle and time.monotonic() < ends_at:
            file, mutant, tests = waiting.pop()
            if tests:
                bench = idle.pop()
                bench.begin(Trial(file, mutant.tree, tests, _MAX_TRIAL, is_at_import=_is_at_import(mutant)))
                running.append((bench, file, mutant))
            else:
                yield Result(file, mutant, Verdict.SURVIVED)
        if not running:
            break
        for one in list(running):
            bench, file, mutant = one
            verdict = bench.look()
            if verdict is not None:
                running.remove(one)
                idle.append(bench)
                done += 1
                if done % 50 == 0:
                    print(f"{done} of {len(sample)} tried", flush=True)
                yield Result(file, mutant, verdict)
        time.sleep(0.02)
    for bench in idle:
        bench.close()
    if waiting:
        print(f"The time is over: {len(waiting)} of {len(sample)} mutants were not tried.")


def _warm_up() -> None:
    """Import what every trial needs and no mutant changes, once, before the forks."""
    quick_examples()
    for name in _WARM:
        __import__(name)
    ours = {"activities", "orchestrators", "patchwave", "triggers"}
    present = {name for name in sys.modules if name.partition(".")[0] in ours}
    if present:
        raise RuntimeError(f"these would keep their names for the mutated module: {sorted(present)}")


# --- the table


def _print_survivor(result: Result) -> None:
    if result.verdict is Verdict.SURVIVED:
        print(f"\n{result.file}:{result.mutant.line} survived, in {result.mutant.function or 'the module'}")
        print(f"  - {result.mutant.before}\n  + {result.mutant.after}", flush=True)


def _report(files: Sequence[str], results: Sequence[Result]) -> int:
    by_file: defaultdict[str, list[Result]] = defaultdict(list)
    for result in results:
        by_file[result.file].append(result)
    print(f"\n{'file':34} {'tried':>6} {'killed':>7} {'survived':>9} {'listed':>7} {'score':>6}")
    missed = False
    for file in files:
        tried = by_file[file]
        survived = sum(result.verdict is Verdict.SURVIVED for result in tried)
        score = 1 - survived / len(tried) if tried else 0.0
        missed |= score < BAR
        mark = "" if score >= BAR else f"  below {BAR:.0%}"
        killed, listed = len(tried) - survived, len(_equivalent(file))
        print(f"{file:34} {len(tried):6} {killed:7} {survived:9} {listed:7} {score:6.0%}{mark}")
    print("\nlisted: known to change nothing (tests/mutation/equivalent.toml), and not tried")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
