"""OS disks and their snapshots: read, create, delete, and list.

The PUT of a snapshot is verified by reading the snapshot, whose name is known, not by polling the operation. Every
response of Azure, an error included, is a value.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

from patchwave.azure.clients import PerLoop
from patchwave.azure.compute import ComputeClients, Submission, submit
from patchwave.azure.credentials import open_credential
from patchwave.azure.pipeline import ArmPipeline
from patchwave.azure.resource_graph import open_resource_graph
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.documents import Json, object_or_none, parse_object
from patchwave.domain.core.ids import MachineId
from patchwave.domain.machine.snapshot import EXPIRING_QUERY, OsDisk, SnapshotId, SnapshotView
from patchwave.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

SNAPSHOT_API_VERSION = "2025-01-02"
_MACHINE_API_VERSION = "2025-04-01"


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


class Snapshots:
    """One client for all subscriptions of the identity; one instance per process and event loop."""

    def __init__(self, settings: Settings, credential: AsyncTokenCredential) -> None:
        self._settings = settings
        self._clients = ComputeClients(settings, credential)
        self._pipeline = ArmPipeline(settings, credential)

    async def read_os_disk(self, machine: MachineId) -> OsDisk | ArmFailure | None:
        """The machine's OS disk; ``None`` when no snapshot can be taken of it."""
        found = await self._get(machine.text, _MACHINE_API_VERSION)
        return found if isinstance(found, ArmFailure) else OsDisk.read(found)

    async def read_snapshot(self, snapshot: SnapshotId) -> SnapshotView | ArmFailure:
        """The current snapshot; a failure with status 404 when there is none."""
        found = await self._get(snapshot.text, SNAPSHOT_API_VERSION)
        return found if isinstance(found, ArmFailure) else SnapshotView.model_validate(found)

    async def take_snapshot(self, snapshot: SnapshotId, body: Json) -> Submission:
        """PUT the snapshot: a repeated one with the same name only changes its tags."""
        client = self._clients.of(snapshot.subscription_id)

        async def call(**options: Any) -> object:
            given: Any = body
            return await client.snapshots.begin_create_or_update(
                snapshot.resource_group,
                snapshot.name,
                given,
                polling=False,
                api_version=SNAPSHOT_API_VERSION,
                **options,
            )

        return await submit(call, self._clients.writes(snapshot.subscription_id, f"take {snapshot.text}"))

    async def delete_snapshot(self, snapshot: SnapshotId) -> Submission:
        """Delete the snapshot; a missing one counts as deleted."""
        client = self._clients.of(snapshot.subscription_id)

        async def call(**options: Any) -> object:
            return await client.snapshots.begin_delete(
                snapshot.resource_group, snapshot.name, polling=False, api_version=SNAPSHOT_API_VERSION, **options
            )

        return await submit(call, self._clients.writes(snapshot.subscription_id, f"delete {snapshot.text}"))

    async def list_expiring(self, skip_token: str = "") -> SnapshotPage:
        """One page of the snapshots with our tags, in all readable subscriptions.

        Resource Graph lags minutes behind: read the snapshot itself before changing it.
        """
        page = await open_resource_graph(self._settings).page(EXPIRING_QUERY, (), skip_token)
        snapshots: list[ListedSnapshot] = []
        for row in page.rows:
            tags = {key: str(value) for key, value in (object_or_none(row.get("tags")) or {}).items()}
            with suppress(ValueError):
                snapshots.append(ListedSnapshot(SnapshotId.parse(str(row.get("id"))), tags))
        return SnapshotPage(snapshots, page.skip_token, page.failure)

    async def close(self) -> None:
        """Close the connections."""
        await self._clients.close()
        await self._pipeline.close()

    async def _get(self, path: str, api_version: str) -> Json | ArmFailure:
        from azure.core.rest import HttpRequest

        url = f"{self._settings.manager_url}{path}?api-version={api_version}"
        reply = await self._pipeline.send(HttpRequest("GET", url))
        if reply.status != 200:
            return reply.to_failure()
        found = parse_object(reply.body)
        return ArmFailure(status=0, message="Resource Manager answered in no known form") if found is None else found


_clients = PerLoop(lambda settings: Snapshots(settings, open_credential(settings)))


def open_snapshots(settings: Settings | None = None) -> Snapshots:
    """The client of this process and event loop."""
    return _clients.get(settings)
