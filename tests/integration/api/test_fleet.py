"""What the machines are set to, over HTTP: the fleet is the simulator's, one machine for each of eight scenarios."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from patchwave.api import fleet
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.factories import NOW
from tests.support.fleet_api import CONFIGURATION, SCENARIOS, SUBSCRIPTION, azure, machine_id, simulator
from tests.support.http_calls import POLICY, call

__all__ = ["azure", "simulator"]

PATCHED_BY = {1: "schedule", 2: "none", 3: "none", 4: "platform"} | dict.fromkeys(range(5, 9), "operating_system")


async def modes(**query: str) -> dict[str, Any]:
    answered = await call(fleet.list_fleet_modes, query=query)
    assert answered.status == 200, answered.text
    return answered.json


@pytest.mark.parametrize("number", SCENARIOS)
async def test_each_scenario_as_azure_shows_it(azure: httpx.AsyncClient, number: int):
    [machine] = (await modes(machine=machine_id(f"scenario-{number}")))["machines"]
    mode, bypass, is_scheduled = SCENARIOS[number]
    assert machine["scenario"] == number
    assert machine["patchedBy"] == PATCHED_BY[number]
    assert (machine["settings"]["patchMode"], machine["settings"]["bypass"]) == (mode, bypass)
    assert machine["settings"]["assessmentMode"] == "AutomaticByPlatform"
    assert [each.lower() for each in machine["schedules"]] == ([CONFIGURATION.lower()] if is_scheduled else [])
    assert machine["isMistake"] == (number in (3, 5, 7))
    assert (machine["at"] is not None) == (number == 1)
    assert machine["image"].startswith("Canonical:0001-com-ubuntu-server-jammy:22_04-lts")
    assert machine["powerState"] == "running"
    assert machine["agentVersion"] == "2.11.1.12"


async def test_the_counts_add_up_and_a_filter_leaves_them_alone(azure: httpx.AsyncClient):
    found = await modes(patchedBy="schedule,platform", limit="1")
    assert len(found["machines"]) == 1
    counts = found["counts"]
    assert counts["machines"] == 10
    assert counts["byPatcher"] == {"schedule": 1, "platform": 1, "operating_system": 5, "none": 2, "unknown": 1}
    assert counts["byPatchMode"] == {"AutomaticByPlatform": 5, "ImageDefault": 5}
    assert counts["byAssessmentMode"] == {"AutomaticByPlatform": 10}
    assert counts["mistakes"] == 3


async def test_whether_azure_takes_an_image_that_the_table_lacks_is_unknown(azure: httpx.AsyncClient):
    [machine] = (await modes(machine=machine_id("unlisted")))["machines"]
    assert (machine["scenario"], machine["patchedBy"]) == (4, "unknown")
    assert "not in the table of 2026-12-01" in machine["sentence"]
    assert (machine["eligibility"]["imageSupport"], machine["eligibility"]["obstacles"]) == ("unknown", [])


async def test_a_setting_adds_images(azure: httpx.AsyncClient, services: Services):
    added = services.settings.model_copy(update={"supported_images": "Canonical:ubuntu-26_04-lts:*"})
    vars(services).update(_settings=added)
    [machine] = (await modes(machine=machine_id("unlisted")))["machines"]
    assert (machine["patchedBy"], machine["eligibility"]["imageSupport"]) == ("platform", "listed")


async def test_policies_of_patchwave_count(azure: httpx.AsyncClient, storage: Storage):
    document = {
        "name": "monthly",
        **POLICY,
        "scope": {"machineIds": [machine_id("scenario-2"), machine_id("scenario-4")]},
        "schedule": {"recurrence": "2099-01-05", "time": "20:00", "timeZone": "UTC", "window": "PT4H"},
    }
    await storage.policies.put("monthly", document, if_match=None, if_none_match=True, at=NOW)
    machines = {machine["name"]: machine for machine in (await modes())["machines"]}
    covered = machines["scenario-2"]
    assert (covered["patchedBy"], covered["policies"]) == ("policy", ["monthly"])
    assert covered["sentence"].endswith("Covered by the policy monthly of Patchwave.")
    assert (machines["scenario-4"]["patchedBy"], machines["scenario-4"]["policies"]) == ("platform", ["monthly"])
    assert machines["scenario-8"]["policies"] == []


async def test_the_table_of_machines_that_are_not_eligible(azure: httpx.AsyncClient):
    answered = await call(fleet.list_fleet_eligibility)
    assert answered.status == 200, answered.text
    found = answered.json
    assert (found["machines"], found["eligible"]) == (10, 10 - len(found["ineligible"]))
    reasons = {
        machine["name"]: [obstacle["cause"] for obstacle in machine["eligibility"]["obstacles"]]
        for machine in found["ineligible"]
    }
    assert reasons == {"old": ["old_agent"]}
    assert (found["unknown"], found["notes"]) == (1, [])
    assert (found["tableDated"], found["tableReadOn"]) == ("2024-07-31", "2026-12-01")
    [unlisted] = found["unlisted"]
    assert unlisted["name"] == "unlisted"
    assert "is not in the table of 2026-12-01" in unlisted["eligibility"]["imageNote"]
    assert found["byImage"] == {"listed": 9, "unknown": 1}
    assert sum(found["byCause"].values()) == sum(map(len, reasons.values()))


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ({"patchedBy": "magic"}, "patchedBy"),
        ({"subscription": "x"}, "subscriptions[0]"),
        ({"machine": "/subscriptions/x"}, "machineIds[0]"),
        ({"osType": "plan9"}, "osTypes[0]"),
        ({"limit": "0"}, "limit"),
    ],
)
async def test_a_query_that_is_none(azure: httpx.AsyncClient, query: dict[str, str], path: str):
    answered = await call(fleet.list_fleet_modes, query=query)
    assert (answered.status, answered.paths) == (400, [path])


async def test_the_scope_narrows(azure: httpx.AsyncClient):
    assert (
        len((await modes(subscription=SUBSCRIPTION, resourceGroup="RG-MODES", location="West Europe"))["machines"])
        == 10
    )
    assert (await modes(osType="Windows"))["machines"] == []
    assert (await modes(resourceGroup="rg-other"))["counts"]["machines"] == 0


async def test_azure_that_refuses_is_a_502(azure: httpx.AsyncClient):
    await azure.post("/_sim/faults", json={"match": {"operation": "graph"}, "effect": {"status": 403}})
    answered = await call(fleet.list_fleet_modes)
    assert answered.status == 502
    assert "could not be listed" in answered.problem["detail"]


async def test_unreadable_versions_of_agents_are_unknown_and_noted(azure: httpx.AsyncClient):
    rule = {"match": {"operation": "list"}, "effect": {"status": 403}}
    assert (await azure.post("/_sim/faults", json=rule)).status_code == 201
    found = (await call(fleet.list_fleet_eligibility)).json
    assert (found["unknown"], found["byCause"]) == (10, {})
    [note] = found["notes"]
    assert note.startswith(f"Some versions of VM agents in {SUBSCRIPTION} are not known: HTTP 403")


async def test_a_throttled_page_of_the_fleet_is_requested_again(azure: httpx.AsyncClient):
    rule = {"match": {"operation": "list"}, "effect": {"status": 429, "headers": {"Retry-After": "0"}}, "times": 1}
    assert (await azure.post("/_sim/faults", json=rule)).status_code == 201
    assert (await call(fleet.list_fleet_eligibility)).json["notes"] == []
