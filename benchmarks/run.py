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
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import crashes, fleet_reads, polling
from benchmarks.estate import speed_for
from benchmarks.lanes import Step, measured
from benchmarks.metrics import all_metrics
from benchmarks.peers.runs import run_flat_app, run_script
from benchmarks.report import RESULTS, ROOT, metrics_table, missed, peer, peers_table
from benchmarks.scenario import Scene, patch_fleet, stop_under_a_cap

SIZES = (250, 500, 1_000, 2_000, 4_000)
FULL_SIZES = (*SIZES, 10_000)
PEERS_AT = (250,)
_OURS = "Patchwave"
_PEERS_NEED = 2
"""Times the seconds per machine: a thread, or a replay of everything, costs more than the product does."""
_NEEDS = {1_000: 4, 10_000: 1.5}
"""The same for some sizes. At 1,000 the makespan has a bar: what takes a second of this machine is not to be minutes of
the run. At 10,000 as many end as begin, for most of an hour."""
STOP_AT = 300
STOP_CAP = 60
_DURABLE = ("worker", "host")
"""The processes of an app on Durable Functions."""
_PEERS: tuple[tuple[str, Callable[[Scene, float], Json], Sequence[str]], ...] = (
    ("thread pool", run_script, ("script",)),
    ("flat fan-out", run_flat_app, _DURABLE),
)
"""What each is called, what runs it, and which processes are its own."""
_MIN_SECONDS = 50.0
_STUCK_FACTOR = 8
"""A run may take so many times as long as it should before it counts as stuck."""

type Json = dict[str, Any]


def main(arguments: Sequence[str]) -> int:
    """Measure, write, print, judge."""
    options = _parser().parse_args(arguments)
    results = _measured_before(options) if options.again else _nothing_yet(options)
    for _ in measured(_steps(options, results), options.lanes):
        # After each step: what was measured is kept when a later step fails.
        options.output.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    _add_our_peers(options, results)
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
            "lanes": options.lanes,
            "loadBefore": round(os.getloadavg()[0], 1),
            "revision": _revision(),
        },
        "seed": options.seed,
        "polling": {},
        "runs": [],
        "stop": None,
        "crashes": None,
        "fleetReads": None,
        "peers": [],
        "metrics": [],
    }


def _measured_before(options: argparse.Namespace) -> Json:
    """The results that there are, without what is measured again."""
    results: Json = json.loads(options.output.read_text(encoding="utf-8"))
    results["runs"] = [run for run in results["runs"] if run["machines"] not in options.sizes]
    if options.rest:
        results.update(restAgainAt=_revision(), peers=[])
    return results


def _steps(options: argparse.Namespace, results: Json) -> list[Step]:
    """Everything that is to be measured, each of which fills in its part of the results."""
    sizes = [_fleet(options, results, size) for size in options.sizes]
    if options.again:
        # What is kept is of another revision: each says of which.
        again = _rest if options.rest else _reads if options.reads else None
        return [*sizes, *(again(options, results) if again else [])]
    polls = Step("polling of one operation", 10.0, partial(polling.measure, options.polls), _into(results, "polling"))
    return [polls, *sizes, *_rest(options, results)]


def _fleet(options: argparse.Namespace, results: Json, size: int) -> Step:
    again = {"againAt": _revision()} if options.again else {}

    def keep(run: Json) -> None:
        results["runs"] = sorted([*results["runs"], run | again], key=lambda each: each["machines"])

    return _scene_step(options, f"fleet-{size}", f"a fleet of {size:,}", size, patch_fleet, keep, _NEEDS.get(size, 1))


def _rest(options: argparse.Namespace, results: Json) -> Iterator[Step]:
    """Everything beside the sizes and the polling of one operation."""
    stop = partial(stop_under_a_cap, cap=options.cap)
    yield _scene_step(options, "stop", "a cap and a stop", options.stop, stop, _into(results, "stop"))
    if options.crash_step:
        kills = partial(crashes.measure, _fresh(options.state / "crashes"), options.crash_step)
        yield Step("kills at external effects", 45.0, kills, _into(results, "crashes"))
    yield from _reads(options, results)
    for size in options.peers:
        for name, run, processes in _PEERS:
            label, keep = f"the {name}, {size:,}", _as_peer(results, name, processes)
            yield _scene_step(options, f"{name}-{size}".replace(" ", "-"), label, size, run, keep, _PEERS_NEED)


