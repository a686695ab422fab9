"""``docs/reference/policy.md`` says what the schema says, and all of it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from patchwave.domain.policy.policy import policy_schema
from scripts import policy_docs

PAGE = policy_docs.PAGE.read_text(encoding="utf-8")


def test_the_page_is_up_to_date():
    assert policy_docs.main(["--check"]) == 0, "run `make docs`"


def test_every_key_of_the_schema_has_its_row():
    rows = re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE)
    schema = policy_schema()
    parts = [schema, *(part for part in schema["$defs"].values() if "properties" in part)]
    assert {key for part in parts for key in part["properties"]} == set(rows)
    assert len(re.findall(r"^### `", PAGE, re.MULTILINE)) >= len(parts) - 1


def test_every_row_has_a_text():
    for line in PAGE.splitlines():
        if re.match(r"\| `\w+` \|", line):
            cells = re.split(r"(?<!\\)\|", line)
            assert len(cells) == 7, line
            assert cells[2].strip(), line
            assert cells[5].strip(), line


def test_every_link_inside_the_page_leads_to_a_heading():
    headings = {policy_docs._anchor(place) for place in re.findall(r"^### `(.+)`", PAGE, re.MULTILINE)}
    links = set(re.findall(r"\]\(#([\w-]+)\)", PAGE))
    assert links
    assert links <= headings


def durations(schema: Any) -> Iterator[str]:
    if isinstance(schema, dict):
        default = schema.get("default")
        if isinstance(default, str) and re.match(r"P[T\d]", default):
            yield default
        for value in schema.values():
            yield from durations(value)
    elif isinstance(schema, list):
        for value in schema:
            yield from durations(value)


def test_default_durations_are_what_a_policy_may_hold():
    """The library writes a day as P1D, which no policy may hold."""
    found = set(durations(policy_schema()))
    assert found
    assert [text for text in found if not text.startswith("PT")] == []


@pytest.mark.parametrize("change", ["maxConcurrent", "description"])
def test_the_check_notices_a_change(change: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]):
    changed = policy_schema()
    changed["properties"][change]["description"] = "Something else."
    monkeypatch.setattr(policy_docs, "policy_schema", lambda: changed)
    assert policy_docs.main(["--check"]) == 1
    assert "make docs" in capsys.readouterr().err
