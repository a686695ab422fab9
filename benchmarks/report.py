"""The benchmark's tables in Markdown, and the generated part of ``docs/explanation/performance.md``.

``python -m benchmarks.report`` writes the page from ``benchmarks/results.json``; ``--check`` only says whether it is
up to date, without measuring anything.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.metrics import bound_minutes, replayed, requests

ROOT = Path(__file__).resolve().parent.parent
RESULTS = ROOT / "benchmarks" / "results.json"
PAGE = ROOT / "docs/explanation/performance.md"
_BEGIN, _END = "<!-- begin: make bench -->\n", "<!-- end: make bench -->\n"

type Json = dict[str, Any]


def metrics_table(results: Json) -> str:
    """One line per metric, one column per size of fleet."""
    metrics: list[Json] = results["metrics"]
    sizes = sorted({int(size) for metric in metrics for size in metric["values"]} - {0})
    head = ["", "what", *(f"{size:,}" for size in sizes), "reference", "bar", ""]
    lines = [_metric_line(metric, sizes) for metric in metrics]
    return _table(head, lines, right=range(2, 2 + len(sizes)))


def peers_table(results: Json) -> str:
    """The product beside its peers, on the same simulator."""
    head = ["machines", "", "ARM requests per machine", "answered 429", "not patched", "makespan ÷ bound"]
    head += ["replayed events per machine", "peak memory, MB", "threads"]
    return _table(head, [_peer_line(each) for each in results["peers"]], right=[0, *range(2, len(head))])


def render(results: Json) -> str:
    """The generated part of the page."""
    where = results["where"]
    sizes = ", ".join(_run_line(run) for run in results["runs"])
    rest = f"; stop, kills and peers at `{results['restAgainAt']}`" if "restAgainAt" in results else ""
    parts = [
        f"Measured {results['measuredAt'][:10]} at revision `{where['revision']}` with Python {where['python']} on"
        f" {where['processors']} processors, on which others had put a load of {where['loadBefore']:g},"
        f" {where['lanes']} measurements at a time; seed {results['seed']}; {sizes}{rest}.",
        metrics_table(results),
    ]
    if results["peers"]:
        parts += ["### Beside the usual ways", peers_table(results)]
    return "\n\n".join(parts) + "\n"


def missed(results: Json) -> list[str]:
    """The metrics whose bar is missed, in words."""
    return [f"{each['id']}: {each['what']}" for each in results["metrics"] if each["passed"] is False]


def peer(name: str, run: Json, processes: Sequence[str]) -> Json:
    """One line of the comparison from the figures of a run; ``processes`` are those of the peer itself."""
    machines = run["machines"]
    own = [run["processes"][each] for each in processes if each in run["processes"]]
    is_durable = "host" in run and bool(run["host"]["orchestrators"])
    return {
        "name": name,
        "machines": machines,
        "requestsPerMachine": round(requests(run) / machines, 2),
        "throttled": requests(run, "429"),
        "notPatched": machines - int(run["outcomes"].get("patched", 0)),
        "makespanRatio": round(run["makespanMinutes"] / bound_minutes(run), 3),
        "replayedPerMachine": round(replayed(run) / machines, 1) if is_durable else None,
        "megabytes": round(sum(each["megabytes"] for each in own)),
        "threads": int(sum(each["threads"] for each in own)),
    }


def _run_line(run: Json) -> str:
    worker = run["processes"].get("worker")
    busy = f", the worker busy for {worker['cpuSeconds'] / run['elapsedSeconds']:.0%}" if worker else ""
    again = f" (again at `{run['againAt']}`)" if "againAt" in run else ""
    return f"{run['machines']:,} machines at speed {run['speed']:.3g}{busy}{again}"


def _peer_line(line: Json) -> list[str]:
    replay = line["replayedPerMachine"]
    return [
        f"{line['machines']:,}",
        line["name"],
        f"{line['requestsPerMachine']:.1f}",
        f"{line['throttled']:,}",
        f"{line['notPatched']:,}",
        f"{line['makespanRatio']:.2f}",
        "–" if replay is None else f"{replay:,.0f}",
        f"{line['megabytes']:,}",
        f"{line['threads']:,}",
    ]


def _metric_line(metric: Json, sizes: Sequence[int]) -> list[str]:
    values: dict[str, float] = metric["values"]
    # One value over all sizes stands in the last column of them.
    keys = ["0" if "0" in values and size == sizes[-1] else str(size) for size in sizes]
    cells = [_number(values[key]) if key in values else "" for key in keys]
    verdict = {True: "pass", False: "**miss**", None: ""}[metric["passed"]]
    return [metric["id"], metric["what"], *cells, metric["reference"], metric["bar"], verdict]


def _number(value: float) -> str:
    if value == int(value) or abs(value) >= 1_000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"


def _table(head: Sequence[str], lines: Sequence[Sequence[str]], right: Sequence[int]) -> str:
    rule = ["---:" if column in right else "---" for column in range(len(head))]
    return "\n".join("| " + " | ".join(line) + " |" for line in (head, rule, *lines))


def page_with(page: str, results: Json) -> str:
    """The page with the generated part replaced.

    Raises:
        ValueError: the page has no place for it.
    """
    before, begin, rest = page.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if not begin or not end:
        raise ValueError(f"{PAGE.name} has no {_BEGIN.strip()} … {_END.strip()}")
    return f"{before}{_BEGIN}\n{render(results)}\n{_END}{after}"


def main(arguments: Sequence[str]) -> int:
    """Write the page, or with ``--check`` compare it: 1 when it is not what would be written."""
    page = PAGE.read_text(encoding="utf-8")
    wanted = page_with(page, json.loads(RESULTS.read_text(encoding="utf-8")))
    if page == wanted:
        return 0
    if "--check" in arguments:
        sys.stderr.write(f"{PAGE.relative_to(ROOT)} is not what benchmarks/results.json says: run `make docs`.\n")
        return 1
    PAGE.write_text(wanted, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
