"""Which network addresses a request may go to when a user or a policy chose its target.

Some answer every process on the machine and hand out secrets: the instance metadata service, Azure's platform
endpoint, the identity endpoint of the function host. A name can be made to point at them, so the check is made on the
address that is about to be called, never on the name.
"""

import ipaddress

AZURE_PLATFORM = ipaddress.ip_address("168.63.129.16")
"""DHCP, DNS and the guest agent's endpoint in every virtual network; a public address by its number."""
OTHER_METADATA = frozenset(ipaddress.ip_address(text) for text in ("fd00:ec2::254", "100.100.100.200", "192.0.0.192"))
"""Instance metadata of other clouds, in ranges that count as private: a machine on Azure may have a way to them."""

_GLOBAL_IPV6 = ipaddress.ip_network("2000::/3")
"""All addresses that are allocated (RFC 4291). What Python calls global includes site-local addresses (fec0::/10) and
the outdated forms that hold an IPv4 address, such as ``::169.254.169.254``."""
_NAT64 = ipaddress.ip_network("64:ff9b::/96")
_PRIVATE = [
    ipaddress.ip_network(text)
    for text in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10", "fc00::/7")
]
"""Written out: what Python calls private includes this machine and networks for documentation."""


def refusal(address: str, *, private_allowed: bool, loopback_allowed: bool = False) -> str:
    """Why no request may go to an IP address; empty when one may.

    Args:
        address: in numbers, such as ``10.0.0.4`` or ``fe80::1%eth0``.
        private_allowed: whether private networks (RFC 1918, RFC 6598, unique local IPv6) are a fair target.
        loopback_allowed: for tests that serve on this machine.
    """
    try:
        target = _parse(address)
    except ValueError:
        return "is no IP address"
    if target == AZURE_PLATFORM:
        return "is Azure's platform endpoint"
    if target in OTHER_METADATA:
        return "is a metadata endpoint"
    if target.is_loopback:
        return "" if loopback_allowed else "is this machine itself"
    if target.is_link_local:
        return "is link-local, where the metadata and identity endpoints are"
    if target.is_multicast or target.is_unspecified:
        return "is no single machine"
    if target.is_global and (target.version == 4 or target in _GLOBAL_IPV6):
        return ""
    is_private = any(target in network for network in _PRIVATE)
    return "" if is_private and private_allowed else "is not public"


def canonical(host: str) -> str:
    """The one way to write a host: an address in numbers as the one that it stands for, a name in lower case.

    >>> canonical("::ffff:10.1.2.3")
    '10.1.2.3'
    """
    try:
        return str(_parse(host))
    except ValueError:
        return host.lower()


type _Address = ipaddress.IPv4Address | ipaddress.IPv6Address


def _parse(address: str) -> _Address:
    return _meant(ipaddress.ip_address(address.partition("%")[0]))


def _meant(address: _Address) -> _Address:
    """The IPv4 address inside an IPv6 one that stands for it: mapped, 6to4, Teredo's client, NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return address
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
    return address
