"""Pins and first sightings: written once, read back whole, and cheap for a fleet of equal machines."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Any

import pytest

from patchwave.domain.machine.patch_pinning import LinuxPin, Package, Pin, WindowsPin
from patchwave.domain.policy.scope import OsType
from patchwave.storage import Records, RecordTooLarge
from patchwave.storage.engine.table import Table
from tests.support.factories import NOW

RUN = "20261110T190000Z-monthly"
PIN = Pin(
    from_ring="canary",
    at=NOW,
    windows=WindowsPin(kbs=["KB5000001", "KB5000002"], published_by=NOW),
    linux=LinuxPin(masks=["curl=8.1", "openssl=1:3.0.2~rc1-0ubuntu1.18"]),
)
DAY = timedelta(days=1)
HELLO: Package = ("openssl", "3.0.2")


def another_worker(records: Records) -> Records:
    """The same tables, and nothing remembered."""
    return Records(records._store)


@pytest.mark.parametrize(
    "pin",
    [
        PIN,
        Pin(from_ring="canary", at=NOW),
        PIN.model_copy(update={"windows": None}),
        PIN.model_copy(update={"linux": None, "windows": WindowsPin(kbs=["KB5000001"])}),
    ],
)
async def test_a_pin_is_read_back_as_it_was_stored(records: Records, pin: Pin) -> None:
    assert await records.get_pin(RUN) is None
    assert await records.save_pin(RUN, pin) == pin
    assert await records.get_pin(RUN) == pin
    assert await another_worker(records).get_pin(RUN) == pin


async def test_the_first_pin_of_a_run_counts(records: Records) -> None:
    await records.save_pin(RUN, PIN)
    second = Pin(from_ring="broad", at=NOW + DAY)
    assert await records.save_pin(RUN, second) == PIN
    assert await another_worker(records).save_pin(RUN, second) == PIN
    assert await records.get_pin("20261210T190000Z-monthly") is None


async def test_a_large_pin_is_spread_over_rows_and_comes_whole(records: Records) -> None:
    masks = [f"package-{number:06d}=1:{number}.0-0ubuntu1.22.04.{number}" for number in range(20_000)]
    large = PIN.model_copy(update={"linux": LinuxPin(masks=masks)})
    await records.save_pin(RUN, large)
    assert await another_worker(records).get_pin(RUN) == large


async def test_a_pin_over_one_transaction_is_refused_and_leaves_nothing(records: Records) -> None:
    masks = [f"package-{number:06d}={'9' * 60}" for number in range(60_000)]
    with pytest.raises(RecordTooLarge):
        await records.save_pin(RUN, PIN.model_copy(update={"linux": LinuxPin(masks=masks)}))
    assert await another_worker(records).get_pin(RUN) is None


async def test_the_first_sighting_of_a_version_stays(records: Records) -> None:
    newer: Package = ("openssl", "3.0.3")
    await records.note_first_seen(OsType.LINUX, [HELLO], NOW)
    await records.note_first_seen(OsType.LINUX, [HELLO, newer], NOW + DAY)
    await another_worker(records).note_first_seen(OsType.LINUX, [HELLO, newer], NOW + 2 * DAY)
    wanted = {HELLO: NOW, newer: NOW + DAY}
    asked: list[Package] = [HELLO, newer, ("never", "1")]
    assert await records.first_seen(OsType.LINUX, asked) == wanted
    assert await another_worker(records).first_seen(OsType.LINUX, asked) == wanted
    assert await records.first_seen(OsType.WINDOWS, asked) == {}


async def test_names_of_any_characters_and_equal_signs_do_not_meet(records: Records) -> None:
    odd: list[Package] = [("a/b\\c#d?", "1"), ("ü" * 400, "1"), ("x", "1\n2"), ("x=1", "2"), ("x", "12")]
    for day, one in enumerate(odd):
        await records.note_first_seen(OsType.LINUX, [one], NOW + day * DAY)
    found = await another_worker(records).first_seen(OsType.LINUX, odd)
    assert found == {one: NOW + day * DAY for day, one in enumerate(odd)}


async def test_a_fleet_of_equal_machines_costs_one_machines_requests(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[str] = []
    real = Table.insert_all

    async def insert_all(table: Table, partition: str, rows: Mapping[str, dict[str, Any]]) -> int:
        written.extend(rows)
        return await real(table, partition, rows)

    monkeypatch.setattr(Table, "insert_all", insert_all)
    packages = [(f"package-{number}", "1.0") for number in range(40)]
    for _ in range(50):
        await records.note_first_seen(OsType.LINUX, packages, NOW)
    assert len(written) == 40
