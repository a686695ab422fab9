"""Names of things: machines by their ARM id, runs by time and policy, instances by what they work on.

Every id that becomes a key is derived, never invented twice: two triggers of one occurrence build the same run
id and so collide on purpose, and a replayed orchestrator addresses the same children.
"""

import hashlib
import re
from dataclasses import dataclass
from datetime import UTC, datetime
from enum import StrEnum
from typing import Self

from patchwave.domain.core.folding import fold

POLICY_NAME_PATTERN = r"^[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?$"
RUN_ID_PATTERN = r"[0-9]{8}T[0-9]{6}Z-[a-z0-9](?:[a-z0-9-]*[a-z0-9])?"
MACHINE_KEY_PATTERN = r"[0-9a-f]{24}"
MAX_RUN_ID = 58
MAX_POLICY_NAME = 32
ADHOC_POLICY = "adhoc"
"""Begins the name of every policy that came in a request, and of no stored one."""

_POLICY_NAME = re.compile(POLICY_NAME_PATTERN)
_NAME_CHARACTER = r"[^\x00-,/:-@\[-^`{-\x9f\s\u200b\u200e\u200f\u2028-\u206f\ufeff\ud800-\udfff\ufffe\uffff]"
"""Letters, marks and digits of any script, and ``-``, ``.``, ``_``; nothing invisible, nothing that turns writing."""
RESOURCE_GROUP_NAME = rf"(?:{_NAME_CHARACTER}|[()]){{0,89}}(?:(?!\.){_NAME_CHARACTER}|[()])"
"""Beside those a group may have ``(`` and ``)``; a dot may not end it."""
MACHINE_NAME = rf"(?![.-]){_NAME_CHARACTER}{{1,64}}"
"""Neither a dot nor a hyphen begins it, so no name is a step of a path."""
GUID = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
_MACHINE_ID = re.compile(
    rf"/subscriptions/(?P<subscription>{GUID})"
    rf"/resourceGroups/(?P<group>{RESOURCE_GROUP_NAME})"
    rf"/providers/(?:Microsoft\.Compute/virtualMachines|Microsoft\.HybridCompute/machines)/(?P<name>{MACHINE_NAME})",
    re.IGNORECASE,
)
_ARC = "/providers/microsoft.hybridcompute/"
_SCALE_SET_ID = re.compile(
    rf"/subscriptions/(?P<subscription>{GUID})"
    rf"/resourceGroups/(?P<group>{RESOURCE_GROUP_NAME})"
    rf"/providers/Microsoft\.Compute/virtualMachineScaleSets/(?P<name>{MACHINE_NAME})",
    re.IGNORECASE,
)
_RUN_ID = re.compile(RUN_ID_PATTERN)
_LAST_SECOND = 9_999_999_999


def is_policy_name(text: str) -> bool:
    """Lower-case letters, digits and inner hyphens, 1 to 32 characters: safe in a URL and a row key.

    32, because Durable Functions takes instance ids of at most 100 characters, and that of an operation holds the
    run id, two steps and a machine key.
    """
    return _POLICY_NAME.fullmatch(text) is not None


def is_adhoc_name(text: str) -> bool:
    """Whether the name is one of policies that come in requests: ``adhoc``, or ``adhoc-`` and more."""
    return text == ADHOC_POLICY or text.startswith(f"{ADHOC_POLICY}-")


def adhoc_name(text: str) -> str:
    """The name of a policy that came in a request and calls itself, or is known by, this text."""
    name = text if is_adhoc_name(text) else f"{ADHOC_POLICY}-{text}"
    return name[:MAX_POLICY_NAME].rstrip("-")


def check_policy_name(text: str) -> str:
    """The text, when it is the name of a policy or of what is named like one.

    Raises:
        ValueError: it is no such name.
    """
    if not is_policy_name(text):
        raise ValueError(
            "must be 1 to 32 lower-case letters, digits and hyphens, and begin and end with a letter or digit"
        )
    return text


