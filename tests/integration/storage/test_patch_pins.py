"""Pins and first sightings: written once, read back whole, and cheap for a fleet of equal machines."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from patchwave.domain.machine.patch_pinning import LinuxPin, Package, Pin, WindowsPin
from patchwave.domain.policy.scope import OsType
from patchwave.storage import RecordTooLarge, Storage
from patchwave.storage.engine.table import Table
from tests.support.factories import NOW, RUN

PIN = Pin(
    from_ring="canary",
    at=NOW,
    windows=WindowsPin(kbs=["KB5000001", "KB5000002"], published_by=NOW),
    linux=LinuxPin(masks=["curl=8.1", "openssl=1:3.0.2~rc1-0ubuntu1.18"]),
)
DAY = timedelta(days=1)
HELLO: Package = ("openssl", "3.0.2")


def another_worker(storage: Storage) -> Storage:
    """The same tables, and nothing remembered."""
    return Storage(storage._store)


@pytest.mark.parametrize(
    "pin",
    [
        PIN,
        Pin(from_ring="canary", at=NOW),
        PIN.model_copy(update={"windows": None}),
        PIN.model_copy(update={"linux": None, "windows": WindowsPin(kbs=["KB5000001"])}),
    ],
)
async def test_a_pin_is_read_back_as_it_was_stored(storage: Storage, pin: Pin) -> None:
    assert await storage.patch_pins.get(RUN) is None
    assert await storage.patch_pins.save(RUN, pin) == pin
    assert await storage.patch_pins.get(RUN) == pin
    assert await another_worker(storage).patch_pins.get(RUN) == pin


async def test_the_first_pin_of_a_run_counts(storage: Storage) -> None:
    await storage.patch_pins.save(RUN, PIN)
    second = Pin(from_ring="broad", at=NOW + DAY)
    assert await storage.patch_pins.save(RUN, second) == PIN
    assert await another_worker(storage).patch_pins.save(RUN, second) == PIN
    assert await storage.patch_pins.get("20261210T190000Z-monthly") is None


async def test_a_large_pin_is_spread_over_rows_and_read_whole(storage: Storage) -> None:
    masks = [f"package-{number:06d}=1:{number}.0-0ubuntu1.22.04.{number}" for number in range(20_000)]
    large = PIN.model_copy(update={"linux": LinuxPin(masks=masks)})
    await storage.patch_pins.save(RUN, large)
    assert await another_worker(storage).patch_pins.get(RUN) == large


async def test_a_pin_over_one_transaction_is_refused_and_leaves_nothing(storage: Storage) -> None:
    masks = [f"package-{number:06d}={'9' * 60}" for number in range(60_000)]
    with pytest.raises(RecordTooLarge):
        await storage.patch_pins.save(RUN, PIN.model_copy(update={"linux": LinuxPin(masks=masks)}))
    assert await another_worker(storage).patch_pins.get(RUN) is None


async def test_the_first_sighting_of_a_version_stays(storage: Storage) -> None:
    newer: Package = ("openssl", "3.0.3")
    await storage.patch_pins.record_first_seen(OsType.LINUX, [HELLO], NOW)
    await storage.patch_pins.record_first_seen(OsType.LINUX, [HELLO, newer], NOW + DAY)
    await another_worker(storage).patch_pins.record_first_seen(OsType.LINUX, [HELLO, newer], NOW + 2 * DAY)
    wanted = {HELLO: NOW, newer: NOW + DAY}
    asked: list[Package] = [HELLO, newer, ("never", "1")]
    assert await storage.patch_pins.first_seen(OsType.LINUX, asked) == wanted
    assert await another_worker(storage).patch_pins.first_seen(OsType.LINUX, asked) == wanted
    assert await storage.patch_pins.first_seen(OsType.WINDOWS, asked) == {}


async def test_names_of_any_characters_and_equal_signs_do_not_meet(storage: Storage) -> None:
    odd: list[Package] = [("a/b\\c#d?", "1"), ("ü" * 400, "1"), ("x", "1\n2"), ("x=1", "2"), ("x", "12")]
    for day, one in enumerate(odd):
        await storage.patch_pins.record_first_seen(OsType.LINUX, [one], NOW + day * DAY)
    found = await another_worker(storage).patch_pins.first_seen(OsType.LINUX, odd)
    assert found == {one: NOW + day * DAY for day, one in enumerate(odd)}


async def test_a_fleet_of_equal_machines_costs_one_machines_requests(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    real = Table.insert_all

    async def insert_all(table: Table, partition: str, rows: Mapping[str, dict[str, Any]]) -> int:
        written.extend(rows)
        return await real(table, partition, rows)

    monkeypatch.setattr(Table, "insert_all", insert_all)
    packages = [(f"package-{number}", "1.0") for number in range(40)]
    for _ in range(50):
        await storage.patch_pins.record_first_seen(OsType.LINUX, packages, NOW)
    assert len(written) == 40
