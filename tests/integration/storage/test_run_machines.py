"""Machines of a run: one row each, one outcome each, their patches, history and the fleet."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.core.ids import RunId
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary, PatchRecord, ReportedError
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.storage import RecordMissing, Storage
from patchwave.storage.engine.rows import Change
from patchwave.storage.engine.table import BULK_ROWS_A_SECOND
from patchwave.storage.run_patches import merge_patches
from tests.support.factories import NOW, RUN, intent, machine, patches, run

PATCHED = Outcome(outcome=OutcomeKind.PATCHED, reason=Reason.OK, message="3 patches installed.")
FAILED = Outcome(outcome=OutcomeKind.FAILED, reason=Reason.PATCHES_FAILED, message="1 patch failed.")
SUMMARY = AssessmentSummary(status="Succeeded", critical_and_security=2, other=1, reboot_pending=True)
INSTALLED = InstallationSummary(status="Succeeded", installed=3, reboot_status="Completed")


async def keys_of(storage: Storage, stage: Stage) -> list[str]:
    return [
        key for key, found in (await storage.machines.list_stages(RUN, limit=1000, cursor=None)).items if found is stage
    ]


async def test_a_machine_is_kept_field_by_field(storage: Storage) -> None:
    one = machine(1, image="ubuntu", power_state="running", availability_set="as-1")
    await storage.machines.add(RUN, [one])
    assert await storage.runs.count_machines(RUN) == 1
    assert await storage.machines.get(RUN, one.key) == one
    assert await storage.machines.get(RUN, "0" * 24) is None


async def test_adding_again_overwrites_nothing_and_adds_what_is_new(storage: Storage) -> None:
    first = [machine(number) for number in range(250)]
    await storage.machines.add(RUN, first[:230])
    assert await storage.runs.count_machines(RUN) == 230
    await storage.results.record_outcomes(RUN, [first[7].key], Outcome.canceled(), NOW)
    await storage.machines.update(RUN, first[8].key, Stage.ASSESSING)
    await storage.machines.add(RUN, first)
    assert await storage.runs.count_machines(RUN) == 250
    kept = await storage.machines.get(RUN, first[7].key)
    assert kept
    assert kept.outcome is OutcomeKind.CANCELED
    assert await keys_of(storage, Stage.ASSESSING) == [first[8].key]
    assert len(await keys_of(storage, Stage.WAITING)) == 248


async def test_the_same_machine_twice_in_one_batch_is_one_row(storage: Storage) -> None:
    loud = machine(1, id=machine(1).id.upper())
    await storage.machines.add(RUN, [machine(1), loud])
    assert await storage.runs.count_machines(RUN) == 1


async def test_two_executions_at_once_add_every_machine_once(storage: Storage) -> None:
    machines = [machine(number) for number in range(150)]
    await asyncio.gather(storage.machines.add(RUN, machines), storage.machines.add(RUN, machines[::-1]))
    page = await storage.machines.list_page(RUN, outcome=None, limit=1000, cursor=None)
    assert Counter(item.key for item in page.items) == Counter(item.key for item in machines)


async def test_a_large_fleet_is_written_in_throttled_batches(storage: Storage) -> None:
    begun = time.monotonic()
    await storage.machines.add(RUN, [machine(number) for number in range(500)])
    assert await storage.runs.count_machines(RUN) == 500
    # The last of five batches waits for the four before it.
    assert time.monotonic() - begun >= 400 / BULK_ROWS_A_SECOND


async def test_counting_shows_the_size_on_the_run_and_nothing_else_changes(storage: Storage) -> None:
    stored, _ = await storage.runs.create(run())
    await storage.machines.add(RUN, [machine(1), machine(2)])
    assert await storage.runs.get(RUN) == stored
    assert await storage.runs.count_machines(RUN) == 2
    assert await storage.runs.get(RUN) == stored.model_copy(update={"machines": 2})


async def test_machines_are_paged_in_key_order_and_filtered_by_outcome(storage: Storage) -> None:
    machines = [machine(number) for number in range(45)]
    await storage.machines.add(RUN, machines)
    failed = sorted(item.key for item in machines[::3])
    await storage.results.record_outcomes(RUN, failed, FAILED, NOW)
    for outcome, expected in ((None, sorted(item.key for item in machines)), (OutcomeKind.FAILED, failed)):
        seen: list[str] = []
        cursor = None
        while True:
            page = await storage.machines.list_page(RUN, outcome=outcome, limit=10, cursor=cursor)
            seen += [item.key for item in page.items]
            cursor = page.cursor
            if cursor is None:
                break
            assert len(page.items) == 10
        assert seen == expected


async def test_machines_that_move_while_the_rest_is_ended_get_their_end_too(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, ended, still = (machine(number) for number in range(3))
    await storage.machines.add(RUN, [moved, ended, still])
    results = storage._store.results
    apply = results.apply

    async def late(partition: str, changes: list[Change]) -> None:
        monkeypatch.setattr(results, "apply", apply)
        await storage.machines.update(RUN, moved.key, Stage.ASSESSING)
        await storage.results.record_outcome(RUN, ended.key, FAILED, at=NOW, installation=None, patches=[])
        await apply(partition, changes)

    monkeypatch.setattr(results, "apply", late)
    keys = [moved.key, ended.key, still.key]
    assert await storage.results.record_outcomes(RUN, keys, Outcome.canceled(), NOW) == 2
    page = await storage.machines.list_page(RUN, outcome=None, limit=10, cursor=None)
    outcomes = {one.key: one.outcome for one in page.items}
    assert outcomes == {
        moved.key: OutcomeKind.CANCELED,
        ended.key: OutcomeKind.FAILED,
        still.key: OutcomeKind.CANCELED,
    }


async def test_lists_of_machines_read_neither_patches_nor_intents(storage: Storage) -> None:
    await storage.machines.add(RUN, [machine(1)])
    key = machine(1).key
    await storage.intents.declare(intent(RUN))
    await storage.results.record_assessment(RUN, key, SUMMARY, patches(3), NOW)
    page = await storage.machines.list_page(RUN, outcome=None, limit=100, cursor=None)
    assert [item.key for item in page.items] == [key]


async def test_stages_are_counted_of_machines_of_the_run(storage: Storage) -> None:
    machines = [machine(number) for number in range(6)]
    await storage.machines.add(RUN, machines)
    keys = [item.key for item in machines]
    await storage.results.record_outcomes(RUN, keys[2:4], Outcome.canceled(), NOW)
    stages = await storage.machines.get_stages(RUN, [*keys[::-1], "f" * 24])
    assert stages == {key: Stage.DONE if key in keys[2:4] else Stage.WAITING for key in keys}
    assert await storage.machines.get_stages(RUN, []) == {}
    assert await storage.machines.get_stages(RUN, ["0" * 24]) == {}


async def test_a_stage_and_its_fields_are_set_and_a_final_row_is_left_alone(storage: Storage) -> None:
    await storage.machines.add(RUN, [machine(1)])
    key = machine(1).key
    await storage.machines.update(
        RUN, key, Stage.INSTALLING, started_at=NOW, powered_on_by_run=True, power_state="running"
    )
    found = await storage.machines.get(RUN, key)
    assert found == machine(1, stage=Stage.INSTALLING, started_at=NOW, powered_on_by_run=True, power_state="running")
    await storage.results.record_outcome(RUN, key, PATCHED, at=NOW, installation=None, patches=[])
    await storage.machines.update(RUN, key, Stage.WAITING)
    found = await storage.machines.get(RUN, key)
    assert found
    assert (found.stage, found.outcome) == (Stage.DONE, OutcomeKind.PATCHED)


async def test_a_stage_needs_a_machine_and_known_fields(storage: Storage) -> None:
    with pytest.raises(RecordMissing):
        await storage.machines.update(RUN, machine(1).key, Stage.ASSESSING)
    await storage.machines.add(RUN, [machine(1)])
    with pytest.raises(TypeError, match="started_when"):
        await storage.machines.update(RUN, machine(1).key, Stage.ASSESSING, started_when=NOW)


async def test_an_assessment_is_kept_with_its_patches(storage: Storage) -> None:
    await storage.machines.add(RUN, [machine(1)])
    key = machine(1).key
    assert await storage.results.list_patches(RUN, key) == []
    await storage.results.record_assessment(RUN, key, SUMMARY, patches(150), NOW)
    found = await storage.machines.get(RUN, key)
    assert found
    assert found.stage is Stage.ASSESSED
    assert found.assessment == SUMMARY.model_copy(update={"at": NOW})
    assert await storage.results.list_patches(RUN, key) == patches(150)


async def test_what_the_guest_reports_is_kept_field_by_field(storage: Storage) -> None:
    """Also what it leaves unsaid: a reboot that was not mentioned must not come back as none."""
    await storage.machines.add(RUN, [machine(1)])
    key = machine(1).key
    esm = ReportedError(code="UA_ESM_REQUIRED", message="133 patches requires Ubuntu Pro", target="t", count=133)
    found = PatchRecord(
        name="curl",
        version="8.1",
        kb_id="5046616",
        classifications=["Security"],
        state="Available",
        assessment_state="Available",
        reboot_behavior="NeverReboots",
        published_at=NOW,
        patch_id="curl_8.1_Ubuntu_22.04",
        severity="Critical",
        activity_id="68f8b292-dfc2-4646-9781-33cc88631968",
        last_modified_at=NOW,
    )
    assessed = AssessmentSummary(status="Succeeded", at=NOW, errors=[esm], activity_id="a")
    await storage.results.record_assessment(RUN, key, assessed, [found], NOW)
    assert await storage.results.list_patches(RUN, key) == [found]
    handled = PatchRecord(
        name="curl",
        version="8.1",
        state="Failed",
        installation_state="Failed",
        patch_id="curl_8.1_Ubuntu_22.04",
    )
    installed = InstallationSummary(status="Succeeded", installed=1, errors=[esm], started_at=NOW)
    await storage.results.record_installation(RUN, key, installed, [handled])
    kept = await storage.machines.get(RUN, key)
    assert kept
    assert kept.assessment == assessed
    assert assessed.reboot_pending is None
    assert kept.installation == installed
    # Both states stand side by side: it is still available, and its installation failed.
    both = {"state": "Failed", "assessment_state": "Available", "installation_state": "Failed"}
    assert await storage.results.list_patches(RUN, key) == [found.model_copy(update=both)]
    run = Run(
        id=RUN,
        policy="monthly",
        mode=Mode.PATCH,
        state=RunState.COMPLETED,
        trigger=Trigger(kind=TriggerKind.TIMER),
        created_at=NOW,
    )
    lines = (await storage.evidence.list_page(run, 100, None)).items
    (patch,) = [line for line in lines if line["record"] == "patch"]
    assert (patch["activityId"], patch["lastModifiedAt"]) == (found.activity_id, "2026-11-10T19:00:00.000Z")
    (row,) = [line for line in lines if line["record"] == "machine"]
    assert row["assessment"]["errors"][0]["count"] == 133
    assert row["assessment"]["rebootPending"] is None
    assert row["installation"]["errors"][0]["code"] == "UA_ESM_REQUIRED"


async def test_a_second_assessment_with_fewer_patches_leaves_none_behind(storage: Storage) -> None:
    await storage.machines.add(RUN, [machine(1), machine(2)])
    key = machine(1).key
    await storage.results.record_assessment(RUN, machine(2).key, SUMMARY, patches(5), NOW)
    await storage.results.record_assessment(RUN, key, SUMMARY, patches(40), NOW)
    await storage.results.record_assessment(RUN, key, SUMMARY, patches(3), NOW)
    assert await storage.results.list_patches(RUN, key) == patches(3)
    assert await storage.results.list_patches(RUN, machine(2).key) == patches(5)


async def test_the_first_outcome_wins_and_is_returned_for_the_second(storage: Storage) -> None:
    await storage.machines.add(RUN, [machine(1)])
    key = machine(1).key
    assert await storage.results.record_outcome(RUN, key, FAILED, at=NOW, installation=INSTALLED, patches=[]) == FAILED
    later = NOW + timedelta(minutes=5)
    assert await storage.results.record_outcome(RUN, key, PATCHED, at=later, installation=None, patches=[]) == FAILED
    assert await storage.results.record_outcomes(RUN, [key], Outcome.canceled(), later) == 0
    await storage.results.record_assessment(RUN, key, SUMMARY, patches(1), later)
    found = await storage.machines.get(RUN, key)
    assert found == machine(
        1,
        stage=Stage.DONE,
        outcome=OutcomeKind.FAILED,
        reason="patches_failed",
        message="1 patch failed.",
        installation=INSTALLED,
        ended_at=NOW,
    )


async def test_of_many_outcomes_at_once_one_is_stored_and_returned_to_all(storage: Storage) -> None:
    await storage.machines.add(RUN, [machine(1)])
    key = machine(1).key
    outcomes = [PATCHED.model_copy(update={"message": f"writer {n}"}) for n in range(6)]
    told = await asyncio.gather(
        *(storage.results.record_outcome(RUN, key, one, at=NOW, installation=None, patches=[]) for one in outcomes)
    )
    found = await storage.machines.get(RUN, key)
    assert found
    assert {one.message for one in told} == {found.message}
    assert len((await storage.history.list_page(key, 10, None)).items) == 1


async def test_an_outcome_needs_a_machine(storage: Storage) -> None:
    with pytest.raises(RecordMissing):
        await storage.results.record_outcome(RUN, "0" * 24, PATCHED, at=NOW, installation=None, patches=[])


async def test_installed_patches_take_the_place_of_the_found_ones(storage: Storage) -> None:
    await storage.machines.add(RUN, [machine(1)])
    key = machine(1).key
    await storage.results.record_assessment(RUN, key, SUMMARY, patches(3), NOW)
    handled = [
        PatchRecord(name="pkg-1", version="1.1", state="Installed"),
        PatchRecord(name="new", version="9", state="Installed"),
    ]
    for _ in range(2):
        await storage.results.record_outcome(RUN, key, PATCHED, at=NOW, installation=INSTALLED, patches=handled)
    found = await storage.results.list_patches(RUN, key)
    assert [(one.name, one.state, one.classifications) for one in found] == [
        ("pkg-0", "Available", ["Security"]),
        ("pkg-1", "Installed", ["Security"]),
        ("pkg-2", "Available", ["Security"]),
        ("new", "Installed", []),
    ]


async def test_an_end_is_in_the_history_and_in_the_fleet(storage: Storage) -> None:
    key = machine(1).key
    ends = []
    for day, outcome in enumerate((PATCHED, FAILED, Outcome.canceled())):
        at = NOW + timedelta(days=day)
        run_id = RunId.of(at, "monthly").text
        ends.append(run_id)
        await storage.machines.add(run_id, [machine(1)])
        if outcome is PATCHED:
            await storage.results.record_assessment(run_id, key, SUMMARY, [], at)
        if outcome.outcome is OutcomeKind.CANCELED:
            await storage.results.record_outcomes(run_id, [key], outcome, at)
        else:
            await storage.results.record_outcome(run_id, key, outcome, at=at, installation=INSTALLED, patches=[])
    first = await storage.history.list_page(key, 2, None)
    rest = await storage.history.list_page(key, 2, first.cursor)
    assert rest.cursor is None
    lines = [*first.items, *rest.items]
    assert [line["runId"] for line in lines] == ends[::-1]
    assert [line["outcome"] for line in lines] == ["canceled", "failed", "patched"]
    assert lines[2]["assessment"]["criticalAndSecurity"] == 2
    latest = (await storage.history.list_fleet(10, None)).items
    assert [(line["key"], line["outcome"], line["runId"]) for line in latest] == [(key, "failed", ends[1])]
    assert latest[0]["patchedBy"] == ends[0]
    assert latest[0]["assessment"]["rebootPending"] is True
    assert latest[0]["name"] == "vm-1"


async def test_a_late_end_of_an_older_run_does_not_hide_the_newer_state(storage: Storage) -> None:
    key = machine(1).key
    for days, outcome in ((2, PATCHED), (1, FAILED)):
        at = NOW + timedelta(days=days)
        run_id = RunId.of(at, "monthly").text
        await storage.machines.add(run_id, [machine(1)])
        await storage.results.record_outcome(run_id, key, outcome, at=at, installation=None, patches=[])
    assert [line["outcome"] for line in (await storage.history.list_fleet(10, None)).items] == ["patched"]
    history = (await storage.history.list_page(key, 10, None)).items
    assert [line["outcome"] for line in history] == ["patched", "failed"]


async def test_a_repeated_end_completes_what_a_crash_left_out(storage: Storage) -> None:
    """The row is written first; a worker that dies then has told neither history nor fleet."""
    await storage.machines.add(RUN, [machine(1), machine(2)])
    store = storage._store
    crash = RuntimeError("worker killed")

    async def die(*_: object, **__: object) -> list[str]:
        raise crash

    apply, store.machines.apply = store.machines.apply, die
    with pytest.raises(RuntimeError):
        await storage.results.record_outcome(RUN, machine(1).key, PATCHED, at=NOW, installation=None, patches=[])
    with pytest.raises(RuntimeError):
        await storage.results.record_outcomes(RUN, [machine(2).key], FAILED, NOW)
    store.machines.apply = apply
    later = NOW + timedelta(minutes=1)
    told = await storage.results.record_outcome(RUN, machine(1).key, FAILED, at=later, installation=None, patches=[])
    assert told == PATCHED
    assert await storage.results.record_outcomes(RUN, [machine(2).key], FAILED, later) == 0
    for number, outcome in ((1, "patched"), (2, "failed")):
        history = (await storage.history.list_page(machine(number).key, 10, None)).items
        assert [(line["outcome"], line["at"]) for line in history] == [(outcome, "2026-11-10T19:00:00.000Z")]
    assert len((await storage.history.list_fleet(10, None)).items) == 2


async def test_many_machines_end_in_batches_and_once(storage: Storage) -> None:
    machines = [machine(number) for number in range(230)]
    await storage.machines.add(RUN, machines)
    keys = [item.key for item in machines]
    await storage.results.record_outcome(RUN, keys[3], PATCHED, at=NOW, installation=None, patches=[])
    assert await storage.results.record_outcomes(RUN, keys, Outcome.canceled(), NOW) == 229
    assert await storage.results.record_outcomes(RUN, keys, Outcome.canceled(), NOW) == 0
    assert await storage.runs.progress(RUN) == ({"patched": 1, "canceled": 229}, {"done": 230})
    assert len((await storage.history.list_fleet(1000, None)).items) == 1


async def test_a_batch_whose_machine_moves_meanwhile_ends_all_others(storage: Storage) -> None:
    machines = [machine(number) for number in range(30)]
    await storage.machines.add(RUN, machines)
    keys = [item.key for item in machines]
    ended, *_ = await asyncio.gather(
        storage.results.record_outcomes(RUN, keys, Outcome.canceled(), NOW),
        *(storage.machines.update(RUN, key, Stage.ASSESSING) for key in keys[:4]),
        storage.results.record_outcome(RUN, keys[5], PATCHED, at=NOW, installation=None, patches=[]),
    )
    outcomes, stages = await storage.runs.progress(RUN)
    assert sum(outcomes.values()) == 30
    assert stages == {"done": 30}
    assert ended == outcomes["canceled"]


async def test_a_tag_of_a_megabyte_is_cut_and_the_machine_kept(storage: Storage) -> None:
    tags = {"poison": "x" * 1_000_000, "k" * 2000: "v", "owner": "team-a"} | {f"t{n}": "y" * 900 for n in range(60)}
    await storage.machines.add(RUN, [machine(1, tags=tags)])
    found = await storage.machines.get(RUN, machine(1).key)
    assert found
    assert found.tags["owner"] == "team-a"
    assert "cut: 1000000 characters" in found.tags["poison"]
    row = await storage._store.results.get(RUN, f"m~{machine(1).key}")
    assert row
    assert row.columns["tagsTruncated"] is True


async def test_a_long_message_is_cut_with_a_marker(storage: Storage) -> None:
    await storage.machines.add(RUN, [machine(1)])
    long = FAILED.model_copy(update={"message": "😀é" * 40_000})
    told = await storage.results.record_outcome(RUN, machine(1).key, long, at=NOW, installation=None, patches=[])
    found = await storage.machines.get(RUN, machine(1).key)
    assert found
    assert found.message == told.message
    assert found.message.endswith("[cut: 80000 characters in all]")
    row = await storage._store.results.get(RUN, f"m~{machine(1).key}")
    assert row
    assert row.columns["messageTruncated"] is True


async def test_signatures_and_tokens_in_messages_are_not_stored(storage: Storage) -> None:
    await storage.machines.add(RUN, [machine(1)])
    text = "GET https://management.azure.com/op/1?api-version=1&t=2&c=SECRET failed, Bearer eyJhbGciOiJ.abc.def"
    told = await storage.results.record_outcome(
        RUN, machine(1).key, FAILED.model_copy(update={"message": text}), at=NOW, installation=None, patches=[]
    )
    assert told.message == "GET https://management.azure.com/op/1?*** failed, Bearer ***"


NAMES = st.sampled_from(["a", "b", "c"])
PATCH = st.builds(PatchRecord, name=NAMES, version=NAMES, state=NAMES, patch_id=st.sampled_from(["", "1", "2"]))


@given(st.lists(PATCH, max_size=6), st.lists(PATCH, max_size=6))
def test_merging_patches_loses_none_and_is_idempotent(known: list[PatchRecord], handled: list[PatchRecord]) -> None:
    once = merge_patches(known, handled)
    assert merge_patches(once, handled) == once

    def identities(items: list[PatchRecord]) -> set[tuple[str, ...]]:
        return {(one.patch_id,) if one.patch_id else (one.name, one.version, one.kb_id) for one in items}

    assert identities(once) == identities([*known, *handled])


async def test_an_assessment_after_a_scheduled_installation_leaves_what_became_of_its_patches(storage: Storage) -> None:
    await storage.machines.add(RUN, [machine(1)])
    key = machine(1).key
    handled = [
        PatchRecord(name="pkg-0", version="1.0", state="Installed"),
        PatchRecord(name="kernel", state="Excluded"),
    ]
    await storage.results.record_installation(RUN, key, INSTALLED, handled)
    left = [PatchRecord(name="kernel", state="Available"), PatchRecord(name="new", state="Available")]
    for _ in range(2):
        await storage.results.record_assessment(RUN, key, SUMMARY, left, NOW)
    kept = {one.name: one.state for one in await storage.results.list_patches(RUN, key)}
    assert kept == {"pkg-0": "Installed", "kernel": "Excluded", "new": "Available"}


async def test_an_installation_is_kept_and_merged_before_the_machine_has_ended(storage: Storage) -> None:
    await storage.machines.add(RUN, [machine(1)])
    key = machine(1).key
    await storage.results.record_assessment(RUN, key, SUMMARY, patches(2), NOW)
    handled = [PatchRecord(name="pkg-1", version="1.1", state="Installed")]
    for _ in range(2):
        await storage.results.record_installation(RUN, key, INSTALLED, handled)
    found = await storage.machines.get(RUN, key)
    assert found
    assert (found.stage, found.installation, found.outcome) == (Stage.VERIFYING, INSTALLED, None)
    assert [one.state for one in await storage.results.list_patches(RUN, key)] == ["Available", "Installed"]
    await storage.results.record_outcome(RUN, key, PATCHED, at=NOW, installation=None, patches=[])
    await storage.results.record_installation(RUN, key, INSTALLED.model_copy(update={"failed": 9}), [])
    ended = await storage.machines.get(RUN, key)
    assert ended
    assert (ended.stage, ended.installation) == (Stage.DONE, INSTALLED)
