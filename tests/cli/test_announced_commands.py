"""The commands that notifications tell people to type are ones that the command takes."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime
from typing import Any, cast

import pytest

from patchwave.cli.app import whole
from patchwave.domain.notifications.events import (
    ApprovalNeeded,
    ErrorBudgetNotice,
    Facts,
    RunAwaited,
    RunEnded,
    RunStarted,
    WindowAwaited,
)
from patchwave.domain.notifications.messages import Announcement, approve_command

RUN_ID = "20261121T000000Z-monthly"
ALL: list[Facts] = [
    RunStarted(),
    ApprovalNeeded(approve=approve_command(RUN_ID, "broad")),
    ErrorBudgetNotice(),
    WindowAwaited(),
    RunAwaited(),
    RunEnded(),
]


def parsed(command: str) -> dict[str, Any]:
    """The parameters that the command reads out of a line, without running it."""
    program, *words = shlex.split(command)
    assert program == "patchwave"
    found: Any = whole()
    context = None
    while hasattr(found, "commands"):
        name, *words = words
        found = found.commands[name]
    context = found.make_context(found.name, words)
    return cast("dict[str, Any]", context.params)


@pytest.mark.parametrize("facts", ALL, ids=lambda facts: facts.event.value)
def test_the_command_of_a_notice_can_be_typed(facts: Facts) -> None:
    command = Announcement(RUN_ID, "monthly", datetime(2026, 11, 21, tzinfo=UTC), facts).to_message().command
    assert parsed(command)["run"] == RUN_ID


def test_the_command_of_an_approval_names_its_ring() -> None:
    assert parsed(approve_command(RUN_ID, "broad"))["ring"] == "broad"
