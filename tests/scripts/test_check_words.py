"""The check of words: what counts as a use, what is proper, and that each entry has a reason."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from scripts.check_words import LIST, Word, main, read_list, uses

ENTRY = {
    "word": "may go|slices?",
    "say": "purgeable",
    "proper": [{"text": "slice of life", "reason": "an idiom"}],
}
WORDS, SKIPPED = read_list({"words": [ENTRY], "skip": [{"files": "*.lock", "reason": "generated"}]})


def found(text: str, path: str = "a.py") -> list[str]:
    return [use.text for use in uses(path, text, WORDS)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("class MayGo:", ["May Go"]),
        ("def may_go(): ...", ["may go"]),
        ("mayGoAt = 1", ["may Go"]),
        ("It may go. Two slices.", ["may go", "slices"]),
        ("a dismay Gopher, sliced", []),
        ("a slice of life", []),
    ],
)
def test_identifiers_are_read_as_words(text: str, expected: list[str]) -> None:
    assert found(text) == expected


def test_names_of_files_count() -> None:
    assert found("", "domain/may_go.py") == ["may go"]


def test_a_new_use_fails(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    (tmp_path / "scripts").mkdir()
    entry = '[[skip]]\nfiles = "*.lock"\nreason = "generated"\n\n[[words]]\nword = "slices?"\nsay = "part"\n'
    (tmp_path / LIST).write_text(entry, "utf-8")
    (tmp_path / "a.py").write_text("part\n", "utf-8")
    assert main(tmp_path) == 0
    (tmp_path / "b.py").write_text("\nslices\n", "utf-8")
    assert main(tmp_path) == 1
    assert "b.py:2: 'slices': say part" in capsys.readouterr().err


def test_proper_uses_and_skipped_files_have_reasons() -> None:
    text = (Path(__file__).resolve().parents[2] / LIST).read_text("utf-8")
    assert len(re.findall("^files = ", text, re.MULTILINE)) == len(re.findall("^reason = ", text, re.MULTILINE))
    assert text.count("{ text = ") == text.count(", reason = ")


def test_a_word_is_a_pattern_and_a_term() -> None:
    assert SKIPPED == ["*.lock"]
    assert isinstance(WORDS[0], Word)
