"""Ring pinning and approval delay: which patches a machine may get, beyond what its policy selects.

Pinning: later rings may install what the first ring installed, and nothing else. Delay: only patches that are old
enough. Both only ever take away; a machine for which nothing is left gets an outcome instead of an installation.

The rules of the guests that this follows: Windows Update takes KB numbers and a last date of publication; the Linux
agent takes ``name=version``, also when a newer version is out and the repository still holds the one that is asked for,
passes over masks that match nothing, and ignores the version in an exclusion (LinuxPatchExtension, PackageFilter and
PackageManager). Linux patches carry no date of publication, so their age counts from when Patchwave first saw them.
"""

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import NamedTuple

from patchwave.domain.azure.install_request import (
    LinuxClassification,
    LinuxParameters,
    WindowsParameters,
    is_package_mask,
)
from patchwave.domain.core.documents import Document, UtcDatetime, format_minute
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import NEEDS_SUBSCRIPTION, PatchRecord, is_urgent
from patchwave.domain.machine.patch_selection import excludes_package, kb_of, may_select, product_name, selects
from patchwave.domain.policy.scope import OsType
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.runs.outcome_rules import nothing_selected

MAX_LIST = 1_000
"""Entries of a list that is sent although the machine's own list is not fully known: some 50 KB. The agent lists about
600 patches before it cuts its list."""

type Package = tuple[str, str]
"""A Linux package: name and version."""

_INSTALLED = "Installed"
_ENDED_WELL = frozenset({OutcomeKind.PATCHED, OutcomeKind.PATCHED_WITH_WARNINGS, OutcomeKind.REBOOT_REQUIRED})
_SPOILED = frozenset({Reason.REBOOT_FAILED, Reason.UNHEALTHY})
_AWAITS_RESTART = frozenset({Stage.INSTALLED, Stage.RESTARTING})
_WILDCARD = re.compile(r"[*?\[\]]")


class WindowsPin(Document):
    """KB numbers with their prefix, sorted, and when the last of them was published.

    ``published_by`` keeps out what is published later under the same number, as definitions are every day. It is
    empty when Azure did not tell the date of one of them: a date that is too early would keep that one out.
    """

    kbs: list[str]
    published_by: UtcDatetime | None = None


class LinuxPin(Document):
    """``name=version`` masks, sorted. Different distributions have different versions of one package: all are here."""

    masks: list[str]


class PinSize(Document):
    """How much a pin holds: KB numbers for Windows, versions of packages for Linux."""

    kbs: int = 0
    packages: int = 0


class Pin(Document):
    """What the first ring of a run installed, by operating system; ``None`` where it installed nothing."""

    from_ring: str
    at: UtcDatetime
    windows: WindowsPin | None = None
    linux: LinuxPin | None = None
    kinds: list[str] | None = None
    """The kinds of the machines of the ring (`patchwave.domain.planning.canary`); ``None`` where that was not kept."""

    @property
    def size(self) -> PinSize:
        return PinSize(
            kbs=len(self.windows.kbs) if self.windows else 0, packages=len(self.linux.masks) if self.linux else 0
        )


class Assessed(NamedTuple):
    """The patches that a machine's assessment lists, and whether the list was cut or is not known."""

    patches: Sequence[PatchRecord]
    is_partial: bool


@dataclass(frozen=True, slots=True)
class Delay:
    """The approval delay of a run: patches count when they were at least ``days`` old at the start of the run.

    The start, and not this moment: every machine of the run is held to the same date.
    """

    days: int
    run_start: datetime

    @property
    def until(self) -> datetime:
        """The last moment at which an approved patch was published, or first seen."""
        return self.run_start - timedelta(days=self.days)

    def approved_from(self, seen: datetime) -> datetime:
        """From when on a patch of that age is approved."""
        return seen + timedelta(days=self.days)


# --- what the first ring installed --------------------------------------------------------------------------


def ended_well(machine: MachineRecord) -> bool:
    """Whether what the machine installed may go to later rings.

    A machine that waits for its restart (``rebootMode: separate``) has no outcome yet, and has installed everything.
    One that failed, ran out of time, did not come back from its reboot or became unhealthy vouches for nothing.
    """
    if machine.outcome is None:
        return machine.stage in _AWAITS_RESTART
    return machine.outcome in _ENDED_WELL and machine.reason not in _SPOILED


