"""The HTTPS application: each request passes faults, token, limits and routing, and is logged."""

from __future__ import annotations

import asyncio
import ipaddress
import json
import time
import uuid
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route as StarletteRoute

from local.azure_simulator.arm.names import folded
from local.azure_simulator.arm.subscriptions import Subscriptions
from local.azure_simulator.compute.operations import indented
from local.azure_simulator.compute.provider import Compute
from local.azure_simulator.compute.snapshots import Snapshots
from local.azure_simulator.health import Health
from local.azure_simulator.hybrid_compute.provider import HybridCompute
from local.azure_simulator.maintenance.admin import MaintenanceAdmin
from local.azure_simulator.maintenance.event_grid import EventGrid
from local.azure_simulator.maintenance.provider import Maintenance
from local.azure_simulator.maintenance.scheduler import Schedules
from local.azure_simulator.resource_graph.provider import ResourceGraph
from local.azure_simulator.server import errors
from local.azure_simulator.server.admin import Admin
from local.azure_simulator.server.errors import ArmError
from local.azure_simulator.server.faults import Effect
from local.azure_simulator.server.identity import Identity
from local.azure_simulator.server.request_log import Entry
from local.azure_simulator.server.routing import ArmResponse, Call, Route, Router
from local.azure_simulator.state import AzureState

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]
_COMMON = {
    "Cache-Control": "no-cache",
    "Pragma": "no-cache",
    "Expires": "-1",
    "Strict-Transport-Security": "max-age=31536000; includeSubDomains",
    "X-Content-Type-Options": "nosniff",
    "X-Cache": "CONFIG_NOCACHE",
}

type Reset = Callable[[tuple[str, int]], None]


class SimulatorApp:
    """Handles one request.

    Args:
        azure: the simulator's state.
        identity: checks the bearer tokens.
        reset: resets a client's connection, given its address; depends on the server.
        events: fires schedules and delivers their events.
    """

    def __init__(self, azure: AzureState, identity: Identity, reset: Reset, events: EventGrid | None = None) -> None:
        self.azure = azure
        self.identity = identity
        self.reset = reset
        self.events = events or EventGrid(Schedules(azure))
        snapshots, schedules, health = Snapshots(azure), self.events.schedules, Health(azure)
        graph = ResourceGraph(azure, snapshots, schedules)
        machines = [Compute(azure), HybridCompute(azure), snapshots]
        handlers = [*machines, Subscriptions(azure), graph, health, Maintenance(schedules)]
        self.routes = [route for each in handlers for route in each.routes()]
        self.router = Router(self.routes)

    async def handle(self, request: Request) -> Response:
        if not is_loopback(request):
            return _not_from_here()
        began = time.perf_counter()
        call = Call(
            method=request.method,
            path=request.url.path,
            raw_query=request.scope["query_string"].decode("latin-1"),
            body=await request.body(),
            headers={key.decode("latin-1").lower(): value.decode("latin-1") for key, value in request.headers.raw},
        )
        self.events.schedules.settle()
        number = self.azure.request_log.next_number()
        route, call.captured = self.router.find(call.method, call.path)
        operation = None if route is None else route.operation
        machine = self._machine_of(call)
        effect = self.azure.faults.effect(call.method, call.path, machine, operation)
        answer = None if effect is not None and _prevents(effect) else await self._answer(call, route)
        if effect is not None:
            answer = self._spoil(effect, call, answer)
            if effect.delay_seconds:
                await asyncio.sleep(effect.delay_seconds)
        status = 0 if answer is None else answer.status
        is_read = call.method in ("GET", "HEAD") and "subscription" in call.captured
        self.azure.metrics.count(operation or "other", call.method, call.path, status, is_read=is_read)
        self.azure.request_log.write(
            Entry(
                number=number,
                at=self.azure.clock.stamp(),
                method=call.method,
                path=call.path,
                # The signed part of an operation's query is 3 KB without information.
                query=call.raw_query.partition("&t=")[0],
                status=status,
                milliseconds=round((time.perf_counter() - began) * 1000, 2),
                machine=machine,
                operation=operation,
                body=_readable(call.body),
                fault=effect is not None,
            )
        )
        if answer is None:
            self.reset((request.scope["client"][0], request.scope["client"][1]))
            return Response(status_code=500)
        return self._respond(answer)

    async def _answer(self, call: Call, route: Route | None) -> ArmResponse:
        try:
            if route is None or route.needs_token:
                self.identity.check(call.headers.get("authorization"))
            if route is None:
                raise errors.no_such_route(call.path)
            if not call.api_version:
                raise errors.missing_api_version()
            quota = self._charge_manager(call)
            found = route.handler(call)
            answer = found if isinstance(found, ArmResponse) else await found
        except ArmError as refused:
            return ArmResponse(refused.status, indented(refused.body), dict(refused.headers))
        answer.headers |= quota
        return answer

    def _charge_manager(self, call: Call) -> dict[str, str]:
        """Resource Manager's own buckets, per subscription and kind of request.

        Raises:
            ArmError: 429 SubscriptionRequestsThrottled.
        """
        subscription = call.captured.get("subscription")
        if subscription is None:
            return {}
        kind = "reads" if call.method in ("GET", "HEAD") else "writes"
        key = subscription.casefold()
        names = [f"subscription-{kind}", f"subscription-global-{kind}"]
        charge = self.azure.throttle.take([(name, key) for name in names])
        headers = {f"x-ms-ratelimit-remaining-{name}": str(charge.remaining[name]) for name in names}
        if charge.refused_by is not None:
            refused = errors.manager_throttled(subscription, charge.retry_after)
            refused.headers |= headers
            raise refused
        return headers

    def _machine_of(self, call: Call) -> str | None:
        if "operation" in call.captured:
            found = self.azure.operations.find(call.captured["operation"])
            return None if found is None else self.azure.machines[found.machine].id
        if "machine" not in call.captured:
            return None
        return "/".join(call.path.split("/")[:9])

    def _spoil(self, effect: Effect, call: Call, answer: ArmResponse | None) -> ArmResponse | None:
        """Apply an effect to the real response; none means that the connection is reset."""
        if effect.lose_operation:
            self._lose(call)
        if effect.drop is not None:
            return None
        made = answer or ArmResponse(effect.status or 200)
        if effect.status is not None:
            made = ArmResponse(effect.status, None, {} if answer is None else dict(answer.headers))
        if effect.body is not None:
            is_text = isinstance(effect.body, str)
            made.body = effect.body if is_text else json.dumps(effect.body)
            made.content_type = "text/html" if is_text else made.content_type
        if effect.operation_status is not None and made.body:
            document: dict[str, Any] = json.loads(made.body)
            made.body = indented(document | {"status": effect.operation_status})
        if effect.content_type is not None:
            made.content_type = effect.content_type
        for name, value in effect.headers.items():
            made.headers = {key: kept for key, kept in made.headers.items() if key.casefold() != name.casefold()}
            if value is not None:
                made.headers[name] = value
        return made

    def _lose(self, call: Call) -> None:
        if "operation" in call.captured:
            found = self.azure.operations.find(call.captured["operation"])
        else:
            machine = self.azure.machines.get(folded(self._machine_of(call) or ""))
            found = None if machine is None else machine.active
        if found is not None:
            found.lost = True

    def _respond(self, answer: ArmResponse) -> Response:
        request_id = str(uuid.uuid4())
        made = Response(
            content=None if answer.body is None else answer.body.encode(),
            status_code=answer.status,
            headers=_COMMON
            | {
                "x-ms-request-id": request_id,
                "x-ms-correlation-request-id": request_id,
                "x-ms-routing-request-id": f"LOCAL:{self.azure.clock.stamp()}:{request_id}",
            }
            | answer.headers,
        )
        if answer.body is not None:
            made.headers["Content-Type"] = answer.content_type
        return made


