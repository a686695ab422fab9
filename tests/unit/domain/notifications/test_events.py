"""What is told, in words and as a document: short, on one line, and the same for every attempt."""

from __future__ import annotations

import unicodedata
import uuid
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.notifications.events import (
    MAX_FACT,
    ApprovalNeeded,
    ErrorBudgetNotice,
    Facts,
    MachineNote,
    Notice,
    RunAwaited,
    RunEnded,
    RunStarted,
    WindowAwaited,
    one_line,
)
from patchwave.domain.notifications.messages import (
    MAX_TITLE,
    Announcement,
    Message,
    Tone,
    approve_command,
    spoken_duration,
    spoken_scope,
)
from patchwave.domain.policy.notifications import Event, Notifications
from patchwave.domain.policy.policy import PolicyError, parse_policy

AT = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
RUN_ID = "20261121T000000Z-monthly"
ALL: list[Facts] = [RunStarted(), ApprovalNeeded(), ErrorBudgetNotice(), WindowAwaited(), RunAwaited(), RunEnded()]


def message(facts: Facts, policy: str = "monthly") -> Message:
    return Announcement(RUN_ID, policy, AT, facts).to_message()


def fact(told: Message, label: str) -> str:
    return dict(told.facts).get(label, "")


# --- texts


@given(st.text(max_size=2000), st.integers(min_value=1, max_value=400))
def test_a_line_is_one_line_and_short(text: str, limit: int) -> None:
    line = one_line(text, limit)
    assert len(line) <= limit
    assert line == " ".join(line.split())
    assert all(unicodedata.category(each)[0] != "C" or each in "\u200c\u200d" for each in line)
    assert one_line(line, limit) == line


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("  two\r\nlines\t ", "two lines"),
        ("exe\u202egpj.evil", "exe gpj.evil"),
        ("a\u0000b\u2028c\u00a0d", "a b c d"),
        ("नमस्\u200dते 👩\u200d🔧", "नमस्\u200dते 👩\u200d🔧"),
        ("\ud800", ""),
        ("x" * 400, "x" * (MAX_FACT - 1) + "…"),
        ("", ""),
    ],
)
def test_lines(text: str, line: str) -> None:
    assert one_line(text) == line


