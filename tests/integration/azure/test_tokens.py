"""Where the bearer token goes: to the Resource Manager host, and nowhere else, whatever an answer says.

Two real TLS servers under one authority: the one that the settings name, and one that would like to have the token.
"""

from __future__ import annotations

import pytest

from patchwave.azure.virtual_machines import ResourceManager
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.operation import PollState
from tests.support.arm_server import CALLS, MACHINE, OPERATION, TOKEN, Call, Credential, Server, servers, settings_of

__all__ = ["servers"]


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_no_redirect_takes_the_token_elsewhere(servers: tuple[Server, Server], call: Call, status: int) -> None:
    manager, elsewhere = servers
    manager.answer = (status, {"Location": elsewhere.url + "/take-it"}, "")
    await call(settings_of(manager))
    assert [token for _, _, token in manager.seen] == [TOKEN]
    assert elsewhere.seen == []


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
async def test_no_redirect_sends_a_request_twice(servers: tuple[Server, Server], call: Call) -> None:
    manager, _ = servers
    manager.answer = (307, {"Location": manager.url + "/again"}, "")
    await call(settings_of(manager))
    assert len(manager.seen) == 1


@pytest.mark.parametrize("name", ["Azure-AsyncOperation", "Location"])
async def test_an_operation_on_another_host_is_lost_and_not_polled(servers: tuple[Server, Server], name: str) -> None:
    manager, elsewhere = servers
    settings = settings_of(manager)
    manager.answer = (202, {name: elsewhere.url + OPERATION}, "")
    client = ResourceManager(settings, Credential())
    try:
        accepted = await client.start(MACHINE)
        assert accepted.accepted
        reading = await client.poll(MACHINE, accepted.async_url, accepted.location_url)
    finally:
        await client.close()
    assert reading.state is PollState.LOST
    assert elsewhere.seen == []


async def test_a_next_page_on_another_host_is_not_requested(servers: tuple[Server, Server]) -> None:
    manager, elsewhere = servers
    manager.answer = (200, {}, f'{{"value": [], "nextLink": "{elsewhere.url}{OPERATION}"}}')
    found = await CALLS["alerts"](settings_of(manager))
    assert isinstance(found, ArmFailure)
    assert len(manager.seen) == 1
    assert elsewhere.seen == []


async def test_a_challenge_that_names_another_authority_gets_no_second_token(servers: tuple[Server, Server]) -> None:
    manager, elsewhere = servers
    challenge = f'Bearer authorization="{elsewhere.url}/login", resource="{elsewhere.url}"'
    manager.answer = (401, {"WWW-Authenticate": challenge}, "{}")
    credential = Credential()
    settings = settings_of(manager)
    client = ResourceManager(settings, credential)
    try:
        await client.read_machine(MACHINE)
    finally:
        await client.close()
    assert set(credential.scopes) == {settings.manager_scope}
    assert elsewhere.seen == []
