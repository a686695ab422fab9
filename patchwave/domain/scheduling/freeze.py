"""Freezes: named stretches of time in which nothing is patched, on whole policies or on machines with some tags."""

import re
from collections.abc import Iterable, Mapping
from datetime import date, datetime, time, timedelta
from functools import cached_property
from typing import Annotated, Any, Self, cast

from pydantic import AfterValidator, BeforeValidator, Field, ValidationError, ValidationInfo

from patchwave.domain.calendar.schedule import find_zone
from patchwave.domain.calendar.wall_clock import from_wall_clock
from patchwave.domain.core.documents import Document, format_minute, parse_instant
from patchwave.domain.core.ids import ADHOC_POLICY, check_policy_name, is_adhoc_name, is_policy_name
from patchwave.domain.core.validation import InvalidDocument, Problem, explain
from patchwave.domain.policy.scope import TagFilter

MAX_POLICIES = 500
"""Of one freeze; without names it holds all policies."""
_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_INSTANT = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9:.]{4,18}([Zz]|[+-][0-9]{2}:?[0-9]{2})")


class FreezeError(InvalidDocument):
    """A document is not a valid freeze."""


def _check_zone(name: str) -> str:
    if name:
        find_zone(name)
    return name


def _check_reason(value: str) -> str:
    if not value.strip():
        raise ValueError("is empty; say why nothing is patched then")
    return value


def _check_policies(names: tuple[str, ...]) -> tuple[str, ...]:
    wrong = [name for name in names if not is_policy_name(name)]
    if wrong:
        raise ValueError(f"{wrong[0]!r} is not the name of a policy; leave policies out to freeze all of them")
    return tuple(dict.fromkeys(names))


def _to_text(value: object) -> object:
    # YAML readers turn an unquoted date into a date.
    return value.isoformat() if isinstance(value, date) else value


def _check_moment(text: str, given: ValidationInfo) -> str:
    zone = given.data.get("time_zone")
    if zone is None:
        return text  # the zone is wrong itself, which is reported
    _moment(text, zone, is_end=False)
    return text


def _check_end(text: str, given: ValidationInfo) -> str:
    zone, start = given.data.get("time_zone"), given.data.get("start")
    if zone is None:
        return text
    end = _moment(text, zone, is_end=True)
    if start is not None and end <= _moment(start, zone, is_end=False):
        raise ValueError(f"must be later than from, which is {start}")
    return text


def _moment(text: str, zone: str, *, is_end: bool) -> datetime:
    """The UTC moment of a bound: a date begins at its first minute, and as an end it counts as a whole day.

    Raises:
        ValueError: neither a time with a zone nor a date; or a date, and no time zone is given.
    """
    if _DATE.fullmatch(text):
        try:
            day = date.fromisoformat(text)
        except ValueError:
            raise ValueError(f"{text!r} is not a date of the calendar") from None
        if not zone:
            raise ValueError("is a date: give timeZone with it, or write a time such as 2026-12-20T18:00:00Z")
        if not 1 < day.year <= 9000:
            raise ValueError(f"{text!r} is too far away")
        wall = datetime.combine(day + timedelta(days=1) if is_end else day, time.min)
        return from_wall_clock(wall, find_zone(zone))
    instant = parse_instant(text) if _INSTANT.fullmatch(text) else None
    if instant is None:
        raise ValueError(
            "must be a date such as 2026-12-20 with timeZone beside it, or a time with its zone such as"
            " 2026-12-20T18:00:00Z"
        )
    return instant


