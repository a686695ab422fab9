"""Small faults that are put into a module one at a time: what a careless edit would change.

A mutant is a syntax tree, not a text: it keeps the line numbers of the source, so that the lines that a test covers
are those of the mutant too.
"""

from __future__ import annotations

import ast
import copy
from collections import defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple, cast

_COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Add,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
}
_FUNCTIONS = {"min": "max", "max": "min", "any": "all", "all": "any"}
_LOGGER = "_LOG"
_FOR_PEOPLE = {"title", "description", "examples"}
"""Keywords of fields that only documentation shows."""

type Edit = Callable[[Any], ast.AST]
"""Makes the faulty node of a node of the copied tree."""


class Mutant(NamedTuple):
    """One fault: where it is, what it changes, and how to make it."""

    function: str
    """Qualified name of the function or class around it; empty on the level of the module."""
    line: int
    before: str
    after: str
    names: frozenset[str]
    """On the level of a module or class: the names that the statement binds."""
    tree: ast.Module

    @property
    def key(self) -> str:
        """What identifies it as long as its statement stays: no line number in it."""
        return f"{self.function}: {self.before} => {self.after}"


def mutations(source: str) -> list[Callable[[], Mutant]]:
    """All mutants of a module, in the order of its text; each is made when it is called for."""
    tree = ast.parse(source)
    members = _enum_members(tree)
    return [
        partial(_apply, tree, site, edit)
        for site in _sites(tree)
        for edit in _edits(site.node, members, is_setting=not site.place.function)
    ]


type _Path = tuple[tuple[str, int | None], ...]
"""From the module to a node: the field of each node on the way, and the position where it is a list."""


class _Place(NamedTuple):
    path: _Path = ()
    statement: int = 0
    """How many steps of the path lead to the innermost statement."""
    function: str = ""
    names: frozenset[str] = frozenset()
    is_called: bool = False
    """In the body of a function: it runs when that is called."""

    def step(self, field: str, position: int | None) -> _Place:
        """The place of a child."""
        return self._replace(path=(*self.path, (field, position)))

    def of(self, node: ast.stmt) -> _Place:
        """The same place, known to be that of a statement."""
        place = self._replace(statement=len(self.path))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            name = f"{self.function}.{node.name}" if self.function else node.name
            names = frozenset[str]() if self.is_called else frozenset({node.name})
            return place._replace(function=name, names=names)
        if isinstance(node, ast.Assign | ast.AnnAssign) and not self.is_called:
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            return place._replace(names=frozenset(each.id for each in targets if isinstance(each, ast.Name)))
        return place


class _Site(NamedTuple):
    place: _Place
    node: ast.AST


def _sites(tree: ast.Module) -> Iterator[_Site]:
    """Every node that may be mutated: no docstring, annotation, decorator, log line or text of an exception."""

    def walk(node: ast.AST, place: _Place) -> Iterator[_Site]:
        if isinstance(node, ast.stmt):
            if _is_left_alone(node):
                return
            place = place.of(node)
        yield _Site(place, node)
        for name, value in ast.iter_fields(node):
            if isinstance(node, ast.keyword) and node.arg in _FOR_PEOPLE:
                continue
            if name in _SKIPPED_FIELDS or (isinstance(node, ast.Raise) and name == "exc"):
                continue
            is_body = name == "body" and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            around = place._replace(names=frozenset(), is_called=True) if is_body else place
            if isinstance(value, ast.AST):
                yield from walk(value, around.step(name, None))
            elif isinstance(value, list):
                for position, item in enumerate(cast(list[object], value)):
                    if isinstance(item, ast.AST):
                        yield from walk(item, around.step(name, position))

    yield from walk(tree, _Place())


_SKIPPED_FIELDS = {"annotation", "returns", "decorator_list", "type_params", "bases", "ctx", "ops", "op"}


def _is_left_alone(node: ast.stmt) -> bool:
    match node:
        case ast.Import() | ast.ImportFrom() | ast.TypeAlias():
            return True
        case ast.Expr(value=ast.Constant()):
            return True
        case ast.Expr(value=ast.Call(func=ast.Attribute(value=ast.Name(id=name)))):
            return name == _LOGGER
        case ast.Assign(targets=[ast.Name(id=name)]):
            return name in (_LOGGER, "__all__")
        case _:
            return False


