"""Availability of a machine from Resource Health, and alerts of Azure Monitor.

Plain GETs through the pipeline. Alerts are listed per subscription and filtered by machine, as in Microsoft's own SDK
(2019-05-05-preview; there is no later version without "preview").
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any
from urllib.parse import urlencode

from patchwave.azure.pipeline import ArmPipeline
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.operation import UnsafeUrl, check_operation_url
from patchwave.domain.core.documents import Json, objects_or_empty, parse_object
from patchwave.domain.core.ids import MachineId
from patchwave.domain.machine.alerts import Alert
from patchwave.domain.machine.resource_health import Availability
from patchwave.settings import Settings

HEALTH_API_VERSION = "2025-05-01"
ALERTS_API_VERSION = "2019-05-05-preview"
MAX_PAGES = 5
_ALERTS_PER_PAGE = 250
_TIME_RANGES = {"1h": timedelta(hours=1), "1d": timedelta(days=1), "7d": timedelta(days=7), "30d": timedelta(days=30)}


class ResourceHealth:
    """One client for all subscriptions of the identity."""

    def __init__(self, settings: Settings, pipeline: ArmPipeline) -> None:
        self._url = settings.manager_url
        self._pipeline = pipeline

    async def availability(self, machine: MachineId) -> Availability | ArmFailure:
        """The machine's current availability."""
        path = f"{machine.text}/providers/Microsoft.ResourceHealth/availabilityStatuses/current"
        found = await self._get(f"{self._url}{path}?api-version={HEALTH_API_VERSION}")
        return found if isinstance(found, ArmFailure) else Availability.model_validate(found)

    async def fired_alerts(self, machine: MachineId, within: timedelta) -> list[Alert] | ArmFailure:
        """Alerts on the machine with the condition "fired", from a time range that covers ``within``."""
        query = {
            "api-version": ALERTS_API_VERSION,
            "targetResource": machine.text,
            "monitorCondition": "Fired",
            "timeRange": next((name for name, length in _TIME_RANGES.items() if length >= within), "30d"),
            "pageCount": str(_ALERTS_PER_PAGE),
        }
        path = f"/subscriptions/{machine.subscription_id}/providers/Microsoft.AlertsManagement/alerts"
        url = f"{self._url}{path}?{urlencode(query)}"
        alerts: list[Alert] = []
        for _ in range(MAX_PAGES):
            found = await self._get(url)
            if isinstance(found, ArmFailure):
                return found
            alerts += [Alert.model_validate(item) for item in objects_or_empty(found.get("value"))]
            following: Any = found.get("nextLink")
            if not following:
                return alerts
            try:
                url = check_operation_url(str(following), self._url, machine.subscription_id)
            except UnsafeUrl:
                return _odd("a link to a next page elsewhere")
        return _odd(f"more than {MAX_PAGES} pages of alerts on one machine")

    async def close(self) -> None:
        """Close the connections."""
        await self._pipeline.close()

    async def _get(self, url: str) -> Json | ArmFailure:
        from azure.core.rest import HttpRequest

        reply = await self._pipeline.send(HttpRequest("GET", url))
        if reply.status != 200:
            return reply.to_failure()
        found = parse_object(reply.body)
        return _odd("an answer in no known form") if found is None else found


def _odd(what: str) -> ArmFailure:
    return ArmFailure(status=200, message=f"Resource Manager sent {what}")
