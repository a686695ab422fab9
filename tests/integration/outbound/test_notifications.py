"""Each kind of channel against a server that checks what it gets, and the sender against one that misbehaves."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import re
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from html.parser import HTMLParser
from typing import Any

import pytest

from patchwave.domain.notifications.events import (
    ApprovalNeeded,
    ErrorBudgetNotice,
    Facts,
    MachineNote,
    RunAwaited,
    RunEnded,
    RunStarted,
    WindowAwaited,
)
from patchwave.domain.notifications.messages import Announcement
from patchwave.outbound.egress_guard import EgressGuard
from patchwave.outbound.notifications import ChannelSender, Delivery, Outgoing, compose, sender
from patchwave.settings import Channel, ChannelKind
from tests.support.webhook_receiver import Received, Receiver, Reply, receiving

NOW = datetime(2026, 11, 21, 2, 0, 0, tzinfo=UTC)
RUN_ID = "20261121T000000Z-monthly"
DELIVERY = "6f1d6fd0-7d1c-4f8e-9d0c-3b5b8a1d2c3e"
EVIL = '<img src=x onerror="alert(1)"> <!channel> [x](javascript:y) {{ 7*7 }} & "\''
KEY = b"an access key"
ALL: list[Facts] = [
    RunStarted(mode="patch", trigger="timer", started_by="timer", machines=60),
    ApprovalNeeded(
        ring="broad", machines=50, within_seconds=86400, approve=f"patchwave run approve {RUN_ID} --ring broad"
    ),
    ErrorBudgetNotice(scope="lane:broad/westeurope", failures=3, limit=2, on_exceeded="hold"),
    WindowAwaited(opens_at=NOW, open_machines=12),
    RunAwaited(waits_for="the run other: both work on zones of westeurope"),
    RunEnded(
        state="completed",
        machines=60,
        counts_by_outcome={"patched": 58, "failed": 2},
        duration_seconds=4321,
        needs_person=2,
        notes=[
            MachineNote(name=EVIL, resource_group="rg", outcome="failed", reason="patches_failed", message=EVIL),
        ],
    ),
]


@pytest.fixture(scope="module")
def server() -> Iterator[Receiver]:
    with receiving() as found:
        yield found


@pytest.fixture
def receiver(server: Receiver) -> Receiver:
    """The server, with empty books."""
    server.received.clear()
    server.replies.clear()
    return server


def announcement(facts: Facts) -> Announcement:
    return Announcement(RUN_ID, "monthly", NOW, facts)


def channel(kind: ChannelKind, url: str) -> Channel:
    form: dict[str, Any] = {"name": "ops", "kind": kind, "url": f"{url}/in?sig=a%2Fb%20c"}
    if kind is ChannelKind.WEBHOOK:
        form["secret"] = "SECRET-of-the-hook-and-no-others"
    if kind is ChannelKind.MAIL:
        connection = f"endpoint={url}/;accesskey={base64.b64encode(KEY).decode()}"
        del form["url"]
        form |= {"connection": connection, "from": "patchwave@example.com", "to": ["a@example.com", "b@example.com"]}
    return Channel.model_validate(form)


async def tell(receiver: Receiver, kind: ChannelKind, facts: Facts) -> Received:
    """Tell the server, and what it got."""
    composed = compose(channel(kind, receiver.url), announcement(facts), delivery_id=DELIVERY, now=NOW)
    delivery = await ChannelSender(loopback_allowed=True, tls=receiver.tls).post(composed)
    assert delivery == Delivery(sent=True)
    return receiver.received[-1]


def texts(value: object) -> list[str]:
    """Every text in a JSON value."""
    match value:
        case str():
            return [value]
        case list():
            return [text for item in value for text in texts(item)]
        case dict():
            return [text for item in value.values() for text in texts(item)]
        case _:
            return []


# --- what each kind of channel gets


@pytest.mark.parametrize("facts", ALL, ids=lambda facts: facts.event.value)
async def test_teams_gets_an_adaptive_card_without_markdown(receiver: Receiver, facts: Facts) -> None:
    got = await tell(receiver, ChannelKind.TEAMS, facts)
    # The query is signed by Teams: another spelling of the same would be refused.
    assert got.target == "/in?sig=a%2Fb%20c"
    assert got.headers["content-type"].startswith("application/json")
    message = json.loads(got.body)
    assert message["type"] == "message"
    (attachment,) = message["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    card = attachment["content"]
    assert (card["type"], card["version"]) == ("AdaptiveCard", "1.4")
    assert {element["type"] for element in card["body"]} == {"RichTextBlock"}
    assert {run["type"] for element in card["body"] for run in element["inlines"]} == {"TextRun"}
    assert "monthly" in card["fallbackText"]
    assert RUN_ID in texts(card["body"])
    assert len(got.body) < 28_000


@pytest.mark.parametrize("facts", ALL, ids=lambda facts: facts.event.value)
async def test_slack_gets_blocks_without_mentions(receiver: Receiver, facts: Facts) -> None:
    message = json.loads((await tell(receiver, ChannelKind.SLACK, facts)).body)
    assert message["text"].startswith("monthly: ")
    assert 2 <= len(message["blocks"]) <= 50
    for block in message["blocks"]:
        assert block["type"] == "section"
        assert block["text"]["verbatim"]
        assert 0 < len(block["text"]["text"]) <= 3000
    # Slack acts upon nothing but what stands in angle brackets.
    assert not [text for text in texts(message) if "<" in text or ">" in text]


class _Page(HTMLParser):
    """The elements and the text of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.text = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.mark.parametrize("facts", ALL, ids=lambda facts: facts.event.value)
