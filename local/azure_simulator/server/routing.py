"""Requests, responses, and routes. Resource Manager compares paths without case."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from local.azure_simulator.compute.operations import indented
from local.azure_simulator.server.errors import unreadable_body


@dataclass(slots=True)
class Call:
    """A routed request. ``captured`` holds the path's variables, as written."""

    method: str
    path: str
    raw_query: str
    body: bytes
    headers: dict[str, str]
    captured: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def subscription(self) -> str:
        return self.captured["subscription"]

    @property
    def group(self) -> str:
        """Empty for a whole subscription."""
        return self.captured.get("group", "")

    @property
    def key(self) -> str:
        """The normalized path."""
        return self.path.rstrip("/").casefold()

    def covers(self, subscription_id: str, group: str) -> bool:
        """Whether a resource is in the subscription, or in the resource group, of the path."""
        is_here = subscription_id.casefold() == self.subscription.casefold()
        return is_here and self.group.casefold() in ("", group.casefold())

    @property
    def query(self) -> dict[str, str]:
        return dict(parse_qsl(self.raw_query, keep_blank_values=True))

    @property
    def api_version(self) -> str:
        return next((value for key, value in self.query.items() if key.casefold() == "api-version"), "")

    def json(self) -> Any:
        """The body as JSON; none for an empty body.

        Raises:
            ArmError: 400 when it is not JSON.
        """
        if not self.body.strip():
            return None
        try:
            return json.loads(self.body)
        except ValueError as error:
            raise unreadable_body(str(error)) from error


@dataclass(slots=True)
class ArmResponse:
    """A response. Without a body it has Content-Length 0 and no Content-Type."""

    status: int = 200
    body: str | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    content_type: str = "application/json; charset=utf-8"


def compact(document: Any, status: int = 200) -> ArmResponse:
    return ArmResponse(status, json.dumps(document, separators=(",", ":"), ensure_ascii=False))


def pretty(document: Any, status: int = 200) -> ArmResponse:
    return ArmResponse(status, indented(document))


type Handler = Callable[[Call], ArmResponse | Awaitable[ArmResponse]]


@dataclass(frozen=True, slots=True)
class Route:
    """A method and a path pattern such as ``/subscriptions/{subscription}``."""

    method: str
    pattern: str
    operation: str
    """Its name in fault rules and in the log."""
    handler: Handler
    needs_token: bool = True


class Router:
    """Finds the route of a path in one step per segment."""

    def __init__(self, routes: list[Route]) -> None:
        self._tree: dict[str, Any] = {}
        for route in routes:
            node = self._tree
            for segment in route.pattern.strip("/").split("/"):
                node = node.setdefault("{}" if segment.startswith("{") else segment.casefold(), {})
            node.setdefault("", {})[route.method] = route

    def find(self, method: str, path: str) -> tuple[Route | None, dict[str, str]]:
        """The route and its variables; none without a match."""
        node = self._tree
        values: list[str] = []
        for segment in path.strip("/").split("/"):
            following = node.get(segment.casefold())
            if following is None:
                following = node.get("{}")
                values.append(segment)
            if following is None:
                return None, {}
            node = following
        route: Route | None = node.get("", {}).get(method)
        if route is None:
            return None, {}
        names = [part[1:-1] for part in route.pattern.split("/") if part.startswith("{")]
        return route, dict(zip(names, values, strict=True))
