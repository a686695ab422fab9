"""BulkStatus: one query for a whole region, shared by all who ask, and believed only when something runs."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from patchwave.azure.bulk_status import MAX_SINGLE_READS, BulkStatus
from patchwave.azure.resource_graph import QueryPage, ResourceGraph
from patchwave.domain.azure.errors import ArmFailure

ONE = "11111111-1111-1111-1111-111111111111"


class Graph:
    """Hands out pages, and keeps what was asked."""

    def __init__(self, *pages: QueryPage) -> None:
        self.pages = list(pages)
        self.asked: list[tuple[str, list[str], str]] = []

    async def page(self, query: str, subscriptions: list[str], skip_token: str) -> QueryPage:
        self.asked.append((query, subscriptions, skip_token))
        await asyncio.sleep(0)
        return self.pages.pop(0)


def rows(*names: str) -> list[dict[str, Any]]:
    return [{"id": f"/vm/{name}", "found": name} for name in names]


def make(graph: Graph, longest_age: float = 60) -> BulkStatus:
    return BulkStatus(cast(ResourceGraph, graph), longest_age)


async def test_all_pages_are_read_once_for_all_callers() -> None:
    graph = Graph(QueryPage(rows("A", "b"), skip_token="next"), QueryPage(rows("c")))
    sweeps = make(graph)
    found = await asyncio.gather(*(sweeps.running(ONE, "westeurope") for _ in range(50)))
    assert set(found) == {frozenset({"a", "b", "c"})}
    assert [(subscriptions, token) for _, subscriptions, token in graph.asked] == [([ONE], ""), ([ONE], "next")]


async def test_regions_have_sweeps_of_their_own_and_old_ones_are_made_anew() -> None:
    graph = Graph(QueryPage(rows("a")), QueryPage(rows("b")), QueryPage(rows("c")))
    sweeps = make(graph, longest_age=0)
    assert await sweeps.running(ONE, "westeurope") == {"a"}
    assert await sweeps.running(ONE, "northeurope") == {"b"}
    assert await sweeps.running(ONE, "westeurope") == {"c"}


async def test_without_an_answer_of_resource_graph_no_machine_is_known_to_run() -> None:
    failure = ArmFailure(status=429, message="quota")
    graph = Graph(QueryPage(wait_seconds=5, failure=failure))
    assert await make(graph).running(ONE, "westeurope") == frozenset()
    graph = Graph(QueryPage(rows("a"), skip_token="next"), QueryPage(failure=failure))
    assert await make(graph).running(ONE, "westeurope") == {"a"}, "what one page shows runs all the same"


async def test_the_quota_is_kept_to() -> None:
    graph = Graph(QueryPage(rows("a"), skip_token="next", wait_seconds=100), QueryPage(rows("b")))
    sweeps = make(graph, longest_age=1)
    assert await sweeps.running(ONE, "westeurope") == {"a"}
    assert len(graph.asked) == 1


async def test_a_region_cannot_break_out_of_its_literal() -> None:
    graph = Graph(QueryPage())
    await make(graph).running(ONE, "west' | project secret //")
    assert r"location =~ 'west\' | project secret //'" in graph.asked[0][0]


async def test_availability_is_read_one_by_one_until_there_are_many_callers() -> None:
    graph = Graph(QueryPage(rows("/VM/A", "/vm/b")))
    sweeps = make(graph)
    alone = [await sweeps.available(ONE, "westeurope") for _ in range(MAX_SINGLE_READS)]
    assert set(alone) == {frozenset()}
    assert not graph.asked
    assert await sweeps.available(ONE, "WestEurope") == {"/vm/a", "/vm/b"}
    assert await sweeps.available(ONE, "northeurope") == frozenset(), "a crowd is one of a region"
    assert len(graph.asked) == 1
    assert "healthresources" in graph.asked[0][0]
