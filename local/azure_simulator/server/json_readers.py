"""Strict documents of the simulator's own, and lenient readers of Azure's, for which a wrong kind counts as empty."""

from __future__ import annotations

from typing import Any, cast

from pydantic import BaseModel, ConfigDict
from pydantic.alias_generators import to_camel


class Strict(BaseModel):
    """A document with camelCase keys, in which an unknown key is an error."""

    model_config = ConfigDict(extra="forbid", alias_generator=to_camel, populate_by_name=True)


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