def is_scale_set_id(text: str) -> bool:
    """Whether it is the ARM id of a virtual machine scale set."""
    found = _SCALE_SET_ID.fullmatch(text)
    fixed = "" if found is None else text[: found.start("group")] + text[found.end("group") : found.start("name")]
    return found is not None and ".." not in text and fixed.isascii()


def check_scale_set_id(text: str) -> str:
    """The text, when it is the ARM id of a virtual machine scale set.

    Raises:
        ValueError: it is no such id.
    """
    if not is_scale_set_id(text):
        raise ValueError(
            "not a scale set id; expected /subscriptions/{guid}/resourceGroups/{group}"
            "/providers/Microsoft.Compute/virtualMachineScaleSets/{name}"
        )
    return text


class MachineType(StrEnum):
    """The two kinds of machines; the values are those of ``machineTypes`` in a policy."""

    AZURE = "azure"
    """``Microsoft.Compute/virtualMachines``."""
    ARC = "arc"
    """``Microsoft.HybridCompute/machines``: enrolled in Azure Arc, and running anywhere else."""

    @classmethod
    def of(cls, machine_id: str) -> Self:
        """The type that an ARM id names; also of an id that cannot be parsed."""
        return cls(cls.ARC if _ARC in machine_id.lower() else cls.AZURE)

    @property
    def provider(self) -> str:
        """The namespace of the resource provider."""
        return "Microsoft.Compute" if self is MachineType.AZURE else "Microsoft.HybridCompute"

    @property
    def resource_type(self) -> str:
        """The last part of the resource type."""
        return "virtualMachines" if self is MachineType.AZURE else "machines"

    @property
    def full_type(self) -> str:
        """Provider and type in lower case, as Resource Graph writes them."""
        return f"{self.provider}/{self.resource_type}".lower()


