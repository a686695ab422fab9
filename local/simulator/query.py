"""A whole query: a table and its stages, run over rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from local.simulator.kql import Parser, Row, Value, as_text

type Stage = Callable[[list[Row]], list[Row]]


class Query:
    """A parsed query.

    Args:
        text: The query.
        tables: The schema: folded table name to its columns.

    Raises:
        QueryError: not in the understood part of the language, an unknown table or column.
    """

    def __init__(self, text: str, tables: dict[str, set[str]]) -> None:
        parser = Parser(text, set())
        table = parser.name()
        if table.casefold() not in tables:
            raise parser.fail(f"Table '{table}' was not found in this catalog")
        self.table = table.casefold()
        parser.set_columns(tables[self.table])
        self._stages: list[Stage] = []
        while not parser.is_at_end:
            parser.expect("|")
            self._stages.append(_stage(parser))

    def run(self, rows: list[Row]) -> list[Row]:
        for stage in self._stages:
            rows = stage(rows)
        return rows


def _stage(parser: Parser) -> Stage:
    word = parser.name().casefold()
    if word == "where":
        condition = parser.expression()
        return lambda rows: [row for row in rows if condition(row)]
    if word == "project":
        return _project(parser)
    if word == "extend":
        return _extend(parser)
    if word in ("order", "sort"):
        parser.expect("by")
        return _order(parser)
    if word in ("take", "limit"):
        return _take(parser)
    if word == "count":
        parser.set_columns({"Count"})
        return lambda rows: [{"Count": len(rows)}]
    if word == "summarize":
        return _summarize(parser)
    raise parser.fail(f"Query operator '{word}' is not supported")


def _assigned(parser: Parser) -> tuple[str, Value]:
    """``name``, ``name = expression`` or an expression that takes the name of its last step."""
    name = parser.name()
    if parser.take("="):
        return name, parser.expression()
    if name not in parser.columns:
        raise parser.fail(f"Failed to resolve column or scalar expression named '{name}'")
    return name, lambda row: row.get(name)


def _many(parser: Parser) -> list[tuple[str, Value]]:
    found = [_assigned(parser)]
    while parser.take(","):
        found.append(_assigned(parser))
    return found


def _project(parser: Parser) -> Stage:
    columns = _many(parser)
    parser.set_columns({name for name, _ in columns})
    return lambda rows: [{name: value(row) for name, value in columns} for row in rows]


def _extend(parser: Parser) -> Stage:
    columns = _many(parser)
    parser.set_columns(parser.columns | {name for name, _ in columns})
    return lambda rows: [row | {name: value(row) for name, value in columns} for row in rows]


def _order(parser: Parser) -> Stage:
    keys: list[tuple[Value, bool]] = []
    while True:
        value = parser.expression()
        # Kusto sorts descending unless told otherwise.
        keys.append((value, parser.take("asc", "desc") != "asc"))
        if parser.take("nulls"):
            parser.expect("first", "last")
        if not parser.take(","):
            break

    def ordered(rows: list[Row]) -> list[Row]:
        for value, descending in reversed(keys):
            rows = sorted(rows, key=lambda row, value=value: as_text(value(row)), reverse=descending)
        return rows

    return ordered


def _take(parser: Parser) -> Stage:
    count = parser.number()
    return lambda rows: rows[:count]


def _summarize(parser: Parser) -> Stage:
    name = "count_"
    word = parser.name()
    if parser.take("="):
        name, word = word, parser.name()
    if word.casefold() != "count":
        raise parser.fail("only count() can be summarized")
    parser.expect("(")
    parser.expect(")")
    columns = _many(parser) if parser.take("by") else []
    parser.set_columns({name, *(column for column, _ in columns)})

    def summarized(rows: list[Row]) -> list[Row]:
        groups: dict[tuple[str, ...], Row] = {}
        for row in rows:
            values: dict[str, Any] = {column: value(row) for column, value in columns}
            group = groups.setdefault(tuple(as_text(value) for value in values.values()), values | {name: 0})
            group[name] += 1
        return list(groups.values()) if columns else [{name: len(rows)}]

    return summarized
