"""Debounces event assessments: one run per policy and quarter of an hour, with all requests of that time."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime
from itertools import groupby

from patchwave.domain.policy.policy import PolicyError
from patchwave.domain.runs.provenance import WrittenPolicy
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.domain.scheduling.event_requests import EventRequest, policy_for, run_of_quarter, served_by
from patchwave.services.start_run import DurableClient, read_stored, start_run
from patchwave.storage import Storage

_LOG = logging.getLogger("patchwave.events")


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
    """Start this quarter's run with all open requests; nothing if the quarter has had its run.

    Raises:
        EngineUnavailable: the durable engine did not accept the run; the next call finds it.
    """
    policy = chosen.policy
    requests = await storage.event_requests.list_open(policy.name) if waiting is None else waiting
    if not requests:
        return []
    run_id = run_of_quarter(policy.name, now)
    run = await storage.runs.get(run_id.text)
    started: list[Run] = []
    if run is None or run.state is RunState.QUEUED:
        first = min(requests, key=lambda request: (request.at, request.key))
        trigger = Trigger(kind=TriggerKind.EVENT_GRID, actor=first.kind, detail=first.event_id)
        narrowed = chosen.changed(policy_for(policy, requests))
        run = await start_run(storage, client, narrowed, run_id, trigger, mode=Mode.ASSESS)
        started.append(run)
    # The stored run's requests: another worker may have created it with fewer of them.
    held = served_by(requests, policy, run.policy_snapshot or {}, run.created_at)
    await storage.event_requests.assign(held, run.id)
    return started