def _enum_members(tree: ast.Module) -> dict[str, list[str]]:
    """By the name of an enumeration, the members that the module mentions."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=ast.Name(id=name), attr=member) if name[:1].isupper() and member.isupper():
                found[name].add(member)
            case _:
                pass
    return {name: sorted(members) for name, members in found.items()}


def _edits(node: ast.AST, members: dict[str, list[str]], *, is_setting: bool) -> Iterator[Edit]:
    match node:
        case ast.Compare(ops=[operator]) if type(operator) in _COMPARISONS:
            yield lambda copied: _set(copied, ops=[_COMPARISONS[type(operator)]()])
        case ast.BoolOp(op=operator):
            other = ast.Or() if isinstance(operator, ast.And) else ast.And()
            yield lambda copied: _set(copied, op=other)
        case ast.UnaryOp(op=ast.Not()):
            yield lambda copied: copied.operand
        case ast.BinOp(op=operator) if type(operator) in _ARITHMETIC:
            yield lambda copied: _set(copied, op=_ARITHMETIC[type(operator)]())
        case ast.If() | ast.While() | ast.IfExp():
            yield lambda copied: _set(copied, test=ast.UnaryOp(op=ast.Not(), operand=copied.test))
        case ast.Constant(value=value):
            yield from _constant_edits(value, is_setting=is_setting)
        case ast.Attribute(value=ast.Name(id=name), attr=member) if member in members.get(name, ()):
            others = [each for each in members[name] if each != member]
            if others:
                following = next((each for each in others if each > member), others[0])
                yield lambda copied: _set(copied, attr=following)
        case ast.Call(func=ast.Name(id=name)) if name in _FUNCTIONS:
            yield lambda copied: _set(copied, func=ast.Name(id=_FUNCTIONS[name], ctx=ast.Load()))
        case ast.Expr(value=ast.Call() | ast.Await() | ast.Yield() | ast.YieldFrom()) | ast.AugAssign() | ast.Raise():
            yield lambda _: ast.Pass()
        case ast.Return(value=value) if value is not None and not _is_no(value):
            yield lambda copied: _set(copied, value=ast.Constant(value=None))
        case ast.Continue():
            yield lambda _: ast.Break()
        case ast.Break():
            yield lambda _: ast.Continue()
        case _:
            pass
    if isinstance(node, ast.Call):
        for position, keyword in enumerate(node.keywords):
            if keyword.arg is not None and keyword.arg not in _FOR_PEOPLE:
                yield lambda copied, position=position: _without_keyword(copied, position)


def _constant_edits(value: object, *, is_setting: bool) -> Iterator[Edit]:
    """``is_setting``: a constant of the module, of which no test should know whether it is 250 or 251."""
    if isinstance(value, bool):
        yield lambda copied: _set(copied, value=not value)
    elif isinstance(value, int | float):
        if not is_setting or value <= 2:
            yield lambda copied: _set(copied, value=value + 1)
        if value > 2:
            yield lambda copied: _set(copied, value=type(value)(value / 17))
    elif isinstance(value, str) and value and not any(character.isspace() for character in value):
        # Words that programs read. Sentences for people are judged by people.
        yield lambda copied: _set(copied, value=f"{value}_")


def _is_no(node: ast.AST) -> bool:
    """``None`` or ``False``, which callers that ask yes or no cannot tell apart."""
    return isinstance(node, ast.Constant) and (node.value is None or node.value is False)


def _set(node: ast.AST, **fields: object) -> ast.AST:
    for name, value in fields.items():
        setattr(node, name, value)
    return node


def _without_keyword(node: ast.AST, position: int) -> ast.AST:
    assert isinstance(node, ast.Call)
    del node.keywords[position]
    return node


def _apply(tree: ast.Module, site: _Site, edit: Edit) -> Mutant:
    place, changed = site.place, copy.deepcopy(tree)
    statement = _follow(changed, place.path[: place.statement])
    before = _first_line(statement)
    parent = _follow(changed, place.path[:-1])
    field, position = place.path[-1]
    replaced = edit(_step(parent, field, position))
    ast.copy_location(replaced, site.node)
    if position is None:
        setattr(parent, field, replaced)
    else:
        getattr(parent, field)[position] = replaced
    ast.fix_missing_locations(changed)
    after = _first_line(_follow(changed, place.path[: place.statement]))
    line = getattr(site.node, "lineno", getattr(statement, "lineno", 1))
    return Mutant(place.function, line, before, after, place.names, changed)


def _follow(node: ast.AST, path: _Path) -> ast.AST:
    for field, position in path:
        node = _step(node, field, position)
    return node


def _step(node: ast.AST, field: str, position: int | None) -> ast.AST:
    value = getattr(node, field)
    return value if position is None else value[position]


def _first_line(statement: ast.AST) -> str:
    """The statement on one line; of a compound one its head, since its body has statements of its own."""
    head = copy.deepcopy(statement)
    for part in [head, *getattr(head, "cases", [])]:
        for field in ("body", "orelse", "finalbody", "handlers"):
            if isinstance(getattr(part, field, None), list) and getattr(part, field):
                setattr(part, field, [ast.Pass()] if field == "body" else [])
    if isinstance(head, ast.Try | ast.TryStar):
        return "try"
    if isinstance(head, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        head.decorator_list = []
    text = ast.unparse(head)
    return " ".join((text if isinstance(head, ast.Pass) else text.removesuffix("pass")).split())
