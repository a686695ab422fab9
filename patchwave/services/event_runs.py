"""Debounces runs that events ask for: one per policy and quarter of an hour, with all requests of that time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta
from itertools import groupby

from patchwave.domain.calendar.schedule import Occurrence
from patchwave.domain.core.ids import RunId, machine_key
from patchwave.domain.policy.policy import Policy, PolicyError, PolicyMode
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.provenance import WrittenPolicy
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.domain.scheduling.event_requests import EventRequest, due_at, policy_for, run_of_quarter, served_by
from patchwave.domain.scheduling.event_starts import EventVerdict, decide_event_start
from patchwave.services.start_run import DurableClient, read_stored, start_run
from patchwave.storage import Storage, in_parallel

_LOG = logging.getLogger("patchwave.events")
_DISCOVERY = timedelta(minutes=15)
"""After this a run has listed its machines, and what it has not is not its own."""
_PARALLEL = 16
_MAX_NAMED = 50
"""Machines that one line of the audit log names."""


async def start_waiting_requests(storage: Storage, client: DurableClient, now: datetime) -> list[Run]:
    """Start this quarter's run for each policy with open requests, unless it has had one; returns the runs.

    A failure of one policy does not affect the others.
    """
    runs: list[Run] = []
    for name, requests in groupby(await storage.event_requests.list_open(), key=lambda request: request.policy):
        waiting = list(requests)
        try:
            stored = await storage.policies.get(name)
            chosen = read_stored(stored) if stored is not None else None
            if chosen is None or not chosen.policy.enabled:
                await storage.event_requests.remove(waiting)
                continue
            runs += await start_requested(storage, client, chosen, now, waiting)
        except PolicyError as error:
            _LOG.error("The policy %s is not valid: %s", name, error)
        except Exception:
            _LOG.exception("What events asked of the policy %s could not be started.", name)
    return runs


async def start_requested(
    storage: Storage,
    client: DurableClient,
    chosen: WrittenPolicy,
    now: datetime,
    waiting: Sequence[EventRequest] | None = None,
) -> list[Run]:
    """Start this quarter's run with all requests that are due; nothing if the quarter has had its run.

    A run that installs keeps to pauses, freezes and windows: until then the requests stay.

    Raises:
        EngineUnavailable: the durable engine did not accept the run; the next call finds it.
    """
    policy = chosen.policy
    listed = await storage.event_requests.list_open(policy.name) if waiting is None else waiting
    requests = [each for each in listed if due_at(policy, each) <= now]
    if not requests:
        return []
    verdict = await _decide(storage, policy, now)
    if verdict.waits:
        await _note_wait(storage, policy.name, verdict, requests)
        return []
    if verdict.own is not None:
        requests = await _without_own_run(storage, policy, verdict.own, requests, now)
    if not requests:
        return []
    run_id = run_of_quarter(policy.name, now)
    run = await storage.runs.get(run_id.text)
    started: list[Run] = []
    if run is None or run.state is RunState.QUEUED:
        first = min(requests, key=lambda request: (request.at, request.key))
        trigger = Trigger(kind=TriggerKind.EVENT_GRID, actor=first.kind, detail=first.event_id)
        narrowed = chosen.changed(policy_for(policy, requests))
        mode = Mode(policy.event_mode.value)
        run = await start_run(storage, client, narrowed, run_id, trigger, mode=mode, occurrence=verdict.window)
        started.append(run)
    # The stored run's requests: another worker may have created it with fewer of them.
    held = served_by(requests, policy, run.policy_snapshot or {}, run.created_at)
    await storage.event_requests.assign(held, run.id)
    return started


async def _decide(storage: Storage, policy: Policy, now: datetime) -> EventVerdict:
    if policy.event_mode is PolicyMode.ASSESS:
        return EventVerdict()
    controls, freezes = await storage.overrides.get(policy.name), await storage.freezes.list_all()
    return decide_event_start(policy, controls, freezes, now)


async def _note_wait(storage: Storage, policy: str, verdict: EventVerdict, requests: Sequence[EventRequest]) -> None:
    """Audit why requests wait, once for each reason and first request, so that repetitions are equal."""
    action = "event_requests_dropped" if verdict.is_over else "event_requests_wait"
    detail: dict[str, object] = {"reason": verdict.waits}
    if verdict.is_over:
        detail["machines"] = sorted(each.machine_id for each in requests)[:_MAX_NAMED]
        detail["requests"] = len(requests)
    first = min(each.at for each in requests)
    await storage.audit.add(policy, action, actor="timer", at=first, detail=detail)
    if verdict.is_over:
        await storage.event_requests.remove(requests)


async def _without_own_run(
    storage: Storage, policy: Policy, own: Occurrence, requests: Sequence[EventRequest], now: datetime
) -> list[EventRequest]:
    """The requests that may start a run beside that of the policy's own schedule in the open window.

    That run serves a machine that it has and has not ended, and the whole scope when it was created after the request.
    Not decided yet are machines that it has not while it lists them, and the whole scope once more while it lasts.
    """
    run = await storage.runs.get(RunId.of(own.at_utc, policy.name).text)
    if run is None:
        # The timer is about to create it, or another run goes on in the window.
        may_start = now - own.at_utc >= _DISCOVERY and not policy.rings_depend_on_scope
        return list(requests) if may_start else []
    is_listing = not run.state.is_final and now - run.created_at < _DISCOVERY

    async def read(request: EventRequest) -> MachineRecord | None:
        return await storage.machines.get(run.id, machine_key(request.machine_id)) if request.machine_id else None

    served: list[EventRequest] = []
    rest: list[EventRequest] = []
    for request, machine in zip(requests, await in_parallel(read, requests, most=_PARALLEL), strict=True):
        is_open = machine is not None and machine.outcome is None
        if is_open or (not request.machine_id and due_at(policy, request) <= run.created_at):
            served.append(request)
        elif not (is_listing and machine is None if request.machine_id else not run.state.is_final):
            rest.append(request)
    await storage.event_requests.assign(served, run.id)
    return rest if _may_start_beside(policy, run) else []


def _may_start_beside(policy: Policy, own: Run) -> bool:
    """Whether machines of events may be patched in the window of that run of the schedule.

    Not while a person or a gate holds it, and not after one has ended it. Machines of rings that wait for others come
    after all rings have ended well.
    """
    if own.state.is_final or policy.rings_depend_on_scope:
        return own.state in (RunState.COMPLETED, RunState.EMPTY)
    return own.state not in (RunState.PAUSED, RunState.HELD)
