"""The API in this process, with documents that schemathesis can name."""

from __future__ import annotations

import asyncio
import io
from datetime import timedelta
from inspect import signature
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import azure.functions as func
import requests
import urllib3
from pydantic.alias_generators import to_camel
from requests.adapters import HTTPAdapter

from patchwave.api import openapi
from patchwave.domain.runs.run import RunState
from patchwave.storage import Storage
from tests.support.factories import NOW, machine
from tests.support.factories import run as a_run
from tests.support.http_calls import POLICY, Engine

SECONDS = 20.0
"""No answer takes longer; on an idle machine the slowest takes a tenth of one."""

SEED = 20261110
SNAPSHOT = {"name": "monthly", **POLICY}


class InProcess:
    """Sends requests to the functions themselves, with an engine that only records."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._engine = Engine()
        self._routes = {to_camel(each.name): each for each in openapi.routes()}

    def __call__(self, request: requests.PreparedRequest, operation: str) -> requests.Response:
        route = self._routes[operation]
        url = urlsplit(str(request.url))
        # The route is known, so that its parts need no matching: they stand where the template has them.
        parts = zip(openapi.path_of(route).split("/"), url.path.split("/"), strict=True)
        # What requests calls them is wider than what they are once prepared.
        body = cast("bytes | str", request.body or b"")
        asked = func.HttpRequest(
            str(request.method),
            str(request.url),
            headers=cast("dict[str, str]", dict(request.headers)),
            params=_joined(parse_qsl(url.query, keep_blank_values=True)),
            route_params={name[1:-1]: unquote(value) for name, value in parts if name.startswith("{")},
            body=body.encode() if isinstance(body, str) else body,
        )
        work = asyncio.run_coroutine_threadsafe(self._answer(route.handler, asked), self._loop)
        return _response(request, work.result(SECONDS))

    async def _answer(self, handler: Any, request: func.HttpRequest) -> func.HttpResponse:
        takes_client = "client" in signature(handler).parameters
        return await (handler(req=request, client=self._engine) if takes_client else handler(req=request))


def _joined(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Repeated names become one value with commas, as the host does it."""
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _response(request: requests.PreparedRequest, answer: func.HttpResponse) -> requests.Response:
    raw = urllib3.HTTPResponse(
        io.BytesIO(answer.get_body()),
        {"Content-Type": str(answer.mimetype), **dict(answer.headers)},
        answer.status_code,
        preload_content=False,
    )
    return HTTPAdapter().build_response(request, raw)


async def known_of_everything(storage: Storage, policy: str) -> dict[str, list[str]]:
    """Names and ids of what exists: the policy, and a run in each state, which are stored for that."""
    known = {"policies.name": [policy], "webhooks.policy": [policy], "freezes.name": ["year-end"]}
    for number, state in enumerate(RunState):
        run = a_run(NOW + timedelta(seconds=number), state=state, policy_snapshot=SNAPSHOT)
        await storage.runs.create(run)
        await storage.machines.add(run.id, [machine(1)])
        known.setdefault("runs.runId", []).append(run.id)
    known["runs.machineKey"] = [machine(1).key]
    return known
