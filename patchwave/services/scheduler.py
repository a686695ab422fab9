"""Starts policies with a due occurrence."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from patchwave.domain.calendar.schedule import Occurrence, closed_between, due_occurrence
from patchwave.domain.core.ids import RunId
from patchwave.domain.policy.policy import PolicyError
from patchwave.domain.policy.stored_policies import parse_stored_policy
from patchwave.domain.runs.provenance import WrittenPolicy
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.domain.scheduling.assessments import assessment_run_id, decide_assessment
from patchwave.domain.scheduling.freeze import Freeze
from patchwave.domain.scheduling.overrides import ScheduleOverrides
from patchwave.domain.scheduling.upcoming import ScheduleDecision, ScheduleVerdict, decide
from patchwave.services.errors import ServiceError
from patchwave.services.event_runs import start_waiting_requests
from patchwave.services.start_run import DurableClient, read_stored, start_run, tell_waiting_run
from patchwave.storage import Storage, StoredPolicy

_LOG = logging.getLogger("patchwave.schedule")
_MAX_SILENCE = timedelta(days=31)
_OF_ASSESSMENTS = {"schedule": "assess"}
"""In audit entries of the schedule of assessments; those of the policy's own schedule name none."""


async def start_what_is_due(
    storage: Storage, client: DurableClient, now: datetime, *, missed_since: datetime | None = None
) -> None:
    """Start due policies, then the assessments that events asked for.

    ``missed_since``: the timer's last execution, if it is late. Missed occurrences are audited.
    """
    if missed_since is not None:
        try:
            await note_missed_occurrences(storage, missed_since, now)
        except Exception:
            # A failure here must not prevent due starts.
            _LOG.exception("The missed occurrences could not be noted.")
    await start_due_policies(storage, client, now)
    # In the same timer, because another one would add a cold start.
    await start_waiting_requests(storage, client, now)


async def note_missed_occurrences(storage: Storage, since: datetime, now: datetime) -> None:
    """Audit windows that opened and closed while the timer did not run. Of a longer outage, only the last month."""
    for stored in await storage.policies.list_all():
        try:
            await _note_missed(storage, stored, since, now)
        except PolicyError:
            # Its start fails, with an audit entry.
            continue
        except Exception:
            _LOG.exception("The missed occurrences of the policy %s could not be noted.", stored.name)


async def _note_missed(storage: Storage, stored: StoredPolicy, since: datetime, now: datetime) -> None:
    policy = parse_stored_policy(stored.document, name=stored.name)
    if not policy.enabled:
        return
    begin = max(since, stored.updated_at, now - _MAX_SILENCE)
    why = f"the timer did not run between {since:%Y-%m-%d %H:%M} and {now:%Y-%m-%d %H:%M} UTC"
    for schedule, run_id_of, more in (
        (policy.schedule, RunId.of, {}),
        (policy.assess, assessment_run_id, _OF_ASSESSMENTS),
    ):
        for occurrence in closed_between(schedule, begin, now) if schedule is not None else ():
            if await storage.runs.get(run_id_of(occurrence.at_utc, policy.name).text) is None:
                detail = {"decision": "missed", "reason": why} | more
                await storage.audit.add(
                    policy.name, "occurrence_not_started", actor="timer", at=occurrence.at_utc, detail=detail
                )


async def start_due_policies(storage: Storage, client: DurableClient, now: datetime) -> list[Run]:
    """Start every policy with an open window, unless it is blocked; returns the runs, new or existing. The reason for a
    blocked start is audited.
    """
    runs: list[Run] = []
    freezes = await storage.freezes.list_all()
    for stored in await storage.policies.list_all():
        try:
            chosen = read_stored(stored)
            for start in (_start_if_due, _start_assessment_if_due):
                run = await start(storage, client, chosen, freezes, now)
                runs += [run] if run is not None else []
        except Exception as error:
            # A policy that fails, for any reason, must not affect the others.
            _LOG.exception("The policy %s could not be started.", stored.name)
            await _note_failure(storage, stored.name, error, now)
    return runs


