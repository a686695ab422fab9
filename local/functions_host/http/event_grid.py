"""The Event Grid webhook of the host's extension, ``/runtime/webhooks/EventGrid?functionName=NAME``."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any, cast

from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from local.functions_host.functions import EVENT_GRID, Function, Functions

# Runs one event; False when the function failed.
type RunEvent = Callable[[Function, dict[str, Any]], Awaitable[bool]]


def _events(document: object) -> list[dict[str, Any]] | None:
    listed = cast(list[object], document) if isinstance(document, list) else [document]
    return cast(list[dict[str, Any]], listed) if all(isinstance(event, dict) for event in listed) else None


async def answer(request: Request, body: bytes, functions: Functions, run: RunEvent) -> Response:
    """Handshakes of both schemas, and deliveries: one invocation per event, 202 when all succeeded.

    A failed event makes the whole delivery fail with 500, so that Event Grid delivers it again.
    """
    name = request.query_params.get("functionName", "")
    function = functions.named(name)
    if function is None or function.kind != EVENT_GRID:
        return PlainTextResponse(f"cannot find function: '{name}'", 404)
    if request.method == "OPTIONS":
        # CloudEvents 1.0 webhook handshake.
        origin = request.headers.get("webhook-request-origin")
        if not origin:
            return PlainTextResponse("WebHook-Request-Origin is missing", 400)
        return Response(status_code=200, headers={"WebHook-Allowed-Origin": origin, "WebHook-Allowed-Rate": "*"})
    try:
        events = _events(json.loads(body))
    except ValueError:
        events = None
    if events is None:
        return PlainTextResponse("The body is neither an event nor a list of events.", 400)
    is_cloud = request.headers.get("content-type", "").startswith("application/cloudevents")
    kind = request.headers.get("aeg-event-type", "Notification" if is_cloud else "").casefold()
    if kind == "subscriptionvalidation":
        data: Any = events[0].get("data") if events else None
        code = cast(dict[str, Any], data).get("validationCode") if isinstance(data, dict) else None
        if not code:
            return PlainTextResponse("data.validationCode is missing", 400)
        return JSONResponse({"validationResponse": code})
    if kind == "unsubscribe":
        return Response(status_code=202)
    if kind != "notification":
        return PlainTextResponse(f"aeg-event-type '{kind}' is not known", 400)
    succeeded = await asyncio.gather(*(run(function, event) for event in events))
    return Response(status_code=202 if all(succeeded) else 500)
