"""Starts catch-ups: machines that were off or not ready in a window, once they are back while it is open.

Called by the timer, and for an event that says that a machine was started. Both read the power of waiting machines
only, and a bounded number of them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime

from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.instance_view import MachineView, Power
from patchwave.domain.core.documents import object_or_none, strings_or_empty
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import MachineId, MachineType
from patchwave.domain.core.outcome import Reason
from patchwave.domain.fleet.discovery import build_queries, read_row
from patchwave.domain.fleet.exclusions import CONNECTED
from patchwave.domain.planning.topology import PlannerMachine
from patchwave.domain.policy.policy import Policy, PolicyMode
from patchwave.domain.policy.scope import Scope
from patchwave.domain.runs.catch_up import (
    MAX_MACHINES,
    CatchUpRequest,
    CatchUpStep,
    next_step,
    origin_of,
    policy_for,
    rings_of,
    run_of_tick,
    tick_number,
    window_of,
)
from patchwave.domain.runs.provenance import WrittenPolicy, written
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.domain.scheduling.upcoming import ScheduleDecision, decide
from patchwave.services.start_run import DurableClient, read_stored, start_run
from patchwave.storage import Storage, in_parallel
from patchwave.wiring import Services

MAX_AGENT_READS = 20
"""Machines without a ready agent that are read at one tick; Resource Graph does not show the agent."""
_LOG = logging.getLogger("patchwave.catchup")
_PARALLEL = 5


async def start_catch_ups(services: Services, client: DurableClient, now: datetime) -> list[Run]:
    """Start a catch-up for each run whose window is open and of whose machines some are back; returns the runs.

    A failure about one run does not affect the others.
    """
    waiting = await services.storage.catch_ups.list_open()
    return await _start(services, client, now, waiting)


async def catch_up_started_machine(
    services: Services, client: DurableClient, machine: MachineId, now: datetime
) -> list[Run]:
    """The same for the run that waits for this machine, which an event says was started.

    Costs a point read when no run waits for it. Azure is asked whether it really runs.
    """
    request = await services.storage.catch_ups.get(machine.key)
    if request is None:
        return []
    view = await services.resource_manager.read_machine(machine)
    if isinstance(view, ArmFailure) or view.power is not Power.RUNNING:
        return []
    waiting = [each for each in await services.storage.catch_ups.list_open() if each.run_id == request.run_id]
    return await _start(services, client, now, waiting, known={request.key})


async def _start(
    services: Services,
    client: DurableClient,
    now: datetime,
    waiting: Sequence[CatchUpRequest],
    known: Collection[str] = (),
) -> list[Run]:
    runs: list[Run] = []
    if not waiting:
        return runs
    storage = services.storage
    live = {origin_of(run): run.id for run in await storage.runs.list_live() if run.trigger.retry_of}
    for origin_id, requests in (await _by_origin(storage, waiting)).items():
        try:
            run = await _catch_up(services, client, await storage.runs.get(origin_id), live, requests, known, now)
        except Exception:
            _LOG.exception("The machines of the run %s could not be caught up.", origin_id)
            continue
        if run is not None:
            runs.append(run)
    return runs


async def _by_origin(storage: Storage, waiting: Sequence[CatchUpRequest]) -> dict[str, list[CatchUpRequest]]:
    """The requests by the first run of their window, which a catch-up names."""
    runs = {run_id: await storage.runs.get(run_id) for run_id in {each.run_id for each in waiting}}
    found: dict[str, list[CatchUpRequest]] = {}
    for request in waiting:
        run = runs[request.run_id]
        found.setdefault(origin_of(run) if run is not None else request.run_id, []).append(request)
    return found


async def _catch_up(
    services: Services,
    client: DurableClient,
    origin: Run | None,
    live: Mapping[str, str],
    requests: Sequence[CatchUpRequest],
    known: Collection[str],
    now: datetime,
) -> Run | None:
    """Start the catch-up of this tick, with the machines that are back; ``None`` when there is none to start.

    ``live``: catch-ups that have not ended, by the run that they follow.
    """
    storage = services.storage
    step = next_step(origin, live, now)
    if step is CatchUpStep.DROP:
        await storage.catch_ups.remove(requests)
    if step is CatchUpStep.WAIT and origin is not None and origin.id in live:
        # The process that started it may have died before it had removed the requests.
        await _remove_taken(storage, requests, await storage.runs.get(live[origin.id]))
    if step is not CatchUpStep.START or origin is None or not await _is_allowed(storage, origin, now):
        return None
    run_id = run_of_tick(origin, now)
    run = await storage.runs.get(run_id.text)
    if run is None:
        back = await _find_back(services, requests, known, now)
        if not back:
            return None
        run = await _start_run(services, client, origin, back, now)
    elif run.state is RunState.QUEUED and run.policy_snapshot is not None:
        # Another process died between the row of the run and its orchestration.
        run = await start_run(storage, client, _written(run), run_id, run.trigger)
    # The stored run's machines: another worker may have created it with fewer of them.
    await _remove_taken(storage, requests, run)
    return run


async def _remove_taken(storage: Storage, requests: Sequence[CatchUpRequest], run: Run | None) -> None:
    """Remove the requests that a catch-up has taken; one that is newer than the run stays."""
    if run is not None:
        scope = object_or_none((run.policy_snapshot or {}).get("scope")) or {}
        taken = {fold(text) for text in strings_or_empty(scope.get("machineIds"))}
        await storage.catch_ups.remove(
            [each for each in requests if fold(each.id) in taken and each.at <= run.created_at]
        )


async def _is_allowed(storage: Storage, origin: Run, now: datetime) -> bool:
    """Whether the policy, as it is stored now, still lets its schedule start something in the window."""
    stored, window = await storage.policies.get(origin.policy), window_of(origin)
    if stored is None or window is None:
        return False
    policy = read_stored(stored).policy
    if policy.mode is not PolicyMode.PATCH or not policy.retry_in_next_window:
        return False
    controls, freezes = await storage.overrides.get(policy.name), await storage.freezes.list_all()
    return decide(policy, controls, freezes, window, now=now).decision is ScheduleDecision.RUN


async def _start_run(
    services: Services, client: DurableClient, origin: Run, back: Sequence[CatchUpRequest], now: datetime
) -> Run:
    storage = services.storage
    run_id, chosen = run_of_tick(origin, now), _written(origin)
    ids = [each.id for each in back]
    rings: dict[str, list[str]] = {}
    if any(ring.percent is not None for ring in chosen.policy.rings):
        # A per cent is one of all machines of the run.
        machines = [
            PlannerMachine(
                id=each.id, key=each.key, location=each.location, os_type=each.os_type, image=each.image, tags=each.tags
            )
            async for each in storage.machines.scan(origin.id)
        ]
        rings = rings_of(chosen.policy, machines, set(ids))
    pin = await storage.patch_pins.get(origin.id) if chosen.policy.pin_rings else None
    if pin is not None:
        await storage.patch_pins.save(run_id.text, pin)
    number = "1 machine" if len(back) == 1 else f"{len(back)} machines"
    trigger = Trigger(
        kind=TriggerKind.TIMER,
        actor="timer",
        detail=f"catch-up of {origin.id}: {number} that {'was' if len(back) == 1 else 'were'} off or not ready",
        retry_of=origin.id,
    )
    narrowed = chosen.changed(policy_for(origin, ids, rings))
    return await start_run(storage, client, narrowed, run_id, trigger, mode=Mode.PATCH, occurrence=window_of(origin))


def _written(run: Run) -> WrittenPolicy:
    policy = Policy.model_validate(run.policy_snapshot)
    origin = run.policy_origin
    return WrittenPolicy(policy, origin) if origin else written(policy, author="", author_id="")


# --- which machines are back


async def _find_back(
    services: Services, requests: Sequence[CatchUpRequest], known: Collection[str], now: datetime
) -> list[CatchUpRequest]:
    """The machines that run now, and whose agent is ready where it was not; at most `MAX_MACHINES`."""
    unready = [each for each in requests if each.reason == Reason.AGENT_NOT_READY and each.key not in known]
    off = [each for each in requests if each.reason != Reason.AGENT_NOT_READY and each.key not in known]
    running = await _running(services, _of_tick(off, MAX_MACHINES, now))
    ready = await _ready(services, _of_tick(unready, MAX_AGENT_READS, now))
    found = [each for each in requests if each.key in {*known, *running, *ready}]
    return found[:MAX_MACHINES]


def _of_tick(requests: Sequence[CatchUpRequest], most: int, now: datetime) -> list[CatchUpRequest]:
    """As many of the requests as one tick asks about; others are asked about at the next ones."""
    if len(requests) <= most:
        return list(requests)
    start = tick_number(now) * most % len(requests)
    return [*requests[start:], *requests[:start]][:most]


_BACK = ("powerstate/running", CONNECTED)
"""Power states of virtual machines, and the status of Arc machines."""


async def _running(services: Services, requests: Sequence[CatchUpRequest]) -> set[str]:
    """The keys of those that Resource Graph shows as running or connected, by a query for each 200; minutes behind."""
    found: set[str] = set()
    if not requests:
        return found
    scope = Scope(machine_ids=tuple(each.id for each in requests), machine_types=tuple(MachineType))
    for query in build_queries(scope):
        page = await services.resource_graph.page(query.text, query.subscriptions)
        if page.failure is not None:
            _LOG.warning("The power of %d machines could not be read: %s", len(requests), page.failure.text)
            break
        shown = [read_row(row) for row in page.rows]
        found |= {each.machine_id.key for each in shown if fold(each.power_state) in _BACK and not each.problem}
    return found


async def _ready(services: Services, requests: Sequence[CatchUpRequest]) -> set[str]:
    """The keys of those that run and whose agent is ready, by a read of each."""

    async def read(request: CatchUpRequest) -> MachineView | ArmFailure:
        return await services.resource_manager.read_machine(MachineId.parse(request.id))

    views = await in_parallel(read, requests, most=_PARALLEL)
    return {
        request.key
        for request, view in zip(requests, views, strict=True)
        if not isinstance(view, ArmFailure) and view.is_up
    }
