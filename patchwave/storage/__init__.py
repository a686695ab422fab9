"""Repositories in Table storage: everything that outlives a run. ``docs/reference/storage.md`` has the key design.

>>> storage = Storage(Store.open(settings))
>>> run, created = await storage.runs.create(run)

There is one repository per kind of record. Their methods raise ``StorageUnreachable`` when the storage cannot be used
now, and never an Azure error. Every method is idempotent: a repeated call finds what was done before. Methods that
return a ``Page`` raise ``InvalidCursor`` for a cursor of another list.
"""

from __future__ import annotations

from patchwave.storage.at_most_once import AtMostOnceRepository
from patchwave.storage.audit_log import AuditRepository
from patchwave.storage.catch_ups import CatchUpRepository
from patchwave.storage.completions import CompletionRepository, completion_change
from patchwave.storage.engine.batching import batching
from patchwave.storage.engine.paging import Page
from patchwave.storage.engine.parallel import in_parallel
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
from patchwave.storage.event_requests import EventRequestRepository
from patchwave.storage.evidence import EvidenceRepository
from patchwave.storage.finalizers import FinalizerRepository
from patchwave.storage.freezes import FreezeRepository, audit_subject
from patchwave.storage.idempotency import IdempotencyRepository
from patchwave.storage.intents import IntentRepository
from patchwave.storage.leases import LeaseRepository
from patchwave.storage.live_runs import LiveRunRepository
from patchwave.storage.machine_history import MachineHistoryRepository
from patchwave.storage.machine_results import MachineResultRepository
from patchwave.storage.patch_mode_changes import PatchModeChangeRepository
from patchwave.storage.patch_pins import PatchPinRepository
from patchwave.storage.plans import PlanRepository
from patchwave.storage.policies import PolicyRepository, StoredPolicy
from patchwave.storage.reservations import ReservationRepository
from patchwave.storage.retention import RetentionRepository
from patchwave.storage.run_machines import MachineProgress, MachineRepository
from patchwave.storage.runs import LiveRun, RunRepository
from patchwave.storage.schedule_overrides import ScheduleOverrideRepository
from patchwave.storage.throttling import ThrottlingRepository, bucket_key


class Storage:
    """The repositories of one installation, over one set of tables."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.audit = AuditRepository(store)
        self.idempotency = IdempotencyRepository(store)
        self.event_requests = EventRequestRepository(store, self.idempotency)
        self.throttling = ThrottlingRepository(store)
        self.retention = RetentionRepository(store)
        self.evidence = EvidenceRepository(store)

        self.policies = PolicyRepository(store)
        self.freezes = FreezeRepository(store, self.audit)
        self.overrides = ScheduleOverrideRepository(store, self.audit)
        self.patch_mode_changes = PatchModeChangeRepository(store)

        self.live_runs = LiveRunRepository(store)
        self.runs = RunRepository(store, self.live_runs, self.overrides, self.audit)
        self.plans = PlanRepository(store)
        self.patch_pins = PatchPinRepository(store)
        self.reservations = ReservationRepository(store)
        self.completions = CompletionRepository(store)

        self.history = MachineHistoryRepository(store)
        self.catch_ups = CatchUpRepository(store)
        self.leases = LeaseRepository(store, self.history)
        self.intents = IntentRepository(store)
        self.at_most_once = AtMostOnceRepository(store)
        self.machines = MachineRepository(store, self.intents)
        self.results = MachineResultRepository(store, self.history, self.leases)
        self.finalizers = FinalizerRepository(store, self.history)

    async def prepare(self) -> None:
        """Create missing tables. Optional: a missing table is also created on first use."""
        await self._store.prepare()

    async def check(self) -> None:
        """One cheap read, for the health endpoint.

        Raises:
            StorageUnreachable: with a sentence that names the cause.
        """
        await self._store.runs.get("runs", "none", [])

    async def close(self) -> None:
        """Close the connections."""
        await self._store.close()


__all__ = [
    "Change",
    "InvalidCursor",
    "LiveRun",
    "MachineProgress",
    "Page",
    "PreconditionFailed",
    "RecordMissing",
    "RecordTooLarge",
    "Storage",
    "StorageError",
    "StorageUnreachable",
    "StoredPolicy",
    "audit_subject",
    "batching",
    "bucket_key",
    "completion_change",
    "in_parallel",
]
