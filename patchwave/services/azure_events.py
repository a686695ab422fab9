"""Starts runs for Azure events: new machines, and scheduled runs of Update Manager."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from patchwave.azure.pipeline import boundary_of
from patchwave.domain.core.documents import object_or_none
from patchwave.domain.core.ids import MachineId
from patchwave.domain.maintenance.event_sources import EventSources
from patchwave.domain.maintenance.events import AzureEvent, EventKind, read_event
from patchwave.domain.policy.policy import Policy
from patchwave.domain.scheduling.event_requests import EventRequest, may_ask, request_key
from patchwave.services.catch_up import catch_up_started_machine
from patchwave.services.errors import InvalidRequest
from patchwave.services.event_lookup import NotKnownYet, find_scheduled_run, is_machine
from patchwave.services.event_runs import start_requested
from patchwave.services.maintenance_events import record_event
from patchwave.services.start_run import DurableClient, list_valid_policies
from patchwave.services.strict_json import parse_json
from patchwave.storage import Storage
from patchwave.wiring import Services

_LOG = logging.getLogger("patchwave.events")
_NEW_MACHINE = "new_machine"


async def handle_event(services: Services, client: DurableClient, text: str) -> None:
    """Assess a new VM, or start a maintenance run, for the policies that ask for it.

    Raises:
        NotKnownYet: Azure cannot confirm the event now; Event Grid delivers it again.
    """
    event = _read(text)
    if event is None:
        _LOG.info("An event that no policy can ask for was passed over.")
        return
    settings = services.settings
    sources = EventSources.of(settings.listed_event_topics, boundary_of(settings))
    if reason := sources.reason_to_ignore(event):
        _pass_over(event, reason, level=logging.WARNING)
        return
    try:
        await _start_known(services, client, event)
    except NotKnownYet as unknown:
        why = str(unknown).rstrip(".")
        _LOG.warning("An event of the kind %s waits until it is delivered again: %s.", event.kind, why)
        # Expected, because Resource Graph lags, and Event Grid retries. Without a traceback, which would be long and
        # the same for each delivery.
        raise NotKnownYet(why) from None


async def _start_known(services: Services, client: DurableClient, event: AzureEvent) -> None:
    """Look up the event's resource in Azure, then start the runs of policies."""
    notice = event.occurrence
    if event.kind is EventKind.RESOURCE_ACTION and event.machine is not None:
        runs = await catch_up_started_machine(services, client, event.machine, datetime.now(UTC))
        if not runs:
            _pass_over(event, "no window waits for the machine")
        return
    if notice is None:
        await _start_for_event(services, client, event)
        return
    run = await find_scheduled_run(services, notice)
    if run is None or not run.is_timely(datetime.now(UTC)):
        why = "its configuration is gone" if run is None else f"its run starts at {run.starts_at:%Y-%m-%d %H:%M} UTC"
        _pass_over(event, why, level=logging.WARNING)
        return
    try:
        await record_event(services, client, event, run)
    finally:
        await _start_for_event(services, client, event)


def _read(event: str) -> AzureEvent | None:
    """The event; ``None`` when no policy can react to it, or when it is not strict JSON."""
    try:
        document = object_or_none(parse_json(event.encode("utf-8", "surrogatepass")))
    except InvalidRequest as error:
        _LOG.warning("An event was passed over: %s", error)
        return None
    return read_event(document) if document is not None else None


async def _start_for_event(services: Services, client: DurableClient, event: AzureEvent) -> None:
    """Request an assessment from each policy that reacts to the event.

    Events come at least once and in any order. (type, id) and the policy identify the request, so repetitions find it.

    Raises:
        Exception: the failure of a policy, after all policies were processed; Event Grid then delivers the event again.
    """
    storage = services.storage
    wanting = [each for each in await list_valid_policies(storage) if _wants(each.policy, event)]
    if not wanting:
        _pass_over(event, "no policy asks for an assessment")
        return
    asking = [chosen for chosen in wanting if await _may_be_news(storage, event, chosen.policy)]
    if not asking:
        _pass_over(event, "the machine is known to each policy that asks")
        return
    if event.machine is not None and not await is_machine(services.resource_manager, event.machine):
        _pass_over(event, f"Azure shows no machine {event.machine.text}")
        return
    failures: list[Exception] = []
    for chosen in asking:
        try:
            if await _ask(storage, event, chosen.policy):
                await start_requested(storage, client, chosen, datetime.now(UTC))
        except Exception as error:
            _LOG.exception("The policy %s could not be started for an event.", chosen.policy.name)
            failures.append(error)
    if failures:
        raise failures[0]


def _pass_over(event: AzureEvent, why: str, *, level: int = logging.INFO) -> None:
    _LOG.log(level, "An event of the kind %s was passed over: %s.", event.kind, why)


def _wants(policy: Policy, event: AzureEvent) -> bool:
    match event.kind:
        case EventKind.BEFORE_MAINTENANCE:
            return policy.enabled and policy.events.before_maintenance
        case EventKind.AFTER_MAINTENANCE:
            return policy.enabled and policy.events.after_maintenance
        case EventKind.RESOURCE_WRITTEN:
            return event.machine is not None and may_ask(policy, event.machine)
        case EventKind.RESOURCE_ACTION:
            return False


async def _may_be_news(storage: Storage, event: AzureEvent, policy: Policy) -> bool:
    """Whether the policy has no request for the machine yet: avoids a look-up for every change of a machine."""
    machine = event.machine
    known = None if machine is None else await storage.idempotency.get(_NEW_MACHINE, _of_machine(policy, machine))
    return known in (None, event.key)


def _of_machine(policy: Policy, machine: MachineId) -> str:
    return f"{policy.name}|{machine.folded}"


async def _ask(storage: Storage, event: AzureEvent, policy: Policy) -> bool:
    """Store the policy's request; ``False`` when it exists, or a run has taken it before."""
    at = datetime.now(UTC)
    machine = event.machine
    if machine is not None:
        # Every change of a VM sends the same event as its creation.
        first, _ = await storage.idempotency.reserve(_NEW_MACHINE, _of_machine(policy, machine), event.key, at)
        if first != event.key:
            return False
    return await storage.event_requests.add(
        EventRequest(
            policy=policy.name,
            event_id=event.id,
            kind=event.kind.value,
            key=request_key(event.key, policy.name),
            at=at,
            machine_id="" if machine is None else machine.text,
        )
    )
