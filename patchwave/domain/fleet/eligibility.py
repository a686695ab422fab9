"""Whether Azure's guest patching takes a machine at all, and why not.

The conditions of "Automatic VM Guest Patching for Azure VMs": an image of its table, a VM agent that was provisioned
and may install extensions, and on Linux version 2.2.53.1 of it or newer. Automatic patching and platform assessment
need all of them. Update Manager patches custom images on demand and by schedule all the same, so that such a machine
is only left out of what Azure does by itself.

Azure adds images without notice, so that one which the table lacks is no obstacle: what Azure last answered for the
machine decides, and without such an answer it is unknown. That a successful assessment, or an installed patch
extension, shows that Azure takes the image is [inferred] from its refusal of images that it does not take.
"""

import re
from datetime import date, datetime
from enum import StrEnum
from typing import NamedTuple

from pydantic import Field

from patchwave.domain.core.documents import Document, format_instant
from patchwave.domain.fleet.patch_mode import PatchSettings
from patchwave.domain.fleet.supported_images import FORMER_DATE, IMAGE_TABLE, READ_ON, Image, ImageTable
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
    NO_SYSTEM = "no_system"
    UNREADABLE_ID = "unreadable_id"
    UNIFORM_SCALE_SET = "uniform_scale_set"


class Obstacle(Document):
    """One condition that a machine does not meet. ``only_automatic``: on demand and by schedule it is patched still."""

    cause: Cause
    sentence: str
    only_automatic: bool = False


class ImageSupport(StrEnum):
    """Whether Azure's automatic patching takes an image."""

    LISTED = "listed"
    ANSWERED = "answered"
    """The table lacks it, and Azure's last answer for the machine shows that it is taken."""
    UNKNOWN = "unknown"
    """The table lacks it, and nothing shows whether it is taken; or Azure does not tell the image."""
    UNSUPPORTED = "unsupported"
    """Custom, or a client system: Microsoft's page says so."""


class AzureAnswers(NamedTuple):
    """What Azure last answered for a machine."""

    assessed_at: datetime | None = None
    """When an assessment last succeeded."""
    extension: str = ""
    """The provisioning state of the patch extension; empty where none is known."""

    @property
    def sentence(self) -> str:
        """Why the answers show that Azure takes the machine; empty when they do not."""
        if self.extension.casefold() == "succeeded":
            return "Azure has installed its patch extension on the machine, so that it takes the image."
        if self.assessed_at is not None:
            return f"Azure assessed the machine at {format_instant(self.assessed_at)}, so that it takes the image."
        return ""


NO_ANSWERS = AzureAnswers()


class Eligibility(Document):
    """What keeps a machine from guest patching, and what is not known of it."""

    obstacles: tuple[Obstacle, ...] = ()
    unknown: tuple[str, ...] = Field(
        default=(), description="agentVersion, image: what Azure does not tell, or an image that the table lacks."
    )
    image_support: ImageSupport = ImageSupport.UNKNOWN
    image_note: str = Field(default="", description="How an image was judged that the table lacks.")
    end_of_life: date | None = Field(default=None, description="Last day with updates of its image, where known.")

    @property
    def is_eligible(self) -> bool:
        """Whether nothing is known that keeps it from automatic patching."""
        return not self.obstacles

    @property
    def is_image_undecided(self) -> bool:
        """Whether nothing keeps it from automatic patching but an image of which nothing is known."""
        return self.is_eligible and self.image_support is ImageSupport.UNKNOWN and bool(self.image_note)

    @property
    def sentence(self) -> str:
        """All that keeps it from automatic patching; empty when nothing does."""
        return " ".join(obstacle.sentence for obstacle in self.obstacles)


def evaluate(
    settings: PatchSettings | None,
    *,
    image: str,
    agent_version: str,
    extensions: bool = True,
    images: ImageTable = IMAGE_TABLE,
    answers: AzureAnswers = NO_ANSWERS,
) -> Eligibility:
    """Whether guest patching takes a machine.

    Args:
        settings: what it is set to; ``None`` when Azure names no operating system.
        image: ``publisher:offer:sku:version``, or the id of a custom image; empty when Azure does not tell.
        agent_version: of the VM agent; empty or ``Unknown`` while the machine does not run.
        extensions: ``allowExtensionOperations``.
        images: the table, with what the app's settings add.
        answers: what Azure last answered; it decides on an image that the table lacks.
    """
    ends = images.end_of_life(image)
    if settings is None:
        sentence = "Azure names neither Windows nor Linux as its system."
        return Eligibility(obstacles=(Obstacle(cause=Cause.NO_SYSTEM, sentence=sentence),), end_of_life=ends)
    version = parse_version(agent_version)
    obstacle = _image_obstacle(image)
    found = [_agent_obstacle(settings, version, agent_version, extensions), obstacle]
    support, note = (ImageSupport.UNSUPPORTED, "") if obstacle else _judge_image(image, images, answers)
    missing = (("agentVersion", version is None), ("image", support is ImageSupport.UNKNOWN))
    return Eligibility(
        obstacles=tuple(each for each in found if each),
        unknown=tuple(name for name, is_missing in missing if is_missing),
        image_support=support,
        image_note=note,
        end_of_life=ends,
    )


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
    return None


def _judge_image(image: str, images: ImageTable, answers: AzureAnswers) -> tuple[ImageSupport, str]:
    """Whether Azure takes a marketplace image, and how that was judged."""
    found = Image.parse(image)
    if found is None:
        return ImageSupport.UNKNOWN, ""
    if images.has(found):
        return ImageSupport.LISTED, ""
    was = f"; it was in that of {FORMER_DATE}" if images.had(found) else ""
    lacks = f"Its image {found.name} is not in the table of {READ_ON}{was}."
    if answer := answers.sentence:
        return ImageSupport.ANSWERED, f"{lacks} {answer}"
    return ImageSupport.UNKNOWN, f"{lacks} No answer of Azure shows yet whether it takes the image."
