"""Turns a failed validation into sentences for people: all errors at once, each with its path and the fix."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from enum import Enum
from typing import Annotated, Any, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from domain.base import Document

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
    "greater_than": ("more than", "gt"),
    "less_than": ("less than", "lt"),
}
_MORE = re.compile(r"([0-9,]+) more errors are not listed; mend these first")
_SHOWN = 80
MOST_PROBLEMS = 100
"""Errors of one answer: each is compared with the known keys, and no person reads more."""


class Problem(Document):
    """One thing that is wrong: ``path`` such as ``scope.machineIds[0]`` (``$`` is the document), and the fix."""

    path: str
    message: str


def format_path(location: Sequence[str | int]) -> str:
    """``scope.tags.values['cost.center'][0]``; ``$`` for the document itself."""
    text = ""
    for part in location:
        if isinstance(part, int):
            text += f"[{part}]"
        elif _PLAIN_NAME.fullmatch(part):
            text += f".{part}" if text else part
        else:
            text += f"[{part!r}]"
    return text or "$"


def explain(error: ValidationError, model: type[BaseModel]) -> list[Problem]:
    """Every error of a failed validation of ``model``, in the order of the document's fields."""
    details = error.errors(include_url=False)
    broken = {detail["loc"][:length] for detail in details for length in range(len(detail["loc"]))}
    # A list whose entries are all wrong is reported as too short as well.
    wrong = [detail for detail in details if detail["type"] != "too_short" or detail["loc"] not in broken]
    problems = [
        Problem(path=format_path(_location(detail)), message=_sentence(detail, model))
        for detail in wrong[:MOST_PROBLEMS]
    ]
    return problems if len(wrong) <= MOST_PROBLEMS else [*problems, _more(len(wrong) - MOST_PROBLEMS)]


def listed(problems: Sequence[Problem]) -> list[Problem]:
    """The first hundred, and as the last one how many more there are. A list that was cut before stays cut."""
    cut = {
        problem: int(found[1].replace(",", "")) for problem in problems if (found := _MORE.fullmatch(problem.message))
    }
    whole = [problem for problem in problems if problem not in cut]
    left = sum(cut.values()) + max(len(whole) - MOST_PROBLEMS, 0)
    return [*whole[:MOST_PROBLEMS], _more(left)] if left else whole


def _more(count: int) -> Problem:
    return Problem(path="$", message=f"{count:,} more errors are not listed; mend these first")


def suggest(given: str, known: Iterable[str]) -> str:
    """``did you mean "x"?`` for a near miss; empty when nothing is near."""
    folded = {_fold(name): name for name in known}
    near = difflib.get_close_matches(_fold(given), folded, n=1, cutoff=0.6)
    return f'did you mean "{folded[near[0]]}"?' if near else ""


def _fold(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _location(detail: ErrorDetails) -> tuple[str | int, ...]:
    location = detail["loc"]
    # pydantic marks an error in a key of an object like this.
    return location[:-1] if location and location[-1] == "[key]" else location


def _sentence(detail: ErrorDetails, model: type[BaseModel]) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        return _unknown_key(str(detail["loc"][-1]), _model_at(model, detail["loc"][:-1]), model)
    if kind == "missing":
        return _missing(str(detail["loc"][-1]), _model_at(model, detail["loc"][:-1]))
    if kind == "value_error":
        return str(context.get("error", detail["msg"]))
    if kind == "enum":
        expected = re.findall(r"'([^']*)'", str(context.get("expected", "")))
        return _joined(f"{_show(value)} is not one of {', '.join(expected)}", suggest(str(value), expected))
    if kind in _BOUNDS:
        word, key = _BOUNDS[kind]
        return f"must be {word} {context.get(key)}"
    if kind in ("too_short", "string_too_short"):
        return "must not be empty; give at least one value"
    if kind in ("too_long", "string_too_long"):
        return f"is too long; at most {context.get('max_length')}"
    return _wrong_type(kind, value) or detail["msg"]


def _wrong_type(kind: str, value: object) -> str:
    if kind == "string_type":
        hint = "; in YAML put it in quotes" if isinstance(value, bool | int | float | date) else ""
        return f"must be text, not {_show(value)}{hint}"
    if kind in ("bool_type", "bool_parsing"):
        return f"must be true or false, without quotes, not {_show(value)}"
    if kind in ("int_type", "int_parsing", "int_from_float"):
        return f"must be a whole number, not {_show(value)}"
    if kind in ("list_type", "tuple_type"):
        return f"must be a list, not {_show(value)}"
    if kind in ("dict_type", "model_type", "model_attributes_type"):
        return f"must be an object, not {_show(value)}"
    return ""


def _missing(name: str, parent: type[BaseModel] | None) -> str:
    for alias, description in _described(parent):
        if alias == name and description:
            return f"is missing; give {name}: {description}"
    return f"is missing; give {name}"


def _unknown_key(name: str, parent: type[BaseModel] | None, root: type[BaseModel]) -> str:
    known = [alias for alias, _ in _described(parent)]
    # The very name in another place is a better guess than a name that only looks like it.
    elsewhere = [path for path, alias in _all_keys(root) if _fold(alias) == _fold(name)]
    if elsewhere and _fold(name) not in map(_fold, known):
        return f'is not known here; did you mean "{elsewhere[0]}"?'
    near = suggest(name, known)
    if near:
        return f"is not known here; {near}"
    return f"is not known here; use {', '.join(known)}" if known else "is not known here; leave it out"


def _described(model: type[BaseModel] | None) -> Iterator[tuple[str, str]]:
    for name, field in (model.model_fields if model else {}).items():
        yield field.alias or name, field.description or ""


def _all_keys(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, str]]:
    for name, field in model.model_fields.items():
        alias = field.alias or name
        yield prefix + alias, alias
        inner = _model_in(field.annotation)
        if inner is not None:
            yield from _all_keys(inner, f"{prefix}{alias}.")


def _model_at(model: type[BaseModel], location: Sequence[str | int]) -> type[BaseModel] | None:
    current: type[BaseModel] | None = model
    for part in location:
        if current is None:
            return None
        if isinstance(part, int):
            continue
        field = next(
            (field for name, field in current.model_fields.items() if part in (field.alias or name, name)), None
        )
        current = _model_in(field.annotation) if field else None
    return current


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """The model inside ``X | None``, ``Annotated[X, ...]``, ``tuple[X, ...]``; ``None`` when there is none."""
    if isinstance(annotation, type):
        return annotation if issubclass(annotation, BaseModel) else None
    arguments = get_args(annotation)[:1] if get_origin(annotation) is Annotated else get_args(annotation)
    return next((model for model in map(_model_in, arguments) if model), None)


def _joined(sentence: str, hint: str) -> str:
    return f"{sentence}; {hint}" if hint else sentence


def _show(value: object) -> str:
    if isinstance(value, Enum):
        value = value.value
    if isinstance(value, Mapping):
        return "an object"
    if isinstance(value, list | tuple):
        return "a list"
    text = {True: "true", False: "false", None: "null"}.get(value) if isinstance(value, bool | None) else None
    shown = text or repr(value)
    return shown if len(shown) <= _SHOWN else shown[: _SHOWN - 1] + "…"
