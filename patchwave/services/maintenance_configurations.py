"""Maintenance configurations of Update Manager, their coming runs, and the cancellation of one. Changes are audited.

What Azure would refuse, or accept without effect, is refused here first, with all errors at once.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime, timedelta

from patchwave.azure.resource_graph import QueryRefused, ResourceGraph
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.calendar.schedule import Occurrence
from patchwave.domain.core.command import Command
from patchwave.domain.core.documents import Document, object_or_none, str_or_empty
from patchwave.domain.core.ids import ConfigurationId
from patchwave.domain.core.principal import Signed
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration, read_configuration
from patchwave.domain.maintenance.queries import all_configurations, canceled_runs
from patchwave.domain.maintenance.upcoming_run import (
    ComingRun,
    canceled_by_configuration,
    coming_run,
    coming_runs,
    parse_run,
)
from patchwave.domain.maintenance.validation import MAX_WINDOW, advice, check_configuration, check_number
from patchwave.services.errors import Conflict, InvalidQuery, InvalidRequest, NotFound, result_of
from patchwave.services.fleet_reader import read_rows
from patchwave.settings import Settings
from patchwave.storage import Storage
from patchwave.wiring import Services

RUN_CANCELED = "scheduled_run_canceled"
"""Audit action of a run that was cancelled here."""
MAX_CANCELED = 100
"""Upcoming runs that are searched for the first one that is not cancelled."""
_WHAT = "maintenance configuration"
_MAX_SECONDS = 30.0


class ConfigurationView(Document):
    """A configuration, its next runs and its notes."""

    configuration: MaintenanceConfiguration
    next_run: ComingRun | None
    """Nothing when the schedule has ended, or cannot be read."""
    notes: list[str]
    """What Azure permits and may not do as expected."""


class ComingRuns(Document):
    """The next runs of a configuration."""

    configuration: str
    runs: list[ComingRun]
    notes: list[str]


class CanceledRun(Document):
    """A run that will not happen."""

    configuration: str
    run: ComingRun
    already: bool
    """It was cancelled before this request, which has changed nothing."""


def audit_subject_of(configuration: ConfigurationId) -> str:
    """The audit subject of a configuration and its assignments."""
    return f"maintenance~{configuration.key}"


# --- configurations (all functions raise `AzureRefused`) ----------------------------------------------------


async def list_of_place(services: Services, subscription: str, group: str) -> list[ConfigurationView]:
    """The current configurations of a subscription, or of one resource group, that patch inside machines."""
    found = result_of(await services.maintenance.list(subscription, group), "subscription")
    return await _views(services, found)


async def list_page(services: Services, cursor: str) -> tuple[list[ConfigurationView], str]:
    """A page of all configurations that patch inside machines, from Resource Graph, and the cursor of the next."""
    page = await services.resource_graph.page_in_turn(all_configurations(), skip_token=cursor)
    result_of(page.failure, "list of configurations")
    return await _views(services, list(filter(None, map(read_configuration, page.rows)))), page.skip_token


async def get_configuration(services: Services, identity: ConfigurationId) -> ConfigurationView:
    """The current configuration."""
    storage, now = services.storage, datetime.now(UTC)
    found = await read_existing(services, identity)
    return _view(services.settings, found, now, *await _canceled_runs_of(storage, services.resource_graph, identity))


async def read_existing(services: Services, identity: ConfigurationId) -> MaintenanceConfiguration:
    """The current configuration in Azure."""
    return result_of(await services.maintenance.read(identity), _WHAT)


async def find_configuration(services: Services, identity: ConfigurationId) -> MaintenanceConfiguration | None:
    """The current configuration in Azure, if it exists."""
    found = await services.maintenance.read(identity)
    return None if isinstance(found, ArmFailure) and found.status == 404 else result_of(found, _WHAT)


async def write_configuration(
    services: Services, wanted: MaintenanceConfiguration, existing: MaintenanceConfiguration | None, actor: Signed
) -> ConfigurationView:
    """Create or replace a configuration.

    Raises:
        InvalidRequest: with every limit that it exceeds.
    """
    now, identity = datetime.now(UTC), wanted.configuration_id
    problems = check_configuration(wanted, now, existing)
    if existing is None and not problems:
        others = result_of(await services.maintenance.list(identity.subscription_id), "subscription")
        problems = check_number(wanted, others)
    if problems:
        raise InvalidRequest("The configuration is not valid.", errors=problems)
    made = await services.maintenance.write(wanted)
    # A PUT also needs the location.
    made = result_of(made, "resource group" if isinstance(made, ArmFailure) and made.status == 404 else _WHAT)
    subject, storage = audit_subject_of(identity), services.storage
    await storage.audit.add(subject, "configuration_written", **actor.who, at=now, detail=wanted.to_azure())
    if existing is None:
        return _view(services.settings, made, now)
    return _view(services.settings, made, now, *await _canceled_runs_of(storage, services.resource_graph, identity))


async def delete_configuration(services: Services, identity: ConfigurationId, command: Command) -> None:
    """Delete a configuration.

    Raises:
        NotFound: it does not exist.
    """
    if not result_of(await services.maintenance.remove(identity), _WHAT):
        raise NotFound(f"There is no such {_WHAT}.")
    subject, detail = audit_subject_of(identity), {"reason": command.reason}
    await services.storage.audit.add(subject, "configuration_deleted", **command.who, at=command.at, detail=detail)


async def _views(services: Services, found: list[MaintenanceConfiguration]) -> list[ConfigurationView]:
    now = datetime.now(UTC)
    guests = [each for each in found if each.patches_guests]
    canceled, note = await canceled_at_azure(services.resource_graph) if guests else ({}, "")
    return [_view(services.settings, each, now, canceled.get(each.configuration_id, ()), note) for each in guests]


def _view(
    settings: Settings,
    configuration: MaintenanceConfiguration,
    now: datetime,
    canceled: Collection[str] = (),
    note: str = "",
) -> ConfigurationView:
    following = coming_runs(configuration, now, 1, _cutoff(settings), canceled)
    return ConfigurationView(
        configuration=configuration,
        next_run=following[0] if following else None,
        notes=[*_notes_on(settings, configuration, now, canceled), *filter(None, [note])],
    )


def _notes_on(
    settings: Settings, configuration: MaintenanceConfiguration, now: datetime, canceled: Collection[str] = ()
) -> list[str]:
    """Notes on settings that Azure permits and that may not work as expected."""
    if configuration.unreadable:
        return [f"When it runs is not known: {configuration.unreadable}."]
    if configuration.has_ended(now):
        return ["The schedule has ended: no run comes any more."]
    following = coming_runs(configuration, now, MAX_CANCELED, _cutoff(settings), canceled)
    if not following[0].canceled:
        return advice(configuration, now)
    left = next((run for run in following if not run.canceled), None)
    after = f"the next one that happens starts at {left.starts_at:%Y-%m-%d %H:%M}Z" if left else "so are those after it"
    return [f"The next run is cancelled; {after}."]


# --- runs ---------------------------------------------------------------------------------------------------


async def list_coming_runs(services: Services, identity: ConfigurationId, count: int) -> ComingRuns:
    """The next runs of a configuration."""
    settings, storage, now = services.settings, services.storage, datetime.now(UTC)
    found = await read_existing(services, identity)
    canceled, note = await _canceled_runs_of(storage, services.resource_graph, identity)
    notes = [*_notes_on(settings, found, now, canceled), *filter(None, [note])]
    runs = coming_runs(found, now, count, _cutoff(settings), canceled)
    return ComingRuns(configuration=found.id, runs=runs, notes=notes)


async def cancel_run(services: Services, identity: ConfigurationId, named: str, command: Command) -> CanceledRun:
    """Cancel one coming run for all of its machines: the named one, or the next.

    Raises:
        InvalidQuery: the name is not one of a run.
        Conflict: no such run is upcoming, or its deadline has passed.
    """
    storage = services.storage
    found = await read_existing(services, identity)
    canceled, _ = await _canceled_runs_of(storage, services.resource_graph, identity)
    run = _run_to_cancel(services.settings, found, named, command.at, canceled)
    if run.canceled:
        return CanceledRun(configuration=found.id, run=run, already=True)
    result_of(await services.maintenance.cancel(identity, run.run), "cancellation")
    subject, detail = audit_subject_of(identity), {"reason": command.reason, "run": run.run}
    await storage.audit.add(subject, RUN_CANCELED, **command.who, at=command.at, detail=detail)
    return CanceledRun(configuration=found.id, run=run.model_copy(update={"canceled": True}), already=False)


def _run_to_cancel(
    settings: Settings, configuration: MaintenanceConfiguration, named: str, now: datetime, canceled: Collection[str]
) -> ComingRun:
    """The run to cancel, which may be cancelled already."""
    cutoff = _cutoff(settings)
    if named:
        try:
            start = parse_run(named)
        except ValueError as error:
            raise InvalidQuery("run", str(error)) from None
        # The schedule may have changed since an event named the run: Azure decides.
        length = MAX_WINDOW if configuration.window is None or configuration.unreadable else configuration.window.length
        run = coming_run(Occurrence(start, start + length), cutoff, canceled)
    else:
        following = coming_runs(configuration, now, 1, cutoff, canceled)
        if not following:
            raise Conflict(" ".join(["There is no run to come.", *_notes_on(settings, configuration, now)]))
        run = following[0]
    if now >= run.cancel_deadline and not (run.canceled and now < run.starts_at):
        later = [each for each in coming_runs(configuration, now, 2, cutoff) if now < each.cancel_deadline]
        hint = f" The one after it, {later[0].run}, can still be cancelled." if later else ""
        raise Conflict(
            f"Too late: the run that starts at {run.starts_at:%Y-%m-%d %H:%M:%S}Z could be cancelled until"
            f" {run.cancel_deadline:%Y-%m-%d %H:%M:%S}Z.{hint}"
        )
    return run


async def _canceled_runs_of(
    storage: Storage, graph: ResourceGraph, configuration: ConfigurationId
) -> tuple[Collection[str], str]:
    """The names of the cancelled runs of a configuration, and a note when some could not be read.

    Resource Graph has all cancellations, minutes late; the audit log has those made here at once.
    """
    ours = {
        str_or_empty((object_or_none(line["detail"]) or {}).get("run"))
        async for line in storage.audit.lines(audit_subject_of(configuration))
        if line["action"] == RUN_CANCELED
    }
    found, note = await canceled_at_azure(graph, configuration)
    return ours | found.get(configuration, set()), note


async def canceled_at_azure(
    graph: ResourceGraph, configuration: ConfigurationId | None = None
) -> tuple[dict[ConfigurationId, set[str]], str]:
    """The names of cancelled runs of a configuration or of all, and a note when they could not be read."""
    try:
        async with asyncio.timeout(_MAX_SECONDS):
            rows = await read_rows(graph, canceled_runs(configuration))
    except (TimeoutError, QueryRefused) as error:
        reason = str(error) or f"no answer in {_MAX_SECONDS:.0f} seconds"
        return {}, f"Resource Graph did not say which runs are cancelled: {reason}"
    return canceled_by_configuration(rows), ""


def _cutoff(settings: Settings) -> timedelta:
    """How long before its start a run can be cancelled."""
    return timedelta(seconds=settings.maintenance_cancel_cutoff_seconds)
