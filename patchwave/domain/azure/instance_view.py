"""The state of a machine, read from its instance view.

A stopped machine keeps saying that its agent is ready, a deallocated one has no agent at all, and a machine that
has just booted says "Not Ready": so both the power state and the agent are needed, and neither alone decides. A
hibernated machine shows as deallocated; a status of its own says that its session waits on the disk.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AliasPath, BeforeValidator, Field

from patchwave.domain.azure.patch_results import PatchSummary, Text
from patchwave.domain.core.documents import ExternalDocument, LenientDatetime, object_or_none, objects_or_empty


class Power(StrEnum):
    """The power states that matter to patching; ``changing`` covers starting, stopping and deallocating.

    ``hibernated``: deallocated, with the memory of the guest kept on the OS disk.
    """

    RUNNING = "running"
    STOPPED = "stopped"
    DEALLOCATED = "deallocated"
    HIBERNATED = "hibernated"
    CHANGING = "changing"
    UNKNOWN = "unknown"


class _Status(ExternalDocument):
    code: Text = ""
    display_status: Text = ""
    message: Text = ""
    time: LenientDatetime = None


Statuses = Annotated[list[_Status], BeforeValidator(objects_or_empty)]
Summary = Annotated[PatchSummary | None, BeforeValidator(object_or_none)]


class _PatchStatus(ExternalDocument):
    available_patch_summary: Summary = None
    last_patch_installation_summary: Summary = None


class _Agent(ExternalDocument):
    vm_agent_version: Text = ""
    statuses: Statuses = Field(default_factory=list[_Status])


def _whole_number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


class _Health(ExternalDocument):
    status: Annotated[_Status | None, BeforeValidator(object_or_none)] = None


class _InstanceView(ExternalDocument):
    statuses: Statuses = Field(default_factory=list[_Status])
    vm_agent: Annotated[_Agent | None, BeforeValidator(object_or_none)] = None
    patch_status: Annotated[_PatchStatus | None, BeforeValidator(object_or_none)] = None
    vm_health: Annotated[_Health | None, BeforeValidator(object_or_none)] = None
    platform_update_domain: Annotated[int | None, BeforeValidator(_whole_number)] = None


class MachineView(ExternalDocument):
    """What ``GET virtualMachines/{name}?$expand=instanceView`` says, as far as patching cares."""

    id: Text = ""
    location: Text = ""
    tags: Annotated[dict[str, Text] | None, BeforeValidator(object_or_none)] = None
    os_type: Text = Field(
        default="",
        validation_alias=AliasPath("properties", "storageProfile", "osDisk", "osType"),
    )
    instance_view: Annotated[_InstanceView | None, BeforeValidator(object_or_none)] = Field(
        default=None,
        validation_alias=AliasPath("properties", "instanceView"),
    )

    @classmethod
    def read(cls, body: Mapping[str, Any]) -> MachineView:
        """Read the JSON body of the GET, whatever is missing in it."""
        return cls.model_validate(dict(body))

    @property
    def power(self) -> Power:
        """The power state; a machine that is being created has none yet."""
        shown = _POWER_WORDS.get(self._word("powerstate"), Power.UNKNOWN)
        # The word about hibernation may stay behind after a machine has resumed: only of one that is off it counts.
        is_off = shown in (Power.STOPPED, Power.DEALLOCATED)
        return Power.HIBERNATED if is_off and self._word("hibernationstate") == "hibernated" else shown

    def _word(self, group: str) -> str:
        """What the instance view says of that group of states, in lower case; empty when it says nothing."""
        view = self.instance_view
        for status in view.statuses if view else []:
            name, _, word = status.code.partition("/")
            if name.casefold() == group:
                return word.casefold()
        return ""

    @property
    def is_being_changed(self) -> bool:
        """Whether Azure changes the machine now; restarts and run commands show so as well."""
        provisioning = self._word("provisioningstate").partition("/")[0]
        return self.power is Power.CHANGING or provisioning not in ("", *_SETTLED)

    @property
    def changed_at(self) -> datetime | None:
        """When the last change of the machine ended, as far as Azure tells."""
        view = self.instance_view
        return max((each.time for each in view.statuses if each.time is not None), default=None) if view else None

    @property
    def is_agent_ready(self) -> bool:
        """Whether the VM agent reports success. Believe it only of a running machine: a stopped one keeps saying so."""
        return any(status.code.casefold() == "provisioningstate/succeeded" for status in self._agent_statuses)

    @property
    def agent_message(self) -> str:
        """What the VM agent says of itself; empty when there is no agent."""
        statuses = self._agent_statuses
        return (statuses[0].message or statuses[0].display_status) if statuses else ""

    @property
    def agent_reported_at(self) -> datetime | None:
        """Last report of the VM agent, where Azure has one."""
        return max((status.time for status in self._agent_statuses if status.time is not None), default=None)

    @property
    def vm_health(self) -> str:
        """The last segment of ``vmHealth`` in lower case, such as ``healthy``; empty without the Application Health
        extension."""
        health = self.instance_view.vm_health if self.instance_view else None
        return health.status.code.rpartition("/")[2].casefold() if health and health.status else ""

    @property
    def update_domain(self) -> str:
        """The update domain; empty outside of availability sets."""
        domain = self.instance_view.platform_update_domain if self.instance_view else None
        return "" if domain is None else str(domain)

    @property
    def _agent_statuses(self) -> list[_Status]:
        agent = self.instance_view.vm_agent if self.instance_view else None
        return agent.statuses if agent else []

    @property
    def last_assessment(self) -> PatchSummary | None:
        """The newest assessment that the machine knows."""
        status = self.instance_view.patch_status if self.instance_view else None
        return status.available_patch_summary if status else None

    @property
    def last_installation(self) -> PatchSummary | None:
        """The newest installation that the machine knows."""
        status = self.instance_view.patch_status if self.instance_view else None
        return status.last_patch_installation_summary if status else None


_SETTLED = ("succeeded", "failed", "canceled")
"""Provisioning states of a machine that nothing is done to."""
_POWER_WORDS = {
    "running": Power.RUNNING,
    "stopped": Power.STOPPED,
    "deallocated": Power.DEALLOCATED,
    "starting": Power.CHANGING,
    "stopping": Power.CHANGING,
    "deallocating": Power.CHANGING,
    "restarting": Power.CHANGING,
}