async def test_mail_is_signed_and_its_html_is_escaped(receiver: Receiver, facts: Facts) -> None:
    got = await tell(receiver, ChannelKind.MAIL, facts)
    assert got.target == "/emails:send?api-version=2023-03-31"
    assert got.headers["operation-id"] == DELIVERY
    mail = json.loads(got.body)
    assert mail["senderAddress"] == "patchwave@example.com"
    assert [each["address"] for each in mail["recipients"]["to"]] == ["a@example.com", "b@example.com"]
    assert mail["content"]["subject"].startswith("monthly: ")
    page = _Page(mail["content"]["html"])
    assert page.tags <= {"html", "head", "meta", "title", "body", "h1", "table", "tr", "th", "td", "ul", "li", "pre"}
    assert RUN_ID in page.text
    assert f"Run: {RUN_ID}" in mail["content"]["plainText"].splitlines()
    if isinstance(facts, RunEnded):
        assert EVIL in page.text
        assert EVIL in mail["content"]["plainText"]


async def test_the_signature_of_a_mail_is_the_one_that_communication_services_reckons(receiver: Receiver) -> None:
    got = await tell(receiver, ChannelKind.MAIL, ALL[0])
    digest = base64.b64encode(hashlib.sha256(got.body).digest()).decode()
    assert got.headers["x-ms-content-sha256"] == digest
    assert parsedate_to_datetime(got.headers["x-ms-date"]) == NOW
    text = f"POST\n{got.target}\n{got.headers['x-ms-date']};{got.headers['host']};{digest}"
    wanted = base64.b64encode(hmac.digest(KEY, text.encode(), "sha256")).decode()
    assert got.headers["authorization"] == (
        f"HMAC-SHA256 SignedHeaders=x-ms-date;host;x-ms-content-sha256&Signature={wanted}"
    )


@pytest.mark.parametrize("facts", ALL, ids=lambda facts: facts.event.value)
async def test_a_webhook_gets_the_facts_as_json(receiver: Receiver, facts: Facts) -> None:
    got = await tell(receiver, ChannelKind.WEBHOOK, facts)
    document = json.loads(got.body)
    assert document.pop("version") == 1
    assert document.pop("runId") == RUN_ID
    assert document.pop("policy") == "monthly"
    assert document.pop("at") == "2026-11-21T02:00:00.000Z"
    assert document == facts.to_wire()
    assert got.headers["x-patchwave-delivery"] == DELIVERY


