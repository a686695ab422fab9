"""Microsoft.Maintenance: configurations, assignments, and the cancellation of a run.

Uses azure-mgmt-maintenance, and one request of api-version 2025-11-01 for the cancellation, which it lacks
(docs/adr/0023-maintenance-sdk.md). None of the calls is a long-running operation. Every response of Azure, an error
included, is a value.
"""

from __future__ import annotations

import io
import json
from collections.abc import AsyncIterable, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, Any

from patchwave.azure.pipeline import ArmPipeline, ArmResponse, lost, rate_limited, sdk_options
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.documents import (
    Json,
    lower_keys,
    object_or_none,
    objects_or_empty,
    parse_object,
    str_or_empty,
)
from patchwave.domain.core.ids import ConfigurationId, MachineId
from patchwave.domain.maintenance.assignment import Assignment, DynamicScope, read_assignment
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration, read_configuration
from patchwave.domain.maintenance.upcoming_run import CANCELLED
from patchwave.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.core.pipeline import PipelineResponse
    from azure.core.pipeline.transport import AsyncHttpTransport
    from azure.core.rest import AsyncHttpResponse
    from azure.mgmt.maintenance.aio import MaintenanceManagementClient

CANCEL_API_VERSION = "2025-11-01"
"""The first stable version whose ``applyUpdates`` supports ``Cancel``."""

type _Call = Callable[..., Awaitable[object]]


