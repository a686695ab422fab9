"""The patches of a machine in a run: one row each. The machine's own row has their number."""

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
"""Column of a machine's row: how many patch rows count. Further rows are left over from a longer list."""
_FLEETS_KEPT = 10_000


def patch_span(row: Row) -> tuple[str, str]:
    """The first row key of a machine's valid patches, and the first key after them."""
    prefix = _prefix(row)
    return prefix, f"{prefix}{patch_count(row):05d}"


def patch_count(row: Row) -> int:
    """The number of patches, by the machine's row."""
    return int(row.columns.get(PATCH_COUNT, 0))


def patch_changes(row: Row, patches: Sequence[PatchRecord]) -> list[Change]:
    """Changes that write the machine's patches."""
    prefix = _prefix(row)
    return [Change("replace", f"{prefix}{number:05d}", pack(patch.to_wire())) for number, patch in enumerate(patches)]


class PatchMemory:
    """A cache of patches that this process has written, by the version of the machine's row.

    Patches change together with columns of that row, and users of the cache write under the row's ETag, which detects
    writes by other processes. A cached list is compressed to some 2 KB, so that all machines of a run fit between
    assessment and installation.
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
        """The patches of the machine's row; ``None`` when they must be read."""
        basis, packed = self._lists.get((run_id, row.key), (0, b""))
        if not packed or basis != _basis(row):
            return None
        return [PatchRecord.model_validate(wire) for wire in json.loads(zlib.decompress(packed))]


def merge_patches(known: Sequence[PatchRecord], handled: Sequence[PatchRecord]) -> list[PatchRecord]:
    """The assessment's patches, updated by the installation's, followed by those that only the installation names.

    Patches are equal by id, else by name, version and KB number. Empty fields of the installation do not replace the
    assessment's.
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
    """A value that changes with every write of patches."""
    return hash(tuple(row.columns.get(name) for name in (PATCH_COUNT, "assessment", "installation")))
