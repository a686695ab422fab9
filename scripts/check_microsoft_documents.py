"""Holds docs/reference/microsoft-documents.md against the tests: each row names one that exists, or says why not.

The exit code is 1 when a row does not.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "reference" / "microsoft-documents.md"
_TEST = re.compile(r"`(?P<file>[\w/]+\.py)::(?P<name>\w+(?:::\w+)?)`")
_REASON = re.compile(r"None: .+\.")
_HEAD = ("Statement", "Here", "Test")


def problems(page: str, root: Path) -> Iterator[str]:
    """The rows that name no test that exists and give no reason, in words."""
    for number, line in enumerate(page.splitlines(), 1):
        if not line.startswith("|") or set(line) <= {"|", "-"}:
            continue
        cells = tuple(cell.strip() for cell in line.strip("|").split("|"))
        if cells == _HEAD:
            continue
        if len(cells) != len(_HEAD) or not all(cells):
            yield f"{number}: a row has a statement, a place and a test"
        elif found := _TEST.fullmatch(cells[2]):
            path = root / found["file"]
            if not path.is_file() or found["name"] not in _tests(path):
                yield f"{number}: there is no test {found['file']}::{found['name']}"
        elif not _REASON.fullmatch(cells[2]):
            yield f"{number}: neither a test in backquotes nor a sentence that begins with None: {cells[2]}"


def _tests(path: Path) -> set[str]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = {each.name for each in tree.body if isinstance(each, kinds)}
    for group in tree.body:
        if isinstance(group, ast.ClassDef):
            names |= {f"{group.name}::{each.name}" for each in group.body if isinstance(each, kinds)}
    return {name for name in names if name.rpartition("::")[2].startswith("test_")}


def main() -> int:
    """Print the problems."""
    found = list(problems(PAGE.read_text(encoding="utf-8"), ROOT))
    for each in found:
        print(f"{PAGE.relative_to(ROOT)}:{each}")
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
