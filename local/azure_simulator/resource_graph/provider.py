"""Resource Graph: ``POST /providers/Microsoft.ResourceGraph/resources``.

Recorded behaviour: ``resultTruncated`` is a string, pages follow ``$skipToken``, and a caller has 15 queries per five
seconds, announced in ``x-ms-user-quota-remaining`` and ``x-ms-user-quota-resets-after``.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import json
import math
from collections import OrderedDict
from collections.abc import Iterable, Iterator
from typing import Any, cast

from local.azure_simulator.compute import machine_views
from local.azure_simulator.compute.machine import Machine
from local.azure_simulator.compute.snapshots import Snapshots
from local.azure_simulator.health import TABLE as HEALTH_TABLE
from local.azure_simulator.health import health_rows
from local.azure_simulator.hybrid_compute import views as arc_views
from local.azure_simulator.maintenance.scheduler import Schedules
from local.azure_simulator.resource_graph.kql import QueryError, Row
from local.azure_simulator.resource_graph.maintenance_rows import TABLE as MAINTENANCE_TABLE
from local.azure_simulator.resource_graph.maintenance_rows import configuration_rows, maintenance_rows
from local.azure_simulator.resource_graph.patch_rows import COLUMNS as PATCH_COLUMNS
from local.azure_simulator.resource_graph.patch_rows import TABLES as PATCH_TABLES
from local.azure_simulator.resource_graph.patch_rows import patch_rows
from local.azure_simulator.resource_graph.query import Query
from local.azure_simulator.server import errors
from local.azure_simulator.server.errors import ArmError
from local.azure_simulator.server.json_readers import object_or_none
from local.azure_simulator.server.routing import ArmResponse, Call, Route, compact
from local.azure_simulator.state import AzureState

_RESOURCES = {
    "id", "name", "type", "tenantId", "kind", "location", "resourceGroup", "subscriptionId", "managedBy", "sku", "plan",
    "properties", "tags", "identity", "zones", "extendedLocation",
}  # fmt: skip
TABLES = {"resources": _RESOURCES, "resourcecontainers": _RESOURCES} | dict.fromkeys(
    (*PATCH_TABLES, MAINTENANCE_TABLE, HEALTH_TABLE), PATCH_COLUMNS
)
_MAX_ROWS = 1_000
_MAX_BYTES = 16_777_216
_TOO_LARGE = (
    "Response payload size is {}, and has exceeded the limit of 16777216. Please consider querying less data at a time"
    " and make paginated call if needed."
)
"""The limit and its message are known from reports of users, not from a recording."""
_QUOTA_SECONDS = 5
_KEPT_RESULTS = 32
_PIECE = 100


class ResourceGraph:
    """The query endpoint. Results are cached while they are paged, so each page costs only its own rows."""

    def __init__(self, azure: AzureState, snapshots: Snapshots, schedules: Schedules) -> None:
        self.azure = azure
        self.snapshots = snapshots
        self.schedules = schedules
        self._results: OrderedDict[str, list[Row]] = OrderedDict()
        self._made = 0

    def routes(self) -> list[Route]:
        return [Route("POST", "/providers/Microsoft.ResourceGraph/resources", "graph", self.query)]

    async def query(self, call: Call) -> ArmResponse:
        quota = self._quota()
        try:
            made = await self._answer(call)
        except ArmError as refused:
            # A refused query also counts against the quota (recorded).
            refused.headers |= quota
            raise
        made.headers |= quota
        return made

    async def _answer(self, call: Call) -> ArmResponse:
        request = object_or_none(call.json())
        if not isinstance(request.get("query"), str):
            raise _bad_request([{"code": "InvalidQuery", "message": "The query is missing."}], call)
        options = object_or_none(request.get("options"))
        top = int(options.get("$top") or _MAX_ROWS)
        if not 1 <= top <= _MAX_ROWS:
            message = "The value of '$top' must be between 1 and 1000."
            raise _bad_request([{"code": "InvalidPageSize", "message": message}], call)
        key, offset = await self._position(request, options, call)
        rows = self._results[key]
        page = rows[offset : offset + top]
        answer: dict[str, Any] = {
            "totalRecords": len(rows),
            "count": len(page),
            "data": _table(page) if options.get("resultFormat") == "table" else page,
            "facets": [],
            "resultTruncated": "false",
        }
        following = offset + len(page)
        if following < len(rows):
            answer["$skipToken"] = base64.b64encode(json.dumps([key, following]).encode()).decode()
        made = compact(answer)
        if (size := len(made.body or "")) > _MAX_BYTES:
            message = _TOO_LARGE.format(size)
            raise _bad_request([{"code": "ResponsePayloadTooLarge", "message": message}], call)
        return made

    async def _position(self, request: dict[str, Any], options: dict[str, Any], call: Call) -> tuple[str, int]:
        token = options.get("$skipToken")
        if token is None:
            return await self._run(request, call), int(options.get("$skip") or 0)
        try:
            key, offset = json.loads(base64.b64decode(str(token), validate=True))
            if key in self._results:
                return str(key), int(offset)
        except (ValueError, TypeError, binascii.Error):
            pass  # answered below, like a token that has expired
        raise _bad_request([{"code": "InvalidSkipToken", "message": "The skip token is invalid or has expired."}], call)

    async def _run(self, request: dict[str, Any], call: Call) -> str:
        try:
            query = Query(request["query"], TABLES)
        except QueryError as error:
            raise _query_error(error, request["query"], call) from error
        wanted = request.get("subscriptions")
        folded = None if wanted is None else {str(each).casefold() for each in cast(list[object], wanted)}
        rows = await in_pieces(self._rows(query.table, folded, request["query"]))
        self._made += 1
        key = f"r{self._made}"
        # The rows are not shared, or never change.
        self._results[key] = await asyncio.to_thread(query.run, rows)
        while len(self._results) > _KEPT_RESULTS:
            self._results.popitem(last=False)
        return key

    def _rows(self, table: str, subscriptions: set[str] | None, query: str) -> Iterable[Row]:
        if table in PATCH_TABLES:
            return patch_rows(self.azure, table, subscriptions, query)
        if table == MAINTENANCE_TABLE:
            return maintenance_rows(self.schedules, subscriptions)
        if table == HEALTH_TABLE:
            return health_rows(self.azure, subscriptions)
        return self._containers(subscriptions) if table == "resourcecontainers" else self._resources(subscriptions)

    def _resources(self, subscriptions: set[str] | None) -> Iterator[Row]:
        for machine in self.azure.settled():
            if subscriptions is None or machine.subscription_id.casefold() in subscriptions:
                if isinstance(machine, Machine):
                    yield machine_views.graph_row(machine, self.azure.tenant_id)
                    if machine.patch_extension:
                        yield machine_views.extension_row(machine, self.azure.tenant_id)
                else:
                    yield arc_views.graph_row(machine, self.azure.tenant_id, self.azure.clock.now())
                    yield from arc_views.extension_rows(machine, self.azure.tenant_id)
        for each in self.azure.scale_sets:
            if subscriptions is None or each.subscription_id.casefold() in subscriptions:
                yield each.graph_row(self.azure.tenant_id)
        yield from self.snapshots.graph_rows(subscriptions)
        yield from configuration_rows(self.schedules, subscriptions)

    def _containers(self, subscriptions: set[str] | None) -> list[Row]:
        ids = {folded: machines[0].subscription_id for folded, machines in self.azure.by_subscription.items()}
        return [
            dict.fromkeys(_RESOURCES)
            | {
                "id": f"/subscriptions/{subscription_id}",
                "name": f"Simulated {subscription_id[:8]}",
                "type": "microsoft.resources/subscriptions",
                "tenantId": self.azure.tenant_id,
                "subscriptionId": subscription_id,
                "properties": {"state": "Enabled"},
            }
            for folded, subscription_id in ids.items()
            if subscriptions is None or folded in subscriptions
        ]

    def _quota(self) -> dict[str, str]:
        """Take one query from the caller's quota.

        Raises:
            ArmError: 429 RateLimiting, with the quota headers.
        """
        charge = self.azure.throttle.take([("graph-queries", "user")])
        left = charge.remaining["graph-queries"]
        real = charge.retry_after or max(1, math.ceil(self.azure.clock.real_seconds(_QUOTA_SECONDS)))
        headers = {
            "x-ms-user-quota-remaining": str(left),
            "x-ms-user-quota-resets-after": f"{real // 3600:02}:{real // 60 % 60:02}:{real % 60:02}",
            "x-ms-ratelimit-remaining-tenant-resource-requests": str(left),
        }
        if charge.refused_by is None:
            return headers
        message = (
            "Client application has been throttled and should not attempt to repeat the request until an amount of"
        )
        refused = errors.refusal(429, "RateLimiting", f"{message} time has elapsed.")
        refused.headers |= headers | {"Retry-After": str(charge.retry_after)}
        raise refused


async def in_pieces(rows: Iterable[Row]) -> list[Row]:
    """All rows, with a break after each hundred: requests that arrive during thousands would seem simultaneous."""
    made: list[Row] = []
    for row in rows:
        made.append(row)
        if not len(made) % _PIECE:
            await asyncio.sleep(0)
    return made


def _table(rows: list[Row]) -> dict[str, Any]:
    names = list(rows[0]) if rows else []
    return {
        "columns": [{"name": name, "type": "object"} for name in names],
        "rows": [list(row.values()) for row in rows],
    }


def _bad_request(details: list[dict[str, Any]], call: Call) -> ArmError:
    correlation = call.headers.get("x-ms-client-request-id", "none")
    message = f"Please provide below info when asking for support: timestamp = now, correlationId = {correlation}."
    return ArmError(400, {"error": {"code": "BadRequest", "message": message, "details": details}})


def _query_error(error: QueryError, text: str, call: Call) -> ArmError:
    line = text.count("\n", 0, error.position) + 1
    column = error.position - (text.rfind("\n", 0, error.position) + 1)
    advice = (
        "Query is invalid. Please refer to the documentation for the Azure Resource Graph service and fix the error "
        "before retrying."
    )
    failure = {
        "code": "ParserFailure",
        "message": f"ParserFailure: {error.message}",
        "line": line,
        "characterPositionInLine": column,
        "token": error.token,
    }
    return _bad_request([{"code": "InvalidQuery", "message": advice}, failure], call)
