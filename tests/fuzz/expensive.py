"""Requests that are made to be expensive: each as large as a request may be, and of a shape that some reader dislikes.

The document of the API says where a body may hold what. A request uses up to three of those places and puts something
large there: thousands of unknown keys, of wrong entries or of right ones; or one text that is long and of a form that
careless matching takes ages over. Queries, headers and parts of the route are made large in the same way, up to what a
front end lets through.
"""

from __future__ import annotations

import base64
import copy
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple, cast
from urllib.parse import quote

import requests

from patchwave.api.http import MAX_BODY
from patchwave.api.openapi import openapi
from patchwave.services.strict_json import MAX_KEYS

MAX_LINE = 8_192
"""Of a part of the route, a query parameter or a header: front ends refuse more."""
_DEPTH = 7
_PRINCIPALS = ("X-MS-CLIENT-PRINCIPAL", "X-MS-CLIENT-PRINCIPAL-NAME", "X-MS-CLIENT-PRINCIPAL-ID")
_GUID = "11111111-2222-4333-8444-{:012x}"
_MACHINE = "/subscriptions/" + _GUID + "/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm{}"

_FOREIGN = "/subscriptions/" + _GUID + "/resourceGroups/é/providers/Microsoft.Compute/virtualMachines/é{}"
"""Letters beyond ASCII are folded one by one."""

TEXTS: Sequence[str] = (
    "a",
    "A-",
    "-",
    ".",
    "a.",
    ". ",
    " ",
    "\t",
    "\n",
    "\0",
    "é",
    "ß",
    "\u0130",
    "\u202e",
    "😀",
    "9",
    "{",
    "}",
    "{}",
    "{name}",
    "{name}.",
    "{name}a",
    "{tag:a}",
    "{location}-",
    "https://",
    "https://a?",
    "https://a.example.org/x?sig=1&",
    "http://a ",
    "Bearer ",
    "Bearer aaaaaaaa ",
    "Basic ",
    "Basic YWFhYWFhYWE=",
    "eyJhbGciOiJub25lIn0.",
    "eyJhbGciOiJub25lIn0.eyJhIjoxfQ.",
    "x-functions-key:",
    "password=",
    "password = ",
    "code=",
    "&code=a",
    "sig=",
    "AccountKey=a;",
    "AccountKey",
    '"',
    "'",
    "\\",
    "|",
    "/",
    "/subscriptions/",
    "//",
    "../",
    "@",
    "#",
    "%",
    "%7B",
    "*",
    "*.",
    "?",
    "=",
    ",",
    ";",
    ":",
    "0:",
    "PT1H",
    "1H",
    "P1D",
    "2026-12-10, ",
    "2026-12-10T00:00:00",
    "second Tuesday + ",
    "RRULE:FREQ=MONTHLY;",
    "BYDAY=2TU;",
    "FREQ=DAILY;INTERVAL=1;",
    "BYMONTHDAY=30,",
    "Europe/",
    "Europe/Berlin ",
    "W. Europe Standard Time",
    "westeurope",
    "West Europe",
    "KB5034123",
    "kernel*",
    "name=version",
    "rm -rf /\n",
    "#!",
    "$(",
    "`",
    "<",
    "<a>",
    "&amp;",
    "[",
    "[a](b)",
    "==",
    "10%",
    "١",
)
"""What long texts are made of."""


class Permit(NamedTuple):
    """A place in the body of an operation: keys that lead there, and what the document says of it."""

    path: tuple[str | int, ...]
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Operation:
    """One operation of the API: how it is called, and the permits of its body."""

    name: str
    method: str
    template: str
    parameters: Sequence[Mapping[str, Any]]
    examples: Sequence[Any]
    permits: Sequence[Permit]