class Maintenance:
    """Schedules."""

    def __init__(
        self,
        settings: Settings,
        credential: AsyncTokenCredential,
        make_transport: Callable[[], AsyncHttpTransport[Any, Any] | None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._credential = credential
        self._make_transport = make_transport
        self._clients: dict[str, MaintenanceManagementClient] = {}
        self._pipeline = ArmPipeline(settings, credential, make_transport())

    async def read(self, configuration: ConfigurationId) -> MaintenanceConfiguration | ArmFailure:
        """A configuration."""
        get = self._client(configuration.subscription_id).maintenance_configurations.get
        call = partial(get, configuration.resource_group, configuration.name)
        return _configuration_in(await self._send("GET", configuration.subscription_id, call))

    async def list(self, subscription_id: str, resource_group: str = "") -> list[MaintenanceConfiguration] | ArmFailure:
        """The configurations of a subscription or a resource group, of every maintenance scope."""
        client = self._client(subscription_id)

        async def call(**options: Any) -> object:
            found: AsyncIterable[object] = (
                client.maintenance_configurations_for_resource_group.list(resource_group, **options)
                if resource_group
                else client.maintenance_configurations.list(**options)
            )
            return [each async for each in found]

        answer = await self._send("GET", subscription_id, call)
        listed = _rows_in(answer)
        return listed if isinstance(listed, ArmFailure) else [one for one in map(read_configuration, listed) if one]

    async def write(self, configuration: MaintenanceConfiguration) -> MaintenanceConfiguration | ArmFailure:
        """Create or replace a configuration; returns Azure's version of it."""
        identity = configuration.configuration_id
        # The SDK's parameter is any kind of IO, which the type checker cannot express.
        operations: Any = self._client(identity.subscription_id).maintenance_configurations
        content = _content(configuration.to_azure())
        call = partial(operations.create_or_update, identity.resource_group, identity.name, content)
        return _configuration_in(await self._send("PUT", identity.subscription_id, call))

    async def remove(self, configuration: ConfigurationId) -> bool | ArmFailure:
        """Delete a configuration; ``False`` when there was none."""
        delete = self._client(configuration.subscription_id).maintenance_configurations.delete
        call = partial(delete, configuration.resource_group, configuration.name)
        return _was_there(await self._send("DELETE", configuration.subscription_id, call))

    async def assignments_of(self, machine: MachineId) -> list[Assignment] | ArmFailure:
        """The current assignments that name the machine."""
        client = self._client(machine.subscription_id)

        async def call(**options: Any) -> object:
            found: AsyncIterable[object] = client.configuration_assignments.list(*_place(machine), **options)
            return [each async for each in found]

        listed = _rows_in(await self._send("GET", machine.subscription_id, call))
        return listed if isinstance(listed, ArmFailure) else [one for one in map(read_assignment, listed) if one]

    async def read_assignment(self, resource_id: str, name: str) -> Assignment | ArmFailure:
        """One assignment under a machine, a subscription or a resource group."""
        subscription_id, operations, place = self._assignments(resource_id)
        return _assignment_in(await self._send("GET", subscription_id, partial(operations.get, *place, name)))

    async def assign(self, assignment: Assignment) -> Assignment | ArmFailure:
        """Create or replace an assignment; returns Azure's version of it."""
        subscription_id, operations, place = self._assignments(assignment.resource_id)
        call = partial(operations.create_or_update, *place, assignment.name, _content(assignment.to_azure()))
        return _assignment_in(await self._send("PUT", subscription_id, call))

    async def unassign(self, resource_id: str, name: str) -> bool | ArmFailure:
        """Delete an assignment, even of a deleted machine; ``False`` when there was none."""
        subscription_id, operations, place = self._assignments(resource_id)
        return _was_there(await self._send("DELETE", subscription_id, partial(operations.delete, *place, name)))

    async def cancel(self, configuration: ConfigurationId, run: str) -> ArmFailure | None:
        """Cancel one upcoming run for all of its machines; ``None`` when Azure confirms it.

        Azure's response is the same for a run that has begun, which continues: the caller must check that the start is
        still ahead.

        Args:
            configuration: of the run.
            run: its start in UTC as ``yyyyMMddHHmmss``, the last part of an event's correlation id.
        """
        from azure.core.rest import HttpRequest

        path = f"{configuration}/providers/Microsoft.Maintenance/applyUpdates/{run}"
        answer = await self._pipeline.send(
            HttpRequest(
                "PUT",
                f"{self._settings.manager_url}{path}",
                params={"api-version": CANCEL_API_VERSION},
                json={"properties": {"status": "Cancel"}},
            )
        )
        return _not_canceled(answer, path)

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()
        await self._pipeline.close()

    def _assignments(self, resource_id: str) -> tuple[str, Any, tuple[str, ...]]:
        """The subscription, the SDK's operations for this kind of resource, and their arguments for it.

        Raises:
            ValueError: it is neither a machine nor a dynamic scope.
        """
        scope = DynamicScope.parse(resource_id)
        if scope is None:
            machine = MachineId.parse(resource_id)
            operations = self._client(machine.subscription_id).configuration_assignments
            return machine.subscription_id, operations, _place(machine)
        client = self._client(scope.subscription_id)
        if scope.resource_group:
            operations = client.configuration_assignments_for_resource_group
            return scope.subscription_id, operations, (scope.resource_group,)
        return scope.subscription_id, client.configuration_assignments_for_subscriptions, ()

    async def _send(self, method: str, subscription_id: str, call: _Call) -> ArmResponse:
        """Make one rate-limited call of the SDK; returns Azure's raw response instead of the SDK's model."""
        return await rate_limited(self._settings, method, f"/subscriptions/{subscription_id}", lambda: _answer_of(call))

    def _client(self, subscription_id: str) -> MaintenanceManagementClient:
        client = self._clients.get(subscription_id)
        if client is None:
            from azure.mgmt.maintenance.aio import MaintenanceManagementClient

            transport, options = self._make_transport(), sdk_options(self._settings)
            if transport is not None:
                options["transport"] = transport
            client = MaintenanceManagementClient(self._credential, subscription_id, **options)
            self._clients[subscription_id] = client
        return client


def _place(machine: MachineId) -> tuple[str, str, str, str]:
    """The arguments by which the SDK's operations name a machine."""
    kind = machine.machine_type
    return machine.resource_group, kind.provider, kind.resource_type, machine.name


async def _answer_of(call: _Call) -> ArmResponse:
    from azure.core.exceptions import AzureError

    answers: list[AsyncHttpResponse] = []

    def keep(reply: PipelineResponse[Any, AsyncHttpResponse]) -> None:
        answers.append(reply.http_response)

    try:
        # Without the SDK's retries: the caller decides when to retry.
        await call(retry_total=0, raw_response_hook=keep)
    except Exception as error:
        # The SDK may fail in any way on an unexpected body after Azure has responded.
        if not answers:
            if not isinstance(error, AzureError):
                raise
            return lost(error)
    reply = answers[-1]
    try:
        return ArmResponse(reply.status_code, reply.text(), reply.headers)
    except (UnicodeDecodeError, ValueError) as error:
        return lost(error)


def _content(body: Json) -> io.BytesIO:
    """The unchanged body: the SDK's models would drop newer fields."""
    return io.BytesIO(json.dumps(body).encode())


def _unknown(answer: ArmResponse) -> ArmFailure:
    return ArmFailure(status=answer.status, message="Resource Manager answered in no known form")


def _configuration_in(answer: ArmResponse) -> MaintenanceConfiguration | ArmFailure:
    if answer.status not in (200, 201):
        return answer.to_failure()
    return read_configuration(parse_object(answer.body) or {}) or _unknown(answer)


def _assignment_in(answer: ArmResponse) -> Assignment | ArmFailure:
    if answer.status not in (200, 201):
        return answer.to_failure()
    return read_assignment(parse_object(answer.body) or {}) or _unknown(answer)


def _not_canceled(answer: ArmResponse, run: str) -> ArmFailure | None:
    """Why the response does not confirm the cancellation of this run; its name is the configuration's."""
    if answer.status not in (200, 201):
        return answer.to_failure()
    body = lower_keys(parse_object(answer.body) or {})
    named = str_or_empty(body.get("id"))
    status = str_or_empty(lower_keys(object_or_none(body.get("properties")) or {}).get("status"))
    if named.lower() == run.lower() and status.casefold() == CANCELLED:
        return None
    message = f"asked to cancel {run}, Resource Manager answered {status or 'no status'} for {named or 'no run'}"
    return ArmFailure(status=answer.status, code="NotCancelled", message=message)


def _rows_in(answer: ArmResponse) -> list[Json] | ArmFailure:
    if answer.status != 200:
        return answer.to_failure()
    found = parse_object(answer.body)
    return _unknown(answer) if found is None else objects_or_empty(found.get("value"))


def _was_there(answer: ArmResponse) -> bool | ArmFailure:
    return answer.status == 200 if answer.status in (200, 204) else answer.to_failure()
