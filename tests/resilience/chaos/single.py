"""A run over one machine in virtual time, with any answers of Azure, and what became of it.

The app, the engine and the simulator are the real ones; storage is in memory, and nothing is lost on the way to it.
"""

from __future__ import annotations

import json
from contextlib import ExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from local.azure_simulator.fleet import read_fleet
from patchwave.azure import credentials
from patchwave.domain.core.ids import MachineId, RunId
from patchwave.domain.policy.policy import parse_inline_policy
from patchwave.domain.runs.provenance import written
from patchwave.domain.runs.run import Mode, Trigger, TriggerKind
from patchwave.services.start_run import start_run
from patchwave.settings import load_settings
from patchwave.storage.engine import table
from patchwave.storage.engine.store import Store
from patchwave.wiring import current_services
from tests.resilience.chaos import schedule
from tests.resilience.chaos.azure import Azure, make_clock
from tests.resilience.chaos.cluster import Cluster
from tests.resilience.chaos.fault_schedule import FaultSchedule
from tests.resilience.chaos.tables import MemoryTables
from tests.resilience.chaos.virtual_time import EPOCH, VirtualLoop, virtual_clocks
from tests.support.product import SUBSCRIPTION, machine_id

type Json = dict[str, Any]

ONE = machine_id(0)
KEY = MachineId.parse(ONE).key
_LONGEST = timedelta(hours=30)


@dataclass(slots=True, kw_only=True)
class Ended:
    """What became of the machine.

    Attributes:
        row: the machine's row in the run.
        accepted: accepted operations by kind.
        runs: whether an operation still ran on the machine when the run had ended.
        is_locked: whether the run holds the machine's lock after its end.
        requests: what was sent about the machine, in order: operation and status.
    """

    row: Json
    accepted: dict[str, int]
    runs: bool
    is_locked: bool
    requests: list[tuple[str, int]] = field(default_factory=list[tuple[str, int]])

    def sent(self, operation: str) -> list[int]:
        """The answers to such requests, in order."""
        return [status for name, status in self.requests if name == operation]


def play(faults: list[Json], *, mode: Mode = Mode.PATCH, policy: Json | None = None, **simulation: Any) -> Ended:
    """A run over one machine, whose requests of the simulator go wrong by these rules."""
    loop = VirtualLoop()
    fault_schedule = FaultSchedule(seed=1, faults=tuple(faults))
    with ExitStack() as stack:
        stack.callback(loop.close)
        stack.enter_context(schedule._seeded(fault_schedule.seed))
        stack.enter_context(virtual_clocks(loop))
        clock = make_clock(loop)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "fleet.json"
            path.write_text(json.dumps([_machine(simulation)]))
            azure = Azure(loop, fault_schedule, read_fleet(path, clock, fault_schedule.seed).machines, clock)
        tables = MemoryTables(loop, fault_schedule)
        stack.enter_context(patch.dict("os.environ", schedule._SETTINGS | {"PATCHWAVE_POLL_SECONDS": "30"}))
        load_settings.cache_clear()
        stack.callback(load_settings.cache_clear)
        stack.enter_context(patch.object(Store, "open", schedule._opens(tables)))
        stack.enter_context(patch.object(table, "TableRequests", lambda of_table: of_table))
        stack.enter_context(patch.object(credentials._clients, "_make", lambda _: azure.credential))
        stack.enter_context(azure.reached())
        wanted = {"scope": {"subscriptions": [SUBSCRIPTION]}} | (policy or {})
        return loop.run_until_complete(_run(loop, fault_schedule, azure, tables, mode, wanted))


def _machine(simulation: Json) -> Json:
    return {
        "id": ONE,
        "name": ONE.rpartition("/")[2],
        "location": "westeurope",
        "storageProfile": {"osDisk": {"osType": "Linux"}},
        "simulation": {
            "installMinutes": 20,
            "assessMinutes": 2,
            "pendingPatches": [{"name": "patch-1", "classification": "Security"}],
            "rebootRequired": False,
            **simulation,
        },
    }


async def _run(
    loop: VirtualLoop, fault_schedule: FaultSchedule, azure: Azure, tables: MemoryTables, mode: Mode, wanted: Json
) -> Ended:
    policy = parse_inline_policy(wanted)
    run_id = RunId.of(EPOCH, policy.name, "00000001")
    async with Cluster(loop, fault_schedule, workers=1) as cluster:
        await start_run(
            current_services().storage,
            cluster,
            written(policy, author="", author_id=""),
            run_id,
            Trigger(kind=TriggerKind.HTTP),
            mode=mode,
        )
        await schedule._wait(lambda: cluster.has_ended(run_id.text), _LONGEST)
        assert cluster.has_ended(run_id.text), "the run did not end"
        assert tables.impossible == []
        machine = azure.state.machines[ONE.lower()]
        clock_now = azure.state.clock.now()
        row = schedule._machines(tables, run_id.text)[KEY]
        return Ended(
            row=row,
            accepted=dict(machine.accepted),
            runs=any(each.get("end") is None or each["end"] > clock_now for each in azure.state.intervals("")),
            is_locked=bool(await current_services().storage.leases.held([KEY], run_id.text, loop.now())),
            requests=[(str(each["operation"]), int(each["status"])) for each in _requests(azure)],
        )


def _requests(azure: Azure) -> list[Json]:
    return [each for each in azure.state.request_log.documents() if str(each["machine"]).lower() == ONE.lower()]


__all__ = ["KEY", "ONE", "Ended", "play"]
