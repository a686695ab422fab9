"""docs/how-to/troubleshooting.md has every outcome and every reason, and no other."""

import re
from pathlib import Path

from patchwave.domain.core.outcome import OutcomeKind, Reason

PAGE = (Path(__file__).resolve().parents[2] / "docs/how-to/troubleshooting.md").read_text("utf-8")


def rows(heading: str) -> dict[str, str]:
    table = PAGE.partition(f"| {heading} |")[2].partition("\n\n")[0]
    return {name: last.strip() for name, last in re.findall(r"^\| `(\w+)` \|.*?([^|]+)\|$", table, re.MULTILINE)}


def test_every_outcome_is_there_and_which_needs_a_person():
    assert rows("outcome") == {kind.value: "yes" if kind.needs_person else "no" for kind in OutcomeKind}


def test_every_reason_is_there():
    assert list(rows("reason")) == [reason.value for reason in Reason]
