"""Azure Resource Manager for machines: read, assess, install, poll, power.

The compute SDK makes the changing calls (`patchwave.azure.compute`); what differs on Arc machines is in
`patchwave.azure.hybrid_compute`. Nothing here waits for an operation; every response of Azure, an error included, is a
value.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from time import monotonic
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5

from patchwave.azure.compute import ComputeClients, Submission, submit
from patchwave.azure.hybrid_compute import HybridMachines
from patchwave.azure.rate_limiter import open_rate_limits
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.install_request import InstallParameters
from patchwave.domain.azure.instance_view import MachineView, PatchStatusView
from patchwave.domain.azure.operation import (
    PollReading,
    PollState,
    UnsafeUrl,
    check_operation_url,
    read_location,
    read_operation,
)
from patchwave.domain.core.ids import MachineId
from patchwave.domain.machine.health import Moment
from patchwave.domain.runs.intent import Intent
from patchwave.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential

PATCH_API_VERSION = "2025-04-01"
"""API version of both patch calls; their operation URLs contain it."""
_PATCH_OPTIONS: dict[str, Any] = {"polling": False, "api_version": PATCH_API_VERSION}
_READ_API_VERSION = "2025-04-01"
_SUBSCRIPTIONS_API_VERSION = "2022-12-01"
_KEPT_POLLS = 2
_MAX_KEPT = 1_000
"""Cached views for a second reader: enough for all machines that a worker has between two steps."""


class ResourceManager(ComputeClients):
    """Virtual machines and Arc machines."""

    def __init__(self, settings: Settings, credential: AsyncTokenCredential) -> None:
        super().__init__(settings, credential)
        self._arc = HybridMachines(settings, self._pipeline)
        self._kept: dict[tuple[str, Moment | None], tuple[float, MachineView]] = {}

    async def read_machine(
        self,
        machine: MachineId,
        *,
        keep_for: Moment | None = None,
        kept_for: Moment | None = None,
        settles: bool = False,
    ) -> MachineView | ArmFailure:
        """The machine with its instance view, by one read of the low-cost bucket.

        Args:
            machine: virtual machine or Arc machine, which has a view of its own.
            keep_for: cache the view for the health check at that moment of the run.
            kept_for: take the view cached for that moment, once, if it is younger than two poll intervals.
            settles: whether the view decides what became of a call. Of an Arc machine, its newest installation is then
                read now, or that is the failure.
        """
        kept = self._kept.pop((machine.folded, kept_for), None)
        if kept is not None and monotonic() - kept[0] < self._settings.poll_seconds * _KEPT_POLLS:
            return kept[1]
        if machine.is_arc:
            view = await self._arc.read(machine, settles=settles)
        else:
            view = await self._read_machine(machine, MachineView)
        if keep_for is not None and isinstance(view, MachineView):
            self._kept[machine.folded, keep_for] = (monotonic(), view)
            if len(self._kept) > _MAX_KEPT:
                self._kept.pop(next(iter(self._kept)))
        return view

    async def read_patch_status(self, machine: MachineId) -> PatchStatusView | ArmFailure:
        """The same document with the patch extension, patch settings and the state of enablement."""
        return await self._read_machine(machine, PatchStatusView)

    async def _read_machine[View: MachineView](self, machine: MachineId, view: type[View]) -> View | ArmFailure:
        found = await self._read(f"{machine.text}?$expand=instanceView&api-version={_READ_API_VERSION}")
        return found if isinstance(found, ArmFailure) else view.model_validate(found)

    async def assess(self, machine: MachineId, location: str, intent: Intent) -> Submission:
        """POST assessPatches, rate-limited. ``intent`` has the request id, which names the attempt in Azure's log."""
        if machine.is_arc:
            return await self._arc.assess(machine, _request_id(intent))
        begin = self._compute(machine.subscription_id).virtual_machines.begin_assess_patches
        call = partial(begin, machine.resource_group, machine.name, **_PATCH_OPTIONS)
        return await self._submit_patches(machine, location, intent, call)

    async def install(
        self, machine: MachineId, location: str, parameters: InstallParameters, intent: Intent
    ) -> Submission:
        """POST installPatches, rate-limited. The caller has declared the intent, which prevents a second one."""
        if machine.is_arc:
            return await self._arc.install(machine, parameters, _request_id(intent))
        begin = self._compute(machine.subscription_id).virtual_machines.begin_install_patches
        body: Any = parameters.to_azure()
        call = partial(begin, machine.resource_group, machine.name, body, **_PATCH_OPTIONS)
        return await self._submit_patches(machine, location, intent, call)

    async def start(self, machine: MachineId) -> Submission:
        """Start the machine; harmless when it runs already."""
        begin = self._compute(machine.subscription_id).virtual_machines.begin_start
        call = partial(begin, machine.resource_group, machine.name, polling=False)
        return await self._write(machine.subscription_id, f"start {machine.folded}", call)

    async def restart(self, machine: MachineId) -> Submission:
        """Restart the machine, which must be running; a second call restarts it again."""
        begin = self._compute(machine.subscription_id).virtual_machines.begin_restart
        call = partial(begin, machine.resource_group, machine.name, polling=False)
        return await self._write(machine.subscription_id, f"restart {machine.folded}", call)

    async def stop(self, machine: MachineId, *, deallocate: bool) -> Submission:
        """Stop the machine, and release its hardware with ``deallocate``."""
        machines = self._compute(machine.subscription_id).virtual_machines
        begin: Any = machines.begin_deallocate if deallocate else machines.begin_power_off
        call = partial(begin, machine.resource_group, machine.name, polling=False)
        return await self._write(machine.subscription_id, f"stop {machine.folded}", call)

    async def poll(self, machine: MachineId, async_url: str, location_url: str) -> PollReading:
        """Poll an operation once: the Azure-AsyncOperation URL, else Location (either may be empty).

        An unsafe URL, to which no token may be sent, reads as a lost operation; the machine is read instead.
        """
        if not (async_url or location_url):
            return PollReading(state=PollState.LOST)
        try:
            reading = await self._poll_one(machine, async_url or location_url, is_location=not async_url)
            if reading.state is PollState.SUCCEEDED_WITHOUT_RESULT and location_url and async_url:
                reading = await self._poll_one(machine, location_url, is_location=True)
            if machine.is_arc and reading.state is PollState.SUCCEEDED:
                reading = await self._arc.complete(machine, reading)
        except UnsafeUrl as refusal:
            return PollReading(
                state=PollState.LOST, failure=ArmFailure(status=0, code="UnsafeUrl", message=str(refusal))
            )
        return reading

    async def check(self) -> ArmFailure | None:
        """One cheap read to check that Resource Manager is reachable with this identity; ``None`` when it is."""
        url = f"{self._settings.manager_url}/subscriptions?api-version={_SUBSCRIPTIONS_API_VERSION}"
        reply = await self._get(url)
        return None if reply.status == 200 else reply.to_failure()

    async def _submit_patches(
        self, machine: MachineId, location: str, intent: Intent, call: Callable[..., Awaitable[object]]
    ) -> Submission:
        rate_limit = open_rate_limits(self._settings).of_patches(machine.subscription_id, location)
        return await submit(call, rate_limit, _request_id(intent), has_reservation=True)

    async def _poll_one(self, machine: MachineId, url: str, *, is_location: bool) -> PollReading:
        check_operation_url(url, self._settings.manager_url, machine.subscription_id)
        reply = await self._get(url)
        read = read_location if is_location else read_operation
        reading = read(reply.status, reply.body, retry_after=reply.retry_after)
        return reading.model_copy(update={"retry_after": reply.retry_after})


def _request_id(intent: Intent) -> str:
    name = f"patchwave/{intent.run_id}/{intent.machine_key}/{intent.kind.value}/{intent.attempt}"
    return str(uuid5(NAMESPACE_URL, name))


__all__ = ["PATCH_API_VERSION", "ResourceManager", "Submission"]
