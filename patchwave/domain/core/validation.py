"""Turns a failed validation into sentences for people: all errors at once, each with its path and the fix."""

import difflib
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import date
from enum import Enum
from typing import Annotated, Any, Self, get_args, get_origin

from pydantic import BaseModel, PrivateAttr, ValidationError
from pydantic_core import ErrorDetails

from patchwave.domain.core.documents import Document

_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]*")
_BOUNDS = {
    "greater_than_equal": ("at least", "ge"),
    "less_than_equal": ("at most", "le"),
    "greater_than": ("more than", "gt"),
    "less_than": ("less than", "lt"),
}
_SHOWN = 80
_MAX_PATH = 300
_MAX_MESSAGE = 1_000
_MAX_GUESSED_LENGTH = 64
"""Characters of a word that is compared with the known ones. No key is longer, and comparing is quadratic."""
_MAX_GUESSED = 10
"""Unknown keys of one answer that are compared with the known ones."""
MAX_PROBLEMS = 50
"""Errors in one answer: no person reads more."""


class Problem(Document):
    """One thing that is wrong: ``path`` such as ``scope.machineIds[0]`` (``$`` is the document), and the fix."""

    path: str
    message: str


class InvalidDocument(ValueError):
    """A document is not valid. ``errors`` lists every problem, each with its path and the fix."""

    def __init__(self, errors: Sequence[Problem]) -> None:
        self.errors = listed(errors)
        super().__init__("; ".join(f"{problem.path}: {problem.message}" for problem in self.errors))


class _Rest(Problem):
    """The last entry of a list that was cut: how many more problems there are."""

    _count: int = PrivateAttr(default=0)

    @classmethod
    def of(cls, count: int) -> Self:
        made = cls(path="$", message=f"{count:,} more errors are not listed; mend these first")
        made._count = count
        return made

    @property
    def count(self) -> int:
        return self._count


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
    """The first errors of a failed validation of ``model``, in the order of its fields, and how many more there are."""
    details = error.errors(include_url=False)
    if any(detail["type"] == "too_short" for detail in details):
        # A list whose entries are all wrong is reported as too short as well.
        broken = {detail["loc"][:length] for detail in details for length in range(len(detail["loc"]))}
        details = [detail for detail in details if detail["type"] != "too_short" or detail["loc"] not in broken]
    shown = details[:MAX_PROBLEMS]
    unknown = [index for index, detail in enumerate(shown) if detail["type"] == "extra_forbidden"][:_MAX_GUESSED]
    problems = [
        Problem(
            path=format_path(_location(detail)),
            message=_sentence(detail, model, is_guessed=detail["type"] != "extra_forbidden" or index in unknown),
        )
        for index, detail in enumerate(shown)
    ]
    return problems if len(details) <= MAX_PROBLEMS else [*problems, _Rest.of(len(details) - MAX_PROBLEMS)]


def listed(problems: Sequence[Problem]) -> list[Problem]:
    """The first fifty, and as the last one how many more there are. A list that was cut before stays cut."""
    whole = [problem for problem in problems if not isinstance(problem, _Rest)]
    left = sum(problem.count for problem in problems if isinstance(problem, _Rest))
    left += max(len(whole) - MAX_PROBLEMS, 0)
    shown = [_shortened(problem) for problem in whole[:MAX_PROBLEMS]]
    return [*shown, _Rest.of(left)] if left else shown


def _shortened(problem: Problem) -> Problem:
    """The problem without the bulk of what a caller wrote, which many problems may repeat."""
    path, message = _cut(problem.path, _MAX_PATH), _cut(problem.message, _MAX_MESSAGE)
    return problem if (path, message) == (problem.path, problem.message) else Problem(path=path, message=message)


def _cut(text: str, longest: int) -> str:
    return text if len(text) <= longest else text[: longest - 1] + "…"


def suggest(given: str, known: Iterable[str]) -> str:
    """``did you mean "x"?`` for a near miss; empty when nothing is near, or the word is longer than any known one."""
    if len(given) > _MAX_GUESSED_LENGTH:
        return ""
    folded = {_fold(name): name for name in known}
    near = difflib.get_close_matches(_fold(given), folded, n=1, cutoff=0.6)
    return f'did you mean "{folded[near[0]]}"?' if near else ""


def _fold(name: str) -> str:
    return name.replace("_", "").replace("-", "").lower()


def _location(detail: ErrorDetails) -> tuple[str | int, ...]:
    location = detail["loc"]
    # pydantic marks an error in a key of an object like this.
    return location[:-1] if location and location[-1] == "[key]" else location


def _sentence(detail: ErrorDetails, model: type[BaseModel], *, is_guessed: bool) -> str:
    kind, value, context = detail["type"], detail["input"], detail.get("ctx", {})
    if kind == "extra_forbidden":
        parent = _model_at(model, detail["loc"][:-1])
        return _unknown_key(str(detail["loc"][-1]), parent, model, is_guessed=is_guessed)
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


def _unknown_key(name: str, parent: type[BaseModel] | None, root: type[BaseModel], *, is_guessed: bool) -> str:
    known = [alias for alias, _ in _described(parent)]
    if is_guessed and len(name) <= _MAX_GUESSED_LENGTH:
        # The very name in another place is a better guess than a name that only looks like it.
        folded = _fold(name)
        elsewhere = next((path for path, alias in _all_keys(root) if _fold(alias) == folded), "")
        if elsewhere and folded not in map(_fold, known):
            return f'is not known here; did you mean "{elsewhere}"?'
        if near := suggest(name, known):
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
    return _cut(text or repr(value[:_SHOWN] if isinstance(value, str) else value), _SHOWN)
