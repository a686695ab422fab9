"""The audit log: one append-only partition per run, policy, freeze or configuration."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, cast

from patchwave.domain.core.documents import format_instant
from patchwave.storage.engine.entity_codec import clean, get_json, pack, put_text
from patchwave.storage.engine.paging import Page, read_page, try_read
from patchwave.storage.engine.rows import Row
from patchwave.storage.engine.store import Repository

_NOTHING: Mapping[str, object] = MappingProxyType({})


class AuditRepository(Repository):
    """Append-only entries: commands, who gave them, and their effects."""

    async def add(
        self,
        subject: str,
        action: str,
        *,
        actor: str,
        actor_id: str = "",
        proven: bool = False,
        at: datetime,
        detail: Mapping[str, object] = _NOTHING,
    ) -> None:
        """Add an entry. The same entry with the same time is written once.

        ``actor``, ``actor_id`` and ``proven`` are those of `patchwave.domain.core.principal.Signed`.

        Query strings and tokens are removed from texts; callers must not pass secrets all the same.
        """
        columns = pack({"at": at, "action": action, "actor": actor, "actorId": actor_id, "proven": proven})
        put_text(columns, "detail", json.dumps(_cleaned(detail), ensure_ascii=False, default=str))
        content = json.dumps(columns, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace")
        key = f"{format_instant(at)}~{hashlib.sha256(content).hexdigest()[:12]}"
        await self._store.audit.insert(subject, key, columns)

    async def list_page(self, subject: str, limit: int, cursor: str | None) -> Page[dict[str, Any]]:
        """Entries of a subject, oldest first."""
        return await read_page(self._store.audit, subject, _line, limit=limit, cursor=cursor)

    async def lines(self, subject: str) -> AsyncGenerator[dict[str, Any]]:
        """All entries of a subject, oldest first."""
        async for row in self._store.audit.scan(subject):
            line = try_read(subject, row, _line)
            if line is not None:
                yield line


def _cleaned(value: Any) -> Any:
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        items = cast("Mapping[str, Any]", value).items()
        return {str(name): _cleaned(item) for name, item in items}
    if isinstance(value, list | tuple):
        return [_cleaned(item) for item in cast("Sequence[Any]", value)]
    return value


def _line(row: Row) -> dict[str, Any]:
    line = {name: row.columns[name] for name in ("at", "action", "actor")}
    # Entries from before both fields existed have neither.
    line |= {"actorId": row.columns.get("actorId", ""), "proven": bool(row.columns.get("proven", False))}
    if row.columns.get("detailTruncated"):
        return line | {"detail": row.columns["detail"]}
    return line | {"detail": get_json(row.columns, "detail")}
