"""What tests of triggers share: requests as the worker hands them over, and a durable client that only records."""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime, tzinfo
from inspect import signature
from typing import Any, Self, cast

import azure.functions as func
import grpc

from patchwave.api.endpoint import RouteSpec

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
POLICY: dict[str, Any] = {"scope": {"subscriptions": [SUBSCRIPTION]}, "maxConcurrent": 3}

TENANT = "77777777-2222-4333-8444-555555555555"


def clock_at(moment: datetime) -> type[datetime]:
    """What to put in the place of a module's ``datetime``, so that it is always that moment there."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> Self:
            return cls.fromtimestamp(moment.timestamp(), tz)

    return Clock


def signed_in(object_id: str, *roles: str, name: str = "", **changes: Any) -> dict[str, str]:
    """The headers that App Service writes for a principal of Entra; ``changes`` are keys of the decoded document."""
    claims = [
        {"typ": "http://schemas.microsoft.com/identity/claims/tenantid", "val": TENANT},
        {"typ": "http://schemas.microsoft.com/identity/claims/objectidentifier", "val": object_id},
        {"typ": "name", "val": name},
        *({"typ": "roles", "val": role} for role in roles),
    ]
    document = {"auth_typ": "aad", "claims": claims, "name_typ": "name", "role_typ": "roles"} | changes
    return {
        "x-ms-client-principal": base64.b64encode(json.dumps(document).encode()).decode(),
        "x-ms-client-principal-id": object_id,
        "x-ms-client-principal-idp": "aad",
        **({"x-ms-client-principal-name": name} if name else {}),
    }


class EngineError(grpc.RpcError):
    """What the client raises when the engine answers with an error; the engine's text names its own address."""

    def __init__(self, text: str) -> None:
        super().__init__(f"{text} at http://127.0.0.1:1/runtime?code=SECRET")


class Engine:
    """A durable client without an engine: it keeps instances and events, and fails when told to."""

    def __init__(self) -> None:
        self.instances: dict[str, tuple[str, object]] = {}
        self.attempts: list[str] = []
        self.events: list[tuple[str, str]] = []
        self.failing = False

    async def schedule_new_orchestration(self, name: str, /, *, input: object, instance_id: str, version: str) -> str:
        self.attempts.append(instance_id)
        if self.failing:
            raise EngineError("unavailable")
        if instance_id in self.instances:
            raise EngineError(f"instance {instance_id} already exists")
        self.instances[instance_id] = (name, input)
        return instance_id

    async def raise_orchestration_event(self, instance_id: str, event_name: str, *, data: object = None) -> None:
        if self.failing or instance_id not in self.instances:
            raise EngineError("no such instance")
        self.events.append((instance_id, event_name))

    async def get_orchestration_state(self, instance_id: str) -> object:
        if self.failing:
            return None
        return self.instances.get(instance_id)


class Answer:
    """An answer as a client sees it."""

    def __init__(self, response: func.HttpResponse) -> None:
        self.status = response.status_code
        self.headers = dict(response.headers)
        self.type = response.mimetype
        self.text = response.get_body().decode()

    @property
    def json(self) -> Any:
        return json.loads(self.text)

    @property
    def problem(self) -> dict[str, Any]:
        """The body, once it has been found to be a problem document of the right form."""
        document = cast("dict[str, Any]", self.json)
        assert self.type == "application/problem+json"
        assert document["type"] == "about:blank"
        assert document["status"] == self.status
        assert document["title"]
        assert document["detail"]
        return document

    @property
    def paths(self) -> list[str]:
        """The paths of a problem's errors."""
        return [error["path"] for error in self.problem.get("errors", [])]


def user_function(function: object) -> Callable[..., Awaitable[func.HttpResponse]]:
    """The function itself, without the host's bindings."""
    found = cast("Any", function).build().get_user_function()
    return cast("Callable[..., Awaitable[func.HttpResponse]]", getattr(found, "client_function", found))


class _Registered:
    """A handler in the form in which `call` takes functions."""

    def __init__(self, handler: object) -> None:
        self._handler = handler

    def build(self) -> Self:
        return self

    def get_user_function(self) -> object:
        return self._handler


async def call_route(spec: RouteSpec, *, engine: Engine | None = None, **request: Any) -> Answer:
    """Call a registered route, with a durable client if it takes one."""
    takes_client = "client" in signature(spec.handler).parameters
    return await call(_Registered(spec.handler), engine=(engine or Engine()) if takes_client else None, **request)


async def call(
    function: object,
    *,
    body: object = b"",
    headers: Mapping[str, str] | None = None,
    query: Mapping[str, str] | None = None,
    engine: Engine | None = None,
    **route: str,
) -> Answer:
    """Call an HTTP function as the worker does. A body that is not bytes is sent as JSON."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    request = func.HttpRequest(
        "POST", "https://example.org/api", headers=headers or {}, params=query or {}, route_params=route, body=raw
    )
    arguments = {"req": request, **({"client": engine} if engine is not None else {})}
    return Answer(await user_function(function)(**arguments))


class PurgedEngine:
    """Notes which instances were to be removed."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.failing = False

    async def purge_orchestrations_by(self, **asked: Any) -> object:
        if self.failing:
            raise grpc.RpcError("unavailable")
        self.asked.append(asked)
        return None
