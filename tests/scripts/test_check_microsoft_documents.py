"""The check of the page that lists the statements of Microsoft's documents."""

from __future__ import annotations

from pathlib import Path

import pytest

from scripts import check_microsoft_documents

HEAD = "# Page\n\n| Statement | Here | Test |\n|---|---|---|\n"
TESTS = """
def test_here(): ...
def helper(): ...
class TestGroup:
    async def test_inside(self): ...
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "tests").mkdir()
    (tmp_path / "tests" / "test_it.py").write_text(TESTS)
    return tmp_path


@pytest.mark.parametrize(
    "cell",
    ["`tests/test_it.py::test_here`", "`tests/test_it.py::TestGroup::test_inside`", "None: a portal is no interface."],
)
def test_a_row_with_a_test_or_a_reason_is_good(root: Path, cell: str) -> None:
    assert list(check_microsoft_documents.problems(f"{HEAD}| It works | here | {cell} |\n", root)) == []


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ("| S | H | `tests/test_it.py::test_gone` |", "5: there is no test tests/test_it.py::test_gone"),
        ("| S | H | `tests/test_it.py::test_inside` |", "5: there is no test tests/test_it.py::test_inside"),
        ("| S | H | `tests/test_it.py::helper` |", "5: there is no test tests/test_it.py::helper"),
        ("| S | H | `tests/test_gone.py::test_here` |", "5: there is no test tests/test_gone.py::test_here"),
        ("| S | H | |", "5: a row has a statement, a place and a test"),
        ("| S | `tests/test_it.py::test_here` |", "5: a row has a statement, a place and a test"),
        ("| S | H | not yet |", "5: neither a test in backquotes nor a sentence that begins with None: not yet"),
        ("| S | H | None: |", "5: neither a test in backquotes nor a sentence that begins with None: None:"),
    ],
)
def test_other_rows_are_named(root: Path, row: str, problem: str) -> None:
    assert list(check_microsoft_documents.problems(f"{HEAD}{row}\n", root)) == [problem]
