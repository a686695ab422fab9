"""A whole query: a table and its stages, run over rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from local.azure_simulator.resource_graph.kql import Parser, Row, Value, as_text

_OPERATORS = ("where", "project", "extend", "order", "sort", "take", "limit", "count", "summarize")

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
        self.table = "resources"
        self._stages: list[Stage] = []
        # Recorded: "project id, tags | limit 2" is answered with rows of resources.
        if parser.current.text.casefold() in _OPERATORS:
            parser.set_columns(tables[self.table])
            self._stages.append(_stage(parser))
        else:
            self.table = _table(parser, tables)
            parser.set_columns(tables[self.table])
        while not parser.is_at_end:
            parser.expect("|")
            self._stages.append(_stage(parser))

    def run(self, rows: list[Row]) -> list[Row]:
        for stage in self._stages:
            rows = stage(rows)
        return rows


def _table(parser: Parser, tables: dict[str, set[str]]) -> str:
    table = parser.name()
    if table.casefold() not in tables:
        raise parser.fail(f"Table '{table}' was not found in this catalog")
    return table.casefold()


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
    """``count()``, ``min(x)``, ``max(x)``, ``make_list(x)`` and ``arg_max(x, …)``, of all rows or by columns."""
    aggregates = [_aggregate(parser)]
    while parser.take(","):
        aggregates.append(_aggregate(parser))
    columns = _many(parser) if parser.take("by") else []
    made = {name for names, _ in aggregates for name in names}
    parser.set_columns({*(column for column, _ in columns), *made})

    def summarized(rows: list[Row]) -> list[Row]:
        groups: dict[tuple[str, ...], tuple[Row, list[Row]]] = {}
        for row in rows:
            values: dict[str, Any] = {column: value(row) for column, value in columns}
            key = tuple(as_text(value) for value in values.values())
            groups.setdefault(key, (values, []))[1].append(row)
        if not columns:
            groups = {(): ({}, rows)}
        return [
            _merged(values, [aggregate(members) for _, aggregate in aggregates]) for values, members in groups.values()
        ]

    return summarized


def _merged(values: Row, aggregated: list[Row]) -> Row:
    made = dict(values)
    for each in aggregated:
        made |= each
    return made


def _aggregate(parser: Parser) -> tuple[list[str], Callable[[list[Row]], Row]]:
    """An aggregate, with the columns that it makes; nulls count as nothing."""
    given, word = "", parser.name()
    if parser.take("="):
        given, word = word, parser.name()
    kind = word.casefold()
    parser.expect("(")
    if kind == "count":
        parser.expect(")")
        name = given or "count_"
        return [name], lambda rows: {name: len(rows)}
    if kind == "arg_max" and not given:
        return _arg_max(parser)
    if kind == "make_list":
        item = parser.expression()
        parser.expect(")")
        name = given or "list_"
        return [name], lambda rows: {name: [found for row in rows if (found := item(row)) is not None]}
    if kind not in ("min", "max"):
        raise parser.fail("only count(), min(), max(), make_list() and arg_max() can be summarized")
    column, value = _assigned(parser)
    parser.expect(")")
    name, best = given or f"{kind}_{column}", min if kind == "min" else max
    return [name], lambda rows: {name: best((found for row in rows if (found := value(row)) is not None), default=None)}


def _arg_max(parser: Parser) -> tuple[list[str], Callable[[list[Row]], Row]]:
    """The row of the largest value; where all are null any row, as Kusto says."""
    by, value = _assigned(parser)
    others: list[tuple[str, Value]] = []
    while parser.take(","):
        others.append(_assigned(parser))
    parser.expect(")")

    def largest(rows: list[Row]) -> Row:
        known = [row for row in rows if value(row) is not None] or rows[:1]
        found = max(known, key=lambda row: as_text(value(row)), default=dict[str, Any]())
        return {by: value(found)} | {name: other(found) for name, other in others}

    return [by, *(name for name, _ in others)], largest
