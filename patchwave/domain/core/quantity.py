"""A number of machines, or a share of them: ``5`` or ``"10%"``."""

import re
from typing import Annotated, Any

from pydantic import BeforeValidator, WithJsonSchema

MAX_NUMBER = 100_000

_PERCENT = re.compile(r"([0-9]{1,3})\s*%")


def _read(value: object) -> object:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError('must be a whole number such as 5, or a share such as "10%"')
    if isinstance(value, int):
        if not 0 <= value <= MAX_NUMBER:
            raise ValueError(f"must be from 0 to {MAX_NUMBER}")
        return value
    found = _PERCENT.fullmatch(value.strip())
    if found is None or int(found[1]) > 100:
        raise ValueError(f'{value!r} is neither a whole number nor a share from "0%" to "100%"')
    return f"{int(found[1])}%"


def _read_limit(value: object) -> object:
    limit = value if isinstance(value, int) and value < 0 else _read(value)
    if limit == "0%" or (isinstance(limit, int) and limit < 1):
        raise ValueError('lets no machine run at all; write at least 1 or "1%"')
    return limit


def _schema(smallest: int) -> dict[str, Any]:
    return {"anyOf": [{"type": "integer", "minimum": smallest}, {"type": "string", "pattern": r"^[0-9]{1,3}%$"}]}


Share = Annotated[int | str, BeforeValidator(_read), WithJsonSchema(_schema(0))]
"""A number, or a per cent of the machines that it is about."""

Limit = Annotated[int | str, BeforeValidator(_read_limit), WithJsonSchema(_schema(1))]
"""How many machines at a time: a share that is not zero."""


def capacity(limit: int | str, machines: int) -> int:
    """How many machines a limit lets run at a time: a per cent is rounded down, and never below one."""
    return max(1, portion(limit, machines))


def portion(share: int | str, machines: int) -> int:
    """How many machines a share is: a per cent is rounded down."""
    if isinstance(share, int):
        return share
    return machines * int(share.removesuffix("%")) // 100