def _prevents(effect: Effect) -> bool:
    """Whether the effect replaces the work."""
    if effect.drop is not None:
        return effect.drop == "before"
    return not effect.accept and (effect.status is not None or effect.body is not None)


def _readable(body: bytes) -> Any:
    if not body:
        return None
    try:
        return json.loads(body)
    except ValueError:
        return body[:1_000].decode("latin-1")


def is_loopback(request: Request) -> bool:
    """Whether the peer is on this machine; other peers are refused."""
    peer = request.scope.get("client")
    try:
        return peer is not None and ipaddress.ip_address(peer[0]).is_loopback
    except ValueError:
        return False


def _not_from_here() -> Response:
    return JSONResponse({"error": {"code": "Forbidden", "message": "Only loopback peers are served."}}, 403)


def make_app(azure: AzureState, identity: Identity, reset: Reset, events: EventGrid) -> Starlette:
    """The application of the HTTPS port: Resource Manager, and ``/_sim``."""
    front = SimulatorApp(azure, identity, reset, events)
    admin = Admin(azure, MaintenanceAdmin(events))

    async def administer(request: Request) -> Response:
        return await admin.handle(request) if is_loopback(request) else _not_from_here()

    return Starlette(
        routes=[
            StarletteRoute("/_sim", administer, methods=_METHODS),
            StarletteRoute("/_sim/{path:path}", administer, methods=_METHODS),
            StarletteRoute("/{path:path}", front.handle, methods=_METHODS),
        ]
    )


def make_identity_app(identity: Identity) -> Starlette:
    azure = identity.azure

    async def token(request: Request) -> Response:
        if not is_loopback(request):
            return _not_from_here()
        effect = azure.faults.effect(request.method, request.url.path, None, "token")
        if effect is not None and effect.status is not None:
            return JSONResponse(effect.body or {"statusCode": effect.status, "message": "fault"}, effect.status)
        if request.headers.get("x-identity-header") != identity.header:
            return JSONResponse({"statusCode": 401, "message": "The X-IDENTITY-HEADER is missing or wrong."}, 401)
        resource = request.query_params.get("resource")
        if request.query_params.get("api-version") != "2019-08-01" or not resource:
            return JSONResponse({"statusCode": 400, "message": "resource and api-version=2019-08-01 are needed."}, 400)
        return JSONResponse(identity.issue(resource))

    return Starlette(routes=[StarletteRoute("/msi/token", token, methods=["GET"])])
