"""A subset of the Kusto query language for inventory queries, compiled to functions.

``Table | where … | extend … | project … | order by … | take n | count | summarize count() by …``; a query that begins
with an operator is about ``resources``. Anything else is a ``QueryError`` and so a 400, as Resource Graph answers to
what it cannot parse. Text operators ignore case the way Kusto does; a missing value is null, equals nothing, and is the
empty text to ``tostring``.
"""

from __future__ import annotations

import json
import re
import string
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, cast

type Row = dict[str, Any]
type Value = Callable[[Row], Any]

_TOKEN = re.compile(
    r"""
    (?P<space>\s+|//[^\n]*)
  | (?P<verbatim>@(?:'(?:[^']|'')*'|"(?:[^"]|"")*"))
  | (?P<text>'(?:[^'\\\n]|\\.)*'|"(?:[^"\\\n]|\\.)*")
  | (?P<number>\d+(?:\.\d+)?)
  | (?P<name>!?[A-Za-z_$][A-Za-z0-9_$]*~?)
  | (?P<mark>==|!=|=~|!~|<=|>=|[|()\[\],.<>=*\-])
    """,
    re.VERBOSE,
)
_ESCAPE = re.compile(r"\\(u[0-9a-fA-F]{4}|.)")
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "\\": "\\", "'": "'", '"': '"', "0": "\0"}
_MAXIMUM_LENGTH = 64 * 1024


class QueryError(Exception):
    """A query that cannot be parsed or names an unknown column."""

    def __init__(self, message: str, position: int, token: str) -> None:
        super().__init__(message)
        self.message = message
        self.position = position
        self.token = token


@dataclass(frozen=True, slots=True)
class Token:
    kind: str
    text: str
    position: int


def tokens(query: str) -> list[Token]:
    """Cut a query into tokens.

    Raises:
        QueryError: a character that belongs to no token, such as an unclosed quote.
    """
    if len(query) > _MAXIMUM_LENGTH:
        raise QueryError("The query is too long.", 0, "")
    made: list[Token] = []
    at = 0
    while at < len(query):
        found = _TOKEN.match(query, at)
        if found is None:
            raise QueryError("A recognition error occurred.", at, query[at])
        if found.lastgroup != "space":
            made.append(Token(str(found.lastgroup), found.group(), at))
        at = found.end()
    return [*made, Token("end", "<EOF>", len(query))]


def _text(token: Token) -> str:
    if token.kind == "verbatim":
        quote = token.text[1]
        return token.text[2:-1].replace(quote * 2, quote)

    def plain(found: re.Match[str]) -> str:
        escape = found.group(1)
        if escape.startswith("u") and len(escape) == 5:
            return chr(int(escape[1:], 16))
        if escape not in _ESCAPES:
            raise QueryError("Unrecognized escape in a string literal.", token.position, token.text)
        return _ESCAPES[escape]

    return _ESCAPE.sub(plain, token.text[1:-1])


_ASCII_LOWER = str.maketrans(string.ascii_uppercase, string.ascii_lowercase)


def as_text(value: Any) -> str:
    """Kusto's tostring: bags and lists become JSON."""
    if isinstance(value, str):
        return value
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict | list):
        return json.dumps(value, separators=(",", ":"), ensure_ascii=False)
    return str(value)


def _folded(value: Any) -> str:
    """Normalized as by Kusto's operators: only ASCII letters ignore case."""
    text = as_text(value)
    return text.lower() if text.isascii() else text.translate(_ASCII_LOWER)


def _words(value: Any) -> list[str]:
    return re.findall(r"[^\W_]+", _folded(value))


def _has(value: Any, term: Any) -> bool:
    wanted = _words(term)
    words = _words(value)
    return bool(wanted) and any(words[at : at + len(wanted)] == wanted for at in range(len(words)))


_COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "==": lambda left, right: left is not None and as_text(left) == as_text(right),
    "!=": lambda left, right: as_text(left) != as_text(right),
    "=~": lambda left, right: left is not None and _folded(left) == _folded(right),
    "!~": lambda left, right: _folded(left) != _folded(right),
    "contains": lambda left, right: _folded(right) in _folded(left),
    "!contains": lambda left, right: _folded(right) not in _folded(left),
    "startswith": lambda left, right: _folded(left).startswith(_folded(right)),
    "!startswith": lambda left, right: not _folded(left).startswith(_folded(right)),
    "endswith": lambda left, right: _folded(left).endswith(_folded(right)),
    "!endswith": lambda left, right: not _folded(left).endswith(_folded(right)),
    "has": _has,
    "!has": lambda left, right: not _has(left, right),
    "<": lambda left, right: left is not None and right is not None and left < right,
    ">": lambda left, right: left is not None and right is not None and left > right,
    "<=": lambda left, right: left is not None and right is not None and left <= right,
    ">=": lambda left, right: left is not None and right is not None and left >= right,
}


def _instant(value: Any) -> str | None:
    """A time in the one format that sorts as text; null for anything else."""
    try:
        at = datetime.fromisoformat(as_text(value))
    except ValueError:
        return None
    at = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    return f"{at.replace(tzinfo=None).isoformat(timespec='microseconds')}0Z"


