"""Patch settings of one machine: read, and change by PATCH.

A change is verified by reading the machine, not by polling the operation. The machine's state decides, a crash loses
nothing, and a repeated PATCH of the same settings does no harm.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from patchwave.azure.compute import ComputeClients, Submission
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.ids import MachineId
from patchwave.domain.fleet.patch_mode import WantedSettings
from patchwave.domain.fleet.patch_mode_change import MachineState, read_state
from patchwave.domain.policy.scope import OsType

_API_VERSION = "2025-04-01"


class PatchSettings(ComputeClients):
    """Patch settings of machines."""

    async def read(self, machine: MachineId) -> MachineState | ArmFailure:
        """The machine's current settings."""
        found = await self._read(f"{machine.text}?$expand=instanceView&api-version={_API_VERSION}")
        return found if isinstance(found, ArmFailure) else read_state(found)

    async def change(self, machine: MachineId, os_type: OsType, wanted: WantedSettings) -> Submission:
        """PATCH the machine; harmless when it has these settings already."""
        begin = self._compute(machine.subscription_id).virtual_machines.begin_update
        body: Any = wanted.to_azure(os_type)
        options: dict[str, Any] = {"polling": False, "api_version": _API_VERSION}
        call = partial(begin, machine.resource_group, machine.name, body, **options)
        return await self._write(machine.subscription_id, f"change {machine.folded}", call)
