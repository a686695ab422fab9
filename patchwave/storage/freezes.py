"""Freezes: one row each, all in one partition, because every start reads all of them."""

from __future__ import annotations

import logging
from datetime import datetime
from typing import Unpack

from patchwave.domain.core.documents import parse_instant
from patchwave.domain.core.principal import Signature, Signed
from patchwave.domain.scheduling.freeze import DamagedFreeze, Freeze
from patchwave.storage.audit_log import AuditRepository
from patchwave.storage.engine.entity_codec import get_json, pack, unpack
from patchwave.storage.engine.rows import Row
from patchwave.storage.engine.store import OptimisticRetry, Repository, Store

_LOG = logging.getLogger("patchwave.storage")
_PARTITION = "freezes"


def audit_subject(name: str) -> str:
    """The audit subject of a freeze; no policy and no run can have such a name."""
    return f"freeze~{name}"


class FreezeRepository(Repository):
    """Freezes by name. Changes are audited under `audit_subject`."""

    def __init__(self, store: Store, audit: AuditRepository) -> None:
        super().__init__(store)
        self._audit = audit

    async def list_all(self) -> list[Freeze]:
        """All freezes, past and future, by name. One that cannot be read is a `DamagedFreeze`."""
        return [_freeze(row) for row in await self._store.policies.scan_coalesced(_PARTITION)]

    async def get(self, name: str) -> Freeze | None:
        """The freeze, or ``None``."""
        row = await self._store.policies.get(_PARTITION, name)
        return None if row is None else _freeze(row)

    async def put(self, freeze: Freeze, *, at: datetime, **who: Unpack[Signature]) -> bool:
        """Create or replace a freeze; whether it is new. An equal one changes nothing."""
        signed = Signed(**who)
        columns = pack({"document": freeze.to_wire(), **signed.to_wire(), "at": at})
        async for _ in OptimisticRetry(f"freeze {freeze.name}"):
            row = await self._store.policies.get(_PARTITION, freeze.name)
            if row is not None and _freeze(row) == freeze:
                # The first writer may have died before its audit entry.
                wrote = unpack(Signed, row.columns) if "actor" in row.columns else signed
                await self._audit_write(freeze, wrote, parse_instant(row.columns.get("at")) or at)
                return False
            if await self._store.policies.put(_PARTITION, freeze.name, columns, row):
                await self._audit_write(freeze, signed, at)
                return row is None
        return False

    async def _audit_write(self, freeze: Freeze, signed: Signed, at: datetime) -> None:
        subject = audit_subject(freeze.name)
        await self._audit.add(subject, "freeze_written", **signed.who, at=at, detail=freeze.to_wire())

    async def delete(self, name: str, *, reason: str, at: datetime, **who: Unpack[Signature]) -> bool:
        """Delete a freeze; ``False`` when there is none."""
        async for _ in OptimisticRetry(f"freeze {name}"):
            row = await self._store.policies.get(_PARTITION, name)
            if row is None:
                return False
            if await self._store.policies.delete(_PARTITION, name, row.etag):
                await self._audit.add(audit_subject(name), "freeze_deleted", **who, at=at, detail={"reason": reason})
                return True
        return False


def _freeze(row: Row) -> Freeze:
    try:
        return Freeze.model_validate(get_json(row.columns, "document"))
    except Exception:
        # Fail closed: an unreadable freeze may forbid patching tonight.
        _LOG.exception("The row of the freeze %s cannot be read: nothing starts until it is replaced.", row.key)
        return DamagedFreeze.of(row.key)
