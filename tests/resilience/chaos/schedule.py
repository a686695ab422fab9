"""One random schedule: a run over a hundred machines under a schedule of faults, in virtual time, and its result.

assert not play(FaultSchedule.of(17, machine_ids(), SECONDS)).problems
"""

from __future__ import annotations

import asyncio
import gc
import json
import logging
import random
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest.mock import patch

from local.azure_simulator.fleet import read_fleet
from local.functions_host.durable.engine import FINISHED
from patchwave.azure import credentials
from patchwave.domain.core.ids import MachineId, RunId
from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.policy.policy import parse_inline_policy
from patchwave.domain.runs.provenance import written
from patchwave.domain.runs.run import Trigger, TriggerKind
from patchwave.services.start_run import start_run
from patchwave.settings import Settings, load_settings
from patchwave.storage.engine import table
from patchwave.storage.engine.store import Store
from patchwave.storage.run_machines import MACHINES as MACHINES_PREFIX
from patchwave.wiring import current_services
from tests.resilience.chaos.azure import BASE_URL, Azure, make_clock
from tests.resilience.chaos.cluster import Cluster
from tests.resilience.chaos.fault_schedule import FaultSchedule
from tests.resilience.chaos.tables import MemoryTables
from tests.resilience.chaos.virtual_time import EPOCH, VirtualLoop, virtual_clocks
from tests.support.product import SUBSCRIPTION, machine_id

type Json = dict[str, Any]

MACHINES = 100
SECONDS = 5_400.0
"""About how long the run takes without faults: kills and outages fall within it."""
LONGEST = timedelta(hours=24)
"""Faults make a run longer, but not longer than this: an installation without any further result ends with its
window of two hours, whatever it has to wait for then."""
_POLICY: Json = {"scope": {"subscriptions": [SUBSCRIPTION]}, "maxConcurrent": 40, "startStopped": True}
_POLL_EVERY = timedelta(seconds=30)
_POLL_SECONDS = "180"
_SETTINGS = {
    "PATCHWAVE_RESOURCE_MANAGER": BASE_URL,
    "PATCHWAVE_TABLES_CONNECTION": "UseDevelopmentStorage=true",
    "PATCHWAVE_POLL_SECONDS": _POLL_SECONDS,
    "AZURE_FUNCTIONS_DURABLE_STRICT_TYPING": "1",
}
_MAX_LEASE = timedelta(hours=30)
_SIGNED = ("i~", "g~")
"""Rows that hold operation URLs, which are signed."""


@dataclass(slots=True, kw_only=True)
class Played:
    """What became of a schedule.

    Attributes:
        problems: sentences; none when every invariant held.
        outcomes: machines by outcome.
        virtual_seconds: how long the run took.
        kills, doubled, faults: workers killed, activities executed twice at a time, requests to Azure spoilt.
        storage_requests, azure_requests: how many were sent.
    """

    problems: list[str] = field(default_factory=list[str])
    outcomes: Counter[str] = field(default_factory=Counter[str])
    virtual_seconds: float = 0
    kills: int = 0
    doubled: int = 0
    faults: int = 0
    storage_requests: int = 0
    azure_requests: int = 0


def machine_ids() -> list[str]:
    """The ARM ids of the fleet of all schedules."""
    return [machine_id(number) for number in range(MACHINES)]


def play(fault_schedule: FaultSchedule) -> Played:
    """Play one schedule to its end, and look at it from all sides."""
    loop = VirtualLoop()
    with ExitStack() as stack:
        stack.callback(loop.close)
        stack.enter_context(_seeded(fault_schedule.seed))
        stack.enter_context(virtual_clocks(loop))
        return loop.run_until_complete(_play(loop, fault_schedule))


def shrunk(fault_schedule: FaultSchedule) -> FaultSchedule:
    """The fewest faults that still break something: faults, kills and shares are left out one by one."""
    is_smaller = True
    while is_smaller:
        is_smaller = False
        for smaller in _smaller(fault_schedule):
            if play(smaller).problems:
                fault_schedule, is_smaller = smaller, True
                break
    return fault_schedule


def _smaller(fault_schedule: FaultSchedule) -> Iterator[FaultSchedule]:
    for name in ("faults", "kills", "outages"):
        parts: tuple[Any, ...] = getattr(fault_schedule, name)
        for index in range(len(parts)):
            yield replace(fault_schedule, **{name: parts[:index] + parts[index + 1 :]})
    for name in ("lost_requests", "lost_answers", "twice", "late"):
        if getattr(fault_schedule, name):
            yield replace(fault_schedule, **{name: 0})


