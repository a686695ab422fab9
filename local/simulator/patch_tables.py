"""The tables ``patchassessmentresources`` and ``patchinstallationresources`` of Resource Graph.

Both show what was so some time ago: a minute of simulated time, unless told otherwise. Names differ from Resource
Manager's (``availablePatchCountByClassification``, ``errorDetails``); an assessment that runs shows nothing new, since
there is one row for each machine, its latest. Source: documented schemas (2024).
"""

from __future__ import annotations

from typing import Any

from local.simulator.machine import Machine
from local.simulator.operations import Operation
from local.simulator.world import World

COLUMNS = {"id", "name", "type", "tenantId", "location", "resourceGroup", "subscriptionId", "properties", "tags"}
TABLES = ("patchassessmentresources", "patchinstallationresources")
_TYPE = "microsoft.compute/virtualmachines/"
_COUNTS = ("notSelected", "installed", "excluded", "pending", "failed")

type Row = dict[str, Any]


def patch_rows(world: World, table: str, subscriptions: set[str] | None) -> list[Row]:
    """The rows of one of the tables; ``subscriptions`` are folded."""
    then = world.clock.now() - world.graph_lag
    wanted = [
        operation
        for operation in world.operations.all()
        if operation.started <= then
        and operation.ending.touches_guest
        and (subscriptions is None or operation.subscription_id.casefold() in subscriptions)
    ]
    if table == TABLES[1]:
        return [_installation(world, operation, then) for operation in wanted if operation.kind == "install"]
    latest = {
        operation.machine: operation for operation in wanted if operation.kind == "assess" and operation.is_over(then)
    }
    return [_assessment(world, operation) for operation in latest.values()]


def _installation(world: World, operation: Operation, then: float) -> Row:
    result = operation.result(world.clock) if operation.is_over(then) else None
    status = "InProgress" if not operation.is_over(then) else "Failed" if result is None else result["status"]
    counts = {f"{name}PatchCount": 0 if result is None else result[f"{name}PatchCount"] for name in _COUNTS}
    properties = _common(world, operation, then) | {
        "installationActivityId": operation.id,
        "status": status,
        "maintenanceWindowExceeded": bool(result and result["maintenanceWindowExceeded"]),
        "rebootStatus": "NotNeeded" if result is None else result["rebootStatus"],
        **counts,
    }
    return _row(world, operation, "patchInstallationResults", operation.id, properties)


def _assessment(world: World, operation: Operation) -> Row:
    result = operation.result(world.clock) or {}
    critical, other = result.get("criticalAndSecurityPatchCount", 0), result.get("otherPatchCount", 0)
    properties = _common(world, operation, operation.ends) | {
        "rebootPending": result.get("rebootPending", False),
        "availablePatchCountByClassification": {"critical": 0, "security": critical, "other": other},
    }
    return _row(world, operation, "patchAssessmentResults", "latest", properties)


def _common(world: World, operation: Operation, then: float) -> dict[str, Any]:
    return {
        "startDateTime": world.clock.stamp(operation.started),
        "lastModifiedDateTime": world.clock.stamp(min(then, operation.ends)),
        "startedBy": "User",
        "osType": _machine(world, operation).os_type,
        "errorDetails": operation.ending.error if operation.is_over(then) else None,
    }


def _row(world: World, operation: Operation, kind: str, name: str, properties: dict[str, Any]) -> Row:
    machine = _machine(world, operation)
    return {
        "id": f"{machine.id}/{kind}/{name}",
        "name": name,
        "type": _TYPE + kind.lower(),
        "tenantId": world.tenant_id,
        "location": machine.location,
        "resourceGroup": machine.resource_group.lower(),
        "subscriptionId": machine.subscription_id,
        "properties": properties,
        "tags": None,
    }


def _machine(world: World, operation: Operation) -> Machine:
    return world.machines[operation.machine]
