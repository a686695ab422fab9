"""Reading the service's JSON: parts may be null or missing, and are then empty."""

from __future__ import annotations

from typing import Any, cast

type Json = dict[str, Any]


def part(document: Json, key: str) -> Json:
    """The object under a key."""
    return cast("Json", document.get(key) or {})


def items(document: Json, key: str) -> list[Json]:
    """The list of objects under a key."""
    return cast("list[Json]", document.get(key) or [])


def by_name(document: Json) -> tuple[str, str]:
    """Sorts machines for people: by name, then by id, without case."""
    return str(document.get("name", "")).casefold(), str(document.get("id", "")).casefold()


def counts(document: Json, key: str) -> dict[str, int]:
    """The counters under a key."""
    return cast("dict[str, int]", document.get(key) or {})