@dataclass(frozen=True, slots=True)
class MachineId:
    """The ARM id of one VM or Arc machine. Equality and keys ignore case: Azure changes case between answers."""

    text: str
    subscription_id: str
    resource_group: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an ARM id.

        Raises:
            ValueError: it is not the id of a machine, or holds characters that no Azure name has.
        """
        found = _MACHINE_ID.fullmatch(text)
        # Only names may hold letters beyond ASCII; ignoring case, "ſ" would pass for the s of a fixed part.
        fixed = "" if found is None else text[: found.start("group")] + text[found.end("group") : found.start("name")]
        if found is None or ".." in text or not fixed.isascii():
            raise ValueError(
                "not a machine id; expected /subscriptions/{guid}/resourceGroups/{group}/providers/"
                "Microsoft.Compute/virtualMachines/{name} or Microsoft.HybridCompute/machines/{name}"
            )
        return cls(text, found["subscription"].lower(), found["group"], found["name"])

    @classmethod
    def find(cls, text: str) -> Self | None:
        """Read an ARM id; ``None`` when it is not the id of a machine."""
        try:
            return cls.parse(text)
        except ValueError:
            return None

    @classmethod
    def find_vm(cls, text: str) -> Self | None:
        """Read an ARM id; ``None`` when it is not the id of a virtual machine of Azure."""
        found = cls.find(text)
        return None if found is None or found.is_arc else found

    @property
    def machine_type(self) -> MachineType:
        return MachineType.of(self.text)

    @property
    def is_arc(self) -> bool:
        """Whether it is an Arc machine."""
        return self.machine_type is MachineType.ARC

    @property
    def folded(self) -> str:
        """The id as `fold` writes it: the only form in which ids are compared."""
        return fold(self.text)

    @property
    def key(self) -> str:
        """24 hexadecimal digits for row keys, URLs and instance ids: 96 bits, no collision at any fleet size."""
        return machine_key(self.text)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, MachineId) and self.folded == other.folded

    def __hash__(self) -> int:
        return hash(self.folded)

    def __str__(self) -> str:
        return self.text


def machine_key(text: str) -> str:
    """The key of the machine with this id; also of an id that cannot be parsed."""
    return hashlib.sha256(fold(text).encode("utf-8", "surrogatepass")).hexdigest()[:24]


def is_machine_key(text: str) -> bool:
    return re.fullmatch(MACHINE_KEY_PATTERN, text) is not None


def is_run_id(text: str) -> bool:
    return _RUN_ID.fullmatch(text) is not None and len(text) <= MAX_RUN_ID


@dataclass(frozen=True, slots=True)
class RunId:
    """``YYYYMMDDTHHMMSSZ-{policy}[-{suffix}]``: readable, sortable, and safe in URLs, row keys and instance ids."""

    text: str
    at: datetime

    @classmethod
    def of(cls, at: datetime, policy: str, suffix: str = "") -> Self:
        """Build the id. ``at`` is the occurrence for scheduled runs (no suffix), else the moment of the request."""
        moment = at.astimezone(UTC).replace(microsecond=0)
        return cls(f"{moment:%Y%m%dT%H%M%SZ}-{policy}" + (f"-{suffix}" if suffix else ""), moment)

    @classmethod
    def derived(cls, at: datetime, policy: str, *parts: str) -> Self:
        """The id of the one run of a policy that these texts stand for, beside that of its own schedule.

        The suffix is a digest and not a word: with a word behind its name, the run of a policy could have the id of
        another policy's.
        """
        return cls.of(at, policy, hashlib.sha256("|".join(parts).encode()).hexdigest()[:8])

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read a run id.

        Raises:
            ValueError: the text is no run id.
        """
        if not is_run_id(text):
            raise ValueError("not a run id; expected for example 20261110T190000Z-monthly")
        return cls(text, datetime.strptime(text[:15], "%Y%m%dT%H%M%S").replace(tzinfo=UTC))

    @property
    def row_key(self) -> str:
        """Sorts newest first, as Table storage only reads forward."""
        return f"{_LAST_SECOND - int(self.at.timestamp()):010d}~{self.text}"

    def __str__(self) -> str:
        return self.text


_CONFIGURATION_ID = re.compile(
    rf"/subscriptions/(?P<subscription>{GUID})/resourceGroups/(?P<group>{RESOURCE_GROUP_NAME})"
    r"/providers/Microsoft\.Maintenance/maintenanceConfigurations/(?P<name>[A-Za-z0-9_.()-]{1,260})",
    re.IGNORECASE,
)


@dataclass(frozen=True, slots=True)
class ConfigurationId:
    """The ARM id of one maintenance configuration. Equality ignores case: Azure writes it in three ways."""

    subscription_id: str
    resource_group: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an ARM id.

        Raises:
            ValueError: it is not the id of a maintenance configuration.
        """
        found = _CONFIGURATION_ID.fullmatch(text)
        fixed = "" if found is None else text[: found.start("group")] + text[found.end("group") :]
        if found is None or ".." in text or not fixed.isascii():
            raise ValueError(
                "not a maintenance configuration id; expected /subscriptions/{guid}/resourceGroups/{group}"
                "/providers/Microsoft.Maintenance/maintenanceConfigurations/{name}"
            )
        return cls(found["subscription"].lower(), found["group"], found["name"])

    @property
    def folded(self) -> str:
        """The id in lower case: the only form in which ids are compared."""
        return fold(str(self))

    @property
    def key(self) -> str:
        """24 hexadecimal digits for row keys, as of machines."""
        return hashlib.sha256(self.folded.encode()).hexdigest()[:24]

    def __eq__(self, other: object) -> bool:
        return isinstance(other, ConfigurationId) and self.folded == other.folded

    def __hash__(self) -> int:
        return hash(self.folded)

    def __str__(self) -> str:
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.Maintenance/maintenanceConfigurations/{self.name}"
        )
