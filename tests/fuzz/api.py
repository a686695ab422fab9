"""Requests to the API as its own document describes them, right and wrong, and what every answer must be.

Schemathesis makes the requests. It knows no run that exists, so every second request gets a name or an id that an
earlier answer told, and half of those an example of the document as its body: else nearly all would end at "there is
no such run".
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import hypothesis
import hypothesis.strategies as st
import requests
import schemathesis
from hypothesis import HealthCheck, Phase
from schemathesis.checks import not_a_server_error
from schemathesis.core.failures import FailureGroup
from schemathesis.generation import GenerationMode
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from patchwave.api.openapi import openapi

CHECKS = (
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
)
MAX_KNOWN = 50
ROUNDS = 4
"""How often each operation is called, so that it meets what the others have left behind."""
_FIRST = ("putPolicy", "putFreeze", "startRun")
"""They make what the others need."""
_LAST = ("cancelRun", "deletePolicy", "deleteFreeze")
"""They end what the others need."""
_OF_BROWSERS = ("Host", "Origin")
"""Made-up ones are refused by the local host as those of a foreign page, without a body, before the app is asked."""

type Send = Callable[[requests.PreparedRequest, str], requests.Response]
"""Sends a request to the operation of that name; raises when there is no answer in time."""


@dataclass
class Campaign:
    """So many requests over all operations.

    Args:
        send: brings a request to the app.
        seed: the same seed makes the same requests; except for ids of runs, which cannot be foreseen.
        known: names and ids to begin with, by collection and part of the route, such as ``runs.machineKey``.
    """

    send: Send
    seed: int
    known: dict[str, list[str]] = field(default_factory=dict[str, list[str]])
    base_url: str = "http://localhost"
    is_without_azure: bool = False
    """Azure is not there, so that saying so with 502 or 503 is right."""
    failures: dict[str, str] = field(default_factory=dict[str, str])
    """The first failure of each operation and kind, with the request that repeats it."""
    statuses: Counter[tuple[str, int]] = field(default_factory=Counter[tuple[str, int]])

    def run(self, requests_in_all: int) -> None:
        """Send them."""
        document: Any = schemathesis.openapi.from_dict(openapi())
        operations = sorted(
            (each.ok() for each in document.get_all_operations()),
            key=lambda each: (_name(each) in _LAST, _name(each) not in _FIRST, each.label),
        )
        turns = [(operation, mode) for _ in range(ROUNDS) for operation in operations for mode in GenerationMode]
        done = 0
        for turn, (operation, mode) in enumerate(turns):
            share = requests_in_all * (turn + 1) // len(turns) - done
            if share and not (mode is GenerationMode.NEGATIVE and not _can_be_wrong(operation)):
                self._take_turn(operation, mode, share, self.seed * 10_000 + turn)
                done += share
        assert sum(self.statuses.values()) >= requests_in_all

    @property
    def report(self) -> str:
        """The failures, for people; empty when there are none."""
        return "\n\n".join(f"{what}\n{how}" for what, how in sorted(self.failures.items()))

    def table(self) -> str:
        """How often each operation answered what, for people; 0 is no answer."""
        lines: dict[str, list[str]] = {}
        for (name, status), times in sorted(self.statuses.items()):
            lines.setdefault(name, []).append(f"{status}: {times}")
        return "\n".join(f"{name:24}{', '.join(counts)}" for name, counts in lines.items())

    def _take_turn(self, operation: Any, mode: GenerationMode, share: int, seed: int) -> None:
        bodies = _examples(operation)
        left = share

        @hypothesis.seed(seed)
        @hypothesis.settings(
            max_examples=share,
            database=None,
            deadline=None,
            phases=[Phase.generate],
            suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.data_too_large],
        )
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode), choice=st.integers(0, 2**16))
        def turn(case: Any, choice: int) -> None:
            nonlocal left
            left -= 1
            self._send(case, bodies, choice)

        turn()
        # A strategy that has nothing more to give ends early; its last request is good for the rest.
        for choice in range(left):
            case = operation.Case(path_parameters=_first(operation))
            self._send(case, bodies, choice * 2)

    def _send(self, case: Any, bodies: list[Any], choice: int) -> None:
        name = _name(case.operation)
        if choice % 2 == 0:
            for part in case.path_parameters or {}:
                if known := self.known.get(f"{case.operation.tags[0]}.{part}"):
                    case.path_parameters[part] = known[choice // 2 % len(known)]
            if bodies and choice // 2 % 2:
                case.body, case.media_type = bodies[choice // 4 % len(bodies)], "application/json"
        request = requests.Request(**case.as_transport_kwargs(base_url=self.base_url)).prepare()
        for header in _OF_BROWSERS:
            request.headers.pop(header, None)
        try:
            response = self.send(request, name)
            self.statuses[name, response.status_code] += 1
            excused = [not_a_server_error] if self.is_without_azure and response.status_code in (502, 503) else []
            case.validate_response(response, checks=list(CHECKS), excluded_checks=excused)
        except (Exception, FailureGroup) as error:
            self.statuses[name, 0] += 1
            kinds = {type(each).__name__ for each in getattr(error, "exceptions", [error])}
            self.failures.setdefault(f"{name}: {', '.join(sorted(kinds))}", f"seed {self.seed}\n{error}")
            return
        self._learn(response)

    def _learn(self, response: requests.Response) -> None:
        """Keep ids that the answer tells."""
        where = response.headers.get("Location", "")
        if where.startswith("/api/runs/"):
            runs = self.known.setdefault("runs.runId", [])
            if (run_id := where.split("/")[3]) not in runs and len(runs) < MAX_KNOWN:
                runs.append(run_id)


def _name(operation: Any) -> str:
    return operation.definition.raw["operationId"]


def _can_be_wrong(operation: Any) -> bool:
    """Whether there is anything in a request that could be of another form."""
    return bool(operation.definition.raw["parameters"] or "requestBody" in operation.definition.raw)


def _examples(operation: Any) -> list[Any]:
    content = operation.definition.raw.get("requestBody", {}).get("content", {})
    examples: Mapping[str, Any] = content.get("application/json", {}).get("examples", {})
    return [each["value"] for each in examples.values()]


def _first(operation: Any) -> dict[str, str]:
    raw: Iterable[Mapping[str, Any]] = operation.definition.raw["parameters"]
    return {each["name"]: each["example"] for each in raw if each["in"] == "path"}
