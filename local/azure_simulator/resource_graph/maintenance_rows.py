"""The table ``maintenanceresources`` of Resource Graph: assignments, runs, and the machines of runs.

Runs and assignments are shown as they were some time ago; configurations themselves are rows of ``resources``. Sources:
the documented queries of Update Manager, and the columns that published scripts read.
"""

from __future__ import annotations

from typing import Any

from local.azure_simulator.maintenance.assignments import Assignment
from local.azure_simulator.maintenance.configurations import TYPE, Configuration
from local.azure_simulator.maintenance.occurrences import CANCELLED, Occurrence
from local.azure_simulator.maintenance.scheduler import Schedules
from local.azure_simulator.resource_graph.patch_rows import INSTALLATION_DAYS, Row

TABLE = "maintenanceresources"
_DAY_SECONDS = 86_400.0


def configuration_rows(schedules: Schedules, subscriptions: set[str] | None) -> list[Row]:
    """The rows of ``resources`` for configurations; ``subscriptions`` are folded."""
    return [
        each.document(lowered=True) | _place(schedules, each) | {"type": TYPE.lower()}
        for each in schedules.configurations.values()
        if subscriptions is None or each.subscription_id.casefold() in subscriptions
    ]


def maintenance_rows(schedules: Schedules, subscriptions: set[str] | None) -> list[Row]:
    """The rows of ``maintenanceresources``; ``subscriptions`` are folded."""
    then = schedules.azure.clock.now() - schedules.azure.graph_lag
    rows = [
        _assignment(schedules, each)
        for each in [*schedules.assignments.values(), *schedules.former]
        if each.created <= then and (each.removed is None or each.removed > then)
    ]
    for occurrence in schedules.occurrences.values():
        if occurrence.announced <= then < occurrence.window_end + INSTALLATION_DAYS * _DAY_SECONDS:
            rows.append(_run(schedules, occurrence, then))
            rows += [
                _machine_run(schedules, occurrence, folded, then)
                for folded, each in occurrence.machines.items()
                if not each.machine.simulation.deleted
            ]
    return [row for row in rows if subscriptions is None or row["subscriptionId"].casefold() in subscriptions]


def _place(schedules: Schedules, configuration: Configuration) -> dict[str, Any]:
    return {
        "tenantId": schedules.azure.tenant_id,
        "location": configuration.location,
        "resourceGroup": configuration.resource_group.lower(),
        "subscriptionId": configuration.subscription_id,
        "tags": configuration.tags or None,
    }


def _assignment(schedules: Schedules, assignment: Assignment) -> Row:
    return assignment.document(is_put=False) | {
        "id": assignment.folded,
        "type": "microsoft.maintenance/configurationassignments",
        "tenantId": schedules.azure.tenant_id,
        "location": assignment.location or "",
        "resourceGroup": assignment.resource_group.lower(),
        "subscriptionId": assignment.subscription_id,
        "tags": None,
    }


def _run(schedules: Schedules, occurrence: Occurrence, then: float) -> Row:
    configuration, clock = occurrence.configuration, schedules.azure.clock
    status = occurrence.status(then, clock)
    words = [occurrence.machine_status(folded, then, clock)[0] for folded in occurrence.machines]
    ended = occurrence.cancelled if status == CANCELLED else occurrence.ended
    properties = _common(schedules, occurrence, status, ended if ended is not None and ended <= then else None) | {
        "maintenanceConfiguration": {
            "id": configuration.folded,
            "name": configuration.name,
            "properties": {"maintenanceScope": configuration.properties["maintenanceScope"]},
        },
        "resourceUpdateSummary": {
            "total": len(words),
            "successful": sum(word in ("Succeeded", "CompletedWithWarnings") for word in words),
            "failed": sum(word in ("Failed", "ShutdownOrUnresponsive") for word in words),
            "inProgress": words.count("InProgress"),
            "notStarted": words.count("Pending"),
            "cancelled": words.count(CANCELLED),
        },
        "errorMessage": occurrence.message or None,
    }
    return _place(schedules, configuration) | {
        "id": occurrence.id,
        "name": occurrence.name,
        "type": "microsoft.maintenance/maintenanceconfigurations/applyupdates",
        "properties": properties,
        "tags": None,
    }


def _machine_run(schedules: Schedules, occurrence: Occurrence, folded: str, then: float) -> Row:
    found = occurrence.machines[folded]
    status, ended = occurrence.machine_status(folded, then, schedules.azure.clock)
    properties = _common(schedules, occurrence, status, ended) | {
        "resourceId": folded,
        "errorMessage": found.message or None,
    }
    return {
        "id": f"{folded}/providers/microsoft.maintenance/applyupdates/{occurrence.name}",
        "name": occurrence.name,
        "type": "microsoft.maintenance/applyupdates",
        "tenantId": schedules.azure.tenant_id,
        "location": found.machine.location,
        "resourceGroup": found.machine.resource_group.lower(),
        "subscriptionId": found.machine.subscription_id,
        "properties": properties,
        "tags": None,
    }


def _common(schedules: Schedules, occurrence: Occurrence, status: str, ended: float | None) -> dict[str, Any]:
    clock = schedules.azure.clock
    return {
        "maintenanceConfigurationId": occurrence.configuration.folded,
        "maintenanceScope": occurrence.configuration.properties["maintenanceScope"],
        "correlationId": occurrence.id,
        "startDateTime": clock.stamp(occurrence.starts),
        "endDateTime": None if ended is None else clock.stamp(ended),
        "status": status,
    }
