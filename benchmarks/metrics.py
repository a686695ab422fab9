"""The twelve metrics: what was measured, against which reference and bar. Pure arithmetic over what the runs counted.

M1 to M12 are explained in `docs/explanation/performance.md`. Nothing here is a time, but the one that reads of a fleet
may take.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

from benchmarks import estate
from benchmarks.growth import slope

PARENTS = ("patch_run", "patch_phase")
"""Orchestrators of which a run has one or a few; all others belong to a machine."""
FOLLOWS = "await_operation"
"""The orchestrator that waits for an operation, with the activity that looks at it."""
POLLS = "poll_operation"
KIBIBYTE = 1024
MAX_ENTITIES_A_SECOND = 2_000
"""Of one partition of Table storage."""
JUDGED_THROTTLING = (1_000, 10_000)
"""Sizes at which the makespan has a bar; when neither was measured, the largest one has it."""
SHARING_SIZE = 1_000
"""The size from which transactions per machine have a bar. Of fewer machines too few steps come within three seconds to
share a transaction; a run of 250 asks for one or two a second."""

type Json = dict[str, Any]
type Read = Callable[[Json], float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Metric:
    """One line of the table.

    Attributes:
        id: ``M1`` to ``M12``.
        what: is measured.
        reference: what it is compared with, and where that comes from.
        bar: in words; empty for what has none.
        values: by number of machines; key 0 holds what is one value over all sizes.
        passed: None without a bar, or when it was not measured.
    """

    id: str
    what: str
    reference: str
    bar: str = ""
    values: Mapping[int, float]
    passed: bool | None

    def to_wire(self) -> Json:
        """JSON; the keys of ``values`` become text."""
        return asdict(self) | {"values": {str(size): round(value, 4) for size, value in self.values.items()}}


def all_metrics(results: Json) -> list[Metric]:
    """Every metric that the results allow: ``runs`` by size, ``polling``, ``stop``, ``crashes``, ``fleetReads``."""
    runs = {int(run["machines"]): run for run in results["runs"]}
    metrics = _of_polling({int(key): value for key, value in results["polling"].items()})
    if results.get("stop"):
        metrics += _of_stop(results["stop"])
    metrics += _of_crashes(results.get("crashes"))
    metrics += _of_fleet_reads(results.get("fleetReads"))
    if runs:
        for part in (_of_replay, _of_messages, _of_requests, _of_throttling, _of_storage, _of_memory):
            metrics += part(runs)
    return sorted(metrics, key=lambda metric: int(metric.id[1:]) if metric.id[1:].isdigit() else len(metrics))


# M1, M2


def _of_polling(replayed: Mapping[int, float]) -> list[Metric]:
    per_poll = [events / polls for polls, events in replayed.items()]
    middle = statistics.mean(per_poll)
    spread = max(abs(each / middle - 1) for each in per_poll)
    return [
        _one("M1", "Events replayed per poll of an operation", max(per_poll), "1,924 without continue-as-new", 164),
        _one("M1", f"… its spread over {min(replayed)} to {max(replayed)} polls", spread, "0", 0.02),
        _one("M2", "Exponent of replayed events in the number of polls", slope(replayed), "2.00 naive", 1.05),
    ]


# M3 to M5


def replayed(run: Json, names: Iterable[str] | None = None) -> float:
    """Replayed events of these orchestrators, or of all."""
    counts = run["host"]["orchestrators"]
    return sum(counts[name]["replayedEvents"] for name in (counts if names is None else names) if name in counts)


def _largest(run: Json, key: str, names: Sequence[str] | None = None) -> float:
    counts = run["host"]["orchestrators"]
    return max(counts[name][key] for name in (counts if names is None else names) if name in counts)


def _of_replay(runs: Mapping[int, Json]) -> list[Metric]:
    def per_poll(run: Json) -> float:
        return replayed(run, (FOLLOWS,)) / run["host"]["activities"][POLLS]["executions"]

    def of_parents(run: Json) -> float:
        return replayed(run, PARENTS) / run["machines"]

    longest = partial(_largest, key="longestHistory")
    limits = "10,000 in-memory engine, 10,240 Temporal warns, 25,000 Step Functions"
    return [
        _each("M1", "… in the runs, where looks are few", runs, per_poll, "8K+4 for K polls an execution", 164),
        _growth("M3", "Exponent of replayed events in the fleet", runs, replayed, "2.00 flat, 1.00 tree", 1.1),
        _each(
            "M3", "Replayed events of run and phases, per machine", runs, of_parents, "tree 2.3–3.3, flat 8.6–26", 10
        ),
        _each("M4", "Longest history of any instance, events", runs, longest, limits, 2_500),
        _growth("M4", "… its exponent", runs, longest, "1 flat", 0.6),
    ]


def _of_messages(runs: Mapping[int, Json]) -> list[Metric]:
    def message(run: Json) -> float:
        return max(_largest(run, "largestWorkItem"), _largest(run, "largestResponse")) / KIBIBYTE

    def result_bytes(run: Json) -> float:
        counts: Json = run["host"]["orchestrators"]
        own = sum(each["resultBytes"] for name, each in counts.items() if name not in PARENTS)
        return own / run["machines"] / KIBIBYTE

    def parent_bytes(run: Json) -> float:
        return _largest(run, "largestInput", PARENTS) + _largest(run, "largestOutput", PARENTS)

    def payload(run: Json) -> float:
        return _largest(run, "largestPayload") / KIBIBYTE

    def state(run: Json) -> float:
        return _largest(run, "largestState", PARENTS) / KIBIBYTE

    carried, in_flight = "State that a parent carries between executions, KiB", "grows with what is in flight"
    return [
        _each("M5", "Largest message, KiB", runs, message, "4,096 KiB gRPC", 1_024),
        _each("M5", "Largest payload, KiB", runs, payload, "1,024 KiB Durable Task Scheduler", 256),
        _each("M5", "All results of a machine's orchestrations, KiB per machine", runs, result_bytes, "", 8),
        _growth("M5", "Exponent of a parent's input and output", runs, parent_bytes, "0: references only", 0.1),
        _each("M5", carried, runs, state, f"{in_flight}, up to 5,500 machines", 256),
    ]


# M6 to M9


def requests(run: Json, status: str | None = None) -> int:
    """Calls to Resource Manager, or those with one status."""
    counted = run["azure"]["requests"].values()
    return sum(sum(each.values()) if status is None else each.get(status, 0) for each in counted)


def _of_requests(runs: Mapping[int, Json]) -> list[Metric]:
    def accepted(key: str, choose: Callable[[float, float], float]) -> Read:
        return lambda run: choose(*(run["operations"][kind]["perMachine"][key] for kind in ("assess", "install")))

    def reads_an_hour(run: Json) -> float:
        reads = run["azure"]["reads"] + sum(run["azure"]["requests"].get("graph", {}).values())
        return reads / (run["machines"] * run["makespanMinutes"] / 60)

    def retries(run: Json) -> float:
        return requests(run, "429") / max(1, run["azure"]["refusedCalls"])

    def throttled(run: Json) -> float:
        return 100 * requests(run, "429") / requests(run)

    def peak(run: Json) -> float:
        return run["azure"]["peakReads"] / estate.READS_A_SECOND

    def early(run: Json) -> float:
        return sum(run["azure"]["early"].values())

    largest = max(runs)
    return [
        _each("M6", "Most accepted POSTs of one kind on a machine", runs, accepted("most", max), "1", 1),
        _each("M6", "… fewest", runs, accepted("least", min), "1", 1, at_least=True),
        _each("M7", "Peak of reads in one second ÷ 25", runs, peak, "4.0 polling each machine every 60 s", 0.75),
        _each("M7", "Reads per machine and hour", runs, reads_an_hour, "60 polling every 60 s", 15, judged={largest}),
        _each("M8", "Answered 429, per cent of all calls", runs, throttled, "", 1),
        _each("M8", "Calls before Retry-After", runs, early, "not processed (Resource Manager)", 0),
        _each("M8", "429 answers per call that met one", runs, retries, "1", 1.2),
    ]


def bound_minutes(run: Json) -> float:
    """The least that Azure's bucket of patch operations allows, or that two waves take when that is more.

    The bucket: the last of all operations is accepted, and a machine's two take their mean time. The waves: a plan
    knows all assessments, so that no installation begins before the last of them has ended.
    """
    operations, machines = run["operations"], run["machines"]
    means = operations["assess"]["meanMinutes"] + operations["install"]["meanMinutes"]
    assessed = estate.throttle_minutes(machines) + operations["assess"]["longestMinutes"]
    waves = assessed + estate.throttle_minutes(machines, assessed, machines) + operations["install"]["longestMinutes"]
    return max(estate.throttle_minutes(2 * machines) + means, waves)


def _of_throttling(runs: Mapping[int, Json]) -> list[Metric]:
    def throttling(run: Json) -> float:
        return run["makespanMinutes"] / bound_minutes(run)

    def between(run: Json) -> float:
        return run["operations"]["install"]["firstMinute"] - run["operations"]["assess"]["lastMinute"]

    judged = {size for size in runs if size in JUDGED_THROTTLING} or {max(runs)}
    return [
        _each("M9", "Makespan ÷ throttle bound", runs, throttling, "1.0 ideal, 1.3+ AIMD", 1.15, judged=judged),
        _each("M9", "… minutes between the last assessment and the first installation", runs, between, "0"),
    ]


# M10


def _of_stop(stop: Json) -> list[Metric]:
    return [
        _one("M10", f"Most installations at once ÷ the cap of {stop['cap']}", stop["mostAtOnce"] / stop["cap"], "1", 1),
        _one("M10", "Starts after the run was stopped", stop["startedAfterStop"], "0", 0),
    ]


# M11


def _of_storage(runs: Mapping[int, Json]) -> list[Metric]:
    def transactions(run: Json) -> float:
        return run["storage"]["transactions"] / run["machines"]

    def rows_a_batch(run: Json) -> float:
        return run["storage"]["batchedRows"] / max(1, run["storage"]["batches"])

    def peak(run: Json) -> float:
        return run["storage"]["peakRows"] / MAX_ENTITIES_A_SECOND

    large = {size for size in runs if size >= SHARING_SIZE} or {max(runs)}
    return [
        _each(
            "M11", "Table transactions per machine", runs, transactions, "1 a result and nothing else", 3, judged=large
        ),
        _each("M11", "Rows per batch", runs, rows_a_batch, "100 at most", 50, at_least=True, judged={max(runs)}),
        _each("M11", "Peak of entities in one second ÷ 2,000", runs, peak, "1.0 of one partition", 0.5),
    ]


# M12 and the extras


def _of_crashes(crashes: Json | None) -> list[Metric]:
    if not crashes:
        return []
    kills = crashes["kills"]
    patched = Metric(
        id="M12",
        what=f"Machines patched over {kills} kills, share",
        reference="at least once, so that something runs again",
        bar="1",
        values={0: crashes["completed"]},
        passed=crashes["completed"] == 1 and kills > 0,
    )
    return [
        patched,
        _one("M12", "Machines lost", crashes["lost"], "0", 0),
        _one("M12", "Machines installed twice", crashes["installedTwice"], "0", 0),
        _one("M12", "Rows of results that are double", crashes["doubleRows"], "0", 0),
        _one("M12", "Most repeated activities beyond those in hand", crashes["beyond"], "0", 0),
    ]


def _of_fleet_reads(reads: Json | None) -> list[Metric]:
    """Of status, modes and eligibility of a fleet that is read at once. The bars are for 10,000 machines."""
    if not reads:
        return []
    size = reads["machines"]
    queries, seconds = f"Resource Graph queries to read {size:,} machines", "… processor seconds of the worker"
    pages = f"{4 * -(-size // 1_000):,}: a page for a thousand rows of four tables"
    return [
        _one("extra", queries, reads["queries"], pages, 25),
        _one("extra", seconds, reads["cpuSeconds"], "the only time of this table", 3),
    ]


def _of_memory(runs: Mapping[int, Json]) -> list[Metric]:
    if not all(run["processes"].get("worker") for run in runs.values()):
        return []

    def megabytes(run: Json) -> float:
        return run["processes"]["worker"]["megabytes"]

    reference = "0.6: four times at ten times the fleet"
    return [_growth("extra", "Exponent of the worker's peak memory", runs, megabytes, reference, 0.6)]


# Making metrics


def _one(name: str, what: str, value: float, reference: str, bar: float) -> Metric:
    passed, text = _keeps(value, bar), f"≤ {bar:,g}"
    return Metric(id=name, what=what, reference=reference, bar=text, values={0: value}, passed=passed)


def _each(
    name: str,
    what: str,
    runs: Mapping[int, Json],
    read: Read,
    reference: str,
    bar: float | None = None,
    *,
    at_least: bool = False,
    judged: set[int] | None = None,
) -> Metric:
    """One value per size; the bar holds for those of ``judged``, or for all."""
    values = {size: read(run) for size, run in sorted(runs.items())}
    if bar is None:
        return Metric(id=name, what=what, reference=reference, values=values, passed=None)
    looked_at = [value for size, value in values.items() if judged is None or size in judged]
    passed = all(value >= bar if at_least else _keeps(value, bar) for value in looked_at)
    text = f"{'≥' if at_least else '≤'} {bar:,g}{_where(judged, values)}"
    return Metric(id=name, what=what, reference=reference, bar=text, values=values, passed=passed)


def _where(judged: set[int] | None, sizes: Iterable[int]) -> str:
    if judged is None:
        return ""
    if len(judged) > 1 and judged == {size for size in sizes if size >= min(judged)}:
        return f" from {min(judged):,} on"
    return " at " + " and ".join(f"{size:,}" for size in sorted(judged))


def _growth(name: str, what: str, runs: Mapping[int, Json], read: Read, reference: str, bar: float) -> Metric:
    """The exponent over all sizes; nothing is said of one size alone."""
    if len(runs) < 2:
        return Metric(id=name, what=what, reference=reference, bar=f"≤ {bar:,g}", values={}, passed=None)
    return _one(name, what, slope({size: max(read(run), 1e-9) for size, run in runs.items()}), reference, bar)


def _keeps(value: float, bar: float) -> bool:
    return value <= bar + 1e-9
