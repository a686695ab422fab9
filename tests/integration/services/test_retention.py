"""Evidence as one document, and removing what has been kept long enough, on real tables."""

from __future__ import annotations

import asyncio
import hashlib
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from patchwave.api import evidence
from patchwave.domain.core.ids import RunId
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import PatchRecord
from patchwave.domain.policy.policy import parse_policy
from patchwave.domain.policy.scope import OsType
from patchwave.domain.runs.retention import Retention, hourly_shard
from patchwave.domain.runs.run import RunState
from patchwave.services.refusal_log import REFUSED_CALLS
from patchwave.services.retention import purge, retention_of
from patchwave.settings import Settings
from patchwave.storage import Storage
from patchwave.storage.retention import RetentionRepository
from tests.support.factories import intent, machine, run, stored_run
from tests.support.http_calls import Answer, PurgedEngine, call

NOW = datetime(2027, 12, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)
KEPT = Retention(runs=400 * DAY, history=400 * DAY, instances=30 * DAY)
PATCHED = Outcome(outcome=OutcomeKind.PATCHED, reason=Reason.OK, message="3 patches installed.")
SECRET = "https://management.azure.com/op?t=1&c=SIGNED"


@pytest.fixture
def engine() -> PurgedEngine:
    return PurgedEngine()


async def run_of(storage: Storage, age: timedelta, *, machines: int = 2, ended: bool = True) -> str:
    """A run of that age with machines, their patches, history, intents and a line in its audit log."""
    at = NOW - age
    run_id = RunId.of(at, "monthly", "0123abcd").text
    policy = parse_policy({"name": "monthly", "scope": {"locations": ["westeurope"]}})
    await storage.runs.create(run(at, id=run_id, policy_snapshot=policy.to_wire()))
    await storage.runs.start(run_id, at)
    await storage.audit.add(run_id, "run_started", actor="timer", at=at)
    rows = [machine(number) for number in range(machines)]
    await storage.machines.add(run_id, rows)
    for number, row in enumerate(rows):
        await storage.intents.declare(intent(run_id, number, async_url=SECRET, location_url=SECRET))
        patches = [PatchRecord(name="openssl", version="3.0.2"), PatchRecord(name="curl", version="8.5.0")]
        await storage.results.record_outcome(run_id, row.key, PATCHED, at=at, installation=None, patches=patches)
    if ended:
        await storage.runs.close(run_id, RunState.COMPLETED, "", at)
    return run_id


async def read_evidence(run_id: str, limit: int = 500) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query: dict[str, str] = {"limit": str(limit)}
    while True:
        page: Answer = await call(evidence.get_run_evidence, query=query, runId=run_id)
        assert page.status == 200, page.text
        found += page.json["records"]
        if page.json["cursor"] is None:
            return found
        query["cursor"] = page.json["cursor"]


@pytest.mark.parametrize("limit", [1, 3, 100])
async def test_evidence_is_everything_that_is_kept_and_nothing_signed(storage: Storage, limit: int) -> None:
    run_id = await run_of(storage, 2 * DAY)
    found = await read_evidence(run_id, limit)
    kinds = [record["record"] for record in found]
    assert kinds[0] == "run"
    assert {kind: kinds.count(kind) for kind in set(kinds)} == {
        "run": 1, "intent": 2, "machine": 2, "patch": 4, "audit": 1,
    }  # fmt: skip
    assert found[0]["policySnapshot"]["name"] == "monthly"
    assert {record["machineKey"] for record in found if record["record"] == "patch"} == {
        record["key"] for record in found if record["record"] == "machine"
    }
    assert "SIGNED" not in str(found)


async def exported(run_id: str, received: object) -> Answer:
    return await call(evidence.acknowledge_export, body={"records": received}, runId=run_id)


async def exported_at(storage: Storage, run_id: str) -> datetime | None:
    run = await stored_run(storage, run_id)
    return run.exported_at


async def test_reading_evidence_changes_nothing(storage: Storage) -> None:
    """The last page of a GET counted as an export, also for a reader that had seen no other page."""
    run_id = await run_of(storage, 2 * DAY)
    before = await read_evidence(run_id)
    await read_evidence(run_id, 1)
    assert await exported_at(storage, run_id) is None
    assert await read_evidence(run_id) == before


async def test_all_pages_and_a_word_of_it_are_an_export(storage: Storage) -> None:
    run_id = await run_of(storage, 2 * DAY)
    answer = await exported(run_id, len(await read_evidence(run_id, 2)))
    assert (answer.status, answer.json["id"]) == (200, run_id)
    assert answer.json["exportedAt"]
    assert await exported_at(storage, run_id) is not None
    [line] = [
        each
        for each in (await storage.audit.list_page(run_id, 10, None)).items
        if each["action"] == "evidence_exported"
    ]
    assert line["detail"] == {"records": 10}