async def _note_failure(storage: Storage, policy: str, error: Exception, now: datetime) -> None:
    """Audit the failure under the policy, once an hour per reason."""
    expected = isinstance(error, PolicyError | ServiceError)
    why = str(error)[:500] if expected else f"Patchwave failed ({type(error).__name__}); its log has the reason."
    hour = now.replace(minute=0, second=0, microsecond=0)
    try:
        await storage.audit.add(policy, "scheduled_start_failed", actor="timer", at=hour, detail={"error": why})
    except Exception:
        _LOG.exception("The audit log of the policy %s could not be written.", policy)


async def _start_if_due(
    storage: Storage, client: DurableClient, chosen: WrittenPolicy, freezes: Sequence[Freeze], now: datetime
) -> Run | None:
    policy = chosen.policy
    if policy.schedule is None:
        return None
    occurrence = due_occurrence(policy.schedule, now)
    if occurrence is None:
        return None
    run_id = RunId.of(occurrence.at_utc, policy.name)
    controls = await _current_controls(storage, client, policy.name, occurrence)
    verdict = decide(policy, controls, freezes, occurrence, now=now)
    if verdict.decision is ScheduleDecision.CONTINUE:
        await _wake(storage, client, controls, occurrence)
    if verdict.decision is not ScheduleDecision.RUN:
        if await storage.runs.get(run_id.text) is None:
            await _note_reason(storage, policy.name, occurrence, verdict)
        return None
    trigger = Trigger(kind=TriggerKind.TIMER, actor="timer", detail=f"version {chosen.origin.version}")
    return await start_run(storage, client, chosen, run_id, trigger, occurrence=occurrence)


async def _start_assessment_if_due(
    storage: Storage, client: DurableClient, chosen: WrittenPolicy, freezes: Sequence[Freeze], now: datetime
) -> Run | None:
    """Start the run of the schedule of assessments, beside that of the policy's own schedule."""
    policy = chosen.policy
    occurrence = due_occurrence(policy.assess, now) if policy.assess is not None else None
    if occurrence is None:
        return None
    run_id = assessment_run_id(occurrence.at_utc, policy.name)
    verdict = decide_assessment(policy, await storage.overrides.get(policy.name), freezes, occurrence)
    if not verdict.will_run:
        if await storage.runs.get(run_id.text) is None:
            await _note_reason(storage, policy.name, occurrence, verdict, **_OF_ASSESSMENTS)
        return None
    detail = f"assessment schedule, version {chosen.origin.version}"
    trigger = Trigger(kind=TriggerKind.TIMER, actor="timer", detail=detail)
    return await start_run(storage, client, chosen, run_id, trigger, mode=Mode.ASSESS, occurrence=occurrence)


async def _wake(storage: Storage, client: DurableClient, controls: ScheduleOverrides, occurrence: Occurrence) -> None:
    """Wake a run that waits for its own window: the policy or a freeze has changed since it chose one."""
    reservation = controls.window_reservation_in(occurrence.at_utc)
    run = await storage.runs.get(reservation.run_id) if reservation else None
    if run is not None and run.state is RunState.AWAITING_WINDOW:
        await tell_waiting_run(client, run.id)


async def _current_controls(
    storage: Storage, client: DurableClient, policy: str, occurrence: Occurrence
) -> ScheduleOverrides:
    """The controls without a deferred run that has ended, which must not block others for ever."""
    controls = await storage.overrides.get(policy)
    reservation = controls.window_reservation_in(occurrence.at_utc)
    if reservation is None or reservation.ended_at is not None:
        return controls
    run = await storage.runs.get(reservation.run_id)
    if run is not None and not run.state.is_final:
        return controls
    ended_at = run.ended_at if run and run.ended_at else reservation.since
    return await storage.overrides.end_window_reservation(policy, reservation.run_id, ended_at)


async def _note_reason(
    storage: Storage, policy: str, occurrence: Occurrence, verdict: ScheduleVerdict, **more: str
) -> None:
    """One audit entry per reason and occurrence, with the occurrence's time, so that repetitions are equal."""
    detail = {"decision": verdict.decision.value, "reason": verdict.reason} | more
    await storage.audit.add(policy, "occurrence_not_started", actor="timer", at=occurrence.at_utc, detail=detail)
