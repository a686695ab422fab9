"""The patches of a machine in a run: one row each, behind the machine's own row, which says how many count."""

from __future__ import annotations

import json
import zlib
from collections import OrderedDict
from collections.abc import Sequence

from patchwave.domain.core.patches import PatchRecord
from patchwave.storage.engine.entity_codec import pack
from patchwave.storage.engine.rows import Change, Row

MACHINES = "m~"
"""Row key prefix of a machine: ``m~{machineKey}``."""
PATCHES = "p~"
"""Row key prefix of a patch: ``p~{machineKey}~{number}``."""
PATCH_COUNT = "patchRows"
"""The column of a machine's row that says how many patch rows count; those behind are left over from a longer list."""
_FLEETS_KEPT = 10_000


def patch_span(row: Row) -> tuple[str, str]:
    """The first row key of a machine's patches that count, and the one behind the last."""
    prefix = _prefix(row)
    return prefix, f"{prefix}{patch_count(row):05d}"


def patch_count(row: Row) -> int:
    """How many patches a machine's row says that there are."""
    return int(row.columns.get(PATCH_COUNT, 0))


def patch_changes(row: Row, patches: Sequence[PatchRecord]) -> list[Change]:
    """Write the patches of the machine in that row."""
    prefix = _prefix(row)
    return [Change("replace", f"{prefix}{number:05d}", pack(patch.to_wire())) for number, patch in enumerate(patches)]


class PatchMemory:
    """The patches that this process has written, by the machine's row of that moment.

    They change together with columns of that row. Whoever uses them writes under the row's ETag, so that patches which
    another process has written since are found out by the row. Between assessment and installation all machines of a
    run are kept here, so each list is compressed to some 2 KB.
    """

    def __init__(self, size: int = _FLEETS_KEPT) -> None:
        self._size = size
        self._lists: OrderedDict[tuple[str, str], tuple[int, bytes]] = OrderedDict()

    def put(self, run_id: str, row: Row, patches: Sequence[PatchRecord]) -> None:
        """The machine's row and these patches were written together."""
        text = json.dumps([patch.to_wire() for patch in patches], ensure_ascii=False)
        self._lists[run_id, row.key] = (_basis(row), zlib.compress(text.encode("utf-8", "surrogatepass"), 1))
        self._lists.move_to_end((run_id, row.key))
        if len(self._lists) > self._size:
            self._lists.popitem(last=False)

    def get(self, run_id: str, row: Row) -> list[PatchRecord] | None:
        """The patches that go with the machine's row; ``None`` when they have to be read."""
        basis, packed = self._lists.get((run_id, row.key), (0, b""))
        if not packed or basis != _basis(row):
            return None
        return [PatchRecord.from_wire(wire) for wire in json.loads(zlib.decompress(packed))]


def merge_patches(known: Sequence[PatchRecord], handled: Sequence[PatchRecord]) -> list[PatchRecord]:
    """What the assessment found, updated by what the installation did, then what only the latter names.

    A patch is the same one by its id, else by name, version and KB number. Fields that the installation leaves empty
    keep what the assessment said.
    """
    merged = {_identity(patch): patch for patch in known}
    for patch in handled:
        before = merged.get(_identity(patch))
        if before is None:
            merged[_identity(patch)] = patch
        else:
            said = {name: getattr(patch, name) for name in PatchRecord.model_fields if getattr(patch, name)}
            merged[_identity(patch)] = before.model_copy(update=said)
    return list(merged.values())


def _identity(patch: PatchRecord) -> tuple[str, ...]:
    return (patch.patch_id,) if patch.patch_id else (patch.name, patch.version, patch.kb_id)


def _prefix(row: Row) -> str:
    return f"{PATCHES}{row.key.removeprefix(MACHINES)}~"


def _basis(row: Row) -> int:
    """Changes with every write of patches."""
    return hash(tuple(row.columns.get(name) for name in (PATCH_COUNT, "assessment", "installation")))
