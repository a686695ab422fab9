"""Times as Azure writes them, and documents of ours."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import ValidationError

from patchwave.domain.core.documents import (
    Document,
    ExternalDocument,
    LenientDatetime,
    UtcDatetime,
    format_instant,
    list_or_empty,
    objects_or_empty,
    parse_instant,
)


class Ours(Document):
    some_time: UtcDatetime
    plain_text: str = ""


class Theirs(ExternalDocument):
    some_time: LenientDatetime = None


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2020-04-24T21:02:04.2556154Z", datetime(2020, 4, 24, 21, 2, 4, 255615, UTC)),
        ("2024-08-26T09:44:18.3054961+00:00", datetime(2024, 8, 26, 9, 44, 18, 305496, UTC)),
        ("2024-12-26T06:47:42+00:00", datetime(2024, 12, 26, 6, 47, 42, tzinfo=UTC)),
        ("2024-11-01T07:36:43.000Z", datetime(2024, 11, 1, 7, 36, 43, tzinfo=UTC)),
        ("2024-11-01T07:36:43.5Z", datetime(2024, 11, 1, 7, 36, 43, 500000, UTC)),
        ("2024-11-01T09:36:43+02:00", datetime(2024, 11, 1, 7, 36, 43, tzinfo=UTC)),
        ("2024-11-01T07:36:43", datetime(2024, 11, 1, 7, 36, 43, tzinfo=UTC)),
        ("9999-12-31T23:59:59.9999999Z", datetime(9999, 12, 31, 23, 59, 59, 999999, UTC)),
    ],
)
def test_point_21_every_way_azure_writes_a_time(text: str, expected: datetime) -> None:
    assert parse_instant(text) == expected


@pytest.mark.parametrize(
    "value",
    [
        "0001-01-01T00:00:00+00:00",
        "0001-01-01T00:00:00",
        "9999-12-31T23:59:59-05:00",
        "",
        "Unknown",
        "2024-13-01T00:00:00Z",
        "2024-02-30",
        None,
        0,
        1.5,
        True,
        [],
        {"time": "2024-11-01T07:36:43Z"},
    ],
)
def test_point_21_no_time_is_none_and_never_an_error(value: object) -> None:
    assert parse_instant(value) is None


@given(st.one_of(st.text(), st.datetimes(), st.datetimes(timezones=st.timezones()), st.integers(), st.floats()))
@example("2024-11-01T07:36:43.123456789012Z")
@example("9999-12-31T23:59:59-23:59")
@example("0001-01-01T00:00:00+23:59")
def test_reading_a_time_never_raises_and_gives_utc(value: object) -> None:
    found = parse_instant(value)
    assert found is None or found.utcoffset() == timedelta(0)


@given(
    st.datetimes(min_value=datetime(2, 1, 2), max_value=datetime(9999, 12, 30)),  # noqa: DTZ001 - the zone follows
    st.integers(-14 * 60, 14 * 60),
    st.integers(0, 7),
    st.booleans(),
)
def test_a_time_survives_any_number_of_fraction_digits(moment: datetime, offset: int, digits: int, zulu: bool) -> None:
    zone = UTC if zulu else timezone(timedelta(minutes=offset))
    aware = moment.replace(tzinfo=zone)
    whole = aware.strftime("%m-%dT%H:%M:%S")
    fraction = f"{moment.microsecond:06d}0"[:digits]
    written = f"{moment.year:04d}-{whole}" + (f".{fraction}" if digits else "")
    written += "Z" if zulu else aware.isoformat()[-6:]
    found = parse_instant(written)
    assert found is not None
    assert found.replace(microsecond=0) == aware.replace(microsecond=0)
    assert found.microsecond == int(fraction[:6].ljust(6, "0"))


@given(st.datetimes(min_value=datetime(2, 1, 2), timezones=st.just(UTC)))  # noqa: DTZ001 - the zone stands beside
def test_what_we_write_we_read(moment: datetime) -> None:
    found = parse_instant(format_instant(moment))
    assert found == moment.replace(microsecond=moment.microsecond // 1000 * 1000)


def test_our_times_are_written_in_one_form() -> None:
    berlin = datetime(2026, 11, 10, 20, 0, 0, 123456, timezone(timedelta(hours=1)))
    assert format_instant(berlin) == "2026-11-10T19:00:00.123Z"


def test_our_documents_are_strict_and_camel_case() -> None:
    document = Ours.model_validate({"someTime": "2026-11-10T19:00:00Z"})
    assert document.to_wire() == {"someTime": "2026-11-10T19:00:00.000Z", "plainText": ""}
    for bad in ({"someTime": "2026-11-10T19:00:00Z", "plainTxt": "x"}, {"someTime": "soon"}, {}, [], None):
        with pytest.raises(ValidationError):
            Ours.model_validate(bad)
    with pytest.raises(ValidationError):
        document.plain_text = "changed"


def test_documents_of_others_lose_nothing_for_unknown_keys_or_bad_times() -> None:
    assert Theirs.model_validate({"someTime": "Unknown", "surprise": 1}).some_time is None
    assert Theirs.model_validate({"someTime": None}).model_dump(mode="json", by_alias=True) == {"someTime": None}


def test_lists_of_others_may_be_null_or_hold_anything() -> None:
    assert list_or_empty(None) == []
    assert list_or_empty({"a": 1}) == []
    assert objects_or_empty([{"a": 1}, None, "x", 3, []]) == [{"a": 1}]
