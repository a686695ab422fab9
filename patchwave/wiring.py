"""What activities, use cases and routes are given to work with, in one object."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from patchwave.azure.bulk_status import BulkStatus, open_bulk_status
from patchwave.azure.clients import PerLoop
from patchwave.azure.locations import Locations, open_locations
from patchwave.azure.maintenance import Maintenance, open_maintenance
from patchwave.azure.patch_settings import PatchSettings, open_patch_settings
from patchwave.azure.rate_limiter import RateLimits, open_rate_limits
from patchwave.azure.resource_graph import ResourceGraph, open_resource_graph
from patchwave.azure.resource_health import ResourceHealth, open_resource_health
from patchwave.azure.run_command import RunCommands, open_run_commands
from patchwave.azure.snapshots import Snapshots, open_snapshots
from patchwave.azure.virtual_machines import ResourceManager, open_resource_manager
from patchwave.azure.vm_agents import AgentVersions, open_agent_versions
from patchwave.domain.azure.poll_schedule import PollSchedule
from patchwave.domain.azure.rate_limit import Bucket, read_limits
from patchwave.outbound.http_probe import HttpProbe
from patchwave.outbound.notifications import ChannelSender
from patchwave.settings import Settings, load_settings
from patchwave.storage import Storage, open_storage


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
        return open_storage(self.settings)

    @cached_property
    def resource_manager(self) -> ResourceManager:
        return open_resource_manager(self.settings)

    @cached_property
    def resource_graph(self) -> ResourceGraph:
        return open_resource_graph(self.settings)

    @cached_property
    def bulk_status(self) -> BulkStatus:
        return open_bulk_status(self.settings)

    @cached_property
    def resource_health(self) -> ResourceHealth:
        return open_resource_health(self.settings)

    @cached_property
    def maintenance(self) -> Maintenance:
        """Update Manager's configurations, assignments and scheduled runs."""
        return open_maintenance(self.settings)

    @cached_property
    def patch_settings(self) -> PatchSettings:
        return open_patch_settings(self.settings)

    @cached_property
    def run_commands(self) -> RunCommands:
        return open_run_commands(self.settings)

    @cached_property
    def snapshots(self) -> Snapshots:
        return open_snapshots(self.settings)

    @cached_property
    def agent_versions(self) -> AgentVersions:
        return open_agent_versions(self.settings)

    @cached_property
    def locations(self) -> Locations:
        return open_locations(self.settings)

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


_services = PerLoop(lambda _: Services())


def current_services() -> Services:
    """The services of the running event loop. A worker process has one loop and so one of each."""
    # Without the process's settings: the health check reports that these are not valid.
    return _services.get(Settings.model_construct())
