"""Lenient readers of parsed JSON: a value of another kind counts as empty."""

from __future__ import annotations

from typing import Any, cast


def as_object(value: object) -> dict[str, Any]:
    return cast(dict[str, Any], value) if isinstance(value, dict) else {}


def as_list(value: object) -> list[Any]:
    return cast(list[Any], value) if isinstance(value, list) else []


def dig(document: object, *path: str) -> Any:
    """The value at a path of keys, or nothing."""
    found: Any = document
    for key in path:
        found = as_object(found).get(key)
    return found
