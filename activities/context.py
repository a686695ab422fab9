"""Shared start of activities: the clock, the machine's run, and its policy."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from weakref import WeakKeyDictionary

from patchwave.domain.core.documents import Json
from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.outcome import Outcome, Reason
from patchwave.domain.policy.policy import Policy
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Mode, Run
from patchwave.domain.scheduling.window import deadline
from patchwave.settings import load_settings
from patchwave.storage import RecordMissing, Storage, open_storage

_LOCK_MARGIN = timedelta(hours=1)
"""Added to the deadline of an installation: time for the assessment, the power-on, and the polls between them."""

_FROZEN_KEPT = 50
_FROZEN: WeakKeyDictionary[Storage, dict[str, tuple[Mode, Policy]]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class MachineContext:
    """A machine of a run, with the policy snapshot of that run."""

    run: Run
    policy: Policy
    machine: MachineRecord

    @property
    def machine_id(self) -> MachineId:
        """The machine's ARM id."""
        return MachineId.parse(self.machine.id)


def now() -> datetime:
    """The current time, in UTC."""
    return datetime.now(UTC)


def wait_seconds(asked: float | None = None, *, polls: float = 1) -> float:
    """Seconds to wait: Azure's ``Retry-After``, else ``polls`` poll intervals; with jitter, to spread the machines."""
    if asked is not None:
        # Never earlier than asked: an early request is rejected, with a new wait.
        return round(asked * random.uniform(1.0, 1.1) + 0.05, 3)
    return round(load_settings().poll_seconds * polls * random.uniform(0.9, 1.1), 3)


def seconds_of(duration: timedelta) -> float:
    """A policy's duration in seconds; shorter when tests accelerate the clock."""
    return duration / timedelta(seconds=1) / load_settings().clock_speed


async def acquire_lease(context: MachineContext, *, force: bool = False) -> str | None:
    """Acquire or extend the machine's lease (safety rule 6). The id of the run that holds it when another one does.

    A cached lease that lasts long enough is not written again, unless ``force`` is set at the begin of a step.
    """
    at = now()
    until = deadline(at, context.policy.install.maximum_duration)
    owner = await open_storage().leases.acquire(
        context.machine.key,
        context.run.id,
        at,
        until + _LOCK_MARGIN,
        lasting=None if force else until + _LOCK_MARGIN / 2,
    )
    return None if owner == context.run.id else owner


async def renew_lease(context: MachineContext) -> None:
    """Extend the lease for the steps after an installation: scripts and health checks may take hours more.

    A machine that has its outcome has released its lease.
    """
    if context.machine.outcome is None:
        await acquire_lease(context)


def locked_by(run_id: str) -> Outcome:
    """The outcome of a machine whose lease another run holds; that run may have ended."""
    return Outcome.skipped(
        Reason.LOCKED_BY_RUN,
        f"The run {run_id} has locked this machine: it works on it, or has left something running in its guest.",
    )


async def load_run(run_id: str) -> tuple[Run, Policy]:
    """The run and its policy snapshot.

    Raises:
        RecordMissing: the run does not exist, or has no policy snapshot.
    """
    run = await open_storage().runs.get(run_id)
    if run is None or run.policy_snapshot is None:
        raise RecordMissing(f"run {run_id} has no row")
    return run, _policy(run.policy_snapshot)


async def frozen_policy(run_id: str) -> tuple[Mode, Policy]:
    """The mode and policy of a run. Neither changes, so only the first call reads the row.

    Raises:
        RecordMissing: the run does not exist, or has no policy snapshot.
    """
    kept = _FROZEN.setdefault(open_storage(), {})
    found = kept.get(run_id)
    if found is None:
        run, policy = await load_run(run_id)
        found = kept[run_id] = run.mode, policy
        if len(kept) > _FROZEN_KEPT:
            del kept[next(iter(kept))]
    return found


async def load_machine(run_id: str, machine_key: str) -> MachineContext:
    """A machine of a run.

    Raises:
        RecordMissing: the run has no such machine.
    """
    # Side by side: each of the reads may wait for its batch.
    (run, policy), machine = await asyncio.gather(load_run(run_id), load_record(run_id, machine_key))
    return MachineContext(run, policy, machine)


async def load_record(run_id: str, machine_key: str) -> MachineRecord:
    """The machine's row alone, where neither run nor policy is needed: one read less.

    Raises:
        RecordMissing: the run has no such machine.
    """
    machine = await open_storage().machines.get_validated(run_id, machine_key)
    if machine is None:
        raise RecordMissing(f"run {run_id} has no machine {machine_key}")
    return machine


def _policy(snapshot: Json) -> Policy:
    """The parsed policy of a snapshot, cached: each step of each machine needs it."""
    return _parsed_policy(json.dumps(snapshot))


@lru_cache(maxsize=50)
def _parsed_policy(text: str) -> Policy:
    return Policy.model_validate(json.loads(text))
