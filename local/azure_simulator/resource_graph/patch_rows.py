"""The tables ``patchassessmentresources`` and ``patchinstallationresources`` of Resource Graph.

Both lag by a minute of simulated time, unless set otherwise. Names differ from Resource Manager's
(``availablePatchCountByClassification``, ``errorDetails``). There is one assessment row per machine, its latest result,
so a running one shows nothing new. Each result has rows of its patches beside it. The properties of an Arc machine's
rows are those of its results (assumed). Source: "Access Azure Update Manager operations data using Azure Resource
Graph" (2024), with its retention.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from local.azure_simulator.compute.operations import Operation
from local.azure_simulator.compute.patches import count_by_classification
from local.azure_simulator.hybrid_compute import views
from local.azure_simulator.hybrid_compute.machine import AnyMachine, ArcMachine
from local.azure_simulator.server.json_readers import list_or_empty, object_or_none
from local.azure_simulator.state import AzureState

COLUMNS = {"id", "name", "type", "tenantId", "location", "resourceGroup", "subscriptionId", "properties", "tags"}
TABLES = ("patchassessmentresources", "patchinstallationresources")
ASSESSMENT_DAYS, INSTALLATION_DAYS = 7, 30
"""Retention of results, in simulated days."""
_DAY_SECONDS = 86_400.0
_COUNTS = ("notSelected", "installed", "excluded", "pending", "failed")
_ASKS_FOR_RESULTS_ALONE = re.compile(r"where\s+type\s*(?:=~|==)\s*(['\"])[^'\"]*results\1", re.IGNORECASE)
_STARTS = r"id\s+startswith\s+'([^'\\]*)'"
_ASKS_FOR_STARTS = re.compile(rf"where\s+{_STARTS}(?:\s+or\s+{_STARTS})*\s*(?:\||$)", re.IGNORECASE)

type Row = dict[str, Any]


def patch_rows(azure: AzureState, table: str, subscriptions: set[str] | None, query: str = "") -> Iterator[Row]:
    """The rows of one of the tables; of patches, which are many, only if the query reads them.

    ``subscriptions`` are normalized; None means all.
    """
    then = azure.clock.now() - azure.graph_lag
    with_patches = _ASKS_FOR_RESULTS_ALONE.search(query) is None
    kind, days = ("assess", ASSESSMENT_DAYS) if table == TABLES[0] else ("install", INSTALLATION_DAYS)
    wanted: Iterable[Operation] = (
        operation
        for operation in (_assessments(azure) if kind == "assess" else _operations(azure))
        if operation.kind == kind
        and operation.started <= then
        and operation.completion.touches_guest
        and not _machine(azure, operation).simulation.deleted
        and not operation.ends <= then - days * _DAY_SECONDS
        and (subscriptions is None or operation.subscription_id.casefold() in subscriptions)
    )
    if kind == "assess":
        wanted = {each.machine: each for each in wanted if each.is_over(then)}.values()
    starts = _asked_starts(query)
    for operation in wanted:
        row = _result(azure, operation, then)
        yield row
        above = f"{row['id']}/softwarePatches/".casefold()
        wanted_here = starts is None or any(above.startswith(each) or each.startswith(above) for each in starts)
        if with_patches and wanted_here:
            yield from _patches(azure, operation, row, then)


def _operations(azure: AzureState) -> list[Operation]:
    """Those of clients and schedules, and Azure's own, in start order."""
    own = [each for machine in azure.machines.values() for each in machine.own_operations]
    return sorted([*azure.operations.all(), *own], key=lambda each: each.started) if own else azure.operations.all()


def _assessments(azure: AzureState) -> Iterator[Operation]:
    """All of virtual machines, and those of Arc machines that have ended, with the ones after installations."""
    yield from (each for each in _operations(azure) if not isinstance(_machine(azure, each), ArcMachine))
    now = azure.clock.now()
    for machine in azure.machines.values():
        if isinstance(machine, ArcMachine):
            machine.settle(now)
            yield from machine.assessments


def _asked_starts(query: str) -> list[str] | None:
    """The required id prefixes, normalized, when a stage of the query filters only by these; None otherwise."""
    stage = _ASKS_FOR_STARTS.search(query)
    return None if stage is None else [each.casefold() for each in re.findall(_STARTS, stage[0], re.IGNORECASE)]


