"""One stored row that cannot be read fails no list, no timer and no end of the others."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from patchwave.domain.core.ids import RunId
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import RunState
from patchwave.domain.workflow.machine import MachineEnded
from patchwave.storage import Storage
from patchwave.storage.completions import completion_change
from tests.support.factories import NOW, machine, run

RUN, OTHER = "20261110T190000Z-monthly", "20261109T190000Z-weekly"
CLOSED = Outcome(outcome=OutcomeKind.CANCELED, reason=Reason.CANCELED_BY_USER, message="The run was cancelled.")
DAMAGE: list[dict[str, Any]] = [{"state": "perhaps"}, {"trigger": "{"}, {"createdAt": "yesterday"}]


def row_key(run_id: str) -> str:
    return RunId.parse(run_id).row_key


@pytest.mark.parametrize("damage", DAMAGE, ids=str)
async def test_runs(storage: Storage, caplog: pytest.LogCaptureFixture, damage: dict[str, Any]) -> None:
    for run_id in (RUN, OTHER):
        await storage.runs.create(run(id=run_id))
    await storage._store.runs.merge("runs", row_key(RUN), damage)
    page = await storage.runs.list_page(1, None)
    assert (page.items, page.unreadable) == ([], [row_key(RUN)])
    rest = await storage.runs.list_page(1, page.cursor)
    assert ([each.id for each in rest.items], rest.unreadable, rest.cursor) == ([OTHER], [], None)
    assert [each.id for each in await storage.runs.list_live()] == [OTHER]
    assert [each.run_id for each in await storage.runs.list_watched()] == [OTHER]
    assert [each.id async for each in storage.retention.list_runs_before(NOW + timedelta(days=9))] == [OTHER]
    assert any(row_key(RUN) in line.getMessage() and line.exc_info for line in caplog.records)
    # Its entry stays: a run that cannot be read has not ended for that.
    assert await storage._store.runs.get("live", row_key(RUN)) is not None


async def test_an_entry_of_the_index(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    for run_id in (RUN, OTHER):
        await storage.runs.create(run(id=run_id))
    await storage._store.runs.merge("live", row_key(RUN), {"since": "yesterday"})
    assert [each.run_id for each in await storage.runs.list_watched()] == [OTHER]
    assert any(row_key(RUN) in line.getMessage() and line.exc_info for line in caplog.records)


async def test_the_place_of_the_watchdog(storage: Storage) -> None:
    await storage._store.runs.replace("watchdog", "next", {"other": "x"})
    assert await storage.live_runs.get_cursor() == ""


async def test_machines_and_their_end(storage: Storage, caplog: pytest.LogCaptureFixture) -> None:
    one, two = sorted([machine(1), machine(2)], key=lambda each: each.key)
    await storage.runs.create(run())
    await storage.machines.add(RUN, [one, two])
    await storage._store.results.merge(RUN, f"m~{one.key}", {"zones": "{"})
    page = await storage.machines.list_page(RUN, outcome=None, limit=10, cursor=None)
    assert ([each.key for each in page.items], page.unreadable) == ([two.key], [f"m~{one.key}"])
    assert [each.key async for each in storage.machines.scan(RUN)] == [two.key]
    # Both have an end all the same, and are counted.
    assert await storage.results.record_outcomes(RUN, [one.key, two.key], CLOSED, NOW) == 2
    await storage.finalizers.complete(RUN)
    ended = await storage.runs.close(RUN, RunState.CANCELED, "", NOW)
    assert (ended.machines, ended.counts_by_outcome) == (2, {"canceled": 2})
    assert [item["runId"] for item in (await storage.history.list_page(two.key, 10, None)).items] == [RUN]
    assert any(one.key in line.getMessage() and line.exc_info for line in caplog.records)


async def test_one_machine_alone_has_its_end(storage: Storage) -> None:
    one = machine(1)
    await storage.machines.add(RUN, [one])
    await storage._store.results.merge(RUN, f"m~{one.key}", {"zones": "{"})
    stored = await storage.results.record_outcome(RUN, one.key, CLOSED, at=NOW, installation=None, patches=[])
    assert stored == CLOSED
    assert (await storage.runs.progress(RUN))[0] == {"canceled": 1}


async def test_nothing_is_started_on_a_machine_whose_stage_cannot_be_read(storage: Storage) -> None:
    one, two = machine(1), machine(2)
    await storage.machines.add(RUN, [one, two])
    await storage._store.results.merge(RUN, f"m~{one.key}", {"stage": "perhaps"})
    stages = dict((await storage.machines.list_stages(RUN, limit=10, cursor=None)).items)
    assert stages == {one.key: Stage.INSTALLING, two.key: Stage.WAITING}
    assert await storage.machines.get_stages(RUN, [one.key, two.key]) == stages
    assert {key: each.stage for key, each in (await storage.machines.get_progress(RUN, [one.key])).items()} == {
        one.key: Stage.INSTALLING
    }


async def test_a_machine_with_an_outcome_is_done_in_any_stage(storage: Storage) -> None:
    one = machine(1)
    await storage.machines.add(RUN, [one])
    await storage.results.record_outcome(RUN, one.key, CLOSED, at=NOW, installation=None, patches=[])
    await storage._store.results.merge(RUN, f"m~{one.key}", {"stage": "perhaps"})
    assert await storage.machines.get_stages(RUN, [one.key]) == {one.key: Stage.DONE}


async def test_unknown_words_are_counted(storage: Storage) -> None:
    one, two = machine(1), machine(2)
    await storage.machines.add(RUN, [one, two])
    await storage._store.results.merge(RUN, f"m~{one.key}", {"stage": "perhaps"})
    await storage._store.results.merge(RUN, f"m~{two.key}", {"stage": "done", "outcome": "perhaps"})
    assert await storage.runs.progress(RUN) == ({"unknown": 1}, {"installing": 1, "done": 1})


async def test_completions_of_a_phase(storage: Storage) -> None:
    for key in ("a" * 24, "b" * 24):
        await storage.completions.record(RUN, completion_change("0.0", MachineEnded(key=key, attempt=1)))
    await storage._store.results.merge(RUN, f"e~0.0~{'a' * 24}~1", {"attempt": "perhaps"})
    found, cursor = await storage.completions.since(RUN, "0.0", "")
    assert [each.key for each in found] == ["b" * 24]
    assert len(cursor.split()) == 2


async def test_changes_of_modes(storage: Storage) -> None:
    for change in ("20261110T190000Z-modes-1a2b3c4d", "20261109T190000Z-modes-1a2b3c4d"):
        await storage._store.runs.insert("mode-changes", row_key(change), {"id": change, "state": "perhaps"})
    page = await storage.patch_mode_changes.list_page(10, None)
    assert (page.items, len(page.unreadable)) == ([], 2)
    assert [each async for each in storage.retention.list_mode_changes_before(NOW + timedelta(days=9))] == []


async def test_the_audit_log(storage: Storage) -> None:
    await storage.audit.add("monthly", "policy_paused", actor="ann", at=NOW)
    await storage._store.audit.insert("monthly", "2026-11-10T19:00:01.000Z~damaged", {"at": "x", "action": "y"})
    page = await storage.audit.list_page("monthly", 10, None)
    assert ([line["action"] for line in page.items], page.unreadable) == (
        ["policy_paused"],
        ["2026-11-10T19:00:01.000Z~damaged"],
    )


async def test_evidence_has_a_damaged_row_as_it_is_stored(storage: Storage) -> None:
    await storage.runs.create(run())
    await storage.machines.add(RUN, [machine(1)])
    await storage._store.results.merge(RUN, f"m~{machine(1).key}", {"zones": "{"})
    page = await storage.evidence.list_page(run(), 10, None)
    [found] = [each for each in page.items if each["record"] == "machine"]
    assert (found["key"], found["zones"]) == (machine(1).key, "{")


async def test_the_last_results_of_other_machines(storage: Storage) -> None:
    for key, assessment in (("a" * 24, "{"), ("b" * 24, '{"at": "2026-11-10T19:00:00.000Z"}')):
        await storage._store.machines.insert(
            "machines", f"f~{key}", {"assessment": assessment, "installation": assessment}
        )
    assert await storage.history.last_assessments() == {"b" * 24: NOW}
    assert await storage.history.install_seconds() == {}
