"""The host's HTTP side on loopback: the functions' own routes, ``/admin`` and the Event Grid webhook."""

import asyncio
import json
import logging
import time
from collections.abc import Awaitable, Callable
from typing import Any, cast
from urllib.parse import urlsplit

from starlette.applications import Starlette
from starlette.convertors import PathConvertor, register_url_convertor
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from local.functions_host.bindings import Inputs
from local.functions_host.durable.engine import Engine
from local.functions_host.functions import EVENT_GRID, HTTP, TIMER, Function
from local.functions_host.host_json import HostJson
from local.functions_host.http import event_grid
from local.functions_host.http.keys import Keys
from local.functions_host.http.routes import Routes
from local.functions_host.http.sign_in import as_developer
from local.functions_host.worker.pool import WorkerPool
from local.functions_host.worker.process import Input, Result, WorkerLost

log = logging.getLogger(__name__)

# The limit of the real host.
_MAX_BODY = 100 * 1024 * 1024
_METHODS = ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS"]
_LOOPBACK = {"localhost", "127.0.0.1", "::1"}
# These belong to the connection, not to the function's response.
_HOP_HEADERS = {"connection", "content-length", "date", "keep-alive", "server", "transfer-encoding"}


class _Anything(PathConvertor):
    """Starlette's own stops at a line break, which a path may contain, escaped."""

    regex = r"[\s\S]*"


register_url_convertor("anything", _Anything())

type RunTimer = Callable[[Function], Awaitable[bool]]


