"""Probes against servers on loopback: results, and hosts that are never called."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.resolver import ThreadedResolver
from pydantic import SecretStr

from patchwave.domain.machine.http_probe import ProbeAnswer, ProbeFailure
from patchwave.domain.policy.http_probe import Probe
from patchwave.outbound.http_probe import MAX_BODY, HttpProbe
from patchwave.settings import Settings
from tests.support.factories import machine
from tests.support.loopback_server import AUTHORITY, serving


class Server:
    """Answers by path, and counts what arrives."""

    def __init__(self) -> None:
        self.seen: list[web.Request] = []
        self.url = ""
        self.tls_url = ""

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request)
        match request.path:
            case "/redirect":
                raise web.HTTPFound("/ready")
            case "/broken":
                return web.Response(status=503, text="no")
            case "/slow":
                await asyncio.sleep(10)
                return web.Response()
            case "/late-text":
                return web.Response(text="x" * MAX_BODY + "ready")
            case "/endless":
                answer = web.StreamResponse()
                await answer.prepare(request)
                while True:
                    await answer.write(b"x" * 8192)
            case "/drop":
                if request.transport is not None:
                    request.transport.close()
                return web.Response()
            case _:
                return web.Response(text="ready")


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    async with serving(server.handle, tls=False) as server.url, serving(server.handle) as server.tls_url:
        yield server


def prober(*, loopback_allowed: bool = True, trusts: bool = True, **settings: Any) -> HttpProbe:
    fields: dict[str, Any] = {"tables_connection": SecretStr("x"), "probe_hosts": "localhost"} | settings
    tls = ssl.create_default_context()
    if trusts:
        AUTHORITY.configure_trust(tls)
    return HttpProbe(Settings(**fields), loopback_allowed=loopback_allowed, tls=tls)


async def send(url: str, using: HttpProbe | None = None, **fields: Any) -> ProbeAnswer | ProbeFailure:
    return await (using or prober()).send(Probe(url=url, **fields), machine(1))


async def test_an_answer(server: Server) -> None:
    assert await send(f"{server.url}/ready") == ProbeAnswer(200)
    assert await send(f"{server.tls_url}/ready", contains="ready") == ProbeAnswer(200, "ready")
    assert await send(f"{server.url}/broken") == ProbeAnswer(503)


async def test_values_of_the_machine_arrive_encoded_and_nothing_else_does(server: Server) -> None:
    await send(f"{server.url}/{{name}}?owner={{tag:owner}}")
    (request,) = server.seen
    assert request.raw_path == "/vm-1?owner=team-a"
    assert request.method == "GET"
    assert {"authorization", "cookie", "metadata", "x-identity-header"}.isdisjoint(
        name.casefold() for name in request.headers
    )


async def test_redirects_are_not_followed(server: Server) -> None:
    assert await send(f"{server.url}/redirect") == ProbeAnswer(302)
    assert [request.path for request in server.seen] == ["/redirect"]


async def test_only_the_beginning_of_a_body_is_read(server: Server) -> None:
    for path in ("/late-text", "/endless"):
        answer = await send(f"{server.url}{path}", contains="ready")
        assert isinstance(answer, ProbeAnswer)
        assert answer.body == "x" * MAX_BODY


async def test_a_slow_answer_is_given_up(server: Server) -> None:
    answer = await send(f"{server.url}/slow", timeout_seconds=1)
    assert answer == ProbeFailure("got no answer within 1 s", was_tried=True)


async def test_a_connection_that_breaks_off(server: Server) -> None:
    answer = await send(f"{server.url}/drop")
    assert isinstance(answer, ProbeFailure)
    assert answer.was_tried


async def test_a_refused_connection() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        answer = await send(f"http://127.0.0.1:{taken.getsockname()[1]}/", prober(probe_hosts="127.0.0.1"))
    assert isinstance(answer, ProbeFailure)
    assert answer.was_tried


async def test_a_certificate_of_a_foreign_authority(server: Server) -> None:
    answer = await send(f"{server.tls_url}/ready", prober(trusts=False))
    assert answer == ProbeFailure("met a certificate that is not trusted", was_tried=True)
    assert server.seen == []


@pytest.mark.parametrize("hosts", ["", "example.org", "*.localhost"])
async def test_hosts_that_are_not_listed_are_not_called(server: Server, hosts: str) -> None:
    answer = await send(f"{server.url}/ready", prober(probe_hosts=hosts))
    assert isinstance(answer, ProbeFailure)
    assert not answer.was_tried
    assert "PATCHWAVE_PROBE_HOSTS" in answer.detail
    assert server.seen == []


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "0x7f.1", "2130706433"])
async def test_this_machine_is_not_called_under_any_name(server: Server, host: str) -> None:
    url = server.url.replace("localhost", host)
    answer = await send(f"{url}/ready", prober(loopback_allowed=False, probe_hosts=host, probe_allow_private=True))
    assert isinstance(answer, ProbeFailure)
    assert not answer.was_tried
    assert server.seen == []


@pytest.mark.parametrize(
    ("host", "why"),
    [("169.254.169.254", "link-local"), ("168.63.129.16", "platform endpoint"), ("10.0.0.4", "not public")],
)
async def test_addresses_that_are_never_called(host: str, why: str) -> None:
    answer = await send(f"http://{host}/", prober(probe_hosts=host))
    assert isinstance(answer, ProbeFailure)
    assert not answer.was_tried
    assert why in answer.detail


async def test_a_name_that_changes_its_address_gains_nothing(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    async def resolve(_: object, host: str, port: int = 0, family: int = 0) -> list[dict[str, Any]]:
        asked.append(host)
        address = "127.0.0.1" if len(asked) == 1 else "8.8.8.8"
        return [{"hostname": host, "host": address, "port": port, "family": socket.AF_INET, "proto": 0, "flags": 0}]

    monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
    url = server.url.replace("localhost", "shop.example.org")
    answer = await send(f"{url}/ready", prober(loopback_allowed=False, probe_hosts="*.example.org"))
    assert isinstance(answer, ProbeFailure)
    assert not answer.was_tried
    assert asked == ["shop.example.org"], "the address that was checked is the one that would be called"
    assert server.seen == []


async def test_a_name_that_does_not_resolve(monkeypatch: pytest.MonkeyPatch) -> None:
    async def resolve(*_: object, **__: object) -> list[dict[str, Any]]:
        raise OSError("no such name")

    monkeypatch.setattr(ThreadedResolver, "resolve", resolve)
    answer = await send("http://gone.example.org/", prober(probe_hosts="*.example.org"))
    assert answer == ProbeFailure("was not sent: its host could not be resolved", was_tried=False)


async def test_a_machine_without_the_tag() -> None:
    answer = await send("http://{tag:host}.example.org/")
    assert isinstance(answer, ProbeFailure)
    assert not answer.was_tried
