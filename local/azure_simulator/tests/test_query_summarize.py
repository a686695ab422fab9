"""``summarize`` of the simulator's Resource Graph: one row for each group, the newest of several."""

from __future__ import annotations

import pytest

from local.azure_simulator.resource_graph.kql import QueryError, Row
from local.azure_simulator.resource_graph.query import Query

ROWS: list[Row] = [
    {"name": "a", "at": "2026-11-02T00:00:00+01:00", "status": "old"},
    {"name": "a", "at": "2026-11-02T00:00:00Z", "status": "new"},
    {"name": "a", "at": None, "status": "running"},
    {"name": "b", "at": None, "status": "running"},
]


def summarized(stage: str) -> list[Row]:
    return Query(f"runs | extend at = todatetime(at) | summarize {stage}", {"runs": {"name", "at", "status"}}).run(ROWS)


def test_rows_are_counted_by_column_and_all_together():
    assert summarized("count() by name") == [{"name": "a", "count_": 3}, {"name": "b", "count_": 1}]
    assert summarized("rows = count()") == [{"rows": 4}]


def test_the_first_moment_and_the_row_of_the_last():
    first, second = summarized("firstAt = min(at), arg_max(at, status) by name")
    assert first == {
        "name": "a",
        "firstAt": "2026-11-01T23:00:00.0000000Z",
        "at": "2026-11-02T00:00:00.0000000Z",
        "status": "new",
    }
    # Nothing is larger than nothing: where no row has a value, any row stands for them.
    assert second == {"name": "b", "firstAt": None, "at": None, "status": "running"}


def test_rows_are_packed_into_lists():
    packed = summarized(
        "amount = count(), rows = make_list(pack('state', status, 'last', substring(status, -2))) by name"
    )
    assert packed[0] == {
        "name": "a",
        "amount": 3,
        "rows": [
            {"state": "old", "last": "ld"},
            {"state": "new", "last": "ew"},
            {"state": "running", "last": "ng"},
        ],
    }


@pytest.mark.parametrize(
    ("call", "text"),
    [
        ("substring(status, 1)", "ld"),
        ("substring(status, 0, 1)", "o"),
        ("substring(status, -9)", "old"),
        ("substring(status, 9)", ""),
    ],
)
def test_substrings(call: str, text: str):
    [row] = Query(f"runs | take 1 | project cut = {call}", {"runs": {"status"}}).run([{"status": "old"}])
    assert row == {"cut": text}


def test_what_is_not_understood_is_refused():
    with pytest.raises(QueryError, match="arg_max"):
        summarized("percentile(at, 50) by name")
