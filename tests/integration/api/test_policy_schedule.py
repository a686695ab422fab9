"""The calendar of a policy over HTTP: upcoming windows, and overrides, each of which may be repeated."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from patchwave.api import policy_schedule
from patchwave.domain.runs.run import RunState, TriggerKind
from patchwave.domain.scheduling.freeze import parse_freeze
from patchwave.domain.scheduling.overrides import ScheduleOverrides
from patchwave.services.scheduler import start_due_policies
from patchwave.services.start_run import find_policy
from patchwave.storage import Storage
from tests.support.factories import NOW as STORED_AT
from tests.support.factories import stored_run
from tests.support.http_calls import SUBSCRIPTION, Engine, call

DAY = timedelta(days=1)
NAME = "nightly"
# So far away that no test meets one of its moments.
SCHEDULE = {
    "recurrence": "RRULE:FREQ=DAILY",
    "startDate": "2099-01-01",
    "time": "02:30",
    "timeZone": "Europe/Berlin",
    "window": "PT4H",
}
WHY = {"reason": "release night", "actor": "ann"}
ANN = "ann (claimed)"


@pytest.fixture
async def nightly(storage: Storage) -> str:
    """The name of a stored policy that runs every night."""
    await put(storage)
    return NAME


async def put(storage: Storage, **document: Any) -> None:
    whole = {"name": NAME, "scope": {"subscriptions": [SUBSCRIPTION]}, "schedule": SCHEDULE} | document
    await storage.policies.put(NAME, whole, if_match=None, if_none_match=False, at=STORED_AT)


async def freeze(storage: Storage, start: datetime, end: datetime, **fields: Any) -> None:
    bounds = {"from": start.isoformat(), "to": end.isoformat(), "reason": "closing"}
    await storage.freezes.put(parse_freeze(bounds | fields, name="year-end"), actor="ann", at=STORED_AT)


async def upcoming(count: int = 3) -> list[dict[str, Any]]:
    answer = await call(policy_schedule.list_occurrences, query={"count": str(count)}, name=NAME)
    assert answer.status == 200
    return answer.json["occurrences"]


async def actions(storage: Storage) -> list[tuple[str, str]]:
    return [(line["action"], line["actor"]) for line in (await storage.audit.list_page(NAME, 100, None)).items]


def instant(text: str) -> datetime:
    return datetime.fromisoformat(text)


class TestOccurrences:
    async def test_twelve_by_default(self, storage: Storage, nightly: str) -> None:
        answer = await call(policy_schedule.list_occurrences, name=nightly)
        assert answer.status == 200
        assert {name: answer.json[name] for name in ("policy", "enabled", "pause")} == {
            "policy": NAME,
            "enabled": True,
            "pause": None,
        }
        coming = answer.json["occurrences"]
        assert len(coming) == 12
        for day, each in enumerate(coming):
            assert instant(each["at"]) == datetime(2099, 1, 1, 1, 30, tzinfo=UTC) + day * DAY
            assert (each["willRun"], each["decision"], each["reason"]) == (True, "run", "")
            assert instant(each["windowEnd"]) - instant(each["at"]) == timedelta(hours=4)
            assert each["localTime"].endswith("T02:30:00+01:00")
            assert each["runId"] == f"{instant(each['at']):%Y%m%dT%H%M%SZ}-nightly"
        assert len(await upcoming(100)) == 100

    async def test_why_an_occurrence_will_not_run(self, storage: Storage, nightly: str) -> None:
        second = instant((await upcoming())[1]["at"])
        await freeze(storage, second - timedelta(hours=1), second + timedelta(hours=1))
        await call(policy_schedule.skip_next_occurrence, body=WHY, name=nightly)
        coming = await upcoming()
        assert [each["decision"] for each in coming] == ["skipped", "frozen", "run"]
        assert [each["willRun"] for each in coming] == [False, False, True]
        assert coming[0]["reason"] == "skipped by ann (claimed): release night"
        assert coming[1]["reason"].endswith("by year-end: closing")

    async def test_an_open_window_is_listed_first_until_its_run_exists(self, storage: Storage, nightly: str) -> None:
        policy = await find_policy(storage, nightly)
        now = datetime(2099, 1, 2, 3, 0, tzinfo=UTC)

        async def listed() -> list[tuple[str, str]]:
            controls = await storage.overrides.get(nightly)
            planned = await policy_schedule.upcoming_occurrences(storage, policy, controls, 2, now)
            return [(f"{each.at:%d %H:%M}", each.decision) for each in planned]

        assert await listed() == [("02 01:30", "run"), ("03 01:30", "run")]
        await freeze(storage, now - timedelta(hours=1), now + timedelta(hours=1))
        assert await listed() == [("02 01:30", "frozen"), ("03 01:30", "run")]
        await storage.freezes.delete("year-end", actor="ann", reason="over", at=STORED_AT)
        await start_due_policies(storage, Engine(), now)
        assert await listed() == [("03 01:30", "run"), ("04 01:30", "run")]

    async def test_a_policy_that_only_runs_on_request(self, storage: Storage) -> None:
        await put(storage, schedule=None)
        assert await upcoming() == []

    async def test_both_schedules_of_a_policy_in_order(self, storage: Storage) -> None:
        assess = SCHEDULE | {"startDate": "2099-01-01", "recurrence": "RRULE:FREQ=DAILY", "time": "20:00"}
        await put(storage, assess=assess)
        assert [(each["at"][5:16], each["mode"], each["decision"]) for each in await upcoming(4)] == [
            ("01-01T01:30", "patch", "run"),
            ("01-01T19:00", "assess", "run"),
            ("01-02T01:30", "patch", "run"),
            ("01-02T19:00", "assess", "run"),
        ]
        policy = await find_policy(storage, NAME)
        now = datetime(2099, 1, 1, 20, tzinfo=UTC)

        async def listed() -> list[str]:
            planned = await policy_schedule.upcoming_occurrences(storage, policy, ScheduleOverrides(), 2, now)
            return [f"{each.at:%d %H:%M} {each.mode}" for each in planned]

        assert await listed() == ["01 19:00 assess", "02 01:30 patch"]
        await start_due_policies(storage, Engine(), now)
        assert await listed() == ["02 01:30 patch", "02 19:00 assess"]

    @pytest.mark.parametrize("count", ["0", "101", "-1", "x", "1.5", "٣", "9" * 5_000])
    async def test_a_count_that_is_none(self, storage: Storage, nightly: str, count: str) -> None:
        refused = await call(policy_schedule.list_occurrences, query={"count": count}, name=nightly)
        assert (refused.status, refused.paths) == (400, ["count"])


class TestPause:
    async def test_a_pause_is_shown_and_ends(self, storage: Storage, engine: Engine, nightly: str) -> None:
        first = await call(policy_schedule.pause_policy, body=WHY, name=nightly)
        again = await call(policy_schedule.pause_policy, body={"reason": "another", "actor": "bob"}, name=nightly)
        assert (first.status, again.status) == (200, 200)
        assert first.json == again.json
        assert {name: first.json["pause"][name] for name in ("actor", "reason")} == {
            "actor": ANN,
            "reason": WHY["reason"],
        }
        assert [each["reason"] for each in await upcoming()] == [f"paused by {ANN}: release night"] * 3

        for _ in range(2):
            resumed = await call(policy_schedule.resume_policy, body={"reason": "done"}, engine=engine, name=nightly)
            assert (resumed.status, resumed.json["pause"]) == (200, None)
        assert [each["decision"] for each in await upcoming()] == ["run"] * 3
        assert await actions(storage) == [("policy_paused", ANN), ("policy_resumed", "api")]

    @pytest.mark.usefixtures("platform")
    async def test_a_sign_in_wins_over_a_typed_name(self, storage: Storage, nightly: str) -> None:
        headers = {"x-ms-client-principal-name": "ana@example.org"}
        answer = await call(policy_schedule.pause_policy, body=WHY, headers=headers, name=nightly)
        assert answer.json["pause"]["actor"] == "ana@example.org"

    @pytest.mark.parametrize("engine_fails", [False, True])
    async def test_a_resumption_wakes_the_run_that_waits(
        self, storage: Storage, engine: Engine, nightly: str, engine_fails: bool
    ) -> None:
        waiting, ended = "20261110T013000Z-nightly", "20261109T013000Z-nightly"
        for run_id in (waiting, ended):
            await storage.overrides.reserve_window(NAME, run_id, STORED_AT)
            await engine.schedule_new_orchestration("patch_run", input={}, instance_id=run_id, version="1")
        await storage.overrides.end_window_reservation(NAME, ended, STORED_AT + DAY)
        engine.failing = engine_fails
        await call(policy_schedule.pause_policy, body=WHY, name=nightly)
        answer = await call(policy_schedule.resume_policy, body=WHY, engine=engine, name=nightly)
        assert (answer.status, answer.json["pause"]) == (200, None)
        assert engine.events == ([] if engine_fails else [(waiting, "control")])


class TestSkip:
    async def test_the_same_order_means_the_same_occurrence(self, storage: Storage, nightly: str) -> None:
        coming = await upcoming()
        for _ in range(2):
            answer = await call(policy_schedule.skip_next_occurrence, body=WHY, name=nightly)
            assert (answer.status, [skip["occurrence"] for skip in answer.json["skips"]]) == (200, [coming[0]["at"]])
        assert await actions(storage) == [("occurrence_skipped", ANN)]

    async def test_a_skip_is_taken_back(self, storage: Storage, nightly: str) -> None:
        await call(policy_schedule.skip_next_occurrence, body=WHY, name=nightly)
        for _ in range(2):
            answer = await call(
                policy_schedule.unskip_next_occurrence, query={"reason": "mistake", "actor": "bob"}, name=nightly
            )
            assert (answer.status, answer.json["skips"]) == (200, [])
        assert [each["decision"] for each in await upcoming()] == ["run"] * 3
        assert await actions(storage) == [("occurrence_skipped", ANN), ("occurrence_skip_removed", "bob (claimed)")]

    async def test_what_is_frozen_anyway_is_not_skipped(self, storage: Storage, nightly: str) -> None:
        coming = await upcoming()
        await freeze(storage, instant(coming[0]["at"]), instant(coming[0]["at"]) + timedelta(hours=1))
        answer = await call(policy_schedule.skip_next_occurrence, body=WHY, name=nightly)
        assert [skip["occurrence"] for skip in answer.json["skips"]] == [coming[1]["at"]]

    async def test_there_is_nothing_to_skip(self, storage: Storage) -> None:
        await put(storage, schedule=None)
        refused = await call(policy_schedule.skip_next_occurrence, body=WHY, name=NAME)
        assert refused.problem["status"] == 409
        assert (await call(policy_schedule.unskip_next_occurrence, query={"reason": "x"}, name=NAME)).status == 200


class TestRunNow:
    async def run_now(self, engine: Engine, status: int = 202) -> dict[str, Any]:
        answer = await call(policy_schedule.run_policy_now, body=WHY, engine=engine, name=NAME)
        assert answer.status == status
        return answer.json

    async def test_a_run_with_a_window_as_long_as_the_schedules(
        self, storage: Storage, engine: Engine, nightly: str
    ) -> None:
        answer = await call(policy_schedule.run_policy_now, body=WHY, engine=engine, name=nightly)
        run = await stored_run(storage, answer.json["id"])
        assert (answer.status, answer.headers["Location"]) == (202, f"/api/runs/{run.id}")
        assert (run.trigger.kind, run.trigger.actor, run.trigger.detail) == (
            TriggerKind.HTTP,
            ANN,
            "run now: release night",
        )
        assert run.occurrence is not None
        assert run.window_end == run.occurrence + timedelta(hours=4)
        assert abs(run.occurrence - run.created_at) < timedelta(minutes=5)
        assert list(engine.instances) == [run.id]
        assert await actions(storage) == [("run_requested", ANN)]

    async def test_without_a_schedule_there_is_no_window(self, storage: Storage, engine: Engine) -> None:
        await put(storage, schedule=None)
        run = await stored_run(storage, (await self.run_now(engine))["id"])
        assert (run.occurrence, run.window_end) == (None, None)

    async def test_while_a_run_lasts_the_order_means_it(self, storage: Storage, engine: Engine, nightly: str) -> None:
        first = await self.run_now(engine)
        await storage.runs.start(first["id"], STORED_AT)
        assert (await self.run_now(engine))["id"] == first["id"]
        await storage.runs.close(first["id"], RunState.COMPLETED, "", STORED_AT)
        assert (await self.run_now(engine))["id"] != first["id"]
        assert len(engine.instances) == 2

    async def test_many_orders_at_once_are_one_run(self, storage: Storage, engine: Engine, nightly: str) -> None:
        answers = await asyncio.gather(*(self.run_now(engine) for _ in range(6)))
        assert len({each["id"] for each in answers}) == len(engine.instances) == 1

    async def test_an_order_that_the_engine_missed_is_made_good(
        self, storage: Storage, engine: Engine, nightly: str
    ) -> None:
        engine.failing = True
        await self.run_now(engine, status=503)
        engine.failing = False
        assert list(engine.instances) == [] != [(await self.run_now(engine))["id"]] == list(engine.instances)

    async def test_an_old_request_without_a_run_is_removed(
        self, storage: Storage, engine: Engine, nightly: str
    ) -> None:
        old = "20201110T190000Z-nightly-1a2b3c4d"
        await storage.overrides.request_run(NAME, old, instead_of="", actor="ann", reason="x", at=STORED_AT)
        assert (await self.run_now(engine))["id"] != old

    async def test_pauses_and_skips_are_about_the_schedule(
        self, storage: Storage, engine: Engine, nightly: str
    ) -> None:
        await put(storage, enabled=False)
        await call(policy_schedule.pause_policy, body=WHY, name=nightly)
        await call(policy_schedule.skip_next_occurrence, body=WHY, name=nightly)
        await self.run_now(engine)

    async def test_a_freeze_of_all_machines_blocks_the_window(
        self, storage: Storage, engine: Engine, nightly: str
    ) -> None:
        now = datetime.now(UTC)
        await freeze(storage, now - DAY, now + DAY)
        refused = await self.run_now(engine, status=409)
        assert refused["detail"].endswith("by year-end: closing")
        assert not engine.attempts
        await freeze(storage, now - DAY, now + DAY, tags={"values": {"app": ["shop"]}})
        await self.run_now(engine)


async def test_the_audit_log_of_a_policy_is_read_in_pages(storage: Storage, engine: Engine, nightly: str) -> None:
    await call(policy_schedule.pause_policy, body=WHY, name=nightly)
    await call(policy_schedule.resume_policy, body={"reason": "done"}, engine=engine, name=nightly)
    await storage.policies.delete(nightly, if_match=None)
    first = await call(policy_schedule.list_policy_audit, query={"limit": "1"}, name=nightly)
    rest = await call(policy_schedule.list_policy_audit, query={"cursor": first.json["cursor"]}, name=nightly)
    lines = [*first.json["audit"], *rest.json["audit"]]
    assert [(line["action"], line["actor"], line["detail"]) for line in lines] == [
        ("policy_paused", ANN, {"reason": "release night"}),
        ("policy_resumed", "api", {"reason": "done"}),
    ]
    assert rest.json["cursor"] is None
    assert (await call(policy_schedule.list_policy_audit, name="No Policy")).problem["status"] == 404


ORDERS = [
    policy_schedule.pause_policy,
    policy_schedule.resume_policy,
    policy_schedule.skip_next_occurrence,
    policy_schedule.unskip_next_occurrence,
    policy_schedule.run_policy_now,
]


@pytest.mark.parametrize("order", ORDERS)
class TestEveryCommand:
    async def give(self, order: object, engine: Engine, **request: Any) -> Any:
        with_client = order in (policy_schedule.resume_policy, policy_schedule.run_policy_now)
        return await call(order, engine=engine if with_client else None, **request)

    @pytest.mark.parametrize(
        ("body", "paths"),
        [
            (b"", ["reason"]),
            ({}, ["reason"]),
            ({"reason": "  "}, ["reason"]),
            ({"reason": "x" * 501}, ["reason"]),
            ({"reason": 7, "actor": 7}, ["reason", "actor"]),
            ({"reason": "x", "actor": "a\nb"}, ["actor"]),
            ({"reason": "x", "who": "ann"}, ["who"]),
            ([], ["$"]),
        ],
    )
    async def test_says_why(
        self, storage: Storage, engine: Engine, nightly: str, order: object, body: object, paths: list[str]
    ) -> None:
        refused = await self.give(order, engine, body=body, name=nightly)
        assert (refused.status, refused.paths) == (400, paths)
        assert await actions(storage) == []

    @pytest.mark.parametrize("name", ["other", "No Policy", "", "../x"])
    async def test_needs_a_policy(self, storage: Storage, engine: Engine, order: object, name: str) -> None:
        assert (await self.give(order, engine, body=WHY, name=name)).problem["status"] == 404
