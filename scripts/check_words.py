"""Holds tracked files against ``scripts/words.toml``: words that are not used here, and the field's term for each.

Identifiers are read as the words that they consist of: ``MayGo`` and ``may_go`` are ``may go``. The exit code is
1 when a word is used.
"""

from __future__ import annotations

import fnmatch
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
LIST = "scripts/words.toml"
_CASE = re.compile(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])")


@dataclass(frozen=True)
class Word:
    """A word that is not used, what to say instead, and the uses that are proper."""

    pattern: re.Pattern[str]
    say: str
    proper: tuple[re.Pattern[str], ...] = ()
    """Texts on the line of a use that make it proper; each entry of the list gives a reason."""
    starts: tuple[str, ...] = ("",)
    """What a use begins with, in lower case: one text for each alternative of the pattern."""


@dataclass(frozen=True)
class Use:
    """A word in a line of a file."""

    path: str
    line: int
    text: str
    word: Word

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text!r}: say {self.word.say}"


def read_list(document: dict[str, Any]) -> tuple[list[Word], list[str]]:
    """The words, and patterns of files that are not read, each of which has a reason in the list."""
    words = [
        Word(
            re.compile(rf"\b(?:{entry['word']})\b", re.IGNORECASE),
            entry["say"],
            tuple(re.compile(use["text"], re.IGNORECASE) for use in entry.get("proper", [])),
            _starts(entry["word"]),
        )
        for entry in document["words"]
    ]
    return words, [entry["files"] for entry in document["skip"]]


def _starts(pattern: str) -> tuple[str, ...]:
    alternatives = re.split(r"\|(?![^(]*\))", pattern.removeprefix("(?-i:"))
    return tuple((re.match("[A-Za-z ]*", each) or [""])[0].lower()[:-1] for each in alternatives)


def uses(path: str, text: str, words: Iterable[Word]) -> Iterator[Use]:
    """Every use in a file's name or text that is not proper."""
    lines = [path, *text.splitlines()]
    split = _CASE.sub(" ", "\n".join(lines)).replace("_", " ")
    lowered = split.lower()
    for word in words:
        # Most words are in few files, and looking for a plain text is fast.
        if not any(start in lowered for start in word.starts):
            continue
        for found in word.pattern.finditer(split):
            number = split.count("\n", 0, found.start())
            if not any(proper.search(lines[number]) for proper in word.proper):
                yield Use(path, number, found[0], word)


def tracked(root: Path) -> list[str]:
    """The files of the checkout, new ones included."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    return subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.strip("\0").split("\0")


def main(root: Path = ROOT) -> int:
    words, skipped = read_list(tomllib.loads((root / LIST).read_text("utf-8")))
    found = False
    for path in tracked(root):
        if path == LIST or any(fnmatch.fnmatch(path, pattern) for pattern in skipped) or not (root / path).is_file():
            continue
        for use in uses(path, (root / path).read_text("utf-8"), words):
            found = True
            print(use, file=sys.stderr)
    if found:
        print(f"{LIST} has the words and their proper uses.", file=sys.stderr)
    return int(found)


if __name__ == "__main__":
    sys.exit(main())
