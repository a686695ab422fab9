"""Region pairs, and the physical zones of subscriptions, from Resource Manager.

Source: ``GET /subscriptions/{id}/locations``, ``metadata.pairedRegion`` and ``availabilityZoneMappings``. Zone numbers
are logical: "zone 1" of two subscriptions may be two buildings, so the mapping is read per subscription.

Planning must work without a response. Missing data makes a plan more careful, never less: documented region pairs
apply, and zones of different subscriptions count as different.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterator
from typing import Any
from urllib.parse import quote

from patchwave.azure.pipeline import ArmPipeline
from patchwave.domain.core.documents import object_or_none, objects_or_empty, parse_object
from patchwave.domain.core.region_pairs import KNOWN_PAIRS, region_name
from patchwave.domain.planning.topology import Topology
from patchwave.settings import Settings

API_VERSION = "2022-12-01"
AT_A_TIME = 10
"""Subscriptions read in parallel; each has its own read bucket."""

_LOG = logging.getLogger("patchwave.locations")


class Locations:
    """Locations of subscriptions."""

    def __init__(self, settings: Settings, pipeline: ArmPipeline) -> None:
        self._url = f"{settings.manager_url}/subscriptions"
        self._pipeline = pipeline

    async def read(self, subscriptions: Collection[str]) -> Topology:
        """Region pairs and physical zones of these subscriptions (ids, in any case), one request each.

        Never fails: an unreadable subscription has no zone mapping, and an unknown region has the pair that Microsoft
        documents, if any.
        """
        pairs = {region: {pair} for region, pair in KNOWN_PAIRS.items()}
        zones: dict[tuple[str, str, str], str] = {}
        asked = sorted({subscription.lower() for subscription in subscriptions})
        turns = asyncio.Semaphore(AT_A_TIME)
        listed = await asyncio.gather(*(self._list(subscription, turns) for subscription in asked))
        answered: set[str] = set()
        for subscription, locations in zip(asked, listed, strict=True):
            for location in locations:
                region = region_name(_text(location.get("name")))
                named = set(_paired_with(location))
                # Azure's current pairs replace documented ones; subscriptions add to each other.
                pairs[region] = pairs[region] | named if region in answered else named
                answered.add(region)
                zones |= {(subscription, region, logical): physical for logical, physical in _zones_of(location)}
        return Topology.of(((region, pair) for region, others in pairs.items() for pair in others), zones)

    async def close(self) -> None:
        """Close the connections."""
        await self._pipeline.close()

    async def _list(self, subscription: str, turns: asyncio.Semaphore) -> list[dict[str, Any]]:
        """The locations of a subscription; empty without a readable response."""
        from azure.core.rest import HttpRequest

        url = f"{self._url}/{quote(subscription, safe='')}/locations"
        async with turns:
            reply = await self._pipeline.send(HttpRequest("GET", url, params={"api-version": API_VERSION}))
        if reply.status != 200:
            _LOG.warning("The locations of %s cannot be read: %s", subscription, reply.to_failure().text)
            return []
        answer = parse_object(reply.body)
        if answer is None:
            _LOG.warning("The locations of %s cannot be read: the answer is no JSON object", subscription)
            return []
        return [location for location in objects_or_empty(answer.get("value")) if _text(location.get("name"))]


def _paired_with(location: dict[str, Any]) -> Iterator[str]:
    metadata = object_or_none(location.get("metadata")) or {}
    for pair in objects_or_empty(metadata.get("pairedRegion")):
        if name := _text(pair.get("name")):
            yield region_name(name)


def _zones_of(location: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Logical and physical zones."""
    for zone in objects_or_empty(location.get("availabilityZoneMappings")):
        logical, physical = _text(zone.get("logicalZone")), _text(zone.get("physicalZone"))
        if logical and physical:
            yield logical, physical


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""
