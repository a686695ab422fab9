"""delete_expired_snapshots: deletes what is ours and over, and nothing else, on the simulator and real records."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from patchwave.azure.snapshots import Snapshots, list_expiring
from patchwave.domain.core.ids import MachineId
from patchwave.domain.machine.snapshot import SnapshotId, snapshot_of, snapshot_tags
from patchwave.services import snapshot_cleanup
from patchwave.services.snapshot_cleanup import delete_expired_snapshots
from patchwave.storage import Storage
from patchwave.wiring import current_services
from tests.support.http_calls import user_function
from tests.support.simulated_azure import azure
from tests.support.simulator import GROUP, SUBSCRIPTION, Simulator, simulator
from triggers import timers

__all__ = ["azure", "simulator"]

RUN_ID = "20261110T190000Z-monthly"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)
HOUR = timedelta(hours=1)
API = {"api-version": "2025-01-02"}


@pytest.fixture(autouse=True)
def empty(azure: Simulator) -> None:
    """No snapshots of other tests."""
    listed = azure.http.get(f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/snapshots", params=API)
    for each in listed.json()["value"]:
        azure.http.delete(each["id"], params=API)


def put(azure: Simulator, one: str, snapshot: SnapshotId, tags: dict[str, str]) -> None:
    source = azure.machine(one)["properties"]["storageProfile"]["osDisk"]["managedDisk"]["id"]
    body: dict[str, Any] = {
        "location": "westeurope",
        "tags": tags,
        "properties": {"creationData": {"createOption": "Copy", "sourceResourceId": source}},
    }
    reply = azure.http.put(snapshot.text, params=API, json=body)
    assert reply.status_code in (200, 202), reply.text


def take(azure: Simulator, expires: datetime, *, run_id: str = RUN_ID) -> SnapshotId:
    """A snapshot as a run takes it, of a machine of its own."""
    one = azure.take()
    machine = MachineId.parse(one)
    snapshot = snapshot_of(run_id, machine, None)
    put(azure, one, snapshot, snapshot_tags(run_id, machine.key, expires))
    return snapshot


def exists(azure: Simulator, snapshot: SnapshotId) -> bool:
    return azure.http.get(snapshot.text, params=API).status_code == 200


async def clean(storage: Storage, **limits: Any) -> list[str]:
    """The names of what was deleted."""
    return [each.name for each in await delete_expired_snapshots(current_services(), NOW, **limits)]


async def test_expired_snapshots_are_deleted_and_audited(azure: Simulator, storage: Storage) -> None:
    old, new = take(azure, NOW), take(azure, NOW + HOUR)
    assert await clean(storage) == [old.name]
    assert not exists(azure, old)
    assert exists(azure, new)
    [line] = (await storage.audit.list_page(RUN_ID, 10, None)).items
    assert (line["action"], line["actor"]) == ("snapshot_deleted", "cleanup")
    assert old.name in str(line["detail"])
    assert await clean(storage) == []


async def test_one_that_fails_is_logged_with_its_traceback_and_the_others_go(
    azure: Simulator, storage: Storage, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broken, whole = take(azure, NOW - HOUR), take(azure, NOW)
    read = Snapshots.read_snapshot

    async def failing(self: Snapshots, snapshot: SnapshotId) -> object:
        if snapshot.name == broken.name:
            raise RuntimeError("no answer")
        return await read(self, snapshot)

    monkeypatch.setattr(Snapshots, "read_snapshot", failing)
    assert await clean(storage) == [whole.name]
    [told] = [each for each in caplog.records if each.exc_info]
    assert broken.name in told.getMessage()
    assert exists(azure, broken)


@pytest.mark.parametrize(
    "changes",
    [
        {"patchwave-run": None},
        {"patchwave-run": "20261110T190000Z-weekly"},
        {"patchwave-run": "no/run"},
        {"patchwave-machine": "b" * 24},
        {"patchwave-machine": None},
        {"patchwave-expires": "long ago"},
        {"patchwave-expires": None},
    ],
)
async def test_what_does_not_carry_our_tags_as_we_write_them_stays(
    azure: Simulator, storage: Storage, changes: dict[str, str | None]
) -> None:
    one = azure.take()
    machine = MachineId.parse(one)
    tags = snapshot_tags(RUN_ID, machine.key, NOW - HOUR) | changes
    snapshot = snapshot_of(RUN_ID, machine, None)
    put(azure, one, snapshot, {key: value for key, value in tags.items() if value is not None})
    assert await clean(storage) == []
    assert exists(azure, snapshot)


@pytest.mark.parametrize("name", ["golden-image", "patchwave-golden", "backup-of-patchwave"])
async def test_tags_that_were_copied_make_no_snapshot_ours(azure: Simulator, storage: Storage, name: str) -> None:
    one = azure.take()
    snapshot = SnapshotId(SUBSCRIPTION, "rg-sim", name)
    put(azure, one, snapshot, snapshot_tags(RUN_ID, MachineId.parse(one).key, NOW - HOUR))
    assert await clean(storage) == []
    assert exists(azure, snapshot)


async def test_one_that_got_more_time_meanwhile_stays(
    azure: Simulator, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list lags behind: what the snapshot itself says counts."""
    snapshot = take(azure, NOW - HOUR)
    listed = await list_expiring(current_services().resource_graph)
    one = azure.http.get(snapshot.text, params=API).json()["properties"]["creationData"]["sourceResourceId"]
    machine = one.rsplit("/", 1)[1].removesuffix("_OsDisk")
    identity = MachineId.parse(f"{GROUP}/providers/Microsoft.Compute/virtualMachines/{machine}")
    put(azure, identity.text, snapshot, snapshot_tags(RUN_ID, identity.key, NOW + HOUR))

    async def stale(*_: object) -> Any:
        return listed

    monkeypatch.setattr(snapshot_cleanup, "list_expiring", stale)
    assert await clean(storage) == []
    assert exists(azure, snapshot)


