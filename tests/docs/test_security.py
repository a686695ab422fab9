"""The threat model names a test for each threat; each of them is there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

from local import ROOT

PAGE = (ROOT / "docs/reference/security.md").read_text("utf-8")
NAMED = sorted(set(re.findall(r"`((?:tests|local)/[^`]+\.py::[^`]+)`", PAGE)))


def defined(path: Path) -> set[str]:
    """The tests of a file, as pytest calls them."""
    names: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ClassDef):
            names |= {f"{node.name}::{each.name}" for each in node.body if isinstance(each, _FUNCTIONS)}
        elif isinstance(node, _FUNCTIONS):
            names.add(node.name)
    return names


_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)


def test_every_test_that_the_page_names_exists() -> None:
    assert len(NAMED) > 50
    missing: list[str] = []
    for named in NAMED:
        file, _, name = named.partition("::")
        path = ROOT / file
        if not path.exists() or name not in defined(path):
            missing.append(named)
    assert missing == []


def test_every_threat_names_a_test() -> None:
    rows = [line.strip("|").split("|") for line in PAGE.splitlines() if line.startswith("| ")]
    roles = ("role", "`")
    threats = [row for row in rows if len(row) == 3 and row[2].strip() != "tests"]
    threats = [row for row in threats if not row[0].strip().startswith(roles)]
    assert len(threats) > 30
    assert [row[0].strip() for row in threats if not re.search(r"`(tests|local)/", row[2])] == []
