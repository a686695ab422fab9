"""``make bench``: the product at growing sizes of fleet, the twelve metrics, and the peers.

Writes the results as JSON, prints the tables, and exits with 1 when a bar is missed. The clock of the simulator runs
so fast that each machine of the fleet gets so many real seconds of this machine: too few, and the figures tell of a
saturated processor; the worker's share of a processor is in the results.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import crashes, polling
from benchmarks.estate import speed_for
from benchmarks.metrics import all_metrics
from benchmarks.peers.runs import run_flat_app, run_script
from benchmarks.report import RESULTS, ROOT, metrics_table, missed, peer, peers_table
from benchmarks.scenario import Scene, patch_fleet, stop_under_a_cap

SIZES = (250, 500, 1_000, 2_000, 4_000)
FULL_SIZES = (*SIZES, 10_000)
PEERS_AT = (250,)
_PEERS_NEED = 2
"""Times the seconds per machine: a thread, or a replay of everything, costs more than the product does."""
_NEEDS = {1_000: 3, 10_000: 1.5}
"""The same for some sizes. At 1,000 the makespan has a bar: what takes a second of this machine is not to be minutes of
the run. At 10,000 as many end as begin, for most of an hour."""
STOP_AT = 300
STOP_CAP = 60
_DURABLE = ("worker", "host")
"""The processes of an app on Durable Functions."""
_LEAST_SECONDS = 50.0
_PATIENCE = 8
"""A run may take so many times as long as it should before it counts as stuck."""

type Json = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Measure, write, print, judge."""
    options = _parser().parse_args(arguments)
    results = _measured_before(options) if options.again else _nothing_yet(options)
    for step in _some_again(options, results) if options.again else _steps(options, results):
        sys.stderr.write(f"{step} …\n")
        # After each step: what was measured is kept when a later step fails.
        options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    results["metrics"] = [metric.to_wire() for metric in all_metrics(results)]
    options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    tables = [metrics_table(results), peers_table(results) if results["peers"] else ""]
    sys.stdout.write("\n\n".join(filter(None, tables)) + "\n")
    for each in missed(results):
        sys.stderr.write(f"missed: {each}\n")
    return 1 if missed(results) else 0


def _nothing_yet(options: argparse.Namespace) -> Json:
    return {
        "measuredAt": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "where": {
            "python": platform.python_version(),
            "processors": os.cpu_count(),
            "loadBefore": round(os.getloadavg()[0], 1),
            "revision": _revision(),
        },
        "seed": options.seed,
        "polling": {},
        "runs": [],
        "stop": None,
        "crashes": None,
        "peers": [],
        "metrics": [],
    }


def _measured_before(options: argparse.Namespace) -> Json:
    """The results that there are, without the sizes that are measured again."""
    results: Json = json.loads(options.output.read_text(encoding="utf-8"))
    results["runs"] = [run for run in results["runs"] if run["machines"] not in options.sizes]
    return results


def _some_again(options: argparse.Namespace, results: Json) -> Iterator[str]:
    """Fills in the sizes, and the rest when it is asked for, with their revision: what is kept has another."""
    for size in sorted(options.sizes):
        yield f"a fleet of {size:,} again"
        run = _fleet(options, size) | {"againAt": _revision()}
        results["runs"] = sorted([*results["runs"], run], key=lambda each: each["machines"])
    if options.rest:
        results.update(restAgainAt=_revision(), peers=[])
        yield from _rest(options, results)


def _fleet(options: argparse.Namespace, size: int) -> Json:
    return patch_fleet(*_scene(options, f"fleet-{size}", size, _NEEDS.get(size, 1)))


def _steps(options: argparse.Namespace, results: Json) -> Iterator[str]:
    """Fills in the results, and says before each step what it is."""
    yield "polling of one operation"
    results["polling"] = polling.measure(options.polls)
    for size in sorted(options.sizes):
        yield f"a fleet of {size:,}"
        results["runs"].append(_fleet(options, size))
    yield from _rest(options, results)


def _rest(options: argparse.Namespace, results: Json) -> Iterator[str]:
    """Everything beside the sizes."""
    yield "a cap and a stop"
    scene, patience = _scene(options, "stop", options.stop)
    results["stop"] = stop_under_a_cap(scene, options.cap, patience)
    if options.crash_step:
        yield "kills at external effects"
        results["crashes"] = crashes.measure(_fresh(options.state / "crashes"), options.crash_step)
    ours = {run["machines"]: run for run in results["runs"]}
    for size in options.peers:
        if size in ours:
            results["peers"].append(peer("Patchwave", ours[size], _DURABLE))
        yield f"the usual script, {size:,}"
        results["peers"].append(
            peer("thread pool", run_script(*_scene(options, f"script-{size}", size, _PEERS_NEED)), ("script",))
        )
        yield f"the flat fan-out, {size:,}"
        results["peers"].append(
            peer("flat fan-out", run_flat_app(*_scene(options, f"flat-{size}", size, _PEERS_NEED)), _DURABLE)
        )


def _scene(options: argparse.Namespace, name: str, size: int, share: float = 1) -> tuple[Scene, float]:
    """The clock, and after how many real seconds a run is stuck."""
    each = options.seconds_per_machine * share
    should_take = max(options.least_seconds, size * each)
    speed = speed_for(size, each, options.least_seconds)
    return Scene(_fresh(options.state / name), size, speed, options.seed), 60 + _PATIENCE * should_take


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _revision() -> str:
    try:
        said = subprocess.run(
            ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return said.stdout.strip()


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Measure the twelve metrics.")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="machines of the fleets")
    parser.add_argument(
        "--full", dest="sizes", action="store_const", const=FULL_SIZES, default=SIZES, help="10,000 machines too"
    )
    parser.add_argument("--again", action="store_true", help="measure these sizes again, and keep the other results")
    parser.add_argument("--rest", action="store_true", help="of what is measured again: the stop, the kills, the peers")
    parser.add_argument("--peers", type=int, nargs="*", default=PEERS_AT, help="sizes at which the peers run")
    parser.add_argument("--polls", type=int, nargs="+", default=polling.POLLS, help="polls of one operation")
    parser.add_argument("--stop", type=int, default=STOP_AT, help="machines of the run that is stopped")
    parser.add_argument("--cap", type=int, default=STOP_CAP, help="machines at a time of that run")
    parser.add_argument("--crash-step", type=int, default=12, help="kill at each so many-th effect; 0 kills nobody")
    parser.add_argument(
        "--seconds-per-machine", type=float, default=0.12, help="real seconds; a slow machine needs more"
    )
    parser.add_argument("--least-seconds", type=float, default=_LEAST_SECONDS, help="real seconds of a small fleet")
    parser.add_argument("--seed", type=int, default=1, help="of the fleets")
    parser.add_argument("--state", type=Path, default=ROOT / ".local" / "bench", help="folder for logs and data")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the results, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
