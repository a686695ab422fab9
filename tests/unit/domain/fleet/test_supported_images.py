"""The table of supported images: what it lists, until when images have updates, and what settings add to it."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.fleet.supported_images import (
    DOCUMENT_DATE,
    FORMER_DATE,
    FORMER_IMAGES,
    IMAGE_TABLE,
    READ_ON,
    SUPPORTED_IMAGES,
    Image,
    ImageExtensionError,
)

GALLERY = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/galleries/a/images/b/versions/1.0.0"


def image(text: str) -> Image:
    found = Image.parse(text)
    assert found is not None
    return found


def test_the_table_is_the_documents() -> None:
    assert (DOCUMENT_DATE.isoformat(), READ_ON.isoformat()) == ("2024-07-31", "2026-12-01")
    assert len(SUPPORTED_IMAGES) == len(set(SUPPORTED_IMAGES)) == 155
    publishers = {image.publisher: 0 for image in SUPPORTED_IMAGES}
    for each in SUPPORTED_IMAGES:
        publishers[each.publisher] += 1
    assert publishers == {
        "AlmaLinux": 9,
        "Canonical": 23,
        "Center-for-Internet-Security-Inc": 19,
        "MicrosoftCblMariner": 7,
        "Microsoft-AKS": 1,
        "Microsoft-DSVM": 8,
        "Redhat": 44,
        "SUSE": 6,
        "MicrosoftWindowsServer": 38,
    }


@pytest.mark.parametrize(
    "text",
    [
        "Canonical:ubuntu-24_04-lts:server:latest",
        "canonical:UBUNTU-24_04-lts:ubuntu-pro",
        "MicrosoftWindowsServer:WindowsServer:2025-datacenter",
        "MicrosoftWindowsServer:WindowsServer:2025-datacenter-azure-edition-core",
        "RedHat:RHEL:9_4:latest",
        "MicrosoftCblMariner:azure-linux-3:azure-linux-3-gen2",
    ],
)
def test_what_has_been_added_since_the_older_page(text: str) -> None:
    assert IMAGE_TABLE.has(image(text))


def test_what_the_older_page_listed_is_listed_or_known_as_taken_off() -> None:
    assert FORMER_DATE.isoformat() == "2021-10-20"
    assert len(FORMER_IMAGES) == 18
    for each in FORMER_IMAGES:
        assert IMAGE_TABLE.had(each)
        assert not IMAGE_TABLE.has(each)
    assert IMAGE_TABLE.had(image("openlogic:centos:7_9:latest"))


@given(st.sampled_from(SUPPORTED_IMAGES), st.sampled_from([str.upper, str.lower, str.swapcase]))
def test_images_are_compared_without_case_and_whatever_their_version(one: Image, respell: type[str]) -> None:
    assert IMAGE_TABLE.has(image(f"{respell(':'.join(one))}:1.0.20261110"))


@given(st.sampled_from(SUPPORTED_IMAGES), st.integers(0, 2))
def test_only_the_exact_combination_counts(one: Image, place: int) -> None:
    parts = list(one)
    parts[place] += "-2"
    assert not IMAGE_TABLE.has(Image(*parts)) or Image(*parts) in SUPPORTED_IMAGES


@pytest.mark.parametrize("text", ["", "a:b", ":b:c", GALLERY, GALLERY + ":1:2"])
def test_what_is_no_marketplace_image(text: str) -> None:
    assert Image.parse(text) is None


# --- end of life -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Canonical:UbuntuServer:16.04-LTS:latest", "2021-04-30"),
        ("Canonical:UbuntuServer:18_04-lts-gen2", "2023-05-31"),
        ("Canonical:0001-com-ubuntu-server-focal:20_04-lts-gen2:20.04.202505200", "2025-05-31"),
        ("Canonical:0001-com-ubuntu-minimal-focal:minimal-20_04-lts", "2025-05-31"),
        ("Canonical:0001-com-ubuntu-pro-focal:pro-20_04-lts", "2030-04-02"),
        ("Canonical:0001-com-ubuntu-server-jammy:22_04-lts", "2027-06-30"),
        ("Canonical:ubuntu-24_04-lts:server-gen1", "2029-05-31"),
        ("OpenLogic:CentOS:7_9:latest", "2024-06-30"),
        ("OpenLogic:CentOS:8_5", "2021-12-31"),
        ("redhat:rhel:7-LVM", "2024-06-30"),
        ("RedHat:RHEL:86-gen2", "2029-05-31"),
        ("RedHat:RHEL:9_6", "2032-05-31"),
        ("SUSE:sles-12-sp5:gen2", "2024-10-31"),
        ("SUSE:sles-15-sp4-basic:gen2", "2023-12-31"),
        ("SUSE:sles-sap-15-sp4:gen2", "2026-12-31"),
        ("MicrosoftCblMariner:cbl-mariner:1-gen2", "2023-08-31"),
        ("MicrosoftCblMariner:cbl-mariner:cbl-mariner-2", "2025-07-31"),
        ("MicrosoftWindowsServer:WindowsServer:2012-R2-Datacenter", "2026-10-13"),
        ("MicrosoftWindowsServer:WindowsServer:2016-Datacenter", "2027-01-12"),
        ("MicrosoftWindowsServer:WindowsServer:2025-datacenter-g2", "2034-10-10"),
    ],
)
def test_the_last_day_with_updates(text: str, expected: str) -> None:
    assert IMAGE_TABLE.end_of_life(text) == date.fromisoformat(expected)
    assert IMAGE_TABLE.end_of_life(text.upper()) == date.fromisoformat(expected)


@pytest.mark.parametrize("text", ["", GALLERY, "Canonical:ubuntu-24_04-lts:ubuntu-pro", "RedHat:RHEL:10-lvm", "a:b:c"])
def test_of_others_it_is_not_known(text: str) -> None:
    assert IMAGE_TABLE.end_of_life(text) is None


# --- what settings add -----------------------------------------------------------------------------------------


def test_images_are_added_one_by_one_and_as_families() -> None:
    table = IMAGE_TABLE.extend(["Canonical:ubuntu-26_04-lts:server", "contoso:hardened*:*"])
    assert table.has(image("canonical:ubuntu-26_04-LTS:server:latest"))
    assert not table.has(image("canonical:ubuntu-26_04-lts:server-arm64"))
    assert table.has(image("Contoso:Hardened-rhel:9"))
    assert table.has(image("Canonical:ubuntu-24_04-lts:server"))
    assert not IMAGE_TABLE.has(image("canonical:ubuntu-26_04-lts:server"))


def test_a_date_of_ones_own_counts_before_the_tables() -> None:
    golden = "/subscriptions/s/resourceGroups/g/providers/Microsoft.Compute/galleries/a/images/golden"
    table = IMAGE_TABLE.extend(ends=["RedHat:RHEL:7*=2028-06-30", f"{golden}*=2026-01-31"])
    assert table.end_of_life("redhat:rhel:7_9:latest") == date(2028, 6, 30)
    assert table.end_of_life(f"{golden.upper()}/versions/1.2.3") == date(2026, 1, 31)
    assert table.end_of_life("OpenLogic:CentOS:7_9") == date(2024, 6, 30)


def test_no_sign_but_the_asterisk_is_special() -> None:
    table = IMAGE_TABLE.extend(["contoso:web.server:1"])
    assert not table.has(image("contoso:webxserver:1"))


@pytest.mark.parametrize(
    ("images", "ends", "reason"),
    [
        (["ubuntu"], [], "'ubuntu' is no publisher:offer:sku"),
        (["a:b:c:latest"], [], "'a:b:c:latest' is no publisher:offer:sku, without a version"),
        (["a:b:[c]"], [], "is no publisher:offer:sku"),
        ([], ["a:b:c"], "'a:b:c' has no date: write publisher:offer:sku=YYYY-MM-DD"),
        ([], ["a:b:c=soon"], "'soon' of a:b:c is no date as YYYY-MM-DD"),
        ([], ["a:b:c=2026-02-30"], "'2026-02-30' of a:b:c is no date as YYYY-MM-DD"),
        ([], ["a:b:c=20260228"], "'20260228' of a:b:c is no date as YYYY-MM-DD"),
        ([], ["golden=2026-02-28"], "'golden' is no publisher:offer:sku, and no id of a custom image"),
        (["a:b:c"] * 501, [], "501 entries; at most 500"),
    ],
)
def test_what_cannot_be_added_is_named_with_its_reason(images: list[str], ends: list[str], reason: str) -> None:
    with pytest.raises(ImageExtensionError) as raised:
        IMAGE_TABLE.extend(images, ends)
    assert reason in str(raised.value)


def test_all_mistakes_are_said_at_once() -> None:
    with pytest.raises(ImageExtensionError) as raised:
        IMAGE_TABLE.extend(["one", "two"], ["three"])
    assert [name in str(raised.value) for name in ("'one'", "'two'", "'three'")] == [True] * 3
