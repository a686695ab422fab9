"""docs/explanation/reliability.md has every fault, names tests that exist, and leaves out none of them."""

from __future__ import annotations

import re

import pytest

from local import ROOT

PAGE = (ROOT / "docs/explanation/reliability.md").read_text("utf-8")
NUMBERS = range(1, 26)


def functions_in(*folders: str) -> set[str]:
    """The names of all test functions in folders of the checkout."""
    files = (path for folder in folders for path in (ROOT / folder).rglob("test_*.py"))
    return {
        name for path in files for name in re.findall(r"^(?:async )?def (test_\w+)\(", path.read_text("utf-8"), re.M)
    }


NAMED = set(re.findall(r"`(test_\w+)`", PAGE))


def test_every_test_that_is_named_exists() -> None:
    missing = NAMED - functions_in("tests", "local")
    assert not missing


def test_every_test_of_a_fault_is_named() -> None:
    assert functions_in("tests/resilience/faults") <= NAMED


@pytest.mark.parametrize("number", NUMBERS)
def test_every_fault_has_a_row_with_a_test_of_its_own(number: int) -> None:
    (row,) = re.findall(rf"^\| F{number} \|.*$", PAGE, re.M)
    assert re.search(rf"`test_f{number:02d}_\w+`", row)
    assert all(cell.strip() for cell in row.strip("|").split("|"))
