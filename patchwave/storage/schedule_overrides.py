"""Commands for a policy's schedule beside its document, and its deferred runs: one row per policy.

Every change is audited under the policy. The entry of a stored command is derived from the row. If a change was
interrupted before its entry, the same command completes it, and nothing is written twice.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Unpack

from patchwave.domain.core.documents import format_instant
from patchwave.domain.core.principal import Signature
from patchwave.domain.scheduling.overrides import Pause, ScheduleOverrides, Skip
from patchwave.domain.scheduling.upcoming import forgettable_before
from patchwave.storage.audit_log import AuditRepository
from patchwave.storage.engine.entity_codec import pack, unpack
from patchwave.storage.engine.rows import Row
from patchwave.storage.engine.store import OptimisticRetry, Repository, Store

_PARTITION = "controls"
_LONG_AGO = datetime(2000, 1, 1, tzinfo=UTC)
_LOG = logging.getLogger("patchwave.storage")


class ScheduleOverrideRepository(Repository):
    """Overrides by policy name. They outlive the policy: a pause must not end by accident."""

    def __init__(self, store: Store, audit: AuditRepository) -> None:
        super().__init__(store)
        self._audit = audit

    async def get(self, policy: str) -> ScheduleOverrides:
        """The policy's overrides; empty without a row, and paused when the row is damaged."""
        row = await self._store.policies.get(_PARTITION, policy)
        return ScheduleOverrides() if row is None else _read(row)

    async def pause(self, policy: str, pause: Pause) -> ScheduleOverrides:
        """Pause the schedule; the first pause counts."""
        controls, _ = await self._change(policy, lambda known: known.paused(pause))
        kept = controls.pause or pause
        await self._audit.add(policy, "policy_paused", **kept.who, at=kept.at, detail={"reason": kept.reason})
        return controls

    async def resume(self, policy: str, *, reason: str, at: datetime, **who: Unpack[Signature]) -> ScheduleOverrides:
        """End the pause, if there is one."""
        controls, is_changed = await self._change(policy, lambda known: known.resumed())
        if is_changed:
            await self._audit.add(policy, "policy_resumed", **who, at=at, detail={"reason": reason})
        return controls

    async def skip(self, policy: str, skip: Skip) -> ScheduleOverrides:
        """Skip one occurrence; the first skip counts."""
        controls, _ = await self._change(
            policy, lambda known: known.skipping(skip, forget_before=forgettable_before(skip.at))
        )
        kept = controls.skip_of(skip.occurrence) or skip
        detail = {"reason": kept.reason, "occurrence": format_instant(kept.occurrence)}
        await self._audit.add(policy, "occurrence_skipped", **kept.who, at=kept.at, detail=detail)
        return controls

    async def unskip(
        self, policy: str, occurrence: datetime, *, reason: str, at: datetime, **who: Unpack[Signature]
    ) -> ScheduleOverrides:
        """Remove the skip of an occurrence, if there is one."""
        controls, is_changed = await self._change(policy, lambda known: known.unskipping(occurrence))
        if is_changed:
            detail = {"reason": reason, "occurrence": format_instant(occurrence)}
            await self._audit.add(policy, "occurrence_skip_removed", **who, at=at, detail=detail)
        return controls

    async def request_run(
        self, policy: str, run_id: str, *, instead_of: str, reason: str, at: datetime, **who: Unpack[Signature]
    ) -> ScheduleOverrides:
        """Request a run, which replaces the previous request; of two concurrent ones, one counts."""
        controls, is_changed = await self._change(policy, lambda known: known.requesting(run_id, instead_of=instead_of))
        if is_changed:
            await self._audit.add(policy, "run_requested", **who, at=at, detail={"reason": reason, "runId": run_id})
        return controls

    async def reserve_window(self, policy: str, run_id: str, at: datetime) -> ScheduleOverrides:
        """A deferred run takes the windows that open from now on; nothing else is started in them."""
        controls, is_changed = await self._change(
            policy, lambda known: known.carrying(run_id, at, forget_before=forgettable_before(at))
        )
        if is_changed:
            await self._audit.add(
                policy, "run_deferred_to_next_window", actor="patchwave", at=at, detail={"runId": run_id}
            )
        return controls

    async def end_window_reservation(self, policy: str, run_id: str, at: datetime) -> ScheduleOverrides:
        """The deferred run has ended: later windows are free again."""
        controls, is_changed = await self._change(policy, lambda known: known.carried(run_id, at))
        if is_changed:
            await self._audit.add(
                policy, "window_reservation_ended", actor="patchwave", at=at, detail={"runId": run_id}
            )
        return controls

    async def _change(
        self, policy: str, decide: Callable[[ScheduleOverrides], ScheduleOverrides]
    ) -> tuple[ScheduleOverrides, bool]:
        known = ScheduleOverrides()
        async for _ in OptimisticRetry(f"the controls of policy {policy}"):
            row = await self._store.policies.get(_PARTITION, policy)
            known = ScheduleOverrides() if row is None else _read(row)
            wanted = decide(known)
            if wanted == known:
                break
            if await self._store.policies.put(_PARTITION, policy, pack(wanted.to_wire()), row):
                return wanted, True
        return known, False


def _read(row: Row) -> ScheduleOverrides:
    try:
        return unpack(ScheduleOverrides, row.columns)
    except Exception:
        # A damaged row may be a pause. A resume replaces the row.
        _LOG.exception("The overrides of the policy %s cannot be read: it counts as paused.", row.key)
        reason = "the stored overrides of its schedule cannot be read; resume it to start anew, and repeat skips"
        return ScheduleOverrides(pause=Pause(actor="patchwave", reason=reason, at=_LONG_AGO))
