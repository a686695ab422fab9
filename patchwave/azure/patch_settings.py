"""Patch settings of one machine: read, and change by PATCH.

A change is verified by reading the machine, not by polling the operation. The machine's state decides, a crash loses
nothing, and a repeated PATCH of the same settings does no harm.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from patchwave.azure.clients import PerLoop
from patchwave.azure.compute import ComputeClients, Submission, submit
from patchwave.azure.credentials import open_credential
from patchwave.azure.pipeline import ArmPipeline
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.documents import parse_object
from patchwave.domain.core.ids import MachineId
from patchwave.domain.fleet.patch_mode import WantedSettings
from patchwave.domain.fleet.patch_mode_change import MachineState, read_state
from patchwave.domain.policy.scope import OsType
from patchwave.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

_API_VERSION = "2025-04-01"


class PatchSettings:
    """One client for all subscriptions of the identity; one instance per process and event loop."""

    def __init__(self, settings: Settings, credential: AsyncTokenCredential) -> None:
        self._settings = settings
        self._clients = ComputeClients(settings, credential)
        self._pipeline = ArmPipeline(settings, credential)

    async def read(self, machine: MachineId) -> MachineState | ArmFailure:
        """The machine's current settings."""
        from azure.core.rest import HttpRequest

        url = f"{self._settings.manager_url}{machine.text}?$expand=instanceView&api-version={_API_VERSION}"
        reply = await self._pipeline.send(HttpRequest("GET", url))
        if reply.status != 200:
            return reply.to_failure()
        found = parse_object(reply.body)
        if found is None:
            return ArmFailure(status=0, message="Resource Manager answered the machine in no known form")
        return read_state(found)

    async def change(self, machine: MachineId, os_type: OsType, wanted: WantedSettings) -> Submission:
        """PATCH the machine; harmless when it has these settings already."""
        client = self._clients.of(machine.subscription_id)

        async def call(**options: Any) -> object:
            body: Any = wanted.to_azure(os_type)
            return await client.virtual_machines.begin_update(
                machine.resource_group, machine.name, body, polling=False, api_version=_API_VERSION, **options
            )

        return await submit(call, self._clients.writes(machine.subscription_id, f"change {machine.folded}"))

    async def close(self) -> None:
        """Close the connections."""
        await self._clients.close()
        await self._pipeline.close()


_clients = PerLoop(lambda settings: PatchSettings(settings, open_credential(settings)))


def open_patch_settings(settings: Settings | None = None) -> PatchSettings:
    """The client of this process and event loop."""
    return _clients.get(settings)
