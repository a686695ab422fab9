"""The custom roles in ``infra/roles`` grant what the product asks Azure for, and nothing else.

One machine goes through everything that a policy can ask for; then the log of the simulator are held against the roles.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from local import ROOT
from patchwave.azure.bulk_status import BulkStatus
from patchwave.azure.resource_graph import ResourceGraph
from patchwave.domain.maintenance.queries import patches_of_installations
from tests.conftest import HEALTH_KEY
from tests.e2e.test_maintenance_run import fire, maintenance_run, prepare
from tests.support.azure import Access
from tests.support.product import SUBSCRIPTION, Product, wait_until
from tests.support.simulator import token

ROLES = ROOT / "infra" / "roles"
VERBS = {"GET": "read", "HEAD": "read", "PUT": "write", "PATCH": "write", "DELETE": "delete"}
SCRIPT = {"linux": "echo hello", "windows": "Write-Output hello"}

type Json = dict[str, Any]


def actions_of(request: Json) -> set[str]:
    """What Azure wants the caller to have for a request, by Resource Manager's own rule: the types of the last provider
    in the path and the method; for a POST, the last segment is the action.
    """
    method, path = str(request["method"]), str(request["path"]).strip("/")
    before, _, provider = path.rpartition("/providers/")
    if path == "providers/Microsoft.ResourceGraph/resources":
        return _read_by_query(str(request["body"]["query"]))
    if not before:
        # subscriptions/{id}/locations, and what has no provider: types and names take turns from the first on.
        return {"Microsoft.Resources/" + "/".join(path.split("/")[::2]) + "/read"}
    namespace, *parts = provider.split("/")
    if method == "POST":
        *parts, action = parts
        return {"/".join((namespace, *parts[::2], action, "action"))}
    found = {"/".join((namespace, *parts[::2], VERBS[method]))}
    if "expand=instanceView" in str(request["query"]):
        found.add("/".join((namespace, *parts[::2], "instanceView", "read")))
    if method == "PUT" and "creationData" in ((request["body"] or {}).get("properties") or {}):
        # Linked access: copying a disk takes the right to read it.
        found.add("Microsoft.Compute/disks/beginGetAccess/action")
    return found


_TABLES = {
    "microsoft.compute/virtualmachines": {"Microsoft.Compute/virtualMachines/read"},
    "microsoft.compute/virtualmachinescalesets": {"Microsoft.Compute/virtualMachineScaleSets/read"},
    "microsoft.compute/virtualmachines/patchinstallationresults": {
        "Microsoft.Compute/virtualMachines/patchInstallationResults/read"
    },
    "microsoft.compute/virtualmachines/patchinstallationresults/softwarepatches": {
        "Microsoft.Compute/virtualMachines/patchInstallationResults/softwarePatches/read"
    },
    "microsoft.compute/virtualmachines/patchassessmentresults": {
        "Microsoft.Compute/virtualMachines/patchAssessmentResults/read"
    },
    "microsoft.compute/virtualmachines/patchassessmentresults/softwarepatches": {
        "Microsoft.Compute/virtualMachines/patchAssessmentResults/softwarePatches/read"
    },
    "microsoft.hybridcompute/machines": {"Microsoft.HybridCompute/machines/read"},
    "microsoft.hybridcompute/machines/patchinstallationresults": {
        "Microsoft.HybridCompute/machines/patchInstallationResults/read"
    },
    "microsoft.hybridcompute/machines/patchinstallationresults/softwarepatches": {
        "Microsoft.HybridCompute/machines/patchInstallationResults/softwarePatches/read"
    },
    "microsoft.hybridcompute/machines/patchassessmentresults": {
        "Microsoft.HybridCompute/machines/patchAssessmentResults/read"
    },
    "microsoft.hybridcompute/machines/patchassessmentresults/softwarepatches": {
        "Microsoft.HybridCompute/machines/patchAssessmentResults/softwarePatches/read"
    },
    "microsoft.compute/virtualmachines/extensions": {"Microsoft.Compute/virtualMachines/extensions/read"},
    "microsoft.maintenance/applyupdates": {"Microsoft.Maintenance/applyUpdates/read"},
    # There is no operation of its own name: it is the run whose machines the line above shows.
    "microsoft.maintenance/maintenanceconfigurations/applyupdates": {"Microsoft.Maintenance/applyUpdates/read"},
    "microsoft.compute/snapshots": {"Microsoft.Compute/snapshots/read"},
    "microsoft.maintenance/maintenanceconfigurations": {"Microsoft.Maintenance/maintenanceConfigurations/read"},
    "microsoft.maintenance/configurationassignments": {"Microsoft.Maintenance/configurationAssignments/read"},
}


def _read_by_query(query: str) -> set[str]:
    """Resource Graph needs no right of its own: it shows what the caller may read."""
    found = [actions for kind, actions in _TABLES.items() if f"'{kind}'" in query.lower()]
    assert found, f"a query about something that no role grants: {query[:300]}"
    return set().union(*found)


def granted() -> dict[str, set[str]]:
    """The actions of each role."""
    return {path.stem: set(json.loads(path.read_text())["Actions"]) for path in sorted(ROLES.glob("*.json"))}


@pytest.fixture(scope="module")
def asked(stack_product: Product) -> set[str]:
    """Every action that the product needed, in a run with each feature."""
    product = stack_product
    before = product.azure.get("/_sim/requests", params={"limit": "1"}).json()["count"]
    product.clear_faults()
    stopped, deallocated = product.take(1, power="stopped") + product.take(1, power="deallocated")
    kernel = {"name": "kernel", "classification": "Security", "needsReboot": True}
    (whole,) = product.take(1, pendingPatches=[kernel], rebootRequired=True)
    run_id = product.start(
        [stopped, deallocated, whole],
        startStopped=True,
        rebootMode="separate",
        hooks={"snapshot": {}, "before": SCRIPT, "after": SCRIPT},
        health={"alerts": {"severities": ["Sev0"]}},
    )
    product.wait(run_id)
    rows = product.machines(run_id)
    assert {row["outcome"] for row in rows.values()} == {"patched"}, rows
    (arc,) = product.take_arc()
    arcs = product.patch([arc], scope={"machineIds": [arc], "machineTypes": ["arc"]})
    assert {row["outcome"] for row in arcs.values()} == {"patched"}, arcs
    asyncio.run(_ask_what_depends_on_time(product, whole))
    _delete_a_snapshot(product, rows[whole.lower()]["snapshotId"])
    _keep_a_schedule(product, whole)
    _change_modes(product, whole)
    fire(product, prepare(product, "rights", [whole]), minutes=0)
    assert maintenance_run(product, "rights")["state"] == "completed"
    assert product.api.get("/api/fleet/doctor", timeout=60).status_code == 200
    assert product.api.get("/api/fleet/status", params={"machine": whole}, timeout=60).status_code == 200
    plan = product.api.post("/api/plans", json={"policy": {"scope": {"machineIds": [whole]}, "maxConcurrent": 1}})
    assert plan.status_code == 200, plan.text
    health = product.api.get("/api/health", params={"deep": "1"}, headers={"X-Health-Key": HEALTH_KEY})
    assert health.json()["identity"] == "ok", health.text
    requests = product.azure.get("/_sim/requests", params={"since": str(before)}).json()["requests"]
    return set().union(*(actions_of(request) for request in requests))


async def _ask_what_depends_on_time(product: Product, machine: str) -> None:
    """What is asked when more installations are in flight than a test has machines, and of a scheduled run that shows
    its installations, which may come too late for this one.
    """
    access = Access(product.stack.simulator)
    graph = ResourceGraph(access.settings, access.pipeline())
    await BulkStatus(graph, longest_age=60).running(SUBSCRIPTION, "westeurope")
    await graph.page(patches_of_installations([f"{machine}/patchInstallationResults/one"]), [SUBSCRIPTION], "")
    await graph.close()


def _change_modes(product: Product, machine: str) -> None:
    """Look at the modes of a machine, and change them."""
    assert product.api.get("/api/fleet/modes", params={"machine": machine}).status_code == 200
    body = {"scope": {"machineIds": [machine]}, "patchMode": "AutomaticByPlatform", "bypass": True}
    change = product.api.post("/api/fleet/mode-changes", json=body).json()
    path = f"/api/fleet/mode-changes/{change['id']}"
    assert product.api.post(f"{path}/start", json={"reason": "tested"}).status_code == 202

    def ended() -> bool:
        return bool(product.api.get(path).json()["endedAt"])

    wait_until(ended, what=lambda: product.api.get(f"{path}/machines").text)
    assert product.api.get(path).json()["countsByEnd"] == {"changed": 1}


def _keep_a_schedule(product: Product, machine: str) -> None:
    """Make, assign, cancel and delete a schedule of Update Manager that never runs while tests do."""
    address = f"/api/maintenance/configurations/{SUBSCRIPTION}/rg-test/yearly"
    group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-test"
    identity = f"{group}/providers/Microsoft.Maintenance/maintenanceConfigurations/yearly"
    starts = datetime.now(UTC) + timedelta(days=300)
    schedule = {
        "location": "westeurope",
        "properties": {
            "extensionProperties": {"InGuestPatchMode": "User"},
            "maintenanceWindow": {
                "startDateTime": f"{starts:%Y-%m-%d %H:%M}",
                "duration": "02:00",
                "timeZone": "UTC",
                "recurEvery": "12Months day17",
            },
            "installPatches": {"linuxParameters": {"classificationsToInclude": ["Critical", "Security"]}},
        },
    }
    assignments, reason = "/api/maintenance/assignments", {"reason": "tests"}
    both = {"machine": machine, "configuration": identity}
    answers = [
        product.api.put(address, json=schedule),
        product.api.get("/api/maintenance/configurations"),
        product.api.put(assignments, json={"configurationId": identity, "resourceId": machine}),
        product.api.get(assignments, params={"machine": machine}),
        product.api.post(f"{address}/cancel", json=reason),
        product.api.delete(assignments, params=both | reason),
        product.api.delete(address, params=reason),
    ]
    assert [answer.status_code for answer in answers] == [201, 200, 200, 200, 200, 200, 204]


def _delete_a_snapshot(product: Product, snapshot: str) -> None:
    """Let its time be over, with the rights of another identity, and have the timer find it."""
    headers = {"Authorization": f"Bearer {token(product.stack.simulator)}"}
    parameters = {"api-version": "2025-01-02"}
    found = product.azure.get(snapshot, params=parameters, headers=headers).json()
    found["tags"]["patchwave-expires"] = "2020-01-01T00:00:00Z"
    body = {key: found[key] for key in ("location", "tags")} | {"properties": found["properties"]}
    changed = product.azure.put(snapshot, params=parameters, headers=headers, json=body)
    assert changed.is_success, changed.text

    def deleted() -> bool:
        product.api.post("/admin/functions/delete_expired_snapshots", json={})
        return product.azure.get(snapshot, params=parameters, headers=headers).status_code == 404

    wait_until(deleted, what=lambda: "the snapshot is still there")


def test_the_roles_grant_what_is_asked_for_and_nothing_else(asked: set[str]) -> None:
    every = set().union(*granted().values())
    assert asked - every == set(), "the product asks Azure for what no role grants"
    assert every - asked == set(), "a role grants what the product never asks for"


def test_an_action_is_in_one_role_alone() -> None:
    actions = [action for role in granted().values() for action in role]
    assert len(actions) == len(set(actions))


def test_without_hooks_and_the_like_the_first_role_is_enough(product: Product) -> None:
    before = product.azure.get("/_sim/requests", params={"limit": "1"}).json()["count"]
    (one,) = product.take()
    assert product.patch_one(one)["outcome"] == "patched"
    requests = product.azure.get("/_sim/requests", params={"since": str(before)}).json()["requests"]
    assert set().union(*(actions_of(request) for request in requests)) <= granted()["patching"]


@pytest.mark.parametrize("path", sorted(ROLES.glob("*.json")), ids=lambda path: path.stem)
def test_a_role_has_the_form_of_azure_and_no_wildcard(path: Path) -> None:
    role = json.loads(path.read_text())
    assert set(role) == {
        "Name", "IsCustom", "Description", "Actions", "NotActions", "DataActions", "NotDataActions", "AssignableScopes"
    }  # fmt: skip
    assert role["IsCustom"] is True
    assert role["Actions"]
    assert (role["NotActions"], role["DataActions"], role["NotDataActions"]) == ([], [], [])
    assert "*" not in json.dumps(role)
    assert not any(action.startswith("Microsoft.Authorization/") for action in role["Actions"])
    assert role["AssignableScopes"] == ["/subscriptions/00000000-0000-0000-0000-000000000000"]
