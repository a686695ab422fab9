"""Azure Resource Manager for virtual machines: read, assess, install, poll, power.

The compute SDK makes the calls that change something, with its retries off: azure-core would repeat a POST after a
503 or after any error with Retry-After, and a repeated install kills the first one in the guest (safety rule 2).
Nothing here waits for an operation; every answer of Azure, an error included, is returned as a value.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import NAMESPACE_URL, uuid5
from weakref import WeakKeyDictionary

from adapters.credentials import open_credential
from adapters.pipeline import CONNECT_SECONDS, READ_SECONDS, Answer, ArmPipeline
from domain.arm_error import ArmFailure, parse_retry_after, read_failure
from domain.base import as_object
from domain.identity import MachineId
from domain.operation import (
    PollReading,
    PollState,
    UnsafeUrl,
    check_operation_url,
    read_location,
    read_operation,
)
from domain.patching import InstallParameters
from domain.preflight import MachineView
from domain.run import Intent
from settings import Settings, load_settings

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.core.pipeline import PipelineResponse
    from azure.core.rest import AsyncHttpResponse
    from azure.mgmt.compute.aio import ComputeManagementClient

PATCH_API_VERSION = "2025-04-01"
"""The version of both patch calls; their operation URLs carry it on."""
_READ_API_VERSION = "2025-04-01"
_SUBSCRIPTIONS_API_VERSION = "2022-12-01"


@dataclass(frozen=True, slots=True)
class Submission:
    """What became of a POST.

    ``accepted`` with both operation URLs as Azure gave them, byte for byte; or ``failure``, where ``is_uncertain``
    says that Azure may have accepted all the same (no answer, or a 5xx).
    """

    accepted: bool
    async_url: str = ""
    location_url: str = ""
    failure: ArmFailure | None = None
    is_uncertain: bool = False


class ResourceManager:
    """One client for every subscription that the identity may see; made once per process and event loop."""

    def __init__(self, settings: Settings, credential: AsyncTokenCredential) -> None:
        self._settings = settings
        self._credential = credential
        self._clients: dict[str, ComputeManagementClient] = {}
        self._pipeline = ArmPipeline(settings, credential)

    async def read_machine(self, machine: MachineId) -> MachineView | ArmFailure:
        """The machine with its instance view, in one read of the low-cost budget."""
        url = f"{self._settings.manager_url}{machine.text}?$expand=instanceView&api-version={_READ_API_VERSION}"
        reply = await self._get(url)
        if reply.status != 200:
            return reply.to_failure()
        try:
            found = as_object(json.loads(reply.body))
        except (ValueError, RecursionError):
            found = None
        if found is None:
            return ArmFailure(status=0, message="Resource Manager answered the machine in no known form")
        return MachineView.read(found)

    async def assess(self, machine: MachineId, intent: Intent) -> Submission:
        """POST assessPatches. ``intent`` gives the request id, so that Azure's log names the attempt."""
        client = self._client(machine.subscription_id)

        async def call(**options: Any) -> object:
            return await client.virtual_machines.begin_assess_patches(
                machine.resource_group, machine.name, polling=False, api_version=PATCH_API_VERSION, **options
            )

        return await self._submit(call, _request_id(intent))

    async def install(self, machine: MachineId, parameters: InstallParameters, intent: Intent) -> Submission:
        """POST installPatches. The caller has declared the intent: the guard against a second install is there."""
        client = self._client(machine.subscription_id)

        async def call(**options: Any) -> object:
            body: Any = parameters.to_azure()
            return await client.virtual_machines.begin_install_patches(
                machine.resource_group, machine.name, body, polling=False, api_version=PATCH_API_VERSION, **options
            )

        return await self._submit(call, _request_id(intent))

    async def start(self, machine: MachineId) -> Submission:
        """Start the machine; harmless when it runs already."""
        client = self._client(machine.subscription_id)

        async def call(**options: Any) -> object:
            return await client.virtual_machines.begin_start(
                machine.resource_group, machine.name, polling=False, **options
            )

        return await self._submit(call)

    async def stop(self, machine: MachineId, *, deallocate: bool) -> Submission:
        """Stop the machine, and give its hardware back when ``deallocate``."""
        client = self._client(machine.subscription_id)

        async def call(**options: Any) -> object:
            begin = client.virtual_machines.begin_deallocate if deallocate else client.virtual_machines.begin_power_off
            return await begin(machine.resource_group, machine.name, polling=False, **options)

        return await self._submit(call)

    async def poll(self, machine: MachineId, async_url: str, location_url: str) -> PollReading:
        """Look once at an operation: the Azure-AsyncOperation URL, else Location (either may be missing).

        A URL that the token must not be sent to reads as a lost operation; the machine itself is then asked.
        """
        if not (async_url or location_url):
            return PollReading(state=PollState.LOST)
        try:
            reading = await self._poll_one(machine, async_url or location_url, is_location=not async_url)
            if reading.state is PollState.SUCCEEDED_WITHOUT_RESULT and location_url and async_url:
                reading = await self._poll_one(machine, location_url, is_location=True)
        except UnsafeUrl as refusal:
            return PollReading(
                state=PollState.LOST, failure=ArmFailure(status=0, code="UnsafeUrl", message=str(refusal))
            )
        return reading

    async def check(self) -> ArmFailure | None:
        """One cheap read: is Resource Manager reachable with this identity? ``None`` when it is."""
        url = f"{self._settings.manager_url}/subscriptions?api-version={_SUBSCRIPTIONS_API_VERSION}"
        reply = await self._get(url)
        return None if reply.status == 200 else reply.to_failure()

    async def close(self) -> None:
        """Give back the connections."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()
        await self._pipeline.close()

    async def _poll_one(self, machine: MachineId, url: str, *, is_location: bool) -> PollReading:
        check_operation_url(url, self._settings.manager_url, machine.subscription_id)
        reply = await self._get(url)
        read = read_location if is_location else read_operation
        reading = read(reply.status, reply.body, retry_after=reply.retry_after)
        return reading.model_copy(update={"retry_after": reply.retry_after})

    async def _submit(self, call: Callable[..., Awaitable[object]], request_id: str | None = None) -> Submission:
        from azure.core.exceptions import AzureError, HttpResponseError

        answers: list[AsyncHttpResponse] = []

        def keep(reply: PipelineResponse[Any, AsyncHttpResponse]) -> None:
            answers.append(reply.http_response)

        options: dict[str, Any] = {
            "retry_total": 0,
            "raw_response_hook": keep,
        }
        if request_id is not None:
            options["request_id"] = request_id
        try:
            await call(**options)
        except HttpResponseError as error:
            if not answers:
                return _unsent(error)
        except AzureError as error:
            # The SDK may fail on a body that it did not expect, after Azure has answered.
            if not answers:
                return Submission(accepted=False, failure=_failure_of(error), is_uncertain=not _was_never_sent(error))
        return _read_submission(answers[-1])

    async def _get(self, url: str) -> Answer:
        from azure.core.rest import HttpRequest

        return await self._pipeline.send(HttpRequest("GET", url))

    def _client(self, subscription_id: str) -> ComputeManagementClient:
        client = self._clients.get(subscription_id)
        if client is None:
            from azure.core.pipeline.policies import SansIOHTTPPolicy
            from azure.mgmt.compute.aio import ComputeManagementClient

            client = ComputeManagementClient(
                self._credential,
                subscription_id,
                base_url=self._settings.manager_url,
                credential_scopes=[self._settings.manager_scope],
                # The SDK's own log policy would write the signed operation URLs of every 202.
                http_logging_policy=SansIOHTTPPolicy(),
                connection_timeout=CONNECT_SECONDS,
                read_timeout=READ_SECONDS,
            )
            self._clients[subscription_id] = client
        return client


_managers: WeakKeyDictionary[asyncio.AbstractEventLoop, ResourceManager] = WeakKeyDictionary()


def open_resource_manager(settings: Settings | None = None) -> ResourceManager:
    """The client of this process and event loop."""
    loop = asyncio.get_running_loop()
    manager = _managers.get(loop)
    if manager is None:
        chosen = settings or load_settings()
        manager = ResourceManager(chosen, open_credential(chosen))
        _managers[loop] = manager
    return manager


def _read_submission(reply: AsyncHttpResponse) -> Submission:
    headers = reply.headers
    if reply.status_code in (200, 201, 202):
        return Submission(
            accepted=True,
            async_url=headers.get("Azure-AsyncOperation") or "",
            location_url=headers.get("Location") or "",
        )
    retry_after = parse_retry_after(headers.get("Retry-After"), datetime.now(UTC))
    try:
        body = reply.text()
    except (UnicodeDecodeError, ValueError):
        body = ""
    failure = read_failure(reply.status_code, body, retry_after=retry_after)
    return Submission(accepted=False, failure=failure, is_uncertain=reply.status_code >= 500)


def _unsent(error: Exception) -> Submission:
    """No answer of Resource Manager at all: the identity endpoint refused, so nothing was sent."""
    return Submission(accepted=False, failure=_failure_of(error))


def _failure_of(error: Exception) -> ArmFailure:
    return ArmFailure(status=0, code=type(error).__name__, message=str(error)[:500])


def _was_never_sent(error: Exception) -> bool:
    """Whether the request surely did not leave: azure-core reports a broken connection as a request error as well."""
    from aiohttp import ClientConnectorError, ConnectionTimeoutError

    inner: object = getattr(error, "inner_exception", None)
    return isinstance(inner, (ClientConnectorError, ConnectionTimeoutError))


def _request_id(intent: Intent) -> str:
    name = f"patchwave/{intent.run_id}/{intent.machine_key}/{intent.kind.value}/{intent.attempt}"
    return str(uuid5(NAMESPACE_URL, name))
