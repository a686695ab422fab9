"""Which addresses may be called: the public ones, private ones when asked for, never those with secrets."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.core.egress import canonical, refusal

ALWAYS_REFUSED = [
    "169.254.169.254",
    "169.254.129.1",
    "168.63.129.16",
    "127.0.0.1",
    "127.8.9.10",
    "::1",
    "0.0.0.0",
    "::",
    "fe80::1",
    "fe80::1%eth0",
    "224.0.0.1",
    "ff02::1",
    "255.255.255.255",
    "240.0.0.1",
    "0.1.2.3",
    "192.0.2.1",
    # Metadata of other clouds, in private ranges.
    "fd00:ec2::254",
    "100.100.100.200",
    "::ffff:100.100.100.200",
    # The same addresses, dressed as IPv6.
    "::ffff:169.254.169.254",
    "::ffff:a83f:8110",
    "::ffff:127.0.0.1",
    "64:ff9b::a9fe:a9fe",
    "64:ff9b::a83f:8110",
    "2002:a9fe:a9fe::1",
    "2002:7f00:1::",
    "::169.254.169.254",
    "::127.0.0.1",
    "::ffff:0:169.254.169.254",
    # Never given out to anybody, or no longer.
    "fec0::1",
    "4000::1",
]
PRIVATE = ["10.0.0.4", "172.16.5.5", "192.168.1.1", "100.64.0.1", "fd12:3456:789a::1", "::ffff:10.0.0.4"]
PUBLIC = ["20.50.2.1", "1.1.1.1", "2603:1020::1", "::ffff:20.50.2.1", "64:ff9b::1432:201"]


@pytest.mark.parametrize("address", ALWAYS_REFUSED)
@pytest.mark.parametrize("private_allowed", [True, False])
def test_never(address: str, private_allowed: bool) -> None:
    assert refusal(address, private_allowed=private_allowed)


@pytest.mark.parametrize("address", PRIVATE)
def test_private_addresses_where_they_are_allowed(address: str) -> None:
    assert refusal(address, private_allowed=False)
    assert refusal(address, private_allowed=True) == ""


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses(address: str) -> None:
    assert refusal(address, private_allowed=False) == ""


@pytest.mark.parametrize("address", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_loopback_for_tests(address: str) -> None:
    assert refusal(address, private_allowed=False, loopback_allowed=True) == ""


def test_loopback_for_tests_opens_nothing_else() -> None:
    assert refusal("169.254.169.254", private_allowed=True, loopback_allowed=True)
    assert refusal("10.0.0.4", private_allowed=False, loopback_allowed=True)


@pytest.mark.parametrize("text", ["", "localhost", "metadata.azure.internal", "0x7f.1", "2130706433", "127.1"])
def test_what_is_no_address_is_refused(text: str) -> None:
    assert refusal(text, private_allowed=True)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("::ffff:10.1.2.3", "10.1.2.3"),
        ("::FFFF:0A01:0203", "10.1.2.3"),
        ("10.1.2.3", "10.1.2.3"),
        ("FE80::1%eth0", "fe80::1"),
        ("2001:0db8::0001", "2001:db8::1"),
        ("Web.Example.org", "web.example.org"),
    ],
)
def test_a_host_is_written_in_one_way(host: str, expected: str) -> None:
    assert canonical(host) == expected


@given(st.ip_addresses(v=4))
def test_an_address_mapped_into_ipv6_is_judged_as_itself(address: ipaddress.IPv4Address) -> None:
    for private_allowed in (True, False):
        plain = refusal(str(address), private_allowed=private_allowed)
        assert refusal(f"::ffff:{address}", private_allowed=private_allowed) == plain
