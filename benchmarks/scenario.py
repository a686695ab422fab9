"""One run of the real app on the embedded host against the simulator, measured from outside.

The results are plain JSON documents of counts; `benchmarks.metrics` reads them. The simulated clock runs faster
than the real one; the app's poll interval is divided by the speed, and the stack tells the app how fast the buckets of
such a clock refill: app, buckets and operations then live on one clock.
"""

from __future__ import annotations

import ssl
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Self

import httpx

from benchmarks import estate
from benchmarks.processes import Watch
from local.stack import Stack, StackOptions
from patchwave.settings import Settings

POLL_SECONDS = 30.0
"""Of Azure's clock: the app's own default."""
BATCH_DELAY_SECONDS = float(Settings.model_fields["storage_batch_delay_seconds"].default)
"""Of Azure's clock, likewise."""
_MIN_POLL_SECONDS = 0.05
APP_SETTINGS = {
    "AZURE_FUNCTIONS_DURABLE_STRICT_TYPING": "1",
    "PYTHON_THREADPOOL_THREAD_COUNT": "1",
    # The most that the setting takes, so that Azure's bucket is the limit and not the app's.
    "PATCHWAVE_ASSESS_CONCURRENCY": "1000",
}
_LOOK_SECONDS = 5
"""As the app asks of clients that wait for a run: each poll is a transaction."""

type Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Scene:
    """A fleet and the speed of its clock.

    Attributes:
        folder: for the state and logs of the processes.
        machines: of the fleet.
        speed: simulated seconds per real second.
        seed: of the fleet.
    """

    folder: Path
    machines: int
    speed: float
    seed: int

    def options(self, **changes: Any) -> StackOptions:
        """How the stack is started for it."""
        fleet = estate.write_fleet(self.folder / "fleet.json", self.machines, self.seed)
        given: Json = {"settings": APP_SETTINGS | self.batch_delay, "poll_seconds": self.poll_seconds} | changes
        given |= {"keep_storage": False, "count_storage": True}
        return StackOptions(state=self.folder, port=0, fleet=fleet, seed=self.seed, speed=self.speed, **given)

    @property
    def batch_delay(self) -> dict[str, str]:
        """Batch delay of writes on the simulator's clock: as many share a batch as in Azure."""
        return {"PATCHWAVE_STORAGE_BATCH_DELAY_SECONDS": f"{BATCH_DELAY_SECONDS / self.speed:.4f}"}

    @property
    def poll_seconds(self) -> float:
        """The app's poll interval in real seconds."""
        return max(_MIN_POLL_SECONDS, POLL_SECONDS / self.speed)


class Stage:
    """A running stack, with clients of the app, of the simulator and of the host, which count requests and events."""

    def __init__(self, scene: Scene, **changes: Any) -> None:
        self.scene = scene
        self.stack = Stack(scene.options(**changes))

    def __enter__(self) -> Self:
        self.stack.start()
        trust = ssl.create_default_context(cafile=str(self.stack.ca))
        self.app = httpx.Client(base_url=self.stack.url, timeout=120, trust_env=False)
        self.azure = httpx.Client(base_url=self.stack.arm, verify=trust, timeout=120, trust_env=False)
        return self

    def __exit__(self, *_: object) -> None:
        self.app.close()
        self.azure.close()
        self.stack.stop()

    def reset(self) -> None:
        """Count from now on."""
        self.app.post("/admin/metrics").raise_for_status()
        self.azure.post("/_sim/metrics", json={}).raise_for_status()
        self.stack.storage_proxy.reset()

    def watch(self, **others: int) -> Watch:
        """Looks at worker, host, simulator and storage, and at other processes that are named."""
        fixed = {"host": self.stack.pids["host"], "simulator": self.stack.pids["simulator"], **others}
        return Watch(lambda: fixed | {"storage": self.stack.pids["azurite"]} | _numbered(self.stack.workers))

    def counts(self) -> Json:
        """What host, simulator and storage have counted."""
        return {
            "host": self.app.get("/admin/metrics").raise_for_status().json(),
            "azure": self.azure.get("/_sim/metrics").raise_for_status().json(),
            "storage": self.stack.storage_proxy.document(),
        }

    def operations(self) -> Json:
        """What Azure accepted: per machine and kind, how long it took, how many ran at once, from when to when.

        Minutes are simulated ones since the simulator's start.
        """
        accepted: dict[str, dict[str, int]] = self.azure.get("/_sim/accepted").raise_for_status().json()
        intervals: list[Json] = self.azure.get("/_sim/operations").raise_for_status().json()["operations"]
        return {
            kind: _summary([each for each in intervals if each["kind"] == kind])
            | {"perMachine": _spread([counts.get(kind, 0) for counts in accepted.values()], self.scene.machines)}
            for kind in ("assess", "install")
        }

    def minutes(self) -> float:
        """Of the simulator's clock."""
        return float(self.azure.get("/_sim").raise_for_status().json()["simulatedSeconds"]) / 60

    # The app

    def start(self, **policy: Any) -> str:
        """Start a run that patches the whole fleet, as many machines at a time as a policy allows; its id."""
        scope = {"subscriptions": [estate.SUBSCRIPTION]}
        document = {"name": "bench", "scope": scope, "maxConcurrent": "100%", **policy}
        reply = self.app.post("/api/runs", json={"policy": document, "mode": "patch"}).raise_for_status()
        return str(reply.json()["id"])

    def wait(self, run_id: str, timeout: float) -> Json:
        """The run when it has ended; TimeoutError after so many real seconds."""
        return wait_until(lambda: self._ended(run_id), timeout, f"run {run_id} has not ended")

    def _ended(self, run_id: str) -> Json | None:
        # The list has no counts: those of a run in progress are counted row by row, at each request.
        listed: list[Json] = self.app.get("/api/runs", params={"limit": 1}).raise_for_status().json()["runs"]
        if not listed[0]["endedAt"]:
            return None
        return self.app.get(f"/api/runs/{run_id}").raise_for_status().json()