class _Refused(Exception):
    """A request that gets this status without a body."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class HttpServer:
    """The ASGI application of one host.

    Args:
        keys: function keys, or None when everything is open.
        run_timer: runs a timer function now; False when it failed.
        engine: its metrics are at ``/admin/metrics``.
        signs_in: every caller is the developer of `local.functions_host.http.sign_in`.
    """

    def __init__(
        self,
        pool: WorkerPool,
        settings: HostJson,
        inputs: Inputs,
        *,
        keys: Keys | None,
        run_timer: RunTimer,
        engine: Engine,
        signs_in: bool = False,
    ) -> None:
        self._pool = pool
        self._settings = settings
        self._inputs = inputs
        self._keys = keys
        self._run_timer = run_timer
        self._engine = engine
        self._signs_in = signs_in
        self._routes = Routes(pool.functions.all, settings.route_prefix)
        self._started = time.monotonic()
        self._background: set[asyncio.Task[Any]] = set()
        self.app = Starlette(
            routes=[
                Route("/", self._home, methods=["GET"]),
                Route("/admin/host/ping", self._ping, methods=["GET", "POST"]),
                Route("/admin/host/status", self._status, methods=["GET"]),
                Route("/admin/metrics", self._metrics, methods=["GET", "POST"]),
                Route("/admin/functions", self._list, methods=["GET"]),
                Route("/admin/functions/{name}", self._run_by_hand, methods=["POST"]),
                Route("/runtime/webhooks/EventGrid", self._event_grid, methods=["POST", "OPTIONS"]),
                Route("/runtime/webhooks/eventgrid", self._event_grid, methods=["POST", "OPTIONS"]),
                Route("/{path:anything}", self._function, methods=_METHODS),
            ],
            exception_handlers={_Refused: _refuse, ClientDisconnect: _refuse},
        )

    # Functions

    async def _function(self, request: Request) -> Response:
        self._check_origin(request)
        raw_path: bytes = request.scope.get("raw_path") or request.url.path.encode()
        found = self._routes.match(request.method, raw_path.decode("latin-1"))
        if found is None:
            return Response(status_code=404)
        function, parameters = found
        self._check_key(lambda keys: keys.open_function(request, function))
        body = await _body(request)
        headers = _joined(request.headers.items())
        query = f"?{request.url.query}" if request.url.query else ""
        value = {
            "method": request.method,
            "url": f"{str(request.base_url).rstrip('/')}{raw_path.decode('latin-1')}{query}",
            "headers": as_developer(headers) if self._signs_in else headers,
            "params": parameters,
            "query": _joined(request.query_params.multi_items()),
        }
        started = time.monotonic()
        result = await self.invoke(function, [Input(function.trigger["name"], "http", value)], blob=body)
        response = _response(result)
        elapsed = (time.monotonic() - started) * 1000
        # The path only: the query may have a key in it.
        log.info("%s %s -> %d %.0f ms", request.method, request.url.path, response.status_code, elapsed)
        return response

    async def invoke(self, function: Function, inputs: list[Input], *, blob: bytes = b"") -> Result:
        """Runs a function with its trigger's input; a lost worker and a timeout are failures."""
        limit = self._settings.function_timeout
        try:
            return await self._pool.invoke(
                function,
                [*inputs, *self._inputs.extra(function)],
                blob=blob,
                timeout=None if limit is None else limit.total_seconds(),
            )
        except WorkerLost:
            return Result(False, error="WorkerLost: the worker process ended")
        except TimeoutError:
            return Result(False, error="FunctionTimeoutException: longer than functionTimeout")

    # Event Grid

    async def _event_grid(self, request: Request) -> Response:
        self._check_origin(request)
        self._check_key(lambda keys: keys.open_event_grid(request))
        return await event_grid.answer(request, await _body(request), self._pool.functions, self._run_event)

    async def _run_event(self, function: Function, event: dict[str, Any]) -> bool:
        return (await self.invoke(function, [Input(function.trigger["name"], "json", json.dumps(event))])).ok

    # Administration

    async def _home(self, _: Request) -> Response:
        return PlainTextResponse("The function host is running.")

    async def _ping(self, _: Request) -> Response:
        return Response(status_code=200)

    async def _status(self, request: Request) -> Response:
        self._check_admin(request)
        uptime = int((time.monotonic() - self._started) * 1000)
        return JSONResponse({"id": "local", "state": "Running", "processUptime": uptime, "workers": self._pool.pids})

    async def _metrics(self, request: Request) -> Response:
        """Metrics of orchestrations, which POST resets. Azure has no such endpoint."""
        self._check_admin(request)
        if request.method == "POST":
            self._engine.reset_metrics()
        return JSONResponse(self._engine.measure())

    async def _list(self, request: Request) -> Response:
        self._check_admin(request)
        return JSONResponse(
            [{"name": each.name, "config": {"bindings": each.bindings}} for each in self._pool.functions.all]
        )

    async def _run_by_hand(self, request: Request) -> Response:
        """Starts a function that has no HTTP trigger, with ``{"input": ...}``; responds 202 before it ends."""
        self._check_admin(request)
        function = self._pool.functions.named(request.path_params["name"])
        if function is None:
            return Response(status_code=404)
        if function.kind not in (TIMER, EVENT_GRID):
            kind = "is called at its route" if function.kind == HTTP else "is called by orchestrations"
            return PlainTextResponse(f"{function.name} {kind}.", 400)
        try:
            text = await _body(request)
            document: Any = json.loads(text) if text else {}
            given: Any = document.get("input", "")
            event: Any = json.loads(given) if isinstance(given, str) and given else given
        except (_Refused, ValueError, AttributeError):
            return PlainTextResponse('The body must be {"input": ...}.', 400)
        if function.kind == TIMER:
            self._in_background(self._run_timer(function))
        elif isinstance(event, dict):
            self._in_background(self._run_event(function, cast(dict[str, Any], event)))
        else:
            return PlainTextResponse("The input must be an event.", 400)
        return Response(status_code=202)

    def _in_background(self, work: Awaitable[bool]) -> None:
        task = asyncio.ensure_future(work)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def _check_admin(self, request: Request) -> None:
        self._check_origin(request)
        self._check_key(lambda keys: keys.open_admin(request))

    def _check_key(self, opens: Callable[[Keys], bool]) -> None:
        if self._keys is not None and not opens(self._keys):
            raise _Refused(401)

    def _check_origin(self, request: Request) -> None:
        """Without keys, a page in the user's browser must not reach the host: no foreign Host, no foreign Origin."""
        origin = request.headers.get("origin")
        names = {request.url.hostname, urlsplit(origin).hostname if origin else "localhost"}
        if self._keys is None and not names <= _LOOPBACK:
            raise _Refused(403)


async def _refuse(_: Request, error: Exception) -> Response:
    return Response(status_code=error.status if isinstance(error, _Refused) else 400)


async def _body(request: Request) -> bytes:
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > _MAX_BODY:
            raise _Refused(413)
        parts.append(part)
    return b"".join(parts)


def _joined(pairs: Any) -> dict[str, str]:
    """Repeated names become one value with commas, as in the worker protocol."""
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _response(result: Result) -> Response:
    if not result.ok:
        return Response(status_code=500)
    if result.kind == "none":
        return Response(status_code=204)
    if result.kind != "http":
        return Response(result.blob or str(result.value).encode(), 200, media_type="text/plain; charset=utf-8")
    head: dict[str, Any] = result.value
    headers = {name: value for name, value in head["headers"].items() if name.lower() not in _HOP_HEADERS}
    response = Response(result.blob, head["status"], headers=headers)
    cookies: list[dict[str, Any]] = head["cookies"]
    for cookie in cookies:
        cookie["path"] = cookie["path"] or "/"
        response.set_cookie(**cookie)
    return response
