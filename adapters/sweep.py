"""Sweeps: one query tells which installations of a whole region still run, where each would cost a read.

Resource Graph is a minute or more behind, so it is believed only when it says that something runs: what it does not
show may have ended, or just begun, and is asked after at Resource Manager. Assessments are not swept: they take two
minutes, and their table says nothing of one that runs.
"""

from __future__ import annotations

import asyncio
from time import monotonic

from adapters.per_loop import PerLoop
from adapters.resource_graph import ResourceGraph, open_resource_graph
from domain.discovery import literal
from settings import Settings

SWEPT_ABOVE = 500
"""Operations in flight in one region from which on they are swept."""


class Sweeps:
    """The newest sweep of each region; made once per process and event loop."""

    def __init__(self, graph: ResourceGraph, longest_age: float) -> None:
        self._graph = graph
        self._longest_age = longest_age
        self._found: dict[tuple[str, str], tuple[float, frozenset[str]]] = {}
        # One at a time: the quota of queries is for all of them.
        self._gate = asyncio.Lock()
        self._not_before = 0.0

    async def running(self, subscription_id: str, location: str) -> frozenset[str]:
        """The ids of the installations in a region that run, as far as is known; a poll interval old at most.

        Nothing is known of any when Resource Graph does not answer.
        """
        region = (subscription_id.lower(), location.lower())
        async with self._gate:
            at, running = self._found.get(region, (-self._longest_age, frozenset[str]()))
            if monotonic() - at < self._longest_age:
                return running
            running = await self._sweep(*region)
            self._found[region] = (monotonic(), running)
            return running

    async def _sweep(self, subscription_id: str, location: str) -> frozenset[str]:
        running: set[str] = set()
        token = ""
        while True:
            wait = self._not_before - monotonic()
            if wait > self._longest_age:
                return frozenset(running)
            await asyncio.sleep(max(0.0, wait))
            page = await self._graph.page(_query(location), [subscription_id], token)
            self._not_before = monotonic() + page.wait_seconds
            running |= {str(row.get("activityId", "")).lower() for row in page.rows}
            token = page.skip_token
            if page.failure is not None or not token:
                # What one page shows as running runs, whatever becomes of the others.
                return frozenset(running)


def _query(location: str) -> str:
    return "\n".join(
        [
            "patchinstallationresources",
            "| where type =~ 'microsoft.compute/virtualmachines/patchinstallationresults'",
            f"| where location =~ {literal(location)}",
            "| where tostring(properties.status) in~ ('InProgress', 'NotStarted')",
            "| project id, activityId = tostring(properties.installationActivityId)",
            "| order by id asc",
        ]
    )


_sweeps = PerLoop(lambda settings: Sweeps(open_resource_graph(settings), settings.poll_seconds))


def open_sweeps(settings: Settings | None = None) -> Sweeps:
    """The sweeps of this process."""
    return _sweeps.get(settings)
