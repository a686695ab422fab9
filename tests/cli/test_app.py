"""The command as a whole: how it starts, what it imports, its help, its version, and errors as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

from patchwave.cli import app
from tests.cli.conftest import Patchwave

HEAVY = {"aiohttp", "azure", "dateutil", "durabletask", "grpc", "httpx", "jinja2", "local", "pydantic", "yaml"}
"""What takes long to import. Typer itself reads the values of options with pydantic."""


def imported(*words: str) -> set[str]:
    """The top-level modules that a call of the command imports."""
    script = (
        "import sys; from patchwave.cli.app import run; run(sys.argv[1:]);"
        "print(*{name.partition('.')[0] for name in sys.modules}, file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", script, *words], capture_output=True, text=True, check=True)
    return set(done.stderr.splitlines()[-1].split())


@pytest.mark.parametrize(
    ("words", "allowed"),
    [
        ("--help", set[str]()),
        ("--version", set[str]()),
        ("nonsense", {"pydantic"}),
        ("audit refused --help", {"pydantic"}),
        ("serve --help", {"pydantic"}),
        ("run list --url http://127.0.0.1:9", {"httpx", "pydantic"}),
        ("policy validate -f examples/policies/rollout.yaml", {"dateutil", "pydantic", "yaml"}),
    ],
)
def test_a_call_imports_only_what_it_needs(words: str, allowed: set[str]) -> None:
    assert imported(*words.split()) & HEAVY <= allowed


def test_the_version_is_that_of_the_distribution(patchwave: Patchwave) -> None:
    assert patchwave("--version").output == f"patchwave {version('patchwave')}\n"


def test_the_list_of_commands_is_what_can_be_called(patchwave: Patchwave) -> None:
    listed = patchwave("--help").output
    for name, command in app.whole().commands.items():
        assert f" {name} " in listed
        assert command.name == name


def test_every_command_and_option_has_help() -> None:
    def check(command: object, words: str) -> None:
        assert getattr(command, "help", ""), words
        for parameter in getattr(command, "params", []):
            assert parameter.param_type_name == "argument" or parameter.help, f"{words} {parameter.name}"
        for name, below in getattr(command, "commands", {}).items():
            check(below, f"{words} {name}")

    check(app.whole(), "patchwave")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (("run", "nonsense", "-o", "json"), 2, "No such command 'nonsense'."),
        (("run", "list", "--output=json", "--limit", "0"), 2, "limit"),
        (("run", "show", "no-such-run", "-ojson"), 2, "404"),
        (("plan", "-o", "json", "-p", "missing.yaml"), 2, "--fleet"),
    ],
)
def test_errors_are_json_with_output_json(
    patchwave: Patchwave, words: tuple[str, ...], code: int, message: str
) -> None:
    result = patchwave(*words)
    document = json.loads(result.errors.splitlines()[-1])
    assert (result.code, document["exitCode"], result.output) == (code, code, "")
    assert message in document["error"]
    assert document.keys() == {"error", "details", "exitCode"}


def test_the_details_of_a_refusal_are_in_the_json(patchwave: Patchwave, tmp_path: Path) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text("name: monthly\nmaxConcurrent: many\n", "utf-8")
    document = json.loads(patchwave("policy", "validate", "-f", str(file), "-o", "json").errors)
    assert {detail["path"] for detail in document["details"]} >= {"maxConcurrent"}


def test_a_command_of_a_checkout_fails_with_what_it_needs(
    patchwave: Patchwave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "local.demo.scenario", None)
    result = patchwave("demo")
    assert result.code == 2
    assert "checkout" in result.errors


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_can_be_installed(patchwave: Patchwave, shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION", "1")
    result = patchwave("--show-completion", shell)
    assert result.code == 0
    assert "_PATCHWAVE_COMPLETE" in result.output


def test_completion_has_commands_at_every_level() -> None:
    complete = {"_PATCHWAVE_COMPLETE": "complete_bash", "COMP_WORDS": "patchwave run st", "COMP_CWORD": "2"}
    done = subprocess.run(
        [sys.executable, "-m", "patchwave.cli"], env=complete, capture_output=True, text=True, check=False
    )
    assert done.stdout.split() == ["start"]
