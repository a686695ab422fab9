"""Route templates of HTTP functions, as ASP.NET Core writes and matches them."""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from urllib.parse import unquote

from local.functions_host.functions import HTTP, Function
from local.functions_host.host_json import HostJsonError

# Methods of a function without ``methods``.
_ALL_METHODS = ("GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS")

_PARAMETER = re.compile(r"^\{(?P<stars>\*{0,2})(?P<name>\w+)(?::(?P<constraint>[^}?]+))?(?P<optional>\?)?\}$")
_CONSTRAINTS = {
    "int": r"-?\d+",
    "long": r"-?\d+",
    "alpha": r"[A-Za-z]+",
    "bool": r"(?:true|false)",
    "guid": r"[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}",
}


@dataclass(frozen=True, slots=True)
class Route:
    """One function's route; ``order`` sorts the more specific one first."""

    function: Function
    methods: frozenset[str]
    pattern: re.Pattern[str]
    order: tuple[int, ...]


class Routes:
    """All routes of an app under its prefix."""

    def __init__(self, functions: Iterable[Function], prefix: str) -> None:
        made = [_route(function, prefix) for function in functions if function.kind == HTTP]
        self._routes = sorted(made, key=lambda route: route.order)

    def match(self, method: str, path: str) -> tuple[Function, dict[str, str]] | None:
        """The function for a raw (still escaped) path, and its route parameters; None is a 404.

        A path that matches with another method is a 404 too, as in Azure.
        """
        for route in self._routes:
            found = route.pattern.fullmatch(path.strip("/"))
            if found is not None and method.upper() in route.methods:
                given = {name: value for name, value in found.groupdict().items() if value is not None}
                return route.function, {name: unquote(value) for name, value in given.items()}
        return None


def _route(function: Function, prefix: str) -> Route:
    template = str(function.trigger.get("route") or function.name).strip("/")
    segments = [segment for segment in f"{prefix}/{template}".split("/") if segment]
    pattern, order = "", list[int]()
    for index, segment in enumerate(segments):
        text, rank, optional = _segment(function.name, segment)
        slash = "/" if index else ""
        pattern += f"(?:{slash}{text})?" if optional else f"{slash}{text}"
        order.append(rank)
    methods = function.trigger.get("methods") or _ALL_METHODS
    return Route(
        function, frozenset(str(method).upper() for method in methods), re.compile(pattern, re.IGNORECASE), tuple(order)
    )


def _segment(function: str, segment: str) -> tuple[str, int, bool]:
    """A segment's pattern, its rank (0 literal, 1 constrained, 2 free, 3 rest), and whether it may be missing."""
    if "{" not in segment:
        return re.escape(segment), 0, False
    found = _PARAMETER.match(segment)
    if found is None:
        raise HostJsonError(f"{function}: the route segment '{segment}' is not supported; write {{name}}")
    name, constraint = found["name"], found["constraint"]
    if found["stars"]:
        return f"(?P<{name}>.*)", 3, True
    if constraint is None:
        return f"(?P<{name}>[^/]+)", 2, bool(found["optional"])
    if constraint not in _CONSTRAINTS:
        known = ", ".join(_CONSTRAINTS)
        raise HostJsonError(f"{function}: the route constraint '{constraint}' is not supported ({known} are)")
    return f"(?P<{name}>{_CONSTRAINTS[constraint]})", 1, bool(found["optional"])
