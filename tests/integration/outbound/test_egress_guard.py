"""What probes and notifications never reach, however its address is written and whatever a name leads to."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
from pydantic import SecretStr

from patchwave.domain.machine.http_probe import ProbeFailure
from patchwave.domain.policy.http_probe import Probe
from patchwave.outbound.egress_guard import EgressGuard
from patchwave.outbound.http_probe import HttpProbe
from patchwave.outbound.notifications import ChannelSender, Outgoing
from patchwave.settings import Settings
from tests.support.factories import machine

NAME = "shop.example.org"


async def probe(host: str) -> str:
    """Probe a host that the operator allows, in an installation that allows private addresses; why it was not sent."""
    settings = Settings(tables_connection=SecretStr("x"), probe_hosts=host, probe_allow_private=True)
    answer = await HttpProbe(settings).send(Probe(url=f"http://{host}/metadata", timeout_seconds=5), machine(1))
    assert isinstance(answer, ProbeFailure)
    assert not answer.was_tried
    return answer.detail


async def notify(host: str) -> str:
    """Tell a webhook of a private network; why it was not told."""
    outgoing = Outgoing(url=f"https://{host}/in", body=b"{}", headers={}, private_allowed=True)
    delivery = await ChannelSender().post(outgoing)
    assert not delivery.sent
    assert not delivery.may_pass
    return delivery.failure


type Send = Callable[[str], Awaitable[str]]
SENDERS: dict[str, Send] = {"probe": probe, "notification": notify}

both = pytest.mark.parametrize("send", SENDERS.values(), ids=SENDERS)


@pytest.fixture
def connections(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Every socket that was made: there must be none."""
    made: list[Any] = []
    monkeypatch.setattr(
        "patchwave.outbound.egress_guard.socket", SimpleNamespace(socket=lambda *given: made.append(given))
    )
    return made


@both
@pytest.mark.parametrize(
    "host",
    [
        "169.254.169.254",
        "2852039166",
        "0xa9fea9fe",
        "0xA9.0xFE.0xA9.0xFE",
        "0251.0376.0251.0376",
        "169.254.43518",
        "169.16689662",
        "127.1",
        "0",
        "017700000001",
    ],
)
async def test_numbers_do_not_hide_an_address(send: Send, host: str, connections: list[Any]) -> None:
    assert await send(host)
    assert connections == []


@pytest.mark.parametrize(
    "host",
    ["[::ffff:169.254.169.254]", "[::ffff:a9fe:a9fe]", "[fd00:ec2::254]", "[64:ff9b::a9fe:a9fe]", "[fe80::1]", "[::1]",
     "[::]", "[0:0:0:0:0:ffff:7f00:1]"],
)  # fmt: skip
async def test_ipv6_forms_are_judged_as_the_address_they_embed(host: str, connections: list[Any]) -> None:
    assert "must not be called" in await notify(host)
    assert connections == []
    # A policy cannot even name one.
    with pytest.raises(ValueError):
        Probe(url=f"http://{host}/")


@both
@pytest.mark.parametrize(
    "address",
    ["169.254.169.254", "127.0.0.1", "168.63.129.16", "100.100.100.200", "::1", "fe80::1", "fd00:ec2::254",
     "::ffff:169.254.169.254"],
)  # fmt: skip
async def test_a_name_that_leads_to_an_endpoint_with_secrets(
    send: Send, address: str, monkeypatch: pytest.MonkeyPatch, connections: list[Any]
) -> None:
    resolved: list[object] = []

    def resolve(host: object, port: Any, *_: Any, **__: Any) -> list[Any]:
        resolved.append(host)
        found = address if len(resolved) == 1 else "8.8.8.8"
        if ":" in found:
            return [(socket.AF_INET6, socket.SOCK_STREAM, 6, "", (found, port, 0, 0))]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (found, port))]

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    assert await send(NAME)
    assert connections == []
    # The name was asked for once: what was judged is what would have been connected to.
    assert resolved == [NAME]


@both
async def test_where_the_app_gets_its_tokens_is_not_called_in_a_private_network_either(
    send: Send, monkeypatch: pytest.MonkeyPatch, connections: list[Any]
) -> None:
    monkeypatch.setenv("IDENTITY_ENDPOINT", "http://10.0.0.9:8081/msi/token")
    assert "gets its tokens" in await send("10.0.0.9")
    assert connections == []


@pytest.mark.parametrize("endpoint", ["http://10.1.2.3:8081/msi/token", "http://[::ffff:10.1.2.3]:8081/msi/token"])
@pytest.mark.parametrize("address", ["10.1.2.3", "::ffff:10.1.2.3", "::ffff:a01:203", "64:ff9b::10.1.2.3"])
def test_an_address_in_ipv6_form_is_the_one_that_it_embeds(
    monkeypatch: pytest.MonkeyPatch, endpoint: str, address: str
) -> None:
    """Where private addresses may be called, the endpoint with the app's tokens was, in this form."""
    monkeypatch.setenv("IDENTITY_ENDPOINT", endpoint)
    gate = EgressGuard(private_allowed=True)
    with pytest.raises(PermissionError, match="gets its tokens"):
        gate.open((socket.AF_INET6, socket.SOCK_STREAM, 6, "", (address, 8081, 0, 0)))


def test_the_socket_of_an_allowed_address_is_made_for_that_address() -> None:
    gate = EgressGuard(private_allowed=False)
    made = gate.open((socket.AF_INET, socket.SOCK_STREAM, 6, "", ("8.8.8.8", 443)))
    made.close()
    assert (made.family, gate.refusal) == (socket.AF_INET, "")
