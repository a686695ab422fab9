"""Fault injection: rules that select requests, and their effects."""

from __future__ import annotations

import random
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Literal

from pydantic import Field, model_validator

from local.azure_simulator.server.json_readers import Strict

type Operation = Literal[
    "assess", "install", "poll", "read", "list", "power", "update", "maintenance", "assignment", "snapshot", "script",
    "graph", "health", "alerts", "metadata", "token",
]  # fmt: skip
"""The operations of routes, and ``token`` for the identity endpoint."""


class Match(Strict):
    """Which requests a rule is for; what is absent matches everything. Compared without case."""

    method: str | None = None
    path: str | None = None
    """A glob over the path, without the query."""
    machine: str | None = None
    """A glob over the name, or the full id, of the machine that the request is about (polls included)."""
    operation: Operation | None = None


class Effect(Strict):
    """What happens to a matching request."""

    status: int | None = Field(default=None, ge=100, le=599)
    body: Any = None
    """JSON, or a string that is sent as it is."""
    content_type: str | None = None
    headers: dict[str, str | None] = Field(default_factory=dict[str, str | None])
    """Laid over the answer's own headers; null takes one away."""
    accept: bool = False
    """With a status or body: let Azure do the work first, and only then replace the answer."""
    drop: Literal["before", "after"] | None = None
    """Reset the connection without an answer: before the work is done, or after it was accepted."""
    delay_seconds: float = Field(default=0, ge=0, le=600)
    """Real seconds before the answer."""
    lose_operation: bool = False
    """Accept, and forget the operation's record: its URLs answer 404 while the guest works on."""
    operation_status: str | None = None
    """The outer status that this poll reports instead of the real one."""

    @model_validator(mode="after")
    def _does_something(self) -> Effect:
        if not self.model_dump(exclude_defaults=True):
            raise ValueError("the effect does nothing")
        if self.drop and self.status:
            raise ValueError("a dropped answer has no status")
        return self


class Rule(Strict):
    """A rule: skip the first ``after`` matches, then act on ``times`` of them (none: on all)."""

    match: Match = Field(default_factory=Match)
    effect: Effect
    times: int | None = Field(default=None, ge=1)
    after: int = Field(default=0, ge=0)
    probability: float = Field(default=1.0, gt=0, le=1)
    """Of acting on a match, by the seeded random source."""


@dataclass(slots=True)
class _Held:
    id: str
    rule: Rule
    matched: int = 0
    hits: int = 0

    def document(self) -> dict[str, Any]:
        shown = self.rule.model_dump(mode="json", by_alias=True, exclude_defaults=True)
        return {"id": self.id, "matched": self.matched, "hits": self.hits} | shown


class Faults:
    """The active rules in order; the first one that acts wins."""

    def __init__(self, seed: int) -> None:
        self._source = random.Random(f"faults:{seed}")
        self._rules: dict[str, _Held] = {}
        self._made = 0

    def add(self, document: object) -> dict[str, Any]:
        """Add a rule.

        Raises:
            pydantic.ValidationError: not a rule.
        """
        rule = Rule.model_validate(document)
        self._made += 1
        held = _Held(str(self._made), rule)
        self._rules[held.id] = held
        return held.document()

    def remove(self, rule_id: str | None = None) -> bool:
        """Remove one rule, or all; false when there is no such rule."""
        if rule_id is None:
            self._rules.clear()
            return True
        return self._rules.pop(rule_id, None) is not None

    def documents(self) -> list[dict[str, Any]]:
        return [held.document() for held in self._rules.values()]

    def effect(self, method: str, path: str, machine_id: str | None, operation: str | None) -> Effect | None:
        """The effect on this request, counted; none when no rule acts."""
        for held in self._rules.values():
            if not _matches(held.rule.match, method, path, machine_id, operation):
                continue
            held.matched += 1
            if held.matched <= held.rule.after or (held.rule.times is not None and held.hits >= held.rule.times):
                continue
            if held.rule.probability < 1 and self._source.random() >= held.rule.probability:
                continue
            held.hits += 1
            return held.rule.effect
        return None


def _matches(match: Match, method: str, path: str, machine_id: str | None, operation: str | None) -> bool:
    if match.method is not None and match.method.upper() != method.upper():
        return False
    if match.operation is not None and match.operation != operation:
        return False
    if match.path is not None and not fnmatchcase(path.casefold(), match.path.casefold()):
        return False
    if match.machine is None:
        return True
    if machine_id is None:
        return False
    wanted = match.machine.casefold()
    return fnmatchcase(machine_id.casefold(), wanted) or fnmatchcase(machine_id.rpartition("/")[2].casefold(), wanted)
