"""The trace of refused calls: one line for each hour, function, caller and reason, and never many."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from patchwave.api import audit, freezes, health, policies, run_commands, runs
from patchwave.services import refusal_log
from patchwave.services.refusal_log import MAX_LINES, REFUSED_CALLS
from patchwave.settings import load_settings
from patchwave.storage import Storage, StorageUnreachable
from patchwave.storage.audit_log import AuditRepository
from patchwave.storage.policies import PolicyRepository
from tests.support.factories import RUN
from tests.support.http_calls import POLICY, Answer, Engine, call, clock_at, signed_in
from triggers.webhook import run_webhook

ANA = "aaaaaaaa-2222-4333-8444-555555555555"
TEN = datetime(2026, 12, 1, 10, tzinfo=UTC)


async def lines(storage: Storage) -> list[dict[str, Any]]:
    return (await storage.audit.list_page(REFUSED_CALLS, 1_000, None)).items


@pytest.fixture
def at_ten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refusal_log, "datetime", clock_at(TEN + timedelta(minutes=23)))


@pytest.mark.usefixtures("roles", "at_ten")
async def test_a_call_without_a_principal_and_one_without_the_role_leave_a_line_each(storage: Storage) -> None:
    assert (await call(runs.list_runs)).status == 401
    refused = await call(
        policies.put_policy, body=POLICY, headers=signed_in(ANA, "reader", name="ana@example.org"), name="monthly"
    )
    # What the trace says the answer does not.
    assert (refused.status, refused.problem["detail"]) == (403, "You may not do this.")
    assert sorted(await lines(storage), key=lambda line: line["detail"]["status"]) == [
        {
            "at": "2026-12-01T10:00:00.000Z",
            "action": "call_refused",
            "actor": "unknown",
            "actorId": "",
            "proven": False,
            "detail": {"function": "list_runs", "status": 401, "reason": "the request has no principal"},
        },
        {
            "at": "2026-12-01T10:00:00.000Z",
            "action": "call_refused",
            "actor": "ana@example.org",
            "actorId": ANA,
            "proven": True,
            "detail": {
                "function": "put_policy",
                "status": 403,
                "reason": "put_policy needs author, the caller has reader",
            },
        },
    ]


@pytest.mark.usefixtures("roles", "at_ten")
async def test_the_same_call_is_one_line_in_an_hour_whichever_worker_refuses_it(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await asyncio.gather(*[call(runs.list_runs) for _ in range(20)])
    assert len(await lines(storage)) == 1
    # Another worker, or this one after a restart, has no memory of it.
    refusal_log._WRITTEN.clear()
    assert (await call(runs.list_runs)).status == 401
    assert len(await lines(storage)) == 1
    monkeypatch.setattr(refusal_log, "datetime", clock_at(TEN + timedelta(minutes=61)))
    assert (await call(runs.list_runs)).status == 401
    assert [line["at"][:13] for line in await lines(storage)] == ["2026-12-01T10", "2026-12-01T11"]


@pytest.mark.usefixtures("roles", "at_ten")
async def test_of_very_many_callers_a_bounded_number_is_kept_one_by_one(storage: Storage) -> None:
    for number in range(MAX_LINES + 30):
        someone = signed_in(f"{number:08}-2222-4333-8444-555555555555", "reader")
        assert (await call(freezes.put_freeze, headers=someone, name="x")).status == 403
    assert (await call(runs.list_runs)).status == 401
    found = await lines(storage)
    assert len(found) == MAX_LINES + 2
    others = [(line["actorId"], line["detail"]["status"]) for line in found if line["actor"] == "others"]
    assert sorted(others) == [("", 401), ("", 403)]


@pytest.mark.usefixtures("roles")
async def test_what_a_caller_writes_into_a_refused_call_is_in_no_line(storage: Storage) -> None:
    forged = {"x-ms-client-principal-name": "MARKED", "x-ms-client-principal-id": "MARKED", "user-agent": "MARKED"}
    body = {"policy": "MARKED"}
    assert (
        await call(runs.start_run, body=body, headers=forged, query={"actor": "MARKED"}, engine=Engine())
    ).status == 401
    [line] = await lines(storage)
    assert line["actor"] == "unknown"
    assert "MARKED" not in str(line)


@pytest.mark.usefixtures("roles")
async def test_an_override_that_widens_is_traced_with_its_actor(storage: Storage, monthly: str) -> None:
    body = {"policy": monthly, "overrides": {"maxConcurrent": 1_000}}
    operator = signed_in(ANA, "operator", name="ana@example.org")
    assert (await call(runs.start_run, body=body, headers=operator, engine=Engine())).status == 403
    [line] = await lines(storage)
    assert (line["actorId"], line["detail"]["function"], line["detail"]["status"]) == (ANA, "start_run", 403)


UNSIGNED = "The function key or the signature is missing or not valid."


@pytest.fixture
def signed(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    del storage  # which has made the other settings
    monkeypatch.setenv("PATCHWAVE_WEBHOOK_SECRET", "a-secret-for-tests-only-and-no-other")
    load_settings.cache_clear()


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize(
    ("signature", "why"),
    [
        ("", "the call has no signature"),
        ("t=1,v2=MARKED", "the header of the signature is malformed"),
        ("t=1,v2=" + "0" * 64, "the time of the signature is off by more than 300 s"),
        ("t={now},v2=" + "0" * 64, "the signature fits no secret of the policy"),
    ],
)
async def test_a_webhook_that_is_refused_is_traced_with_policy_and_reason(
    storage: Storage, monthly: str, signature: str, why: str
) -> None:
    headers = {"x-patchwave-signature": signature.format(now=int(time.time()))}
    answer = await call(run_webhook, body=b"{}", headers=headers, engine=Engine(), policy=monthly)
    # The reason is for the trace alone.
    assert (answer.status, answer.problem["detail"]) == (401, UNSIGNED)
    [line] = await lines(storage)
    assert (line["actor"], line["proven"]) == ("unknown", False)
    assert line["detail"] == {"function": "run_webhook", "status": 401, "reason": why, "policy": "monthly"}


@pytest.mark.usefixtures("signed", "monthly")
@pytest.mark.parametrize("name", ["MARKED", "marked"])
async def test_a_policy_that_there_is_not_is_in_no_line(storage: Storage, name: str) -> None:
    assert (await call(run_webhook, body=b"{}", engine=Engine(), policy=name)).status == 401
    [line] = await lines(storage)
    assert line["detail"] == {"function": "run_webhook", "status": 401, "reason": "the call has no signature"}


@pytest.mark.usefixtures("roles")
async def test_a_webhook_without_a_secret_of_the_app_is_traced(storage: Storage, monthly: str) -> None:
    answer = await call(run_webhook, body=b"{}", engine=Engine(), policy=monthly)
    assert (answer.status, answer.problem["detail"]) == (401, UNSIGNED)
    [line] = await lines(storage)
    assert line["detail"]["reason"] == "callers need roles, and PATCHWAVE_WEBHOOK_SECRET is not set"


@pytest.mark.usefixtures("signed", "monthly")
async def test_an_unreadable_policy_changes_no_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def fails(*_: Any, **__: Any) -> None:
        raise StorageUnreachable("away")

    monkeypatch.setattr(PolicyRepository, "get", fails)
    assert (await call(run_webhook, body=b"{}", engine=Engine(), policy="monthly")).status == 401
    assert "Refused (401): run_webhook of unknown: the call has no signature" in caplog.text


async def test_a_wrong_health_key_is_traced_and_a_shallow_call_is_not(storage: Storage) -> None:
    assert (await call(health.health)).status == 200
    assert await lines(storage) == []
    assert (await call(health.health, query={"deep": "1"}, headers={"x-health-key": "guessed"})).status == 401
    [line] = await lines(storage)
    assert (line["detail"]["function"], "guessed" in str(line)) == ("health", False)


async def test_other_refusals_leave_no_line(storage: Storage, engine: Engine) -> None:
    assert (await call(runs.get_run, runId=RUN)).status == 404
    assert (await call(runs.start_run, body={"mode": "?"}, engine=engine)).status == 400
    assert (await call(run_commands.pause_run, body=b"{", engine=engine, runId=RUN)).status == 400
    assert await lines(storage) == []


@pytest.mark.usefixtures("roles")
async def test_a_storage_that_fails_changes_no_answer(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")

    async def fails(*_: Any, **__: Any) -> None:
        raise StorageUnreachable("away")

    monkeypatch.setattr(AuditRepository, "add", fails)
    answer = await call(runs.list_runs)
    assert (answer.status, answer.problem["detail"]) == (401, "Sign in.")
    assert "Refused (401): list_runs of unknown: the request has no principal" in caplog.text
    assert "left no line" in caplog.text


@pytest.mark.usefixtures("roles")
async def test_a_storage_that_hangs_holds_one_answer_and_not_for_long(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[object] = []

    async def hangs(*_: Any, **__: Any) -> None:
        asked.append(None)
        await asyncio.Event().wait()

    monkeypatch.setattr(AuditRepository, "add", hangs)
    monkeypatch.setattr(refusal_log, "_TIMEOUT_SECONDS", 0.05)
    for _ in range(5):
        assert (await asyncio.wait_for(call(runs.list_runs), timeout=10)).status == 401
    assert len(asked) == 1


@pytest.mark.usefixtures("roles")
async def test_readers_list_refused_calls_page_by_page(storage: Storage) -> None:
    for function in (runs.list_runs, policies.list_policies, freezes.list_freezes):
        assert (await call(function)).status == 401

    async def read(**query: str) -> Answer:
        return await call(audit.list_refused_calls, headers=signed_in(ANA, "reader"), query=query)

    first = await read(limit="2")
    rest = await read(limit="2", cursor=first.json["cursor"])
    named = {line["detail"]["function"] for line in [*first.json["audit"], *rest.json["audit"]]}
    assert (len(first.json["audit"]), named) == (2, {"list_runs", "list_policies", "list_freezes"})
