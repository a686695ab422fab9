"""OS disks and their snapshots: read, create, delete, and list.

The PUT of a snapshot is verified by reading the snapshot, whose name is known, not by polling the operation. Every
response of Azure, an error included, is a value.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

from patchwave.azure.compute import ComputeClients, Submission
from patchwave.azure.resource_graph import ResourceGraph
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.documents import Json, object_or_none
from patchwave.domain.core.ids import MachineId
from patchwave.domain.machine.snapshot import EXPIRING_QUERY, OsDisk, SnapshotId, SnapshotView

SNAPSHOT_API_VERSION = "2025-01-02"
_MACHINE_API_VERSION = "2025-04-01"
_OPTIONS: dict[str, Any] = {"polling": False, "api_version": SNAPSHOT_API_VERSION}


class ListedSnapshot(NamedTuple):
    """A snapshot and its tags, some minutes old, from Resource Graph."""

    id: SnapshotId
    tags: dict[str, str]


@dataclass(frozen=True, slots=True)
class SnapshotPage:
    """Snapshots with our tags, the first to expire first; ``skip_token`` is empty after the last page."""

    snapshots: list[ListedSnapshot] = field(default_factory=list[ListedSnapshot])
    skip_token: str = ""
    failure: ArmFailure | None = None


class Snapshots(ComputeClients):
    """OS disks and snapshots."""

    async def read_os_disk(self, machine: MachineId) -> OsDisk | ArmFailure | None:
        """The machine's OS disk; ``None`` when no snapshot can be taken of it."""
        found = await self._read(f"{machine.text}?api-version={_MACHINE_API_VERSION}")
        return found if isinstance(found, ArmFailure) else OsDisk.read(found)

    async def read_snapshot(self, snapshot: SnapshotId) -> SnapshotView | ArmFailure:
        """The current snapshot; a failure with status 404 when there is none."""
        found = await self._read(f"{snapshot.text}?api-version={SNAPSHOT_API_VERSION}")
        return found if isinstance(found, ArmFailure) else SnapshotView.model_validate(found)

    async def take_snapshot(self, snapshot: SnapshotId, body: Json) -> Submission:
        """PUT the snapshot: a repeated one with the same name only changes its tags."""
        begin: Any = self._compute(snapshot.subscription_id).snapshots.begin_create_or_update
        call = partial(begin, snapshot.resource_group, snapshot.name, body, **_OPTIONS)
        return await self._write(snapshot.subscription_id, f"take {snapshot.text}", call)

    async def delete_snapshot(self, snapshot: SnapshotId) -> Submission:
        """Delete the snapshot; a missing one counts as deleted."""
        begin = self._compute(snapshot.subscription_id).snapshots.begin_delete
        call = partial(begin, snapshot.resource_group, snapshot.name, **_OPTIONS)
        return await self._write(snapshot.subscription_id, f"delete {snapshot.text}", call)


async def list_expiring(graph: ResourceGraph, skip_token: str = "") -> SnapshotPage:
    """One page of the snapshots with our tags, in all readable subscriptions.

    Resource Graph lags minutes behind: read the snapshot itself before changing it.
    """
    page = await graph.page(EXPIRING_QUERY, (), skip_token)
    snapshots: list[ListedSnapshot] = []
    for row in page.rows:
        tags = {key: str(value) for key, value in (object_or_none(row.get("tags")) or {}).items()}
        with suppress(ValueError):
            snapshots.append(ListedSnapshot(SnapshotId.parse(str(row.get("id"))), tags))
    return SnapshotPage(snapshots, page.skip_token, page.failure)
