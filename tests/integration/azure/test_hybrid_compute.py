"""Arc machines against a TLS server on loopback: what is read, sent and polled, and what becomes of odd answers."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest
from aiohttp import web
from pydantic import SecretStr

from patchwave.azure.clients import close_clients
from patchwave.azure.virtual_machines import ResourceManager
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.hybrid_machine import HybridMachineView
from patchwave.domain.azure.install_request import InstallParameters, LinuxParameters, RebootSetting
from patchwave.domain.azure.operation import OperationKind, PollState
from patchwave.settings import Settings
from tests.support.arm_server import ARC, Credential
from tests.support.factories import SUBSCRIPTION, intent
from tests.support.loopback_server import AUTHORITY, serving

ACTIVITY = "11111111-0000-0000-0000-000000000002"
LOCATION = (
    f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.HybridCompute/locations/westeurope"
    f"/updateCenterOperationResults/{ACTIVITY}?api-version=2026-07-15&t=638&c=MII&s=aT9F&h=ZqaW"
)
BODY = {"id": ARC.text, "tags": {"site": "a"}, "properties": {"status": "Connected", "osType": "linux"}}
LATEST = {"properties": {"rebootPending": True, "lastModifiedDateTime": "2026-11-21T10:00:00Z", "status": "Succeeded"}}
INSTALLED = {
    "status": "Succeeded",
    "installationActivityId": ACTIVITY,
    "startDateTime": "2026-11-21T10:00:00Z",
    "rebootStatus": "NotNeeded",
    "installedPatchCount": 2,
}
RUN = "20261121T000000Z-monthly"


class Azure:
    """Resource Manager and Resource Graph, by path; keeps the requests with their bodies and queries."""

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, Any]] = []
        self.queries: list[str] = []
        self.answers: dict[str, tuple[int, Any]] = {ARC.text: (200, BODY)}
        self.rows: list[dict[str, Any]] | int = []
        self.headers: dict[str, str] = {}
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        body: Any = await request.json() if request.can_read_body else None
        if request.path.endswith("/Microsoft.ResourceGraph/resources"):
            self.queries.append(body["query"])
            if isinstance(self.rows, int):
                return web.json_response({}, status=self.rows)
            return web.json_response({"data": self.rows, "count": len(self.rows)})
        self.seen.append((request.method, request.path_qs, body))
        status, answer = self.answers.get(request.path, (404, {"error": {"code": "ResourceNotFound"}}))
        text = "" if answer is None else json.dumps(answer)
        headers = {name: value.replace("HOST", self.url) for name, value in self.headers.items()}
        return web.Response(status=status, text=text, headers=headers, content_type="application/json")


@pytest.fixture
async def azure(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Azure]:
    trust = ssl.create_default_context()
    AUTHORITY.configure_trust(trust)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trust)
    server = Azure()
    async with serving(server.handle) as server.url:
        yield server


def settings_of(url: str, poll_seconds: float = 0.05) -> Settings:
    limits = "reads=600000/10000,arcRequests=600000/10000"
    return Settings(resource_manager=url, tables_connection=SecretStr("x"), poll_seconds=poll_seconds, limits=limits)


@pytest.fixture
async def manager(azure: Azure) -> AsyncIterator[ResourceManager]:
    client = ResourceManager(settings_of(azure.url), Credential())
    yield client
    await client.close()
    await close_clients()


def row(name: str, **properties: Any) -> dict[str, Any]:
    above = f"{ARC}/patchInstallationResults/{ACTIVITY}"
    return {"id": f"{above}/softwarePatches/{name}", "properties": {"patchName": name} | properties}


async def test_a_machine_is_read_with_its_latest_assessment_and_newest_installation(
    azure: Azure, manager: ResourceManager
) -> None:
    azure.answers[f"{ARC}/patchAssessmentResults/latest"] = (200, LATEST)
    azure.rows = [{"machine": ARC.folded, "properties": INSTALLED}]
    found = await manager.read_machine(ARC)
    assert isinstance(found, HybridMachineView)
    assert (found.is_up, found.tags, found.os_type) == (True, {"site": "a"}, "linux")
    assert found.last_assessment is not None
    assert found.last_assessment.reboot_pending is True
    assert found.last_installation is not None
    assert found.last_installation.activity_id == ACTIVITY
    assert {path for _, path, _ in azure.seen} == {
        f"{ARC}?api-version=2026-07-15",
        f"{ARC}/patchAssessmentResults/latest?api-version=2026-07-15",
    }


async def test_one_query_tells_the_newest_installations_of_all_machines(azure: Azure) -> None:
    client = ResourceManager(settings_of(azure.url, poll_seconds=30), Credential())
    try:
        for _ in range(3):
            await client.read_machine(ARC)
    finally:
        await client.close()
    [query] = azure.queries
    assert "summarize arg_max(startedAt, id, properties) by machine" in query


@pytest.mark.parametrize("status", [403, 404])
async def test_without_an_assessment_nothing_is_known_of_it(
    azure: Azure, manager: ResourceManager, status: int
) -> None:
    azure.answers[f"{ARC}/patchAssessmentResults/latest"] = (status, {"error": {"code": "x"}})
    found = await manager.read_machine(ARC)
    assert isinstance(found, HybridMachineView)
    assert found.last_assessment is None


@pytest.mark.parametrize("path", [f"{ARC}/patchAssessmentResults/latest", ARC.text])
async def test_what_cannot_be_read_now_is_a_failure(azure: Azure, manager: ResourceManager, path: str) -> None:
    azure.answers[path] = (503, {"error": {"code": "ServerBusy", "message": "later"}})
    found = await manager.read_machine(ARC)
    assert isinstance(found, ArmFailure)
    assert found.code == "ServerBusy"


async def test_what_became_of_a_call_is_asked_for_now_and_not_guessed(azure: Azure, manager: ResourceManager) -> None:
    azure.rows = [{"id": f"{ARC}/patchInstallationResults/{ACTIVITY}", "properties": INSTALLED}]
    found = await manager.read_machine(ARC, settles=True)
    assert isinstance(found, HybridMachineView)
    assert found.last_installation is not None
    assert found.last_installation.activity_id == ACTIVITY
    assert f"id startswith '{ARC}/patchInstallationResults/'" in azure.queries[-1]
    azure.rows = 429
    assert isinstance(await manager.read_machine(ARC, settles=True), ArmFailure)
    # For everything else it would only be good to know.
    assert isinstance(await manager.read_machine(ARC), HybridMachineView)


async def test_an_assessment_is_one_post_with_an_empty_body(azure: Azure, manager: ResourceManager) -> None:
    azure.answers[f"{ARC}/assessPatches"] = (202, None)
    azure.headers = {"Location": f"HOST{LOCATION}", "Retry-After": "60"}
    sent = await manager.assess(ARC, "westeurope", intent(RUN, kind=OperationKind.ASSESS))
    assert (sent.accepted, sent.async_url, sent.location_url) == (True, "", azure.url + LOCATION)
    assert azure.seen == [("POST", f"{ARC}/assessPatches?api-version=2026-07-15", {})]


async def test_an_installation_says_how_long_it_may_take_and_how_it_restarts(
    azure: Azure, manager: ResourceManager
) -> None:
    azure.answers[f"{ARC}/installPatches"] = (202, None)
    azure.headers = {"Location": f"HOST{LOCATION}"}
    parameters = InstallParameters(
        maximum_duration=timedelta(hours=2),
        reboot_setting=RebootSetting.IF_REQUIRED,
        linux_parameters=LinuxParameters.model_validate({"classificationsToInclude": ["Security"]}),
    )
    sent = await manager.install(ARC, "westeurope", parameters, intent(RUN))
    assert sent.accepted
    assert azure.seen[0][2] == {
        "maximumDuration": "PT2H",
        "rebootSetting": "IfRequired",
        "linuxParameters": {"classificationsToInclude": ["Security"]},
    }


@pytest.mark.parametrize(("status", "is_open"), [(400, False), (403, False), (404, False), (409, True), (503, True)])
async def test_a_refusal_is_a_value_and_is_sent_once(
    azure: Azure, manager: ResourceManager, status: int, is_open: bool
) -> None:
    azure.answers[f"{ARC}/installPatches"] = (status, {"error": {"code": "HCRP409", "message": "still processing"}})
    azure.headers = {"Retry-After": "0"}
    parameters = InstallParameters(
        maximum_duration=timedelta(hours=2),
        reboot_setting=RebootSetting.NEVER,
        linux_parameters=LinuxParameters.model_validate({"classificationsToInclude": ["Security"]}),
    )
    sent = await manager.install(ARC, "westeurope", parameters, intent(RUN))
    assert (sent.accepted, sent.is_open) == (False, is_open)
    assert sent.failure is not None
    assert (sent.failure.status, sent.failure.code) == (status, "HCRP409")
    assert len(azure.seen) == 1


async def test_a_lost_answer_is_uncertain(monkeypatch: pytest.MonkeyPatch) -> None:
    async def drop(request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.close()
        raise web.HTTPBadRequest

    trust = ssl.create_default_context()
    AUTHORITY.configure_trust(trust)
    monkeypatch.setattr("aiohttp.connector._SSL_CONTEXT_VERIFIED", trust)
    async with serving(drop) as url:
        client = ResourceManager(settings_of(url), Credential())
        try:
            sent = await client.assess(ARC, "westeurope", intent(RUN, kind=OperationKind.ASSESS))
        finally:
            await client.close()
    assert (sent.accepted, sent.is_uncertain, sent.is_open) == (False, True, True)


async def test_an_operation_is_polled_by_its_location_and_ends_with_its_patches(
    azure: Azure, manager: ResourceManager
) -> None:
    path = LOCATION.partition("?")[0]
    azure.answers[path] = (202, None)
    running = await manager.poll(ARC, "", azure.url + LOCATION)
    assert running.state is PollState.RUNNING
    assert azure.seen[0][1] == LOCATION
    azure.answers[path] = (200, INSTALLED)
    azure.rows = [row("a", installationState="Installed"), row("b", installationState="Installed")]
    ended = await manager.poll(ARC, "", azure.url + LOCATION)
    assert ended.state is PollState.SUCCEEDED
    assert [patch["name"] for patch in ended.result["patches"]] == ["a", "b"]
    assert f"{ARC}/patchInstallationResults/{ACTIVITY}/softwarePatches/" in azure.queries[-1]


async def test_the_list_of_patches_is_waited_for_but_not_for_ever(azure: Azure, manager: ResourceManager) -> None:
    azure.answers[LOCATION.partition("?")[0]] = (200, INSTALLED)
    azure.rows = [row("a")]
    states: list[PollState] = []
    ended = await manager.poll(ARC, "", azure.url + LOCATION)
    while ended.state is not PollState.SUCCEEDED:
        states.append(ended.state)
        assert len(states) < 1_000
        ended = await manager.poll(ARC, "", azure.url + LOCATION)
    assert states[0] is PollState.RUNNING
    assert ended.state is PollState.SUCCEEDED
    assert len(ended.result["patches"]) == 1
    assert ended.result["installedPatchCount"] == 2


async def test_a_result_without_patches_needs_no_list(azure: Azure, manager: ResourceManager) -> None:
    azure.answers[LOCATION.partition("?")[0]] = (200, INSTALLED | {"installedPatchCount": 0})
    ended = await manager.poll(ARC, "", azure.url + LOCATION)
    assert (ended.state, azure.queries) == (PollState.SUCCEEDED, [])


async def test_the_failure_of_resource_graph_does_not_lose_a_result(azure: Azure, manager: ResourceManager) -> None:
    azure.answers[LOCATION.partition("?")[0]] = (200, INSTALLED)
    azure.rows = 400
    while (ended := await manager.poll(ARC, "", azure.url + LOCATION)).state is PollState.RUNNING:
        pass
    assert ended.state is PollState.SUCCEEDED
    assert ended.result["installedPatchCount"] == 2
