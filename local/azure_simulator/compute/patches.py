"""Patches of a machine: pending ones, and the selection of an install request."""

from __future__ import annotations

import random
import uuid
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from typing import Any

from local.azure_simulator.compute.behavior import PendingPatch
from local.azure_simulator.server.json_readers import list_or_empty

UNPUBLISHED = "0001-01-01T00:00:00+00:00"
"""Publication date of all Linux patches."""

_LINUX_PACKAGES = [
    ("openssl", "3.0.2-0ubuntu1.{n}", "Security"),
    ("libssl3", "3.0.2-0ubuntu1.{n}", "Security"),
    ("linux-image-6.8.0-1{n}-azure", "6.8.0-1{n}.{n}", "Security"),
    ("linux-headers-6.8.0-1{n}-azure", "6.8.0-1{n}.{n}", "Security"),
    ("openssh-server", "1:8.9p1-3ubuntu0.{n}", "Security"),
    ("openssh-client", "1:8.9p1-3ubuntu0.{n}", "Security"),
    ("libc6", "2.35-0ubuntu3.{n}", "Security"),
    ("systemd", "249.11-0ubuntu3.{n}", "Security"),
    ("sudo", "1.9.9-1ubuntu2.{n}", "Critical"),
    ("curl", "7.81.0-1ubuntu1.{n}", "Security"),
    ("libcurl4", "7.81.0-1ubuntu1.{n}", "Security"),
    ("python3.10", "3.10.12-1~22.04.{n}", "Security"),
    ("vim-common", "2:8.2.3995-1ubuntu2.{n}", "Security"),
    ("git", "1:2.34.1-1ubuntu1.{n}", "Security"),
    ("bind9-libs", "1:9.18.28-0ubuntu0.22.04.{n}", "Security"),
    ("apt", "2.4.{n}", "Other"),
    ("tzdata", "2026a-0ubuntu0.22.{n}", "Other"),
    ("distro-info-data", "0.52ubuntu0.{n}", "Other"),
    ("snapd", "2.66.1+22.{n}", "Other"),
    ("update-notifier-common", "3.192.54.{n}", "Other"),
    ("netplan.io", "0.107.1-3ubuntu0.22.04.{n}", "Other"),
    ("walinuxagent", "2.11.1.4-0ubuntu0.{n}", "Other"),
]
_CLASSES = {
    "critical": "critical",
    "security": "security",
    "security-esm": "security",
    "updaterollup": "updateRollup",
    "featurepack": "featurePack",
    "servicepack": "servicePack",
    "tools": "tools",
    "definition": "definition",
    "updates": "updates",
    "other": "other",
}
_NEED_REBOOT = ("linux-image", "libc6", "systemd")
_ESM_PACKAGES = ["imagemagick", "ffmpeg", "libavcodec58", "gimp", "libpostproc55", "pacemaker", "libzip4", "rubygems"]


@dataclass(frozen=True, slots=True)
class Patch:
    """A pending patch. ``needs_reboot`` is the fact; the reboot behaviour on the wire is Azure's claim."""

    patch_id: str
    name: str
    version: str | None
    classification: str
    minutes: float
    kb: str | None = None
    severity: str | None = None
    published: str = UNPUBLISHED
    needs_reboot: bool = False
    dependency: bool = False
    """An Other package that a security package requires, whatever the filter."""
    older: tuple[str, ...] = ()
    """Older versions in the repository."""

    def at(self, version: str) -> Patch:
        """The same package in an older version."""
        return replace(self, patch_id=_linux_id(self.name, version), version=version, older=())

    def without(self, installed: frozenset[str]) -> Patch | None:
        """The pending rest after these ids were installed; nothing, or a newer version."""
        if self.patch_id in installed:
            return None
        there = [place for place, version in enumerate(self.older) if self.at(version).patch_id in installed]
        return replace(self, older=self.older[max(there) + 1 :]) if there else self

    @property
    def is_esm(self) -> bool:
        return self.classification == "Security-ESM"

    @property
    def is_critical_or_security(self) -> bool:
        return self.classification in ("Critical", "Security", "Security-ESM")

    @property
    def reboot_behavior(self) -> str:
        """Linux reports NeverReboots for everything, kernels included (in all recordings)."""
        return "CanRequestReboot" if self.kb and self.needs_reboot else "NeverReboots"

    def identity(self) -> dict[str, Any]:
        """The keys common to assessments and installations, in wire order, without absent ones."""
        shown = {"patchId": self.patch_id, "name": self.name, "version": self.version, "kbId": self.kb}
        return {key: value for key, value in shown.items() if value is not None} | {
            "classifications": [self.classification]
        }

    def assessed(self, activity_id: str, modified: str) -> dict[str, Any]:
        """An item of ``availablePatches``."""
        return (
            self.identity()
            | {"rebootBehavior": self.reboot_behavior}
            | self._severity()
            | {
                "publishedDate": self.published,
                "activityId": activity_id,
                "lastModifiedDateTime": modified,
                "assessmentState": "Available",
            }
        )

    def installed(self, state: str) -> dict[str, Any]:
        """An item of an installation's ``patches``."""
        return self.identity() | {"installationState": state} | self._severity()

    def _severity(self) -> dict[str, str]:
        return {} if self.severity is None else {"msrcSeverity": self.severity}


