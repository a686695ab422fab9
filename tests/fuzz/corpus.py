"""What others may send: any JSON, real bodies with something changed in them, and texts of every kind.

``budget()`` is a handful of fixed examples in `make test`, and thousands that a seed decides in `make fuzz`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, cast

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings

EXAMPLES = int(os.environ.get("PATCHWAVE_FUZZ_EXAMPLES", "0"))
"""Examples of each test; 0 takes the few of `make test`, always the same."""

LONE = "\ud800"
"""Half a character, which JSON can escape and UTF-8 cannot hold."""
HOSTILE = [
    *("", " ", "\0", "\x7f", "\r\n", LONE, "é😀", "'", '"', "\\", "\\'", "`", "${7*7}", "{{7*7}}", "{% for %}"),
    *(
        "=1+1",
        "+1",
        "-1",
        "@SUM(A1)",
        "\t=1",
        "<script>alert(1)</script>",
        "' or 1 == 1 | take 1 //",
        "*/",
        "a" * 5_000,
    ),
    *("../..", "%2e%2e", "http://169.254.169.254/", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59.9999999-12:00"),
    *("NaN", "1e999", "9" * 5_000, "a" * 5_000, "InProgress", "Succeeded", "null"),
]
NUMBERS = [0, -1, 2**31, 2**63, 2**200, 10**400, 1e308, float("inf"), float("-inf"), float("nan"), 0.1]


def budget(quick: int = 15) -> settings:
    """How much a test tries."""
    return settings(
        max_examples=EXAMPLES or quick,
        derandomize=not EXAMPLES,
        database=None,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
    )


texts = st.one_of(st.text(max_size=40), st.text(st.characters(), max_size=40), st.sampled_from(HOSTILE))
scalars = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.sampled_from(NUMBERS), texts, st.datetimes().map(str)
)
anything: st.SearchStrategy[Any] = st.recursive(
    scalars,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(texts, inner, max_size=4)),
    max_leaves=8,
)
objects = st.dictionaries(texts, anything, max_size=5)


def deep(depth: int = 100_000) -> str:
    """JSON that is nested more deeply than any reader follows."""
    return "[" * depth + "]" * depth


@st.composite
def changed(draw: st.DrawFn, sample: object) -> Any:
    """The sample with up to four places changed: another value, a key left out, doubled, or written differently."""
    document = json.loads(json.dumps(sample))
    for _ in range(draw(st.integers(0, 4))):
        document = _change(draw, document)
    return document


def _change(draw: st.DrawFn, value: Any) -> Any:
    if isinstance(value, dict) and value and draw(st.integers(0, 4)):
        members = cast("dict[str, Any]", value)
        key = draw(st.sampled_from(sorted(members)))
        how = draw(st.integers(0, 5))
        if how == 0:
            return {name: each for name, each in members.items() if name != key}
        if how == 1:
            return {key.swapcase() if name == key else name: each for name, each in members.items()}
        return {**members, key: _change(draw, members[key])}
    if isinstance(value, list) and value and draw(st.integers(0, 4)):
        entries = cast("list[Any]", value)
        index = draw(st.integers(0, len(entries) - 1))
        return [*entries[:index], _change(draw, entries[index]), *entries[index + draw(st.integers(0, 1)) :]]
    return draw(anything)


@st.composite
def spoiled(draw: st.DrawFn, text: str) -> str:
    """The text with another one put somewhere into its first hundred characters."""
    start = draw(st.integers(0, 100))
    end = start + draw(st.integers(0, 3))
    return text[:start] + draw(texts) + text[end:]


def bodies(*samples: object) -> st.SearchStrategy[str]:
    """Texts of bodies: real ones with changes, broken ones, and anything at all."""
    real = st.sampled_from(samples).flatmap(changed).map(_written)
    cut = st.tuples(real, st.integers(0, 400)).map(lambda given: given[0][: given[1]])
    return st.one_of(real, real, cut, texts, anything.map(_written), st.just(deep()))


def _written(value: object) -> str:
    return json.dumps(value)


def storable(text: str) -> str:
    """The text, once it is known that it can be stored and sent."""
    text.encode()
    return text


def crosses(document: Mapping[str, Any]) -> None:
    """Whether a document can be sent: plain JSON of characters that exist, without a number that is none."""
    storable(json.dumps(document, ensure_ascii=False, allow_nan=False))
