"""The webhook: signed, fresh, once per signature, one run per delivery."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from typing import Any

import pytest

from adapters.tables import Records
from settings import load_settings
from tests.adapters.samples import NOW
from tests.triggers.support import POLICY, Answer, Engine, call
from triggers.webhook import run_webhook

SECRET = "a-secret-for-tests-only-and-no-other"


@pytest.fixture
def signed(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret is set, so that signatures are asked for."""
    monkeypatch.setenv("PATCHWAVE_WEBHOOK_SECRET", SECRET)
    load_settings.cache_clear()


def sign(body: bytes, *, at: float | None = None, secret: str = SECRET) -> str:
    stamp = str(int(time.time() if at is None else at))
    digest = hmac.new(secret.encode(), stamp.encode() + b"." + body, hashlib.sha256).hexdigest()
    return f"t={stamp},v1={digest}"


async def send(
    engine: Engine, body: bytes = b"{}", *, signature: str = "", delivery: str = "", policy: str = "monthly"
) -> Answer:
    headers = {"X-Patchwave-Signature": signature, "X-Patchwave-Delivery": delivery}
    given = {name.lower(): value for name, value in headers.items() if value}
    return await call(run_webhook, body=body, headers=given, engine=engine, policy=policy)


async def test_a_delivery_starts_the_policy(records: Records, engine: Engine, monthly: str) -> None:
    answer = await send(engine, b'{"mode": "assess", "alert": {"of": "another system"}}', delivery="d-1")
    assert answer.status == 202
    found = await records.get_run(answer.json["id"])
    assert found
    assert (found.policy, found.mode.value, found.trigger.kind.value) == ("monthly", "assess", "webhook")
    assert found.trigger.detail == "d-1"
    assert list(engine.instances) == [found.id]


async def test_a_body_may_be_empty(records: Records, engine: Engine, monthly: str) -> None:
    assert (await send(engine, b"")).status == 202


@pytest.mark.parametrize("by_header", [True, False])
async def test_a_repeated_delivery_is_one_run(records: Records, engine: Engine, monthly: str, by_header: bool) -> None:
    async def deliver(number: int) -> Answer:
        if by_header:
            return await send(engine, delivery=f"d-{number}")
        return await send(engine, json.dumps({"deliveryId": f"d-{number}"}).encode())

    first, again, other = await deliver(1), await deliver(1), await deliver(2)
    assert first.json["id"] == again.json["id"] != other.json["id"]
    assert len(engine.instances) == 2


async def test_the_same_delivery_many_times_at_once_is_one_run(records: Records, engine: Engine, monthly: str) -> None:
    answers = await asyncio.gather(*(send(engine, delivery="d-1") for _ in range(6)))
    assert len({answer.json["id"] for answer in answers}) == 1
    assert len(engine.instances) == 1


async def test_a_delivery_stands_for_one_start(records: Records, engine: Engine, monthly: str) -> None:
    await records.put_policy("weekly", {"name": "weekly", **POLICY}, if_match=None, if_none_match=True, at=NOW)
    first = await send(engine, b'{"mode": "assess"}', delivery="d-1")
    of_other_key = await send(engine, b'{"mode": "assess", "sentAt": "later"}', delivery="d-1")
    assert of_other_key.json["id"] == first.json["id"]
    assert (await send(engine, b'{"mode": "patch"}', delivery="d-1")).problem["status"] == 422
    assert (await send(engine, b'{"mode": "assess"}', delivery="d-1", policy="weekly")).problem["status"] == 422
    assert list(engine.instances) == [first.json["id"]]


async def test_an_unknown_policy_is_not_found(records: Records, engine: Engine) -> None:
    for name in ("nobody", "../x", ""):
        assert (await send(engine, policy=name)).status == 404
    assert not engine.attempts


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"mode": "install"}', b'{"mode": 7}', b'{"deliveryId": 7}'])
async def test_a_wrong_body_is_refused(records: Records, engine: Engine, monthly: str, body: bytes) -> None:
    assert (await send(engine, body)).problem["status"] == 400
    assert not engine.attempts


