"""Resource Health and Azure Monitor alerts of virtual machines.

Sources: "Availability Statuses - Get By Resource" (2025-05-01), "Alerts - Get All" (2019-05-05-preview), and the
samples of their specifications.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

from local.azure_simulator.compute.behavior import FiredAlert
from local.azure_simulator.compute.machine import Machine
from local.azure_simulator.hybrid_compute.machine import AnyMachine
from local.azure_simulator.server import errors
from local.azure_simulator.server.routing import ArmResponse, Call, Route, compact
from local.azure_simulator.state import AzureState

_MACHINE = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{machine}"
_STATUS = "/providers/Microsoft.ResourceHealth/availabilityStatuses/current"
_ALERTS = "/subscriptions/{subscription}/providers/Microsoft.AlertsManagement/alerts"
_DAYS = {"1h": 1 / 24, "1d": 1, "7d": 7, "30d": 30}
_SUMMARIES = {
    "Available": "There aren't any known Azure platform problems affecting this virtual machine.",
    "Unavailable": "We're sorry, your virtual machine isn't available because an unexpected problem occurred.",
    "Degraded": "Your virtual machine is available, but its performance may be affected.",
    "Unknown": "We're currently unable to determine the health of this virtual machine.",
}
TABLE = "healthresources"


def health_rows(azure: AzureState, subscriptions: set[str] | None) -> Iterator[dict[str, Any]]:
    """The statuses in Resource Graph, which lags; ``subscriptions`` are normalized."""
    then = max(0.0, azure.clock.now() - azure.graph_lag)
    return (
        {
            "id": (machine.id + _STATUS).lower(),
            "name": "current",
            "type": "microsoft.resourcehealth/availabilitystatuses",
            "tenantId": azure.tenant_id,
            "location": machine.location,
            "resourceGroup": machine.resource_group.lower(),
            "subscriptionId": machine.subscription_id,
            "properties": _availability(machine, then)
            | {
                "targetResourceId": machine.folded,
                "targetResourceType": "microsoft.compute/virtualmachines",
                "occurredTime": azure.clock.stamp(then),
            },
            "tags": None,
        }
        for machine in azure.settled()
        if isinstance(machine, Machine)
        and (subscriptions is None or machine.subscription_id.casefold() in subscriptions)
    )


class Health:
    """Handlers of ``Microsoft.ResourceHealth`` and ``Microsoft.AlertsManagement``."""

    def __init__(self, azure: AzureState) -> None:
        self.azure = azure

    def routes(self) -> list[Route]:
        return [
            Route("GET", _MACHINE + _STATUS, "health", self.availability),
            Route("GET", _ALERTS, "alerts", self.alerts),
        ]

    def availability(self, call: Call) -> ArmResponse:
        machine = self.azure.machine(call.subscription, call.group, call.captured["machine"])
        if machine.simulation.forbidden:
            action = "Microsoft.ResourceHealth/availabilityStatuses/read"
            raise errors.forbidden(action, machine.id, self.azure.client_id)
        now = self.azure.clock.now()
        stamp = self.azure.clock.stamp(now)
        return compact(
            {
                "id": machine.id + _STATUS,
                "name": "current",
                "type": "Microsoft.ResourceHealth/AvailabilityStatuses",
                "location": machine.location,
                "properties": _availability(machine, now) | {"occuredTime": stamp, "reportedTime": stamp},
            }
        )

    def alerts(self, call: Call) -> ArmResponse:
        """The alerts of a subscription, filtered by the query; targets are in lower case, as in samples."""
        query = {key.casefold(): value for key, value in call.query.items()}
        time_range = query.get("timerange") or "1d"
        if time_range not in _DAYS:
            raise errors.invalid_parameter(f"The time range '{time_range}' is not valid.", "timeRange")
        machines = self.azure.subscription(call.subscription)
        wanted = query.get("targetresource", "").casefold()
        found = [
            self._alert(machine, alert)
            for machine in machines
            if not wanted or machine.folded == wanted
            for alert in machine.simulation.alerts
            if query.get("monitorcondition", alert.condition) == alert.condition
            and query.get("severity", alert.severity) == alert.severity
            and alert.hours_ago <= _DAYS[time_range] * 24
        ]
        return compact({"value": found})

    def _alert(self, machine: AnyMachine, alert: FiredAlert) -> dict[str, Any]:
        digest = hashlib.sha256(f"{machine.folded}:{alert.rule}".encode()).digest()[:16]
        alert_id = str(uuid.UUID(bytes=digest, version=4))
        fired = self.azure.clock.started_at - timedelta(hours=alert.hours_ago)
        group = f"/subscriptions/{machine.subscription_id}/resourceGroups/{machine.resource_group}"
        essentials = {
            "severity": alert.severity,
            "signalType": "Metric",
            "alertState": alert.state,
            "monitorCondition": alert.condition,
            "monitorService": "Platform",
            "targetResource": machine.folded,
            "targetResourceName": machine.name.lower(),
            "targetResourceGroup": machine.resource_group.lower(),
            "targetResourceType": machine.TYPE.rpartition("/")[2].lower(),
            "alertRule": f"{group}/providers/microsoft.insights/metricalerts/{alert.rule}",
            "startDateTime": f"{fired:%Y-%m-%dT%H:%M:%S}Z",
            "lastModifiedDateTime": f"{fired:%Y-%m-%dT%H:%M:%S}Z",
            "lastModifiedUserName": "System",
            "actionStatus": {"isSuppressed": False},
            "description": "",
        }
        return {
            "properties": {"essentials": essentials, "context": {}, "egressConfig": {}},
            "id": f"{machine.id}/providers/Microsoft.AlertsManagement/alerts/{alert_id}",
            "type": "Microsoft.AlertsManagement/alerts",
            "name": alert.rule,
        }


def _availability(machine: Machine, now: float) -> dict[str, Any]:
    if machine.power in ("stopped", "deallocated", "stopping", "deallocating"):
        return {
            "availabilityState": "Unavailable",
            "title": "Stopped by user or process",
            "summary": "This virtual machine is stopped as requested by an authorized user or process.",
            "reasonType": "UserInitiated",
            "context": "Customer Initiated",
        }
    state = "Unavailable" if machine.is_made_unhealthy(now) else machine.simulation.resource_health
    made = {"availabilityState": state, "title": state, "summary": _SUMMARIES[state], "reasonChronicity": "Persistent"}
    reason = {"reasonType": "Unplanned", "context": "Platform Initiated"}
    return made if state in ("Available", "Unknown") else made | reason