class Freeze(Document):
    """A stretch of time in which nothing is patched.

    Without ``tags`` it holds whole policies: none of their occurrences runs. With ``tags`` it holds the machines that
    have them, and the rest of the fleet goes on.
    """

    name: Annotated[str, AfterValidator(check_policy_name)] = Field(
        title="Name", description="Lower-case letters, digits and inner hyphens, at most 32.", examples=["year-end"]
    )
    # Declared before the bounds, which are checked against it.
    time_zone: Annotated[str, AfterValidator(_check_zone)] = Field(
        default="",
        title="Time zone",
        description="IANA or Windows name; needed when a bound is a date.",
        examples=["Europe/Berlin"],
    )
    start: Annotated[str, AfterValidator(_check_moment), BeforeValidator(_to_text)] = Field(
        alias="from",
        title="From",
        description="When the freeze begins: a time with its zone, or a local date, from its first minute on.",
        examples=["2026-12-20", "2026-12-20T18:00:00Z"],
    )
    end: Annotated[str, AfterValidator(_check_end), BeforeValidator(_to_text)] = Field(
        alias="to",
        title="To",
        description="When it ends: a time with its zone, or a local date, which is frozen to its last minute.",
        examples=["2027-01-03", "2027-01-04T06:00:00Z"],
    )
    reason: Annotated[str, AfterValidator(_check_reason)] = Field(
        max_length=500, title="Reason", description="Why, for people.", examples=["Year-end closing"]
    )
    policies: Annotated[tuple[str, ...], AfterValidator(_check_policies)] = Field(
        default=(),
        max_length=MAX_POLICIES,
        title="Policies",
        description="Names of the policies that it holds, adhoc for those that come in requests; all of them unless"
        " given.",
    )
    tags: TagFilter | None = Field(
        default=None, title="Tags", description="Hold only machines with these tags; whole policies unless given."
    )

    @cached_property
    def starts_at(self) -> datetime:
        """The first frozen moment, in UTC."""
        return _moment(self.start, self.time_zone, is_end=False)

    @cached_property
    def ends_at(self) -> datetime:
        """The first moment that is no longer frozen, in UTC."""
        return _moment(self.end, self.time_zone, is_end=True)

    def concerns(self, policy_name: str, at: datetime) -> bool:
        """Whether it lasts at that moment and holds the policy, or machines in it."""
        return self.starts_at <= at < self.ends_at and (
            not self.policies
            or policy_name in self.policies
            or (ADHOC_POLICY in self.policies and is_adhoc_name(policy_name))
        )

    @property
    def sentence(self) -> str:
        """Why, and until when, for people."""
        return f"frozen until {format_minute(self.ends_at)} by {self.name}: {self.reason}"


class DamagedFreeze(Freeze):
    """Stands for a stored freeze that cannot be read: what it froze is not known, so it holds everything for now."""

    @classmethod
    def of(cls, name: str) -> Self:
        """The stand-in for the freeze of this name, which need not be a valid one."""
        return cls.model_construct(
            name=name,
            time_zone="",
            start="2000-01-01T00:00:00Z",
            end="9000-01-01T00:00:00Z",
            reason=f"the stored freeze {name} cannot be read, so nothing starts until it is replaced or deleted",
            policies=(),
            tags=None,
        )

    @property
    def sentence(self) -> str:
        """Why, for people; it has no end that could be named."""
        return f"frozen: {self.reason}"


def active_freeze(freezes: Iterable[Freeze], policy_name: str, tags: Mapping[str, str], at: datetime) -> Freeze | None:
    """The freeze that holds a machine with these tags in a run of this policy; of several, the one that ends last.

    Without tags it is the freeze that holds the policy as a whole.
    """
    holding = [
        freeze
        for freeze in freezes
        if freeze.concerns(policy_name, at) and (freeze.tags is None or freeze.tags.matches(tags))
    ]
    return max(holding, key=lambda freeze: (freeze.ends_at, freeze.name), default=None)


def parse_freeze(document: object, *, name: str) -> Freeze:
    """Validate a freeze as it comes from a request; ``name`` is that of the address, which it may leave out or repeat.

    Raises:
        FreezeError: with every error of the document.
    """
    if not isinstance(document, Mapping):
        raise FreezeError([Problem(path="$", message="must be an object with at least from, to and reason")])
    given = dict(cast("Mapping[str, Any]", document))
    problems: list[Problem] = []
    if given.setdefault("name", name) != name:
        problems.append(Problem(path="name", message=f"must be {name!r}, the name in the address, or left out"))
        given["name"] = name
    try:
        freeze = Freeze.model_validate(given, by_alias=True, by_name=False)
    except ValidationError as error:
        raise FreezeError(problems + explain(error, Freeze)) from None
    if problems:
        raise FreezeError(problems)
    return freeze