async def test_a_call_deletes_so_many_and_the_oldest_first(azure: Simulator, storage: Storage) -> None:
    names = [take(azure, NOW - hours * HOUR).name for hours in (1, 3, 2)]
    assert await clean(storage, most=2) == [names[1], names[2]]
    assert await clean(storage, most=2) == [names[0]]


async def test_a_group_that_is_locked_is_left_for_later(
    azure: Simulator, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    snapshots = [take(azure, NOW - HOUR) for _ in range(3)]
    locked = {"error": {"code": "ScopeLocked", "message": "The scope cannot perform delete operation."}}
    rule = {"match": {"method": "DELETE"}, "effect": {"status": 409, "body": locked}}
    assert azure.http.post("/_sim/faults", json=rule).status_code == 201
    assert await clean(storage) == []
    assert caplog.text.count("ScopeLocked") == 1, "one look is enough for the whole group"
    azure.http.delete("/_sim/faults")
    assert len(await clean(storage)) == len(snapshots)


async def test_a_list_that_cannot_be_read_is_no_error(
    azure: Simulator, storage: Storage, caplog: pytest.LogCaptureFixture
) -> None:
    take(azure, NOW - HOUR)
    rule = {"match": {"operation": "graph"}, "effect": {"status": 503}}
    assert azure.http.post("/_sim/faults", json=rule).status_code == 201
    assert await clean(storage) == []
    assert "could not be listed" in caplog.text


async def test_the_function_itself(azure: Simulator, storage: Storage) -> None:
    """The clock is the real one here."""
    del storage
    over = take(azure, datetime(2020, 1, 1, tzinfo=UTC))
    kept = take(azure, datetime.now(UTC) + HOUR)
    await user_function(timers.delete_expired_snapshots)(timer=object())
    assert not exists(azure, over)
    assert exists(azure, kept)
