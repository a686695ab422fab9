"""What the tables of all kinds share: their form, and moments, commands and nested values in words."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import cast

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from patchwave.cli.json_fields import Json
from patchwave.cli.output import plain

_MIN_PROSE = 30
"""Columns in which sentences can still be read."""
_GAP = 2

type Cell = str | Callable[[Json], object]
"""What a column shows of a row: the value under a key, or what a function makes of the row."""


def new_table(*columns: str, right: Iterable[str] = ()) -> Table:
    """An empty table with these headings; the columns of numbers are aligned to the right.

    What does not fit goes on in the next line: an ellipsis would hide the end of a name, where names differ.
    """
    table = Table(box=None, header_style="bright_black", pad_edge=False, padding=(0, _GAP, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left", overflow="fold")
    return table


class Listing:
    """A table with a line per row where it fits the console, else a few lines per row.

    No cell of the table may have to be broken, except in columns of ``prose``, which only need room for a few words.
    In the narrow form the columns of ``title`` (the first one by default) come first, then the others with their
    headings (unless not ``labelled``), then each column of prose in lines of its own.
    """

    def __init__(
        self,
        rows: Iterable[Json],
        columns: Mapping[str, Cell],
        *,
        right: Sequence[str] = (),
        prose: Sequence[str] = (),
        title: Sequence[str] = (),
        labelled: bool = True,
    ) -> None:
        self._columns = list(columns)
        self._rows = [{heading: _cell(row, cell) for heading, cell in columns.items()} for row in rows]
        self._right, self._prose, self._labelled = right, prose, labelled
        self._title = title or self._columns[:1]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        widths = [self._width(heading) for heading in self._columns]
        if sum(widths) + _GAP * (len(widths) - 1) > options.max_width:
            for row in self._rows:
                yield from self._lines(row)
            return
        table = new_table(*self._columns, right=self._right)
        for row in self._rows:
            table.add_row(*row.values())
        yield table

    def _width(self, heading: str) -> int:
        widest = max((row[heading].cell_len for row in self._rows), default=0)
        return max(len(heading), min(widest, _MIN_PROSE) if heading in self._prose else widest)

    def _lines(self, row: Mapping[str, Text]) -> Iterable[RenderableType]:
        facts = [heading for heading in self._columns if heading not in (*self._title, *self._prose)]
        label = "{} " if self._labelled else ""
        yield _side_by_side(row[heading] for heading in self._title)
        yield from (
            Padding(line, (0, 0, 0, _GAP))
            for line in (
                _side_by_side(Text(label.format(heading)) + row[heading] for heading in facts if row[heading]),
                *(row[heading] for heading in self._prose),
            )
            if line
        )


def _cell(row: Json, cell: Cell) -> Text:
    value = row.get(cell) if isinstance(cell, str) else cell(row)
    return value if isinstance(value, Text) else Text(in_words(value), overflow="fold")


def _side_by_side(facts: Iterable[Text]) -> Text:
    return Text(" " * _GAP).join(fact for fact in facts if fact)


def moment_of(key: str) -> Callable[[Json], str]:
    """A cell with the time under a key."""
    return lambda row: moment(row.get(key))


def last_of(key: str) -> Callable[[Json], str]:
    """A cell with the last part of the ARM id under a key."""
    return lambda row: str(row.get(key) or "").rpartition("/")[2]


def facts_grid(facts: Mapping[str, object]) -> Table:
    """Facts about one thing: a label and what it says, row by row; what says nothing is left out."""
    grid = Table.grid(padding=(0, _GAP))
    grid.add_column(style="bright_black")
    grid.add_column(overflow="fold")
    for label, value in facts.items():
        if said := value if isinstance(value, Text) else Text(in_words(value)):
            grid.add_row(plain(label), said)
    return grid


def notes_of(document: Json) -> Text:
    """The notes of a document, on one line."""
    return Text(in_words(" ".join(cast("list[str]", document.get("notes") or []))), style="yellow", overflow="fold")


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
    columns: dict[str, Cell] = {"at": moment_of("at"), "action": "action", "actor": "actor", "detail": "detail"}
    return Listing(lines, columns, prose=["detail"], title=["at", "action", "actor"])
