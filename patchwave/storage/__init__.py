"""The records: everything that outlives a run, in Table storage. ``docs/reference/storage.md`` has the key design.

>>> records = open_records()
>>> run, created = await records.create_run(run)

Methods raise ``StorageUnreachable`` when the storage cannot be used now, and never an Azure error. Every one of
them may be executed again: what was done is found, not done twice.
"""

from __future__ import annotations

from patchwave.azure.clients import PerLoop
from patchwave.settings import Settings
from patchwave.storage.at_most_once import GuardRecords
from patchwave.storage.audit_log import JournalRecords
from patchwave.storage.completions import EndingRecords, ending_change
from patchwave.storage.engine.batching import batching
from patchwave.storage.engine.paging import Page
from patchwave.storage.engine.rows import Change
from patchwave.storage.engine.store import Store
from patchwave.storage.errors import (
    InvalidCursor,
    PreconditionFailed,
    RecordMissing,
    RecordTooLarge,
    StorageError,
    StorageUnreachable,
)
from patchwave.storage.event_requests import EventRequestRecords
from patchwave.storage.freezes import FreezeRecords, audit_subject
from patchwave.storage.intents import IntentRecords
from patchwave.storage.live_runs import LiveRunRecords, Watched
from patchwave.storage.machine_skips import SkipRecords
from patchwave.storage.patch_mode_changes import ModeChangeRecords
from patchwave.storage.patch_pins import PinRecords
from patchwave.storage.plans import PlanRecords
from patchwave.storage.policies import PolicyRecords, StoredPolicy
from patchwave.storage.reservations import ReservationRecords
from patchwave.storage.retention import RetentionRecords
from patchwave.storage.run_machines import MachineRecords, Standing
from patchwave.storage.schedule_overrides import ControlRecords
from patchwave.storage.throttling import ThrottlingRecords, bucket_key


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
    ThrottlingRecords,
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
    "batching",
    "bucket_key",
    "ending_change",
    "open_records",
]