@contextmanager
def _seeded(seed: int) -> Generator[None]:
    """The app spreads its waits by the process's random source. Nothing is worth collecting before the end."""
    before = random.getstate()
    random.seed(seed)
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
        random.setstate(before)


async def _play(loop: VirtualLoop, fault_schedule: FaultSchedule) -> Played:
    clock = make_clock(loop)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "fleet.json"
        path.write_text(json.dumps(_fleet(fault_schedule.seed)))
        azure = Azure(loop, fault_schedule, read_fleet(path, clock, fault_schedule.seed).machines, clock)
    tables = MemoryTables(loop, fault_schedule)
    log = _Log()
    with ExitStack() as stack:
        stack.enter_context(patch.dict("os.environ", _SETTINGS))
        load_settings.cache_clear()
        stack.callback(load_settings.cache_clear)
        stack.enter_context(patch.object(Store, "open", _opens(tables)))
        stack.enter_context(patch.object(table, "TableRequests", lambda of_table: of_table))
        stack.enter_context(patch.object(credentials._clients, "_make", lambda _: azure.credential))
        stack.enter_context(azure.reached())
        stack.enter_context(log.listening())
        return await _run(loop, fault_schedule, azure, tables, log)


def _opens(tables: Any) -> Callable[[Settings], Store]:
    """In the place of `Store.open`: tables in memory instead of the library's client."""
    return lambda settings: Store(tables, settings.table_prefix, settings.storage_batch_delay_seconds)


async def _run(
    loop: VirtualLoop, fault_schedule: FaultSchedule, azure: Azure, tables: MemoryTables, log: _Log
) -> Played:
    played = Played()
    policy = parse_inline_policy(_POLICY | {"health": {"enabled": fault_schedule.seed % 4 == 0}})
    run_id = RunId.of(EPOCH, policy.name, f"{fault_schedule.seed:08x}")
    async with Cluster(loop, fault_schedule) as cluster:
        # A caller who is not answered starts it again; here it is started once.
        tables.fault_schedule = FaultSchedule(seed=fault_schedule.seed)
        await start_run(
            current_services().storage,
            cluster,
            written(policy, author="", author_id=""),
            run_id,
            Trigger(kind=TriggerKind.HTTP),
        )
        tables.fault_schedule = fault_schedule
        await _wait(lambda: cluster.has_ended(run_id.text), LONGEST)
        played.virtual_seconds = loop.time()
        # What is told beside the run may take a little longer.
        await _wait(lambda: _all_ended(cluster), timedelta(hours=1))
        played.kills, played.doubled = cluster.kills, cluster.doubled
        played.faults = sum(rule["hits"] for rule in azure.state.faults.documents())
        played.storage_requests, played.azure_requests = tables.requests, azure.state.request_log.count
        tables.fault_schedule = FaultSchedule(seed=fault_schedule.seed)
        played.problems += await _copies(run_id.text, _machines(tables, run_id.text), loop)
        _judge(played, run_id.text, cluster, azure, tables, log)
    return played


async def _wait(has_come: Callable[[], bool], longest: timedelta) -> None:
    for _ in range(int(longest / _POLL_EVERY)):
        if has_come():
            return
        await asyncio.sleep(_POLL_EVERY.total_seconds())


def _all_ended(cluster: Cluster) -> bool:
    return all(instance.status in FINISHED for instance in cluster.engine._instances.values())


def _fleet(seed: int) -> list[Json]:
    """A hundred machines in two regions: most just work, some are stopped, some reboot, some are slow."""
    source = random.Random(f"fleet:{seed}")
    kinds: list[Json] = [*[{}] * 15, *[{"power": "deallocated"}] * 2, *[{"rebootRequired": True}] * 2]
    kinds.append({"installMinutes": 25})
    return [
        {
            "id": one,
            "name": one.rpartition("/")[2],
            "location": "westeurope" if number % 2 else "northeurope",
            "storageProfile": {"osDisk": {"osType": "Windows" if number % 3 else "Linux"}},
            "simulation": {
                "installMinutes": source.randint(3, 8),
                "assessMinutes": 1,
                "pendingPatches": [{"name": "patch-1", "classification": "Security"}],
                "rebootRequired": False,
                **source.choice(kinds),
            },
        }
        for number, one in enumerate(machine_ids())
    ]


# --- what has to hold


