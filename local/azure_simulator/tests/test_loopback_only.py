"""Only programs on this machine are served, should the simulator ever listen elsewhere."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.requests import Request

from local.azure_simulator.server.app import is_loopback


@pytest.mark.parametrize(
    ("peer", "served"),
    [
        (("127.0.0.1", 50_000), True),
        (("127.8.9.10", 50_000), True),
        (("::1", 50_000), True),
        (("::ffff:127.0.0.1", 50_000), True),
        (("::ffff:10.1.2.3", 50_000), False),
        (("10.0.0.4", 50_000), False),
        (("192.168.1.20", 50_000), False),
        (("fe80::1", 50_000), False),
        (("8.8.8.8", 443), False),
        (("localhost", 50_000), False),
        (("", 0), False),
        (None, False),
    ],
)
def test_only_peers_on_this_machine_are_served(peer: Any, served: bool) -> None:
    # What the caller claims in a header is not looked at.
    headers = [(b"x-forwarded-for", b"127.0.0.1"), (b"host", b"localhost")]
    assert is_loopback(Request({"type": "http", "client": peer, "headers": headers})) is served
