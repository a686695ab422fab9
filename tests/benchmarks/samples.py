"""Results of a benchmark, as the report reads them."""

from __future__ import annotations

from typing import Any

from benchmarks.metrics import bound_minutes

type Json = dict[str, Any]

SIZES = (250, 1_000, 4_000)
COUNTS = {
    "executions": 1,
    "turns": 4,
    "longestHistory": 100,
    "largestWorkItem": 4_096,
    "largestResponse": 1_024,
    "largestInput": 400,
    "largestOutput": 80,
    "largestState": 2_048,
    "largestPayload": 2_048,
    "sentBytes": 0,
}


def run(machines: int) -> Json:
    """A run that keeps every bar exactly or by far."""
    interval = {"count": machines, "mostAtOnce": machines, "perMachine": {"least": 1, "most": 1}}
    made: Json = {
        "machines": machines,
        "speed": 10.0,
        "elapsedSeconds": 4.0,
        "outcomes": {"patched": machines},
        "operations": {
            "assess": interval | {"meanMinutes": 2.5, "longestMinutes": 3.0, "firstMinute": 0.5, "lastMinute": 4.0},
            "install": interval | {"meanMinutes": 8.5, "longestMinutes": 9.0, "firstMinute": 4.5, "lastMinute": 20.0},
        },
        "processes": {"worker": {"megabytes": 150.0, "threads": 10, "cpuSeconds": 1.0}},
        "host": {
            "activities": {"poll_operation": {"executions": 5 * machines}},
            "orchestrators": {
                "patch_run": COUNTS | {"replayedEvents": machines, "resultBytes": 100},
                "patch_phase": COUNTS | {"replayedEvents": 2 * machines, "resultBytes": 100},
                "patch_machine": COUNTS | {"replayedEvents": 70 * machines, "resultBytes": 2_048 * machines},
                "await_operation": COUNTS | {"replayedEvents": 200 * machines, "resultBytes": 1_024 * machines},
            },
        },
        "azure": {
            "requests": {"assess": {"202": machines}, "install": {"202": machines}, "poll": {"200": 2 * machines}},
            "reads": 2 * machines,
            "peakReads": 10,
            "refused": {},
            "early": {},
            "refusedCalls": 0,
        },
        "storage": {"transactions": 3 * machines, "batches": 10, "batchedRows": 600, "peakRows": 900},
    }
    made["makespanMinutes"] = round(1.1 * bound_minutes(made), 3)
    return made


def results() -> Json:
    return {
        "measuredAt": "2026-11-21T12:00:00Z",
        "where": {"python": "3.13.0", "processors": 2, "lanes": 2, "loadBefore": 0.1, "revision": "abc"},
        "seed": 1,
        "polling": {"60": 84 * 60, "960": 84 * 960},
        "runs": [run(size) for size in SIZES],
        "stop": {"machines": 80, "cap": 20, "mostAtOnce": 20, "startedAfterStop": 0},
        "fleetReads": {"machines": 10_000, "queries": 25, "cpuSeconds": 3.0, "bytes": 20_000_000},
        "crashes": {"kills": 50, "completed": 1, "lost": 0, "installedTwice": 0, "doubleRows": 0, "beyond": 0},
        "peers": [],
    }