@dataclass(slots=True)
class Installed:
    """Collects what the machines of the first ring that ended well have installed.

    A patch that failed on one machine and was installed on another is included: it has been proven to install, and
    the machine on which it failed is for the error budget to judge. What was installed nowhere is not included.
    """

    _published: dict[str, datetime | None] = field(default_factory=dict[str, "datetime | None"])
    _masks: set[str] = field(default_factory=set[str])

    def add(self, os_type: OsType, patches: Iterable[PatchRecord]) -> None:
        """Add the patches of one machine; those in another state than Installed are passed over.

        Nothing is pinned that cannot be named exactly: no KB number, no version, or a wildcard in either.
        """
        for patch in patches:
            if patch.state != _INSTALLED:
                continue
            if os_type is OsType.WINDOWS:
                self._add_kb(patch)
            elif (mask := package_mask(product_name(patch.name), patch.version)) is not None:
                self._masks.add(mask)

    def _add_kb(self, patch: PatchRecord) -> None:
        kb = kb_of(patch)
        if kb is None:
            return
        # Two machines may have got two revisions of one KB: the later one has been tried as well.
        dates = [self._published.get(kb, patch.published_at), patch.published_at]
        known = [date for date in dates if date is not None]
        self._published[kb] = max(known) if len(known) == len(dates) else None

    def to_pin(self, ring: str, at: datetime, kinds: Sequence[str] | None = None) -> Pin:
        """The pin; empty for a system on which nothing was installed. ``kinds``: of the machines of the ring."""
        windows = WindowsPin(kbs=sorted(self._published), published_by=self._last_published())
        linux = LinuxPin(masks=sorted(self._masks))
        return Pin(
            from_ring=ring,
            at=at,
            windows=windows if windows.kbs else None,
            linux=linux if linux.masks else None,
            kinds=None if kinds is None else list(kinds),
        )

    def _last_published(self) -> datetime | None:
        dates = [date for date in self._published.values() if date is not None]
        if not dates or len(dates) < len(self._published):
            return None
        # Rows keep milliseconds and Azure has seven digits: the date that is sent must not be before the true one.
        return max(dates).replace(microsecond=0) + timedelta(seconds=1)


def as_seen(package: Package) -> Package:
    """The package as it is noted when it is first seen: without its architecture, as all of them come together."""
    name, version = package
    return product_name(name), version


def package_mask(name: str, version: str) -> str | None:
    """``name=version``, or ``None`` when the two cannot be written as a mask that matches exactly them."""
    mask = f"{name}={version}"
    exact = bool(name and version) and not _WILDCARD.search(mask) and is_package_mask(mask)
    return mask if exact else None


# --- what a machine may get ---------------------------------------------------------------------------------


def choose_windows(
    wanted: WindowsParameters, assessed: Assessed, *, pin: Pin | None, delay: Delay | None
) -> WindowsParameters | Outcome:
    """What to send to a Windows machine, or why nothing is.

    Args:
        wanted: what the policy selects.
        assessed: the machine's own list.
        pin: what the first ring installed; ``None`` when the machine is not pinned.
        delay: the approval delay; ``None`` without one.
    """
    if pin is None and delay is None:
        return wanted
    if pin is not None and pin.windows is None:
        return _nothing_pinned(OsType.WINDOWS, pin)
    pinned = pin.windows if pin is not None else None
    limits = [wanted.max_patch_publish_date, pinned and pinned.published_by, delay and delay.until]
    until = min((limit for limit in limits if limit is not None), default=None)
    selected = [patch for patch in assessed.patches if may_select(wanted, patch)]
    if not assessed.is_partial:
        if not selected:
            return nothing_selected(len(assessed.patches))
        young = _too_young(selected, delay) if delay is not None else None
        if young is not None:
            return young
    if pin is None or pinned is None:
        return wanted.model_copy(update={"max_patch_publish_date": until})
    allowed = set(pinned.kbs) - set(wanted.kb_numbers_to_exclude)
    kbs = sorted(_narrowed(allowed, assessed, {kb_of(patch) for patch in selected}))
    if not kbs:
        return _none_of_them(pin, assessed)
    return wanted.model_copy(
        update={
            "classifications_to_include": [],
            "patch_name_masks_to_include": [],
            "kb_numbers_to_include": kbs,
            "max_patch_publish_date": until,
        }
    )


def choose_packages(wanted: LinuxParameters, assessed: Assessed, *, pin: Pin | None) -> list[Package] | Outcome:
    """The packages that a Linux machine may get as far as policy and pin go; their age is for `choose_linux`.

    Pinned packages are looked for in the machine's list by name alone: the list has the newest version only, and a
    repository may still hold the pinned one beside it. What came with them in the first ring, selected or not, is
    named as well, so that it comes in the version that was tried.
    """
    listed = [patch for patch in assessed.patches if patch.state != NEEDS_SUBSCRIPTION]
    if pin is None:
        return [
            (patch.name, patch.version)
            for patch in listed
            if _takes(wanted, patch) and package_mask(patch.name, patch.version)
        ]
    if pin.linux is None:
        return _nothing_pinned(OsType.LINUX, pin)
    selected = {product_name(patch.name) for patch in listed if may_select(wanted, patch)}
    if not assessed.is_partial and not selected:
        return nothing_selected(len(assessed.patches))
    split = (mask.partition("=") for mask in pin.linux.masks)
    packages = [(name, version) for name, _, version in split if not excludes_package(wanted, name)]
    names = _narrowed([name for name, _ in packages], assessed, {product_name(patch.name) for patch in listed})
    if not assessed.is_partial and names.isdisjoint(selected):
        return _none_of_them(pin, assessed)
    packages = [package for package in packages if package[0] in names]
    return packages or _none_of_them(pin, assessed)


