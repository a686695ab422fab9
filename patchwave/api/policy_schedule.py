"""The schedule of a policy over HTTP: upcoming occurrences, and commands to pause, skip, or run now.

Every command has an actor and a reason, is idempotent, and is audited under the policy.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from azure.durable_functions import DurableFunctionsClient
from azure.functions import HttpRequest, HttpResponse

from patchwave.api.audit import audit_route
from patchwave.api.endpoint import LOCATION, NO_POLICY, RETRY_AFTER, ResponseSpec, route
from patchwave.api.http import CountQuery, name_of, route_of
from patchwave.api.problems import ApiProblem
from patchwave.api.requests import COMMAND, CommandQuery, read_command
from patchwave.api.runs import ListedRun, accepted
from patchwave.domain.calendar.schedule import Occurrence, Schedule, due_occurrence
from patchwave.domain.core.command import Command
from patchwave.domain.core.documents import Document
from patchwave.domain.core.ids import RunId
from patchwave.domain.core.principal import Role
from patchwave.domain.policy.policy import Policy, PolicyMode
from patchwave.domain.runs.run import Trigger, TriggerKind
from patchwave.domain.scheduling.assessments import assessment_run_id, list_assessments
from patchwave.domain.scheduling.freeze import active_freeze
from patchwave.domain.scheduling.overrides import Pause, ScheduleOverrides, Skip
from patchwave.domain.scheduling.upcoming import PlannedOccurrence, list_upcoming, occurrence_to_skip, pending_skip
from patchwave.services.start_run import (
    DurableClient,
    find_policy,
    find_written_policy,
    new_run_id,
    start_run,
    tell_waiting_run,
)
from patchwave.storage import Storage

_START_TIME = timedelta(minutes=10)
"""After this a requested run that was never stored will not be stored any more."""


class UpcomingOccurrences(Document):
    """The next occurrences of a policy."""

    policy: str
    enabled: bool
    pause: Pause | None
    occurrences: list[PlannedOccurrence]


class PolicyControls(ScheduleOverrides):
    """What people have ordered for a policy."""

    policy: str


@route("GET", "policies/{name}/occurrences", role=Role.READER, problems=NO_POLICY)
async def list_occurrences(req: HttpRequest, storage: Storage, query: CountQuery) -> UpcomingOccurrences:
    """What happens next, with the reason wherever nothing will."""
    policy = await find_policy(storage, route_of(req, "name"))
    controls = await storage.overrides.get(policy.name)
    planned = await upcoming_occurrences(storage, policy, controls, query.count, datetime.now(UTC))
    return UpcomingOccurrences(policy=policy.name, enabled=policy.enabled, pause=controls.pause, occurrences=planned)


async def upcoming_occurrences(
    storage: Storage, policy: Policy, controls: ScheduleOverrides, count: int, now: datetime
) -> list[PlannedOccurrence]:
    """The next occurrences of both schedules of a policy.

    The first may be one with an open window and no run yet: the timer may still start it, for example after the policy
    was stored or resumed during the window.
    """
    freezes = await storage.freezes.list_all()
    after = await _listed_after(storage, policy, policy.schedule, RunId.of, now)
    own = list_upcoming(policy, controls, freezes, after, count, now=now)
    after = await _listed_after(storage, policy, policy.assess, assessment_run_id, now)
    return sorted([*own, *list_assessments(policy, controls, freezes, after, count)], key=lambda each: each.at)[:count]


async def _listed_after(
    storage: Storage,
    policy: Policy,
    schedule: Schedule | None,
    run_id_of: Callable[[datetime, str], RunId],
    now: datetime,
) -> datetime:
    due = due_occurrence(schedule, now) if schedule else None
    if due is not None and await storage.runs.get(run_id_of(due.at_utc, policy.name).text) is None:
        return due.at_utc - timedelta(seconds=1)
    return now


@route("POST", "policies/{name}/pause", role=Role.OPERATOR, body=COMMAND, problems=NO_POLICY)
async def pause_policy(req: HttpRequest, storage: Storage, query: CommandQuery) -> PolicyControls:
    """Start nothing by the schedule until the policy is resumed."""
    policy, command = await _read(req, storage, query)
    pause = Pause(**command.who, reason=command.reason, at=command.at)
    return _shown(policy, await storage.overrides.pause(policy.name, pause))


@route("POST", "policies/{name}/resume", role=Role.OPERATOR, body=COMMAND, problems=NO_POLICY)
async def resume_policy(
    req: HttpRequest, client: DurableFunctionsClient, storage: Storage, query: CommandQuery
) -> PolicyControls:
    """Let the schedule go on. An occurrence whose window is still open starts when the timer next runs."""
    policy, command = await _read(req, storage, query)
    controls = await storage.overrides.resume(policy.name, **command.who, reason=command.reason, at=command.at)
    await _tell_waiting_runs(client, controls)
    return _shown(policy, controls)


@route(
    "POST",
    "policies/{name}/skip-next",
    role=Role.OPERATOR,
    body=COMMAND,
    problems=NO_POLICY | {409: "Nothing is scheduled that could be skipped."},
)
async def skip_next_occurrence(req: HttpRequest, storage: Storage, query: CommandQuery) -> PolicyControls:
    """Leave out the next occurrence; while it has not begun, the same command means the same occurrence."""
    policy, command = await _read(req, storage, query)
    controls = await storage.overrides.get(policy.name)
    if pending_skip(policy, controls, command.at) is None:
        occurrence = occurrence_to_skip(policy, await storage.freezes.list_all(), command.at)
        if occurrence is None:
            raise ApiProblem(409, "The policy has no coming occurrence that would run, so there is nothing to skip.")
        skip = Skip(occurrence=occurrence.at_utc, **command.who, reason=command.reason, at=command.at)
        controls = await storage.overrides.skip(policy.name, skip)
    return _shown(policy, controls)


@route("DELETE", "policies/{name}/skip-next", role=Role.OPERATOR, problems={400: "No reason is given."} | NO_POLICY)
async def unskip_next_occurrence(req: HttpRequest, storage: Storage, query: CommandQuery) -> PolicyControls:
    """Take back that the next occurrence is left out."""
    policy, command = await _read(req, storage, query)
    controls = await storage.overrides.get(policy.name)
    if skip := pending_skip(policy, controls, command.at):
        who, occurrence = command.who, skip.occurrence
        controls = await storage.overrides.unskip(policy.name, occurrence, **who, reason=command.reason, at=command.at)
    return _shown(policy, controls)


@route(
    "POST",
    "policies/{name}/run-now",
    ResponseSpec(202, ListedRun, headers=(LOCATION, RETRY_AFTER)),
    role=Role.OPERATOR,
    body=COMMAND,
    problems=NO_POLICY | {409: "The policy is frozen."},
)
async def run_policy_now(
    req: HttpRequest, client: DurableFunctionsClient, storage: Storage, query: CommandQuery
) -> HttpResponse:
    """Run the policy now, in a window as long as the schedule's: 202. While that run lasts, the command means it.

    A pause and a skip are about the schedule and do not stand in the way; a freeze does, unless the policy only
    assesses: 409.
    """
    command = read_command(req, query, datetime.now(UTC))
    chosen = await find_written_policy(storage, route_of(req, "name"))
    policy = chosen.policy
    run_id = await _requested_run(storage, policy, command)
    window = policy.schedule and Occurrence(run_id.at, run_id.at + policy.schedule.window)
    trigger = Trigger(kind=TriggerKind.HTTP, **command.who, detail=f"run now: {command.reason}")
    return accepted(await start_run(storage, client, chosen, run_id, trigger, occurrence=window))


@audit_route("policies/{name}/audit", problems={404: "No policy can have this name."})
async def list_policy_audit(storage: Storage, req: HttpRequest) -> str:
    """Who changed a policy or gave it commands, and why the timer did not start it; also of one that is gone."""
    return name_of(req, "policy")


async def _requested_run(storage: Storage, policy: Policy, command: Command) -> RunId:
    known = (await storage.overrides.get(policy.name)).requested_run
    if known and await _is_in_progress(storage, known, command.at):
        return RunId.parse(known)
    freeze = active_freeze(await storage.freezes.list_all(), policy.name, {}, command.at)
    if freeze is not None and policy.mode is PolicyMode.PATCH:
        raise ApiProblem(409, f"The policy is {freeze.sentence}")
    controls = await storage.overrides.request_run(
        policy.name, new_run_id(policy).text, instead_of=known, **command.who, reason=command.reason, at=command.at
    )
    return RunId.parse(controls.requested_run)


async def _is_in_progress(storage: Storage, run_id: str, at: datetime) -> bool:
    run = await storage.runs.get(run_id)
    if run is None:
        # The caller may be about to store it, or has died before.
        return at - RunId.parse(run_id).at < _START_TIME
    return not run.state.is_final


async def _tell_waiting_runs(client: DurableClient, controls: ScheduleOverrides) -> None:
    """Wake runs that passed over the window that is open now, instead of waiting for the timer."""
    for reservation in controls.window_reservations:
        if reservation.ended_at is None:
            await tell_waiting_run(client, reservation.run_id)


async def _read(req: HttpRequest, storage: Storage, query: CommandQuery) -> tuple[Policy, Command]:
    command = read_command(req, query, datetime.now(UTC))
    return await find_policy(storage, route_of(req, "name")), command


def _shown(policy: Policy, controls: ScheduleOverrides) -> PolicyControls:
    return PolicyControls(policy=policy.name, **dict(controls))
