"""Versions of VM agents, which Resource Graph lacks: from the list of a subscription's machines with status.

``statusOnly=true`` returns the run-time state of every machine, some hundreds per page, for one read of the list
bucket. After an unreadable page the remaining versions are unknown, which a sentence reports.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from patchwave.azure.pipeline import ArmPipeline
from patchwave.domain.azure.errors import classify
from patchwave.domain.azure.operation import UnsafeUrl, check_operation_url
from patchwave.domain.core.documents import Json, object_or_none, objects_or_empty, parse_object, str_or_empty
from patchwave.domain.core.folding import fold
from patchwave.settings import Settings

if TYPE_CHECKING:
    from patchwave.azure.pipeline import ArmResponse

_API_VERSION = "2025-04-01"
_TIMEOUT_SECONDS = 60.0
"""Limit for the pages of all subscriptions, while an HTTP caller waits."""


class AgentVersions:
    """Reads with the app's identity."""

    def __init__(self, settings: Settings, pipeline: ArmPipeline) -> None:
        self._settings = settings
        self._pipeline = pipeline

    async def read(self, subscription_ids: Iterable[str]) -> tuple[dict[str, str], list[str]]:
        """The versions by machine id in lower case, and a sentence for each unreadable subscription."""
        versions: dict[str, str] = {}
        read = await asyncio.gather(*(self._read(each, versions) for each in subscription_ids))
        return versions, [sentence for sentence in read if sentence]

    async def close(self) -> None:
        """Close the connections."""
        await self._pipeline.close()

    async def _read(self, subscription_id: str, versions: dict[str, str]) -> str:
        try:
            async with asyncio.timeout(_TIMEOUT_SECONDS):
                why = await self._read_pages(subscription_id, versions)
        except TimeoutError:
            why = f"reading them takes more than {_TIMEOUT_SECONDS:.0f} seconds"
        return f"Some versions of VM agents in {subscription_id} are not known: {why}." if why else ""

    async def _read_pages(self, subscription_id: str, versions: dict[str, str]) -> str:
        """Read page by page; the reason for a failure, or an empty string."""
        from azure.core.rest import HttpRequest

        machines = f"/subscriptions/{subscription_id}/providers/Microsoft.Compute/virtualMachines"
        url = f"{self._settings.manager_url}{machines}?api-version={_API_VERSION}&statusOnly=true"
        while url:
            reply = await self._pipeline.send(HttpRequest("GET", url))
            page = parse_object(reply.body) if reply.status == 200 else None
            if page is None:
                wait = _wait_of(reply)
                if wait is None:
                    return reply.to_failure().text or "Azure answered in no known form"
                await asyncio.sleep(wait)
                continue
            versions |= dict(_versions_of(page))
            url = str_or_empty(page.get("nextLink"))
            try:
                # The link is checked first: the token goes where it points.
                url = check_operation_url(url, self._settings.manager_url, subscription_id) if url else ""
            except UnsafeUrl:
                return "Azure's link to the next page leads elsewhere"
        return ""


def _wait_of(reply: ArmResponse) -> float | None:
    """Seconds until the retry of the page; ``None`` when a retry is of no use."""
    if reply.status == 200:
        return None
    is_passing = classify(reply.to_failure()).kind.is_transient
    return max(reply.retry_after or 1.0, 0.1) if is_passing else None


def _versions_of(page: Json) -> Iterable[tuple[str, str]]:
    for machine in objects_or_empty(page.get("value")):
        properties: Mapping[str, object] = object_or_none(machine.get("properties")) or {}
        view = object_or_none(properties.get("instanceView")) or {}
        version = str_or_empty((object_or_none(view.get("vmAgent")) or {}).get("vmAgentVersion"))
        if version:
            yield fold(str_or_empty(machine.get("id"))), version
