"""Every example in README.md and docs/: the real parsers take the YAML and the JSON, and the commands exist."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, NamedTuple

import pytest
import yaml

from local import ROOT
from patchwave.cli.app import whole
from patchwave.cli.policy_files import merge_patch
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration
from patchwave.domain.maintenance.validation import check_configuration
from patchwave.domain.planning.plan import Plan
from patchwave.domain.policy.policy import apply_overrides, parse_inline_policy
from patchwave.settings import parse_channels
from tests.support.fleet_strategies import machine_id

PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])
ANY: dict[str, Any] = {"scope": {"osTypes": ["Windows", "Linux"]}}
"""What a part of a policy needs to be one."""
SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
_FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`patchwave ([^`\n]+)`")


class Block(NamedTuple):
    """A fenced block of a page, and where it begins."""

    place: str
    language: str
    text: str


def blocks(*languages: str) -> list[Any]:
    return [pytest.param(block, id=block.place) for block in _blocks() if block.language in languages]


def _blocks() -> Iterator[Block]:
    for page in PAGES:
        text = page.read_text("utf-8")
        for found in _FENCE.finditer(text):
            line = text.count("\n", 0, found.start()) + 1
            yield Block(f"{page.name}:{line}", found[1], found[2])


def filled(text: str) -> str:
    """The example as its reader would run it: with a machine and a subscription for the names that stand for them."""
    text = text.replace("$MACHINE", machine_id(1)).replace("$SUBSCRIPTION", SUBSCRIPTION)
    return text.replace("/subscriptions/…/", f"/subscriptions/{SUBSCRIPTION}/")


@pytest.mark.parametrize("block", blocks("yaml"))
def test_yaml_is_a_policy_or_a_part_of_one(block: Block) -> None:
    document = yaml.safe_load(filled(block.text))
    parse_inline_policy(ANY | document)


@pytest.mark.parametrize("block", blocks("json"))
def test_json_is_what_its_reader_takes(block: Block) -> None:
    lines = [line for line in filled(block.text).splitlines() if not line.startswith("//")]
    document = json.loads("\n".join(lines))
    if isinstance(document, list):
        assert parse_channels(block.text)
    elif "makespan" in document:
        assert Plan.model_validate(document).machines
    elif "maintenanceScope" in document.get("properties", {}):
        _check_configuration(document)
    else:
        # tests/docs/test_notifications.py holds it against what is sent.
        assert {"runId", "event", "at"} <= document.keys(), "an example of a kind that no test knows"


def _check_configuration(document: dict[str, Any]) -> None:
    identity = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Maintenance"
    named = {"id": f"{identity}/maintenanceConfigurations/nightly"}
    configuration = MaintenanceConfiguration.model_validate(document | named)
    assert check_configuration(configuration, datetime(2026, 11, 30, tzinfo=UTC)) == []


class Command(NamedTuple):
    """A call of patchwave as a page has it."""

    place: str
    words: list[str]


def shell_commands() -> list[Any]:
    """Each call in a block of shell commands, or behind a prompt."""
    return [
        pytest.param(Command(block.place, words), id=f"{block.place}-{number}")
        for block in _blocks()
        if block.language in ("sh", "console", "")
        for number, words in enumerate(_calls(block))
    ]


def _calls(block: Block) -> Iterator[list[str]]:
    text = re.sub(r"\\\n\s*(?:> )?", " ", filled(block.text))
    for line in text.splitlines():
        found = re.match(r"(?:\$ )?(?:.* && )?(?:\.venv/bin/)?patchwave (.+)", line)
        if found is None or (block.language == "console" and not line.startswith("$ ")):
            continue
        words: list[str] = []
        for word in shlex.split(found[1], comments=True):
            if word in ("|", "||", "&&", ">", ">>", "<", "&", ";", "<<") or word.startswith(("<<", "2>")):
                break
            words.append(word.rstrip(";"))
        yield words


@pytest.mark.parametrize("command", shell_commands())
def test_commands_of_the_pages_are_taken(command: Command) -> None:
    parsed, name, rest = _resolve(command.words)
    assert not hasattr(parsed, "commands"), f"{name} is a group of commands"
    given = parsed.make_context(name, rest).params
    if given.get("overrides"):
        apply_overrides(parse_inline_policy(ANY).to_wire(), merge_patch(list(given["overrides"])))


def inline_commands() -> list[Any]:
    """Each call in the running text, where names in capitals and brackets stand for anything."""
    return [
        pytest.param(found[1], id=f"{page.name}-{number}")
        for page in PAGES
        for number, found in enumerate(_INLINE.finditer(page.read_text("utf-8")))
    ]


@pytest.mark.parametrize("text", inline_commands())
def test_commands_in_the_text_exist_with_their_options(text: str) -> None:
    parsed, _, rest = _resolve(re.sub(r"[\[\]]", " ", text).split())
    options = {option for parameter in parsed.params for option in (*parameter.opts, *parameter.secondary_opts)}
    # Typer adds these when the command starts.
    options |= {"--help", "--install-completion"}
    assert [word for word in rest if re.match(r"--?[a-z]", word) and word.partition("=")[0] not in options] == []


def _resolve(words: list[str]) -> tuple[Any, str, list[str]]:
    """The command that the words name, and the words behind its name."""
    command: Any = whole()
    name, rest = "patchwave", list(words)
    while rest and hasattr(command, "commands") and rest[0] in command.commands:
        name = rest.pop(0)
        command = command.commands[name]
    has_options_alone = all(word.startswith("-") for word in rest)
    assert name != "patchwave" or has_options_alone, f"there is no command {rest[:1]}"
    return command, name, rest


def test_targets_of_make_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    named = {
        target
        for page in PAGES
        for target in re.findall(r"(?:^|`)make ([a-z][a-z-]*)", page.read_text("utf-8"), re.MULTILINE)
    }
    assert named
    assert named <= targets
