"""Snapshots: names that follow from run and machine, what is ours, and how a machine is restored."""

from __future__ import annotations

import shlex
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.core.ids import MachineId
from patchwave.domain.machine.snapshot import (
    OsDisk,
    SnapshotId,
    SnapshotView,
    expired_run,
    rollback_advice,
    snapshot_body,
    snapshot_of,
    snapshot_tags,
)

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
RUN_ID = "20261110T190000Z-monthly"
NOW = datetime(2026, 11, 21, tzinfo=UTC)
HOUR = timedelta(hours=1)
DISK_ID = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-a/providers/Microsoft.Compute/disks/vm-1_OsDisk"


def machine(name: str = "vm-1", group: str = "rg-a") -> MachineId:
    return MachineId.parse(
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{name}"
    )


def view(**os_disk: Any) -> dict[str, Any]:
    managed = {"id": DISK_ID, "storageAccountType": "Premium_LRS"}
    disk = {"managedDisk": managed} | os_disk
    return {"location": "westeurope", "zones": ["2"], "properties": {"storageProfile": {"osDisk": disk}}}


# --- names

names = st.from_regex(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,62}", fullmatch=True).filter(lambda name: ".." not in name)


@given(names, st.from_regex(r"[a-z0-9]{1,40}", fullmatch=True))
def test_a_name_is_one_that_azure_takes(name: str, policy: str) -> None:
    snapshot = snapshot_of(f"20261110T190000Z-{policy}", machine(name), None)
    assert SnapshotId.parse(snapshot.text) == snapshot
    assert len(snapshot.name) <= 80


def test_case_of_the_machine_id_does_not_make_a_second_snapshot() -> None:
    first, second = (snapshot_of(RUN_ID, machine(name), None) for name in ("web-01", "WEB-01"))
    assert first.text.lower() == second.text.lower()


def test_runs_and_machines_have_different_names() -> None:
    found = {snapshot_of(run, machine(name), None).name for run in (RUN_ID, RUN_ID + "-2") for name in ("a", "b")}
    assert len(found) == 4


def test_a_group_of_its_own() -> None:
    assert snapshot_of(RUN_ID, machine(), "rg-snapshots").resource_group == "rg-snapshots"
    assert snapshot_of(RUN_ID, machine(), None).resource_group == "rg-a"


@pytest.mark.parametrize("text", ["", "/subscriptions/x", DISK_ID, snapshot_of(RUN_ID, machine(), "a..b").text])
def test_other_ids_are_refused(text: str) -> None:
    with pytest.raises(ValueError):
        SnapshotId.parse(text)


# --- what is ours


def test_what_a_run_takes_is_found_again_when_its_time_is_over() -> None:
    snapshot = snapshot_of(RUN_ID, machine(), None)
    tags = snapshot_tags(RUN_ID, machine().key, NOW + HOUR)
    assert expired_run(snapshot, tags, NOW) is None
    assert expired_run(snapshot, tags, NOW + HOUR) == RUN_ID
    # Azure may hand back ids and names in another case.
    assert expired_run(snapshot._replace(name=snapshot.name.upper()), tags, NOW + HOUR) == RUN_ID


@pytest.mark.parametrize(
    "changes",
    [
        {"patchwave-run": "20261110T190000Z-weekly"},
        {"patchwave-run": ""},
        {"patchwave-run": "../etc"},
        {"patchwave-machine": "A" * 24},
        {"patchwave-expires": ""},
        {"patchwave-expires": "0001-01-01T00:00:00Z"},
    ],
)
def test_other_tags_are_not_ours(changes: dict[str, str]) -> None:
    snapshot = snapshot_of(RUN_ID, machine(), None)
    tags = snapshot_tags(RUN_ID, machine().key, NOW - HOUR) | changes
    assert expired_run(snapshot, tags, NOW) is None


