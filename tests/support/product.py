"""The whole product under test: the stack, its API as a client sees it, and the log of the simulator."""

from __future__ import annotations

import json
import ssl
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import httpx

from local.stack import Stack, StackOptions

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
SPEED = 600.0
"""A simulated minute takes a tenth of a second."""
POLL_SECONDS = 0.2
_MACHINES = 600
_ARC_MACHINES = 24

type Json = dict[str, Any]

PLAIN: Json = {
    "installMinutes": 2,
    "assessMinutes": 1,
    "rebootRequired": False,
    "pendingPatches": [{"name": f"patch-{number}", "classification": "Security"} for number in range(3)],
}
"""A machine that just works: three security patches, no reboot."""


def machine_id(number: int) -> str:
    """The id of one machine of the test fleet."""
    return (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-test"
        f"/providers/Microsoft.Compute/virtualMachines/vm-{number:03d}"
    )


def arc_id(number: int) -> str:
    """The id of one Arc machine of the test fleet."""
    group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-arc"
    return f"{group}/providers/Microsoft.HybridCompute/machines/srv-{number:02d}"


def write_fleet(path: Path, machines: int = _MACHINES, arc_machines: int = _ARC_MACHINES) -> Path:
    """A fleet of plain machines, every other one Windows; tests say how their own behave."""
    fleet: list[Json] = [
        {
            "id": machine_id(number),
            "name": f"vm-{number:03d}",
            "location": "westeurope" if number % 4 < 2 else "northeurope",
            "tags": {"env": "test", "number": str(number)},
            "hardwareProfile": {"vmSize": "Standard_D2s_v5"},
            "storageProfile": {"osDisk": {"osType": "Windows" if number % 2 else "Linux"}},
            "simulation": PLAIN,
        }
        for number in range(machines)
    ]
    fleet += [
        {
            "id": arc_id(number),
            "name": f"srv-{number:02d}",
            "location": "westeurope",
            "tags": {"env": "arc", "site": f"plant-{number % 2}"},
            "kind": "VMware",
            "properties": {
                "osType": "windows" if number % 2 else "linux",
                "status": "Connected",
                "cloudMetadata": {"provider": "N/A"},
            },
            "simulation": PLAIN,
        }
        for number in range(arc_machines)
    ]
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(fleet))
    return path


