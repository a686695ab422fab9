"""Parses JSON from outside: one meaning only, and no larger than any real document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any, cast

from patchwave.services.errors import InvalidRequest

MAX_ENTRIES = 2_000
"""In one list of a body: as many ids of machines as a body has room for."""
MAX_KEYS = 1_000
"""Of one object of a body."""
MAX_VALUES = 10_000
"""In all lists and objects of a body: each may be wrong, and then is an error to report."""
_MAX_NAME = 100


def parse_json(body: bytes) -> object:
    """A body as JSON that every reader takes for the same value.

    Raises:
        InvalidRequest: it is not JSON, names a key of an object twice, holds half of a surrogate pair, or has more
            entries, keys or values than any real document.
    """
    try:
        document = json.loads(body, object_pairs_hook=_Objects().read, parse_constant=_refuse_constant)
        _check_extent(document)
        # Raises for half of a surrogate pair, which neither storage nor an answer could hold.
        json.dumps(document, ensure_ascii=False).encode()
    except _AmbiguousKey as error:
        raise InvalidRequest(f"The body names the key {error} of one object twice.") from None
    except UnicodeEncodeError:
        raise InvalidRequest("The body holds half of a surrogate pair, which is no text.") from None
    except (ValueError, RecursionError):
        raise InvalidRequest("The body is not JSON.") from None
    return document


def _check_extent(document: object) -> None:
    """Refuse what only a hostile document has so many of. The text of values is bounded by the body itself.

    Raises:
        InvalidRequest: what there is too much of.
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
    """An object has two members of one name; the text is the name."""


class _Objects:
    """Makes the objects of one body, as long as there are not too many of them."""

    def __init__(self) -> None:
        self._values = 0

    def read(self, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        """An object of its members, each of which has a name of its own."""
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