async def test_the_signature_of_a_webhook_covers_time_and_body(receiver: Receiver) -> None:
    got = await tell(receiver, ChannelKind.WEBHOOK, ALL[0])
    found = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", got.headers["x-patchwave-signature"])
    assert found is not None
    assert int(found[1]) == NOW.timestamp()
    assert (
        found[2] == hmac.digest(b"SECRET-of-the-hook-and-no-others", f"{found[1]}.".encode() + got.body, "sha256").hex()
    )


# --- the sender


def outgoing(url: str, *, private_allowed: bool = False) -> Outgoing:
    return Outgoing(url=f"{url}/SECRET", body=b"{}", headers={}, private_allowed=private_allowed)


async def post(receiver: Receiver, reply: Reply) -> Delivery:
    receiver.replies.append(reply)
    return await ChannelSender(loopback_allowed=True, tls=receiver.tls).post(outgoing(receiver.url))


@pytest.mark.parametrize("status", [200, 201, 202, 204])
async def test_any_2xx_is_a_delivery(receiver: Receiver, status: int) -> None:
    assert await post(receiver, Reply(status, b"")) == Delivery(sent=True)


@pytest.mark.parametrize("status", [408, 425, 429, 500, 502, 503, 504])
async def test_what_may_pass(receiver: Receiver, status: int) -> None:
    delivery = await post(receiver, Reply(status, headers={"Retry-After": "7"}))
    throttled = status in (429, 503)
    assert delivery == Delivery(
        sent=False, failure=f"HTTP {status}.", may_pass=True, retry_after=7, is_throttled=throttled
    )


async def test_a_503_that_names_no_time_is_a_failure(receiver: Receiver) -> None:
    assert not (await post(receiver, Reply(503))).is_throttled
    assert (await post(receiver, Reply(429))).is_throttled


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410, 413])
async def test_what_does_not_pass(receiver: Receiver, status: int) -> None:
    delivery = await post(receiver, Reply(status))
    assert (delivery.sent, delivery.may_pass) == (False, False)


@pytest.mark.parametrize(
    ("body", "failure"),
    [
        (b"invalid_token", "HTTP 400 (invalid_token)."),
        (
            b'{"error":{"code":"InvalidAuthenticationToken","message":"SECRET"}}',
            "HTTP 400 (InvalidAuthenticationToken).",
        ),
        (b'{"error":"SECRET"}', "HTTP 400."),
        (b"no such hook /SECRET", "HTTP 400."),
        (b"\xff\xfe", "HTTP 400."),
        (b"[" * 100_000, "HTTP 400."),
        (b"", "HTTP 400."),
    ],
)
async def test_only_the_status_of_an_answer_is_in_the_failure(receiver: Receiver, body: bytes, failure: str) -> None:
    assert (await post(receiver, Reply(400, body))).failure == failure


async def test_redirects_are_not_followed(receiver: Receiver) -> None:
    delivery = await post(receiver, Reply(307, headers={"Location": f"{receiver.url}/elsewhere"}))
    assert delivery == Delivery(sent=False, failure="HTTP 307: redirects are not followed.")
    assert [got.target for got in receiver.received] == ["/SECRET"]


async def test_no_answer_in_time(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sender, "TOTAL_SECONDS", 0.2)
    delivery = await post(receiver, Reply(seconds=1))
    assert delivery.may_pass
    assert delivery.failure.startswith("No answer within")


async def test_a_connection_that_breaks_off(receiver: Receiver) -> None:
    delivery = await post(receiver, Reply(hang_up=True))
    assert delivery.may_pass
    assert "SECRET" not in delivery.failure


