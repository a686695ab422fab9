"""What docs/how-to/notifications.md shows is what the app takes and sends; its example of a receiver is run."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, cast

import pytest
import yaml

from local import ROOT
from patchwave.domain.core.documents import Document, to_camel
from patchwave.domain.notifications.events import (
    MAX_ATTEMPTS,
    MAX_NOTES,
    ApprovalNeeded,
    ErrorBudgetNotice,
    RunAwaited,
    RunEnded,
    RunStarted,
    WindowAwaited,
)
from patchwave.domain.notifications.messages import Announcement
from patchwave.domain.policy.notifications import Event
from patchwave.domain.policy.policy import parse_policy
from patchwave.outbound.notifications import compose
from patchwave.settings import ChannelKind, parse_channels

PAGE = (ROOT / "docs/how-to/notifications.md").read_text("utf-8")
NOW = datetime(2026, 11, 10, 20, 12, tzinfo=UTC)


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)


CHANNELS, DOCUMENT = blocks("json")


@pytest.fixture
def is_from_patchwave() -> Callable[[str, str, bytes, float], bool]:
    """The receiver's function, as a reader would copy it."""
    (code,) = blocks("python")
    scope: dict[str, Any] = {}
    exec(code, scope)
    return scope["is_from_patchwave"]


def sent() -> tuple[str, bytes]:
    """Signature and body of a real notice."""
    hub = parse_channels(CHANNELS)["hub"]
    announcement = Announcement("20261110T190000Z-monthly", "monthly", NOW, RunStarted(mode="patch"))
    outgoing = compose(hub, announcement, delivery_id="6f1d6fd0-7d1c-4f8e-9d0c-3b5b8a1d2c3e", now=NOW)
    return outgoing.headers["X-Patchwave-Signature"], outgoing.body


def test_the_example_accepts_what_patchwave_sends(is_from_patchwave: Callable[..., bool]) -> None:
    secret = json.loads(CHANNELS)[2]["secret"]
    signature, body = sent()
    now = NOW.timestamp()
    assert is_from_patchwave(secret, signature, body, now)
    assert is_from_patchwave(secret, signature, body, now + 299)
    assert not is_from_patchwave(secret, signature, body, now + 301)
    assert not is_from_patchwave(secret, signature, body + b" ", now)
    assert not is_from_patchwave(secret + "x", signature, body, now)
    assert not is_from_patchwave(secret, signature.replace("t=1", "t=2"), body, now)
    assert not is_from_patchwave(secret, "", body, now)


def test_the_channels_are_ones_that_the_app_takes() -> None:
    assert [channel.kind for channel in parse_channels(CHANNELS).values()] == list(ChannelKind)


def test_the_policy_is_one_that_the_app_takes() -> None:
    (text,) = blocks("yaml")
    document = cast("dict[str, Any]", yaml.safe_load(text))
    policy = parse_policy({"name": "monthly", "scope": {"locations": ["westeurope"]}, **document})
    assert policy.notifications.is_wanted
    assert policy.notifications.channels_for(Event.ENDED) == ["ops", "hub"]
    assert policy.notifications.channels_for(Event.STARTED) == []


def test_the_document_is_one_that_the_app_sends() -> None:
    document = json.loads(DOCUMENT)
    common = ("version", "runId", "policy", "at")
    facts = RunEnded.model_validate({key: value for key, value in document.items() if key not in common})
    assert Announcement(document["runId"], document["policy"], NOW, facts).to_json() == document


@pytest.mark.parametrize("facts", [RunStarted, ApprovalNeeded, ErrorBudgetNotice, WindowAwaited, RunAwaited, RunEnded])
def test_every_field_is_listed(facts: type[Document]) -> None:
    event = facts.model_fields["event"].default
    (row,) = re.findall(rf"^\| `{event}` \| (`.*) \|$", PAGE, re.MULTILINE)
    listed = re.findall(r"`(\w+)`", re.sub(r"\(.*?\)", "", row))
    assert listed == [to_camel(name) for name in facts.model_fields if name != "event"]


def test_numbers_of_the_page() -> None:
    assert MAX_ATTEMPTS == 6
    assert MAX_NOTES == 10
