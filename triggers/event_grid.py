"""maintenance_event: events of Azure start runs. The answer is immediate; the work is a run."""

from __future__ import annotations

import hashlib
import logging
from datetime import UTC, datetime

import azure.durable_functions as df

from adapters.tables import Records, StoredPolicy, open_records
from domain.azure_event import AzureEvent, EventKind, read_event
from domain.base import as_object
from domain.policy import Policy, PolicyError, apply_overrides
from domain.run import Mode, Run, Trigger, TriggerKind
from triggers.accompany import accompany
from triggers.http import Refusal, parse_json
from triggers.start import DurableClient, claimed_run_id, new_run_id, read_stored, start_run

_LOG = logging.getLogger("patchwave.events")

bp = df.Blueprint()


# The event comes as text: the worker's own event type reads only one of the two schemas.
@bp.event_grid_trigger(arg_name="event")  # pyright: ignore[reportUnknownMemberType] - the library leaves its keywords untyped
@bp.durable_client_input(client_name="client")
async def maintenance_event(event: str, client: df.DurableFunctionsClient) -> None:
    """Assess a new VM, or accompany a scheduled run of Update Manager, as the policies ask for it."""
    found = _read(event)
    if found is None:
        _LOG.info("An event that no policy can ask for was passed over.")
        return
    try:
        await accompany(open_records(), client, found)
    finally:
        await start_for_event(open_records(), client, found)


def _read(event: str) -> AzureEvent | None:
    """The event; ``None`` when no policy can ask for it, or when it is no JSON that has one meaning."""
    try:
        document = as_object(parse_json(event.encode("utf-8", "surrogatepass")))
    except Refusal as refusal:
        _LOG.warning("An event was passed over: %s", refusal.detail)
        return None
    return read_event(document) if document is not None else None


async def start_for_event(records: Records, client: DurableClient, event: AzureEvent) -> list[Run]:
    """Start an assessment for each policy that asks for the event; the runs, new or not.

    Events come at least once and in any order: (type, id) and the policy make the run, so a repetition finds it.

    Raises:
        Exception: what kept a policy from starting, once all policies have had their turn; Event Grid then delivers
            the event again.
    """
    runs: list[Run] = []
    failures: list[Exception] = []
    for stored in await records.list_policies():
        try:
            run = await _start(records, client, stored, event)
        except PolicyError as error:
            _LOG.error("The policy %s is not valid: %s", stored.name, error)
            continue
        except Exception as error:
            _LOG.exception("The policy %s could not be started for an event.", stored.name)
            failures.append(error)
            continue
        if run is not None:
            runs.append(run)
    if failures:
        raise failures[0]
    return runs


async def _start(records: Records, client: DurableClient, stored: StoredPolicy, event: AzureEvent) -> Run | None:
    chosen = read_stored(stored)
    policy = _policy_for(chosen.policy, event)
    if policy is None or not await _is_news(records, event, policy.name):
        return None
    run_id = await claimed_run_id(records, "event", _claim_key(event, policy), new_run_id(policy))
    trigger = Trigger(kind=TriggerKind.EVENT_GRID, by=event.kind.value, detail=event.id)
    return await start_run(records, client, chosen.changed(policy), run_id, trigger, mode=Mode.ASSESS)


def _policy_for(policy: Policy, event: AzureEvent) -> Policy | None:
    """The policy to run for the event, narrowed to the new machine; ``None`` when it does not ask for it."""
    if not policy.enabled:
        return None
    match event.kind:
        case EventKind.BEFORE_MAINTENANCE:
            return policy if policy.events.before_maintenance else None
        case EventKind.AFTER_MAINTENANCE:
            return policy if policy.events.after_maintenance else None
        case EventKind.RESOURCE_WRITTEN:
            if not policy.events.new_machine or event.machine is None or not policy.scope.may_hold(event.machine):
                return None
            # Tags and location are not in the event: discovery decides with the whole scope.
            return apply_overrides(policy.to_wire(), {"scope": {"machineIds": [event.machine.text]}})


def _claim_key(event: AzureEvent, policy: Policy) -> str:
    """Of any event, whatever its id: ids of maintenance events are paths that exceed the length of a key."""
    return hashlib.sha256(f"{event.key}|{policy.name}".encode("utf-8", "surrogatepass")).hexdigest()


async def _is_news(records: Records, event: AzureEvent, policy: str) -> bool:
    """Whether a write of a VM is its first: every change of a VM sends the same event as its creation."""
    if event.machine is None:
        return True
    at = datetime.now(UTC)
    first, _ = await records.claim("new_machine", f"{policy}|{event.machine.folded}", event.key, at)
    return first == event.key
