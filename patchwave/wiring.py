"""What activities, use cases and routes are given to work with, in one object."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from patchwave.azure.bulk_status import BulkStatus
from patchwave.azure.clients import PerLoop
from patchwave.azure.credentials import open_credential
from patchwave.azure.locations import Locations
from patchwave.azure.maintenance import Maintenance
from patchwave.azure.patch_settings import PatchSettings
from patchwave.azure.pipeline import ArmPipeline
from patchwave.azure.rate_limiter import RateLimits, open_rate_limits
from patchwave.azure.resource_graph import ResourceGraph
from patchwave.azure.resource_health import ResourceHealth
from patchwave.azure.run_command import RunCommands
from patchwave.azure.snapshots import Snapshots
from patchwave.azure.virtual_machines import ResourceManager
from patchwave.azure.vm_agents import AgentVersions
from patchwave.domain.azure.poll_schedule import PollSchedule
from patchwave.domain.azure.rate_limit import Bucket, read_limits
from patchwave.outbound.http_probe import HttpProbe
from patchwave.outbound.notifications import ChannelSender
from patchwave.settings import Settings, load_settings
from patchwave.storage import Storage
from patchwave.storage.engine.store import Store


class Services:
    """Settings, storage, and clients; each is created at its first use, which sends no request.

    Args:
        settings: the process's settings by default.
        replaced: other collaborators, by attribute: ``Services(storage=storage, resource_graph=scripted)``.

    Raises:
        TypeError: there is no such attribute.
    """

    def __init__(self, settings: Settings | None = None, **replaced: Any) -> None:
        if unknown := [name for name in replaced if not hasattr(type(self), name)]:
            raise TypeError(f"Services has no {unknown[0]}")
        self._settings = settings
        vars(self).update(replaced)

    @property
    def settings(self) -> Settings:
        return self._settings or load_settings()

    @cached_property
    def storage(self) -> Storage:
        return Storage(Store.open(self.settings))

    @cached_property
    def resource_manager(self) -> ResourceManager:
        return ResourceManager(self.settings, open_credential(self.settings))

    @cached_property
    def resource_graph(self) -> ResourceGraph:
        return ResourceGraph(self.settings, self._pipeline())

    @cached_property
    def bulk_status(self) -> BulkStatus:
        return BulkStatus(self.resource_graph, self.settings.poll_seconds)

    @cached_property
    def resource_health(self) -> ResourceHealth:
        return ResourceHealth(self.settings, self._pipeline())

    @cached_property
    def maintenance(self) -> Maintenance:
        """Update Manager's configurations, assignments and scheduled runs."""
        return Maintenance(self.settings, open_credential(self.settings))

    @cached_property
    def patch_settings(self) -> PatchSettings:
        return PatchSettings(self.settings, open_credential(self.settings))

    @cached_property
    def run_commands(self) -> RunCommands:
        return RunCommands(self.settings, open_credential(self.settings))

    @cached_property
    def snapshots(self) -> Snapshots:
        return Snapshots(self.settings, open_credential(self.settings))

    @cached_property
    def agent_versions(self) -> AgentVersions:
        return AgentVersions(self.settings, self._pipeline())

    @cached_property
    def locations(self) -> Locations:
        return Locations(self.settings, self._pipeline())

    @cached_property
    def rate_limits(self) -> RateLimits:
        return open_rate_limits(self.settings)

    @cached_property
    def poll_schedule(self) -> PollSchedule:
        """The operations that this process polls: when each is due, and how long similar ones took."""
        return PollSchedule(self.settings.poll_seconds, read_limits(self.settings.limits)[Bucket.READS].fastest)

    @cached_property
    def http_probe(self) -> HttpProbe:
        return HttpProbe(self.settings)

    @cached_property
    def channel_sender(self) -> ChannelSender:
        return ChannelSender()

    def _pipeline(self) -> ArmPipeline:
        return ArmPipeline(self.settings, open_credential(self.settings))

    async def close(self) -> None:
        """Close the connections. The object must not be used any more."""
        for each in list(vars(self).values()):
            if (close := getattr(each, "close", None)) is not None:
                await close()


_services = PerLoop(Services)


def current_services() -> Services:
    """The services of the running event loop, which opened their connections. A worker process has one loop."""
    return _services.get()