def _reads(options: argparse.Namespace, results: Json) -> Iterator[Step]:
    if options.fleet:
        reads = partial(fleet_reads.measure, _fresh(options.state / "reads"), options.fleet, options.seed)
        yield Step(f"reads of {options.fleet:,} machines", 90.0, reads, _into(results, "fleetReads"))


def _into(results: Json, name: str) -> Callable[[Any], None]:
    return partial(results.__setitem__, name)


def _as_peer(results: Json, name: str, processes: Sequence[str]) -> Callable[[Json], None]:
    def keep(run: Json) -> None:
        results["peers"].append(peer(name, run, processes))

    return keep


def _add_our_peers(options: argparse.Namespace, results: Json) -> None:
    """Before those that were measured at a size, the product at that size."""
    ours = [peer(_OURS, run, _DURABLE) for run in results["runs"] if run["machines"] in options.peers]
    order = [_OURS, *(name for name, _, _ in _PEERS)]
    others = [each for each in results["peers"] if each["name"] != _OURS]
    results["peers"] = sorted([*ours, *others], key=lambda each: (each["machines"], order.index(each["name"])))


def _scene_step(
    options: argparse.Namespace,
    folder: str,
    label: str,
    size: int,
    run: Callable[[Scene, float], Json],
    keep: Callable[[Json], None],
    need: float = 1,
) -> Step:
    """A run of a fleet: how fast its clock is, and after how many real seconds it is stuck."""
    each = options.seconds_per_machine * need
    should_take = max(options.least_seconds, size * each)
    scene = Scene(_fresh(options.state / folder), size, speed_for(size, each, options.least_seconds), options.seed)
    return Step(label, should_take, partial(run, scene, 60 + _STUCK_FACTOR * should_take), keep)


def _fresh(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    return folder


def _revision() -> str:
    command = ["git", "rev-parse", "--short", "HEAD"]
    try:
        return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.run", description="Measure the twelve metrics.")
    parser.add_argument("--sizes", type=int, nargs="*", default=SIZES, help="machines of the fleets")
    parser.add_argument(
        "--full", dest="sizes", action="store_const", const=FULL_SIZES, default=SIZES, help="10,000 machines too"
    )
    parser.add_argument("--again", action="store_true", help="measure these sizes again, and keep the other results")
    parser.add_argument("--rest", action="store_true", help="of what is measured again: the stop, the kills, the peers")
    parser.add_argument("--reads", action="store_true", help="of what is measured again: the reads of a fleet")
    parser.add_argument("--lanes", type=int, default=2, help="measurements side by side; 1 on a slow machine")
    parser.add_argument("--peers", type=int, nargs="*", default=PEERS_AT, help="sizes at which the peers run")
    parser.add_argument("--polls", type=int, nargs="+", default=polling.POLLS, help="polls of one operation")
    parser.add_argument("--stop", type=int, default=STOP_AT, help="machines of the run that is stopped")
    parser.add_argument("--cap", type=int, default=STOP_CAP, help="machines at a time of that run")
    parser.add_argument("--fleet", type=int, default=fleet_reads.MACHINES, help="machines that are read; 0 reads none")
    parser.add_argument("--crash-step", type=int, default=12, help="kill at each so many-th effect; 0 kills none")
    parser.add_argument(
        "--seconds-per-machine", type=float, default=0.12, help="real seconds; a slow machine needs more"
    )
    parser.add_argument("--least-seconds", type=float, default=_MIN_SECONDS, help="real seconds of a small fleet")
    parser.add_argument("--seed", type=int, default=1, help="of the fleets")
    parser.add_argument("--state", type=Path, default=ROOT / ".local" / "bench", help="folder for logs and data")
    parser.add_argument("--output", type=Path, default=RESULTS, help="the results, as JSON")
    return parser


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
