"""Windows in a row in which a machine failed: counted in its latest state, once per window, whatever is repeated."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from patchwave.domain.core.ids import RunId
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import InstallationSummary
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.window_results import WindowResult
from patchwave.storage import Storage
from tests.support.factories import machine

KEY = machine(1).key
FIRST = datetime(2026, 9, 8, 18, tzinfo=UTC)
MONTH = timedelta(days=28)
FAILED = Outcome.of(OutcomeKind.FAILED, Reason.PATCHES_FAILED, "1 patch failed.")
PATCHED = Outcome.of(OutcomeKind.PATCHED, Reason.OK, "3 patches are installed.")
OFF = Outcome.skipped(Reason.NOT_RUNNING, "The machine is deallocated.")


def opening(number: int) -> datetime:
    return FIRST + number * MONTH


async def end(
    storage: Storage, number: int, outcome: Outcome, *, by_hand: bool = False, **fields: Any
) -> MachineRecord:
    """The machine's end in the run of that window, as discovery and record_outcome make it; its row."""
    at = opening(number)
    run_id = RunId.of(at, "monthly", "1a2b3c4d" if by_hand else "").text
    window = {} if by_hand else {"occurrence": at, "max_failed_windows": 3}
    await storage.machines.add(run_id, [machine(1, **window, **fields)])
    if not by_hand:
        await storage.machines.set_last_windows(run_id, await storage.history.list_unfinished())
    await storage.results.record_outcome(
        run_id, KEY, outcome, at=at + timedelta(hours=1), installation=None, patches=[], release=True
    )
    found = await storage.machines.get(run_id, KEY)
    assert found is not None
    return found


async def last_window(storage: Storage) -> WindowResult | None:
    return (await storage.history.list_unfinished()).get(KEY)


async def stuck(storage: Storage) -> list[str]:
    return [state["name"] for state in (await storage.history.list_needing_person(10, None)).items]


async def test_three_failed_windows_need_a_person(storage: Storage) -> None:
    messages: list[str] = []
    for number in range(3):
        assert await stuck(storage) == []
        messages.append((await end(storage, number, FAILED)).message)
        found = await last_window(storage)
        assert found is not None
        assert (found.failed_windows, found.since, found.run_id) == (
            number + 1,
            FIRST,
            RunId.of(opening(number), "monthly").text,
        )
    assert "needs a person" not in messages[1]
    assert "It failed in 3 windows in a row and needs a person" in messages[2]
    assert "In the window of 2026-10-06 it ended with patches_failed as well." in messages[2]
    assert await stuck(storage) == ["vm-1"]
    assert await storage.history.names_needing_person(RunId.of(opening(2), "monthly").text) == ["vm-1"]
    assert await storage.history.names_needing_person(RunId.of(opening(1), "monthly").text) == []


async def test_a_repeated_end_counts_once(storage: Storage) -> None:
    """The activity may be executed again, and the next reader completes interrupted ends."""
    await end(storage, 0, FAILED)
    once = await last_window(storage)
    run_id = RunId.of(opening(0), "monthly").text
    for _ in range(2):
        await storage.results.record_outcome(
            run_id, KEY, FAILED, at=opening(0) + timedelta(hours=2), installation=None, patches=[], release=True
        )
        await storage.finalizers.complete(run_id)
    assert await last_window(storage) == once
    assert once is not None
    assert once.failed_windows == 1


@pytest.mark.parametrize("by_hand", [True, False])
async def test_a_good_end_forgets_the_failures(storage: Storage, by_hand: bool) -> None:
    for number in range(3):
        await end(storage, number, FAILED)
    await end(storage, 3, PATCHED, by_hand=by_hand)
    assert (await last_window(storage), await stuck(storage)) == (None, [])
    await end(storage, 4, FAILED)
    found = await last_window(storage)
    assert found is not None
    assert found.failed_windows == 1


async def test_a_run_by_hand_that_fails_changes_nothing(storage: Storage) -> None:
    await end(storage, 0, FAILED)
    row = await end(storage, 1, FAILED, by_hand=True)
    assert row.message == "1 patch failed."
    found = await last_window(storage)
    assert found is not None
    assert (found.failed_windows, found.occurrence) == (1, FIRST)


async def test_an_old_run_that_ends_late_does_not_count(storage: Storage) -> None:
    await end(storage, 1, PATCHED)
    await end(storage, 0, FAILED)
    assert await last_window(storage) is None


async def test_an_end_that_says_nothing_keeps_the_count(storage: Storage) -> None:
    await end(storage, 0, FAILED)
    await end(storage, 1, Outcome.skipped(Reason.HOLD_TAG, "Held."))
    await end(storage, 2, Outcome.canceled())
    found = await last_window(storage)
    assert found is not None
    assert (found.failed_windows, found.occurrence) == (1, FIRST)


async def test_what_was_off_is_remembered_without_a_count(storage: Storage) -> None:
    await end(storage, 0, OFF)
    found = await last_window(storage)
    assert found is not None
    assert (found.reason, found.failed_windows) == ("not_running", 0)
    row = await end(storage, 1, PATCHED)
    assert row.message.endswith("In the window of 2026-09-08 it was not running; now it runs.")


async def test_a_reset_lets_the_next_window_take_it(storage: Storage) -> None:
    for number in range(3):
        await end(storage, number, FAILED)
    known = await storage.history.reset_windows(KEY)
    assert known is not None
    assert known.failed_windows == 3
    assert (await last_window(storage), await stuck(storage)) == (None, [])
    assert await storage.history.reset_windows(KEY) is None
    assert await storage.history.reset_windows(machine(2).key) is None


async def test_a_failed_installation_is_counted_with_its_patches(storage: Storage) -> None:
    run_id = RunId.of(FIRST, "monthly").text
    await storage.machines.add(run_id, [machine(1, occurrence=FIRST, max_failed_windows=1)])
    summary = InstallationSummary(status="Failed", installed=2, failed=1)
    await storage.results.record_outcome(run_id, KEY, FAILED, at=FIRST, installation=summary, patches=[], release=True)
    found = await last_window(storage)
    assert found is not None
    assert (found.installed, found.needs_person, found.is_left_out(1)) == (2, True, False)


async def test_last_windows_are_stored_for_open_machines_of_the_run_only(storage: Storage) -> None:
    await end(storage, 0, FAILED)
    results = {
        **await storage.history.list_unfinished(),
        machine(7).key: WindowResult.model_validate(
            {"runId": "r", "occurrence": FIRST, "outcome": "failed", "reason": "patches_failed"}
        ),
    }
    run_id = RunId.of(opening(1), "monthly").text
    await storage.machines.add(run_id, [machine(1), machine(2)])
    assert await storage.machines.set_last_windows(run_id, results) == [KEY]
    rows = [row.last_window async for row in storage.machines.scan(run_id)]
    assert sorted(rows, key=lambda row: row is None) == [results[KEY], None]
    assert await storage.machines.set_last_windows(RunId.of(opening(0), "monthly").text, results) == []
