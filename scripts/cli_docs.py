"""Writes ``docs/reference/cli.md`` from the command itself; ``--check`` only says whether it is up to date."""

from __future__ import annotations

import sys
import textwrap
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from patchwave.cli.app import whole
from patchwave.cli.output import OutputFormat

PAGE = Path(__file__).resolve().parent.parent / "docs/reference/cli.md"

_INTRODUCTION = """\
# The command

<!-- Written by scripts/cli_docs.py from the command: change patchwave/cli/, then run `make docs`. -->

`patchwave` talks to the HTTP API of the app. `patchwave plan --fleet` and `patchwave policy validate` need no service.
`patchwave --install-completion` adds completion to your shell.

| option of every command that talks to the service | environment | meaning |
|---|---|---|
| `--url` | `PATCHWAVE_URL` | address of the service; `http://localhost:7071` by default |
| `--key` | `PATCHWAVE_KEY` | function key |
| | `PATCHWAVE_TOKEN` | access token of a signed-in user; only read from the environment |
| `--output`, `-o` | | `table` for people, `json` for scripts: the document of the service as it is |

With `-o json` an error is one line of JSON on standard error, with `error`, `details` and `exitCode`.

| exit code | meaning |
|---|---|
| 0 | done |
| 1 | the run failed, was cancelled, or left machines that a person has to look at; there are findings |
| 2 | the service refused the request, a file is not valid, or the usage is wrong |
| 3 | the service cannot be reached or does not work |
| 130 | interrupted with Ctrl-C |
"""
_SHARED = ("url", "key", "output", "help")


def page() -> str:
    """The whole page."""
    return "\n".join([_INTRODUCTION, *_commands(whole(), "patchwave")])


def _commands(group: Any, path: str) -> Iterator[str]:
    for name, command in group.commands.items():
        words = f"{path} {name}"
        if hasattr(command, "commands"):
            if path == "patchwave":
                yield f"## {words}\n\n{_text(command.help)}\n"
            yield from _commands(command, words)
        else:
            yield f"{'##' if path == 'patchwave' else '###'} {words}\n\n{_text(command.help)}\n"
            yield from _parameters(command)


def _text(help_text: str) -> str:
    return "\n\n".join(textwrap.fill(" ".join(part.split()), 120) for part in help_text.split("\n\n"))


def _parameters(command: Any) -> Iterator[str]:
    rows = [_row(each) for each in command.params if each.name not in _SHARED or _is_own(each)]
    if rows:
        yield "\n".join(["| argument or option | meaning |", "|---|---|", *rows, ""])


def _is_own(parameter: Any) -> bool:
    """Whether an option that other commands share is another one here, as the output of ``plan`` is."""
    return parameter.name == "output" and type(parameter.default) is not OutputFormat


def _row(parameter: Any) -> str:
    if parameter.param_type_name == "argument":
        names = f"`{parameter.metavar or parameter.name.upper()}`"
    else:
        names = ", ".join(f"`{option}`" for option in (*parameter.opts, *parameter.secondary_opts))
    text = (parameter.help or "").replace("|", "\\|")
    default = parameter.default
    shown = isinstance(default, str | int | float) and not isinstance(default, bool) and default not in ("", None)
    notes = ["required"] if parameter.required and parameter.param_type_name == "option" else []
    notes += [f"default `{default}`"] if shown else []
    return f"| {names} | {text}{f' ({", ".join(notes)})' if notes else ''} |"


def main() -> int:
    text = page()
    if "--check" not in sys.argv:
        PAGE.write_text(text, encoding="utf-8")
    elif not PAGE.exists() or PAGE.read_text(encoding="utf-8") != text:
        print("docs/reference/cli.md is not what the command says: run `make docs`.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
