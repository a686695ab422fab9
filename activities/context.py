"""Shared start of activities: the clock, the machine's run, and its policy."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TypedDict
from weakref import WeakKeyDictionary

from patchwave.azure.compute import Submission
from patchwave.domain.azure.errors import ArmFailure, is_throttling
from patchwave.domain.calendar.local_window import Hours
from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.outcome import Outcome, Reason
from patchwave.domain.machine.at_most_once import AtMostOnceRecord
from patchwave.domain.policy.policy import Policy
from patchwave.domain.runs.intent import IntentState
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Mode, Run
from patchwave.domain.scheduling.window import deadline
from patchwave.settings import Settings
from patchwave.storage import RecordMissing, Storage
from patchwave.wiring import Services

_LOCK_MARGIN = timedelta(hours=1)
"""Added to the deadline of an installation: time for the assessment, the power-on, and the polls between them."""

_FROZEN_KEPT = 50
_FROZEN: WeakKeyDictionary[Storage, dict[str, tuple[Mode, Policy]]] = WeakKeyDictionary()


@dataclass(frozen=True, slots=True)
class MachineContext:
    """A machine of a run, with the policy snapshot of that run, and the services to work on it."""

    services: Services
    run: Run
    policy: Policy
    machine: MachineRecord

    @property
    def machine_id(self) -> MachineId:
        """The machine's ARM id."""
        return MachineId.parse(self.machine.id)

    @property
    def hours(self) -> Hours | None:
        """When the machine may be patched in the run's window; ``None`` without a window."""
        return self.run.window_of(self.machine.time_zone)

    @property
    def window_end(self) -> datetime | None:
        """The end of the machine's window."""
        hours = self.hours
        return None if hours is None else hours.closes_at

    @property
    def is_before_window(self) -> bool:
        """Whether the window by the machine's own clock has not opened yet."""
        hours = self.hours
        return self.run.local_window is not None and hours is not None and now() < hours.opens_at

    @property
    def settings(self) -> Settings:
        return self.services.settings

    @property
    def storage(self) -> Storage:
        return self.services.storage


def now() -> datetime:
    """The current time, in UTC."""
    return datetime.now(UTC)


def wait_seconds(
    settings: Settings, asked: float | None = None, *, polls: float = 1, ran_for: timedelta = timedelta(0)
) -> float:
    """Seconds to wait: Azure's ``Retry-After``, else ``polls`` poll intervals; with jitter, to spread the machines.

    At least a tenth of ``ran_for``: a slow operation does not fill the history with polls.
    """
    if asked is not None:
        # Never earlier than asked: an early request is rejected, with a new wait.
        wait = round(asked * random.uniform(1.0, 1.1) + 0.05, 3)
    else:
        wait = round(settings.poll_seconds * polls * random.uniform(0.9, 1.1), 3)
    return max(wait, ran_for.total_seconds() / 10)


class Retry(TypedDict):
    """Members of a result that asks to be called again."""

    wait_seconds: float
    counts_as_attempt: bool


def retry_after(settings: Settings, failure: ArmFailure, *, polls: float = 1) -> Retry:
    """When to retry after a failure, and whether that was an attempt: a throttled request is none."""
    wait = wait_seconds(settings, failure.retry_after, polls=polls)
    return Retry(wait_seconds=wait, counts_as_attempt=not is_throttling(failure))


def seconds_of(settings: Settings, duration: timedelta) -> float:
    """A policy's duration in seconds; shorter when tests accelerate the clock."""
    return duration / timedelta(seconds=1) / settings.clock_speed


