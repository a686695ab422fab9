"""What is different between two versions of a document, key by key, for the audit log."""

import json
from collections.abc import Iterator, Mapping
from typing import cast

from patchwave.domain.core.documents import Json

MAX_CHANGES = 50
"""Changes that are named one by one; more are counted. A line of the audit log has room for these."""
MAX_VALUE = 200
"""Characters of a value."""


def changes_in_words(before: Mapping[str, object], after: Mapping[str, object]) -> Json:
    """``changed``, a list of path, before and after; ``moreChanged`` counts what is not in it. Empty when all is equal.

    Lists are compared as a whole: the position of an entry is no name. A value that is absent is ``null``, and
    a long one is cut.
    """
    changes = list(_changes("", before, after))
    if not changes:
        return {}
    listed = [{"path": path, "before": _short(old), "after": _short(new)} for path, old, new in changes[:MAX_CHANGES]]
    more = len(changes) - len(listed)
    return {"changed": listed} | ({"moreChanged": more} if more else {})


def _changes(path: str, before: object, after: object) -> Iterator[tuple[str, object, object]]:
    if isinstance(before, Mapping) and isinstance(after, Mapping):
        old, new = cast("Mapping[str, object]", before), cast("Mapping[str, object]", after)
        for key in sorted(old.keys() | new.keys()):
            yield from _changes(f"{path}.{key}" if path else key, old.get(key), new.get(key))
    elif before != after:
        yield path, before, after


def _short(value: object) -> object:
    if value is None or isinstance(value, bool | int | float):
        return value
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, sort_keys=True)
    return text if len(text) <= MAX_VALUE else f"{text[: MAX_VALUE - 1]}…"