def test_another_name_is_not_ours_whatever_its_tags() -> None:
    tags = snapshot_tags(RUN_ID, machine().key, NOW - HOUR)
    assert expired_run(SnapshotId(SUBSCRIPTION, "rg-a", "golden"), tags, NOW) is None
    digest = snapshot_of(RUN_ID, machine(), None).name[-13:]
    assert expired_run(SnapshotId(SUBSCRIPTION, "rg-a", "golden" + digest), tags, NOW) is None


# --- reading


def test_the_os_disk_of_a_machine() -> None:
    assert OsDisk.read(view()) == OsDisk(id=DISK_ID, location="westeurope", sku="Premium_LRS", zone="2")


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"properties": {"storageProfile": None}},
        view(managedDisk=None, vhd={"uri": "https://example.org/os.vhd"}),
        view(diffDiskSettings={"option": "Local"}),
    ],
)
def test_disks_without_a_snapshot(document: dict[str, Any]) -> None:
    assert OsDisk.read(document) is None


@pytest.mark.parametrize(
    ("properties", "ready", "failed"),
    [
        ({"provisioningState": "Succeeded"}, True, False),
        ({"provisioningState": "succeeded", "completionPercent": 100}, True, False),
        ({"provisioningState": "Succeeded", "completionPercent": 12.5}, False, False),
        ({"provisioningState": "Succeeded", "completionPercent": 10**400}, True, False),
        ({"provisioningState": "Updating"}, False, False),
        ({"provisioningState": "Failed"}, False, True),
        ({}, False, False),
    ],
)
def test_when_a_snapshot_can_be_used(properties: dict[str, Any], ready: bool, failed: bool) -> None:
    snapshot = SnapshotView.model_validate({"tags": None, "properties": properties})
    assert (snapshot.is_ready, snapshot.has_failed) == (ready, failed)
    assert not snapshot.belongs_to(RUN_ID, machine().key)


def test_a_snapshot_is_closed_to_the_network() -> None:
    disk = OsDisk(id=DISK_ID, location="westeurope")
    body = snapshot_body(disk, {"a": "b"}, incremental=True)
    assert body["properties"]["creationData"] == {"createOption": "Copy", "sourceResourceId": DISK_ID}
    assert body["properties"]["networkAccessPolicy"] == "DenyAll"
    assert body["properties"]["publicNetworkAccess"] == "Disabled"


# --- going back


def commands(advice: str) -> list[list[str]]:
    return [shlex.split(part) for part in advice.split("`")[1::2]]


def test_the_advice_is_two_commands_that_can_be_pasted() -> None:
    disk = OsDisk(id=DISK_ID, location="westeurope", sku="Premium_LRS", zone="2")
    snapshot = snapshot_of(RUN_ID, machine(), "rg-snapshots")
    advice = rollback_advice(machine(), disk, snapshot, NOW)
    create, swap = commands(advice)
    assert create[:3] == ["az", "disk", "create"]
    assert create[create.index("--source") + 1] == snapshot.text
    assert create[create.index("--zone") + 1] == "2"
    assert create[create.index("--sku") + 1] == "Premium_LRS"
    assert swap[:3] == ["az", "vm", "update"]
    assert swap[swap.index("-n") + 1] == "vm-1"
    assert swap[swap.index("--os-disk") + 1] == create[create.index("-n") + 1]
    assert "2026-11-21T00:00:00.000Z" in advice


def test_names_of_azure_cannot_become_commands() -> None:
    one = machine(group="rg(a)")
    disk = OsDisk(id=DISK_ID, location="westeurope", sku="x; rm -rf /", zone="$(id)")
    create, _ = commands(rollback_advice(one, disk, snapshot_of(RUN_ID, one, None), None))
    assert create[create.index("-g") + 1] == "rg(a)"
    assert create[create.index("--sku") + 1] == "x; rm -rf /"
    assert create[create.index("--zone") + 1] == "$(id)"
