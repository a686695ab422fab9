"""Evidence: everything stored about a run, as one list."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from patchwave.domain.core.documents import Document, Json
from patchwave.domain.core.ids import RunId
from patchwave.domain.core.patches import PatchRecord
from patchwave.domain.machine.at_most_once import AtMostOnceRecord
from patchwave.domain.planning.plan import ExcludedMachine, PlannedMachine
from patchwave.domain.runs.intent import Intent
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Run
from patchwave.storage.engine.entity_codec import get_json, pack, unpack
from patchwave.storage.engine.paging import Page, read_page, try_read
from patchwave.storage.engine.rows import Row
from patchwave.storage.engine.store import Repository
from patchwave.storage.errors import InvalidCursor

_RUNS = "runs"
_DOCUMENTS: dict[str, tuple[str, type[Document]]] = {
    "g~": ("guard", AtMostOnceRecord),
    "i~": ("intent", Intent),
    "m~": ("machine", MachineRecord),
    "o~": ("placement", PlannedMachine),
    "p~": ("patch", PatchRecord),
    "x~": ("excluded", ExcludedMachine),
}
_COMPLETION = "e~"
_SIGNED = ("asyncUrl", "locationUrl", "token")
"""Of intents and at-most-once rows: such a URL grants access to the operation, so it is not exported."""
_ROWS, _AUDIT = "r", "a"


class EvidenceRepository(Repository):
    """Evidence of runs."""

    async def list_page(self, run: Run, limit: int, cursor: str | None) -> Page[Json]:
        """Everything stored about a run, typed by ``record``: the run, its rows by key, its audit log.

        Leaves out signed URLs, and completions, which repeat what machines have.
        """
        part, behind = (cursor[0], cursor[1:] or None) if cursor else (_ROWS, None)
        if part not in (_ROWS, _AUDIT):
            raise InvalidCursor("not a cursor of this list")
        table, convert = (self._store.results, _evidence) if part == _ROWS else (self._store.audit, _audited)
        page = await read_page(table, run.id, convert, limit=limit, cursor=behind)
        found = [record for record in page.items if record is not None]
        if cursor is None:
            found.insert(0, {"record": "run", **run.to_wire()})
        if page.cursor is not None:
            return Page(found, part + page.cursor, page.unreadable)
        return Page(found, _AUDIT if part == _ROWS else None, page.unreadable)

    async def count(self, run_id: str) -> int:
        """How many records `list_page` has, including unreadable ones; from the keys alone."""
        results = self._store.results.scan(run_id, select=[])
        count = 1 + len([row.key async for row in results if not row.key.startswith(_COMPLETION)])
        return count + len([row.key async for row in self._store.audit.scan(run_id, select=[])])

    async def mark_exported(self, run_id: str, at: datetime) -> None:
        """Note in the run's row that all evidence was exported."""
        await self._store.runs.merge(_RUNS, RunId.parse(run_id).row_key, pack({"exportedAt": at}))


def _evidence(row: Row) -> Json | None:
    if row.key.startswith(_COMPLETION):
        return None
    prefix, _, rest = row.key.partition("~")
    known = _DOCUMENTS.get(f"{prefix}~")
    if known is None:
        kind = {"k": "pin", "r": "groups"}.get(prefix, prefix)
        return {"record": kind, **{name: _plain(row, name) for name in row.columns if name[-1] not in "0123456789"}}
    kind, document = known
    read = try_read("evidence", row, lambda row: unpack(document, row.columns).to_wire())
    # Damaged rows are evidence too, as they are stored.
    found = {name: value for name, value in (read or dict(row.columns)).items() if name not in _SIGNED}
    return {"record": kind, **({"machineKey": rest.partition("~")[0]} if kind == "patch" else {}), **found}


def _plain(row: Row, name: str) -> Any:
    """A column's value, or its JSON, which may continue in further columns."""
    value = row.columns[name]
    return get_json(row.columns, name) if isinstance(value, str) and value[:1] in ("{", "[") else value


def _audited(row: Row) -> Json | None:
    return {"record": "audit", **{name: _plain(row, name) for name in row.columns}}
