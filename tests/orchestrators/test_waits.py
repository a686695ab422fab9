"""Waits: a cancel ends the one that it meets, and no other."""

from __future__ import annotations

import time
from collections.abc import Generator
from datetime import datetime
from itertools import pairwise
from typing import Any

import pytest
from durabletask import task

from local.functions_host.durable.workbench import Workbench
from orchestrators.waits import Waits
from patchwave.domain.workflow.contracts import Signal


def four_waits(context: task.OrchestrationContext, with_cancel: bool) -> Generator[task.Task[Any], Any]:
    waits = Waits(context, context.wait_for_external_event(Signal.CANCEL) if with_cancel else None)
    for number in range(4):
        yield context.call_activity("note", input=number)
        yield from waits.wait(600)
    yield context.call_activity("note", input=4)


def seconds_between(cancel_at: int | None, *, with_cancel: bool = True) -> list[float]:
    at: list[datetime] = []

    def note(number: int) -> None:
        at.append(bench.now())
        if number == cancel_at:
            # From inside, so that virtual time cannot pass between the cancel and its delivery.
            bench.client.raise_orchestration_event("waits", Signal.CANCEL)
            time.sleep(0.3)

    with Workbench([four_waits], {"note": note}) as bench:
        bench.run("four_waits", with_cancel, instance_id="waits")
    return [(later - earlier).total_seconds() for earlier, later in pairwise(at)]


@pytest.mark.parametrize("cancel_at", [0, 1, 3])
def test_a_cancel_ends_one_wait(cancel_at: int) -> None:
    waited = seconds_between(cancel_at)
    assert waited[cancel_at] < 10
    assert all(590 <= each <= 620 for number, each in enumerate(waited) if number != cancel_at)


def test_a_timer_that_lost_is_cancelled(monkeypatch: pytest.MonkeyPatch) -> None:
    """An instance of Durable Functions goes on running until every timer of it has fired."""
    was_open: list[bool] = []
    cancel = task.TimerTask.cancel

    def note(timer: task.TimerTask) -> bool:
        was_open.append(cancel(timer))
        return was_open[-1]

    def beside(context: task.OrchestrationContext, _: Any) -> Generator[task.Task[Any], Any, float]:
        began = context.current_utc_datetime
        context.call_activity("cancel")
        yield from Waits(context, context.wait_for_external_event(Signal.CANCEL)).wait(600)
        return (context.current_utc_datetime - began).total_seconds()

    def cancel_run(_: object) -> None:
        bench.client.raise_orchestration_event("waits", Signal.CANCEL)
        time.sleep(0.3)

    monkeypatch.setattr(task.TimerTask, "cancel", note)
    with Workbench({"beside": beside}, {"cancel": cancel_run}) as bench:
        ended = bench.run("beside", instance_id="waits")
    assert ended.output < 10
    assert any(was_open)


def test_without_a_cancel_each_wait_has_its_full_length() -> None:
    assert all(590 <= each <= 620 for each in seconds_between(None))


def test_waits_without_a_cancel_event_are_not_ended() -> None:
    assert all(590 <= each <= 620 for each in seconds_between(1, with_cancel=False))
