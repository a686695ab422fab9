"""send_notifications, and what it means to a run that it is announced beside it."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Generator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from durabletask import task
from durabletask.client import OrchestrationStatus
from durabletask.history import TimerCreatedEvent

from local.functions_host.durable.workbench import Workbench
from orchestrators.machine import patch_machine
from orchestrators.notifications import announce, send_notifications
from orchestrators.operation import await_operation
from orchestrators.phase import patch_phase
from orchestrators.run import patch_run
from patchwave.domain.core.documents import format_instant
from patchwave.domain.notifications.events import (
    MAX_ATTEMPTS,
    ErrorBudgetNotice,
    Notice,
    NoticeChannels,
    RunEnded,
    RunStarted,
    SendResult,
    backoff,
)
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.run import Cutoff, NextWindow, RunRef
from tests.support.scripted_fleet import Fleet

type Json = dict[str, Any]

RUN_ID = "20261121T000000Z-monthly"
NOTICE = Notice(
    run_id=RUN_ID, number=2, at=datetime(2026, 11, 21, tzinfo=UTC), facts=ErrorBudgetNotice(scope="ring:broad")
)
SENT = SendResult(sent=True)
PASSING = SendResult(sent=False, wait_seconds=60, failure="HTTP 503.")
FINAL = SendResult(sent=False, failure="HTTP 404.")


class Broken(Exception):
    """Storage or the worker failed."""


class Town:
    """Channels that answer as scripted, the last answer again and again; ``None`` breaks the activity."""

    def __init__(self, failed: dict[str, str] | None = None, /, **scripts: list[SendResult | None]) -> None:
        self.scripts = scripts
        self.failed = failed or {}
        self.attempts: dict[str, list[Json]] = defaultdict(list)
        self.reports: list[Json] = []
        self._lock = threading.Lock()

    def activities(self) -> dict[str, Callable[[Any], Any]]:
        return {
            contracts.LIST_CHANNELS.name: self._list,
            contracts.SEND_NOTIFICATION.name: self._send,
            contracts.RECORD_DELIVERY.name: self._close,
        }

    def bench(self, *orchestrators: Any, **replaced: Callable[[Any], Any]) -> Workbench:
        return Workbench([send_notifications, *orchestrators], self.activities() | replaced)

    def _list(self, data: Json) -> Json:
        Notice.model_validate(data)
        return NoticeChannels(channels=list(self.scripts), failed=self.failed).to_wire()

    def _send(self, data: Json) -> Json:
        with self._lock:
            self.attempts[data["channel"]].append(data)
            script = self.scripts[data["channel"]]
            answer = script.pop(0) if len(script) > 1 else script[0]
        if answer is None:
            raise Broken("the storage is away")
        return answer.to_wire()

    def _close(self, data: Json) -> Json:
        self.reports.append(data)
        return {}


def test_every_channel_gets_a_notification_once() -> None:
    town = Town(ops=[SENT], chat=[SENT])
    with town.bench() as bench:
        ended = bench.run(contracts.SEND_NOTIFICATIONS.name, NOTICE.to_wire())
    assert ended.status is OrchestrationStatus.COMPLETED
    assert {name: len(attempts) for name, attempts in town.attempts.items()} == {"ops": 1, "chat": 1}
    assert all(attempt[0]["notice"] == NOTICE.to_wire() for attempt in town.attempts.values())
    (report,) = town.reports
    assert report == ended.output
    assert (report["runId"], report["event"], report["number"]) == (RUN_ID, "gate_closed", 2)
    assert (report["sent"], report["failed"]) == (["ops", "chat"], {})


def test_without_channels_nothing_is_recorded() -> None:
    town = Town()
    with town.bench() as bench:
        ended = bench.run(contracts.SEND_NOTIFICATIONS.name, NOTICE.to_wire())
    assert ended.status is OrchestrationStatus.COMPLETED
    assert town.reports == []


def test_a_failure_that_may_pass_is_tried_again_and_others_do_not_wait_for_it() -> None:
    town = Town(ops=[PASSING, PASSING, SENT], chat=[SENT])
    with town.bench() as bench:
        ended = bench.run(contracts.SEND_NOTIFICATIONS.name, NOTICE.to_wire())
        calls = [call["channel"] for call in bench.calls_of(contracts.SEND_NOTIFICATION.name)]
    assert sorted(calls[:2]) == ["chat", "ops"]
    assert calls[2:] == ["ops", "ops"]
    assert [attempt["attempt"] for attempt in town.attempts["ops"]] == [1, 2, 3]
    assert ended.output["failed"] == {}
    assert sorted(ended.output["sent"]) == ["chat", "ops"]


def test_the_retry_delay_of_an_attempt_is_kept() -> None:
    town = Town(ops=[SendResult(sent=False, wait_seconds=1800, failure="HTTP 429."), SENT])
    with town.bench() as bench:
        ended = bench.run(contracts.SEND_NOTIFICATIONS.name, NOTICE.to_wire())
    timers = [event for event in ended.history if isinstance(event, TimerCreatedEvent)]
    (timer,) = timers
    started = ended.history[0].timestamp
    waited = timer.fire_at.replace(tzinfo=UTC) - started.replace(tzinfo=UTC)
    assert timedelta(seconds=1799) < waited < timedelta(seconds=1830)


def test_a_throttled_channel_loses_no_attempt_and_delays_no_other() -> None:
    throttled = SendResult(sent=False, wait_seconds=30, counts_as_attempt=False, failure="HTTP 429.")
    town = Town(ops=[*[throttled] * 30, PASSING, SENT], chat=[SENT])
    with town.bench() as bench:
        began = bench.now()
        ended = bench.run(contracts.SEND_NOTIFICATIONS.name, NOTICE.to_wire(), timeout=60)
        minutes = (bench.now() - began).total_seconds() / 60
    assert sorted(ended.output["sent"]) == ["chat", "ops"]
    assert [attempt["attempt"] for attempt in town.attempts["ops"]] == [1] * 31 + [2]
    assert 20 <= minutes <= 60


def test_a_channel_that_is_throttled_for_ever_is_given_up_after_six_hours() -> None:
    town = Town(ops=[SendResult(sent=False, wait_seconds=30, counts_as_attempt=False, failure="HTTP 429.")])
    with town.bench() as bench:
        began = bench.now()
        ended = bench.run(contracts.SEND_NOTIFICATIONS.name, NOTICE.to_wire(), timeout=60)
        hours = (bench.now() - began).total_seconds() / 3600
    calls = len(town.attempts["ops"])
    assert ended.output["failed"] == {"ops": f"HTTP 429. Given up after {calls} attempts."}
    assert 5.7 <= hours <= 6.1
    assert calls <= 80


def test_a_final_failure_is_reported_and_stops_no_other_channel() -> None:
    town = Town({"gone": "PATCHWAVE_CHANNELS has no such channel."}, ops=[FINAL], chat=[SENT])
    with town.bench() as bench:
        ended = bench.run(contracts.SEND_NOTIFICATIONS.name, NOTICE.to_wire())
    assert ended.status is OrchestrationStatus.COMPLETED
    (report,) = town.reports
    assert report["sent"] == ["chat"]
    assert report["failed"] == {
        "gone": "PATCHWAVE_CHANNELS has no such channel.",
        "ops": "HTTP 404. Given up after 1 attempt.",
    }
    assert len(town.attempts["ops"]) == 1


def test_a_broken_activity_counts_as_a_failure_that_may_pass() -> None:
    town = Town(ops=[None])
    with town.bench() as bench:
        ended = bench.run(contracts.SEND_NOTIFICATIONS.name, NOTICE.to_wire(), timeout=40)
    assert ended.status is OrchestrationStatus.COMPLETED
    assert ended.output["failed"] == {"ops": f"Patchwave itself failed. Given up after {MAX_ATTEMPTS} attempts."}
    assert {attempt["attempt"] for attempt in town.attempts["ops"]} == set(range(1, MAX_ATTEMPTS + 1))


@pytest.mark.parametrize("activity", [contracts.LIST_CHANNELS.name, contracts.RECORD_DELIVERY.name])
def test_storage_that_is_away_for_good_fails_nothing(activity: str) -> None:
    def broken(_: Any) -> Any:
        raise Broken("the storage is away")

    town = Town(ops=[SENT])
    with town.bench(**{activity: broken}) as bench:
        ended = bench.run(contracts.SEND_NOTIFICATIONS.name, NOTICE.to_wire(), timeout=40)
    assert ended.status is OrchestrationStatus.COMPLETED


# --- beside a run


def announcing_run(context: task.OrchestrationContext, execution: int) -> Generator[task.Task[Any], Any, str | None]:
    """Announces something, goes on as new in the same turn, and announces its end in the turn that is its last."""
    yield context.create_timer(timedelta(seconds=1))
    if execution == 0:
        announce(context, RUN_ID, RunStarted())
        context.continue_as_new(1, save_events=True)
        return None
    announce(context, RUN_ID, ErrorBudgetNotice(scope="run"), 1)
    yield context.create_timer(timedelta(seconds=1))
    announce(context, RUN_ID, RunEnded(reason="Cancelled on request."))
    return "ended"


def test_an_announcement_outlives_the_execution_and_the_run_that_made_it() -> None:
    town = Town(ops=[SENT])
    with town.bench(announcing_run) as bench:
        ended = bench.run("announcing_run", 0)
        for event in ("started", "gate_closed", "ended"):
            notified = bench.wait(f"{RUN_ID}:notify:{event}:1")
            assert notified.output["sent"] == ["ops"]
    assert (ended.status, ended.output) == (OrchestrationStatus.COMPLETED, "ended")
    facts = {attempt["notice"]["facts"]["event"]: attempt["notice"]["facts"] for attempt in town.attempts["ops"]}
    assert len(town.attempts["ops"]) == len(facts) == 3
    assert facts["gate_closed"]["scope"] == "run"
    assert facts["ended"]["reason"] == "Cancelled on request."


def failing_announcement(context: task.OrchestrationContext, _: Json) -> Generator[task.Task[Any], Any]:
    yield context.create_timer(timedelta(seconds=1))
    raise Broken("no notification may fail a run")


def patient_run(context: task.OrchestrationContext, _: Any) -> Generator[task.Task[Any], Any, str]:
    announce(context, RUN_ID, RunStarted())
    yield context.create_timer(timedelta(seconds=30))
    return "ended"


def test_a_run_does_not_notice_that_its_announcement_failed() -> None:
    orchestrators = {"patient_run": patient_run, contracts.SEND_NOTIFICATIONS.name: failing_announcement}
    with Workbench(orchestrators) as bench:
        ended = bench.run("patient_run")
        sent = bench.wait(f"{RUN_ID}:notify:started:1")
    assert sent.status is OrchestrationStatus.FAILED
    assert (ended.status, ended.output) == (OrchestrationStatus.COMPLETED, "ended")


# --- the run itself


def announced_by(fleet: Fleet) -> list[Json]:
    """Run the fleet to its end; the facts of everything that was announced, in the order of its announcement."""
    town = Town(ops=[SENT])
    orchestrators = [patch_run, patch_phase, patch_machine, await_operation, send_notifications]
    with Workbench(orchestrators, fleet.activities() | town.activities()) as bench:
        ended = bench.run("patch_run", RunRef(run_id=RUN_ID).to_wire(), instance_id=RUN_ID, timeout=60)
        assert ended.status is OrchestrationStatus.COMPLETED, ended.failure
        if fleet.opened.announces:
            bench.wait(f"{RUN_ID}:notify:ended:1")
    notices = [Notice.model_validate(attempt["notice"]) for attempt in town.attempts["ops"]]
    assert len({(notice.facts.event, notice.number) for notice in notices}) == len(notices)
    return [notice.facts.to_wire() for notice in sorted(notices, key=lambda notice: notice.at)]


def test_a_run_announces_its_start_and_its_end() -> None:
    facts = announced_by(Fleet(["a" * 24], announces=True))
    assert [fact["event"] for fact in facts] == ["started", "ended"]


def test_a_run_without_channels_starts_no_notification() -> None:
    assert announced_by(Fleet(["a" * 24])) == []


def test_a_run_announces_once_that_it_waits_for_its_next_window() -> None:
    now = datetime.now(UTC)
    opens_at = now + timedelta(days=3)
    fleet = Fleet(["a" * 24], announces=True)
    fleet.opened = fleet.opened.model_copy(
        update={"options": fleet.opened.options.model_copy(update={"continues": True})}
    )
    fleet.cutoffs = [Cutoff(at=now - timedelta(hours=1)), Cutoff(at=opens_at + timedelta(hours=2))]
    fleet.next_windows = [NextWindow(opens_at=opens_at, ends_at=opens_at + timedelta(hours=4))]
    facts = announced_by(fleet)
    assert [fact["event"] for fact in facts] == ["started", "awaiting_window", "ended"]
    assert facts[1]["opensAt"] == format_instant(opens_at)
    assert set(fleet.outcomes.values()) == {("patched", "ok")}


# --- backoff


def test_backoff() -> None:
    assert [backoff(attempt) for attempt in range(1, MAX_ATTEMPTS + 1)] == [15, 60, 240, 960, 3600, 0]
    assert backoff(1, 600) == 600
    assert backoff(3, 5) == 240
    assert backoff(1, 86_400) == 3600
