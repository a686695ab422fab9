"""Systematic crashes: the same small run again and again, spoilt at its first external effect, its second, and so on.

    with Rig.open(folder) as rig:
        for attempt in rig.every(Way.KILL_BEFORE):
            assert not attempt.problems

The scheme is that of Netherite's tests: the number grows until runs end before they come to that effect. What has to
hold is metric M12: a kill loses nothing and repeats no installation, and only what the worker had in hand runs again.
"""

from __future__ import annotations

import asyncio
import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx
from pydantic import SecretStr

from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.settings import Settings
from patchwave.storage import Storage
from patchwave.storage.engine.store import Store
from tests.resilience.chaos.effects import FOLDER, Order, Way
from tests.support.product import Json, Product, machine_id, write_fleet

MACHINES = 2
"""In each run: one that runs, and one that is stopped, started for its patches, and stopped again."""
_FLEET = 1_000
_TIMEOUT_SECONDS = 60.0
_UNSPOILT = 2
"""So many runs that end before they come to their effect mean that there is no further one."""
_SPEED = 6_000.0
_POLL_SECONDS = 0.05
"""Most of a run's time would be waiting."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt:
    """What became of one run.

    Attributes:
        number, way: which effect was spoilt, and how.
        effect: its method and address; empty when the run ended before it came to that effect.
        effects: how many effects the run had.
        in_flight: activities that the worker had in hand when it was killed, as the engine knows them.
        repeated: activities that were given to a worker once more.
        completed, lost, duplicates, double_installs: machines, as metric M12 counts them.
        problems: sentences; none when everything held.
    """

    number: int
    way: Way
    effect: str
    effects: int
    in_flight: int
    repeated: int
    completed: int
    lost: int
    duplicates: int
    double_installs: int
    problems: list[str] = field(default_factory=list[str])


class Rig:
    """A stack whose workers can be broken at an exact effect. Machines are taken anew for each run."""

    def __init__(self, product: Product, folder: Path) -> None:
        self._product = product
        self._folder = folder
        self._numbers = iter(range(_FLEET))
        self._not_repeated = 0

    @classmethod
    def open(cls, folder: Path, *, workers: int = 2) -> Rig:
        """Start everything in an empty folder."""
        orders = folder / "orders"
        orders.mkdir(parents=True)
        product = Product.open(
            folder,
            write_fleet(folder / "fleet.json", _FLEET),
            workers=workers,
            preload="tests.resilience.chaos.crash",
            signs_in=False,
            speed=_SPEED,
            poll_seconds=_POLL_SECONDS,
            **{FOLDER: str(orders)},
        )
        rig = cls(product, orders)
        # Tables are created on first use, which belongs to no run.
        first = rig.attempt(0, Way.RESET_BEFORE)
        assert not first.problems, first.problems
        return rig

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._product.close()

    def every(self, way: Way, *, first: int = 1, step: int = 1) -> Iterator[Attempt]:
        """A run for each effect, or each ``step``-th of them, until there is no further one.

        How many effects a run has depends on which writes share a transaction: the last runs are not spoilt.
        """
        unspoilt = 0
        for number in count(first, step):
            attempt = self.attempt(number, way)
            yield attempt
            unspoilt = 0 if attempt.effect else unspoilt + 1
            if unspoilt == _UNSPOILT:
                return

    def attempt(self, number: int, way: Way) -> Attempt:
        """One run, spoilt at effect ``number``; 0 spoils nothing."""
        ids = [machine_id(next(self._numbers)) for _ in range(MACHINES)]
        self._product.simulate(ids[-1], power="deallocated")
        before = self._counted()
        order = Order(uuid.uuid4().hex, number, way)
        order.give(self._folder)
        run_id = self._start(ids, order.name)
        run = self._wait(run_id)
        found = self._examine(run, ids)
        effects = len(order.effects(self._folder).read_text().splitlines())
        spoilt: Json = {}
        if order.spoilt(self._folder).exists():
            spoilt = json.loads(order.spoilt(self._folder).read_text())
        counted = self._counted()
        again, in_flight = counted["repeated"] - before["repeated"], counted["lost"] - before["lost"]
        # What a worker had in hand at the end of the previous run may be executed again in this one.
        if again > in_flight + self._not_repeated:
            found.problems.append(f"{again} activities were executed again, where the worker had {in_flight} in hand")
        self._not_repeated = min(in_flight, max(in_flight + self._not_repeated - again, 0))
        return Attempt(
            number=number,
            way=way,
            effect=str(spoilt.get("effect", "")),
            effects=effects,
            in_flight=in_flight,
            repeated=again,
            completed=found.completed,
            lost=found.lost,
            duplicates=found.duplicates,
            double_installs=found.double_installs,
            problems=found.problems,
        )

    # --- the run

    def _start(self, ids: list[str], key: str) -> str:
        """Start the run; a caller whose request is not answered repeats it with the same key."""
        policy = {"scope": {"machineIds": ids}, "startStopped": True}
        request = {"policy": policy, "mode": "patch"}

        def post() -> httpx.Response:
            return self._product.api.post("/api/runs", json=request, headers={"Idempotency-Key": key})

        deadline = time.monotonic() + _TIMEOUT_SECONDS
        reply = post()
        while reply.status_code >= 500 and time.monotonic() < deadline:
            time.sleep(0.1)
            reply = post()
        assert reply.status_code == 202, reply.text
        return str(reply.json()["id"])

    def _wait(self, run_id: str) -> Json:
        deadline = time.monotonic() + _TIMEOUT_SECONDS
        while True:
            reply = self._product.api.get(f"/api/runs/{run_id}")
            # The worker that had the request may be the one that is killed.
            run: Json = reply.json() if reply.status_code == 200 else {}
            if run.get("endedAt") or time.monotonic() > deadline:
                return {"id": run_id} | run
            time.sleep(0.05)

    # --- what became of it

    def _examine(self, run: Json, ids: list[str]) -> _Found:
        """Ask storage and the log of the simulator, not the product."""
        run_id = run["id"]
        problems: list[str] = []
        if run.get("state") != "completed":
            problems.append(f"the run is {run.get('state')}: {run.get('stopReason') or run.get('waitingFor')}")
        stored = asyncio.run(self._stored(run_id, ids))
        completed = sum(row.outcome is OutcomeKind.PATCHED for row in stored.machines)
        problems += [
            f"{row.id} ended as {row.outcome}: {row.message}"
            for row in stored.machines
            if row.outcome is not OutcomeKind.PATCHED
        ]
        lost = len(ids) - len(stored.machines)
        problems += [f"{lost} machines have no row"] if lost else []
        if sum(run.get("countsByOutcome", {}).values()) != len(ids):
            problems.append(f"the counts are {run.get('countsByOutcome')}")
        duplicates = double_installs = 0
        for one in ids:
            ends = stored.ends[MachineId.parse(one).key]
            duplicates += ends > 1
            problems += [] if ends == 1 else [f"{one} has {ends} rows of history"]
            problems += [f"{one} is locked"] if MachineId.parse(one).key in stored.leased else []
            installs = self._product.accepted(one).get("install", 0)
            double_installs += installs > 1
            problems += [] if installs == 1 else [f"{one} was installed {installs} times"]
        power = self._product.state(ids[-1])["power"]
        problems += [] if power in ("deallocated", "deallocating") else [f"{ids[-1]} is left {power}"]
        return _Found(completed, lost, duplicates, double_installs, problems)

    async def _stored(self, run_id: str, ids: list[str]) -> _Stored:
        storage = Storage(Store.open(Settings(tables_connection=SecretStr(self._product.stack.storage))))
        keys = [MachineId.parse(one).key for one in ids]
        try:
            machines = [machine async for machine in storage.machines.scan(run_id)]
            ends: Counter[str] = Counter()
            for key in keys:
                history = await storage.history.list_page(key, 100, None)
                ends[key] = sum(end["runId"] == run_id for end in history.items)
            return _Stored(machines, ends, await storage.leases.held(keys, run_id, datetime.now(UTC)))
        finally:
            await storage.close()

    def _counted(self) -> Counter[str]:
        """Calls of activities by what became of them, as the engine counts them."""
        metrics: Json = self._product.api.get("/admin/metrics").json()
        counted: Counter[str] = Counter()
        for counts in metrics["activities"].values():
            counted += Counter({name: counts[name] for name in ("repeated", "lost")})
        return counted


@dataclass(slots=True)
class _Stored:
    """What the records say: the run's machines, how often each has ended in it, and which it has locked."""

    machines: list[MachineRecord]
    ends: Counter[str]
    leased: set[str]


@dataclass(slots=True)
class _Found:
    completed: int
    lost: int
    duplicates: int
    double_installs: int
    problems: list[str]


__all__ = ["MACHINES", "Attempt", "Rig"]