async def test_a_repeated_acknowledgement_changes_nothing(storage: Storage) -> None:
    run_id = await run_of(storage, 2 * DAY)
    first = await exported(run_id, 10)
    kept = await read_evidence(run_id)
    for _ in range(2):
        again = await exported(run_id, 10)
        assert (again.status, again.json) == (200, first.json)
    assert await read_evidence(run_id) == kept
    # Of an export that never was there is nothing to repeat.
    assert (await exported(run_id, 9)).status == 409


async def test_some_of_the_pages_are_no_export(storage: Storage) -> None:
    run_id = await run_of(storage, 2 * DAY)
    first = await call(evidence.get_run_evidence, query={"limit": "3"}, runId=run_id)
    middle = await call(evidence.get_run_evidence, query={"limit": "3", "cursor": first.json["cursor"]}, runId=run_id)
    whole = len(await read_evidence(run_id))
    for received in (len(middle.json["records"]), whole - 1, whole + 1):
        answer = await exported(run_id, received)
        assert (answer.status, str(whole) in answer.text) == (409, False)
    assert await exported_at(storage, run_id) is None


@pytest.mark.parametrize("received", [0, -1, "10", 10.5, True, None])
async def test_what_was_received_is_a_number(storage: Storage, received: object) -> None:
    run_id = await run_of(storage, 2 * DAY)
    answer = await exported(run_id, received)
    assert (answer.status, answer.paths) == (400, ["records"])


async def test_a_row_that_cannot_be_read_counts(storage: Storage) -> None:
    run_id = await run_of(storage, 2 * DAY)
    whole = len(await read_evidence(run_id))
    await storage._store.results.insert(run_id, "e~00~1", {"note": "a completion is no evidence"})
    await storage._store.results.insert(run_id, "k~odd", {"note": "{"})
    page = await call(evidence.get_run_evidence, query={"limit": "500"}, runId=run_id)
    assert len(page.json["records"]) + len(page.json.get("unreadable", [])) >= whole
    last = await read_evidence(run_id)
    assert (await exported(run_id, len(last) + len(page.json.get("unreadable", [])))).status == 200


async def test_evidence_of_an_unfinished_run_is_no_export(storage: Storage) -> None:
    run_id = await run_of(storage, 2 * DAY, ended=False)
    assert (await exported(run_id, len(await read_evidence(run_id)))).status == 409
    assert await exported_at(storage, run_id) is None


async def test_a_cursor_of_another_list_is_refused(storage: Storage) -> None:
    run_id = await run_of(storage, 2 * DAY)
    for cursor in ("x", "rä", "zm~1"):
        assert (await call(evidence.get_run_evidence, query={"cursor": cursor}, runId=run_id)).status == 400
    assert (await call(evidence.get_run_evidence, runId="20261110T190000Z-other")).status == 404


async def test_old_runs_go_with_everything_about_them(storage: Storage, engine: PurgedEngine) -> None:
    old, young = await run_of(storage, 401 * DAY), await run_of(storage, 399 * DAY)
    assert await purge(storage, engine, KEPT, NOW) == [old]
    assert await storage.runs.get(old) is None
    assert (await storage.machines.list_page(old, outcome=None, limit=10, cursor=None)).items == []
    assert (await storage.audit.list_page(old, 10, None)).items == []
    assert await storage.runs.get(young) is not None
    assert len((await storage.machines.list_page(young, outcome=None, limit=10, cursor=None)).items) == 2


async def test_a_run_that_has_not_ended_never_goes(storage: Storage, engine: PurgedEngine) -> None:
    run_id = await run_of(storage, 800 * DAY, ended=False)
    assert await purge(storage, engine, KEPT, NOW) == []
    assert await storage.runs.get(run_id) is not None


async def test_each_call_removes_a_bounded_number_of_rows_and_the_next_continues(
    storage: Storage, engine: PurgedEngine
) -> None:
    run_id = await run_of(storage, 401 * DAY, machines=4)
    calls = 0
    while await storage.runs.get(run_id) is not None:
        assert await purge(storage, engine, KEPT, NOW, most=6) in ([], [run_id])
        calls += 1
        assert calls < 10
    assert calls == 3


