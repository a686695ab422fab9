"""The timer: what is due starts once, while its window is open, and one broken policy holds up no other."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from patchwave.api import freezes, policy_schedule
from patchwave.domain.runs.run import Mode, Run, RunState, TriggerKind
from patchwave.domain.scheduling.freeze import parse_freeze
from patchwave.domain.scheduling.overrides import Pause, Skip
from patchwave.services.scheduler import note_missed_occurrences, start_due_policies
from patchwave.storage import Storage, StorageUnreachable
from tests.support.factories import NOW as STORED_AT
from tests.support.http_calls import SUBSCRIPTION, Engine, call, user_function
from triggers.timers import start_scheduled_runs

OPENS = datetime(2026, 11, 10, 19, tzinfo=UTC)
SCHEDULE = {"recurrence": "second Tuesday", "time": "20:00", "timeZone": "Europe/Berlin", "window": "PT4H"}
HOUR, MINUTE = timedelta(hours=1), timedelta(minutes=1)


async def put(storage: Storage, name: str, **document: Any) -> None:
    whole = {"name": name, "scope": {"subscriptions": [SUBSCRIPTION]}, "schedule": SCHEDULE} | document
    await storage.policies.put(name, whole, if_match=None, if_none_match=False, at=STORED_AT)


@pytest.mark.parametrize("late", [timedelta(0), 5 * MINUTE, timedelta(hours=4) - MINUTE])
async def test_an_occurrence_starts_while_its_window_is_open(storage: Storage, engine: Engine, late: timedelta) -> None:
    await put(storage, "monthly")
    [run] = await start_due_policies(storage, engine, OPENS + late)
    assert run.id == "20261110T190000Z-monthly"
    assert (run.mode, run.state, run.trigger.kind) == (Mode.PATCH, RunState.QUEUED, TriggerKind.TIMER)
    assert (run.occurrence, run.window_end) == (OPENS, OPENS + timedelta(hours=4))
    assert list(engine.instances) == [run.id]
    [line] = (await storage.audit.list_page(run.id, 10, None)).items
    assert (line["action"], line["actor"], line["actorId"], line["proven"]) == ("run_started", "timer", "", False)


@pytest.mark.parametrize("moment", [OPENS - MINUTE, OPENS + timedelta(hours=4), OPENS + timedelta(days=3)])
async def test_nothing_starts_outside_the_window(storage: Storage, engine: Engine, moment: datetime) -> None:
    await put(storage, "monthly")
    assert await start_due_policies(storage, engine, moment) == []
    assert engine.attempts == []


async def test_every_tick_of_a_window_means_the_same_run(storage: Storage, engine: Engine) -> None:
    await put(storage, "monthly")
    for tick in range(4):
        await start_due_policies(storage, engine, OPENS + tick * 5 * MINUTE)
    assert len(engine.instances) == 1
    await storage.runs.close("20261110T190000Z-monthly", RunState.COMPLETED, "", OPENS + timedelta(hours=1))
    await start_due_policies(storage, engine, OPENS + timedelta(hours=2))
    assert len((await storage.runs.list_page(10, None)).items) == 1


async def test_only_enabled_policies_with_a_schedule(storage: Storage, engine: Engine) -> None:
    await put(storage, "disabled", enabled=False)
    await put(storage, "by-hand", schedule=None)
    await put(storage, "monthly")
    assert [run.policy for run in await start_due_policies(storage, engine, OPENS)] == ["monthly"]


async def reasons(storage: Storage) -> list[tuple[str, str]]:
    """Why occurrences of the policy did not start, by the audit log."""
    lines = (await storage.audit.list_page("monthly", 10, None)).items
    missed = [line for line in lines if line["action"] == "occurrence_not_started"]
    assert all((line["actor"], line["actorId"], line["proven"]) == ("timer", "", False) for line in missed)
    return [(line["detail"]["decision"], line["detail"]["reason"]) for line in missed]


async def freeze(storage: Storage, start: datetime, end: datetime, **fields: Any) -> None:
    bounds = {"from": start.isoformat(), "to": end.isoformat(), "reason": "closing"}
    await storage.freezes.put(parse_freeze(bounds | fields, name="year-end"), actor="ann", at=STORED_AT)


async def test_a_pause_holds_the_schedule_until_it_ends(storage: Storage, engine: Engine) -> None:
    await put(storage, "monthly")
    await put(storage, "weekly")
    await storage.overrides.pause("monthly", Pause(actor="ann", reason="audit", at=STORED_AT))
    for tick in range(3):
        runs = await start_due_policies(storage, engine, OPENS + tick * 5 * MINUTE)
        assert [run.policy for run in runs] == ["weekly"]
    assert await reasons(storage) == [("paused", "paused by ann: audit")]
    await storage.overrides.resume("monthly", actor="ann", reason="done", at=OPENS)
    runs = await start_due_policies(storage, engine, OPENS + 60 * MINUTE)
    assert [run.id for run in runs] == ["20261110T190000Z-monthly", "20261110T190000Z-weekly"]


async def test_a_skip_holds_one_occurrence(storage: Storage, engine: Engine) -> None:
    await put(storage, "monthly")
    await storage.overrides.skip("monthly", Skip(occurrence=OPENS, actor="ann", reason="release", at=STORED_AT))
    assert await start_due_policies(storage, engine, OPENS) == []
    assert await reasons(storage) == [("skipped", "skipped by ann: release")]
    assert len(await start_due_policies(storage, engine, OPENS + timedelta(days=28))) == 1


async def test_a_freeze_at_the_opening_or_at_the_moment_holds_an_occurrence(storage: Storage, engine: Engine) -> None:
    await put(storage, "monthly")
    await freeze(storage, OPENS - MINUTE, OPENS + MINUTE)
    for moment in (OPENS, OPENS + 5 * MINUTE):
        assert await start_due_policies(storage, engine, moment) == []
    assert await reasons(storage) == [("frozen", "frozen until 2026-11-10 19:01 UTC by year-end: closing")]
    await freeze(storage, OPENS + 5 * MINUTE, OPENS + 9 * MINUTE)
    assert await start_due_policies(storage, engine, OPENS + 5 * MINUTE) == []
    assert len(await start_due_policies(storage, engine, OPENS + 10 * MINUTE)) == 1


async def test_a_freeze_of_some_machines_or_of_another_policy_holds_no_run(storage: Storage, engine: Engine) -> None:
    await put(storage, "monthly")
    await freeze(storage, OPENS, OPENS + MINUTE, tags={"values": {"app": ["shop"]}})
    assert len(await start_due_policies(storage, engine, OPENS)) == 1
    await freeze(storage, OPENS, OPENS + MINUTE, policies=["weekly"])
    assert len(await start_due_policies(storage, engine, OPENS)) == 1
    assert await reasons(storage) == []


async def test_a_failure_after_the_start_of_a_run_is_no_failed_start(storage: Storage, engine: Engine) -> None:
    await put(storage, "monthly")
    assert len(await start_due_policies(storage, engine, OPENS)) == 1
    await storage.overrides.pause("monthly", Pause(actor="ann", reason="audit", at=OPENS))
    assert await start_due_policies(storage, engine, OPENS + 5 * MINUTE) == []
    assert await reasons(storage) == []


async def test_a_continued_run_has_the_window_for_itself(storage: Storage, engine: Engine) -> None:
    await put(storage, "monthly")
    [run] = await start_due_policies(storage, engine, OPENS - timedelta(days=28) - HOUR)
    earlier = "20261013T180000Z-monthly"
    assert run.id == earlier
    await storage.overrides.reserve_window("monthly", earlier, OPENS - timedelta(days=27))
    assert await start_due_policies(storage, engine, OPENS) == []
    assert await reasons(storage) == [("continue", f"the run {earlier} goes on in this window")]
    await storage.overrides.end_window_reservation("monthly", earlier, OPENS + MINUTE)
    assert await start_due_policies(storage, engine, OPENS + 5 * MINUTE) == []
    assert len(await start_due_policies(storage, engine, OPENS + timedelta(days=28))) == 1


async def test_a_run_that_sleeps_in_its_own_window_is_woken(storage: Storage, engine: Engine) -> None:
    """Its policy was given an earlier time, or its freeze was taken away, after it had looked for a window."""
    await put(storage, "monthly")
    [run] = await start_due_policies(storage, engine, OPENS - timedelta(days=28) - HOUR)
    await storage.overrides.reserve_window("monthly", run.id, OPENS - timedelta(days=27))
    await start_due_policies(storage, engine, OPENS)
    assert engine.events == [], "it works in it already"
    await storage.runs.set_state(run.id, RunState.AWAITING_WINDOW, "the window that opens at another time")
    await start_due_policies(storage, engine, OPENS + 5 * MINUTE)
    assert engine.events == [(run.id, "control")]


@pytest.mark.parametrize("is_forgotten", [True, False])
async def test_a_run_that_is_over_keeps_no_window(storage: Storage, engine: Engine, is_forgotten: bool) -> None:
    """Its row was deleted, or it ended before the window and the mark was not taken away."""
    await put(storage, "monthly")
    earlier = "20200101T000000Z-monthly"
    if not is_forgotten:
        [run] = await start_due_policies(storage, engine, OPENS - timedelta(days=28) - HOUR)
        earlier = run.id
        await storage.runs.close(earlier, RunState.COMPLETED, "", OPENS - HOUR)
    await storage.overrides.reserve_window("monthly", earlier, OPENS - timedelta(days=27))
    [started] = await start_due_policies(storage, engine, OPENS)
    assert started.id == "20261110T190000Z-monthly"
    assert await reasons(storage) == []
    assert (await storage.overrides.get("monthly")).window_reservation_of(earlier) is None


async def test_a_continued_run_reserves_windows_until_it_has_ended(storage: Storage, engine: Engine) -> None:
    await put(storage, "monthly")
    [run] = await start_due_policies(storage, engine, OPENS - timedelta(days=28) - HOUR)
    await storage.runs.start(run.id, STORED_AT)
    await storage.overrides.reserve_window("monthly", run.id, OPENS - timedelta(days=27))
    assert await start_due_policies(storage, engine, OPENS) == []
    await storage.runs.close(run.id, RunState.FAILED, "", OPENS + 6 * MINUTE)
    await storage.overrides.end_window_reservation("monthly", run.id, OPENS + 6 * MINUTE)
    # It may have been ended on purpose: this window stays its own.
    assert await start_due_policies(storage, engine, OPENS + 10 * MINUTE) == []
    assert len(await start_due_policies(storage, engine, OPENS + timedelta(days=28))) == 1


async def test_a_broken_policy_is_audited_and_holds_up_no_other(storage: Storage, engine: Engine) -> None:
    await put(storage, "a-broken", schedule=SCHEDULE | {"timeZone": "Mars/Olympus"})
    await put(storage, "monthly")
    assert [run.policy for run in await start_due_policies(storage, engine, OPENS)] == ["monthly"]
    [line] = (await storage.audit.list_page("a-broken", 10, None)).items
    assert line["action"] == "scheduled_start_failed"
    assert "schedule.timeZone" in str(line["detail"])


FAILURES = [ValueError("connection SECRET"), StorageUnreachable("away")]
CALLS = [("overrides", "get"), ("runs", "get"), ("runs", "create"), ("audit", "add")]


@pytest.mark.parametrize("error", FAILURES, ids=lambda error: type(error).__name__)
@pytest.mark.parametrize(("repository", "method"), CALLS)
async def test_whatever_fails_for_one_policy_the_others_start(
    storage: Storage,
    engine: Engine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    repository: str,
    method: str,
    error: Exception,
) -> None:
    """time-digits-policy.yaml is one example: the timer died for every policy behind it."""
    for name in ("a-broken", "monthly", "weekly"):
        await put(storage, name)
    if (repository, method) == ("runs", "get"):
        # Asked for only where something keeps the occurrence from running.
        await storage.overrides.pause("a-broken", Pause(actor="ann", reason="audit", at=STORED_AT))
    whole = getattr(getattr(storage, repository), method)

    async def failing(subject: Any, *args: Any, **kwargs: Any) -> Any:
        if "a-broken" in str(getattr(subject, "id", subject)):
            raise error
        return await whole(subject, *args, **kwargs)

    monkeypatch.setattr(getattr(storage, repository), method, failing)
    runs = await start_due_policies(storage, engine, OPENS)
    assert [run.policy for run in runs] == ["monthly", "weekly"]
    assert any(line.exc_info and line.exc_info[1] is error for line in caplog.records)
    if repository != "audit":
        lines = (await storage.audit.list_page("a-broken", 10, None)).items
        [line] = [line for line in lines if line["action"] == "scheduled_start_failed"]
        assert "SECRET" not in str(line["detail"])


async def test_a_failure_is_one_line_of_the_audit_log_an_hour(storage: Storage, engine: Engine) -> None:
    await put(storage, "a-broken", schedule=SCHEDULE | {"time": "22:0٠"})
    for minutes in (0, 5, 10, 65):
        await start_due_policies(storage, engine, OPENS + minutes * MINUTE)
    lines = (await storage.audit.list_page("a-broken", 10, None)).items
    assert [line["action"] for line in lines] == ["scheduled_start_failed"] * 2
    assert "schedule.time" in str(lines[0]["detail"])


@pytest.mark.parametrize(
    "damage",
    [{"updatedAt": "nonsense"}, {"version": "three"}, {"document": "{"}, {"document": "[]"}, {"document": "7"}],
)
async def test_a_policy_row_that_cannot_be_read_stops_no_list_and_no_start(
    storage: Storage, engine: Engine, damage: dict[str, Any]
) -> None:
    await put(storage, "a-broken")
    await put(storage, "monthly")
    await storage._store.policies.merge("policies", "a-broken", damage)
    assert [run.policy for run in await start_due_policies(storage, engine, OPENS)] == ["monthly"]
    assert [stored.name for stored in await storage.policies.list_all()] == ["a-broken", "monthly"]
    [line] = (await storage.audit.list_page("a-broken", 10, None)).items
    assert line["action"] == "scheduled_start_failed"
    said = await call(policy_schedule.list_occurrences, name="a-broken")
    assert said.status == 400
    assert said.paths
    # Writing the policy anew mends it.
    await put(storage, "a-broken")
    assert len(await start_due_policies(storage, engine, OPENS)) == 2


@pytest.mark.parametrize(
    "damage", [{"document": "{"}, {"document": '{"name": "a-broken", "new": 1}'}, {"actor": "ann"}]
)
async def test_a_freeze_row_that_cannot_be_read_holds_everything_until_it_is_mended(
    storage: Storage, engine: Engine, caplog: pytest.LogCaptureFixture, damage: dict[str, str]
) -> None:
    """It may say that patching is forbidden tonight."""
    await put(storage, "monthly")
    await storage._store.policies.insert("freezes", "a-broken", damage)
    assert await start_due_policies(storage, engine, OPENS) == []
    said = "frozen: the stored freeze a-broken cannot be read, so nothing starts until it is replaced or deleted"
    assert await reasons(storage) == [("frozen", said)]
    assert any("a-broken" in line.getMessage() and line.exc_info for line in caplog.records)
    coming = (await call(policy_schedule.list_occurrences, name="monthly")).json["occurrences"]
    assert {(each["decision"], each["reason"]) for each in coming} == {("frozen", said)}
    [listed] = (await call(freezes.list_freezes)).json["freezes"]
    assert (listed["name"], listed["reason"]) == ("a-broken", said.removeprefix("frozen: "))
    over = {"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z", "reason": "over"}
    assert (await call(freezes.put_freeze, body=over, name="a-broken")).status == 200
    assert len(await start_due_policies(storage, engine, OPENS)) == 1


async def test_a_freeze_row_that_cannot_be_read_can_be_deleted(storage: Storage, engine: Engine) -> None:
    await put(storage, "monthly")
    await storage._store.policies.insert("freezes", "a-broken", {"document": "{"})
    assert (await call(freezes.delete_freeze, body={"reason": "damaged"}, name="a-broken")).status == 204
    assert len(await start_due_policies(storage, engine, OPENS)) == 1


@pytest.mark.parametrize("damage", [{"skips": "{"}, {"pause": '{"actor": "ann"}'}, {"skips": "7"}])
async def test_orders_that_cannot_be_read_count_as_a_pause(
    storage: Storage, engine: Engine, caplog: pytest.LogCaptureFixture, damage: dict[str, str]
) -> None:
    await put(storage, "monthly")
    await put(storage, "weekly")
    await storage._store.policies.insert("controls", "monthly", damage)
    assert [run.policy for run in await start_due_policies(storage, engine, OPENS)] == ["weekly"]
    [(decision, why)] = await reasons(storage)
    assert decision == "paused"
    assert "the stored overrides of its schedule cannot be read; resume it to start anew" in why
    assert any("monthly" in line.getMessage() and line.exc_info for line in caplog.records)
    await storage.overrides.resume("monthly", actor="ann", reason="mended", at=OPENS)
    assert [run.policy for run in await start_due_policies(storage, engine, OPENS)] == ["monthly", "weekly"]


async def test_missed_occurrences_of_one_policy_do_not_hide_those_of_others(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put(storage, "a-broken")
    await put(storage, "monthly")
    whole = storage.runs.get

    async def failing(run_id: str) -> Run | None:
        if run_id.endswith("a-broken"):
            raise RuntimeError("no answer")
        return await whole(run_id)

    monkeypatch.setattr(storage.runs, "get", failing)
    await note_missed_occurrences(storage, OPENS + timedelta(days=27), OPENS + timedelta(days=29))
    assert [decision for decision, _ in await reasons(storage)] == ["missed"]


async def test_a_start_that_the_engine_missed_is_made_good_by_the_next_tick(storage: Storage, engine: Engine) -> None:
    await put(storage, "monthly")
    engine.failing = True
    assert await start_due_policies(storage, engine, OPENS) == []
    engine.failing = False
    assert [run.id for run in await start_due_policies(storage, engine, OPENS + 5 * MINUTE)] == list(engine.instances)


@pytest.mark.parametrize("past_due", [False, True])
async def test_the_function_itself(storage: Storage, engine: Engine, past_due: bool) -> None:
    """The clock is the real one here: a window of a week, open every day, is open now."""
    daily = {"recurrence": "RRULE:FREQ=DAILY", "time": "00:00", "timeZone": "UTC", "window": "PT168H"}
    await put(storage, "daily", schedule=daily)

    class Timer:
        pass

    timer = Timer()
    timer.past_due = past_due  # type: ignore[attr-defined]  # stands in for the worker's request
    await user_function(start_scheduled_runs)(timer=timer, client=engine)
    [run_id] = engine.instances
    assert run_id.endswith("T000000Z-daily")


NIGHTLY = {"recurrence": "RRULE:FREQ=DAILY", "time": "04:00", "timeZone": "UTC", "window": "PT2H"}
NIGHT = datetime(2026, 11, 9, 4, tzinfo=UTC)


class TestAssessments:
    """A policy that only assesses, and the schedule of assessments beside that of a policy that patches."""

    @pytest.mark.parametrize("late", [timedelta(0), 2 * HOUR - MINUTE])
    async def test_they_start_beside_the_policys_own_schedule(
        self, storage: Storage, engine: Engine, late: timedelta
    ) -> None:
        await put(storage, "monthly", assess=NIGHTLY)
        [run] = await start_due_policies(storage, engine, NIGHT + late)
        again = await start_due_policies(storage, engine, NIGHT + late)
        assert [each.id for each in again] == [run.id]
        assert len(engine.instances) == 1
        assert (run.mode, run.occurrence, run.window_end) == (Mode.ASSESS, NIGHT, NIGHT + 2 * HOUR)
        assert (run.trigger.kind, run.trigger.detail) == (TriggerKind.TIMER, "assessment schedule, version 1")
        assert await start_due_policies(storage, engine, NIGHT + 2 * HOUR) == []

    async def test_both_schedules_at_the_same_moment_are_two_runs_unless_the_first_covers_the_second(
        self, storage: Storage, engine: Engine
    ) -> None:
        await put(storage, "monthly", assess=SCHEDULE)
        [patch] = await start_due_policies(storage, engine, OPENS)
        assert (patch.id, patch.mode) == ("20261110T190000Z-monthly", Mode.PATCH)
        said = "the run of the window that opens at 2026-11-10 19:00 UTC assesses the machines"
        assert await reasons(storage) == [("covered", said)]
        [line] = (await storage.audit.list_page("monthly", 10, None)).items
        assert line["detail"]["schedule"] == "assess"
        await storage.overrides.skip("monthly", Skip(occurrence=OPENS, actor="ann", reason="x", at=STORED_AT))
        [assess] = await start_due_policies(storage, engine, OPENS + 5 * MINUTE)
        assert assess.mode is Mode.ASSESS
        assert assess.id != patch.id

    async def test_a_freeze_holds_patches_and_no_assessment(self, storage: Storage, engine: Engine) -> None:
        await put(storage, "a-patch")
        await put(storage, "assess", mode="assess")
        await put(storage, "beside", assess=SCHEDULE)
        await freeze(storage, OPENS - HOUR, OPENS + HOUR)
        runs = await start_due_policies(storage, engine, OPENS)
        assert [(run.policy, run.mode.value) for run in runs] == [("assess", "assess"), ("beside", "assess")]
        assert runs[0].id == "20261110T190000Z-assess"

    async def test_a_pause_holds_both(self, storage: Storage, engine: Engine) -> None:
        await put(storage, "monthly", assess=NIGHTLY)
        await storage.overrides.pause("monthly", Pause(actor="ann", reason="audit", at=STORED_AT))
        for tick in range(2):
            assert await start_due_policies(storage, engine, NIGHT + tick * 5 * MINUTE) == []
        assert await reasons(storage) == [("paused", "paused by ann: audit")]

    async def test_missed_ones_are_noted(self, storage: Storage, engine: Engine) -> None:
        await put(storage, "monthly", assess=NIGHTLY)
        since = STORED_AT.replace(hour=0, minute=0) + timedelta(days=1)
        await note_missed_occurrences(storage, since, since + timedelta(days=2))
        lines = (await storage.audit.list_page("monthly", 10, None)).items
        nights = [line["detail"] for line in lines if line["detail"].get("schedule") == "assess"]
        assert [detail["decision"] for detail in nights] == ["missed", "missed"]
