"""What all HTTP functions share: bodies, problems, callers, and what happens when storage is away."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import azure.functions as func
import pytest

from patchwave.api import (
    freezes,
    maintenance_configurations,
    patch_mode_changes,
    plans,
    policies,
    policy_conversion,
    policy_schedule,
    run_commands,
    runs,
)
from patchwave.api.endpoint import guarded
from patchwave.api.http import MAX_BODY, caller_of, json_response
from patchwave.api.problems import ApiProblem
from patchwave.azure.clients import close_clients
from patchwave.domain.core.principal import Role, Signed
from patchwave.domain.core.validation import Problem
from patchwave.domain.policy.policy import PolicyError
from patchwave.services.errors import InvalidRequest
from patchwave.services.strict_json import parse_json
from patchwave.settings import load_settings
from patchwave.storage import RecordTooLarge, Storage, StorageUnreachable
from tests.support.http_calls import POLICY, SUBSCRIPTION, Answer, Engine, call
from triggers import webhook


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"policy: monthly", b"\xff\xfe{}", b"[" * 100_000, b'{"policy": "monthly"', b"NaN", b'{"policy": NaN}'],
)
async def test_what_is_not_json_is_refused(storage: Storage, engine: Engine, monthly: str, body: bytes) -> None:
    found = await call(runs.start_run, body=body, engine=engine)
    assert found.status == 400
    assert found.problem
    assert not engine.attempts


TWICE = [
    # json-duplicate-key.json
    (policies.put_policy, b'{"scope":{"osTypes":["Linux"]},"maxConcurrent":1,"maxConcurrent":1000}', "maxConcurrent"),
    (policies.put_policy, b'{"scope":{"osTypes":["Linux"],"tags":null,"osTypes":["Windows"]}}', "osTypes"),
    (
        policies.put_policy,
        b'{"scope":{"osTypes":["Linux"]},"max\\u0043oncurrent":1,"maxConcurrent":2}',
        "maxConcurrent",
    ),
    (
        freezes.put_freeze,
        b'{"from":"2026-12-20T00:00:00Z","to":"2026-12-21T00:00:00Z","reason":"a","reason":"b"}',
        "reason",
    ),
    (runs.start_run, b'{"policy":"monthly","mode":"assess","mode":"patch"}', "mode"),
    (plans.plan_dry_run, b'{"policy":"monthly","policy":"weekly"}', "policy"),
    (webhook.run_webhook, b'{"mode":"assess","mode":"patch"}', "mode"),
    (policy_schedule.pause_policy, b'{"reason":"a","reason":"b"}', "reason"),
    (patch_mode_changes.plan_mode_change, b'{"mode":"Manual","mode":"AutomaticByPlatform"}', "mode"),
    (policy_conversion.import_policy, b'{"name":"a","name":"b"}', "name"),
    (maintenance_configurations.put_configuration, b'{"location":"westeurope","location":"eastus"}', "location"),
]


@pytest.mark.parametrize(("function", "body", "name"), TWICE)
async def test_a_key_that_is_there_twice_is_refused(
    storage: Storage, engine: Engine, monthly: str, function: object, body: bytes, name: str
) -> None:
    route: dict[str, Any] = {"name": "monthly", "policy": "monthly", "runId": "20261110T190000Z-monthly"}
    route |= {"subscriptionId": SUBSCRIPTION, "resourceGroup": "rg", "configuration": "weekly"}
    takes_engine = function in (runs.start_run, webhook.run_webhook)
    found = await call(function, body=body, engine=engine if takes_engine else None, **route)
    assert found.status == 400, found.text
    assert f'"{name}"' in found.problem["detail"]
    assert "twice" in found.problem["detail"]
    assert not engine.attempts


@pytest.mark.parametrize(
    "body", [b'{"description": "\\ud800"}', b'{"\\udfff": 1}', '{"a": "\ud800"}'.encode("utf-8", "surrogatepass")]
)
async def test_half_of_a_surrogate_pair_is_no_text(storage: Storage, body: bytes) -> None:
    found = await call(policies.put_policy, body=body, name="monthly")
    assert found.status == 400
    assert "surrogate" in found.problem["detail"]


@pytest.mark.parametrize("body", [b"[]", b"null", b'"monthly"', b"7"])
async def test_json_that_is_no_object_is_refused(storage: Storage, engine: Engine, body: bytes) -> None:
    found = await call(runs.start_run, body=body, engine=engine)
    assert found.status == 400
    assert found.problem


async def test_a_body_may_have_256_kilobytes_and_not_one_byte_more(storage: Storage, engine: Engine) -> None:
    text = json.dumps({"policy": POLICY}).encode()
    exactly = text + b" " * (256 * 1024 - len(text))
    assert len(exactly) == MAX_BODY
    assert (await call(runs.start_run, body=exactly, engine=engine)).status == 202
    for function in (runs.start_run, webhook.run_webhook):
        too_much = await call(function, body=exactly + b" ", engine=engine, policy="monthly")
        assert too_much.status == 413
        assert too_much.problem
    assert (await call(policies.put_policy, body=exactly + b" ", name="monthly")).status == 413


async def test_storage_that_is_away_is_503_with_a_wait(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    key = "c2VjcmV0LWtleS1vZi10aGUtYWNjb3VudA=="
    connection = f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey={key};TableEndpoint=http://127.0.0.1:1/a;"
    monkeypatch.setenv("PATCHWAVE_TABLES_CONNECTION", connection)
    load_settings.cache_clear()
    try:
        answers = [
            await call(runs.start_run, body={"policy": POLICY}, engine=engine),
            await call(runs.list_runs),
            await call(webhook.run_webhook, body={}, engine=engine, policy="monthly"),
            await call(policies.list_policies),
        ]
    finally:
        await close_clients()
        load_settings.cache_clear()
    for found in answers:
        assert found.status == 503
        assert int(found.headers["Retry-After"]) > 0
        assert "127.0.0.1" not in found.text
    assert not engine.attempts
    assert key not in caplog.text


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (StorageUnreachable("https://account.table.core.windows.net/?sig=SECRET"), 503),
        (RecordTooLarge("SECRET"), 413),
        (RuntimeError("connection string SECRET"), 500),
        (KeyError("SECRET"), 500),
    ],
)
async def test_no_answer_repeats_the_text_of_an_internal_error(storage: Storage, error: Exception, status: int) -> None:
    @partial(guarded, role=Role.READER)
    async def fail(req: func.HttpRequest) -> func.HttpResponse:
        raise error

    found = Answer(await fail(req=func.HttpRequest("GET", "/", body=b"")))
    assert found.status == status
    assert found.problem
    assert "SECRET" not in found.text


@pytest.mark.parametrize(
    ("name", "expected"),
    [("ana@example.org", "ana@example.org"), ("", "api"), ("a\r\nb\x00", "ab"), ("x" * 5000, "x" * 200)],
)
@pytest.mark.usefixtures("storage", "platform")
def test_the_caller_is_a_short_printable_name(name: str, expected: str) -> None:
    request = func.HttpRequest("GET", "/", headers={"x-ms-client-principal-name": name}, body=b"")
    assert caller_of(request) == Signed(actor=expected, proven=expected != "api")


@pytest.mark.parametrize("said", [None, "False", ""])
def test_a_name_counts_only_where_the_platform_writes_it(said: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if said is not None:
        monkeypatch.setenv("WEBSITE_AUTH_ENABLED", said)
    request = func.HttpRequest("GET", "/", headers={"x-ms-client-principal-name": "the-boss"}, body=b"")
    assert caller_of(request) == Signed(actor="api")
    assert caller_of(request, claimed="ana") == Signed(actor="ana (claimed)")


def test_a_caller_without_a_name_is_the_api() -> None:
    assert caller_of(func.HttpRequest("GET", "/", body=b"")) == Signed(actor="api")


def test_an_answer_is_json() -> None:
    found = Answer(json_response({"a": "é"}, status=201, headers={"ETag": '"1"'}))
    assert (found.status, found.json, found.type) == (201, {"a": "é"}, "application/json")


def _keys(count: int) -> dict[str, int]:
    return {f"k{number}": number for number in range(count)}


@pytest.mark.parametrize(
    ("document", "detail"),
    [
        (_keys(1_001), "An object of the body has more than 1,000 keys."),
        ([0] * 2_001, "A list of the body has more than 2,000 entries."),
        ({"a": [[0] * 2_000] * 5}, "The body has more than 10,000 values."),
        ([[{}] * 2_000] * 40, "The body has more than 10,000 values."),
        ([_keys(1_000)] * 11, "The body has more than 10,000 values."),
    ],
)
def test_a_body_has_no_more_than_any_real_one(document: object, detail: str) -> None:
    with pytest.raises(InvalidRequest, match=detail):
        parse_json(json.dumps(document).encode())


def test_a_large_body_is_read() -> None:
    document = {"a": [_keys(1_000), [0] * 2_000], "b": [[0] * 2_000, [0] * 2_000, [0] * 2_000], "c": "x" * 200_000}
    assert parse_json(json.dumps(document).encode()) == document


async def test_a_body_with_thousands_of_unknown_keys_lists_fifty(storage: Storage) -> None:
    answer = await call(
        run_commands.pause_run, body=_keys(900), engine=Engine(), runId="20261110T190000Z-monthly-1a2b3c4d"
    )
    assert (answer.status, len(answer.problem["errors"])) == (400, 51)
    assert answer.problem["errors"][-1]["message"] == "850 more errors are not listed; mend these first"


async def test_an_error_does_not_repeat_a_long_text_of_the_caller(storage: Storage) -> None:
    body = {"scope": {"tags": {"values": {"t" * 100_000: ["\n"] * 500}}}, "schedule": {"timeZone": "z" * 100_000}}
    answer = await call(policies.put_policy, body=body, name="monthly")
    assert answer.status == 400
    assert len(answer.text) < 60_000


async def test_a_query_parameter_is_not_endless(storage: Storage) -> None:
    answer = await call(runs.list_runs, query={"cursor": "x" * 8_193})
    assert (answer.status, answer.paths) == (400, ["cursor"])


def test_a_refusal_lists_fifty_errors_and_counts_the_others() -> None:
    problems = [Problem(path=f"x[{number}]", message="is wrong") for number in range(250)]
    told = json.loads(ApiProblem(400, "The request is not valid.", errors=problems).to_response().get_body())["errors"]
    assert [each["path"] for each in told] == [f"x[{number}]" for number in range(50)] + ["$"]
    assert told[-1]["message"] == "200 more errors are not listed; mend these first"
    # What was cut before stays cut, and its count is added to.
    again = ApiProblem(400, "", errors=[*PolicyError(problems).errors, problems[200]])
    assert len(again.errors) == 51
    assert again.errors[-1].message == "201 more errors are not listed; mend these first"
