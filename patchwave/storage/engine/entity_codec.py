"""Encodes documents as columns that are readable in Storage Explorer, within the limits of a table entity.

Scalars become columns under their wire name; lists and nested documents become JSON columns. A string property holds
64 KiB, which is 32 K UTF-16 units. Longer free text is cut, with a visible marker and a ``...Truncated`` column. JSON
is never cut: it continues in further columns (``name``, ``name2``, ...).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import Enum
from functools import cache
from types import UnionType
from typing import Any, Union, get_args, get_origin

from pydantic import BaseModel

from patchwave.domain.core.documents import format_instant
from patchwave.domain.core.redaction import redact
from patchwave.storage.errors import RecordTooLarge

type Columns = dict[str, Any]

TEXT_UNITS = 32_000
"""UTF-16 units in one string column: below the service's 32,768."""
JSON_COLUMNS = 14
"""Columns that one JSON value may fill: 14 x 64 KB stays below the 1 MiB of an entity."""

_UNSTORABLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")


def units(text: str) -> int:
    """Length of the text in UTF-16 units, as the table service counts it."""
    return len(text) if text.isascii() else len(text.encode("utf-16-le", "surrogatepass")) // 2


def cut(text: str, limit: int = TEXT_UNITS) -> tuple[str, bool]:
    """The text within ``limit`` UTF-16 units, and whether it was cut; a marker shows how much is missing."""
    if units(text) <= limit:
        return text, False
    marker = f" … [cut: {len(text)} characters in all]"
    return _head(text, limit - len(marker)) + marker, True


def _head(text: str, limit: int) -> str:
    kept = text[:limit]
    while (excess := units(kept) - limit) > 0:
        kept = kept[: len(kept) - (excess + 1) // 2]
    return kept


def clean(text: str) -> str:
    """The text without secrets and without characters that cannot be stored."""
    return _UNSTORABLE.sub("\ufffd", redact(text))


def put_text(columns: Columns, name: str, text: str) -> None:
    """Set a free-text column, cut with a marker and a flag column when it is too long."""
    columns[name], was_cut = cut(clean(text))
    if was_cut:
        columns[f"{name}Truncated"] = True


def put_json(columns: Columns, name: str, value: object) -> None:
    """Set a JSON value, in as many columns as it needs.

    Raises:
        RecordTooLarge: it does not fit into one entity.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), sort_keys=False)
    text = _UNSTORABLE.sub("\ufffd", text)
    if units(text) > JSON_COLUMNS * TEXT_UNITS - JSON_COLUMNS:
        raise RecordTooLarge(f"{name} has {len(text)} characters; a record holds about {JSON_COLUMNS * TEXT_UNITS}")
    count = 0
    while text:
        count += 1
        part = _head(text, TEXT_UNITS)
        columns[name if count == 1 else f"{name}{count}"] = part
        text = text[len(part) :]


def put_mapping(columns: Columns, name: str, value: Mapping[str, str]) -> None:
    """Set a mapping of external texts (tags): long texts are cut, and entries that exceed one column are omitted.

    Azure allows 50 tags of 256 characters, so no real VM needs the flag column.
    """
    kept: dict[str, str] = {}
    size, complete = 2, True
    for key, text in value.items():
        short, was_cut = cut(clean(text), 1_000)
        entry = units(json.dumps({clean(key): short}, ensure_ascii=False))
        if units(key) > 1_000 or size + entry > TEXT_UNITS:
            complete = False
            continue
        kept[clean(key)] = short
        size += entry
        complete = complete and not was_cut
    columns[name] = json.dumps(kept, ensure_ascii=False, separators=(",", ":"))
    if not complete:
        columns[f"{name}Truncated"] = True


def get_json(columns: Mapping[str, Any], name: str) -> Any:
    """Read a value of ``put_json``; ``None`` when the column is absent."""
    if name not in columns:
        return None
    parts = [columns[name]]
    while (further := f"{name}{len(parts) + 1}") in columns:
        parts.append(columns[further])
    return json.loads("".join(parts))


def pack(values: Mapping[str, object], *, exact: Iterable[str] = ()) -> Columns:
    """Columns of a document's wire form. ``None`` is omitted: a table has no null.

    ``exact`` names texts that are stored byte for byte, such as operation URLs.
    """
    verbatim = frozenset(exact)
    columns: Columns = {}
    for name, value in values.items():
        match value:
            case None:
                continue
            case bool() | int() | float():
                columns[name] = value
            case str() if name in verbatim:
                columns[name] = value
            case Enum():
                columns[name] = str(value.value)
            case str():
                put_text(columns, name, value)
            case datetime():
                columns[name] = format_instant(value)
            case BaseModel():
                put_json(columns, name, value.model_dump(mode="json", by_alias=True))
            case _:
                put_json(columns, name, value)
    return columns


def unpack[T: BaseModel](kind: type[T], columns: Mapping[str, Any]) -> T:
    """Build a document from its columns; unknown columns are ignored."""
    values: dict[str, Any] = {}
    nested = _nested_fields(kind)
    for field, info in kind.model_fields.items():
        name = info.alias or field
        if name in columns:
            values[name] = get_json(columns, name) if field in nested else columns[name]
    return kind.model_validate(values)


@cache
def _nested_fields(kind: type[BaseModel]) -> frozenset[str]:
    """The fields that ``pack`` writes as JSON: lists, mappings, and nested documents."""
    return frozenset(name for name, info in kind.model_fields.items() if _is_nested(info.annotation))


def _is_nested(annotation: Any) -> bool:
    if isinstance(annotation, UnionType) or get_origin(annotation) is Union:
        return any(_is_nested(member) for member in get_args(annotation))
    found = get_origin(annotation) or annotation
    return isinstance(found, type) and issubclass(found, BaseModel | list | dict | tuple)


def wire_names(kind: type[BaseModel], *, without: Iterable[str] = ()) -> list[str]:
    """The columns of a document, for ``$select``."""
    left_out = frozenset(without)
    names = [info.alias or field for field, info in kind.model_fields.items()]
    return [name for name in names if name not in left_out]
