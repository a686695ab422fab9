"""The assessments that events start: one run of a policy in a quarter of an hour, with all that was asked for."""

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
    """Start the run of this quarter for each policy that has requests waiting, unless it has had one; those runs.

    What a policy cannot start keeps no other policy waiting.
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
    """Start the run of this quarter with all that waits for it; nothing where the quarter has had its run.

    Raises:
        EngineUnavailable: the durable engine did not take the run; the next call finds it.
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
        trigger = Trigger(kind=TriggerKind.EVENT_GRID, by=first.kind, detail=first.event_id)
        narrowed = chosen.changed(policy_for(policy, requests))
        run = await start_run(storage, client, narrowed, run_id, trigger, mode=Mode.ASSESS)
        started.append(run)
    # Of what the stored run holds: another worker may have created it from what waited a moment ago.
    held = served_by(requests, policy, run.policy_snapshot or {}, run.created_at)
    await storage.event_requests.assign(held, run.id)
    return started