def patch_fleet(scene: Scene, timeout: float) -> Json:
    """Patch a whole fleet once, without disturbance: the figures of M3 to M9 and M11."""
    with Stage(scene) as stage, stage.watch() as watch:
        stage.reset()
        began = time.monotonic()
        run = stage.wait(stage.start(), timeout)
        elapsed = time.monotonic() - began
        counts, operations = stage.counts(), stage.operations()
    makespan = _minutes(run["createdAt"], run["endedAt"], scene.speed)
    return {
        "machines": scene.machines,
        "speed": round(scene.speed, 3),
        "outcomes": run["countsByOutcome"],
        "state": run["state"],
        "makespanMinutes": makespan,
        "operations": operations,
        "elapsedSeconds": round(elapsed, 1),
        "processes": watch.document(),
        **counts,
    }


def stop_under_a_cap(scene: Scene, timeout: float, cap: int) -> Json:
    """Patch a fleet under a cap and cancel the run once two caps of installations have begun: M10."""
    with Stage(scene) as stage:
        run_id = stage.start(maxConcurrent=cap)

        def is_in_progress() -> bool:
            accepted = stage.azure.get("/_sim/accepted").raise_for_status().json()
            return sum(counts.get("install", 0) for counts in accepted.values()) >= 2 * cap

        wait_until(is_in_progress, timeout, "the run has not come so far")
        stage.app.post(f"/api/runs/{run_id}/cancel").raise_for_status()
        stopped = stage.minutes()
        run = stage.wait(run_id, timeout)
        intervals: list[Json] = stage.azure.get("/_sim/operations", params={"kind": "install"}).json()["operations"]
        operations = stage.operations()
    return {
        "machines": scene.machines,
        "speed": round(scene.speed, 3),
        "cap": cap,
        "state": run["state"],
        "mostAtOnce": operations["install"]["mostAtOnce"],
        "started": operations["install"]["count"],
        "startedAfterStop": sum(each["start"] / 60 > stopped for each in intervals),
        "outcomes": run["countsByOutcome"],
    }


def wait_until[T](probe: Callable[[], T | None], timeout: float, what: str) -> T:
    """Ask until the answer is true; TimeoutError after so many seconds."""
    deadline = time.monotonic() + timeout
    while True:
        found = probe()
        if found:
            return found
        if time.monotonic() > deadline:
            raise TimeoutError(f"After {timeout:.0f} s {what}.")
        time.sleep(_LOOK_SECONDS)


def most_at_once(intervals: list[tuple[float, float]]) -> int:
    """How many intervals overlap at most; one that begins when another ends does not overlap it."""
    running = most = 0
    for _, step in sorted([(end, -1) for _, end in intervals] + [(start, 1) for start, _ in intervals]):
        running += step
        most = max(most, running)
    return most


def _summary(intervals: list[Json]) -> Json:
    ended = [(float(each["start"]), float(each["end"])) for each in intervals if each["end"] is not None]
    if not ended:
        names = ("mostAtOnce", "meanMinutes", "longestMinutes", "firstMinute", "lastMinute")
        return {"count": len(intervals), **dict.fromkeys(names, 0.0)}
    return {
        "count": len(intervals),
        "mostAtOnce": most_at_once(ended),
        "meanMinutes": round(statistics.mean(end - start for start, end in ended) / 60, 3),
        "longestMinutes": round(max(end - start for start, end in ended) / 60, 3),
        "firstMinute": round(min(start for start, _ in ended) / 60, 3),
        "lastMinute": round(max(end for _, end in ended) / 60, 3),
    }


def _spread(counts: list[int], machines: int) -> Json:
    of_all = counts + [0] * (machines - len(counts))
    return {"least": min(of_all), "most": max(of_all)}


def _minutes(begin: str, end: str, speed: float) -> float:
    seconds = (datetime.fromisoformat(end) - datetime.fromisoformat(begin)).total_seconds()
    return round(seconds * speed / 60, 3)


def _numbered(workers: list[int]) -> dict[str, int]:
    return {f"worker{number or ''}": process for number, process in enumerate(workers)}
