"""Rows of thousands of machines in a few rows of Resource Graph: the queries, and reading them back."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from local.azure_simulator.resource_graph.query import Query
from patchwave.domain.fleet.packed_rows import PackedTable, by_owner, unpack_rows
from patchwave.domain.policy.scope import Scope

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
OTHER = "22222222-2222-4333-8444-555555555555"
TABLE = PackedTable(
    table="things",
    kind="microsoft.compute/virtualmachines/things",
    behind="/things/",
    columns={"id": "id", "size": "properties.size"},
)
NEWEST = TABLE._replace(newest_by="todatetime(properties.at)", columns={"id": "id", "at": "properties.at"})


def machine_id(name: str, subscription: str = SUBSCRIPTION) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/{name}"


def row(name: str, thing: str = "a", **properties: Any) -> dict[str, Any]:
    return {
        "id": f"{machine_id(name)}/things/{thing}",
        "type": "Microsoft.Compute/virtualMachines/things",
        "resourceGroup": "rg",
        "properties": properties,
    }


def asked(table: PackedTable, rows: list[dict[str, Any]], scope: Scope | None = None) -> list[dict[str, Any]]:
    """What the simulator's Resource Graph answers to the only query."""
    [query] = table.queries(scope or Scope())
    return Query(query.text, {"things": {"id", "type", "resourceGroup", "properties"}}).run(rows)


def test_thousands_of_rows_come_as_a_hundred():
    packed = asked(TABLE, [row(f"vm-{number:04d}", size=number) for number in range(3_000)])
    assert len(packed) == 100
    rows, missing = unpack_rows(packed)
    assert (len(rows), missing) == (3_000, 0)
    assert sorted(each["size"] for each in rows) == list(range(3_000))


def test_each_packed_row_has_an_id_for_the_token_of_the_next_page():
    assert all(each["id"].startswith("/subscriptions/") for each in asked(TABLE, [row("vm-01"), row("vm-02")]))


def test_only_the_newest_row_of_each_machine_is_read():
    rows = [
        row("vm-1", "old", at="2026-11-02T00:00:00Z"),
        row("VM-1", "new", at="2026-11-03T00:00:00Z"),
        row("vm-2", "only", at="2026-11-01T00:00:00Z"),
    ]
    found, missing = unpack_rows(asked(NEWEST, rows))
    assert sorted(each["id"].rpartition("/")[2] for each in found) == ["new", "only"]
    assert missing == 0


def test_rows_that_azure_left_out_are_counted():
    packed = [{"amount": 3, "packed": [{"id": "a"}]}, {"amount": 2, "packed": None}, {"amount": 1, "packed": [{}]}]
    assert unpack_rows(packed) == ([{"id": "a"}, {}], 4)


def test_a_scope_narrows_the_query():
    [query] = TABLE.queries(Scope.model_validate({"subscriptions": [SUBSCRIPTION], "resourceGroups": ["RG"]}))
    assert query.subscriptions == (SUBSCRIPTION,)
    assert "| where resourceGroup in~ ('RG')" in query.text.splitlines()


def test_machines_that_a_scope_names_are_named():
    scope = Scope.model_validate({"machineIds": [machine_id("vm-1"), machine_id("vm-3", OTHER)]})
    [query] = TABLE.queries(scope)
    assert query.subscriptions == (SUBSCRIPTION, OTHER)
    found, _ = unpack_rows(asked(TABLE, [row("vm-1"), row("VM-1", "b"), row("vm-2")], scope))
    assert sorted(each["id"].rpartition("/")[2] for each in found) == ["a", "b"]


def test_of_many_named_machines_the_subscriptions_are_read():
    scope = Scope.model_validate({"machineIds": [machine_id(f"vm-{number}") for number in range(201)]})
    [query] = TABLE.queries(scope)
    assert query.subscriptions == (SUBSCRIPTION,)
    assert "owner in~" not in query.text


def test_hundreds_of_subscriptions_are_several_queries():
    many = [f"{number:08d}-2222-4333-8444-555555555555" for number in range(601)]
    queries = TABLE.queries(Scope.model_validate({"subscriptions": many}))
    assert [len(query.subscriptions) for query in queries] == [300, 300, 1]


def test_rows_are_found_by_their_machine():
    rows = [row("Vm-1"), {"id": None}, {}]
    assert list(by_owner(rows, "/things/")) == [machine_id("vm-1").lower()]


@given(st.lists(st.dictionaries(st.sampled_from(["packed", "amount", "id"]), st.none() | st.integers() | st.text())))
def test_anything_that_azure_answers_is_read(rows: list[dict[str, Any]]):
    found, missing = unpack_rows(rows)
    assert found == []
    assert missing >= 0