def generate(os_type: str, count: int | None, esm: int, source: random.Random, month: datetime) -> list[Patch]:
    """A plausible list of pending patches; an equal source gives an equal list.

    The source decides which patches a machine lacks. KB numbers and versions are those of the month, the same for all
    machines, so that a patch of one can be installed on another.
    """
    if os_type == "Windows":
        made = _windows(source.randint(2, 6) if count is None else count, source, month)
    else:
        made = _linux(source.randint(5, 18) if count is None else count, source, month)
    return made + [_esm(index, source) for index in range(esm)]


def spelt_out(entries: list[PendingPatch], os_type: str, source: random.Random) -> list[Patch]:
    """The patches that a fleet file lists."""
    made: list[Patch] = []
    for entry in entries:
        windows = os_type == "Windows"
        version = None if windows else entry.version or "1.0-1"
        made.append(
            Patch(
                patch_id=_guid(source) if windows else _linux_id(entry.name, version or ""),
                name=entry.name,
                version=version,
                kb=entry.kb,
                classification=entry.classification,
                severity=entry.severity,
                published=entry.published or ("2026-11-10T18:00:00+00:00" if windows else UNPUBLISHED),
                needs_reboot=entry.needs_reboot,
                minutes=entry.minutes if entry.minutes is not None else 1.0,
                older=tuple(entry.older),
            )
        )
    return made


def _guid(source: random.Random) -> str:
    return str(uuid.UUID(int=source.getrandbits(128), version=4))


def _linux_id(name: str, version: str) -> str:
    return f"{name}_{version}_Ubuntu_22.04"


def _of_the_month(month: datetime, what: str, lowest: int, highest: int) -> int:
    return random.Random(f"{month:%Y-%m} {what}").randint(lowest, highest)


def _windows(count: int, source: random.Random, month: datetime) -> list[Patch]:
    name = f"{month:%Y-%m}"
    published = f"{month:%Y-%m}-01T18:00:00+00:00"
    made: list[Patch] = []
    for index in range(count):
        kb = str(_of_the_month(month, f"update {index}", 5_030_000, 5_079_999))
        title, classification, severity, reboot, minutes = [
            (f"{name} Cumulative Update for Windows Server (KB{kb})", "Security", "Critical", True, 3.5),
            (f"{name} Cumulative Update for .NET Framework 4.8.1 (KB{kb})", "Security", "Important", False, 1.5),
            ("Windows Malicious Software Removal Tool x64 (KB890830)", "UpdateRollUp", None, False, 0.5),
            ("Security Intelligence Update for Defender Antivirus (KB2267602)", "Definition", None, False, 0.3),
            (f"{name} Security Update for SQL Server GDR (KB{kb})", "Security", "Important", True, 2.5),
            (f"Update for Windows Server Feature {index} (KB{kb})", "Updates", None, False, 0.8),
        ][index % 6]
        made.append(
            Patch(
                patch_id=_guid(source),
                name=title,
                version=None,
                kb=title.rpartition("(KB")[2].rstrip(")"),
                classification=classification,
                severity=severity,
                published=published,
                needs_reboot=reboot,
                minutes=minutes * source.uniform(0.7, 1.3),
            )
        )
    return made


def _linux(count: int, source: random.Random, month: datetime) -> list[Patch]:
    made: list[Patch] = []
    order = source.sample(_LINUX_PACKAGES, len(_LINUX_PACKAGES))
    # A machine with pending patches has an urgent one, as on Windows: otherwise runs would depend on chance.
    first = next(package for package in order if package[2] == "Security")
    order.insert(0, order.pop(order.index(first)))
    depended = False
    for index in range(count):
        name, version, classification = order[index % len(order)]
        number = _of_the_month(month, name, 2, 40)
        name = name.format(n=number) if index < len(order) else f"{name.format(n=number)}-extra{index}"
        version = version.format(n=number)
        is_dependency = classification == "Other" and not depended and source.random() < 0.5
        depended = depended or is_dependency
        made.append(
            Patch(
                patch_id=_linux_id(name, version),
                name=name,
                version=version,
                classification=classification,
                needs_reboot=name.startswith(_NEED_REBOOT),
                minutes=source.uniform(0.15, 0.5),
                dependency=is_dependency,
            )
        )
    return made


def _esm(index: int, source: random.Random) -> Patch:
    name = _ESM_PACKAGES[index % len(_ESM_PACKAGES)] + ("" if index < len(_ESM_PACKAGES) else f"-{index}")
    return Patch(
        patch_id=f"{name}_UA_ESM_Required_Ubuntu_18.04",
        name=name,
        version="UA_ESM_Required",
        classification="Security-ESM",
        minutes=source.uniform(0.1, 0.2),
    )


