"""The activities of notifications, on real records and against a real receiver."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities.notifications import list_channels, record_delivery, send_notification
from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.notifications.events import (
    MAX_ATTEMPTS,
    MAX_NOTES,
    ApprovalNeeded,
    ErrorBudgetNotice,
    Facts,
    Notice,
    NoticeChannels,
    NoticeReport,
    RunEnded,
    RunStarted,
    SendNotice,
    SendResult,
    WindowAwaited,
)
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Mode, PolicyOrigin, Run, RunState, Trigger, TriggerKind
from patchwave.outbound.notifications import ChannelSender
from patchwave.settings import load_settings
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.webhook_receiver import Receiver, Reply, receiving

AT = datetime(2026, 11, 21, tzinfo=UTC)
RUN_ID = "20261121T000000Z-monthly"
SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
POLICY: dict[str, Any] = {
    "name": "monthly",
    "scope": {"subscriptions": [SUBSCRIPTION]},
    "rings": [{"name": "canary", "percent": 5}, {"name": "broad", "approval": {"within": "PT24H"}}],
    "notifications": {
        "channels": ["hub", "gone", "hub"],
        "events": ["started", "approval_needed", "gate_closed", "ended"],
    },
}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def channels(monkeypatch: pytest.MonkeyPatch, storage: Storage, receiver: Receiver) -> None:
    """The setting, with one webhook; ``records`` has made the other settings."""
    hub = {
        "name": "hub",
        "kind": "webhook",
        "url": f"{receiver.url}/SECRET",
        "secret": "SECRET-of-the-hook-and-no-others",
    }
    configure(monkeypatch, json.dumps([hub]))


def configure(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("PATCHWAVE_CHANNELS", text)
    load_settings.cache_clear()


async def make_run(storage: Storage, *, policy: dict[str, Any] = POLICY, **fields: Any) -> Run:
    trigger = Trigger(kind=TriggerKind.HTTP, actor="ada@example.com")
    run = Run(
        id=RUN_ID, policy="monthly", mode=Mode.PATCH, state=RunState.QUEUED, trigger=trigger, created_at=AT,
        policy_snapshot=policy,
    ).model_copy(update=fields)  # fmt: skip
    await storage.runs.create(run)
    return run


def notice(facts: Facts, number: int = 1) -> Notice:
    return Notice(run_id=RUN_ID, number=number, at=AT, facts=facts)


async def tell(services: Services, receiver: Receiver, facts: Facts, *, number: int = 1, tries: int = 1) -> SendResult:
    request = SendNotice(notice=notice(facts, number), channel="hub", attempt=tries)
    vars(services).update(channel_sender=ChannelSender(loopback_allowed=True, tls=receiver.tls))
    return await send_notification(services, request)


async def told(services: Services, receiver: Receiver, facts: Facts) -> dict[str, Any]:
    """The document that the receiver got."""
    assert await tell(services, receiver, facts) == SendResult(sent=True)
    document = json.loads(receiver.received[-1].body)
    assert (document.pop("version"), document.pop("runId"), document.pop("policy")) == (1, RUN_ID, "monthly")
    assert document.pop("at") == "2026-11-21T00:00:00.000Z"
    assert document.pop("event") == facts.event.value
    return document


# --- which channels


async def test_a_channel_gets_no_second_notification_in_a_later_generation(
    services: Services, storage: Storage, channels: None
) -> None:
    await make_run(storage)
    report = NoticeReport(
        run_id=RUN_ID, event=RunStarted().event, number=1, at=AT, sent=["hub"], failed={"gone": "no such channel"}
    )
    await record_delivery(services, report)
    failed = {"gone": "PATCHWAVE_CHANNELS has no such channel."}
    assert await asked(services, RunStarted()) == NoticeChannels(channels=[], failed=failed)
    another = await list_channels(services, notice(RunStarted(), 2))
    assert another == NoticeChannels(channels=["hub"], failed=failed), "another notice of the same event"
    assert (await asked(services, ErrorBudgetNotice())).channels == ["hub"], "another event"
    await record_delivery(services, report.model_copy(update={"event": ErrorBudgetNotice().event, "sent": []}))
    assert (await asked(services, ErrorBudgetNotice())).channels == ["hub"], "a channel that could not be told"


async def asked(services: Services, facts: Facts) -> NoticeChannels:
    return await list_channels(services, notice(facts))


async def test_the_channels_of_the_policy_that_are_configured(
    services: Services, storage: Storage, channels: None
) -> None:
    await make_run(storage)
    assert await asked(services, RunStarted()) == NoticeChannels(
        channels=["hub"], failed={"gone": "PATCHWAVE_CHANNELS has no such channel."}
    )


async def test_an_event_that_the_policy_does_not_name(services: Services, storage: Storage, channels: None) -> None:
    await make_run(storage, policy={**POLICY, "notifications": {"channels": ["hub"], "events": ["ended"]}})
    assert await asked(services, RunStarted()) == NoticeChannels()
    assert await asked(services, RunEnded()) == NoticeChannels(channels=["hub"])


async def test_a_policy_without_channels(services: Services, storage: Storage, channels: None) -> None:
    await make_run(storage, policy={key: value for key, value in POLICY.items() if key != "notifications"})
    assert await asked(services, RunStarted()) == NoticeChannels()


async def test_a_run_without_a_row_has_no_channels(services: Services, storage: Storage, channels: None) -> None:
    assert await asked(services, RunStarted()) == NoticeChannels()


async def test_a_setting_that_cannot_be_read_is_the_failure_of_every_channel(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    configure(monkeypatch, '[{"name": "hub", "url": "https://hooks.example.com/SECRET"}]')
    await make_run(storage)
    answer = await asked(services, RunStarted())
    assert (answer.channels, set(answer.failed)) == ([], {"hub", "gone"})
    assert answer.failed["hub"].startswith("PATCHWAVE_CHANNELS is not valid: [0].kind: Field required")
    assert "SECRET" not in repr(answer)
    result = await send_notification(services, SendNotice(notice=notice(RunStarted()), channel="hub"))
    assert (result.sent, result.wait_seconds) == (False, 0)
    assert "SECRET" not in result.failure


# --- what is told


async def test_a_start_has_actor_and_count(
    services: Services, storage: Storage, receiver: Receiver, channels: None
) -> None:
    await make_run(storage, machines=60)
    assert await told(services, receiver, RunStarted()) == {
        "mode": "patch",
        "trigger": "http",
        "startedBy": "ada@example.com",
        "machines": 60,
    }


async def test_an_approval_has_ring_deadline_and_command(
    services: Services, storage: Storage, receiver: Receiver, channels: None
) -> None:
    origin = PolicyOrigin(author="cleo", author_id="c", version=3, digest="0123456789abcdef")
    await make_run(storage, waiting_for="broad", policy_origin=origin)
    command = f"patchwave run approve {RUN_ID} --ring broad"
    assert await told(services, receiver, ApprovalNeeded()) == {
        "ring": "broad",
        "machines": None,
        "withinSeconds": 86_400.0,
        "approve": command,
        "author": "cleo",
        "digest": "0123456789ab",
        "scope": "subscriptions 11111111-2222-4333-8444-555555555555",
        "scripts": "none",
    }
    known = await told(services, receiver, ApprovalNeeded(ring="broad", machines=57, within_seconds=60))
    assert (known["ring"], known["machines"], known["withinSeconds"], known["approve"]) == ("broad", 57, 60.0, command)


async def test_a_gate_has_its_scope_and_what_happens_next(
    services: Services, storage: Storage, receiver: Receiver, channels: None
) -> None:
    await make_run(storage, blocked_scopes=["lane:broad/westeurope"])
    document = await told(services, receiver, ErrorBudgetNotice())
    assert (document["scope"], document["onExceeded"]) == ("lane:broad/westeurope", "hold")
    document = await told(services, receiver, ErrorBudgetNotice(scope="run", failures=3, limit=2, on_exceeded="end"))
    assert document == {"scope": "run", "failures": 3, "limit": 2, "onExceeded": "end", "reason": ""}


async def test_an_end_has_counts_and_the_worst_machines(
    services: Services, storage: Storage, receiver: Receiver, channels: None
) -> None:
    await make_run(storage)
    await storage.runs.start(RUN_ID, AT)
    outcomes = [OutcomeKind.PATCHED] * 3 + [OutcomeKind.SKIPPED] * 12 + [OutcomeKind.FAILED] * 2
    machines = [machine(number) for number in range(len(outcomes))]
    await storage.machines.add(RUN_ID, machines)
    for each, kind in zip(machines, outcomes, strict=True):
        outcome = Outcome(outcome=kind, reason=Reason.PATCHES_FAILED, message="Look\nat it.")
        await storage.results.record_outcomes(RUN_ID, [each.key], outcome, AT)
    await storage.runs.close(RUN_ID, RunState.COMPLETED, "", AT + timedelta(minutes=72))
    document = await told(services, receiver, RunEnded())
    assert document["countsByOutcome"] == {"patched": 3, "failed": 2, "skipped": 12}
    assert (document["state"], document["machines"], document["durationSeconds"]) == ("completed", 17, 4320.0)
    assert (document["needsPerson"], len(document["notes"])) == (14, MAX_NOTES)
    assert [note["outcome"] for note in document["notes"]] == ["failed"] * 2 + ["skipped"] * (MAX_NOTES - 2)
    assert document["notes"][0] | {"name": "vm"} == {
        "name": "vm",
        "resourceGroup": "rg",
        "outcome": "failed",
        "reason": "patches_failed",
        "message": "Look at it.",
    }


async def test_an_end_names_the_machines_that_failed_in_too_many_windows(
    services: Services, storage: Storage, receiver: Receiver, channels: None
) -> None:
    await make_run(storage, occurrence=AT, trigger=Trigger(kind=TriggerKind.TIMER))
    await storage.runs.start(RUN_ID, AT)
    stuck, once = (
        machine(number).model_copy(update={"occurrence": AT, "max_failed_windows": most})
        for number, most in ((1, 1), (2, 3))
    )
    await storage.machines.add(RUN_ID, [stuck, once])
    failed = Outcome(outcome=OutcomeKind.FAILED, reason=Reason.PATCHES_FAILED, message="1 patch failed.")
    for each in (stuck, once):
        await storage.results.record_outcome(RUN_ID, each.key, failed, at=AT, installation=None, patches=[])
    await storage.runs.close(RUN_ID, RunState.COMPLETED, "", AT + timedelta(minutes=72))
    assert (await told(services, receiver, RunEnded()))["stuck"] == "vm-1"


async def test_a_wait_for_the_next_window_has_the_number_of_remaining_machines(
    services: Services, storage: Storage, receiver: Receiver, channels: None
) -> None:
    await make_run(storage)
    machines = [machine(number) for number in range(3)]
    await storage.machines.add(RUN_ID, machines)
    outcome = Outcome(outcome=OutcomeKind.PATCHED, reason=Reason.OK, message="Patched.")
    await storage.results.record_outcomes(RUN_ID, [machines[0].key], outcome, AT)
    opens_at = AT + timedelta(days=1)
    assert await told(services, receiver, WindowAwaited(opens_at=opens_at)) == {
        "opensAt": "2026-11-22T00:00:00.000Z",
        "openMachines": 2,
    }


def machine(number: int) -> MachineRecord:
    path = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm-{number}"
    found = MachineId.parse(path)
    return MachineRecord(
        id=found.text, key=found.key, name=f"vm-{number}", subscription_id=SUBSCRIPTION, resource_group="rg"
    )


# --- attempts


async def test_every_attempt_has_the_same_delivery_id_and_another_notice_has_another(
    services: Services, storage: Storage, receiver: Receiver, channels: None
) -> None:
    await make_run(storage)
    await tell(services, receiver, ErrorBudgetNotice(), tries=1)
    await tell(services, receiver, ErrorBudgetNotice(), tries=2)
    await tell(services, receiver, ErrorBudgetNotice(), number=2)
    await tell(services, receiver, RunStarted())
    first, again, *others = [got.headers["x-patchwave-delivery"] for got in receiver.received]
    assert first == again
    assert len({first, *others}) == 3


async def test_a_temporary_failure_has_the_time_to_retry(
    services: Services, storage: Storage, receiver: Receiver, channels: None
) -> None:
    await make_run(storage)
    receiver.replies += [Reply(503), Reply(429, headers={"Retry-After": "600"}), Reply(500)]
    first = await tell(services, receiver, RunStarted())
    second = await tell(services, receiver, RunStarted(), tries=2)
    last = await tell(services, receiver, RunStarted(), tries=MAX_ATTEMPTS)
    assert (first.sent, first.failure) == (False, "HTTP 503.")
    assert 15 <= first.wait_seconds <= 17
    assert 600 <= second.wait_seconds <= 661
    assert (last.sent, last.wait_seconds) == (False, 0)


async def test_a_throttled_delivery_is_no_attempt(
    services: Services, storage: Storage, receiver: Receiver, channels: None
) -> None:
    await make_run(storage)
    receiver.replies += [Reply(429), Reply(503, headers={"Retry-After": "40"}), Reply(503), Reply(500)]
    results = [await tell(services, receiver, RunStarted(), tries=tries) for tries in (6, 6, 6, 2)]
    assert [result.counts_as_attempt for result in results] == [False, False, True, True]
    assert 15 <= results[0].wait_seconds <= 17
    assert 40 <= results[1].wait_seconds <= 45
    assert results[2].wait_seconds == 0


async def test_a_failure_that_does_not_pass_is_final(
    services: Services, storage: Storage, receiver: Receiver, channels: None
) -> None:
    await make_run(storage)
    receiver.replies.append(Reply(404, b"no_service"))
    assert await tell(services, receiver, RunStarted()) == SendResult(sent=False, failure="HTTP 404 (no_service).")


async def test_the_activity_itself_calls_nothing_on_this_machine(
    services: Services, storage: Storage, receiver: Receiver, channels: None
) -> None:
    await make_run(storage)
    result = await send_notification(services, SendNotice(notice=notice(RunStarted()), channel="hub"))
    assert result == SendResult(sent=False, failure="The address must not be called: it is this machine itself.")
    assert receiver.received == []


async def test_a_channel_that_was_taken_out_of_the_setting(
    services: Services, storage: Storage, channels: None
) -> None:
    await make_run(storage)
    result = await send_notification(services, SendNotice(notice=notice(RunStarted()), channel="gone"))
    assert (result.sent, result.wait_seconds) == (False, 0)


# --- the audit log


async def test_deliveries_are_audited_once(services: Services, storage: Storage) -> None:
    await make_run(storage)
    failure = "HTTP 404. Given up after 1 attempt."
    report = NoticeReport(run_id=RUN_ID, event=RunStarted().event, number=1, at=AT, sent=["hub"], failed={})
    for _ in range(2):
        await record_delivery(services, report)
    await record_delivery(services, report.model_copy(update={"number": 2, "failed": {"ops": failure}}))
    lines = (await storage.audit.list_page(RUN_ID, 10, None)).items
    assert {line["action"]: line["detail"] for line in lines} == {
        "notified": {"event": "started", "number": 1, "sent": ["hub"], "failed": {}},
        "notification_failed": {"event": "started", "number": 2, "sent": ["hub"], "failed": {"ops": failure}},
    }
    assert len(lines) == 2
