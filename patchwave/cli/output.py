"""Where commands write, and which form: tables for people, or JSON."""

from __future__ import annotations

import json
import os
import sys
import unicodedata
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any

import typer
from rich.console import Console, RenderableType

from patchwave.cli.errors import CommandError

_WIDTH_WITHOUT_TERMINAL = 180


class OutputFormat(StrEnum):
    """``table`` is for people, ``json`` is the service's own document."""

    TABLE = "table"
    JSON = "json"


OutputOption = Annotated[OutputFormat, typer.Option("--output", "-o", help="What to print.")]


def open_console(*, errors: bool = False) -> Console:
    """A console on standard output or error; wide when it is no terminal, so that no column is cut in a file.

    It takes every text as it is: reasons and names that people write may hold brackets and colons.
    """
    stream = sys.stderr if errors else sys.stdout
    width = None if stream.isatty() or "COLUMNS" in os.environ else _WIDTH_WITHOUT_TERMINAL
    return Console(file=stream, width=width, highlight=False, markup=False, emoji=False)


def show[Document](
    output: OutputFormat, document: Document, view: Callable[[Document], RenderableType], *, soft_wrap: bool = False
) -> None:
    """Print a document in the form that was asked for; the view is only built when it is.

    ``soft_wrap`` leaves long lines to the terminal, which breaks them without a line break.
    """
    if output is OutputFormat.JSON:
        print_json(document)
    else:
        open_console().print(view(document), soft_wrap=soft_wrap)


def print_json(document: object) -> None:
    """Print a document as JSON."""
    text = json.dumps(document, indent=2, ensure_ascii=False)
    # Half a character, which JSON may hold and no output can.
    typer.echo(text.encode("utf-8", "replace").decode("utf-8"))


def show_error(error: CommandError, *, as_json: bool = False) -> None:
    """Print an error with all its details on standard error; as JSON it is one line."""
    if as_json:
        details = [{"path": detail.path, "message": detail.message} for detail in error.details]
        document = {"error": error.message, "details": details, "exitCode": int(error.exit_code)}
        typer.echo(json.dumps(document), err=True)
        return
    console = open_console(errors=True)
    console.print("error:", style="bold red", end=" ")
    for line in error.message.splitlines():
        console.print(plain(line), soft_wrap=True)
    for detail in error.details:
        place = f"{plain(detail.path)}: " if detail.path else ""
        console.print(f"  {place}{plain(detail.message)}", soft_wrap=True)


def show_warning(text: str) -> None:
    """Print a warning on standard error."""
    console = open_console(errors=True)
    console.print("warning:", style="bold yellow", end=" ")
    console.print(plain(text), soft_wrap=True)


def plain(text: Any) -> str:
    """Text of the service's without control characters, which a terminal would obey, or halves of characters, which
    cannot be written."""
    return "".join(" " if unicodedata.category(each) in ("Cc", "Cf", "Cs") else each for each in str(text))