@dataclass
class Product:
    """A running stack. Machines are handed out once, so that tests do not meet on one."""

    stack: Stack
    api: httpx.Client
    azure: httpx.Client
    _numbers: Iterator[int] = field(default_factory=lambda: iter(range(_MACHINES)))
    _arc_numbers: Iterator[int] = field(default_factory=lambda: iter(range(_ARC_MACHINES)))

    @classmethod
    def open(
        cls,
        folder: Path,
        fleet: Path | None = None,
        *,
        workers: int = 1,
        preload: str = "",
        signs_in: bool = False,
        speed: float = SPEED,
        poll_seconds: float = POLL_SECONDS,
        **settings: str,
    ) -> Product:
        """Start everything in a folder, with a fleet of plain machines unless another one is given."""
        stack = Stack(
            StackOptions(
                state=folder,
                port=0,
                fleet=fleet or write_fleet(folder / "fleet.json"),
                speed=speed,
                poll_seconds=poll_seconds,
                workers=workers,
                preload=preload,
                signs_in=signs_in,
                keep_storage=False,
                # As the sample settings have it: every payload is read into a type that was asked for.
                settings={"AZURE_FUNCTIONS_DURABLE_STRICT_TYPING": "1", **settings},
            )
        )
        stack.start()
        trust = ssl.create_default_context(cafile=str(stack.ca))
        return cls(
            stack,
            httpx.Client(base_url=stack.url, timeout=30),
            httpx.Client(base_url=stack.arm, verify=trust, timeout=30),
        )

    def close(self) -> None:
        """End everything."""
        self.api.close()
        self.azure.close()
        self.stack.stop()

    # Azure's side

    def take(self, count: int = 1, **simulation: object) -> list[str]:
        """So many machines that no other test uses, behaving as ``simulation`` says (camelCase keys).

        The first is Linux, the next Windows, and so on, whatever others took before.
        """
        ids = [machine_id(number) for number in islice(self._numbers, count + count % 2)][:count]
        assert len(ids) == count, "the test fleet is used up"
        for one in ids if simulation else []:
            self.simulate(one, **simulation)
        return ids

    def take_arc(self, count: int = 1, **simulation: object) -> list[str]:
        """The same of Arc machines."""
        ids = [arc_id(number) for number in islice(self._arc_numbers, count)]
        assert len(ids) == count, "the Arc machines of the test fleet are used up"
        for one in ids if simulation else []:
            self.simulate(one, **simulation)
        return ids

    def simulate(self, one: str, **simulation: object) -> None:
        """Change how a machine behaves."""
        body = {"id": one, "simulation": PLAIN | simulation}
        reply = self.azure.post("/_sim/machines", json=body)
        assert reply.status_code == 200, reply.text

    def fault(self, one: str, operation: str, *, times: int | None = 1, after: int = 0, **effect: object) -> str:
        """Make requests about a machine go wrong; returns the id of the rule."""
        rule: Json = {"match": {"machine": one, "operation": operation}, "effect": effect, "after": after}
        if times is not None:
            rule["times"] = times
        return self.add_rule(rule)

    def add_rule(self, rule: Json) -> str:
        """Add a fault rule; returns its id."""
        reply = self.azure.post("/_sim/faults", json=rule)
        assert reply.status_code == 201, reply.text
        return str(reply.json()["id"])

    def wait_for_hit(self, rule_id: str) -> None:
        """Wait until a rule has caught a request: the log has it only once it is answered."""

        def hits() -> int:
            rules: list[Json] = self.azure.get("/_sim/faults").json()["faults"]
            return next(int(rule["hits"]) for rule in rules if rule["id"] == rule_id)

        wait_until(hits, what=lambda: f"rule {rule_id} caught nothing")

    def clear_faults(self) -> None:
        """Take all fault rules back."""
        self.azure.delete("/_sim/faults")

    def accepted(self, one: str) -> Json:
        """How many operations Azure accepted on a machine: ``{"assess": n, "install": n}``."""
        accepted: Json = self.azure.get("/_sim/accepted").json()
        return next((counts for key, counts in accepted.items() if key.lower() == one.lower()), {})

    def intervals(self, kind: str = "install") -> list[Json]:
        """When the operations that Azure accepted began and ended, in simulated seconds: ``{machine, start, end}``."""
        return self.azure.get("/_sim/operations", params={"kind": kind}).json()["operations"]

    def state(self, one: str) -> Json:
        """What the simulator knows of a machine."""
        return self.azure.get("/_sim/state", params={"id": one}).json()["machines"][0]

    def requests(self, one: str, operation: str) -> list[Json]:
        """The requests about a machine, oldest first."""
        found: list[Json] = self.azure.get("/_sim/requests", params={"operation": operation}).json()["requests"]
        return [each for each in found if str(each.get("machine", "")).lower() == one.lower()]

    # Our side

    def start(self, ids: list[str], *, mode: str = "patch", **policy: Any) -> str:
        """Start a run over these machines with an inline policy; returns its id."""
        inline = {"scope": {"machineIds": ids}, "maxConcurrent": 50, **policy}
        reply = self.api.post("/api/runs", json={"policy": inline, "mode": mode})
        assert reply.status_code == 202, reply.text
        return str(reply.json()["id"])

    def run(self, run_id: str) -> Json:
        """The run as the API tells it."""
        reply = self.api.get(f"/api/runs/{run_id}")
        assert reply.status_code == 200, reply.text
        return reply.json()

    def wait(self, run_id: str, *, timeout: float = 100) -> Json:
        """Wait until the run has ended; every machine then has exactly one outcome.

        A question whose worker was killed meanwhile is asked again, as any client would.
        """
        last = ""

        def ended() -> Json | None:
            nonlocal last
            reply = self.api.get(f"/api/runs/{run_id}")
            assert reply.status_code == 200 or reply.status_code >= 500, reply.text
            last = reply.text
            return reply.json() if reply.status_code == 200 and reply.json()["endedAt"] else None

        # Each request has the app count the rows of the run: its end is polled less often than a short wait.
        run = wait_until(ended, timeout=timeout, what=lambda: f"run {run_id}: {last}", pause=0.2)
        assert sum(run["countsByOutcome"].values()) == run["machines"], run
        return run

    def machines(self, run_id: str) -> dict[str, Json]:
        """The machines of a run by their id in lower case."""
        rows: list[Json] = []
        cursor: str | None = None
        while True:
            parameters = {"limit": "100"} | ({"cursor": cursor} if cursor else {})
            page = self.api.get(f"/api/runs/{run_id}/machines", params=parameters).json()
            rows += page["machines"]
            cursor = page["cursor"]
            if cursor is None:
                return {row["id"].lower(): row for row in rows}

    def patch(self, ids: list[str], *, timeout: float = 100, **policy: Any) -> dict[str, Json]:
        """Run to the end; the machines by id."""
        run_id = self.start(ids, **policy)
        self.wait(run_id, timeout=timeout)
        return self.machines(run_id)

    def patch_one(self, one: str, **policy: Any) -> Json:
        """Run one machine to the end; its row."""
        return self.patch([one], **policy)[one.lower()]


def wait_until[T](
    probe: Callable[[], T | None],
    *,
    timeout: float = 60,
    what: Callable[[], str] = lambda: "nothing happened",
    pause: float = 0.05,
) -> T:
    """Ask until the answer is true; fails with a sentence when it never is."""
    deadline = time.monotonic() + timeout
    while True:
        found = probe()
        if found:
            return found
        assert time.monotonic() < deadline, what()
        time.sleep(pause)
