"""Notifications of a run: list its channels, attempt one delivery, and audit the result.

Nothing here fails a run: a failed delivery is a value, and no run waits for the notifications' orchestration.
"""

from __future__ import annotations

from datetime import timedelta

from activities.context import load_run, now, wait_seconds
from patchwave.domain.core.documents import list_or_empty, object_or_none
from patchwave.domain.core.outcome import NEEDS_PERSON, OutcomeKind
from patchwave.domain.notifications.events import (
    MAX_NOTES,
    ApprovalNeeded,
    ErrorBudgetNotice,
    Facts,
    MachineNote,
    Notice,
    NoticeChannels,
    NoticeReport,
    RunAwaited,
    RunEnded,
    RunStarted,
    SendNotice,
    SendResult,
    WindowAwaited,
    backoff,
    one_line,
)
from patchwave.domain.notifications.messages import Announcement, approve_command
from patchwave.domain.policy.policy import Policy
from patchwave.domain.runs.commands import PATCHWAVE
from patchwave.domain.runs.provenance import SHORT_DIGEST, spoken_scripts
from patchwave.domain.runs.run import Run
from patchwave.domain.runs.window_results import name_stuck
from patchwave.outbound.notifications import compose
from patchwave.settings import ChannelsError, parse_channels
from patchwave.storage import RecordMissing, Storage
from patchwave.wiring import Services


async def list_channels(services: Services, notice: Notice) -> NoticeChannels:
    """The channels of the run's policy for this event.

    A channel that is not configured, or a setting that cannot be read, counts as a failure of each channel. Channels
    that an earlier generation notified of the same event are left out.
    """
    try:
        _, policy = await load_run(services.storage, notice.run_id)
    except RecordMissing:
        return NoticeChannels()
    notified = await _already_notified(services.storage, notice)
    wanted = [name for name in policy.notifications.channels_for(notice.facts.event) if name not in notified]
    try:
        configured = parse_channels(services.settings.channels.get_secret_value())
    except ChannelsError as error:
        return NoticeChannels(failed=dict.fromkeys(wanted, str(error)))
    return NoticeChannels(
        channels=[name for name in wanted if name in configured],
        failed={name: "PATCHWAVE_CHANNELS has no such channel." for name in wanted if name not in configured},
    )


async def record_delivery(services: Services, report: NoticeReport) -> None:
    """Audit which channels were notified and which failed."""
    action = "notification_failed" if report.failed else "notified"
    detail = {"event": report.event.value, "number": report.number, "sent": report.sent, "failed": report.failed}
    await services.storage.audit.add(report.run_id, action, actor=PATCHWAVE, at=report.at, detail=detail)


async def send_notification(services: Services, request: SendNotice) -> SendResult:
    """One attempt to notify one channel, with the current facts.

    Executed again after a crash it may send the message twice, with the same delivery id.
    """
    notice, storage = request.notice, services.storage
    try:
        channel = parse_channels(services.settings.channels.get_secret_value()).get(request.channel)
    except ChannelsError as error:
        return SendResult(sent=False, failure=str(error))
    if channel is None:
        return SendResult(sent=False, failure="PATCHWAVE_CHANNELS has no such channel any more.")
    run, policy = await load_run(storage, notice.run_id)
    facts = await _complete(storage, notice.facts, run, policy)
    announcement = Announcement(run.id, run.policy, notice.at, facts)
    outgoing = compose(channel, announcement, delivery_id=notice.delivery_id(channel.name), now=now())
    delivery = await services.channel_sender.post(outgoing)
    if delivery.sent:
        return SendResult(sent=True)
    if delivery.is_throttled:
        # Not an attempt, whatever its number: retried like the first.
        pause = backoff(1, delivery.retry_after)
    else:
        pause = backoff(request.attempt, delivery.retry_after) if delivery.may_pass else 0
    return SendResult(
        sent=False,
        wait_seconds=wait_seconds(services.settings, pause) if pause else 0,
        counts_as_attempt=not delivery.is_throttled,
        failure=delivery.failure,
    )


