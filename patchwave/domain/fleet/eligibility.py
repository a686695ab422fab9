"""Whether Azure's guest patching takes a machine at all, and why not.

The conditions of "Automatic VM Guest Patching for Azure VMs": an image of its table, a VM agent that was provisioned
and may install extensions, and on Linux version 2.2.53.1 of it or newer. Automatic patching and platform assessment
need all of them. Update Manager patches custom images on demand and by schedule all the same, so that such a machine
is only left out of what Azure does by itself.
"""

import re
from enum import StrEnum

from pydantic import Field

from patchwave.domain.core.documents import Document
from patchwave.domain.fleet.patch_mode import PatchSettings
from patchwave.domain.fleet.supported_images import READ_ON, Image
from patchwave.domain.policy.scope import OsType

OLDEST_LINUX_AGENT = (2, 2, 53, 1)

_VERSION = re.compile(r"[0-9]{1,6}(?:\.[0-9]{1,6}){1,4}")
_DESKTOP_PUBLISHER = "microsoftwindowsdesktop"


class Cause(StrEnum):
    """Why a machine is not eligible."""

    NO_AGENT = "no_agent"
    NO_EXTENSIONS = "no_extensions"
    OLD_AGENT = "old_agent"
    CUSTOM_IMAGE = "custom_image"
    WINDOWS_CLIENT = "windows_client"
    OTHER_IMAGE = "other_image"
    NO_SYSTEM = "no_system"
    UNREADABLE_ID = "unreadable_id"
    UNIFORM_SCALE_SET = "uniform_scale_set"


class Obstacle(Document):
    """One condition that a machine does not meet. ``only_automatic``: on demand and by schedule it is patched still."""

    cause: Cause
    sentence: str
    only_automatic: bool = False


class Eligibility(Document):
    """What keeps a machine from guest patching; ``unknown`` names what Azure did not tell."""

    obstacles: tuple[Obstacle, ...] = ()
    unknown: tuple[str, ...] = Field(default=(), description="agentVersion, image: what Azure does not tell.")

    @property
    def is_eligible(self) -> bool:
        """Whether nothing is known that keeps it from automatic patching."""
        return not self.obstacles

    @property
    def sentence(self) -> str:
        """All that keeps it from automatic patching; empty when nothing does."""
        return " ".join(obstacle.sentence for obstacle in self.obstacles)


def evaluate(settings: PatchSettings | None, *, image: str, agent_version: str, extensions: bool = True) -> Eligibility:
    """Whether guest patching takes a machine.

    Args:
        settings: what it is set to; ``None`` when Azure names no operating system.
        image: ``publisher:offer:sku:version``, or the id of a custom image; empty when Azure does not tell.
        agent_version: of the VM agent; empty or ``Unknown`` while the machine does not run.
        extensions: ``allowExtensionOperations``.
    """
    if settings is None:
        sentence = "Azure names neither Windows nor Linux as its system."
        return Eligibility(obstacles=(Obstacle(cause=Cause.NO_SYSTEM, sentence=sentence),))
    version = parse_version(agent_version)
    found = [_agent_obstacle(settings, version, agent_version, extensions), _image_obstacle(image)]
    unknown = [name for name, is_missing in (("agentVersion", version is None), ("image", not image)) if is_missing]
    return Eligibility(obstacles=tuple(obstacle for obstacle in found if obstacle), unknown=tuple(unknown))


def parse_version(text: str) -> tuple[int, ...] | None:
    """The numbers of an agent's version; ``None`` for anything else, such as Azure's ``Unknown``."""
    return tuple(map(int, text.split("."))) if _VERSION.fullmatch(text) else None


def _agent_obstacle(
    settings: PatchSettings, version: tuple[int, ...] | None, shown: str, extensions: bool
) -> Obstacle | None:
    if not settings.provision_vm_agent:
        return Obstacle(
            cause=Cause.NO_AGENT,
            sentence="provisionVMAgent is off: without the VM agent nothing can be assessed or installed.",
        )
    if not extensions:
        return Obstacle(
            cause=Cause.NO_EXTENSIONS,
            sentence="allowExtensionOperations is off: the patch extension cannot be installed.",
        )
    if settings.os_type is OsType.LINUX and version is not None and version < OLDEST_LINUX_AGENT:
        return Obstacle(
            cause=Cause.OLD_AGENT,
            sentence=f"The Linux agent is {shown}; guest patching needs 2.2.53.1 or newer: update it.",
        )
    return None


def _image_obstacle(image: str) -> Obstacle | None:
    if not image:
        return None
    found = Image.parse(image)
    if found is None:
        return Obstacle(
            cause=Cause.CUSTOM_IMAGE,
            only_automatic=True,
            sentence="Its image is custom, which Azure never patches by itself.",
        )
    if found.publisher.casefold() == _DESKTOP_PUBLISHER:
        return Obstacle(cause=Cause.WINDOWS_CLIENT, sentence="Windows client systems are not supported.")
    if not found.is_supported:
        return Obstacle(
            cause=Cause.OTHER_IMAGE,
            only_automatic=True,
            sentence=f"Its image {':'.join(found)} is not in the table of supported images as read on {READ_ON}.",
        )
    return None
