"""Machines that need a person after their last windows, and their reset."""

from __future__ import annotations

from datetime import timedelta

from patchwave.api.stuck_machines import list_stuck_machines, reset_machine
from patchwave.domain.core.ids import RunId
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import InstallationSummary
from patchwave.storage import Storage
from tests.support.factories import NOW, machine
from tests.support.http_calls import call

FAILED = Outcome.of(OutcomeKind.FAILED, Reason.PATCHES_FAILED, "1 patch failed.")


async def fail(storage: Storage, number: int, windows: int, *, installed: int = 0) -> str:
    """Let a machine fail in so many windows; the last run."""
    run_id = ""
    for each in range(windows):
        at = NOW + each * timedelta(days=28)
        run_id = RunId.of(at, "monthly").text
        await storage.machines.add(run_id, [machine(number, occurrence=at, max_failed_windows=3)])
        summary = InstallationSummary(status="Failed", installed=installed)
        key = machine(number).key
        await storage.results.record_outcome(run_id, key, FAILED, at=at, installation=summary, patches=[], release=True)
    return run_id


async def test_only_machines_that_failed_too_often_are_listed(storage: Storage) -> None:
    await fail(storage, 1, 2)
    await fail(storage, 2, 3)
    run_id = await fail(storage, 3, 4, installed=1)
    found = (await call(list_stuck_machines)).json
    assert found["cursor"] is None
    listed = {each["name"]: each for each in found["machines"]}
    assert {name: (each["isLeftOut"], each["lastWindow"]["failedWindows"]) for name, each in listed.items()} == {
        "vm-2": (True, 3),
        "vm-3": (False, 4),
    }
    assert (listed["vm-3"]["runId"], listed["vm-3"]["outcome"], listed["vm-3"]["reason"]) == (
        run_id,
        "failed",
        "patches_failed",
    )
    first = (await call(list_stuck_machines, query={"limit": "1"})).json
    second = (await call(list_stuck_machines, query={"limit": "1", "cursor": first["cursor"]})).json
    assert [each["name"] for page in (first, second) for each in page["machines"]] == [
        each["name"] for each in found["machines"]
    ]


async def test_a_reset_is_audited_and_happens_once(storage: Storage) -> None:
    run_id = await fail(storage, 1, 3)
    key = machine(1).key
    body = {"reason": "The disk was full.", "actor": "ana"}
    answer = await call(reset_machine, body=body, machineKey=key)
    assert (answer.status, answer.json["failedWindows"], answer.json["needsPerson"]) == (200, 3, True)
    assert (await call(list_stuck_machines)).json["machines"] == []
    assert (await call(reset_machine, body=body, machineKey=key)).problem["status"] == 404
    (line,) = (await storage.audit.list_page(run_id, 10, None)).items
    assert (line["action"], line["actor"]) == ("machine_reset", "ana (claimed)")
    assert line["detail"] == {"machine": key, "reason": "The disk was full.", "failedWindows": 3}


async def test_what_cannot_be_reset(storage: Storage) -> None:
    await fail(storage, 1, 3)
    assert (await call(reset_machine, machineKey=machine(1).key)).status == 400
    for key in ("0" * 24, "../x", "x' or 1 eq 1"):
        assert (await call(reset_machine, body={"reason": "r"}, machineKey=key)).status == 404
    assert [each["name"] for each in (await call(list_stuck_machines)).json["machines"]] == ["vm-1"]