async def test_a_run_is_kept_until_its_export_where_the_setting_has_it(storage: Storage, engine: PurgedEngine) -> None:
    run_id = await run_of(storage, 401 * DAY)
    wanted = Retention(runs=400 * DAY, history=None, instances=None, needs_export=True)
    assert await purge(storage, engine, wanted, NOW) == []
    read = await read_evidence(run_id)
    assert await purge(storage, engine, wanted, NOW) == []
    assert (await exported(run_id, len(read))).status == 200
    assert await purge(storage, engine, wanted, NOW) == [run_id]
    assert not engine.asked


async def test_the_history_of_machines_is_purged_slice_by_slice(storage: Storage, engine: PurgedEngine) -> None:
    await run_of(storage, 500 * DAY, machines=1)
    await run_of(storage, 10 * DAY, machines=1)
    key = machine(0).key
    only_history = Retention(runs=None, history=400 * DAY, instances=None)
    due = next(at for hours in range(256) if hourly_shard(at := NOW + timedelta(hours=hours)) == int(key[:2], 16))
    await purge(storage, engine, only_history, due + timedelta(hours=1))
    assert len((await storage.history.list_page(key, 10, None)).items) == 2
    await purge(storage, engine, only_history, due)
    assert len((await storage.history.list_page(key, 10, None)).items) == 1
    assert len((await storage.history.list_fleet(10, None)).items) == 1


async def test_ended_instances_go_in_a_slice_of_time(storage: Storage, engine: PurgedEngine) -> None:
    await purge(storage, engine, KEPT, NOW)
    [asked] = engine.asked
    assert asked["created_time_to"] == NOW - 30 * DAY
    assert asked["created_time_from"] < asked["created_time_to"]
    assert {status.name for status in asked["runtime_status"]} == {"COMPLETED", "FAILED", "TERMINATED"}
    engine.failing = True
    await purge(storage, engine, KEPT, NOW)


def test_no_days_are_for_ever() -> None:
    connection: Any = "UseDevelopmentStorage=true"
    settings = Settings(tables_connection=connection, keep_runs_days=0, keep_history_days=0, keep_instances_days=0)
    assert retention_of(settings) == Retention(runs=None, history=None, instances=None)


async def test_what_a_phase_keeps_other_runs_away_from_is_evidence_with_a_name(storage: Storage) -> None:
    run_id = await run_of(storage, 2 * DAY)
    await storage._store.results.insert(run_id, "r~00~000", {"note": "here"})
    [groups] = [one for one in await read_evidence(run_id) if one["record"] == "groups"]
    assert groups["note"] == "here"


# --- what grows beside runs


async def purge_slices_of(storage: Storage, engine: PurgedEngine, *digests: str) -> None:
    """The calls of the hours in which these keys are due, within eleven days."""
    first = hourly_shard(NOW)
    for number in {int(digest[:2], 16) for digest in digests}:
        await purge(storage, engine, KEPT, NOW + timedelta(hours=(number - first) % 256))


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


@pytest.mark.parametrize("kind", ["idempotency-key", "delivery", "signature", "event", "new_machine", "retry"])
async def test_idempotency_keys_are_purged_with_the_age_of_their_runs(
    storage: Storage, engine: PurgedEngine, kind: str
) -> None:
    await storage.idempotency.reserve(kind, "old", "run-1", NOW - 412 * DAY)
    await storage.idempotency.reserve(kind, "young", "run-2", NOW - 398 * DAY + 11 * DAY)
    await purge_slices_of(storage, engine, sha("old"), sha("young"))
    assert await storage.idempotency.reserve(kind, "young", "run-3", NOW) == ("run-2", False)
    assert await storage.idempotency.reserve(kind, "old", "run-4", NOW) == ("run-4", True)


async def test_a_claim_of_a_kind_that_nothing_removes_is_refused(storage: Storage) -> None:
    with pytest.raises(ValueError, match="no kind of idempotency key"):
        await storage.idempotency.reserve("something", "key", "value", NOW)


async def test_packages_are_purged_by_the_date_when_they_were_first_seen(
    storage: Storage, engine: PurgedEngine
) -> None:
    for os_type in OsType:
        await storage.patch_pins.record_first_seen(os_type, [("openssl", "1")], NOW - 412 * DAY)
        await storage.patch_pins.record_first_seen(os_type, [("openssl", "2")], NOW - 300 * DAY)
    await purge_slices_of(storage, engine, sha("openssl=1"), sha("openssl=2"))
    for partition in ("windows", "linux"):
        rows = [row.columns["version"] async for row in storage._store.seen.scan(partition)]
        assert rows == ["2"]