async def acquire_lease(context: MachineContext, *, force: bool = False) -> str | None:
    """Acquire or extend the machine's lease (safety rule 6). The id of the run that holds it when another one does.

    A cached lease that lasts long enough is not written again, unless ``force`` is set at the beginning of a step.
    """
    at = now()
    until = deadline(at, context.policy.install.maximum_duration)
    lasting = None if force else until + _LOCK_MARGIN / 2
    owner = await context.storage.leases.acquire(
        context.machine.key, context.run.id, at, until + _LOCK_MARGIN, lasting=lasting
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
    why = f"The run {run_id} has locked this machine: it works on it, or has left something running in its guest."
    return Outcome.skipped(Reason.LOCKED_BY_RUN, why)


async def load_run(storage: Storage, run_id: str) -> tuple[Run, Policy]:
    """The run and its policy snapshot.

    Raises:
        RecordMissing: the run does not exist, or has no policy snapshot.
    """
    run = await load_run_record(storage, run_id)
    if run.policy_snapshot is None:
        raise RecordMissing(f"run {run_id} has no policy snapshot")
    return run, _parsed_policy(json.dumps(run.policy_snapshot))


async def load_run_record(storage: Storage, run_id: str) -> Run:
    """The run's row.

    Raises:
        RecordMissing: the run does not exist.
    """
    run = await storage.runs.get(run_id)
    if run is None:
        raise RecordMissing(f"run {run_id} has no row")
    return run


async def frozen_policy(storage: Storage, run_id: str) -> tuple[Mode, Policy]:
    """The mode and policy of a run. Neither changes, so only the first call reads the row; raises as `load_run`."""
    kept = _FROZEN.setdefault(storage, {})
    found = kept.get(run_id)
    if found is None:
        run, policy = await load_run(storage, run_id)
        found = kept[run_id] = run.mode, policy
        if len(kept) > _FROZEN_KEPT:
            del kept[next(iter(kept))]
    return found


async def load_machine(services: Services, run_id: str, machine_key: str) -> MachineContext:
    """A machine of a run; raises as `load_run` and `load_record`."""
    # Side by side: each of the reads may wait for its batch.
    storage = services.storage
    (run, policy), machine = await asyncio.gather(load_run(storage, run_id), load_record(storage, run_id, machine_key))
    return MachineContext(services, run, policy, machine)


async def load_record(storage: Storage, run_id: str, machine_key: str) -> MachineRecord:
    """The machine's row alone, where neither run nor policy is needed: one read less.

    Raises:
        RecordMissing: the run has no such machine.
    """
    machine = await storage.machines.get_validated(run_id, machine_key)
    if machine is None:
        raise RecordMissing(f"run {run_id} has no machine {machine_key}")
    return machine


async def record_outcomes(storage: Storage, run_id: str, outcomes: Iterable[tuple[str, Outcome]]) -> int:
    """Store final outcomes by machine key, together where they are equal; returns how many machines had none."""
    by_outcome: dict[Outcome, list[str]] = {}
    for key, outcome in outcomes:
        by_outcome.setdefault(outcome, []).append(key)
    at = now()
    return sum([await storage.results.record_outcomes(run_id, keys, one, at) for one, keys in by_outcome.items()])


async def declare_call(storage: Storage, guard: AtMostOnceRecord, known: AtMostOnceRecord | None) -> bool:
    """Write the row of a call before its POST; ``known`` is the row of an earlier one.

    Returns whether this execution may send it. Otherwise another one is running: the next call sees its result.
    """
    if known is None:
        return (await storage.at_most_once.declare(guard)).token == guard.token
    return await storage.at_most_once.redeclare(known, guard)


async def save_accepted(storage: Storage, guard: AtMostOnceRecord, submission: Submission) -> None:
    """Complete the row of a call with the URLs of Azure's response."""
    urls = {"async_url": submission.async_url, "location_url": submission.location_url}
    await storage.at_most_once.save(guard.model_copy(update={"state": IntentState.ACCEPTED, **urls}))


@lru_cache(maxsize=50)
def _parsed_policy(text: str) -> Policy:
    """The policy of a snapshot, cached: each step of each machine needs it."""
    return Policy.model_validate(json.loads(text))