@dataclass
class Expensive:
    """Makes requests.

    Args:
        random: decides everything.
        known: names and ids that exist, by collection and part of the route.
    """

    random: Random
    known: Mapping[str, Sequence[str]]

    def __post_init__(self) -> None:
        self.operations = list(_operations())
        self.most = MAX_BODY
        """Keys of an object, and half as many as the entries of a list: what is refused by its number costs little."""
        self._known = list(_known_requests())
        self._weights = [1 + 3 * bool(each.permits) + len(each.permits) ** 0.5 for each in self.operations]

    def make(self) -> tuple[requests.PreparedRequest, str, str]:
        """A request, the name of its operation, and what is expensive about it; first those that were too expensive."""
        if self._known:
            return self._known.pop(0)
        [operation] = self.random.choices(self.operations, self._weights)
        told: list[str] = []
        parts, query, headers = {}, {}, {}
        body: Any = None
        aim = self.random.random() if operation.permits else self.random.uniform(0.8, 1)
        if operation.permits and aim < 0.9:
            body = self._body(operation, told)
        for parameter in operation.parameters:
            name, where = parameter["name"], parameter["in"]
            is_large = aim >= 0.8 and self.random.random() < 0.5
            if where == "path":
                parts[name] = self._part(operation, parameter, is_large=is_large and self.random.random() < 0.3)
            elif is_large:
                value = self._line(told, name)
                (query if where == "query" else headers)[name] = value
        if aim >= 0.95:
            headers[self.random.choice(_PRINCIPALS)] = self._principal(told)
        address = operation.template
        for name, value in parts.items():
            address = address.replace("{" + name + "}", quote(value, safe=""))
        written = b"" if body is None else _written(body)
        request = requests.Request(
            operation.method.upper(),
            f"http://localhost{address}",
            params=query,
            headers={
                "Content-Type": "application/json",
                **{name: _header(text) for name, text in headers.items()},
            },
            data=written,
        )
        return request.prepare(), operation.name, "; ".join(told) or "nothing"

    def _body(self, operation: Operation, told: list[str]) -> Any:
        body: Any = copy.deepcopy(self.random.choice(operation.examples)) if operation.examples else {}
        self.most = self.random.choice((MAX_KEYS, MAX_KEYS, MAX_BODY))
        for _ in range(self.random.choice((1, 1, 1, 2, 3, 8))):
            place = self.random.choice(operation.permits)
            room = MAX_BODY - 1_000 - len(_written(body))
            if room < 0:
                break
            kind, value = self._value(place.schema, room)
            told.append(f"{'.'.join(map(str, place.path)) or '$'}: {kind}")
            body = _put(body, place.path, value)
        if len(_written(body)) > MAX_BODY:
            return _shrunk(body)
        return body

    def _value(self, schema: Mapping[str, Any], room: int) -> tuple[str, Any]:
        """Something large for a place, and what it is."""
        room = max(100, room)
        r = self.random
        ways: list[tuple[str, Callable[[], Any]]] = []
        kinds = _kinds(schema)
        if "object" in kinds:
            ways += [
                ("unknown keys", lambda: _many_keys(room, self.most, lambda n: f"k{n}", 1)),
                ("nearly known keys", lambda: _near_keys(schema, room, self.most)),
                ("long unknown keys", lambda: _many_keys(room, self.most, lambda n: f"{n}" + "a" * 900, 1)),
                ("one long key", lambda: {r.choice(TEXTS) * (room // 8): 1}),
                ("texts as members", lambda: _many_keys(room, self.most, lambda n: f"t{n}", "x")),
                ("lists as members", lambda: _many_keys(room, self.most, lambda n: f"t{n}", ["x"])),
            ]
        if "array" in kinds:
            item = cast("Mapping[str, Any]", schema.get("items", {}))
            ways += [
                ("right entries", lambda: _many(room, 2 * self.most, lambda n: _right(item, n))),
                ("wrong entries", lambda: _many(room, 2 * self.most, lambda n: f"x{n}")),
                ("equal entries", lambda: _many(room, 2 * self.most, lambda _: _right(item, 1))),
                ("numbers", lambda: _many(room, 2 * self.most, lambda n: n)),
                ("nulls", lambda: _many(room, 2 * self.most, lambda _: None)),
                ("empty objects", lambda: _many(room, 2 * self.most, lambda _: {})),
                ("long wrong entries", lambda: _many(room, 2 * self.most, lambda _: r.choice(TEXTS) * 300)),
                ("nested lists", lambda: _many(room, 2 * self.most, lambda _: [[[]]])),
            ]
            if _kinds(item) & {"object"}:
                ways.append(
                    ("entries of unknown keys", lambda: _many(room, 2 * self.most, lambda n: {f"k{n}": 1, f"l{n}": 1}))
                )
        if "string" in kinds or not kinds:
            unit = r.choice(TEXTS)
            size = r.choice((157, 1_000, 2_000, 32_768, room))
            ways += [
                (f"{unit!r} for {size} bytes", lambda: _repeated(unit, min(size, room))),
                (f"{unit!r} and an end", lambda: _repeated(unit, min(size, room)) + "!"),
                ("two texts", lambda: _repeated(unit + r.choice(TEXTS), min(size, room))),
            ]
        ways += [
            ("deep lists", lambda: _deep(r.choice((10, 200, 900)))),
            ("many digits", lambda: 10 ** r.choice((18, 400, 4_000)) + 1),
            ("a long text", lambda: _repeated(r.choice(TEXTS), room)),
            ("a list of texts", lambda: _many(room, 2 * self.most, lambda n: f"x{n}")),
            ("an object of texts", lambda: _many_keys(room, self.most, lambda n: f"k{n}", "x")),
        ]
        # What fits the place gets further than what is refused for its type.
        fitting = ways[:-5] or ways
        kind, make = r.choice(fitting if r.random() < 0.85 else ways)
        return kind, make()

    def _part(self, operation: Operation, parameter: Mapping[str, Any], *, is_large: bool) -> str:
        if is_large:
            return _repeated(self.random.choice(TEXTS), 1_000)
        collection = operation.template.split("/")[2]
        known = self.known.get(f"{collection}.{parameter['name']}")
        return self.random.choice(known) if known else str(parameter.get("example", "x"))

    def _line(self, told: list[str], name: str) -> str:
        unit = self.random.choice(TEXTS)
        told.append(f"{name}: {unit!r}")
        how = self.random.randrange(4)
        if how == 0:
            return ",".join(_repeated(unit, 20) for _ in range(MAX_LINE // 60))
        if how == 1:
            return ",".join(_MACHINE.format(n, n) for n in range(MAX_LINE // 140))
        if how == 2:
            return ",".join(_GUID.format(n) for n in range(MAX_LINE // 40))
        return _repeated(unit, MAX_LINE // 2)

    def _principal(self, told: list[str]) -> str:
        claims = [{"typ": f"t{n}", "val": "x"} for n in range(self.random.choice((1, 10, 150)))]
        told.append(f"a principal with {len(claims)} claims")
        return base64.b64encode(json.dumps({"auth_typ": "aad", "claims": claims}).encode()).decode()[:MAX_LINE]


def _known_requests() -> Iterator[tuple[requests.PreparedRequest, str, str]]:
    """Requests that once took too long, in an order in which the later ones find what they need."""
    rings = [
        {"name": f"ring{ring}", "machineIds": [_FOREIGN.format(1, ring * 103 + number) for number in range(103)]}
        for ring in range(20)
    ]
    policy = {"scope": {"subscriptions": [_GUID.format(1)]}, "rings": rings}
    machines = {"machineIds": [_FOREIGN.format(1, number) for number in range(2_000)]}
    what = "machine ids beyond ASCII"
    for method, address, operation, body in (
        ("PUT", "policies/foreign", "putPolicy", policy),
        ("POST", "runs", "startRun", {"policy": "foreign", "overrides": {"maxConcurrent": 999}}),
        ("POST", "runs", "startRun", {"policy": "foreign", "overrides": {"maxConcurrent": 9_999}}),
        ("POST", "runs", "startRun", {"policy": policy, "mode": "assess"}),
        ("POST", "plans", "planDryRun", {"policy": policy}),
        ("POST", "plans", "planDryRun", {"policy": policy, "overrides": {"maxConcurrent": 5}}),
        ("POST", "fleet/mode-changes", "planModeChange", {"scope": machines, "patchMode": "AutomaticByPlatform"}),
        ("GET", "policies/foreign/occurrences", "listOccurrences", None),
    ):
        written = b"" if body is None else _written(body)
        headers = {"Content-Type": "application/json"}
        request = requests.Request(method, f"http://localhost/api/{address}", headers=headers, data=written)
        yield request.prepare(), operation, what


def _operations() -> Iterator[Operation]:
    document = openapi()
    components = document["components"]["schemas"]
    for template, methods in document["paths"].items():
        for method, raw in methods.items():
            content = raw.get("requestBody", {}).get("content", {}).get("application/json", {})
            examples = [each["value"] for each in content.get("examples", {}).values()]
            permits = list(_places(content["schema"], components)) if content else []
            yield Operation(raw["operationId"], method, template, raw["parameters"], examples, permits)


def _places(
    schema: Mapping[str, Any], components: Mapping[str, Any], path: tuple[str | int, ...] = ()
) -> Iterator[Permit]:
    for resolved in _resolved(schema, components):
        if len(path) > _DEPTH:
            return
        yield Permit(path, resolved)
        for name, member in resolved.get("properties", {}).items():
            yield from _places(member, components, (*path, name))
        extra = resolved.get("additionalProperties")
        if isinstance(extra, Mapping) and extra:
            yield from _places(cast("Mapping[str, Any]", extra), components, (*path, "a"))
        if items := resolved.get("items"):
            yield from _places(items, components, (*path, 0))


def _resolved(schema: Mapping[str, Any], components: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    """The schema, or each of those that it stands for, with the references of its entries followed."""
    if "$ref" in schema:
        yield from _resolved(components[schema["$ref"].rpartition("/")[2]], components)
    elif choices := schema.get("anyOf") or schema.get("oneOf"):
        for each in choices:
            yield from _resolved(each, components)
    else:
        found = dict(schema)
        if "items" in found:
            found["items"] = next(_resolved(found["items"], components), {})
        yield found


def _kinds(schema: Mapping[str, Any]) -> set[str]:
    given = schema.get("type", [])
    return {given} if isinstance(given, str) else set(given)


def _right(schema: Mapping[str, Any], number: int) -> Any:
    """The entry of that number that the document calls right, as far as it tells."""
    pattern = str(schema.get("pattern", ""))
    if schema.get("enum"):
        return schema["enum"][number % len(schema["enum"])]
    match next(iter(_kinds(schema)), ""):
        case "object":
            wanted = schema.get("required", [])
            members = schema.get("properties", {})
            return {name: _right(members[name], number) for name in wanted if name in members}
        case "array":
            return [_right(schema.get("items", {}), number)]
        case "integer" | "number":
            return number % 5
        case "boolean":
            return False
        case _:
            if "virtual" in pattern.lower() or "irtual" in pattern:
                return _MACHINE.format(number, number)
            if "{8}" in pattern and "{12}" in pattern:
                return _GUID.format(number)
            return f"a{number}"


def _near_keys(schema: Mapping[str, Any], room: int, most: int) -> Mapping[str, Any]:
    names = list(schema.get("properties", {})) or ["name"]
    return _many_keys(room, most, lambda n: f"{names[n % len(names)]}{n}", 1)


def _many(room: int, most: int, entry: Callable[[int], Any]) -> list[Any]:
    made: list[Any] = []
    left = room
    while len(made) < most:
        value = entry(len(made))
        left -= len(_written(value)) + 1
        if left < 0:
            break
        made.append(value)
    return made


def _many_keys(room: int, most: int, key: Callable[[int], str], value: Any) -> dict[str, Any]:
    made: dict[str, Any] = {}
    size = len(_written(value))
    left = room
    while len(made) < most:
        name = key(len(made))
        left -= len(_written(name)) + size + 2
        if left < 0:
            break
        made[name] = value
    return made


def _repeated(unit: str, size: int) -> str:
    return unit * max(1, size // max(1, len(_written(unit)) - 2))


def _deep(depth: int) -> Any:
    value: Any = []
    for _ in range(depth):
        value = [value]
    return value


def _put(body: Any, path: Sequence[str | int], value: Any) -> Any:
    """The body with the value at the place; what is missing on the way there is made."""
    if not path:
        return body | value if isinstance(body, dict) and isinstance(value, dict) else value
    first, *rest = path
    if isinstance(first, int):
        entries = list(body) if isinstance(body, list) and body else [None]
        entries[0] = _put(entries[0], rest, value)
        return entries
    members = dict(body) if isinstance(body, dict) else {}
    members[first] = _put(members.get(first), rest, value)
    return members


def _written(value: Any) -> bytes:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()


def _header(text: str) -> str:
    """The text as a header may hold it."""
    return "".join(each if each.isprintable() and each.isascii() else "?" for each in text).strip()


def _shrunk(body: Any) -> Any:
    """Something of the body that a request may have."""
    if isinstance(body, dict):
        largest = max(body, key=lambda name: len(_written(body[name])))
        return {name: value for name, value in body.items() if name != largest}
    return []
