"""Reservations of runs: one row each in one partition, and a head row, which numbers them.

A reservation and the head are written in one transaction, under the head's ETag from when the whole partition was read.
A run with a number has therefore seen every reservation with a lower one.
"""

from __future__ import annotations

from datetime import UTC, datetime

from patchwave.domain.planning.reservation import EVERYTHING, Groups, Reservation
from patchwave.storage.engine.entity_codec import pack, unpack
from patchwave.storage.engine.paging import try_read
from patchwave.storage.engine.rows import Change, Conflict, Row
from patchwave.storage.engine.store import OptimisticRetry, Repository

_PARTITION = "reservations"
_HEAD = "head"
_LAST = "lastNumber"
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
PHASES = "r~"
"""Row key prefix of a phase's groups, in the run's partition: ``r~{ring}~{phase}``."""


def groups_key(ring: int, phase: int) -> str:
    """The row key of a phase's groups; ring and phase as positions from 0."""
    return f"{PHASES}{ring:02d}~{phase:03d}"


class ReservationRepository(Repository):
    """Concurrency groups that phases of runs reserve."""

    async def get_groups(self, run_id: str, ring: int, phase: int) -> Groups:
        """The groups of a phase, from the run's plan."""
        row = await self._store.results.get(run_id, groups_key(ring, phase))
        return Groups() if row is None else unpack(Groups, row.columns)

    async def reserve(self, wanted: Reservation) -> tuple[Reservation, list[Reservation]]:
        """Reserve, after all current reservations; returns the stored one, and those of all runs.

        A repeated turn finds its reservation, and an outdated turn only reads. A new turn for the same phase keeps the
        reservation's number.

        Raises:
            StorageUnreachable: other runs reserved in between in every round.
        """
        async for _ in OptimisticRetry("the reservations"):
            rows = [row async for row in self._store.runs.scan(_PARTITION)]
            head = next((row for row in rows if row.key == _HEAD), None)
            known = {row.key: row for row in rows if row.key != _HEAD}
            others = [_reservation(row) for row in known.values()]
            own = known.get(wanted.run_id)
            stored = None if own is None else _reservation(own)
            if stored is not None and stored.sequence >= wanted.sequence:
                return stored, others
            changes: list[Change] = []
            if stored is not None and stored.groups is not None and stored.phase == wanted.phase:
                kept = stored.model_copy(update={"sequence": wanted.sequence})
            else:
                number = 1 if head is None else int(head.columns[_LAST]) + 1
                kept = wanted.model_copy(update={"number": number})
                changes.append(_change(_HEAD, {_LAST: number}, head))
            changes.append(_change(wanted.run_id, pack(_stored(kept)), own))
            try:
                await self._store.runs.apply(_PARTITION, changes)
            except Conflict:
                continue
            return kept, others
        raise AssertionError("the rounds end by an exception")

    async def list_all(self) -> list[Reservation]:
        """All reservations, by one short scan."""
        rows = self._store.runs.scan(_PARTITION)
        return [_reservation(row) async for row in rows if row.key != _HEAD]

    async def get_phase(self, run_id: str) -> tuple[int, int] | None:
        """The ring and phase of the run's reservation, as positions; ``None`` without one."""
        row = await self._store.runs.get(_PARTITION, run_id)
        stored = None if row is None else _reservation(row)
        if stored is None or stored.groups is None or not stored.phase:
            return None
        ring, _, phase = stored.phase.partition(".")
        return int(ring), int(phase)

    async def release(self, run_id: str, sequence: int) -> Reservation | None:
        """Release the run's reservation up to that turn; returns it, or ``None`` without one.

        The row stays, so that a late execution of that turn finds it released.
        """
        async for _ in OptimisticRetry(f"the reservation of run {run_id}"):
            row = await self._store.runs.get(_PARTITION, run_id)
            if row is None:
                return None
            stored = _reservation(row)
            if stored.sequence > sequence or stored.groups is None:
                return None
            given = stored.model_copy(update={"sequence": sequence, "groups": None})
            if await self._store.runs.replace(_PARTITION, run_id, pack(_stored(given)), row.etag):
                return stored
        return None

    async def remove(self, run_id: str) -> None:
        """Remove the reservation of a run that has ended."""
        await self._store.runs.remove(_PARTITION, run_id)


def _change(key: str, columns: dict[str, object], before: Row | None) -> Change:
    return Change("insert", key, columns) if before is None else Change("replace", key, columns, before.etag)


def _stored(reservation: Reservation) -> dict[str, object]:
    """The columns, without the group names, which are in the run's plan and of no use to other runs."""
    groups = reservation.groups
    bare = None if groups is None else groups.model_copy(update={"names": {}})
    return reservation.model_copy(update={"groups": bare}).to_wire()


def _reservation(row: Row) -> Reservation:
    found = try_read(_PARTITION, row, lambda row: unpack(Reservation, row.columns))
    # An unreadable reservation may have the same groups: it goes first until its run has ended.
    return found or Reservation(run_id=row.key, sequence=0, phase="", since=_LONG_AGO, groups=EVERYTHING)