@pytest.mark.usefixtures("signed")
async def test_a_good_signature_opens(records: Records, engine: Engine, monthly: str) -> None:
    body = '{"deliveryId": "ä"}'.encode()
    assert (await send(engine, body, signature=sign(body))).status == 202


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize(
    "make",
    [
        lambda body: "",
        lambda body: "nonsense",
        lambda body: sign(body, secret="another"),
        lambda body: sign(body + b" "),
        lambda body: sign(body, at=time.time() - 310),
        lambda body: sign(body, at=time.time() + 310),
        lambda body: sign(body).replace("t=", "t=0"),
        lambda body: sign(body).replace("v1=", "v0="),
        lambda body: sign(body)[:-1],
        lambda body: sign(body) + "0",
        lambda body: f"t={int(time.time())},v1={'0' * 64}",
        lambda body: f"t={'9' * 400},v1={'0' * 64}",
        lambda body: f"t=٣,v1={'0' * 64}",
        lambda body: sign(body).encode("utf-16").decode("latin-1"),
    ],
)
async def test_any_other_signature_is_refused(records: Records, engine: Engine, monthly: str, make: Any) -> None:
    answer = await send(engine, signature=make(b"{}"))
    assert answer.problem["status"] == 401
    assert SECRET not in answer.text
    assert not engine.attempts


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize("seconds", [-290, 290])
async def test_a_signature_within_the_tolerance_opens(
    records: Records, engine: Engine, monthly: str, seconds: int
) -> None:
    assert (await send(engine, signature=sign(b"{}", at=time.time() + seconds))).status == 202


@pytest.mark.usefixtures("signed")
async def test_a_replay_is_refused_also_under_another_delivery(records: Records, engine: Engine, monthly: str) -> None:
    signature = sign(b"{}")
    assert (await send(engine, signature=signature)).status == 202
    assert (await send(engine, signature=signature)).status in (401, 409)
    # The delivery header is not part of what is signed.
    assert (await send(engine, signature=signature, delivery="d-2")).status in (401, 409)
    assert len(engine.instances) == 1


@pytest.mark.usefixtures("signed")
async def test_a_sender_that_repeats_its_delivery_gets_its_run(records: Records, engine: Engine, monthly: str) -> None:
    signature = sign(b"{}")
    first = await send(engine, signature=signature, delivery="d-1")
    same = await send(engine, signature=signature, delivery="d-1")
    fresh = await send(engine, signature=sign(b"{}", at=time.time() - 5), delivery="d-1")
    assert {answer.status for answer in (first, same, fresh)} == {202}
    assert len({answer.json["id"] for answer in (first, same, fresh)}) == 1
    assert len(engine.instances) == 1


@pytest.mark.usefixtures("signed")
async def test_a_refused_signature_costs_the_delivery_nothing(records: Records, engine: Engine, monthly: str) -> None:
    """A replay under a new delivery id must not bind that id to a run that never comes."""
    signature = sign(b"{}")
    await send(engine, signature=signature, delivery="d-1")
    assert (await send(engine, signature=signature, delivery="d-2")).status in (401, 409)
    honest = await send(engine, signature=sign(b"{}", at=time.time() - 5), delivery="d-2")
    assert honest.status == 202
    assert list(engine.instances)[-1] == honest.json["id"]


@pytest.mark.usefixtures("signed")
async def test_a_request_whose_first_attempt_failed_may_be_repeated(
    records: Records, engine: Engine, monthly: str
) -> None:
    """The engine was away: the same bytes are no replay as long as they have started nothing."""
    signature = sign(b"{}")
    engine.failing = True
    assert (await send(engine, signature=signature)).status == 503
    engine.failing = False
    retried = await send(engine, signature=sign(b"{}", at=time.time() - 3))
    assert retried.status == 202


async def test_without_a_secret_a_signature_is_not_looked_at(records: Records, engine: Engine, monthly: str) -> None:
    assert (await send(engine, signature="nonsense")).status == 202