@pytest.mark.parametrize(
    ("seconds", "spoken"),
    [
        (-1, "0 s"),
        (0, "0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (90, "2 min"),
        (3600, "1 h"),
        (4320, "1 h 12 min"),
        (90_000, "1 d 1 h"),
    ],
)
def test_durations(seconds: float, spoken: str) -> None:
    assert spoken_duration(seconds) == spoken


@pytest.mark.parametrize(
    ("scope", "spoken"),
    [
        ("run", "the whole run"),
        ("ring:broad", "ring broad"),
        ("lane:broad/westeurope", "region westeurope of ring broad"),
        ("wave:broad/westeurope/2", "wave 2 in region westeurope of ring broad"),
        ("health", "health"),
        ("", ""),
    ],
)
def test_scopes(scope: str, spoken: str) -> None:
    assert spoken_scope(scope) == spoken


# --- messages


def test_a_start() -> None:
    told = message(RunStarted(mode="patch", trigger="http", started_by="ada@example.com", machines=60))
    assert (told.title, told.tone) == ("monthly: patch run started", Tone.PLAIN)
    assert dict(told.facts) == {"Run": RUN_ID, "Started by": "http ada@example.com", "Machines": "60"}
    assert told.command == f"patchwave run watch {RUN_ID}"


def test_an_approval() -> None:
    told = message(ApprovalNeeded(ring="broad", machines=50, within_seconds=86_400, approve="yes"))
    assert (told.title, told.tone) == ("monthly: ring broad needs your approval", Tone.ATTENTION)
    assert fact(told, "Answer by") == "2026-11-22 02:00 UTC, in 1 d; silence is a no."
    assert told.command == "yes"


@pytest.mark.parametrize(("on_exceeded", "word"), [("hold", "resumes or cancels"), ("end", "the run ends")])
def test_a_gate(on_exceeded: str, word: str) -> None:
    told = message(ErrorBudgetNotice(scope="ring:broad", failures=3, limit=2, on_exceeded=on_exceeded))
    assert (told.title, told.tone) == ("monthly: nothing more starts in ring broad", Tone.ATTENTION)
    assert fact(told, "Failures") == "3, allowed 2"
    assert word in fact(told, "Next")


def test_a_wait_for_another_run() -> None:
    told = message(RunAwaited(waits_for="the run other: both work on the availability set av"))
    assert (told.title, told.tone) == ("monthly: waits for another run", Tone.PLAIN)
    assert dict(told.facts) == {"Run": RUN_ID, "Waits for": "the run other: both work on the availability set av"}


def test_a_wait_for_the_next_window() -> None:
    told = message(WindowAwaited(opens_at=datetime(2026, 11, 22, 21, 0, tzinfo=UTC), open_machines=12))
    assert (told.title, told.tone) == ("monthly: the rest waits for the next window", Tone.PLAIN)
    assert dict(told.facts) == {"Run": RUN_ID, "Goes on at": "2026-11-22 21:00 UTC", "Machines left": "12"}


def test_an_end_that_is_good() -> None:
    told = message(RunEnded(state="completed", machines=60, counts_by_outcome={"patched": 60}, duration_seconds=60))
    assert (told.title, told.tone) == ("monthly: run completed", Tone.GOOD)
    assert (fact(told, "Outcomes"), told.notes) == ("patched 60", ())


@pytest.mark.parametrize(("state", "needs_person"), [("completed", 1), ("stopped", 0), ("failed", 0), ("canceled", 0)])
def test_an_end_that_needs_attention(state: str, needs_person: int) -> None:
    assert message(RunEnded(state=state, needs_person=needs_person)).tone is Tone.ATTENTION


def test_an_end_names_some_machines_and_counts_the_others() -> None:
    note = MachineNote(
        name="web-07", resource_group="rg", outcome="failed", reason="patches_failed", message="Look\nat it."
    )
    told = message(RunEnded(state="completed", machines=60, needs_person=3, notes=[note]))
    assert told.title == "monthly: run completed, 3 machines need a person"
    assert told.notes == ("web-07 (rg): failed, patches_failed. Look at it.", "and 2 more")


@pytest.mark.parametrize("facts", ALL, ids=lambda facts: facts.event.value)
def test_unknown_facts_are_left_out(facts: Facts) -> None:
    told = message(facts)
    assert told.title.startswith("monthly: ")
    assert all(label and text for label, text in told.facts)
    assert "None" not in repr((told.title, told.facts, told.command))


@given(st.sampled_from([RunStarted, ApprovalNeeded, ErrorBudgetNotice, RunEnded]), st.text(max_size=600))
def test_typed_text_stays_on_its_line(
    facts: type[RunStarted | ApprovalNeeded | ErrorBudgetNotice | RunEnded], text: str
) -> None:
    texts = {name: text for name, field in facts.model_fields.items() if field.annotation is str and name != "approve"}
    told = message(facts.model_validate(texts))
    assert len(told.title) <= MAX_TITLE
    for line in (told.title, *told.notes, *(part for pair in told.facts for part in pair)):
        assert line == one_line(line, len(line) + 1)


def test_a_command_is_quoted_for_the_shell() -> None:
    assert approve_command(RUN_ID, "a b; rm") == f"patchwave run approve {RUN_ID} --ring 'a b; rm'"


# --- what crosses the durable boundary


@pytest.mark.parametrize("facts", ALL, ids=lambda facts: facts.event.value)
def test_a_notice_survives_its_journey(facts: Facts) -> None:
    notice = Notice(run_id=RUN_ID, number=3, at=AT, facts=facts)
    assert Notice.model_validate(notice.to_wire()) == notice


def test_a_delivery_id_is_of_one_notice_on_one_channel() -> None:
    notice = Notice(run_id=RUN_ID, at=AT, facts=RunStarted())
    others: list[dict[str, Any]] = [{"number": 2}, {"run_id": "other"}, {"facts": RunEnded()}]
    ids = {notice.delivery_id("ops"), notice.delivery_id("chat")}
    ids |= {notice.model_copy(update=change).delivery_id("ops") for change in others}
    assert len(ids) == 5
    assert all(str(uuid.UUID(each)) == each for each in ids)
    # Facts that are read at another time do not make it another notice.
    assert notice.delivery_id("ops") == notice.model_copy(update={"facts": RunStarted(machines=7)}).delivery_id("ops")


# --- the policy


def policy_with(notifications: object) -> Notifications:
    document = {"name": "monthly", "scope": {"locations": ["westeurope"]}, "notifications": notifications}
    return parse_policy(document).notifications


def test_nothing_is_sent_unless_the_policy_has_it() -> None:
    assert not policy_with({}).is_wanted
    assert not policy_with({"events": ["ended"]}).is_wanted
    assert not policy_with({"channels": ["ops"], "events": []}).is_wanted
    assert policy_with({"channels": ["ops"]}).is_wanted


def test_channels_of_an_event() -> None:
    told = policy_with({"channels": ["ops", "chat", "ops"], "events": ["ended"]})
    assert told.channels_for(Event.ENDED) == ["ops", "chat"]
    assert told.channels_for(Event.STARTED) == []
    assert all(policy_with({"channels": ["ops"]}).channels_for(event) == ["ops"] for event in Event)


@pytest.mark.parametrize(
    ("notifications", "path"),
    [
        ({"channels": ["https://hooks.example.com"]}, "notifications.channels[0]"),
        ({"channels": "ops"}, "notifications.channels"),
        ({"channels": [f"c{number}" for number in range(11)]}, "notifications.channels"),
        ({"channels": ["ops"], "events": ["finished"]}, "notifications.events[0]"),
        ({"channel": "ops"}, "notifications.channel"),
    ],
)
def test_a_mistake_is_listed_with_its_path(notifications: object, path: str) -> None:
    with pytest.raises(PolicyError) as caught:
        policy_with(notifications)
    assert path in [problem.path for problem in caught.value.errors]
