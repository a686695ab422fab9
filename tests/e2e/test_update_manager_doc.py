"""Every command of ``docs/how-to/update-manager.md``, in its order, against the real service and the simulator."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from string import Template

import pytest

from local import ROOT
from patchwave.cli.app import run
from tests.support.product import SUBSCRIPTION, Product

PAGE = (ROOT / "docs/how-to/update-manager.md").read_text(encoding="utf-8")
_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_FINDINGS = 1
"""The exit code of a doctor that found something, as in a fleet of test machines it does."""
_LATER = {"set-mode": ("--no-wait",)}
"""What has tests of its own, and takes a while, is only begun."""


def lines() -> Iterator[str]:
    """The lines that a reader types, long ones in one piece."""
    for language, text in _BLOCK.findall(PAGE):
        if language == "console":
            yield from (line for line in text.replace("\\\n", " ").removeprefix("$ ").split("\n$ "))


def files() -> dict[str, str]:
    """The files that the page shows, by the names that their first lines tell."""
    shown = (text.split("\n", 1) for language, text in _BLOCK.findall(PAGE) if language in ("yaml", "json"))
    return {first.lstrip("#/ "): rest for first, rest in shown}


def test_each_example_of_the_document_has_its_command() -> None:
    titles = (
        "Update assessment",
        "Update deployment",
        "Create a maintenance configuration schedule",
        "Associate a VM with a schedule",
        "Remove machine from the schedule",
    )
    for title in titles:
        _, _, section = PAGE.partition(f"### {title}\n")
        assert "$ patchwave " in re.split(r"^##", section, maxsplit=1, flags=re.MULTILINE)[0], title


def test_every_command_of_the_page_works(
    product: Product, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATCHWAVE_URL", product.stack.url)
    monkeypatch.chdir(tmp_path)
    # The page's own machine does not exist.
    names = {"MACHINE": product.take()[0]}
    for line in lines():
        name, equals, value = line.strip().partition("=")
        if equals and name.isidentifier():
            names.setdefault(name, Template(value).substitute(names))
    assert names["SUBSCRIPTION"] == SUBSCRIPTION
    for name, text in files().items():
        Path(name).write_text(Template(text).substitute(names), encoding="utf-8")
    typed = [shlex.split(Template(line).substitute(names)) for line in lines() if line.startswith("patchwave ")]
    assert len(typed) > 20
    for _, *arguments in typed:
        ended = run(
            [
                *arguments,
                *(("--interval", "0.1") if "--wait" in arguments else ()),
                *_LATER.get(" ".join(arguments[1:2]), ()),
            ]
        )
        said = capsys.readouterr()
        assert ended in ((0, _FINDINGS) if arguments[0] == "doctor" else (0,)), (arguments, said.out, said.err)
