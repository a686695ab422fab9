"""Systematic crashes: the same small run again and again, spoilt at its first external effect, its second, and so on.

    with Rig.open(folder) as rig:
        for attempt in rig.every(Way.KILL_BEFORE):
            assert not attempt.problems

The scheme is that of Netherite's tests: the number grows until a run ends before it comes to that effect. What has to
hold is metric M12: a kill loses nothing and repeats no installation, and only what the worker had in hand runs again.
"""

from __future__ import annotations

import json
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import httpx
from azure.data.tables import TableServiceClient

from domain.identity import MachineId
from tests.chaos.effects import FOLDER, Order, Way
from tests.product import Json, Product, machine_id, write_fleet

MACHINES = 2
"""In each run: one that runs, and one that is stopped, started for its patches, and stopped again."""
_FLEET = 1_000
_PATIENCE_SECONDS = 60.0
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
        in_flight: activities that the worker had in hand.
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
        self._tables = TableServiceClient.from_connection_string(product.stack.storage)

    @classmethod
    def open(cls, folder: Path, *, workers: int = 2) -> Rig:
        """Start everything in an empty folder."""
        orders = folder / "orders"
        orders.mkdir(parents=True)
        product = Product.open(
            folder,
            write_fleet(folder / "fleet.json", _FLEET),
            workers=workers,
            preload="tests.chaos.crash",
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
        self._tables.close()
        self._product.close()

    def every(self, way: Way, *, first: int = 1, step: int = 1) -> Iterator[Attempt]:
        """A run for each effect, or each ``step``-th of them, until there is no further one; the last is not spoilt."""
        for number in count(first, step):
            attempt = self.attempt(number, way)
            yield attempt
            if not attempt.effect:
                return

    def attempt(self, number: int, way: Way) -> Attempt:
        """One run, spoilt at effect ``number``; 0 spoils nothing."""
        ids = [machine_id(next(self._numbers)) for _ in range(MACHINES)]
        self._product.simulate(ids[-1], power="deallocated")
        repeated = self._repeated()
        order = Order(uuid.uuid4().hex, number, way)
        order.give(self._folder)
        run_id = self._start(ids, order.name)
        run = self._wait(run_id)
        found = self._look(run, ids)
        effects = len(order.effects(self._folder).read_text().splitlines())
        spoilt: Json = {}
        if order.spoilt(self._folder).exists():
            spoilt = json.loads(order.spoilt(self._folder).read_text())
        in_flight = int(spoilt.get("inFlight", 0)) if way in (Way.KILL_BEFORE, Way.KILL_AFTER) else 0
        again = self._repeated() - repeated
        if again > in_flight:
            found.problems.append(f"{again} activities were executed again, where the worker had {in_flight} in hand")
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

        deadline = time.monotonic() + _PATIENCE_SECONDS
        reply = post()
        while reply.status_code >= 500 and time.monotonic() < deadline:
            time.sleep(0.1)
            reply = post()
        assert reply.status_code == 202, reply.text
        return str(reply.json()["id"])

    def _wait(self, run_id: str) -> Json:
        deadline = time.monotonic() + _PATIENCE_SECONDS
        while True:
            reply = self._product.api.get(f"/api/runs/{run_id}")
            # The worker that had the request may be the one that is killed.
            run: Json = reply.json() if reply.status_code == 200 else {}
            if run.get("endedAt") or time.monotonic() > deadline:
                return {"id": run_id} | run
            time.sleep(0.05)

    # --- what became of it

    def _look(self, run: Json, ids: list[str]) -> _Found:
        """Ask storage and the simulator's books, not the product."""
        run_id = run["id"]
        problems: list[str] = []
        if run.get("state") != "completed":
            problems.append(f"the run is {run.get('state')}: {run.get('stopReason') or run.get('waitingFor')}")
        rows = {row["RowKey"]: row for row in self._rows("results", run_id) if str(row["RowKey"]).startswith("m~")}
        keys = {MachineId.parse(one).key for one in ids}
        completed = sum(row.get("outcome") == "patched" for row in rows.values())
        problems += [
            f"{row.get('id')} ended as {row.get('outcome')}: {row.get('message')}"
            for row in rows.values()
            if row.get("outcome") != "patched"
        ]
        lost = len(keys - {key.removeprefix("m~") for key in rows})
        problems += [f"{lost} machines have no row"] if lost else []
        if sum(run.get("countsByOutcome", {}).values()) != len(ids):
            problems.append(f"the counts are {run.get('countsByOutcome')}")
        duplicates = double_installs = 0
        for one in ids:
            own = [str(row["RowKey"]) for row in self._rows("machines", MachineId.parse(one).key)]
            ends = Counter(key.rpartition("~")[2] for key in own if key.startswith("h~"))
            duplicates += ends[run_id] > 1
            problems += [] if ends[run_id] == 1 else [f"{one} has {ends[run_id]} rows of history"]
            problems += [f"{one} is locked"] if "lease" in own else []
            installs = self._product.accepted(one).get("install", 0)
            double_installs += installs > 1
            problems += [] if installs == 1 else [f"{one} was installed {installs} times"]
        power = self._product.state(ids[-1])["power"]
        problems += [] if power in ("deallocated", "deallocating") else [f"{ids[-1]} is left {power}"]
        return _Found(completed, lost, duplicates, double_installs, problems)

    def _rows(self, table: str, partition: str) -> list[Any]:
        client = self._tables.get_table_client(f"patchwave{table}")
        return list(client.query_entities("PartitionKey eq @partition", parameters={"partition": partition}))

    def _repeated(self) -> int:
        meter: Json = self._product.api.get("/admin/meter").json()
        return sum(counts["repeated"] for counts in meter["activities"].values())


@dataclass(slots=True)
class _Found:
    completed: int
    lost: int
    duplicates: int
    double_installs: int
    problems: list[str]


__all__ = ["MACHINES", "Attempt", "Rig"]
