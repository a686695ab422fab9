"""Scheduled runs of Update Manager in the whole product: events delivered by the simulator, machines left as found."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.product import SUBSCRIPTION, Json, Product, wait_until
from tests.support.simulator import token

_API = {"api-version": "2023-04-01"}
_BYPASS = {"bypassPlatformSafetyChecksOnUserSchedule": True}
_SETTINGS = {"patchMode": "AutomaticByPlatform", "automaticByPlatformSettings": _BYPASS}
_GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-test"
_SCRIPTS = {"linux": "exit 0", "windows": "exit 0"}


def prepare(product: Product, name: str, ids: list[str], *, cancel: bool = False, **policy: Any) -> str:
    """A configuration with these machines, and a policy whose maintenance runs are for it; the configuration."""
    product.azure.headers["Authorization"] = f"Bearer {token(product.stack.simulator)}"
    one = f"{_GROUP}/providers/Microsoft.Maintenance/maintenanceConfigurations/{name}"
    window = {"startDateTime": "2030-01-05 22:00", "duration": "02:00", "timeZone": "UTC", "recurEvery": "Day"}
    properties = {
        "maintenanceScope": "InGuestPatch",
        "extensionProperties": {"InGuestPatchMode": "User"},
        "maintenanceWindow": window,
        "installPatches": {
            "rebootSetting": "IfRequired",
            "windowsParameters": {"classificationsToInclude": ["Critical", "Security"]},
            "linuxParameters": {"classificationsToInclude": ["Critical", "Security"]},
        },
    }
    sent(product, "PUT", one, {"location": "westeurope", "properties": properties})
    for machine in ids:
        half = "windowsConfiguration" if int(machine[-3:]) % 2 else "linuxConfiguration"
        sent(product, "PATCH", machine, {"properties": {"osProfile": {half: {"patchSettings": _SETTINGS}}}})
        assignment = {"location": "westeurope", "properties": {"maintenanceConfigurationId": one}}
        sent(product, "PUT", f"{machine}/providers/Microsoft.Maintenance/configurationAssignments/{name}", assignment)
    around = {"configurations": [one], "cancelOnPreFailure": cancel}
    document = {"scope": {"subscriptions": [SUBSCRIPTION]}, "maintenance": around, **policy}
    reply = product.api.put(f"/api/policies/{name}", json=document)
    assert reply.status_code == 201, reply.text
    return one


def sent(product: Product, method: str, path: str, body: Json) -> None:
    version = {"api-version": "2025-04-01"} if method == "PATCH" else _API
    reply = product.azure.request(method, path, params=version, json=body)
    assert reply.is_success, reply.text


def fire(product: Product, configuration: str, *, minutes: int = 40, **delivery: Any) -> Json:
    told = product.azure.post("/_sim/maintenance", json={"configuration": configuration} | delivery)
    assert told.status_code == 200, told.text
    fired = {"configuration": configuration, "inMinutes": minutes}
    return product.azure.post("/_sim/maintenance/fire", json=fired).json()


def maintenance_run(product: Product, policy: str) -> Json:
    """The run of the policy, once it has ended."""

    def found() -> str | None:
        runs: list[Json] = product.api.get("/api/runs").json()["runs"]
        return next((run["id"] for run in runs if run["policy"] == policy), None)

    return product.wait(wait_until(found, what=lambda: "no run was created"))


def rows(product: Product, run_id: str) -> dict[str, Json]:
    machines: list[Json] = product.api.get(f"/api/runs/{run_id}/machines").json()["machines"]
    return {row["id"].lower(): row for row in machines}


@pytest.mark.bench
def test_a_scheduled_run_gets_one_maintenance_run_and_its_machines_keep_their_power_state(product: Product) -> None:
    """How far pre maintenance gets depends on how busy this machine is; the guarantees do not."""
    (stopped,) = product.take(power="deallocated")
    (running,) = product.take()
    configuration = prepare(
        product, "around", [stopped, running], startStopped=True, hooks={"snapshot": {}, "before": _SCRIPTS}
    )
    fire(product, configuration, minutes=60, duplicates=2, casing="camel", schema="CloudEvents")
    run = maintenance_run(product, "around")
    assert (run["mode"], run["state"], run["machines"]) == ("maintenance", "completed", 2)
    assert sum(run["countsByOutcome"].values()) == 2
    found = rows(product, run["id"])
    assert found[running.lower()]["updateManagerStatus"] == "Succeeded"
    assert found[running.lower()]["installation"]["installed"] == 3
    assert found[running.lower()]["assessment"]["criticalAndSecurity"] == 0
    assert wait_until(lambda: product.state(stopped)["power"] == "deallocated", what=lambda: "it still runs")
    assert product.state(running)["power"] == "running"
    sent_to = [
        each["path"].rpartition("/")[2] for each in product.requests(stopped, "power") if each["method"] == "POST"
    ]
    assert sent_to in ([], ["start", "deallocate"])
    assert found[stopped.lower()]["poweredOn"] == bool(sent_to)
    assert [each for each in product.requests(running, "power") if each["method"] == "POST"] == []
