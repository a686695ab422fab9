"""Pins, which limit what later rings of a run install, and first-seen dates of Linux packages.

Both are written once and never change, so each worker caches them.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from patchwave.domain.core.documents import list_or_empty, parse_instant
from patchwave.domain.machine.patch_pinning import LinuxPin, Package, Pin, WindowsPin
from patchwave.domain.policy.scope import OsType
from patchwave.storage.engine.entity_codec import Columns, get_json, pack
from patchwave.storage.engine.parallel import in_parallel
from patchwave.storage.engine.rows import Change, Conflict, batches
from patchwave.storage.engine.store import Repository, Store
from patchwave.storage.errors import RecordMissing, RecordTooLarge

PINS = "k~"
"""Row key prefix of a pin: ``k~{number}``. The first row has all but the masks that do not fit into it."""
_ROW_UNITS = 400_000
"""Characters of masks in one row, below the limit of a JSON value (``entity_codec.JSON_COLUMNS``)."""
_PINS_KEPT = 8
_DATES_KEPT = 20_000
_PARALLEL = 16

type _Key = tuple[str, str]


class PatchPinRepository(Repository):
    """Pins of runs, and first-seen dates of packages."""

    def __init__(self, store: Store) -> None:
        super().__init__(store)
        self._pins: dict[str, Pin] = {}
        self._dates: dict[_Key, datetime | None] = {}
        """Packages that certainly have a row; ``None`` when their date has not been read."""
        self._noting: dict[_Key, asyncio.Future[None]] = {}
        """Packages that are being written."""

    async def save(self, run_id: str, pin: Pin) -> Pin:
        """Write the run's pin, in one transaction; returns the stored pin, which is the first one.

        Raises:
            RecordTooLarge: more than some 40,000 masks, the limit of one transaction.
        """
        changes = [Change("insert", key, columns) for key, columns in _rows(pin).items()]
        if len(batches(changes)) > 1:
            raise RecordTooLarge(f"the pin of run {run_id} is larger than one transaction of Table storage")
        try:
            await self._store.results.apply(run_id, changes)
        except Conflict:
            stored = await self.get(run_id)
            if stored is None:
                raise RecordMissing(f"the pin of run {run_id} was removed while it was read") from None
            return stored
        return pin

    async def get(self, run_id: str) -> Pin | None:
        """The run's pin, or ``None``. Cached after the first read."""
        pin = self._pins.get(run_id)
        if pin is None:
            scan = self._store.results.scan(run_id, prefix=PINS)
            pin = _pin([row.columns async for row in scan])
            if pin is not None:
                _remember(self._pins, run_id, pin, _PINS_KEPT)
        return pin

    async def record_first_seen(self, os_type: OsType, packages: Iterable[Package], at: datetime) -> None:
        """Store the first-seen date of these versions; a known version keeps its date.

        Versions that this worker has written, or is writing, cost no request: a fleet of equal machines costs as much
        as one machine, also when all are assessed at once.
        """
        rows = {_key(os_type, package): package for package in packages}
        while new := [key for key in rows if key not in self._dates]:
            mine = [key for key in new if key not in self._noting]
            if not mine:
                await asyncio.wait({self._noting[key] for key in new})
                continue
            noted = asyncio.get_running_loop().create_future()
            self._noting |= dict.fromkeys(mine, noted)
            try:
                await self._store.seen.insert_all(
                    seen_partition(os_type),
                    {row: pack({"name": rows[_, row][0], "version": rows[_, row][1], "at": at}) for _, row in mine},
                )
                for key in mine:
                    _remember(self._dates, key, None, _DATES_KEPT)
            finally:
                # Every waiting caller writes what is missing then.
                for key in mine:
                    del self._noting[key]
                noted.set_result(None)

    async def first_seen(self, os_type: OsType, packages: Iterable[Package]) -> dict[Package, datetime]:
        """First-seen dates of these versions on any machine; unseen ones are left out."""
        found: dict[Package, datetime] = {}

        async def read(package: Package) -> None:
            key = _key(os_type, package)
            at = self._dates.get(key)
            if at is None:
                row = await self._store.seen.get(*key, ["at"])
                at = parse_instant(row.columns["at"]) if row is not None else None
            if at is not None:
                found[package] = at
                _remember(self._dates, key, at, _DATES_KEPT)

        await in_parallel(read, set(packages), most=_PARALLEL)
        return found


def _rows(pin: Pin) -> dict[str, Columns]:
    first = pack({"fromRing": pin.from_ring, "at": pin.at, "windows": pin.windows, "kinds": pin.kinds})
    parts = _parts(pin.linux.masks if pin.linux is not None else [])
    rows = [first | (pack({"masks": parts[0]}) if parts else {})]
    rows += [pack({"masks": part}) for part in parts[1:]]
    return {f"{PINS}{number:03d}": columns for number, columns in enumerate(rows)}


def _parts(masks: Sequence[str]) -> list[list[str]]:
    parts: list[list[str]] = []
    size = 0
    for mask in masks:
        size += len(mask) + 3
        if not parts or size > _ROW_UNITS:
            parts.append([])
            size = len(mask) + 3
        parts[-1].append(mask)
    return parts


def _pin(rows: Sequence[Columns]) -> Pin | None:
    """The pin in its rows, in key order; ``None`` without rows."""
    if not rows:
        return None
    windows = get_json(rows[0], "windows")
    masks = [str(mask) for row in rows for mask in list_or_empty(get_json(row, "masks"))]
    return Pin(
        from_ring=rows[0]["fromRing"],
        at=rows[0]["at"],
        windows=None if windows is None else WindowsPin.model_validate(windows),
        linux=LinuxPin(masks=masks) if masks else None,
        kinds=get_json(rows[0], "kinds"),
    )


def seen_partition(os_type: OsType) -> str:
    """The partition of an operating system's packages."""
    return os_type.value.lower()


def _key(os_type: OsType, package: Package) -> _Key:
    """Partition and row key. Package names are external, so a key only contains their digest."""
    digest = hashlib.sha256("=".join(package).encode("utf-8", "replace")).hexdigest()
    return seen_partition(os_type), digest[:40]


def _remember[Key](cache: dict[Key, Any], key: Key, value: object, most: int) -> None:
    """Cache a value, and evict the oldest one when there are more than ``most``."""
    cache[key] = value
    if len(cache) > most:
        del cache[next(iter(cache))]
