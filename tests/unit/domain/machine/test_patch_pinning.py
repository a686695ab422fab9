"""Ring pinning and approval delay: both only ever take away, and nothing without a name is installed."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.azure.install_request import (
    LinuxClassification,
    LinuxParameters,
    WindowsClassification,
    WindowsParameters,
)
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import PatchRecord
from patchwave.domain.machine.patch_pinning import (
    MAX_LIST,
    Assessed,
    Delay,
    Installed,
    LinuxPin,
    Pin,
    WindowsPin,
    as_seen,
    cannot_be_pinned,
    choose_linux,
    choose_packages,
    choose_windows,
    ended_well,
    package_list_unknown,
    package_mask,
    pin_missing,
)
from patchwave.domain.policy.scope import OsType
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from tests.support.factories import machine

NOW = datetime(2026, 11, 21, 2, tzinfo=UTC)
DAY = timedelta(days=1)
WEEK = Delay(7, NOW)
WINDOWS = WindowsParameters(classifications_to_include=[WindowsClassification.SECURITY])
LINUX = LinuxParameters(classifications_to_include=[LinuxClassification.SECURITY, LinuxClassification.CRITICAL])
NAMES = st.from_regex(r"[a-z]{1,3}", fullmatch=True)
VERSIONS = st.from_regex(r"[0-9]{1,2}", fullmatch=True)


def kb(number: int, *, days: float | None = 30, **changes: Any) -> PatchRecord:
    fields: dict[str, Any] = {
        "name": f"Update {number}",
        "kb_id": str(number),
        "state": "Installed",
        "classifications": ["Security"],
        "published_at": None if days is None else NOW - days * DAY,
    }
    return PatchRecord(**{**fields, **changes})


def package(name: str, version: str = "1.0", **changes: Any) -> PatchRecord:
    fields: dict[str, Any] = {"name": name, "version": version, "state": "Installed", "classifications": ["Security"]}
    return PatchRecord(**{**fields, **changes})


def assessed(*patches: PatchRecord, is_partial: bool = False) -> Assessed:
    return Assessed([patch.model_copy(update={"state": "Available"}) for patch in patches], is_partial)


def pin_of(os_type: OsType, *patches: PatchRecord) -> Pin:
    installed = Installed()
    installed.add(os_type, patches)
    return installed.to_pin("canary", NOW)


def chosen[Parameters](found: Parameters | Outcome) -> Parameters:
    assert not isinstance(found, Outcome), found
    return found


def refused(found: object) -> Outcome:
    assert isinstance(found, Outcome), found
    return found


# --- what is pinned -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "vouches"),
    [
        ({"outcome": OutcomeKind.PATCHED}, True),
        ({"outcome": OutcomeKind.PATCHED_WITH_WARNINGS}, True),
        ({"outcome": OutcomeKind.REBOOT_REQUIRED, "reason": Reason.REBOOT_PENDING}, True),
        ({"outcome": OutcomeKind.REBOOT_REQUIRED, "reason": Reason.REBOOT_FAILED}, False),
        ({"outcome": OutcomeKind.PATCHED_WITH_WARNINGS, "reason": Reason.UNHEALTHY}, False),
        ({"outcome": OutcomeKind.FAILED}, False),
        ({"outcome": OutcomeKind.TIMED_OUT}, False),
        ({"outcome": OutcomeKind.LEFT_RUNNING}, False),
        ({"outcome": OutcomeKind.UNKNOWN}, False),
        ({"stage": Stage.INSTALLED}, True),
        ({"stage": Stage.RESTARTING}, True),
        ({"stage": Stage.INSTALLING}, False),
    ],
)
def test_only_machines_that_ended_well_vouch(changes: dict[str, Any], vouches: bool) -> None:
    one: MachineRecord = machine(1, **changes)
    assert ended_well(one) is vouches


def test_only_what_was_installed_is_pinned() -> None:
    pin = pin_of(OsType.LINUX, package("a"), package("b", state="Failed"), package("c", state="Pending"))
    assert pin.linux == LinuxPin(masks=["a=1.0"])
    assert pin.windows is None


def test_what_failed_once_and_was_installed_elsewhere_is_pinned() -> None:
    installed = Installed()
    installed.add(OsType.LINUX, [package("a", state="Failed")])
    installed.add(OsType.LINUX, [package("a")])
    assert installed.to_pin("canary", NOW).linux == LinuxPin(masks=["a=1.0"])


@pytest.mark.parametrize(
    ("name", "version"),
    [("openssl", ""), ("open*", "1"), ("openssl", "1.?"), ("a b", "1"), ("", "1"), ("a", "1[2]"), ("a", "1=2")],
)
def test_what_no_mask_names_exactly_is_not_pinned(name: str, version: str) -> None:
    assert package_mask(name, version) is None
    assert pin_of(OsType.LINUX, package(name, version)).linux is None


@pytest.mark.parametrize("version", ["1:8.9p1-3ubuntu0.10", "3.0.2-0ubuntu1.18", "6.8.0~rc1+ds-1", "2.34^git1-1"])
def test_versions_of_real_packages_can_be_pinned(version: str) -> None:
    assert package_mask("openssh-server", version) == f"openssh-server={version}"


def test_the_last_publication_is_never_before_the_true_one() -> None:
    published = datetime(2026, 11, 10, 18, 0, 0, 500_000, tzinfo=UTC)
    pin = pin_of(OsType.WINDOWS, kb(5_000_001), kb(5_000_002, published_at=published))
    assert pin.windows == WindowsPin(
        kbs=["KB5000001", "KB5000002"], published_by=datetime(2026, 11, 10, 18, 0, 1, tzinfo=UTC)
    )


def test_an_unknown_date_leaves_the_pin_without_one() -> None:
    for patches in ([kb(5_000_001), kb(5_000_002, days=None)], [kb(5_000_001), kb(5_000_001, days=None)]):
        windows = pin_of(OsType.WINDOWS, *patches).windows
        assert windows
        assert windows.published_by is None


def test_of_two_revisions_the_later_one_has_been_tried() -> None:
    windows = pin_of(OsType.WINDOWS, kb(2_267_602, days=3), kb(2_267_602, days=1)).windows
    assert windows
    assert windows.published_by == NOW - DAY + timedelta(seconds=1)


# --- what a Windows machine gets ----------------------------------------------------------------------------


def test_windows_gets_the_kbs_of_the_first_ring_that_it_lists_and_no_class() -> None:
    pin = pin_of(OsType.WINDOWS, kb(5_000_001, days=9), kb(5_000_002, days=5))
    found = chosen(choose_windows(WINDOWS, assessed(kb(5_000_002), kb(5_000_003)), pin=pin, delay=None))
    assert found.kb_numbers_to_include == ["KB5000002"]
    assert found.classifications_to_include == []
    assert found.patch_name_masks_to_include == []
    assert found.max_patch_publish_date == NOW - 5 * DAY + timedelta(seconds=1)


def test_windows_keeps_what_the_policy_excludes_and_its_earlier_date() -> None:
    wanted = WINDOWS.model_copy(
        update={
            "kb_numbers_to_exclude": ["KB5000001"],
            "exclude_kbs_requiring_reboot": True,
            "max_patch_publish_date": NOW - 20 * DAY,
            "patch_name_masks_to_include": ["Update*"],
        }
    )
    pin = pin_of(OsType.WINDOWS, kb(5_000_001), kb(5_000_002))
    found = chosen(choose_windows(wanted, assessed(kb(5_000_001), kb(5_000_002)), pin=pin, delay=WEEK))
    assert found.kb_numbers_to_include == ["KB5000002"]
    assert found.kb_numbers_to_exclude == ["KB5000001"]
    assert found.patch_name_masks_to_include == []
    assert found.exclude_kbs_requiring_reboot
    assert found.max_patch_publish_date == NOW - 30 * DAY + timedelta(seconds=1)


def test_the_earliest_date_counts() -> None:
    pin = pin_of(OsType.WINDOWS, kb(5_000_001, days=2))
    patches = assessed(kb(5_000_001, days=30))
    for date, until in ((None, NOW - 7 * DAY), (NOW - 20 * DAY, NOW - 20 * DAY)):
        wanted = WINDOWS.model_copy(update={"max_patch_publish_date": date})
        assert chosen(choose_windows(wanted, patches, pin=pin, delay=WEEK)).max_patch_publish_date == until


def test_a_delay_alone_leaves_the_classes_to_the_policy() -> None:
    found = chosen(choose_windows(WINDOWS, assessed(kb(5_000_001, days=30)), pin=None, delay=WEEK))
    assert found == WINDOWS.model_copy(update={"max_patch_publish_date": NOW - 7 * DAY})


def test_windows_patches_that_are_all_too_young_wait() -> None:
    patches = assessed(kb(5_000_001, days=2), kb(5_000_002, days=1))
    outcome = refused(choose_windows(WINDOWS, patches, pin=None, delay=WEEK))
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.NOTHING_TO_INSTALL, Reason.APPROVAL_DELAY)
    assert "2026-11-26 02:00 UTC" in outcome.message
    assert "All 2 pending patches are younger than 7 days." in outcome.message
    # Azure decides where the list does not tell everything.
    chosen(choose_windows(WINDOWS, assessed(*patches.patches, is_partial=True), pin=None, delay=WEEK))
    chosen(choose_windows(WINDOWS, assessed(kb(5_000_001, days=2), kb(5_000_003, days=None)), pin=None, delay=WEEK))


def test_one_patch_and_one_day_are_in_the_singular() -> None:
    one = assessed(kb(5_000_001, days=0))
    young = refused(choose_windows(WINDOWS, one, pin=None, delay=Delay(1, NOW)))
    assert "All that is pending is younger than 1 day." in young.message
    pin = pin_of(OsType.WINDOWS, kb(5_000_002))
    other = refused(choose_windows(WINDOWS, one, pin=pin, delay=None))
    assert other.message.startswith("Nothing that is pending was installed in the first ring")


def test_a_machine_that_needs_nothing_of_the_pin_gets_nothing() -> None:
    pin = pin_of(OsType.WINDOWS, kb(5_000_001))
    outcome = refused(choose_windows(WINDOWS, assessed(kb(5_000_009)), pin=pin, delay=None))
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.NOTHING_TO_INSTALL, Reason.NOT_PINNED)
    assert "canary" in outcome.message


def test_a_system_that_the_first_ring_does_not_have_is_skipped() -> None:
    pin = pin_of(OsType.LINUX, package("a"))
    outcome = refused(choose_windows(WINDOWS, assessed(kb(5_000_001)), pin=pin, delay=None))
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.SKIPPED, Reason.NOT_PINNED)
    pin = pin_of(OsType.WINDOWS, kb(5_000_001))
    outcome = refused(choose_packages(LINUX, assessed(package("a")), pin=pin))
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.SKIPPED, Reason.NOT_PINNED)


def test_a_list_that_was_cut_gets_the_whole_pin_unless_that_is_long() -> None:
    pin = pin_of(OsType.WINDOWS, *(kb(5_000_000 + number) for number in range(5)))
    cut_list = assessed(kb(5_000_001), is_partial=True)
    assert len(chosen(choose_windows(WINDOWS, cut_list, pin=pin, delay=None)).kb_numbers_to_include) == 5
    long = pin_of(OsType.LINUX, *(package(f"p{number}") for number in range(MAX_LIST + 1)))
    assert choose_packages(LINUX, assessed(package("p7"), is_partial=True), pin=long) == [("p7", "1.0")]


# --- what a Linux machine gets ------------------------------------------------------------------------------


def test_linux_gets_the_versions_of_the_first_ring_also_when_newer_ones_are_out() -> None:
    pin = pin_of(OsType.LINUX, package("openssl", "1.2"), package("curl", "8.1"), package("vim", "9"))
    packages = choose_packages(LINUX, assessed(package("openssl", "1.3"), package("curl", "8.1")), pin=pin)
    assert sorted(chosen(packages)) == [("curl", "8.1"), ("openssl", "1.2")]
    found = chosen(choose_linux(LINUX, chosen(packages), delay=None, first_seen={}))
    assert found.package_name_masks_to_include == ["curl=8.1", "openssl=1.2"]
    assert found.classifications_to_include == []


def test_two_distributions_have_two_versions_and_both_are_allowed() -> None:
    pin = pin_of(OsType.LINUX, package("openssl", "3.0-1ubuntu"), package("openssl", "3.0.el9"))
    assert len(chosen(choose_packages(LINUX, assessed(package("openssl", "3.1")), pin=pin))) == 2


def test_what_the_policy_excludes_is_not_sent_though_it_is_pinned() -> None:
    wanted = LINUX.model_copy(update={"package_name_masks_to_exclude": ["linux-image*=1", "docker"]})
    pin = pin_of(OsType.LINUX, package("linux-image-6.8"), package("docker"), package("curl"))
    machines_list = assessed(package("linux-image-6.8"), package("docker"), package("curl"))
    assert choose_packages(wanted, machines_list, pin=pin) == [("curl", "1.0")]


def test_patches_behind_a_subscription_are_never_named() -> None:
    needs = Assessed(
        [package("ffmpeg", state="NeedsSubscription"), package("curl", state="Available")], is_partial=False
    )
    assert choose_packages(LINUX, needs, pin=None) == [("curl", "1.0")]
    pin = pin_of(OsType.LINUX, package("ffmpeg"))
    assert refused(choose_packages(LINUX, needs, pin=pin)).reason is Reason.NOT_PINNED


@pytest.mark.parametrize(
    ("wanted", "names"),
    [
        (LinuxParameters(classifications_to_include=[LinuxClassification.SECURITY]), {"crit", "sec"}),
        (LinuxParameters(classifications_to_include=[LinuxClassification.CRITICAL]), {"crit", "sec"}),
        (LinuxParameters(classifications_to_include=[LinuxClassification.OTHER]), {"other", "bare.x86_64"}),
        (LinuxParameters(package_name_masks_to_include=["oth*"]), {"other"}),
        (LinuxParameters(package_name_masks_to_include=["bare"]), {"bare.x86_64"}),
        (LinuxParameters(package_name_masks_to_include=["sec=1.0", "crit=9"]), {"sec"}),
    ],
)
def test_a_delay_alone_names_what_the_policy_selects(wanted: LinuxParameters, names: set[str]) -> None:
    patches = assessed(
        package("crit", classifications=["Critical"]),
        package("sec"),
        package("other", classifications=["Other"]),
        package("bare.x86_64", classifications=[]),
    )
    assert {name for name, _ in chosen(choose_packages(wanted, patches, pin=None))} == names


def test_only_packages_that_were_seen_long_enough_ago_are_named() -> None:
    packages = [("old", "1"), ("young", "1"), ("unseen", "1")]
    seen = {("old", "1"): NOW - 7 * DAY, ("young", "1"): NOW - 6 * DAY}
    found = chosen(choose_linux(LINUX, packages, delay=WEEK, first_seen=seen))
    assert found.package_name_masks_to_include == ["old=1"]
    outcome = refused(choose_linux(LINUX, packages[1:], delay=WEEK, first_seen=seen))
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.NOTHING_TO_INSTALL, Reason.APPROVAL_DELAY)
    assert "2026-11-22 02:00 UTC" in outcome.message
    unknown = refused(choose_linux(LINUX, packages[2:], delay=WEEK, first_seen={}))
    assert "not known yet" in unknown.message


def test_nothing_selected_is_not_a_matter_of_age() -> None:
    assert refused(choose_linux(LINUX, [], delay=WEEK, first_seen={})).reason is Reason.NO_PENDING_PATCHES


@given(
    first=st.lists(st.tuples(NAMES, VERSIONS), max_size=8),
    later=st.lists(st.tuples(NAMES, VERSIONS), max_size=8),
    excluded=st.lists(NAMES, max_size=3),
    is_partial=st.booleans(),
)
def test_a_later_ring_never_gets_what_the_first_did_not(
    first: list[tuple[str, str]], later: list[tuple[str, str]], excluded: list[str], is_partial: bool
) -> None:
    pin = pin_of(OsType.LINUX, *(package(name, version) for name, version in first))
    wanted = LINUX.model_copy(update={"package_name_masks_to_exclude": excluded})
    listed = assessed(*(package(name, version) for name, version in later), is_partial=is_partial)
    found = choose_packages(wanted, listed, pin=pin)
    if isinstance(found, Outcome):
        # Nothing to send: there must be no package that could have been.
        could = {name for name, _ in first} - set(excluded)
        assert not could & {name for name, _ in later}
        assert not (is_partial and could)
        return
    assert set(found) <= set(first)
    assert not {name for name, _ in found} & set(excluded)
    sent = chosen(choose_linux(wanted, found, delay=None, first_seen={}))
    # Whatever is sent passes the check of the policy's own fields: the mask is one that the agent reads.
    assert LinuxParameters.model_validate(sent.to_wire()) == sent
    assert sent.classifications_to_include == []


# --- by the policy's own classifications and masks


def test_pinned_packages_that_no_selected_patch_needs_are_not_requested() -> None:
    """A dependency that the first ring got is pinned, and alone is no reason for an installation."""
    pin = pin_of(OsType.LINUX, package("openssl", "1.2"), package("libssl", "1.2", classifications=["Other"]))
    other = package("libssl", "1.3", classifications=["Other"])
    outcome = refused(choose_packages(LINUX, assessed(other), pin=pin))
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.NOTHING_TO_INSTALL, Reason.NO_PENDING_PATCHES)
    both = assessed(other, package("openssl", "1.3"))
    assert choose_packages(LINUX, both, pin=pin) == [("libssl", "1.2"), ("openssl", "1.2")]
    unpinned = assessed(other, package("vim", "9"))
    outcome = refused(choose_packages(LINUX, unpinned, pin=pin))
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.NOTHING_TO_INSTALL, Reason.NOT_PINNED)
    cut_list = assessed(other, is_partial=True)
    assert len(chosen(choose_packages(LINUX, cut_list, pin=pin))) == 2


def test_windows_requests_only_numbers_that_the_policy_selects() -> None:
    pin = pin_of(OsType.WINDOWS, kb(5_000_001), kb(5_000_002))
    updates = kb(5_000_001, classifications=["Updates"])
    outcome = refused(choose_windows(WINDOWS, assessed(updates), pin=pin, delay=None))
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.NOTHING_TO_INSTALL, Reason.NO_PENDING_PATCHES)
    assert outcome.message == "The policy does not select the one pending patch."
    found = chosen(choose_windows(WINDOWS, assessed(updates, kb(5_000_002)), pin=pin, delay=None))
    assert found.kb_numbers_to_include == ["KB5000002"]
    outcome = refused(choose_windows(WINDOWS, assessed(updates, kb(5_000_003)), pin=pin, delay=None))
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.NOTHING_TO_INSTALL, Reason.NOT_PINNED)
    unknown = assessed(kb(5_000_001, classifications=["Brand new"]))
    assert chosen(choose_windows(WINDOWS, unknown, pin=pin, delay=None)).kb_numbers_to_include == ["KB5000001"]


def test_old_patches_that_are_not_selected_do_not_hide_that_the_rest_is_too_young() -> None:
    patches = assessed(kb(5_000_001, days=90, classifications=["Updates"]), kb(5_000_002, days=1))
    outcome = refused(choose_windows(WINDOWS, patches, pin=None, delay=WEEK))
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.NOTHING_TO_INSTALL, Reason.APPROVAL_DELAY)
    assert outcome.message.startswith("All that is pending is younger than 7 days.")


def test_architectures_share_a_pin() -> None:
    """The versions are the same; the agent compares names without the architecture as well."""
    pin = pin_of(OsType.LINUX, package("openssl.x86_64", "1.1-2.el9"), package("tzdata.noarch", "2024a"))
    assert pin.linux == LinuxPin(masks=["openssl=1.1-2.el9", "tzdata=2024a"])
    arm = assessed(package("openssl.aarch64", "1.1-2.el9"))
    assert choose_packages(LINUX, arm, pin=pin) == [("openssl", "1.1-2.el9")]
    excluded = LINUX.model_copy(update={"package_name_masks_to_exclude": ["openssl"]})
    assert refused(choose_packages(excluded, arm, pin=pin)).outcome is OutcomeKind.NOTHING_TO_INSTALL


def test_the_age_of_a_package_is_that_of_all_its_architectures() -> None:
    packages = [("openssl.x86_64", "1"), ("curl.noarch", "2")]
    assert [as_seen(each) for each in packages] == [("openssl", "1"), ("curl", "2")]
    seen = {("openssl", "1"): NOW - 8 * DAY, ("curl", "2"): NOW - DAY}
    found = chosen(choose_linux(LINUX, packages, delay=WEEK, first_seen=seen))
    assert found.package_name_masks_to_include == ["openssl.x86_64=1"]
    young = refused(choose_linux(LINUX, packages[1:], delay=WEEK, first_seen=seen))
    assert "The first is old enough on 2026-11-27 02:00 UTC" in young.message


def test_an_unknown_classification_is_other_where_packages_are_named() -> None:
    new = package("curl", classifications=["Brand new"])
    assert choose_packages(LINUX, assessed(new), pin=None) == []
    other = LinuxParameters(classifications_to_include=[LinuxClassification.OTHER])
    assert choose_packages(other, assessed(new), pin=None) == [("curl", "1.0")]
    pinned = pin_of(OsType.LINUX, new)
    assert choose_packages(LINUX, assessed(new), pin=pinned) == [("curl", "1.0")]


# --- to the letter


@pytest.mark.parametrize(
    ("outcome", "kind", "reason", "message"),
    [
        (
            pin_missing("canary"),
            "skipped",
            "not_pinned",
            "It is not written down what the first ring, canary, installed, so nothing may be installed here. Look at"
            " that ring's machines, then start the run again.",
        ),
        (
            package_list_unknown(),
            "skipped",
            "approval_delay",
            "Azure told how many patches are pending, but not which, so their age is not known. The next run assesses"
            " the machine again.",
        ),
        (
            cannot_be_pinned("Linux/zypper", Pin(from_ring="canary", at=NOW)),
            "skipped",
            "not_pinned",
            "The first ring, canary, has no Linux machine with the package manager zypper, so nothing can be pinned for"
            " this one. Put one into that ring, or say with withoutPin what is done then.",
        ),
        (
            choose_windows(WINDOWS, assessed(kb(5_000_001)), pin=Pin(from_ring="canary", at=NOW), delay=None),
            "skipped",
            "not_pinned",
            "The first ring, canary, installed nothing on Windows machines, so nothing may be installed here. Put a"
            " Windows machine with pending patches into that ring, or set pinRings to false.",
        ),
        (
            choose_packages(LINUX, assessed(package("a"), package("b")), pin=pin_of(OsType.LINUX, package("c"))),
            "nothing_to_install",
            "not_pinned",
            "None of the 2 pending patches was installed in the first ring, canary, or the policy excludes it.",
        ),
        (
            choose_linux(LINUX, [], delay=None, first_seen={}),
            "nothing_to_install",
            "no_pending_patches",
            "The policy selects no pending patch that can be named exactly.",
        ),
        (
            choose_windows(WINDOWS, assessed(kb(5_000_001, days=7)), pin=None, delay=Delay(8, NOW)),
            "nothing_to_install",
            "approval_delay",
            "All that is pending is younger than 8 days. The first is old enough on 2026-11-22 02:00 UTC.",
        ),
    ],
)
def test_why_a_machine_gets_nothing(outcome: object, kind: str, reason: str, message: str) -> None:
    found = refused(outcome)
    assert (found.outcome.value, found.reason.value, found.message) == (kind, reason, message)


def test_the_longest_list_that_is_sent_for_a_machine_whose_list_was_cut() -> None:
    for count, named in ((1_000, 1_000), (1_001, 1)):
        pin = pin_of(OsType.WINDOWS, *(kb(5_000_000 + number) for number in range(count)))
        cut = assessed(kb(5_000_001), is_partial=True)
        assert len(chosen(choose_windows(WINDOWS, cut, pin=pin, delay=None)).kb_numbers_to_include) == named


def test_a_patch_of_exactly_the_delay_is_old_enough() -> None:
    chosen(choose_windows(WINDOWS, assessed(kb(5_000_001, days=7)), pin=None, delay=WEEK))
    assert WEEK.until == NOW - 7 * DAY
    assert WEEK.approved_from(NOW - 7 * DAY) == NOW


def test_pins_round_trip_with_every_field() -> None:
    pin = Pin(
        from_ring="canary",
        at=NOW,
        windows=WindowsPin(kbs=["KB5000001"], published_by=NOW),
        linux=LinuxPin(masks=["a=1", "b=2"]),
        kinds=["Linux/apt", "Windows"],
    )
    assert Pin.model_validate(pin.to_wire()) == pin
    assert (pin.size.kbs, pin.size.packages) == (1, 2)
    assert pin_of(OsType.LINUX, package("a")).kinds is None
    empty = Installed().to_pin("canary", NOW, ["Windows"])
    assert (empty.from_ring, empty.at, empty.windows, empty.linux, empty.kinds) == (
        "canary",
        NOW,
        None,
        None,
        ["Windows"],
    )
    assert (empty.size.kbs, empty.size.packages) == (0, 0)


def test_windows_patches_without_a_number_are_not_pinned_and_linux_ones_need_none() -> None:
    assert pin_of(OsType.WINDOWS, kb(5_000_001, kb_id="")).windows is None
    pinned = pin_of(OsType.LINUX, package("a", kb_id="5000001"))
    assert pinned.linux == LinuxPin(masks=["a=1.0"])