async def test_pauses_go_a_day_after_their_end(storage: Storage, engine: PurgedEngine) -> None:
    await storage.throttling.throttle("over", NOW - timedelta(hours=25))
    await storage.throttling.throttle("just over", NOW - timedelta(hours=23))
    await purge(storage, engine, Retention(runs=None, history=None, instances=None), NOW)
    assert await storage.throttling.until("over") is None
    assert await storage.throttling.until("just over") == NOW - timedelta(hours=23)


async def test_latest_states_and_locks_of_machines_that_no_run_ends_any_more_go(
    storage: Storage, engine: PurgedEngine
) -> None:
    gone, stays = machine(0), machine(1)
    old, young = RunId.of(NOW - 412 * DAY, "monthly").text, RunId.of(NOW - 300 * DAY, "monthly").text
    for one, run_id, age in ((gone, old, 412), (stays, young, 300)):
        at = NOW - age * DAY
        await storage.machines.add(run_id, [one])
        assert await storage.leases.acquire(one.key, run_id, at, at + DAY) == run_id
        await storage.results.record_outcome(
            run_id, one.key, PATCHED, at=at, installation=None, patches=[], release=False
        )
    await purge_slices_of(storage, engine, gone.key, stays.key)
    assert [each["key"] for each in (await storage.history.list_fleet(10, None)).items] == [stays.key]
    leases = [row.key async for row in storage._store.machines.scan("machines", first="l~", end="l~~")]
    assert leases == [f"l~{stays.key}"]


@pytest.mark.parametrize(
    "subject", ["monthly", "freeze~xmas", "maintenance~abc", REFUSED_CALLS, "10-days", "2nd-tuesday", "zz"]
)
async def test_lines_about_policies_go_and_those_of_runs_stay_with_them(
    storage: Storage, engine: PurgedEngine, subject: str
) -> None:
    young_run = await run_of(storage, 300 * DAY)
    if subject == "2nd-tuesday":
        policy = parse_policy({"name": subject, "scope": {"locations": ["westeurope"]}})
        await storage.policies.put(subject, policy.to_wire(), if_match=None, if_none_match=False, at=NOW)
    for days in (500, 401, 399):
        await storage.audit.add(subject, f"done_{days}", actor="ana", at=NOW - days * DAY)
    await storage.audit.add(young_run, "very old", actor="ana", at=NOW - 500 * DAY)
    await purge(storage, engine, KEPT, NOW)
    assert [line["action"] for line in (await storage.audit.list_page(subject, 10, None)).items] == ["done_399"]
    assert "very old" in [line["action"] for line in (await storage.audit.list_page(young_run, 10, None)).items]


async def test_what_cannot_be_removed_is_logged_and_keeps_nothing_else(
    storage: Storage, engine: PurgedEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old = await run_of(storage, 401 * DAY)

    async def broken(self: Storage, *_: object) -> int:
        raise RuntimeError("a row that cannot be read")

    monkeypatch.setattr(RetentionRepository, "purge_idempotency_keys", broken)
    engine.failing = True
    assert await purge(storage, engine, KEPT, NOW) == [old]
    told = [each for each in caplog.records if each.exc_info]
    assert ["claims" in each.getMessage() for each in told] == [False, True]
    assert await storage.runs.get(old) is None


async def test_one_run_that_cannot_be_removed_keeps_no_older_one(
    storage: Storage, engine: PurgedEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    newer, older, damaged = [await run_of(storage, age * DAY) for age in (401, 402, 403)]
    await storage._store.runs.merge("runs", RunId.parse(damaged).row_key, {"state": "perhaps"})
    whole = RetentionRepository.purge_run

    async def broken(self: RetentionRepository, run_id: str, most: int) -> int | None:
        if run_id == newer:
            raise RuntimeError("no answer")
        return await whole(self, run_id, most)

    monkeypatch.setattr(RetentionRepository, "purge_run", broken)
    assert await purge(storage, engine, KEPT, NOW) == [older]
    told = [each.getMessage() for each in caplog.records if each.exc_info]
    assert [newer in text or damaged in text for text in told] == [True, True]


async def test_a_call_ends_in_its_time(
    storage: Storage, engine: PurgedEngine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    old = await run_of(storage, 401 * DAY)

    async def hangs(self: Storage, *_: object) -> int:
        await asyncio.sleep(60)
        return 0

    monkeypatch.setattr(RetentionRepository, "purge_idempotency_keys", hangs)
    begun = asyncio.get_running_loop().time()
    assert await purge(storage, engine, KEPT, NOW, budget=timedelta(seconds=0.5)) == []
    assert asyncio.get_running_loop().time() - begun < 5
    assert "No time was left to remove claims" in caplog.text
    assert await storage.runs.get(old) is not None
