"""Assessments that events have asked for and that no run holds yet."""

from __future__ import annotations

from collections.abc import Iterable

from patchwave.domain.scheduling.event_requests import EventRequest
from patchwave.storage.engine.entity_codec import pack, unpack
from patchwave.storage.engine.paging import KeyRange, try_read
from patchwave.storage.engine.rows import Row
from patchwave.storage.engine.store import Repository, Store
from patchwave.storage.idempotency import IdempotencyRepository

EVENT_REQUESTS = "asked"
"""Partition of the table of claims; the row key is ``{policy}~{key of the request}``."""
_TAKEN = "event"


class EventRequestRepository(Repository):
    """A request is a row until a run takes it; its idempotency key stays, so that a repetition finds the run."""

    def __init__(self, store: Store, idempotency: IdempotencyRepository) -> None:
        super().__init__(store)
        self._idempotency = idempotency

    async def add(self, request: EventRequest) -> bool:
        """Write the request down; ``False`` when a run has held it before. A repetition changes nothing."""
        if await self._idempotency.get(_TAKEN, request.key) is not None:
            return False
        columns = pack(request.to_wire(), exact=["machineId"])
        await self._store.claims.insert(EVENT_REQUESTS, _row_key(request), columns)
        return True

    async def list_open(self, policy: str = "") -> list[EventRequest]:
        """What no run holds yet, of one policy or of all, by policy."""
        span = KeyRange(EVENT_REQUESTS, f"{policy}~") if policy else None
        rows = (
            self._store.claims.scan(EVENT_REQUESTS, first=span.first, end=span.end)
            if span is not None
            else self._store.claims.scan(EVENT_REQUESTS)
        )
        found = [try_read(row.key, row, _request) async for row in rows]
        return [request for request in found if request is not None]

    async def assign(self, requests: Iterable[EventRequest], run_id: str) -> None:
        """A run holds these: bind each to it, then remove its row. Repeated after a crash, it does the rest."""
        for request in requests:
            await self._idempotency.reserve(_TAKEN, request.key, run_id, request.at)
            await self._remove(request)

    async def remove(self, requests: Iterable[EventRequest]) -> None:
        """Remove requests of a policy that is gone, or does not ask for events any more."""
        for request in requests:
            await self._remove(request)

    async def _remove(self, request: EventRequest) -> None:
        row = await self._store.claims.get(EVENT_REQUESTS, _row_key(request), [])
        if row is not None:
            await self._store.claims.delete(EVENT_REQUESTS, row.key, row.etag)


def _request(row: Row) -> EventRequest:
    return unpack(EventRequest, row.columns)


def _row_key(request: EventRequest) -> str:
    return f"{request.policy}~{request.key}"
