"""Durations as policies and Azure's calls write them: ``PTnHnM``."""

import re
from datetime import timedelta
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer

_DURATION = re.compile(r"PT(?=[0-9])(?:([0-9]{1,4})H)?(?:([0-9]{1,5})M)?(?:([0-9]{1,6})S)?")


def parse_duration(text: str) -> timedelta:
    """Read ``PTnHnM``; days, weeks and months are refused, since the agents do not read them.

    Raises:
        ValueError: not such a duration.
    """
    found = _DURATION.fullmatch(text.strip().upper())
    if found is None:
        raise ValueError(f"{text!r} is not a duration; write hours and minutes such as PT2H or PT1H30M")
    hours, minutes, seconds = (int(part or 0) for part in found.groups())
    return timedelta(hours=hours, minutes=minutes, seconds=seconds)


def format_duration(duration: timedelta) -> str:
    """``PTnHnM``, rounded down to whole minutes: the only form that both guest agents read."""
    hours, minutes = divmod(int(duration.total_seconds()) // 60, 60)
    if hours and minutes:
        return f"PT{hours}H{minutes}M"
    return f"PT{hours}H" if hours else f"PT{minutes}M"


def _spell(duration: timedelta) -> str:
    """``PTnHnMnS`` without loss: a policy is stored and frozen in this form, and half a minute must not become none."""
    minutes, seconds = divmod(int(duration.total_seconds()), 60)
    if not seconds:
        return format_duration(duration)
    return f"{format_duration(duration) if minutes else 'PT'}{seconds}S"


def _read_duration(value: object) -> object:
    if isinstance(value, int | float):
        # A bare number would be read as seconds by one reader and as minutes by the next.
        raise ValueError(f"must be a duration such as PT2H or PT1H30M, not the number {value}")
    return parse_duration(value) if isinstance(value, str) else value


Duration = Annotated[
    timedelta, BeforeValidator(_read_duration, json_schema_input_type=str), PlainSerializer(_spell, return_type=str)
]
"""A duration written ``PTnHnM``, with seconds where it has some."""


def between(least: timedelta, most: timedelta, message: str) -> AfterValidator:
    """A check that a duration lies in this range, both ends included."""

    def check(value: timedelta) -> timedelta:
        if not least <= value <= most:
            raise ValueError(message)
        return value

    return AfterValidator(check)
