"""Machines that may come back while their window is open. Rows are written with their outcomes, in one transaction."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from patchwave.domain.runs.catch_up import CatchUpRequest
from patchwave.storage.engine.entity_codec import unpack
from patchwave.storage.engine.paging import try_read
from patchwave.storage.engine.rows import Change, Conflict, Row
from patchwave.storage.engine.store import Repository
from patchwave.storage.engine.table import throttled_batches
from patchwave.storage.machine_history import ALL_RUNS, CATCH_UP


class CatchUpRepository(Repository):
    """One row per machine, the newest."""

    async def list_open(self) -> list[CatchUpRequest]:
        """All requests, in key order. One scan of these rows alone."""
        rows = self._store.machines.scan(ALL_RUNS, prefix=CATCH_UP)
        found = [try_read(ALL_RUNS, row, _request) async for row in rows]
        return [request for request in found if request is not None]

    async def get(self, machine_key: str) -> CatchUpRequest | None:
        """The request of a machine, or ``None``."""
        row = await self._store.machines.get(ALL_RUNS, CATCH_UP + machine_key)
        return None if row is None else try_read(ALL_RUNS, row, _request)

    async def remove(self, requests: Iterable[CatchUpRequest]) -> None:
        """Remove requests; one that a newer run has replaced stays, until the next call knows that."""
        wanted = {request.key: request for request in requests}
        if not wanted:
            return
        rows = [row async for row in self._store.machines.scan(ALL_RUNS, prefix=CATCH_UP)]
        found = [row for row in rows if wanted.get(row.key.removeprefix(CATCH_UP)) == try_read(ALL_RUNS, row, _request)]
        async for batch in throttled_batches([Change("delete", row.key, {}, row.etag) for row in found]):
            # Replaced at this moment: the others of the batch go with the next call.
            with suppress(Conflict):
                await self._store.machines.apply(ALL_RUNS, batch)


def _request(row: Row) -> CatchUpRequest:
    return unpack(CatchUpRequest, {"key": row.key.removeprefix(CATCH_UP), **row.columns})