async def _already_notified(storage: Storage, notice: Notice) -> set[str]:
    """The channels that were notified before, by the audit log, which has one entry per notice."""
    notified: set[str] = set()
    async for line in storage.audit.lines(notice.run_id):
        detail = object_or_none(line["detail"]) or {}
        is_same = (detail.get("event"), detail.get("number")) == (notice.facts.event.value, notice.number)
        if is_same and line["action"] in ("notified", "notification_failed"):
            notified.update(str(name) for name in list_or_empty(detail.get("sent")))
    return notified


# --- facts from the rows -----------------------------------------------------------------------------------------


async def _complete(storage: Storage, facts: Facts, run: Run, policy: Policy) -> Facts:
    """The facts, completed from the rows."""
    match facts:
        case RunStarted():
            trigger = run.trigger
            return RunStarted(
                mode=run.mode.value, trigger=trigger.kind.value, started_by=trigger.actor, machines=run.machines
            )
        case ApprovalNeeded():
            return _approval(facts, run, policy)
        case ErrorBudgetNotice():
            return ErrorBudgetNotice(
                scope=facts.scope or (run.blocked_scopes[-1] if run.blocked_scopes else ""),
                failures=facts.failures,
                limit=facts.limit,
                on_exceeded=facts.on_exceeded or policy.error_budget.on_exceeded.value,
                reason=facts.reason or run.stop_reason,
            )
        case WindowAwaited():
            outcomes, stages = await storage.runs.progress(run.id)
            return facts.model_copy(update={"open_machines": sum(stages.values()) - sum(outcomes.values())})
        case RunAwaited():
            return facts if facts.waits_for else RunAwaited(waits_for=run.waiting_for)
        case RunEnded():
            return await _ended(storage, run)


def _approval(facts: ApprovalNeeded, run: Run, policy: Policy) -> ApprovalNeeded:
    name = facts.ring or run.waiting_for
    within = facts.within_seconds
    for ring in policy.rings:
        if ring.name == name and ring.approval is not None and within is None:
            within = ring.approval.within.total_seconds()
    return facts.model_copy(
        update={
            "ring": name,
            "within_seconds": within,
            "approve": facts.approve or (approve_command(run.id, name) if name else ""),
            "author": one_line(run.policy_origin.author) if run.policy_origin else "",
            "digest": run.policy_origin.followed_digest[:SHORT_DIGEST] if run.policy_origin else "",
            "scope": one_line(policy.scope.describe()),
            "scripts": one_line(spoken_scripts(policy)),
        }
    )


async def _ended(storage: Storage, run: Run) -> RunEnded:
    counts = {kind: run.counts_by_outcome.get(kind.value, 0) for kind in NEEDS_PERSON}
    began, ended = run.started_at or run.created_at, run.ended_at
    stuck = await storage.history.names_needing_person(run.id) if run.counted_occurrence is not None else []
    return RunEnded(
        state=run.state.value,
        reason=run.reason,
        machines=run.machines,
        counts_by_outcome=run.counts_by_outcome,
        duration_seconds=round((ended - began) / timedelta(seconds=1), 3) if ended else 0,
        needs_person=sum(counts.values()),
        notes=await _notes(storage, run.id, [kind for kind, count in counts.items() if count]),
        stuck=name_stuck(stuck),
    )


async def _notes(storage: Storage, run_id: str, kinds: list[OutcomeKind]) -> list[MachineNote]:
    """The first machines that need a person, the worst outcomes first."""
    notes: list[MachineNote] = []
    for kind in kinds:
        left = MAX_NOTES - len(notes)
        if not left:
            break
        page = await storage.machines.list_page(run_id, outcome=kind, limit=left, cursor=None)
        notes += [
            MachineNote(
                name=machine.name,
                resource_group=machine.resource_group,
                outcome=kind.value,
                reason=machine.reason,
                message=machine.message,
            )
            for machine in page.items
        ]
    return notes