async def test_an_untrusted_certificate(receiver: Receiver) -> None:
    delivery = await ChannelSender(loopback_allowed=True).post(outgoing(receiver.url))
    assert delivery == Delivery(sent=False, failure="The certificate is not trusted.")
    assert receiver.received == []


async def test_a_refused_connection() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        delivery = await ChannelSender(loopback_allowed=True).post(
            outgoing(f"https://127.0.0.1:{held.getsockname()[1]}")
        )
    assert delivery == Delivery(sent=False, failure="No connection could be made.", may_pass=True)


async def test_this_machine_is_not_called(receiver: Receiver) -> None:
    delivery = await ChannelSender(tls=receiver.tls).post(outgoing(receiver.url, private_allowed=True))
    assert delivery == Delivery(sent=False, failure="The address must not be called: it is this machine itself.")
    assert receiver.received == []


@pytest.mark.parametrize(
    ("address", "why"),
    [
        ("169.254.169.254", "is link-local"),
        ("169.254.129.4", "is link-local"),
        ("168.63.129.16", "is Azure's platform endpoint"),
        ("10.0.0.4", "is not public"),
        ("0.0.0.0", "is no single machine"),
        ("[fd00::1]", "is not public"),
        ("[::ffff:169.254.169.254]", "is link-local"),
    ],
)
async def test_addresses_that_are_not_called(address: str, why: str) -> None:
    delivery = await ChannelSender().post(outgoing(f"https://{address}"))
    assert delivery.failure.startswith(f"The address must not be called: it {why}")
    assert not delivery.may_pass


@pytest.mark.parametrize(
    ("address", "may_be_called"), [("10.0.0.4", True), ("169.254.169.254", False), ("168.63.129.16", False)]
)
async def test_private_networks_are_for_channels_that_say_so(address: str, may_be_called: bool) -> None:
    target = (socket.AF_INET, socket.SOCK_STREAM, 0, "", (address, 443))
    if may_be_called:
        EgressGuard(private_allowed=True).open(target).close()
    else:
        with pytest.raises(PermissionError):
            EgressGuard(private_allowed=True).open(target)
    with pytest.raises(PermissionError):
        EgressGuard(private_allowed=False).open(target)


async def test_a_name_is_judged_by_the_address_that_is_connected_to(
    receiver: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name whose owner changes its address between a check and the call gains nothing: there is no earlier check."""
    resolved: list[object] = []
    port = int(receiver.url.rpartition(":")[2])

    def resolve(host: object, *_: Any, **__: Any) -> list[Any]:
        resolved.append(host)
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", ("127.0.0.1", port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    delivery = await ChannelSender(tls=receiver.tls).post(outgoing(f"https://hooks.example.com:{port}"))
    assert "is this machine itself" in delivery.failure
    assert receiver.received == []
    # Resolved once, and not again to connect.
    assert resolved == ["hooks.example.com"]


@pytest.mark.parametrize("url", ["http://example.com", "https://" + "a" * 70 + ".example.com", "https://\ud800"])
async def test_addresses_that_cannot_be_used(url: str) -> None:
    delivery = await ChannelSender().post(outgoing(url))
    assert (delivery.sent, delivery.may_pass) == (False, False)
    assert "SECRET" not in delivery.failure


# --- secrets


@pytest.mark.parametrize("kind", ChannelKind)
def test_a_request_does_not_show_what_it_holds(kind: ChannelKind) -> None:
    made = compose(channel(kind, "https://hooks.example.com"), announcement(ALL[0]), delivery_id=DELIVERY, now=NOW)
    assert repr(made) == "Outgoing(private_allowed=False)"


async def test_nothing_is_logged(receiver: Receiver, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for reply in (Reply(), Reply(500), Reply(hang_up=True)):
        await post(receiver, reply)
    assert "SECRET" not in caplog.text
    assert f"localhost:{receiver.url.rpartition(':')[2]}" not in caplog.text
