"""What the tables of all kinds share: their form, and moments, commands and nested values in words."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import cast

from rich.console import Console, ConsoleOptions, Group, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from patchwave.cli.json_fields import Json
from patchwave.cli.output import plain

_UNBOUNDED = 10_000
"""Columns of a console in which nothing is broken."""

_MIN_PROSE = 30
"""Columns in which sentences can still be read."""


def new_table(*columns: str, right: Iterable[str] = ()) -> Table:
    """An empty table with these headings; the columns of numbers are aligned to the right.

    What does not fit goes on in the next line: an ellipsis would hide the end of a name, where names differ.
    """
    table = Table(box=None, header_style="bright_black", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


class FirstThatFits:
    """A table where it fits the console, else the narrow form of the same.

    No cell may have to be broken, except in the columns of ``prose``, which only need room for a few words.
    """

    def __init__(self, wide: Table, narrow: RenderableType, *, prose: Sequence[str] = ()) -> None:
        self._wide = wide
        self._narrow = narrow
        self._prose = prose

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        unbounded = options.update(width=_UNBOUNDED)
        needed = console.measure(self._wide, options=unbounded).maximum
        for column in self._wide.columns:
            if column.header in self._prose:
                widest = max((console.measure(cell, options=unbounded).maximum for cell in column.cells), default=0)
                needed -= max(0, widest - _MIN_PROSE)
        yield self._wide if needed <= options.max_width else self._narrow


def entry(*lines: Iterable[Text]) -> RenderableType:
    """One row of a table in its narrow form: the facts of each line side by side, all lines but the first indented."""
    first, *others = [Text("  ").join(fact for fact in facts if fact) for facts in lines]
    return Group(first, *(Padding(line, (0, 0, 0, 2)) for line in others if line))


def new_grid() -> Table:
    """Room for facts about one thing: a label and what it says, row by row."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bright_black")
    grid.add_column(overflow="fold")
    return grid


def command_line(what: str, command: Json) -> Text:
    """A command: its actor, time and reason."""
    line = Text(" ".join(filter(None, (what, f"by {plain(command.get('actor', ''))}", moment(command.get("at"))))))
    if command.get("reason"):
        line.append(f": {plain(command['reason'])}")
    return line


def in_words(value: object) -> str:
    """A value of a document in words; empty when it says nothing."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case dict():
            return facts_in_words(cast("Json", value))
        case list():
            return ", ".join(in_words(each) for each in cast("list[object]", value))
        case _:
            return plain(value)


def facts_in_words(facts: Json) -> str:
    """The keys that say something with their values; what is below a key in brackets."""
    said = {key: in_words(value) for key, value in facts.items()}
    return ", ".join(
        f"{plain(key)} ({words})" if isinstance(facts[key], dict) else f"{plain(key)} {words}"
        for key, words in said.items()
        if words
    )


def number_of(number: int, thing: str) -> str:
    """``1 machine``, ``2 machines``."""
    return f"{number} {thing}{'' if number == 1 else 's'}"


def moment(text: object) -> str:
    """A time to the second, in UTC; empty when it is none."""
    time = instant(text)
    return time.strftime("%Y-%m-%d %H:%M:%SZ") if time else ""


def instant(text: object) -> datetime | None:
    """A time of a document, in UTC; ``None`` when it is none."""
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return None


def audit_table(lines: Iterable[Json]) -> RenderableType:
    """One line per entry of an audit log."""
    table = new_table("at", "action", "actor", "detail")
    for line in lines:
        table.add_row(
            moment(line.get("at")),
            Text(plain(line.get("action", ""))),
            Text(plain(line.get("actor", ""))),
            Text(in_words(line.get("detail")), overflow="fold"),
        )
    return table
