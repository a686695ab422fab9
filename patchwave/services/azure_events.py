"""Starts runs for Azure events: new and started machines, and scheduled runs of Update Manager."""

from __future__ import annotations

import logging
from datetime import UTC, datetime

from patchwave.azure.pipeline import boundary_of
from patchwave.domain.azure.instance_view import Power
from patchwave.domain.core.documents import format_minute, object_or_none
from patchwave.domain.core.ids import MachineId
from patchwave.domain.maintenance.event_sources import EventSources
from patchwave.domain.maintenance.events import AzureEvent, EventKind, read_event
from patchwave.domain.policy.policy import Policy
from patchwave.domain.runs.run import Mode
from patchwave.domain.scheduling.event_requests import EventRequest, may_ask, request_key
from patchwave.services.catch_up import catch_up_started_machine
from patchwave.services.errors import InvalidRequest
from patchwave.services.event_lookup import NotKnownYet, find_machine, find_scheduled_run
from patchwave.services.event_runs import start_requested
from patchwave.services.maintenance_events import record_event
from patchwave.services.start_run import DurableClient, list_valid_policies
from patchwave.services.strict_json import parse_json
from patchwave.storage import Storage
from patchwave.wiring import Services

_LOG = logging.getLogger("patchwave.events")
_NEW_MACHINE = "new_machine"


async def handle_event(services: Services, client: DurableClient, text: str) -> None:
    """Start the runs that policies ask for, and the maintenance run of a scheduled run.

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
        await _start_for_event(services, client, event, caught_up=await _catch_up(services, client, event.machine))
        return
    if notice is None:
        await _start_for_event(services, client, event)
        return
    run = await find_scheduled_run(services, notice)
    if run is None or not run.is_timely(datetime.now(UTC)):
        why = "its configuration is gone" if run is None else f"its run starts at {format_minute(run.starts_at)}"
        _pass_over(event, why, level=logging.WARNING)
        return
    try:
        await record_event(services, client, event, run)
    finally:
        await _start_for_event(services, client, event)


async def _catch_up(services: Services, client: DurableClient, machine: MachineId) -> str:
    """Let the run go on that waits for the machine; the name of its policy, which needs no second run for it."""
    waiting = await services.storage.catch_ups.get(machine.key)
    if waiting is None:
        return ""
    await catch_up_started_machine(services, client, machine, datetime.now(UTC))
    run = await services.storage.runs.get(waiting.run_id)
    return run.policy if run is not None else ""


def _read(event: str) -> AzureEvent | None:
    """The event; ``None`` when no policy can react to it, or when it is not strict JSON."""
    try:
        document = object_or_none(parse_json(event.encode("utf-8", "surrogatepass")))
    except InvalidRequest as error:
        _LOG.warning("An event was passed over: %s", error)
        return None
    return read_event(document) if document is not None else None


async def _start_for_event(
    services: Services, client: DurableClient, event: AzureEvent, *, caught_up: str = ""
) -> None:
    """Request a run of each policy that reacts to the event; the policy ``caught_up`` patches the machine already.

    Events come at least once and in any order. (type, id) and the policy identify the request, so repetitions find it.

    Raises:
        Exception: the failure of a policy, after all policies were processed; Event Grid then delivers the event again.
    """
    storage = services.storage
    wanting = [
        each
        for each in await list_valid_policies(storage)
        if _wants(each.policy, event) and not (each.policy.name == caught_up and each.policy.retry_in_next_window)
    ]
    if not wanting:
        _pass_over(event, "no policy asks for a run" + (f" but {caught_up}, which catches up" if caught_up else ""))
        return
    asking = [chosen for chosen in wanting if await _may_be_news(storage, event, chosen.policy)]
    if not asking:
        _pass_over(event, "the machine is known to each policy that asks")
        return
    if event.machine is not None and (reason := await _reason_to_leave(services, event, event.machine)):
        _pass_over(event, reason)
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


async def _reason_to_leave(services: Services, event: AzureEvent, machine: MachineId) -> str:
    """Why the machine of an event needs no run; empty when it does.

    A start by a run of Patchwave must not start another one, which would start the machine again, and so on.
    """
    found = await find_machine(services.resource_manager, machine)
    if found is None:
        return f"Azure shows no machine {machine.text}"
    if event.kind is not EventKind.RESOURCE_ACTION:
        return ""
    if found.power is not Power.RUNNING:
        return f"{machine.text} does not run"
    holder = await services.storage.leases.holder(machine.key, datetime.now(UTC))
    run = await services.storage.runs.get(holder) if holder else None
    is_worked_on = run is not None and not run.state.is_final and run.mode is not Mode.ASSESS
    return f"the run {holder} works on {machine.text}" if is_worked_on else ""


def _pass_over(event: AzureEvent, why: str, *, level: int = logging.INFO) -> None:
    _LOG.log(level, "An event of the kind %s was passed over: %s.", event.kind, why)


def _wants(policy: Policy, event: AzureEvent) -> bool:
    match event.kind:
        case EventKind.BEFORE_MAINTENANCE:
            return policy.enabled and policy.events.before_maintenance
        case EventKind.AFTER_MAINTENANCE:
            return policy.enabled and policy.events.after_maintenance
        case EventKind.RESOURCE_WRITTEN:
            return event.machine is not None and may_ask(policy, event.machine, started=False)
        case EventKind.RESOURCE_ACTION:
            return event.machine is not None and may_ask(policy, event.machine, started=True)


async def _may_be_news(storage: Storage, event: AzureEvent, policy: Policy) -> bool:
    """Whether the policy has no request for the machine yet: avoids a look-up for every change of a machine."""
    machine = _new_machine(event)
    known = None if machine is None else await storage.idempotency.get(_NEW_MACHINE, _of_machine(policy, machine))
    return known in (None, event.key)


def _new_machine(event: AzureEvent) -> MachineId | None:
    """The machine of an event that counts once for each machine; a start counts each time."""
    return event.machine if event.kind is EventKind.RESOURCE_WRITTEN else None


def _of_machine(policy: Policy, machine: MachineId) -> str:
    return f"{policy.name}|{machine.folded}"


async def _ask(storage: Storage, event: AzureEvent, policy: Policy) -> bool:
    """Store the policy's request; ``False`` when it exists, or a run has taken it before."""
    at = datetime.now(UTC)
    if (machine := _new_machine(event)) is not None:
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
            machine_id="" if event.machine is None else event.machine.text,
        )
    )
