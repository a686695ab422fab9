"""Rules for source code that no linter has: digits are ASCII, and no broad handler loses an error."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from local import ROOT

DEPLOYED = ["activities", "orchestrators", "patchwave", "triggers"]
SOURCES = [
    *(path for folder in DEPLOYED for path in sorted((ROOT / folder).rglob("*.py"))),
    ROOT / "function_app.py",
]


def named(path: Path, node: ast.AST) -> str:
    return f"{path.relative_to(ROOT)}:{getattr(node, 'lineno', 0)}"


def digits_of_any_script(tree: ast.AST) -> Iterator[ast.AST]:
    r"""Patterns with a bare ``\d``, and methods of texts that take digits of every script."""
    guarded = {id(part) for node in ast.walk(tree) if "isascii" in ast.dump(node) for part in _parts_of_test(node)}
    for node in ast.walk(tree):
        match node:
            # Bytes match ASCII alone.
            case ast.Constant(value=str(text)) if "\\d" in text:
                yield node
            case ast.Attribute(attr="isdecimal" | "isnumeric"):
                yield node
            case ast.Attribute(attr="isdigit") if id(node) not in guarded:
                yield node
            case _:
                pass


def _parts_of_test(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.BoolOp) and isinstance(node.op, ast.And):
        yield from ast.walk(node)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_digits_are_ascii(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert [named(path, node) for node in digits_of_any_script(tree)] == []


@pytest.mark.parametrize(
    ("source", "is_fine"),
    [
        (r"re.compile(r'\d+')", False),
        (r"re.compile('[0-9]+')", True),
        ("text.isdigit()", False),
        ("text.isascii() and text.isdigit()", True),
        ("text.isdecimal()", False),
    ],
)
def test_the_rule_about_digits_bites(source: str, is_fine: bool) -> None:
    assert (not list(digits_of_any_script(ast.parse(source)))) is is_fine


def losing_handlers(tree: ast.AST) -> Iterator[ast.ExceptHandler]:
    """Handlers of every exception that neither raise, nor log the traceback, nor hand the exception on."""
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and _is_broad(node.type) and not _keeps_error(node):
            yield node


def _is_broad(kind: ast.expr | None) -> bool:
    kinds = kind.elts if isinstance(kind, ast.Tuple) else [kind]
    return any(
        each is None or (isinstance(each, ast.Name) and each.id in ("Exception", "BaseException")) for each in kinds
    )


def _keeps_error(handler: ast.ExceptHandler) -> bool:
    for node in ast.walk(handler):
        if isinstance(node, ast.Raise):
            return True
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Attribute) and node.func.attr == "exception":
                return True
            if any(word.arg == "exc_info" for word in node.keywords):
                return True
            # The exception itself, not its text or type, is what carries the traceback.
            if any(isinstance(part, ast.Name) and part.id == handler.name for part in node.args) and not _shows(node):
                return True
    return False


def _shows(call: ast.Call) -> bool:
    """Whether a call makes a text of the exception."""
    name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
    return name in ("str", "repr", "type", "isinstance", "debug", "info", "warning", "error", "critical", "format")


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_handler_of_every_exception_keeps_the_traceback(path: Path) -> None:
    tree = ast.parse(path.read_text("utf-8"))
    assert [named(path, node) for node in losing_handlers(tree)] == []


@pytest.mark.parametrize(
    ("body", "is_fine"),
    [
        ("pass", False),
        ("log.warning('%s', error)", False),
        ("log.warning('%s', type(error).__name__)", False),
        ("log.warning('failed', exc_info=True)", True),
        ("log.exception('failed')", True),
        ("future.set_exception(error)", True),
        ("return Failure(str(error))", False),
        ("raise", True),
    ],
)
def test_the_rule_about_handlers_bites(body: str, is_fine: bool) -> None:
    source = f"async def run():\n  try:\n    work()\n  except Exception as error:\n    {body}"
    assert (not list(losing_handlers(ast.parse(source)))) is is_fine
