"""Pauses: until when nothing may be sent to a budget of Azure that is used up (safety rule 7)."""

from __future__ import annotations

from datetime import datetime

from patchwave.domain.core.documents import parse_instant
from patchwave.storage.engine.entity_codec import pack
from patchwave.storage.engine.store import Repository

PAUSES = "pause"


class PauseRecords(Repository):
    """One row per budget; Azure keeps them per subscription and region. Every worker reads the same rows."""

    async def pause(self, budget: str, until: datetime) -> None:
        """Nothing may be sent before ``until``; a later end that is known already stays."""
        known = await self.paused_until(budget)
        if known is None or known < until:
            await self._store.claims.replace(PAUSES, budget, pack({"until": until}))

    async def paused_until(self, budget: str) -> datetime | None:
        """The end of the newest pause, which may be past; ``None`` when there never was one.

        All of them are read at once: there are few, and every start asks for one.
        """
        rows = await self._store.claims.shared_scan(PAUSES)
        return next((parse_instant(row.columns.get("until")) for row in rows if row.key == budget), None)


def budget_of(subscription_id: str, location: str) -> str:
    """The name of the budget that patch operations on this machine use."""
    region = "".join(character for character in location.lower() if character.isalnum())
    return f"{subscription_id.lower()}~{region}"