def count_by_classification(result: dict[str, Any]) -> dict[str, int]:
    """The available patches of an assessment's result, by Resource Graph's name of their classification."""
    counts = dict.fromkeys(dict.fromkeys(_CLASSES.values()), 0)
    for patch in list_or_empty(result.get("availablePatches")):
        counts[_CLASSES.get(str(patch["classifications"][0]).casefold(), "other")] += 1
    # A list that was cut counts less than there is; what is missing is of the two groups that the result counts.
    known = counts["critical"] + counts["security"]
    counts["security"] += max(0, result.get("criticalAndSecurityPatchCount", 0) - known)
    return counts


@dataclass(frozen=True, slots=True)
class Selection:
    """The selection of an install request; other pending patches are Excluded or NotSelected."""

    selected: list[Patch]
    excluded: list[Patch]
    not_selected: list[Patch]
    passed_over: list[Patch]
    """Newer versions of packages that are installed in an older one."""


def select(pending: list[Patch], parameters: dict[str, Any], os_type: str) -> Selection:
    """Apply the request's classifications, includes and excludes like the guest agent: excludes win."""
    chosen = _wants_windows if os_type == "Windows" else _wants_linux
    refused = _excludes_windows if os_type == "Windows" else _excludes_linux
    selected: list[Patch] = []
    excluded: list[Patch] = []
    left: list[Patch] = []
    passed_over: list[Patch] = []
    for patch in pending:
        if refused(patch, parameters):
            excluded.append(patch)
        elif chosen(patch, parameters):
            selected.append(patch)
        elif older := _older(patch, parameters):
            selected.append(older)
            passed_over.append(patch)
        else:
            left.append(patch)
    if any(patch.is_critical_or_security and not patch.is_esm for patch in selected):
        selected += [patch for patch in left if patch.dependency]
        left = [patch for patch in left if not patch.dependency]
    return Selection(selected, excluded, left, passed_over)


def _strings(parameters: dict[str, Any], key: str) -> list[str]:
    return [str(value) for value in list_or_empty(parameters.get(key))]


def _classified(patch: Patch, parameters: dict[str, Any]) -> bool:
    own = "security" if patch.is_esm else patch.classification.casefold()
    return own in {value.casefold() for value in _strings(parameters, "classificationsToInclude")}


def _moment(text: str) -> datetime:
    moment = datetime.fromisoformat(text)
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _kb(value: str) -> str:
    return value.strip().upper().removeprefix("KB")


def _mask(name: str, masks: list[str]) -> bool:
    return any(fnmatchcase(name.casefold(), mask.casefold()) for mask in masks)


def _wants_windows(patch: Patch, parameters: dict[str, Any]) -> bool:
    latest = parameters.get("maxPatchPublishDate")
    if latest and _moment(patch.published) > _moment(str(latest)):
        return False
    return (
        _classified(patch, parameters)
        or patch.kb in {_kb(kb) for kb in _strings(parameters, "kbNumbersToInclude")}
        or _mask(patch.name, _strings(parameters, "patchNameMasksToInclude"))
    )


def _excludes_windows(patch: Patch, parameters: dict[str, Any]) -> bool:
    return (
        patch.kb in {_kb(kb) for kb in _strings(parameters, "kbNumbersToExclude")}
        or _mask(patch.name, _strings(parameters, "patchNameMasksToExclude"))
        or (bool(parameters.get("excludeKbsRequiringReboot")) and patch.reboot_behavior != "NeverReboots")
    )


_ARCHITECTURES = (".x86_64", ".noarch", ".i686", ".aarch64")


def _is_package(patch: Patch, mask: str) -> bool:
    """The agent compares case-sensitively, also without the architecture suffix."""
    plain = next((patch.name.removesuffix(each) for each in _ARCHITECTURES if patch.name.endswith(each)), patch.name)
    return fnmatchcase(patch.name, mask) or fnmatchcase(plain, mask)


def _package(patch: Patch, masks: list[str]) -> bool:
    """A mask is a name, or ``name=version``: the agent splits it at the equals sign and matches both parts."""
    split = (mask.partition("=") for mask in masks)
    return any(
        _is_package(patch, name) and (not version or fnmatchcase(patch.version or "", version))
        for name, _, version in split
    )


def _wants_linux(patch: Patch, parameters: dict[str, Any]) -> bool:
    return _classified(patch, parameters) or _package(patch, _strings(parameters, "packageNameMasksToInclude"))


def _older(patch: Patch, parameters: dict[str, Any]) -> Patch | None:
    """The newest older version that a mask names; a mask without version means the newest version."""
    masks = [mask for mask in _strings(parameters, "packageNameMasksToInclude") if "=" in mask]
    found = (patch.at(version) for version in reversed(patch.older))
    return next((older for older in found if _package(older, masks)), None)


def _excludes_linux(patch: Patch, parameters: dict[str, Any]) -> bool:
    """By name alone: the agent ignores the version."""
    masks = _strings(parameters, "packageNameMasksToExclude")
    return any(_is_package(patch, mask.partition("=")[0]) for mask in masks)
