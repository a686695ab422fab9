"""The webhook: signed with the secret of its policy, fresh, one run per delivery, and nothing used up by a refusal."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from typer.testing import CliRunner

from patchwave.cli.app import app
from patchwave.domain.core.webhook_signature import Call, policy_secret, signature_of
from patchwave.settings import load_settings
from patchwave.storage import Storage
from tests.support.factories import NOW, stored_run
from tests.support.http_calls import POLICY, Answer, Engine, call
from tests.support.webhook_calls import SECRET, sign
from triggers.webhook import run_webhook


@pytest.fixture
def signed(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    """A secret is set, so that signatures are asked for."""
    monkeypatch.setenv("PATCHWAVE_WEBHOOK_SECRET", SECRET)
    load_settings.cache_clear()


async def send(
    engine: Engine, body: bytes = b"{}", *, signature: str = "", delivery: str = "", policy: str = "monthly"
) -> Answer:
    headers = {"X-Patchwave-Signature": signature, "X-Patchwave-Delivery": delivery}
    given = {name.lower(): value for name, value in headers.items() if value}
    return await call(run_webhook, body=body, headers=given, engine=engine, policy=policy)


async def send_signed(engine: Engine, body: bytes = b"{}", *, delivery: str = "", policy: str = "monthly") -> Answer:
    signature = sign(body, delivery=delivery, policy=policy)
    return await send(engine, body, signature=signature, delivery=delivery, policy=policy)


async def test_a_delivery_starts_the_policy(storage: Storage, engine: Engine, monthly: str) -> None:
    answer = await send(engine, b'{"mode": "assess", "alert": {"of": "another system"}}', delivery="d-1")
    assert answer.status == 202
    found = await stored_run(storage, answer.json["id"])
    assert (found.policy, found.mode.value, found.trigger.kind.value) == ("monthly", "assess", "webhook")
    assert found.trigger.detail == "d-1"
    assert list(engine.instances) == [found.id]


@pytest.mark.parametrize("body", [b"", b"  \n"])
async def test_an_empty_body_is_refused(storage: Storage, engine: Engine, monthly: str, body: bytes) -> None:
    assert (await send(engine, body, delivery="d-1")).problem["status"] == 400
    assert not engine.attempts
    # Nor has it used the delivery up.
    assert (await send(engine, b'{"mode": "assess"}', delivery="d-1")).status == 202


@pytest.mark.usefixtures("signed")
async def test_a_signed_empty_body_is_refused(storage: Storage, engine: Engine, monthly: str) -> None:
    assert (await send_signed(engine, b"")).problem["status"] == 400
    assert not engine.attempts


@pytest.mark.parametrize("by_header", [True, False])
async def test_a_repeated_delivery_is_one_run(storage: Storage, engine: Engine, monthly: str, by_header: bool) -> None:
    async def deliver(number: int) -> Answer:
        if by_header:
            return await send(engine, delivery=f"d-{number}")
        return await send(engine, json.dumps({"deliveryId": f"d-{number}"}).encode())

    first, again, other = await deliver(1), await deliver(1), await deliver(2)
    assert first.json["id"] == again.json["id"] != other.json["id"]
    assert len(engine.instances) == 2


async def test_the_same_delivery_many_times_at_once_is_one_run(storage: Storage, engine: Engine, monthly: str) -> None:
    answers = await asyncio.gather(*(send(engine, delivery="d-1") for _ in range(6)))
    assert len({answer.json["id"] for answer in answers}) == 1
    assert len(engine.instances) == 1


async def test_a_delivery_starts_one_run(storage: Storage, engine: Engine, monthly: str) -> None:
    first = await send(engine, b'{"mode": "assess"}', delivery="d-1")
    of_other_key = await send(engine, b'{"mode": "assess", "sentAt": "later"}', delivery="d-1")
    assert of_other_key.json["id"] == first.json["id"]
    other_mode = await send(engine, b'{"mode": "patch"}', delivery="d-1")
    assert (other_mode.problem["status"], other_mode.problem["detail"]) == (
        422,
        f"The delivery was used for another request, which started the run {first.json['id']}:"
        " send a new delivery with a new request.",
    )
    assert list(engine.instances) == [first.json["id"]]


async def test_a_delivery_of_another_policy_swallows_no_patch_run(
    storage: Storage, engine: Engine, monthly: str
) -> None:
    await storage.policies.put("weekly", {"name": "weekly", **POLICY}, if_match=None, if_none_match=True, at=NOW)
    claimed = await send(engine, b'{"mode": "assess"}', delivery="build-4711", policy="weekly")
    patch = await send(engine, b"{}", delivery="build-4711")
    assert (claimed.status, patch.status) == (202, 202)
    run = await stored_run(storage, patch.json["id"])
    assert (run.policy, run.mode.value) == ("monthly", "patch")
    assert len(engine.instances) == 2


async def test_an_unknown_policy_is_not_found(storage: Storage, engine: Engine) -> None:
    for name in ("missing", "../x", ""):
        assert (await send(engine, policy=name)).status == 404
    assert not engine.attempts


@pytest.mark.parametrize("body", [b"{", b"[]", b'{"mode": "install"}', b'{"mode": 7}', b'{"deliveryId": 7}'])
async def test_a_wrong_body_is_refused(storage: Storage, engine: Engine, monthly: str, body: bytes) -> None:
    assert (await send(engine, body, delivery="d-1")).problem["status"] == 400
    assert not engine.attempts
    # What was refused has used nothing up: the same delivery, corrected, is the first of its kind.
    assert (await send(engine, b'{"mode": "assess"}', delivery="d-1")).status == 202


@pytest.mark.usefixtures("signed")
async def test_a_good_signature_opens(storage: Storage, engine: Engine, monthly: str) -> None:
    body = '{"deliveryId": "ä"}'.encode()
    assert (await send(engine, body, signature=sign(body))).status == 202


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize(
    "make",
    [
        lambda body: "",
        lambda body: "nonsense",
        lambda body: sign(body, secret="another"),
        lambda body: sign(body, secret=SECRET),
        lambda body: sign(body, policy="weekly"),
        lambda body: sign(body, secret=policy_secret(SECRET, "weekly")),
        lambda body: sign(body, secret=policy_secret(SECRET, "monthly", 2)),
        lambda body: sign(body, delivery="d-1"),
        lambda body: signature_of(Call("monthly", "", body, "GET"), policy_secret(SECRET, "monthly"), time.time()),
        lambda body: sign(body).replace("v2=", "v1="),
        lambda body: sign(body + b" "),
        lambda body: sign(body, at=time.time() - 310),
        lambda body: sign(body, at=time.time() + 310),
        lambda body: sign(body).replace("t=", "t=0"),
        lambda body: sign(body).replace("v2=", "v0="),
        lambda body: sign(body)[:-1],
        lambda body: sign(body) + "0",
        lambda body: f"t={int(time.time())},v2={'0' * 64}",
        lambda body: f"t={'9' * 400},v2={'0' * 64}",
        lambda body: f"t=٣,v2={'0' * 64}",
        lambda body: sign(body).encode("utf-16").decode("latin-1"),
    ],
)
async def test_any_other_signature_is_refused(storage: Storage, engine: Engine, monthly: str, make: Any) -> None:
    answer = await send(engine, signature=make(b"{}"))
    assert answer.problem["status"] == 401
    assert SECRET not in answer.text
    assert not engine.attempts


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize("seconds", [-290, 290])
async def test_a_signature_within_the_tolerance_opens(
    storage: Storage, engine: Engine, monthly: str, seconds: int
) -> None:
    assert (await send(engine, signature=sign(b"{}", at=time.time() + seconds))).status == 202


@pytest.mark.usefixtures("signed")
async def test_a_recorded_call_starts_nothing_more(storage: Storage, engine: Engine, monthly: str) -> None:
    signature = sign(b"{}")
    first = await send(engine, signature=signature)
    again = await send(engine, signature=signature)
    assert (first.status, again.status) == (202, 202)
    assert again.json["id"] == first.json["id"]
    # Neither another delivery nor another policy makes it a new one: the signature covers both.
    await storage.policies.put("weekly", {"name": "weekly", **POLICY}, if_match=None, if_none_match=True, at=NOW)
    assert (await send(engine, signature=signature, delivery="d-2")).status == 401
    assert (await send(engine, signature=signature, policy="weekly")).status == 401
    assert len(engine.instances) == 1


@pytest.mark.usefixtures("signed")
async def test_a_sender_that_repeats_its_delivery_gets_its_run(storage: Storage, engine: Engine, monthly: str) -> None:
    signature = sign(b"{}", delivery="d-1")
    first = await send(engine, signature=signature, delivery="d-1")
    same = await send(engine, signature=signature, delivery="d-1")
    fresh = await send(engine, signature=sign(b"{}", at=time.time() - 5, delivery="d-1"), delivery="d-1")
    assert {answer.status for answer in (first, same, fresh)} == {202}
    assert len({answer.json["id"] for answer in (first, same, fresh)}) == 1
    assert len(engine.instances) == 1


@pytest.mark.usefixtures("signed")
async def test_a_refused_signature_costs_the_delivery_nothing(storage: Storage, engine: Engine, monthly: str) -> None:
    assert (await send(engine, b'{"mode": "assess"}', signature=sign(b"{}"), delivery="d-1")).status == 401
    honest = await send_signed(engine, delivery="d-1")
    assert honest.status == 202
    assert list(engine.instances) == [honest.json["id"]]


@pytest.mark.usefixtures("signed")
@pytest.mark.parametrize("delivery", ["", "d-1"])
async def test_the_same_bytes_are_taken_once_the_engine_is_back(
    storage: Storage, engine: Engine, monthly: str, delivery: str
) -> None:
    """The engine was away: a refusal has used up neither signature nor delivery."""
    signature = sign(b"{}", delivery=delivery)
    engine.failing = True
    assert (await send(engine, signature=signature, delivery=delivery)).status == 503
    engine.failing = False
    retried = await send(engine, signature=signature, delivery=delivery)
    assert retried.status == 202
    assert list(engine.instances) == [retried.json["id"]]


@pytest.mark.usefixtures("signed")
async def test_the_secret_of_a_policy_opens_that_policy_only(storage: Storage, engine: Engine, monthly: str) -> None:
    await storage.policies.put("weekly", {"name": "weekly", **POLICY}, if_match=None, if_none_match=True, at=NOW)
    secret = policy_secret(SECRET, "weekly")
    assert (await send(engine, signature=sign(b"{}", secret=secret))).status == 401
    assert (await send(engine, signature=sign(b"{}", policy="weekly"), policy="weekly")).status == 202
    # Whether there is such a policy is told only to a sender that has its secret.
    assert (await send(engine, signature=sign(b"{}", secret=secret), policy="unknown")).status == 401
    assert (await send_signed(engine, policy="unknown")).status == 404


@pytest.mark.usefixtures("signed")
async def test_a_secret_is_taken_back_by_its_number(
    storage: Storage, engine: Engine, monthly: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await storage.policies.put("weekly", {"name": "weekly", **POLICY}, if_match=None, if_none_match=True, at=NOW)

    async def taken() -> list[int]:
        """The numbers of the secrets that open the policy now."""
        answers = {
            number: (await send(engine, signature=sign(b"{}", secret=policy_secret(SECRET, "monthly", number)))).status
            for number in (1, 2, 3)
        }
        assert (await send(engine, signature=sign(b"{}", policy="weekly"), policy="weekly")).status == 202
        return [number for number, status in answers.items() if status == 202]

    for rotations, expected in (("", [1]), ("monthly=1+2", [1, 2]), ("other=9, monthly=2", [2])):
        monkeypatch.setenv("PATCHWAVE_WEBHOOK_ROTATIONS", rotations)
        load_settings.cache_clear()
        assert await taken() == expected


@pytest.mark.parametrize("around", ["{}\n", " {}\t", "{}\r\n"])
async def test_white_space_around_the_secret_of_the_app_changes_no_signature(
    storage: Storage, engine: Engine, monthly: str, monkeypatch: pytest.MonkeyPatch, around: str
) -> None:
    """A secret of a vault that was made with `echo` ends with a line feed; the command takes none of it."""
    monkeypatch.setenv("PATCHWAVE_WEBHOOK_SECRET", around.format(SECRET))
    load_settings.cache_clear()
    made = CliRunner().invoke(app, ["policy", "webhook-secret", "monthly"])
    assert (await send(engine, signature=sign(b"{}", secret=made.output.strip()))).status == 202


async def test_without_a_secret_a_signature_is_not_read(storage: Storage, engine: Engine, monthly: str) -> None:
    assert (await send(engine, signature="nonsense")).status == 202


async def test_a_call_without_a_mode_does_what_the_policy_says(storage: Storage, engine: Engine, monthly: str) -> None:
    assert (await send(engine, b"{}", delivery="d-1")).json["mode"] == "patch"
    document = {"name": monthly, "mode": "assess", "scope": {"locations": ["westeurope"]}}
    await storage.policies.put(monthly, document, if_match=None, if_none_match=False, at=NOW)
    assert (await send(engine, b"{}", delivery="d-2")).json["mode"] == "assess"
    refused = await send(engine, b'{"mode": "patch"}', delivery="d-3")
    assert (refused.status, refused.paths) == (400, ["mode"])
