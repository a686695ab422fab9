"""Lenient readers of parsed JSON: a value of another kind counts as empty."""

from __future__ import annotations

from typing import Any, cast


def object_or_none(value: object) -> dict[str, Any]:
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def list_or_empty(value: object) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else []


def dig(document: object, *path: str) -> Any:
    """The value at a path of keys, or nothing."""
    found: Any = document
    for key in path:
        found = object_or_none(found).get(key)
    return found
