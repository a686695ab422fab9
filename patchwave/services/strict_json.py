"""Parses untrusted JSON: unambiguous, and bounded in size."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from patchwave.services.errors import InvalidRequest

MAX_ENTRIES = 2_000
"""Per list of a body: as many machine ids as a body has room for."""
MAX_KEYS = 1_000
"""Per object of a body."""
MAX_VALUES = 10_000
"""In all lists and objects of a body: each may be an error to report."""
_MAX_NAME = 100


def parse_json(body: bytes) -> object:
    """Parse a body as JSON that every parser reads the same way.

    Raises:
        InvalidRequest: not JSON, a duplicate key, an unpaired surrogate, or above a limit.
    """
    try:
        document = json.loads(body, object_pairs_hook=_Objects().read, parse_constant=_refuse_constant)
        _check_extent(document)
        # Raises for an unpaired surrogate, which neither storage nor a response could hold.
        json.dumps(document, ensure_ascii=False).encode()
    except _AmbiguousKey as error:
        raise InvalidRequest(f"The body names the key {error} of one object twice.") from None
    except UnicodeEncodeError:
        raise InvalidRequest("The body holds half of a surrogate pair, which is no text.") from None
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not JSON.") from None
    return document


def _check_extent(document: object) -> None:
    """Enforce the limits. The length of values is bounded by the body itself.

    Raises:
        InvalidRequest: a limit is exceeded.
    """
    values = 0
    left = [document]
    while left:
        value = left.pop()
        if isinstance(value, dict):
            inner: Sequence[object] = list(cast("dict[str, object]", value).values())
        elif isinstance(value, list):
            inner = cast("list[object]", value)
            if len(inner) > MAX_ENTRIES:
                raise InvalidRequest(f"A list of the body has more than {MAX_ENTRIES:,} entries.")
        else:
            continue
        values += len(inner)
        if values > MAX_VALUES:
            raise _too_many_values()
        left += inner


def _too_many_values() -> InvalidRequest:
    return InvalidRequest(f"The body has more than {MAX_VALUES:,} values.")


class _AmbiguousKey(Exception):
    """An object has a duplicate key; the text is the key."""


class _Objects:
    """Builds the objects of one body, up to the limit."""

    def __init__(self) -> None:
        self._values = 0

    def read(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """An object from its members, whose keys must be unique."""
        self._values += 1 + len(pairs)
        if len(pairs) > MAX_KEYS:
            raise InvalidRequest(f"An object of the body has more than {MAX_KEYS:,} keys.")
        if self._values > 2 * MAX_VALUES:
            raise _too_many_values()
        made = dict(pairs)
        if len(made) < len(pairs):
            seen: set[str] = set()
            again = next(name for name, _ in pairs if name in seen or seen.add(name))
            raise _AmbiguousKey(json.dumps(again)[:_MAX_NAME])
        return made


def _refuse_constant(word: str) -> object:
    raise ValueError(f"{word} is not JSON")