def _judge(played: Played, run_id: str, cluster: Cluster, azure: Azure, tables: MemoryTables, log: _Log) -> None:
    problems = played.problems
    run = next((row.columns for (_, key), row in tables.rows["patchwaveruns"].items() if key.endswith(run_id)), {})
    keys = {MachineId.parse(one).key for one in machine_ids()}
    rows = _machines(tables, run_id)
    played.outcomes.update(str(row.get("outcome")) for row in rows.values())
    if run.get("state") != "completed":
        problems.append(f"the run is {run.get('state')}: {run.get('stopReason') or run.get('waitingFor')}")
    if rows.keys() != keys:
        problems.append(f"{len(rows)} rows for {len(keys)} machines")
    stages = Counter(str(row.get("stage")) for row in rows.values() if not row.get("outcome"))
    if stages:
        problems.append(f"machines without an outcome, by stage: {dict(stages)}")
    if json.loads(run.get("countsByOutcome", "{}")) != played.outcomes:
        problems.append(f"the run counts {run.get('countsByOutcome')}, its rows {dict(played.outcomes)}")
    problems += _installs(rows, azure)
    problems += _orchestrations(cluster)
    if played.virtual_seconds >= LONGEST.total_seconds():
        problems.append(f"the run took {played.virtual_seconds / 3600:.1f} hours")
    problems += tables.impossible
    problems += _secrets(azure, tables, cluster, log)


def _machines(tables: MemoryTables, run_id: str) -> dict[str, Json]:
    stored = tables.rows["patchwaveresults"].items()
    return {
        key.removeprefix(MACHINES_PREFIX): row.columns
        for (owner, key), row in stored
        if owner == run_id and key.startswith(MACHINES_PREFIX)
    }


def _orchestrations(cluster: Cluster) -> Iterator[str]:
    instances = cluster.engine._instances.items()
    left = [key for key, each in instances if each.status not in FINISHED]
    if left:
        yield f"{len(left)} orchestrations are left, such as {left[0]}"
    for key, each in instances:
        if each.failure_details is not None:
            yield f"{key} failed: {each.failure_details.errorType}: {each.failure_details.errorMessage}"


def _installs(rows: dict[str, Json], azure: Azure) -> Iterator[str]:
    accepted: Counter[str] = Counter()
    for operation in azure.state.intervals("install"):
        accepted[MachineId.parse(operation["machine"]).key] += 1
    for key, row in rows.items():
        if accepted[key] > 1:
            yield f"{row['id']} was installed {accepted[key]} times"
        if row.get("outcome") == "patched" and accepted[key] != 1:
            yield f"{row['id']} is said to be patched after {accepted[key]} installations"


async def _copies(run_id: str, rows: dict[str, Json], loop: VirtualLoop) -> list[str]:
    """The lock and the history of each machine."""
    storage = current_services().storage
    free = (OutcomeKind.PATCHED, OutcomeKind.NOTHING_TO_INSTALL, OutcomeKind.REBOOT_REQUIRED)
    ended = [key for key, row in rows.items() if row.get("outcome") in free]
    problems = [f"{rows[key]['id']} is still locked" for key in await storage.leases.held(ended, run_id, loop.now())]
    expired = await storage.leases.held(rows, run_id, loop.now() + _MAX_LEASE)
    problems += [f"{rows[key]['id']} is locked for days" for key in expired]
    for key, row in rows.items():
        ends = [end for end in (await storage.history.list_page(key, 10, None)).items if end["runId"] == run_id]
        if len(ends) != 1:
            problems.append(f"{row['id']} has {len(ends)} rows of history")
    return problems


def _secrets(azure: Azure, tables: MemoryTables, cluster: Cluster, log: _Log) -> Iterator[str]:
    secrets = ("/operations/", azure.credential.secret)
    texts = {
        f"row {key}": str(row)
        for rows in tables.rows.values()
        for (_, key), row in rows.items()
        if not key.startswith(_SIGNED)
    }
    for key, instance in cluster.engine._instances.items():
        texts[f"history of {key}"] = f"{instance.input}{instance.output}{instance.history}"
    texts["the log"] = "\n".join(log.lines)
    for where, text in texts.items():
        if any(secret in text for secret in secrets):
            yield f"{where} holds a secret"


class _Log(logging.Handler):
    """Everything that is logged."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record))

    @contextmanager
    def listening(self) -> Generator[None]:
        root = logging.getLogger()
        root.addHandler(self)
        try:
            yield
        finally:
            root.removeHandler(self)


__all__ = ["MACHINES", "SECONDS", "Played", "machine_ids", "play", "shrunk"]
