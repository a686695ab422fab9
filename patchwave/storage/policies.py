"""Stored policies: one row each, with a version number and a stable ETag."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

from patchwave.domain.core.documents import format_instant, parse_instant
from patchwave.storage.engine.entity_codec import get_json, pack
from patchwave.storage.engine.rows import Row
from patchwave.storage.engine.store import OptimisticRetry, Repository
from patchwave.storage.errors import PreconditionFailed

_LOG = logging.getLogger("patchwave.storage")
_PARTITION = "policies"
_LONG_AGO = datetime(2, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class StoredPolicy:
    """A stored policy. ``version`` counts the changes since it was created, from 1.

    ``author`` wrote this version; ``author_id`` is the object id, empty without sign-in.
    """

    name: str
    document: dict[str, Any]
    version: int
    etag: str
    updated_at: datetime
    author: str = ""
    author_id: str = ""
    digest: str = ""
    replaced: dict[str, Any] | None = None
    """The document before this change; only set by `PolicyRepository.put`."""
    is_unchanged: bool = False
    """Whether an equal document was stored already; only set by `PolicyRepository.put`."""


class PolicyRepository(Repository):
    """Policies by name."""

    async def get(self, name: str) -> StoredPolicy | None:
        """The policy, or ``None``."""
        row = await self._store.policies.get(_PARTITION, name)
        return None if row is None else _read(row)

    async def list_all(self) -> list[StoredPolicy]:
        """All policies, by name."""
        return [_read(row) async for row in self._store.policies.scan(_PARTITION)]

    async def put(
        self,
        name: str,
        document: dict[str, Any],
        *,
        if_match: str | None,
        if_none_match: bool,
        at: datetime,
        author: str = "",
        author_id: str = "",
        digest: str = "",
    ) -> StoredPolicy:
        """Create or replace a policy. An equal document changes nothing, unless the stored one has no author.

        Args:
            name: a valid policy name.
            document: its JSON form.
            if_match: header ``If-Match``: only if the stored policy has one of these ETags.
            if_none_match: header ``If-None-Match: *``: only if the policy does not exist.
            at: the time of the change.
            author: the caller's display name.
            author_id: the caller's object id; empty without sign-in.
            digest: of the policy, as runs store it.

        Raises:
            PreconditionFailed: the condition does not hold.
            RecordTooLarge: the policy does not fit into a row.
        """
        async for _ in OptimisticRetry(f"policy {name}"):
            row = await self._store.policies.get(_PARTITION, name)
            _check(row, if_match)
            if row is not None and if_none_match:
                raise PreconditionFailed(f"there is a policy {name} already")
            before = None if row is None else _read(row)
            if before is not None and before.document == document and (before.author_id or not author_id):
                # An equal document writes nothing: its author stays accountable for it.
                return replace(before, is_unchanged=True)
            version = 1 if before is None else before.version + 1
            wrote = {"author": author, "authorId": author_id, "digest": digest}
            columns = pack({"version": version, "updatedAt": at, "document": document, **wrote})
            if await self._store.policies.put(_PARTITION, name, columns, row):
                return replace(_stored(Row(name, columns, "")), replaced=None if before is None else before.document)
        raise PreconditionFailed(f"policy {name} keeps changing")

    async def delete(self, name: str, *, if_match: str | None) -> bool:
        """Delete a policy; ``False`` when there is none.

        Raises:
            PreconditionFailed: ``if_match`` has other ETags.
        """
        async for _ in OptimisticRetry(f"policy {name}"):
            row = await self._store.policies.get(_PARTITION, name)
            if row is None:
                return False
            _check(row, if_match)
            if await self._store.policies.delete(_PARTITION, name, row.etag):
                return True
        return False


def _check(row: Row | None, if_match: str | None) -> None:
    if if_match is None:
        return
    asked = {tag.strip() for tag in if_match.split(",")}
    if row is None or ("*" not in asked and _read(row).etag not in asked):
        raise PreconditionFailed("the policy is not the one you have read")


def _read(row: Row) -> StoredPolicy:
    """The policy of a row; of a damaged row only the name, which no reader accepts as a policy."""
    try:
        return _stored(row)
    except Exception:
        _LOG.exception("The row of the policy %s cannot be read.", row.key)
        return StoredPolicy(row.key, {"name": row.key}, 0, '"0-000000000000"', _LONG_AGO)


def _stored(row: Row) -> StoredPolicy:
    document: dict[str, Any] = get_json(row.columns, "document") or {}
    updated = parse_instant(row.columns["updatedAt"])
    if updated is None:
        raise ValueError(f"the row of policy {row.key} is damaged")
    version = int(row.columns["version"])
    # Our own strong ETag: the service's is weak, which RFC 9110 forbids in If-Match. A version alone would repeat
    # after a policy was deleted and created again.
    content = json.dumps([format_instant(updated), document], ensure_ascii=False, sort_keys=True)
    digest = hashlib.sha256(content.encode("utf-8", "replace")).hexdigest()[:12]
    return StoredPolicy(
        row.key,
        document,
        version,
        f'"{version}-{digest}"',
        updated,
        author=str(row.columns.get("author", "")),
        author_id=str(row.columns.get("authorId", "")),
        digest=str(row.columns.get("digest", "")),
    )
