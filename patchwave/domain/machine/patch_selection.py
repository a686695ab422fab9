"""Which pending patches an installation takes: classifications and masks, read as the guest agents read them.

Whatever cannot be judged with certainty counts as selected: a request that installs nothing costs some minutes, a
machine that is left out without need stays open to attack.

Windows: a patch is taken by its classification, its KB number or its name, when it was published early enough, and
unless it is excluded. Linux (LinuxPatchExtension, PackageFilter and PackageManager): Critical and Security are one
class, and everything else is Other; masks are matched with the name of a package, with and without its architecture; a
version in a mask counts for inclusions only, where an older one that the repository still holds will do.
"""

import hashlib
import json
import re
from collections.abc import Sequence
from fnmatch import fnmatchcase

from patchwave.domain.azure.install_request import (
    LinuxClassification,
    LinuxParameters,
    WindowsClassification,
    WindowsParameters,
    normalize_kb,
)
from patchwave.domain.core.patches import NEEDS_SUBSCRIPTION, AssessmentSummary, PatchRecord, Selection, is_urgent
from patchwave.domain.policy.install import Install
from patchwave.domain.policy.scope import OsType

_ARCHITECTURES = (".x86_64", ".noarch", ".i686", ".aarch64")
_NO_LETTER = re.compile(r"[^a-z]")
_RESTARTS = frozenset({"alwaysrequiresreboot", "canrequestreboot"})
_NEVER_RESTARTS = "neverreboots"
_WINDOWS_WORDS: dict[str, WindowsClassification] = {
    word: kind
    for kind, words in {
        WindowsClassification.CRITICAL: ("critical", "criticalupdates"),
        WindowsClassification.SECURITY: ("security", "securityupdates"),
        WindowsClassification.UPDATE_ROLLUP: ("updaterollup", "updaterollups"),
        WindowsClassification.FEATURE_PACK: ("featurepack", "featurepacks"),
        WindowsClassification.SERVICE_PACK: ("servicepack", "servicepacks"),
        WindowsClassification.DEFINITION: ("definition", "definitionupdates"),
        WindowsClassification.TOOLS: ("tools",),
        WindowsClassification.UPDATES: ("updates",),
    }.items()
    for word in words
}
"""Recordings have the words of the API, Microsoft's own samples those of Windows Update: "Update Rollups"."""
_URGENT = frozenset({LinuxClassification.CRITICAL, LinuxClassification.SECURITY})
_EVERYTHING = _URGENT | {LinuxClassification.OTHER}


def selects(wanted: WindowsParameters | LinuxParameters, patch: PatchRecord) -> bool | None:
    """Whether an installation takes a pending patch; ``None`` when that is not certain."""
    if isinstance(wanted, WindowsParameters):
        return _selects_windows(wanted, patch)
    return _selects_linux(wanted, patch)


def may_select(wanted: WindowsParameters | LinuxParameters, patch: PatchRecord) -> bool:
    """The same, where what is not certain counts as selected."""
    return selects(wanted, patch) is not False


def excludes_package(wanted: LinuxParameters, name: str) -> bool:
    """Whether the masks exclude a Linux package; the agent ignores a version in an exclusion."""
    return any(_matches(name, mask.partition("=")[0]) for mask in wanted.package_name_masks_to_exclude)


def product_name(package: str) -> str:
    """The name of a Linux package without its architecture, which the agent cuts off."""
    found = next((each for each in _ARCHITECTURES if package.endswith(each)), None)
    return package if found is None else package.replace(found, "")


def kb_of(patch: PatchRecord) -> str | None:
    """The KB number of a Windows patch, with its prefix; ``None`` when Azure did not tell one."""
    try:
        return normalize_kb(patch.kb_id)
    except ValueError:
        return None


def wanted_on(install: Install, os_type: OsType) -> WindowsParameters | LinuxParameters:
    """What a policy selects on machines of a system."""
    return install.windows if os_type is OsType.WINDOWS else install.linux


