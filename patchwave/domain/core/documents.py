"""The two kinds of document Patchwave handles: its own, and what others send.

Its own documents are strict and frozen: a misspelt key is an error, not a silent default. What Azure sends is
read leniently: missing keys, unknown keys and new words must never lose a result (``ExternalDocument``).
"""

import json
import re
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from types import NoneType
from typing import Annotated, Any, cast, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, PlainSerializer, WithJsonSchema
from pydantic.alias_generators import to_camel

_FRACTION = re.compile(r"\.([0-9]{1,9})(?=[Zz+-]|$)")

type Json = dict[str, Any]
"""A JSON object."""


class Document(BaseModel):
    """A document of ours: frozen, strict about keys, camelCase on the wire."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)

    def to_wire(self) -> Json:
        """The plain JSON form that may cross a durable boundary or an HTTP answer."""
        return self.model_dump(mode="json", by_alias=True)


class ExternalDocument(BaseModel):
    """A document from outside, such as Azure's: unknown keys are ignored, absent keys take a default."""

    model_config = ConfigDict(frozen=True, extra="ignore", alias_generator=to_camel, populate_by_name=True)


def object_or_none(value: object) -> Json | None:
    return cast("Json", value) if isinstance(value, dict) else None


def parse_object(text: str) -> Json | None:
    """The JSON object in a text from outside; ``None`` when it is none, or nested too deeply to be read."""
    try:
        return object_or_none(json.loads(text))
    except (ValueError, RecursionError):
        return None


def list_or_empty(value: object) -> list[Any]:
    """The value if it is a JSON array; Azure sends ``null`` for an empty one."""
    return cast("list[Any]", value) if isinstance(value, list) else []


def objects_or_empty(value: object) -> list[Json]:
    """The JSON objects in an array; whatever else stands in it cannot be read."""
    return [item for item in list_or_empty(value) if isinstance(item, dict)]


def lower_keys(body: Mapping[str, Any]) -> Json:
    """The object with its keys in lower case, for services that write them in more than one way."""
    return {name.lower(): value for name, value in body.items()}


def int_or_none(value: object) -> int | None:
    """The value if it is a whole number; JSON's ``true`` is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def count_or_zero(value: object) -> int:
    """The value if it counts something; 0 for anything else, and for less than nothing."""
    return max(0, int_or_none(value) or 0)


def str_or_empty(value: object) -> str:
    return value if isinstance(value, str) else ""


def strings_or_empty(value: object) -> tuple[str, ...]:
    """The texts of an array; ``null`` and anything else have none."""
    return tuple(item for item in list_or_empty(value) if isinstance(item, str))


def texts_by_name(value: object) -> dict[str, str]:
    """An object whose values are texts, such as tags; ``null`` reads as an empty text."""
    return {name: "" if item is None else str(item) for name, item in (object_or_none(value) or {}).items()}


_LENIENT: Mapping[object, Callable[[object], object]] = {
    str: str_or_empty,
    bool: lambda value: value is True,
    tuple[str, ...]: strings_or_empty,
    dict[str, str]: texts_by_name,
    dict[str, tuple[str, ...]]: lambda value: {
        name: strings_or_empty(each) for name, each in (object_or_none(value) or {}).items()
    },
    dict[str, Any]: object_or_none,
}


def read_leniently[Model: Document](model: type[Model], body: Mapping[str, Any]) -> Model:
    """A document of ours from a body of Azure's: keys count without case, unknown ones and odd values are passed over.

    What is missing, empty or odd takes its default.
    """
    given, found = lower_keys(body), dict[str, object]()
    for name, field in model.model_fields.items():
        value, kinds = given.get(name.replace("_", "")), get_args(field.annotation)
        kind: Any = kinds[0] if NoneType in kinds else field.annotation
        if kind in _LENIENT:
            value = _LENIENT[kind](value)
        else:
            inner = object_or_none(value)
            value = inner and read_leniently(kind, inner)
        if value:
            found[name] = value
    return model.model_validate(found)


def without_empty(value: Json) -> Json:
    """The object without empty members, at any depth of objects: what a body to Azure leaves out."""
    cleaned = {
        key: item if (inner := object_or_none(item)) is None else without_empty(inner) for key, item in value.items()
    }
    return {key: item for key, item in cleaned.items() if item not in (None, [], {}, "")}


def parse_instant(value: object) -> datetime | None:
    """Read a time the way Azure writes it; ``None`` for anything that is not a time.

    Azure mixes ``Z`` and ``+00:00`` and 0 to 7 fractional digits inside one body, and uses year 1 for "unknown"
    (seen in recordings). Year 1 is returned as ``None``: it says nothing and overflows arithmetic.
    """
    if isinstance(value, datetime):
        instant = value
    elif isinstance(value, str):
        instant = _from_text(value.strip())
        if instant is None:
            return None
    else:
        return None
    if instant.year <= 1:
        return None
    try:
        return instant.replace(tzinfo=UTC) if instant.tzinfo is None else instant.astimezone(UTC)
    except OverflowError:
        # The last hours of year 9999, .NET's "never", in a zone west of Greenwich.
        return None


def _from_text(text: str) -> datetime | None:
    try:
        # Most are of this form already.
        return datetime.fromisoformat(text)
    except ValueError:
        pass
    try:
        return datetime.fromisoformat(_FRACTION.sub(lambda found: "." + found.group(1)[:6].ljust(6, "0"), text))
    except ValueError:
        return None


def format_instant(instant: datetime) -> str:
    """UTC ISO-8601 with ``Z`` and milliseconds: the one form that Patchwave writes."""
    return instant.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def format_minute(instant: datetime) -> str:
    """A moment for people: ``2026-12-08 21:00 UTC``."""
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def _require_instant(value: object) -> datetime:
    instant = parse_instant(value)
    if instant is None:
        raise ValueError("must be an ISO-8601 time with a zone, such as 2026-11-21T02:00:00Z")
    return instant


UtcDatetime = Annotated[
    datetime,
    BeforeValidator(_require_instant),
    PlainSerializer(format_instant, return_type=str, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
"""A UTC time of our own documents."""

LenientDatetime = Annotated[
    datetime | None,
    BeforeValidator(parse_instant),
    PlainSerializer(lambda value: value and format_instant(value), when_used="json"),
]
"""A time in a document from outside: ``None`` when it is missing, year 1 or unreadable."""
