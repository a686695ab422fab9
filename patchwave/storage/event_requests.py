"""Assessments that events requested and that no run has taken yet."""

from __future__ import annotations

from collections.abc import Iterable

from patchwave.domain.scheduling.event_requests import EventRequest
from patchwave.storage.engine.entity_codec import pack, unpack
from patchwave.storage.engine.paging import try_read
from patchwave.storage.engine.rows import Row
from patchwave.storage.engine.store import Repository, Store
from patchwave.storage.idempotency import IdempotencyRepository

EVENT_REQUESTS = "eventRequests"
"""Partition in the table of claims; the row key is ``{policy}~{key of the request}``."""
_TAKEN = "event"


class EventRequestRepository(Repository):
    """One row per open request. Its idempotency key outlives the row, so that a repeated event finds the run."""

    def __init__(self, store: Store, idempotency: IdempotencyRepository) -> None:
        super().__init__(store)
        self._idempotency = idempotency

    async def add(self, request: EventRequest) -> bool:
        """Store the request; ``False`` when a run has taken it before. Safe to repeat."""
        if await self._idempotency.get(_TAKEN, request.key) is not None:
            return False
        columns = pack(request.to_wire(), exact=["machineId"])
        await self._store.claims.insert(EVENT_REQUESTS, _row_key(request), columns)
        return True

    async def list_open(self, policy: str = "") -> list[EventRequest]:
        """Open requests of one policy, or of all, ordered by policy."""
        rows = self._store.claims.scan(EVENT_REQUESTS, prefix=f"{policy}~" if policy else "")
        found = [try_read(row.key, row, _request) async for row in rows]
        return [request for request in found if request is not None]

    async def assign(self, requests: Iterable[EventRequest], run_id: str) -> None:
        """Bind each request to the run, then remove its row. Safe to repeat after a crash."""
        for request in requests:
            await self._idempotency.reserve(_TAKEN, request.key, run_id, request.at)
            await self._store.claims.remove(EVENT_REQUESTS, _row_key(request))

    async def remove(self, requests: Iterable[EventRequest]) -> None:
        """Remove requests of a policy that was deleted, or no longer reacts to events."""
        for request in requests:
            await self._store.claims.remove(EVENT_REQUESTS, _row_key(request))


def _request(row: Row) -> EventRequest:
    return unpack(EventRequest, row.columns)


def _row_key(request: EventRequest) -> str:
    return f"{request.policy}~{request.key}"
