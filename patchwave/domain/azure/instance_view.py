"""The state of a machine, read from its instance view.

A stopped machine keeps saying that its agent is ready, a deallocated one has no agent at all, and a machine that
has just booted says "Not Ready": so both the power state and the agent are needed, and neither alone decides. A
hibernated machine shows as deallocated; a status of its own says that its session waits on the disk.
"""

from datetime import datetime
from enum import StrEnum
from typing import Annotated

from pydantic import AliasPath, BeforeValidator, Field

from patchwave.domain.azure.patch_results import PatchSummary, Text
from patchwave.domain.core.documents import ExternalDocument, Json, LenientDatetime, object_or_none, objects_or_empty


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


def _number_or_empty(value: object) -> str:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else ""


def _domain_or_empty(value: object) -> str:
    """A fault domain; -1 is Azure's word for none."""
    return "" if value == -1 else _number_or_empty(value)


def _in_view(*path: str) -> AliasPath:
    return AliasPath("properties", "instanceView", *path)


class MachineView(ExternalDocument):
    """What ``GET virtualMachines/{name}?$expand=instanceView`` says, as far as patching cares."""

    id: Text = ""
    location: Text = ""
    tags: Annotated[dict[str, Text] | None, BeforeValidator(object_or_none)] = None
    os_type: Text = Field(default="", validation_alias=AliasPath("properties", "storageProfile", "osDisk", "osType"))
    statuses: Statuses = Field(default_factory=list[_Status], validation_alias=_in_view("statuses"))
    agent_statuses: Statuses = Field(default_factory=list[_Status], validation_alias=_in_view("vmAgent", "statuses"))
    health_code: Text = Field(default="", validation_alias=_in_view("vmHealth", "status", "code"))
    update_domain: Annotated[str, BeforeValidator(_number_or_empty)] = Field(
        default="", validation_alias=_in_view("platformUpdateDomain")
    )
    """Empty outside of availability sets."""
    scale_set_id: Text = Field(default="", validation_alias=AliasPath("properties", "virtualMachineScaleSet", "id"))
    """The Flexible scale set that it is a member of; a machine can join one at run time."""
    fault_domain: Annotated[str, BeforeValidator(_domain_or_empty)] = Field(
        default="", validation_alias=_in_view("platformFaultDomain")
    )
    """Its fault domain; with maximum spreading Azure shows one and the same for all members of a set."""
    last_assessment: Summary = Field(default=None, validation_alias=_in_view("patchStatus", "availablePatchSummary"))
    last_installation: Summary = Field(
        default=None, validation_alias=_in_view("patchStatus", "lastPatchInstallationSummary")
    )

    @property
    def power(self) -> Power:
        """The power state; a machine that is being created has none yet."""
        shown = power_of(self._word("powerstate"))
        # The word about hibernation may stay behind after a machine has resumed: only of one that is off it counts.
        is_off = shown in (Power.STOPPED, Power.DEALLOCATED)
        return Power.HIBERNATED if is_off and self._word("hibernationstate") == "hibernated" else shown

    def _word(self, group: str) -> str:
        """What the instance view says of that group of states, in lower case; empty when it says nothing."""
        for status in self.statuses:
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
        return max((each.time for each in self.statuses if each.time is not None), default=None)

    @property
    def is_agent_ready(self) -> bool:
        """Whether the VM agent reports success. Believe it only of a running machine: a stopped one keeps saying so."""
        return any(status.code.casefold() == "provisioningstate/succeeded" for status in self.agent_statuses)

    @property
    def is_up(self) -> bool:
        """Whether the machine runs and its agent reports."""
        return self.power is Power.RUNNING and self.is_agent_ready

    @property
    def agent_message(self) -> str:
        """What the VM agent says of itself; empty when there is no agent."""
        statuses = self.agent_statuses
        return (statuses[0].message or statuses[0].display_status) if statuses else ""

    @property
    def agent_reported_at(self) -> datetime | None:
        return max((status.time for status in self.agent_statuses if status.time is not None), default=None)

    @property
    def vm_health(self) -> str:
        """The last segment of ``vmHealth`` in lower case, such as ``healthy``; empty without the Application Health
        extension."""
        return self.health_code.rpartition("/")[2].casefold()


class ExtensionView(ExternalDocument):
    """An extension, or the handler of one; both name it by ``publisher.type``."""

    type: Text = ""
    type_handler_version: Text = ""
    statuses: Statuses = Field(default_factory=list[_Status])
    status: Annotated[_Status | None, BeforeValidator(object_or_none)] = None

    @property
    def provisioning_state(self) -> str:
        """The word of ``ProvisioningState/...`` in lower case, such as ``succeeded``; empty without one."""
        return next((word for name, word in map(_split, self._all) if name == "provisioningstate"), "")

    @property
    def message(self) -> str:
        return next((status.message for status in self._all if status.message), "")

    @property
    def _all(self) -> list[_Status]:
        return [*self.statuses, *([self.status] if self.status is not None else [])]


_Object = Annotated[Json | None, BeforeValidator(object_or_none)]
Extensions = Annotated[list[ExtensionView], BeforeValidator(objects_or_empty)]


class PatchStatusView(MachineView):
    """The same document with what automatic guest patching shows in it.

    ``configurationStatuses`` of the REST schema: "the enablement status of the specified patchMode", with codes such as
    ``PatchModeConfigurationState/Ready``.
    """

    extensions: Extensions = Field(default_factory=list[ExtensionView], validation_alias=_in_view("extensions"))
    handlers: Extensions = Field(
        default_factory=list[ExtensionView], validation_alias=_in_view("vmAgent", "extensionHandlers")
    )
    configuration_statuses: Statuses = Field(
        default_factory=list[_Status], validation_alias=_in_view("patchStatus", "configurationStatuses")
    )
    windows_configuration: _Object = Field(
        default=None, validation_alias=AliasPath("properties", "osProfile", "windowsConfiguration"), repr=False
    )
    linux_configuration: _Object = Field(
        default=None, validation_alias=AliasPath("properties", "osProfile", "linuxConfiguration"), repr=False
    )

    @property
    def os_configuration(self) -> Json | None:
        """The configuration of the machine's own operating system."""
        return self.windows_configuration or self.linux_configuration

    @property
    def all_extensions(self) -> list[ExtensionView]:
        """The extensions, and behind them what the agent says of their handlers."""
        return [*self.extensions, *self.handlers]

    @property
    def modes_ready(self) -> tuple[str, ...]:
        """The modes that have taken effect: ``PatchMode``, ``AssessmentMode``."""
        words = [status.code.partition("/") for status in self.configuration_statuses]
        return tuple(name.removesuffix("ConfigurationState") for name, _, word in words if word.casefold() == "ready")


def _split(status: _Status) -> tuple[str, str]:
    """Group and word of a code, in lower case; further segments, such as an exit code, are left out."""
    name, _, word = status.code.casefold().partition("/")
    return name, word.partition("/")[0]


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


def power_of(word: str) -> Power:
    """The power state of the last part of a code, such as ``running``, in any case."""
    return _POWER_WORDS.get(word.casefold(), Power.UNKNOWN)
