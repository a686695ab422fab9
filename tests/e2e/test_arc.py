"""A fleet of Azure Arc machines through the whole product, alone and beside virtual machines."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.product import SUBSCRIPTION, Product

BOTH = ["azure", "arc"]
CASES: list[tuple[dict[str, Any], str, str]] = [
    ({}, "patched", "ok"),
    ({"pendingPatches": 0}, "nothing_to_install", "no_pending_patches"),
    ({"status": "Disconnected"}, "skipped", "not_connected"),
    ({"status": "Expired"}, "skipped", "not_connected"),
    ({"busy": True}, "skipped", "operation_conflict"),
    ({"forbidden": True}, "skipped", "forbidden"),
    ({"pendingPatches": 4, "installFails": 2}, "failed", "patches_failed"),
    ({"pendingPatches": 3, "rebootRequired": True}, "patched", "ok"),
]


def scope(ids: list[str], types: list[str]) -> dict[str, Any]:
    return {"machineIds": ids, "machineTypes": types}


def test_arc_machines_and_virtual_machines_are_patched_by_one_run(product: Product) -> None:
    arcs = [product.take_arc(1, **simulation)[0] for simulation, _, _ in CASES]
    vms = product.take(2)
    machines = product.patch([*arcs, *vms], scope=scope([*arcs, *vms], BOTH), timeout=150)
    wrong = [
        f"{simulation}: {row['outcome']}/{row['reason']}: {row['message']}"
        for one, (simulation, outcome, reason) in zip(arcs, CASES, strict=True)
        if (row := machines[one.lower()]) and (row["outcome"], row["reason"]) != (outcome, reason)
    ]
    assert not wrong, "\n".join(wrong)
    assert {machines[one.lower()]["outcome"] for one in vms} == {"patched"}
    assert {machines[one.lower()].get("lane") for one in arcs[:1]} == {"arc"}
    for one in arcs:
        assert product.accepted(one).get("install", 0) <= 1


def test_the_record_of_an_arc_machine_has_its_counts_and_the_names_of_its_patches(product: Product) -> None:
    (one,) = product.take_arc()
    run_id = product.start([one], scope=scope([one], ["arc"]))
    product.wait(run_id)
    row = product.machines(run_id)[one.lower()]
    assert row["outcome"] == "patched"
    assert (row["assessment"]["criticalAndSecurity"], row["installation"]["installed"]) == (3, 3)
    assert row["installation"]["activityId"]
    record = product.api.get(f"/api/runs/{run_id}/machines/{row['key']}").json()
    assert {(each["name"], each["state"]) for each in record["patches"]} == {
        ("patch-0", "Installed"),
        ("patch-1", "Installed"),
        ("patch-2", "Installed"),
    }


def test_arc_machines_are_found_by_their_tags_and_only_where_a_policy_asks_for_them(product: Product) -> None:
    found = {"subscriptions": [SUBSCRIPTION], "tags": {"values": {"env": ["arc"]}}}
    limits = {"tags": [{"tag": "site", "maxConcurrent": 1}]}
    policy = {"scope": found | {"machineTypes": BOTH}, "limits": limits}
    planned = product.api.post("/api/plans", json={"policy": policy}).json()
    listed = [*planned["machines"], *planned["excluded"]]
    assert len(listed) == 24
    assert {each["lane"] for each in planned["machines"]} == {"arc"}
    assert {f"tag:site=plant-{number}" for number in (0, 1)} <= {
        group for each in planned["machines"] for group in each["groups"]
    }
    assert product.api.post("/api/plans", json={"policy": {"scope": found}}).json()["machines"] == []


@pytest.mark.parametrize(
    ("fields", "path"), [({"hooks": {"snapshot": {}}}, "hooks.snapshot"), ({"startStopped": True}, "startStopped")]
)
def test_what_azure_cannot_do_there_is_refused_when_the_policy_is_put(
    product: Product, fields: dict[str, Any], path: str
) -> None:
    policy = {"scope": {"subscriptions": [SUBSCRIPTION], "machineTypes": ["arc"]}, **fields}
    refused = product.api.put("/api/policies/arc-refused", json=policy)
    assert refused.status_code == 400, refused.text
    assert [error["path"] for error in refused.json()["errors"]] == [path]


@pytest.mark.parametrize(
    ("simulation", "outcome"),
    [({"reconnectsAfterMinutes": 5}, "patched"), ({"operationTimeoutMinutes": 30}, "failed")],
)
def test_a_machine_that_loses_contact_is_waited_for(product: Product, simulation: dict[str, Any], outcome: str) -> None:
    (one,) = product.take_arc(1, disconnectsAfterMinutes=1, **simulation)
    # A machine that stays away is not as healthy as before, which is judged at once here.
    row = product.patch([one], scope=scope([one], ["arc"]), health={"settle": "PT0M"})[one.lower()]
    assert row["outcome"] == outcome, row
    assert product.accepted(one).get("install", 0) <= 1


def test_a_schedule_is_assigned_to_an_arc_machine(product: Product) -> None:
    (one,) = product.take_arc()
    address = f"/api/maintenance/configurations/{SUBSCRIPTION}/rg-arc/yearly"
    identity = (
        f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-arc"
        "/providers/Microsoft.Maintenance/maintenanceConfigurations/yearly"
    )
    schedule = {
        "location": "westeurope",
        "properties": {
            "extensionProperties": {"InGuestPatchMode": "User"},
            "maintenanceWindow": {
                "startDateTime": f"{datetime.now(UTC) + timedelta(days=300):%Y-%m-%d %H:%M}",
                "duration": "02:00",
                "timeZone": "UTC",
                "recurEvery": "12Months day17",
            },
            "installPatches": {"linuxParameters": {"classificationsToInclude": ["Critical", "Security"]}},
        },
    }
    assignments = "/api/maintenance/assignments"
    both = {"machine": one, "configuration": identity, "reason": "tests"}
    assert product.api.put(address, json=schedule).status_code == 201
    given = product.api.put(assignments, json={"configurationId": identity, "resourceId": one})
    assert given.status_code == 200, given.text
    listed = product.api.get(assignments, params={"machine": one}).json()["assignments"]
    assert [each["assignment"]["maintenanceConfigurationId"].lower() for each in listed] == [identity.lower()]
    assert product.api.delete(assignments, params=both).status_code == 200
    assert product.api.delete(address, params={"reason": "tests"}).status_code == 204
