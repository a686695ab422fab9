"""Assignments over HTTP against the simulator: those of Microsoft's document, dynamic scopes, limits."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from patchwave.api import maintenance_assignments
from patchwave.azure.maintenance import Maintenance
from patchwave.domain.core.ids import MachineId
from tests.integration.api.maintenance.support import OTHER, assign, audit, callers, put
from tests.support.http_calls import call
from tests.support.maintenance_samples import ASSIGNMENT, CONFIGURATION, GROUP, MACHINE, SUBSCRIPTION

ASSIGNED = f"{MACHINE}/providers/Microsoft.Maintenance/configurationAssignments/TestAzureInGuestAdv"


async def test_associate_a_machine_with_a_schedule_and_remove_it(azure: httpx.AsyncClient) -> None:
    """PUT and DELETE of the document, and its query of Resource Graph for the names."""
    wanted = ASSIGNMENT["properties"]["maintenanceConfigurationId"]
    assert (await put("TestAzureInGuestIntermediate2")).status == 201
    body = {"configurationId": wanted, "resourceId": MACHINE, "location": ASSIGNMENT["location"]}
    made = await assign(**body, name="TestAzureInGuestAdv")
    assert made.status == 200, made.text
    assert made.json["nextRun"]
    there = (await azure.get(ASSIGNED)).json()
    assert there["properties"]["maintenanceConfigurationId"].lower() == wanted.lower()
    assert there["properties"]["resourceId"].lower() == MACHINE.lower()
    # A second name for the same is what people make with several tools.
    assert (await assign(**body, name="second")).status == 200
    query = {"machine": MACHINE, "configuration": wanted, "reason": "it is retired"}
    removed = await call(maintenance_assignments.remove_assignments, query=query)
    assert removed.status == 200, removed.text
    assert sorted(each.rpartition("/")[2].lower() for each in removed.json["removed"]) == [
        "second",
        "testazureinguestadv",
    ]
    assert (await azure.get(ASSIGNED)).status_code == 404
    assert (await call(maintenance_assignments.remove_assignments, query=query)).status == 404


async def test_a_dynamic_scope_is_assigned_and_its_machines_say_so(azure: httpx.AsyncClient) -> None:
    await put()
    criteria = {
        "osTypes": ["Linux"],
        "locations": ["eastus2euap"],
        "tagSettings": {"tags": {"env": ["test", "stage"]}, "filterOperator": "Any"},
    }
    made = await assign(resourceId=GROUP, filter=criteria)
    assert made.status == 200, made.text
    assert made.json["dynamic"] is True
    there = (await azure.get(made.json["assignment"]["id"])).json()
    assert there["properties"]["filter"] == {"resourceGroups": None, "resourceTypes": None} | criteria
    assert (await assign(resourceId=GROUP, filter=criteria)).json["assignment"]["id"] == made.json["assignment"]["id"]
    held = (await call(maintenance_assignments.list_assignments, query={"machine": OTHER})).json
    assert [(each["dynamic"], bool(each["nextRun"])) for each in held["assignments"]] == [(True, True)]
    assert (await call(maintenance_assignments.list_assignments, query={"machine": MACHINE})).json["assignments"] == []
    of_it = (await call(maintenance_assignments.list_assignments, query={"configuration": CONFIGURATION})).json[
        "assignments"
    ]
    assert [each["assignment"]["name"] for each in of_it] == [made.json["assignment"]["name"].lower()]
    still = await call(
        maintenance_assignments.remove_assignments,
        query={"machine": OTHER, "configuration": CONFIGURATION, "reason": "x"},
    )
    assert (still.json["removed"], len(still.json["stillAssigned"])) == ([], 1)
    one = await call(
        maintenance_assignments.remove_assignments,
        query={"assignment": made.json["assignment"]["id"], "reason": "moved"},
    )
    assert [each.lower() for each in one.json["removed"]] == [made.json["assignment"]["id"].lower()]
    assert await audit() == ["configuration_written", "assignment_written", "assignment_written", "assignment_removed"]
    assert await callers() == {("ana (claimed)", "", False), ("api", "", False)}


async def test_what_an_assignment_may_not_be(azure: httpx.AsyncClient) -> None:
    await put()
    assert (await assign(resourceId=GROUP, filter={"osTypes": ["Linux"]})).paths == ["filter.locations"]
    assert (await assign(resourceId=MACHINE.replace("virtualMachines", "disks"))).paths == ["resourceId"]
    assert (await assign(resourceId=MACHINE, name="a/b")).paths == ["name"]
    assert (await assign(configurationId="x", resourceId=MACHINE)).paths == ["configurationId"]
    assert (await assign(resourceId=MACHINE, extra=1)).paths == ["extra"]
    missing = await assign(configurationId=CONFIGURATION + "x", resourceId=MACHINE)
    assert (missing.status, missing.problem["detail"]) == (404, "There is no such maintenance configuration.")
    missing = await assign(resourceId=MACHINE + "x")
    assert missing.status == 404
    for query in ({}, {"machine": "x"}, {"configuration": "x"}, {"machine": MACHINE, "configuration": CONFIGURATION}):
        assert (await call(maintenance_assignments.list_assignments, query=query)).status == 400
    for query in ({"machine": MACHINE}, {"assignment": "x"}):
        assert (await call(maintenance_assignments.remove_assignments, query=query | {"reason": "x"})).status == 400


WHOLE = f"/subscriptions/{SUBSCRIPTION}"


@pytest.mark.parametrize(
    "given",
    [
        {},
        {"filter": {}},
        {"filter": {"tagSettings": {"tags": {}}}},
        {"filter": {"resourceTypes": ["microsoft.compute/virtualmachines"], "osTypes": ["Linux", "Windows"]}},
    ],
)
async def test_a_whole_subscription_is_assigned_on_purpose_only(azure: httpx.AsyncClient, given: Any) -> None:
    await put()
    refused = await assign(resourceId=WHOLE, **given)
    assert (refused.status, refused.paths) == (400, ["filter"])
    assert "--all-machines" in refused.problem["errors"][0]["message"]
    there = await azure.get(f"{WHOLE}/providers/Microsoft.Maintenance/configurationAssignments")
    assert there.json()["value"] == []
    meant = await assign(resourceId=WHOLE, allMachines=True, **given)
    assert (meant.status, meant.json["matching"]) == (200, 2)


async def test_all_machines_and_a_filter_contradict_each_other(azure: httpx.AsyncClient) -> None:
    await put()
    both = await assign(resourceId=WHOLE, allMachines=True, filter={"osTypes": ["Linux"]})
    assert (both.status, both.paths) == (400, ["allMachines"])
    assert (await assign(resourceId=MACHINE, allMachines=True)).paths == ["allMachines"]


async def test_the_answer_counts_the_machines_that_match_now(azure: httpx.AsyncClient) -> None:
    await put()
    one = await assign(resourceId=WHOLE, filter={"tagSettings": {"tags": {"ENV": ["prod", "stage"]}}})
    assert (one.status, one.json["matching"], one.json["notes"]) == (200, 1, [])
    none = await assign(resourceId=WHOLE, filter={"locations": ["westeurope"]})
    assert (none.json["matching"], none.json["notes"]) == (0, ["No machine matches now."])
    assert (await assign(resourceId=MACHINE)).json["matching"] is None


async def test_the_same_filter_in_another_order_or_case_is_the_same_assignment(azure: httpx.AsyncClient) -> None:
    await put()
    tags = {"tagSettings": {"tags": {"env": ["prod", "test"]}}}
    first = await assign(resourceId=WHOLE, filter=tags | {"locations": ["eastus2euap", "westeurope"]})
    spelled = {"tagSettings": {"tags": {"ENV": ["Test", "prod"]}, "filterOperator": "any"}}
    again = await assign(resourceId=WHOLE, filter={"locations": ["West Europe", "EastUS2EUAP"]} | spelled)
    assert again.status == 200, again.text
    assert again.json["assignment"]["id"] == first.json["assignment"]["id"]
    listed = await call(maintenance_assignments.list_assignments, query={"configuration": CONFIGURATION})
    assert len(listed.json["assignments"]) == 1


async def test_what_another_tool_has_assigned_under_another_name_is_not_assigned_twice(
    azure: httpx.AsyncClient,
) -> None:
    await put()
    criteria = {"osTypes": ["linux"], "locations": ["eastus2euap"]}
    properties = {"maintenanceConfigurationId": CONFIGURATION, "filter": criteria}
    portal = f"{WHOLE}/providers/Microsoft.Maintenance/configurationAssignments/Portal-One"
    made = await azure.put(portal, json={"location": "global", "properties": properties})
    assert made.status_code == 200, made.text
    again = await assign(resourceId=WHOLE, filter={"locations": ["East US 2 EUAP"], "osTypes": ["Linux"]})
    assert (again.status, again.json["assignment"]["name"].lower()) == (200, "portal-one")
    there = await azure.get(f"{WHOLE}/providers/Microsoft.Maintenance/configurationAssignments")
    assert len(there.json()["value"]) == 1
    named = await assign(resourceId=WHOLE, filter=criteria, name="second")
    assert named.json["assignment"]["name"] == "second"


async def test_a_name_is_not_taken_from_another_configuration(azure: httpx.AsyncClient) -> None:
    await put()
    await put("second")
    assert (await assign(resourceId=MACHINE, name="one")).status == 200
    taken = await assign(
        configurationId=CONFIGURATION.replace("TestAzureInGuestAdv2", "second"), resourceId=MACHINE, name="one"
    )
    assert taken.status == 409
    assert "give another name" in taken.problem["detail"]


async def test_limits_of_machines_are_counted_in_resource_graph(
    azure: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put()
    assert (await assign(resourceId=MACHINE)).status == 200
    monkeypatch.setattr("patchwave.domain.maintenance.assignment.MAX_IN_DYNAMIC_SCOPE", 1)
    many = await assign(resourceId=GROUP, filter={"locations": ["eastus2euap"]})
    assert "matches 2 machines; a dynamic scope holds at most 1" in many.problem["errors"][0]["message"]
    monkeypatch.setattr("patchwave.domain.maintenance.assignment.MAX_ASSOCIATIONS", 1)
    monkeypatch.setattr("patchwave.services.maintenance_assignments.MAX_ASSOCIATIONS", 1)
    full = await assign(resourceId=OTHER)
    assert "would have 2 machines; a schedule holds at most 1" in full.problem["errors"][0]["message"]


async def test_what_a_machine_that_is_gone_left_behind_is_removed(
    azure: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own list is gone with it; Resource Graph still knows the assignment."""
    await put()
    made = await assign(resourceId=MACHINE)
    exact = Maintenance.assignments_of

    async def gone(self: Maintenance, machine: MachineId) -> Any:
        return await exact(self, MachineId.parse(machine.text + "-gone"))

    monkeypatch.setattr(Maintenance, "assignments_of", gone)
    query = {"machine": MACHINE, "configuration": CONFIGURATION, "reason": "deleted"}
    removed = await call(maintenance_assignments.remove_assignments, query=query)
    assert [each.lower() for each in removed.json["removed"]] == [made.json["assignment"]["id"].lower()]