def _parsed(value: Any) -> Any:
    """Parse text that is JSON; anything else stays as it is, as in Kusto."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        return value


_FUNCTIONS: dict[str, Callable[[Any], Any]] = {
    "tolower": lambda value: as_text(value).lower(),
    "toupper": lambda value: as_text(value).upper(),
    "tostring": as_text,
    "isempty": lambda value: value is None or value == "",
    "isnotempty": lambda value: value is not None and value != "",
    "isnull": lambda value: value is None,
    "isnotnull": lambda value: value is not None,
    "not": lambda value: not value,
    "array_length": lambda value: len(cast(list[Any], value)) if isinstance(value, list) else None,
    "parse_json": _parsed,
    "todatetime": _instant,
    "strlen": lambda value: len(as_text(value)),
}


class Parser:
    """Recursive descent over one query. ``columns`` is the schema; ``extend`` and ``project`` change it."""

    def __init__(self, query: str, columns: set[str]) -> None:
        self._tokens = tokens(query)
        self._at = 0
        self._columns = set(columns)

    # -- the cursor -------------------------------------------------------------------------------------------------

    @property
    def current(self) -> Token:
        return self._tokens[self._at]

    def fail(self, message: str | None = None) -> QueryError:
        token = self.current
        return QueryError(message or f"no viable alternative at input '{token.text}'", token.position, token.text)

    def take(self, *texts: str) -> str | None:
        token = self.current
        if token.kind in ("name", "mark") and token.text.casefold() in texts:
            self._at += 1
            return token.text.casefold()
        return None

    def expect(self, *texts: str) -> str:
        found = self.take(*texts)
        if found is None:
            raise self.fail()
        return found

    def name(self) -> str:
        token = self.current
        if token.kind != "name" or token.text.endswith("~") or token.text.startswith("!"):
            raise self.fail()
        self._at += 1
        return token.text

    def number(self) -> int:
        token = self.current
        if token.kind != "number" or "." in token.text:
            raise self.fail()
        self._at += 1
        return int(token.text)

    @property
    def is_at_end(self) -> bool:
        return self.current.kind == "end"

    # -- columns ----------------------------------------------------------------------------------------------------

    @property
    def columns(self) -> set[str]:
        return self._columns

    def set_columns(self, columns: set[str]) -> None:
        self._columns = set(columns)

    # -- expressions ------------------------------------------------------------------------------------------------

    def expression(self) -> Value:
        parts = [self._conjunction()]
        while self.take("or"):
            parts.append(self._conjunction())
        if len(parts) == 1:
            return parts[0]
        return lambda row: any(part(row) for part in parts)

    def _conjunction(self) -> Value:
        parts = [self._comparison()]
        while self.take("and"):
            parts.append(self._comparison())
        if len(parts) == 1:
            return parts[0]
        return lambda row: all(part(row) for part in parts)

    def _comparison(self) -> Value:
        left = self._operand()
        operator = self.take(*_COMPARISONS)
        if operator is not None:
            compare = _COMPARISONS[operator]
            right = self._operand()
            return lambda row: compare(left(row), right(row))
        operator = self.take("in", "in~", "!in", "!in~", "has_any", "has_all")
        if operator is None:
            return left
        return self._membership(left, operator, self._list())

    def _membership(self, left: Value, operator: str, values: list[Any]) -> Value:
        if operator.startswith("has_"):
            every = all if operator == "has_all" else any
            return lambda row: every(_has(left(row), value) for value in values)
        fold = _folded if operator.endswith("~") else as_text
        members = {fold(value) for value in values}
        if operator.startswith("!"):
            return lambda row: fold(left(row)) not in members
        return lambda row: (value := left(row)) is not None and fold(value) in members

    def _list(self) -> list[Any]:
        """Literals in parentheses, or ``dynamic([...])``."""
        self.expect("(")
        inner = self.take("dynamic") is not None
        if inner:
            self.expect("(")
            self.expect("[")
        values = [self._literal()]
        while self.take(","):
            values.append(self._literal())
        if inner:
            self.expect("]")
            self.expect(")")
        self.expect(")")
        return values

    def _literal(self) -> Any:
        token = self.current
        if token.kind in ("text", "verbatim"):
            self._at += 1
            return _text(token)
        if token.kind == "number":
            self._at += 1
            return float(token.text) if "." in token.text else int(token.text)
        if self.take("-"):
            return -self.number()
        word = self.take("true", "false", "null")
        if word is not None:
            return {"true": True, "false": False, "null": None}[word]
        raise self.fail()

    def _operand(self) -> Value:
        if self.take("("):
            inner = self.expression()
            self.expect(")")
            return self._path(inner)
        token = self.current
        if token.kind != "name" or token.text.casefold() in ("true", "false", "null"):
            value = self._literal()
            return lambda row: value
        name = self.name()
        if self.take("("):
            return self._path(self._call(name, token))
        if name not in self._columns:
            message = f"Failed to resolve column or scalar expression named '{name}'"
            raise QueryError(message, token.position, name)
        return self._path(lambda row: row.get(name))

    def _call(self, name: str, token: Token) -> Value:
        arguments: list[Value] = []
        if not self.take(")"):
            arguments.append(self.expression())
            while self.take(","):
                arguments.append(self.expression())
            self.expect(")")
        folded = name.casefold()
        if folded == "coalesce" and arguments:
            return lambda row: next((v for each in arguments if (v := each(row)) not in (None, "")), None)
        if folded == "strcat" and arguments:
            return lambda row: "".join(as_text(each(row)) for each in arguments)
        if folded == "split" and len(arguments) == 2:
            text, separator = arguments
            return lambda row: as_text(text(row)).split(as_text(separator(row)))
        if folded == "substring" and len(arguments) in (2, 3):
            return _substring(*arguments)
        if folded in ("pack", "bag_pack") and arguments and not len(arguments) % 2:
            pairs = list(zip(arguments[::2], arguments[1::2], strict=True))
            return lambda row: {as_text(key(row)): value(row) for key, value in pairs}
        if folded == "iff" and len(arguments) == 3:
            condition, then, otherwise = arguments
            return lambda row: then(row) if condition(row) else otherwise(row)
        function = _FUNCTIONS.get(folded)
        if function is None or len(arguments) != 1:
            raise QueryError(f"Unknown function: '{name}' with {len(arguments)} arguments", token.position, name)
        only = arguments[0]
        return lambda row: function(only(row))

    def _path(self, start: Value) -> Value:
        steps: list[str | int] = []
        while True:
            if self.take("."):
                steps.append(self.name())
            elif self.take("["):
                key = self._literal()
                if not isinstance(key, str | int) or isinstance(key, bool):
                    raise self.fail()
                steps.append(key)
                self.expect("]")
            else:
                break
        if not steps:
            return start
        return lambda row: _dig(start(row), steps)


def _substring(text: Value, start: Value, length: Value | None = None) -> Value:
    """From a character on, counted from the end when it is negative, so many characters or the rest."""

    def cut(row: Row) -> str:
        whole, first = as_text(text(row)), int(start(row))
        first = max(0, first + len(whole)) if first < 0 else first
        return whole[first:] if length is None else whole[first : first + int(length(row))]

    return cut


def _dig(value: Any, steps: list[str | int]) -> Any:
    for step in steps:
        if isinstance(step, int):
            if not isinstance(value, list) or step >= len(cast(list[Any], value)):
                return None
            value = cast(list[Any], value)[step]
        else:
            if not isinstance(value, dict):
                return None
            value = cast(dict[str, Any], value).get(step)
    return value