def rule_of(wanted: WindowsParameters | LinuxParameters) -> str:
    """A short digest of classifications and masks: equal for policies that select the same."""
    return hashlib.sha256(json.dumps(wanted.to_wire(), sort_keys=True).encode()).hexdigest()[:16]


def select(
    wanted: WindowsParameters | LinuxParameters, found: AssessmentSummary, patches: Sequence[PatchRecord]
) -> Selection:
    """How many of the patches that an assessment found an installation takes.

    Args:
        wanted: the classifications and masks.
        found: the assessment with its counts; what they count beyond the list counts as selected.
        patches: the list, which may have been cut.
    """
    chosen = [patch for patch in patches if may_select(wanted, patch)]
    needs_subscription = sum(patch.state == NEEDS_SUBSCRIPTION for patch in chosen)
    unlisted = max(int(found.list_is_partial), found.critical_and_security + found.other - len(patches))
    return Selection(
        installable=len(chosen) - needs_subscription + unlisted,
        needs_subscription=needs_subscription,
        rule=rule_of(wanted),
    )


# --- Windows ------------------------------------------------------------------------------------------------


def _selects_windows(wanted: WindowsParameters, patch: PatchRecord) -> bool | None:
    kb = kb_of(patch)
    if kb in wanted.kb_numbers_to_exclude or _is_named(patch.name, wanted.patch_name_masks_to_exclude):
        return False
    latest = wanted.max_patch_publish_date
    if latest is not None and patch.published_at is not None and patch.published_at > latest:
        return False
    restarts = patch.reboot_behavior.casefold()
    if wanted.exclude_kbs_requiring_reboot and restarts in _RESTARTS:
        return False
    taken = _takes_windows(wanted, patch, kb)
    is_told = not wanted.exclude_kbs_requiring_reboot or restarts == _NEVER_RESTARTS
    is_dated = latest is None or patch.published_at is not None
    return taken if is_told and is_dated else taken and None


def _takes_windows(wanted: WindowsParameters, patch: PatchRecord, kb: str | None) -> bool | None:
    """Whether one of the three ways to include a patch takes it."""
    if kb in wanted.kb_numbers_to_include or _is_named(patch.name, wanted.patch_name_masks_to_include):
        return True
    words = [_WINDOWS_WORDS.get(_NO_LETTER.sub("", word.casefold())) for word in patch.classifications]
    if any(word in wanted.classifications_to_include for word in words):
        return True
    if not words or None in words or (kb is None and wanted.kb_numbers_to_include):
        return None
    # Whether Azure compares names with case, or whole names, is not documented.
    name = patch.name.casefold()
    loose = (f"*{mask.casefold()}*" for mask in wanted.patch_name_masks_to_include)
    return None if any(fnmatchcase(name, mask) for mask in loose) else False


def _is_named(name: str, masks: Sequence[str]) -> bool:
    return any(fnmatchcase(name, mask) for mask in masks)


# --- Linux --------------------------------------------------------------------------------------------------


def _selects_linux(wanted: LinuxParameters, patch: PatchRecord) -> bool | None:
    if excludes_package(wanted, patch.name):
        return False
    classified = _takes_linux(set(wanted.classifications_to_include), patch)
    if classified:
        return True
    by_name = [mask.partition("=") for mask in wanted.package_name_masks_to_include]
    versions = [version for name, _, version in by_name if _matches(patch.name, name)]
    if any(not version or fnmatchcase(patch.version, version) for version in versions):
        return True
    # The repository may still hold the version that is asked for, behind the newest one that is listed.
    return None if versions else classified


def _takes_linux(chosen: set[LinuxClassification], patch: PatchRecord) -> bool | None:
    """Whether the classifications take a patch."""
    if chosen >= _EVERYTHING:
        return True
    if is_urgent(patch.classifications):
        return bool(chosen & _URGENT)
    if {word.casefold() for word in patch.classifications} == {"other"}:
        return LinuxClassification.OTHER in chosen
    return None if chosen else False


def _matches(name: str, mask: str) -> bool:
    return fnmatchcase(name, mask) or fnmatchcase(product_name(name), mask)
