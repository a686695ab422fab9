"""Bulk status: one query of Resource Graph for a whole region, instead of one read per machine.

Resource Graph lags by a minute or more, so its rows only count where that does no harm. Running installations: one that
it does not show may have ended or just begun, and is read from Resource Manager. Availability before a machine is
changed: machines that it does not show as available are read one by one. Assessments are not queried: they take two
minutes, and their table does not show running ones.
"""

from __future__ import annotations

import asyncio
from collections import deque
from time import monotonic
from typing import NamedTuple

from patchwave.azure.resource_graph import ResourceGraph
from patchwave.domain.core.folding import fold
from patchwave.domain.fleet.discovery import literal

SWEPT_ABOVE = 500
"""Operations in progress in one region above which they are queried in bulk."""
MAX_SINGLE_READS = 20
"""Machines of one region read one by one within the maximum age, above which they are queried in bulk."""


class _Region(NamedTuple):
    subscription_id: str
    location: str


class BulkStatus:
    """The newest results per region."""

    def __init__(self, graph: ResourceGraph, longest_age: float) -> None:
        self._graph = graph
        self._longest_age = longest_age
        self._found: dict[tuple[str, _Region], tuple[float, frozenset[str]]] = {}
        self._asked: dict[_Region, deque[float]] = {}
        # One query at a time: all regions share the quota.
        self._gate = asyncio.Lock()
        self._not_before = 0.0

    async def running(self, subscription_id: str, location: str) -> frozenset[str]:
        """The ids of running installations in a region; at most a poll interval old.

        Empty when Resource Graph fails.
        """
        region = _Region(subscription_id.lower(), location.lower())
        return await self._newest(_running_query(region.location), region)

    async def available(self, subscription_id: str, location: str) -> frozenset[str]:
        """The machines of a region, by id in lower case, that Resource Health showed as available a minute or two ago.

        Empty while few machines are read: single reads are current.
        """
        region = _Region(subscription_id.lower(), location.lower())
        asked = self._asked.setdefault(region, deque(maxlen=MAX_SINGLE_READS))
        is_crowd = len(asked) == MAX_SINGLE_READS and monotonic() - asked[0] < self._longest_age
        asked.append(monotonic())
        return await self._newest(_available_query(region.location), region) if is_crowd else frozenset()

    async def _newest(self, query: str, region: _Region) -> frozenset[str]:
        async with self._gate:
            at, found = self._found.get((query, region), (-self._longest_age, frozenset[str]()))
            if monotonic() - at < self._longest_age:
                return found
            found = await self._query_all(query, region)
            self._found[query, region] = (monotonic(), found)
            return found

    async def _query_all(self, query: str, region: _Region) -> frozenset[str]:
        """The column ``found`` of all pages of the query."""
        found: set[str] = set()
        token = ""
        while True:
            wait = self._not_before - monotonic()
            if wait > self._longest_age:
                return frozenset(found)
            await asyncio.sleep(max(0.0, wait))
            page = await self._graph.page(query, [region.subscription_id], token)
            self._not_before = monotonic() + page.wait_seconds
            found |= {fold(str(row.get("found", ""))) for row in page.rows}
            token = page.skip_token
            if page.failure is not None or not token:
                # The rows of a page are valid even if later pages fail.
                return frozenset(found)


def _running_query(location: str) -> str:
    return "\n".join(
        [
            "patchinstallationresources",
            "| where type =~ 'microsoft.compute/virtualmachines/patchinstallationresults'",
            f"| where location =~ {literal(location)}",
            "| where tostring(properties.status) in~ ('InProgress', 'NotStarted')",
            "| project id, found = tostring(properties.installationActivityId)",
            "| order by id asc",
        ]
    )


def _available_query(location: str) -> str:
    return "\n".join(
        [
            "healthresources",
            "| where type =~ 'microsoft.resourcehealth/availabilitystatuses'",
            f"| where location =~ {literal(location)}",
            "| where tostring(properties.targetResourceType) =~ 'microsoft.compute/virtualmachines'",
            "| where tostring(properties.availabilityState) =~ 'Available'",
            "| project id, found = tostring(properties.targetResourceId)",
            "| order by id asc",
        ]
    )
