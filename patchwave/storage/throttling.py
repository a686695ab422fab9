"""Throttling: until when nothing may be sent to an exhausted bucket of Azure (safety rule 7)."""

from __future__ import annotations

from datetime import datetime

from patchwave.domain.core.documents import parse_instant
from patchwave.storage.engine.entity_codec import pack
from patchwave.storage.engine.store import Repository

THROTTLED_BUCKETS = "throttled"
"""The partition of these rows, in the table of claims."""


class ThrottlingRepository(Repository):
    """One row per bucket (subscription and region). Every worker reads the same rows."""

    async def throttle(self, bucket: str, until: datetime) -> None:
        """Send nothing before ``until``; a later stored time stays."""
        stored = await self.until(bucket)
        if stored is None or stored < until:
            await self._store.claims.replace(THROTTLED_BUCKETS, bucket, pack({"until": until}))

    async def until(self, bucket: str) -> datetime | None:
        """The stored time, which may be past; ``None`` when the bucket was never throttled.

        Reads all rows with one request: they are few, and every start needs one.
        """
        rows = await self._store.claims.scan_coalesced(THROTTLED_BUCKETS)
        return next((parse_instant(row.columns.get("until")) for row in rows if row.key == bucket), None)


def bucket_key(subscription_id: str, location: str, *, is_arc: bool = False) -> str:
    """The key of the bucket for patch operations on this machine; no region limits those of Arc machines."""
    if is_arc:
        return f"{subscription_id.lower()}~arc~"
    region = "".join(character for character in location.lower() if character.isalnum())
    return f"{subscription_id.lower()}~{region}"