def _result(azure: AzureState, operation: Operation, then: float) -> Row:
    if operation.graph_row is not None:
        return operation.graph_row
    made = (_assessment if operation.kind == "assess" else _installation)(azure, operation, then)
    if operation.is_over(then):
        operation.graph_row = made
    return made


def _installation(azure: AzureState, operation: Operation, then: float) -> Row:
    result = operation.result(azure.clock) if operation.is_over(then) else None
    status = "InProgress" if not operation.is_over(then) else "Failed" if result is None else result["status"]
    counts = {f"{name}PatchCount": 0 if result is None else result[f"{name}PatchCount"] for name in _COUNTS}
    properties = _common(azure, operation, then) | {
        "installationActivityId": operation.id,
        "status": status,
        "maintenanceWindowExceeded": bool(result and result["maintenanceWindowExceeded"]),
        "rebootStatus": "NotNeeded" if result is None else result["rebootStatus"],
        "maintenanceRunId": operation.maintenance_run or None,
        **counts,
        **_arc_result(azure, operation, then),
    }
    return _row(azure, operation, "patchInstallationResults", operation.id, properties)


def _assessment(azure: AzureState, operation: Operation, then: float) -> Row:
    result = operation.result(azure.clock) or {}
    properties = _common(azure, operation, then) | {
        "rebootPending": result.get("rebootPending", False),
        "availablePatchCountByClassification": count_by_classification(result),
        **_arc_result(azure, operation, then),
    }
    return _row(azure, operation, "patchAssessmentResults", "latest", properties)


def _arc_result(azure: AzureState, operation: Operation, then: float) -> Row:
    machine = _machine(azure, operation)
    return views.result(machine, operation) if isinstance(machine, ArcMachine) and operation.is_over(then) else {}


def _patches(azure: AzureState, operation: Operation, above: Row, then: float) -> list[Row]:
    result = (operation.result(azure.clock) if operation.is_over(then) else None) or {}
    listed: list[dict[str, Any]] = list_or_empty(result.get("availablePatches") or result.get("patches"))
    made: list[Row] = []
    for patch in listed:
        shown = {
            "patchName": patch["name"],
            "classifications": patch["classifications"],
            "publishedDateTime": patch.get("publishedDate") if "kbId" in patch else None,
            "lastModifiedDateTime": azure.clock.stamp(operation.ends),
        }
        kept = ("kbId", "version", "rebootBehavior", "installationState", "msrcSeverity")
        shown |= {key: patch[key] for key in kept if key in patch}
        row = {"id": f"{above['id']}/softwarePatches/{patch['patchId']}", "name": patch["patchId"]}
        made.append(above | row | {"type": f"{above['type']}/softwarepatches", "properties": shown})
    return made


def _common(azure: AzureState, operation: Operation, then: float) -> dict[str, Any]:
    machine = _machine(azure, operation)
    return {
        "startDateTime": azure.clock.stamp(operation.started),
        "lastModifiedDateTime": azure.clock.stamp(min(then, operation.ends)),
        "startedBy": "Platform" if operation.maintenance_run or operation.by_platform else "User",
        "osType": machine.os_type,
        "patchServiceUsed": "WU-WSUS" if machine.os_type == "Windows" else "APT",
        "errorDetails": _errors(azure, operation) if operation.is_over(then) else None,
    }


def _errors(azure: AzureState, operation: Operation) -> Any:
    """The error of the operation, or the errors inside its result; null without any [inferred]."""
    inner = object_or_none((operation.result(azure.clock) or {}).get("error"))
    return operation.completion.error or (inner if inner.get("details") else None)


def _row(azure: AzureState, operation: Operation, kind: str, name: str, properties: dict[str, Any]) -> Row:
    machine = _machine(azure, operation)
    return {
        "id": f"{machine.id}/{kind}/{name}",
        "name": name,
        "type": f"{machine.TYPE}/{kind}".lower(),
        "tenantId": azure.tenant_id,
        "location": machine.location,
        "resourceGroup": machine.resource_group.lower(),
        "subscriptionId": machine.subscription_id,
        "properties": properties,
        "tags": None,
    }


def _machine(azure: AzureState, operation: Operation) -> AnyMachine:
    return azure.machines[operation.machine]