def choose_linux(
    wanted: LinuxParameters, packages: Sequence[Package], *, delay: Delay | None, first_seen: Mapping[Package, datetime]
) -> LinuxParameters | Outcome:
    """What to send to a Linux machine, or why nothing is.

    Args:
        wanted: what the policy selects.
        packages: what `choose_packages` left.
        delay: the approval delay; ``None`` without one.
        first_seen: when each package was first seen, by `as_seen`; a missing one counts as new.
    """
    approved = packages
    if delay is not None:
        seen = {package: first_seen.get(as_seen(package), delay.run_start) for package in packages}
        approved = [package for package in packages if seen[package] <= delay.until]
    if not approved:
        ages = [first_seen[as_seen(package)] for package in packages if as_seen(package) in first_seen]
        return _all_too_young(len(packages), delay, min(ages, default=None))
    return wanted.model_copy(
        update={
            "classifications_to_include": [],
            "package_name_masks_to_include": sorted(f"{name}={version}" for name, version in approved),
        }
    )


def _narrowed[Item](allowed: Collection[Item], assessed: Assessed, listed: Collection[Item | None]) -> set[Item]:
    """What is allowed and listed; all that is allowed when the list was cut and the whole fits into a request."""
    if assessed.is_partial and len(allowed) <= MAX_LIST:
        return set(allowed)
    return {item for item in allowed if item in listed}


def _takes(wanted: LinuxParameters, patch: PatchRecord) -> bool:
    """Whether a package may be named in a request. Nothing is named that the policy does not surely select.

    A patch of an unknown classification is Other to the agent, as is all that is neither Critical nor Security.
    """
    is_selected = selects(wanted, patch)
    if is_selected is not None:
        return is_selected
    return LinuxClassification.OTHER in wanted.classifications_to_include and not is_urgent(patch.classifications)


def _too_young(patches: Sequence[PatchRecord], delay: Delay) -> Outcome | None:
    """The outcome when every patch has a date, and all of them were published too late."""
    dates = [patch.published_at for patch in patches if patch.published_at is not None]
    if not dates or len(dates) < len(patches) or min(dates) <= delay.until:
        return None
    return _all_too_young(len(patches), delay, min(dates))


# --- why a machine gets nothing -----------------------------------------------------------------------------


def pin_missing(ring: str) -> Outcome:
    """The outcome of a machine whose turn came before anything was written down about the first ring."""
    return Outcome.skipped(
        Reason.NOT_PINNED,
        f"It is not written down what the first ring, {ring}, installed, so nothing may be installed here. "
        "Look at that ring's machines, then start the run again.",
    )


def package_list_unknown() -> Outcome:
    """The outcome of a machine whose package list is not known, where only named packages may be installed."""
    return Outcome.skipped(
        Reason.APPROVAL_DELAY,
        "Azure told how many patches are pending, but not which, so their age is not known. The next run assesses the "
        "machine again.",
    )


def cannot_be_pinned(kind: str, pin: Pin) -> Outcome:
    """The outcome of a machine of whose kind the first ring has none, where such machines are skipped."""
    system, _, manager = kind.partition("/")
    what = f"{system} machine with the package manager {manager}" if manager else f"{system} machine"
    return Outcome.skipped(
        Reason.NOT_PINNED,
        f"The first ring, {pin.from_ring}, has no {what}, so nothing can be pinned for this one. Put one into that"
        " ring, or say with withoutPin what is done then.",
    )


def _nothing_pinned(os_type: OsType, pin: Pin) -> Outcome:
    return Outcome.skipped(
        Reason.NOT_PINNED,
        f"The first ring, {pin.from_ring}, installed nothing on {os_type.value} machines, so nothing may be installed "
        f"here. Put a {os_type.value} machine with pending patches into that ring, or set pinRings to false.",
    )


def _none_of_them(pin: Pin, assessed: Assessed) -> Outcome:
    pending = (
        f"None of the {len(assessed.patches)} pending patches"
        if len(assessed.patches) > 1
        else "Nothing that is pending"
    )
    return Outcome.of(
        OutcomeKind.NOTHING_TO_INSTALL,
        Reason.NOT_PINNED,
        f"{pending} was installed in the first ring, {pin.from_ring}, or the policy excludes it.",
    )


def _all_too_young(count: int, delay: Delay | None, oldest: datetime | None) -> Outcome:
    if not count or delay is None:
        return Outcome.of(
            OutcomeKind.NOTHING_TO_INSTALL,
            Reason.NO_PENDING_PATCHES,
            "The policy selects no pending patch that can be named exactly.",
        )
    pending = "All that is pending is" if count == 1 else f"All {count} pending patches are"
    days = "1 day" if delay.days == 1 else f"{delay.days} days"
    when = (
        "Their age is not known yet"
        if oldest is None
        else f"The first is old enough on {format_minute(delay.approved_from(oldest))}"
    )
    return Outcome.of(OutcomeKind.NOTHING_TO_INSTALL, Reason.APPROVAL_DELAY, f"{pending} younger than {days}. {when}.")
