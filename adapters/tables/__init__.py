"""The records: everything that outlives a run, in Table storage. ``docs/storage.md`` has the key design.

>>> records = open_records()
>>> run, created = await records.create_run(run)

Methods raise ``StorageUnreachable`` when the storage cannot be used now, and never an Azure error. Every one of
them may be executed again: what was done is found, not done twice.
"""

from __future__ import annotations

from adapters.per_loop import PerLoop
from adapters.tables.company import in_company
from adapters.tables.controls import ControlRecords
from adapters.tables.endings import EndingRecords, ending_change
from adapters.tables.errors import (
    InvalidCursor,
    PreconditionFailed,
    RecordMissing,
    RecordTooLarge,
    StorageError,
    StorageUnreachable,
)
from adapters.tables.event_requests import EventRequestRecords
from adapters.tables.freezes import FreezeRecords, audit_subject
from adapters.tables.guards import GuardRecords
from adapters.tables.journal import JournalRecords
from adapters.tables.live import LiveRunRecords, Watched
from adapters.tables.machines import MachineRecords, Standing
from adapters.tables.mode_changes import ModeChangeRecords
from adapters.tables.operations import IntentRecords
from adapters.tables.paging import Page
from adapters.tables.pauses import PauseRecords, budget_of
from adapters.tables.pins import PinRecords
from adapters.tables.plans import PlanRecords
from adapters.tables.policies import PolicyRecords, StoredPolicy
from adapters.tables.reservations import ReservationRecords
from adapters.tables.retention import RetentionRecords
from adapters.tables.rows import Change
from adapters.tables.skips import SkipRecords
from adapters.tables.store import Store
from settings import Settings


class Records(
    LiveRunRecords,
    SkipRecords,
    MachineRecords,
    EndingRecords,
    IntentRecords,
    GuardRecords,
    PlanRecords,
    PinRecords,
    ReservationRecords,
    PolicyRecords,
    ControlRecords,
    FreezeRecords,
    PauseRecords,
    EventRequestRecords,
    JournalRecords,
    ModeChangeRecords,
    RetentionRecords,
):
    """All records of one installation."""

    async def prepare(self) -> None:
        """Create the tables that are absent. Not needed: a table that is missed on first use is created then."""
        await self._store.prepare()

    async def check(self) -> None:
        """One cheap read, for the health function.

        Raises:
            StorageUnreachable: with a sentence that names the cause.
        """
        await self._store.runs.get("runs", "none", [])

    async def close(self) -> None:
        """Give back the connections."""
        await self._store.close()


# Connections belong to the event loop that opened them; a worker process has one loop and so one set of records.
_clients = PerLoop(lambda settings: Records(Store.open(settings)))


def open_records(settings: Settings | None = None) -> Records:
    """The records of this process and event loop; no request is sent yet."""
    return _clients.get(settings)


__all__ = [
    "Change",
    "InvalidCursor",
    "Page",
    "PreconditionFailed",
    "RecordMissing",
    "RecordTooLarge",
    "Records",
    "Standing",
    "StorageError",
    "StorageUnreachable",
    "StoredPolicy",
    "Watched",
    "audit_subject",
    "budget_of",
    "ending_change",
    "in_company",
    "open_records",
]
