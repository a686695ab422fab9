"""Claims, which make a request happen once, and the audit log, which is only ever added to."""

from __future__ import annotations

import hashlib
import json
from collections.abc import AsyncGenerator, Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from typing import Any, cast

from patchwave.domain.core.documents import format_instant
from patchwave.storage.engine.entity_codec import clean, get_json, pack, put_text
from patchwave.storage.engine.paging import KeyRange, Page, read_page, try_read
from patchwave.storage.engine.rows import Row
from patchwave.storage.engine.store import Repository
from patchwave.storage.errors import RecordMissing

CLAIMS = ("idempotency-key", "delivery", "signature", "event", "new_machine", "retry")
"""The kinds of keys, each a partition: what is not named here would never be removed."""
_NOTHING: Mapping[str, object] = MappingProxyType({})


class JournalRecords(Repository):
    """Who asked for what, and what was done about it."""

    async def claim(self, kind: str, key: str, value: str, at: datetime) -> tuple[str, bool]:
        """Bind a key to a value, once and for all: the value that is bound, and whether this call bound it.

        Only a digest of the key is stored, so that a key may be a secret, have any length and any characters.

        Raises:
            ValueError: no such kind.
        """
        if kind not in CLAIMS:
            raise ValueError(f"{kind} is no kind of claim")
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        columns = pack({"value": value, "at": at}, exact=["value"])
        if await self._store.claims.insert(kind, digest, columns):
            return value, True
        row = await self._store.claims.get(kind, digest)
        if row is None:
            raise RecordMissing("a claim was removed while it was read")
        return str(row.columns["value"]), False

    async def claimed(self, kind: str, key: str) -> str | None:
        """What a key is bound to; ``None`` while it is not."""
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).hexdigest()
        row = await self._store.claims.get(kind, digest)
        return None if row is None else str(row.columns["value"])

    async def audit(
        self,
        subject: str,
        action: str,
        *,
        by: str,
        by_id: str = "",
        proven: bool = False,
        at: datetime,
        detail: Mapping[str, object] = _NOTHING,
    ) -> None:
        """Add one line about a run or a policy. The same line of the same moment is written once.

        ``by``, ``by_id`` and ``proven`` are those of `patchwave.domain.core.principal.Signed`.

        Texts are cleaned of query strings and tokens; callers must not pass secrets all the same.
        """
        columns = pack({"at": at, "action": action, "by": by, "byId": by_id, "proven": proven})
        put_text(columns, "detail", json.dumps(_cleaned(detail), ensure_ascii=False, default=str))
        content = json.dumps(columns, ensure_ascii=False, sort_keys=True).encode("utf-8", "replace")
        key = f"{format_instant(at)}~{hashlib.sha256(content).hexdigest()[:12]}"
        await self._store.audit.insert(subject, key, columns)

    async def list_audit(self, subject: str, limit: int, cursor: str | None) -> Page[dict[str, Any]]:
        """The lines about a run or a policy, oldest first.

        Raises:
            InvalidCursor: the cursor is not one of this list.
        """
        return await read_page(self._store.audit, KeyRange(subject), _line, limit=limit, cursor=cursor)

    async def each_audit_line(self, subject: str) -> AsyncGenerator[dict[str, Any]]:
        """All lines about a run or a policy, oldest first."""
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
    line = {name: row.columns[name] for name in ("at", "action", "by")}
    # Lines from before both were kept have neither.
    line |= {"byId": row.columns.get("byId", ""), "proven": bool(row.columns.get("proven", False))}
    if row.columns.get("detailTruncated"):
        return line | {"detail": row.columns["detail"]}
    return line | {"detail": get_json(row.columns, "detail")}
