"""What the environment may say of the network: a proxy, where it names one, and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from aiohttp import web

from patchwave.azure.transport import transport_options
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.instance_view import MachineView
from patchwave.storage import Storage
from tests.support.arm_server import CALLS, TOKEN, Call, Server, servers, settings_of

__all__ = ["servers"]
_PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


@pytest.fixture(autouse=True)
def _no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _PROXIES:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def _passwords(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    path = tmp_path / "netrc"
    path.write_text("machine localhost login other password else\nmachine 127.0.0.1 login some password body\n")
    path.chmod(0o600)
    monkeypatch.setenv("NETRC", str(path))


@pytest.mark.usefixtures("_passwords")
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_a_password_in_netrc_takes_no_part(servers: tuple[Server, Server], call: Call) -> None:
    """aiohttp refuses to send it beside a token, after a wait for a thread that has read the file."""
    manager, _ = servers
    await call(settings_of(manager))
    assert [token for _, _, token in manager.seen] == [TOKEN]


@pytest.mark.usefixtures("_passwords")
async def test_nor_does_it_for_tables(storage: Storage) -> None:
    assert await storage.runs.get("20261110T190000Z-monthly") is None


@pytest.fixture
async def proxy() -> AsyncIterator[list[str]]:
    """A proxy on loopback that refuses every request: its address, and then what it was asked for."""
    asked: list[str] = []

    async def handle(request: web.BaseRequest) -> web.Response:
        asked.append(f"{request.method} {request.raw_path}")
        return web.Response(status=403)

    runner = web.ServerRunner(web.Server(handle))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    asked.append(f"http://127.0.0.1:{runner.addresses[0][1]}")
    yield asked
    await runner.cleanup()


async def test_requests_take_the_proxy_that_is_named(
    servers: tuple[Server, Server], proxy: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    manager, _ = servers
    monkeypatch.setenv("HTTPS_PROXY", proxy[0])
    found = await CALLS["a read"](settings_of(manager))
    assert isinstance(found, ArmFailure)
    assert proxy[1:] == [f"CONNECT {manager.url.removeprefix('https://')}"]
    monkeypatch.setenv("NO_PROXY", "localhost")
    assert isinstance(await CALLS["a read"](settings_of(manager)), MachineView)
    assert len(proxy) == 2


@pytest.mark.parametrize(("name", "asked"), [("https_proxy", True), ("ALL_PROXY", True), ("no_proxy", False)])
def test_the_environment_is_read_only_when_it_names_a_proxy(
    monkeypatch: pytest.MonkeyPatch, name: str, asked: bool
) -> None:
    assert transport_options() == {"use_env_settings": False}
    monkeypatch.setenv(name, "http://proxy.example:3128")
    assert transport_options() == {"use_env_settings": asked}
