"""Import and export over HTTP: nothing is stored, nothing is changed, and every refusal says what to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from dataclasses import dataclass, field
from typing import Any

import pytest

from patchwave.api import policy_conversion
from patchwave.api.policies import put_policy
from patchwave.azure.resource_graph import QueryPage, QueryRefused
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.ids import ConfigurationId
from patchwave.domain.fleet.discovery import DiscoveryQuery
from patchwave.domain.maintenance.assignment import assignment_id
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration, read_configuration
from patchwave.services import maintenance_assignments
from patchwave.settings import load_settings
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.factories import NOW
from tests.support.http_calls import SUBSCRIPTION, call

ID = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-schedules"
    "/providers/Microsoft.Maintenance/maintenanceConfigurations/Weekly"
)
MACHINE = f"/subscriptions/{SUBSCRIPTION}/resourcegroups/rg/providers/microsoft.compute/virtualmachines/vm-1"
BODY: dict[str, Any] = {
    "id": ID.lower(),
    "name": "Weekly",
    "location": "westeurope",
    "properties": {
        "extensionProperties": {"InGuestPatchMode": "User"},
        "maintenanceScope": "InGuestPatch",
        "maintenanceWindow": {
            "startDateTime": "2026-10-06 22:00",
            "duration": "02:00",
            "timeZone": "W. Europe Standard Time",
            "recurEvery": "Week Tuesday",
        },
        "installPatches": {
            "windowsParameters": {"classificationsToInclude": ["Security"]},
            "linuxParameters": {"classificationsToInclude": ["Security"]},
        },
    },
}


@dataclass
class Azure:
    """What Azure answers, and what it was asked."""

    answer: dict[str, Any] | ArmFailure = field(default_factory=lambda: BODY)
    refusal: QueryRefused | None = None
    queries: list[str] = field(default_factory=list[str])
    read_ids: list[str] = field(default_factory=list[str])

    async def read(self, configuration: ConfigurationId) -> MaintenanceConfiguration | ArmFailure:
        """The configuration."""
        self.read_ids.append(configuration.folded)
        if isinstance(self.answer, ArmFailure):
            return self.answer
        found = read_configuration(self.answer)
        assert found is not None
        return found

    async def pages(self, queries: Iterable[DiscoveryQuery]) -> AsyncIterator[QueryPage]:
        """Two pages: one assignment, and a row that is none."""
        self.queries += [query.text for query in queries]
        await asyncio.sleep(0)
        if self.refusal is not None:
            raise self.refusal
        properties = {"maintenanceConfigurationId": ID.lower(), "resourceId": MACHINE}
        yield QueryPage([{"id": assignment_id(MACHINE, "weekly"), "name": "weekly", "properties": properties}], "more")
        yield QueryPage([{"id": "nothing of ours"}])


@pytest.fixture
async def azure(services: Services) -> Azure:
    found = Azure()
    vars(services).update(maintenance=found, resource_graph=found)
    return found


async def test_a_configuration_as_policies(azure: Azure) -> None:
    answered = await call(policy_conversion.import_policy, body={"configurationId": ID})
    assert answered.status == 200, answered.text
    (policy,) = answered.json["policies"]
    assert (policy["name"], policy["scope"]["machineIds"]) == ("weekly", [MACHINE])
    assert answered.json["problems"] == []
    assert ID in azure.queries[0]
    assert azure.read_ids == [ID.lower()]


async def test_the_policy_has_the_requested_name(azure: Azure) -> None:
    answered = await call(policy_conversion.import_policy, body={"configurationId": ID, "name": "servers"})
    assert [policy["name"] for policy in answered.json["policies"]] == ["servers"]


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "configurationId"),
        ({"configurationId": "weekly"}, "configurationId"),
        ({"configurationId": ID, "name": "No Name"}, "name"),
        ({"configurationId": ID, "apply": True}, "apply"),
    ],
)
async def test_a_request_to_import_that_is_wrong(azure: Azure, body: dict[str, Any], path: str) -> None:
    answered = await call(policy_conversion.import_policy, body=body)
    assert (answered.status, answered.problem["errors"][0]["path"]) == (400, path)


async def test_a_refusal_of_azure_is_passed_on(azure: Azure) -> None:
    azure.answer = ArmFailure(status=404, code="ResourceNotFound", message="gone")
    assert (await call(policy_conversion.import_policy, body={"configurationId": ID})).status == 404
    azure.answer = BODY
    azure.refusal = QueryRefused("No role.")
    answered = await call(policy_conversion.import_policy, body={"configurationId": ID})
    assert (answered.status, "No role." in answered.problem["detail"]) == (502, True)


async def test_machines_outside_of_the_boundary_are_refused_before_any_policy_is_stored(
    azure: Azure, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATCHWAVE_SUBSCRIPTIONS", "99999999-2222-4333-8444-555555555555")
    load_settings.cache_clear()
    answered = await call(policy_conversion.import_policy, body={"configurationId": ID})
    [problem] = answered.json["problems"]
    assert problem["path"] == "policies[0].scope.machineIds[0]"
    assert f"{SUBSCRIPTION} is not in PATCHWAVE_SUBSCRIPTIONS" in problem["message"]
    # A PUT of it is refused all the same.
    [policy] = answered.json["policies"]
    refused = await call(put_policy, body=policy, name=policy["name"])
    assert (refused.status, refused.paths) == (400, ["scope.machineIds[0]"])


async def test_slow_assignments_are_requested_again(azure: Azure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(maintenance_assignments, "MAX_SECONDS", -1.0)
    answered = await call(policy_conversion.import_policy, body={"configurationId": ID})
    assert (answered.status, answered.headers["Retry-After"]) == (503, "60")


@pytest.fixture
async def weekly(storage: Storage) -> str:
    """The name of a stored policy that a schedule can carry but for its care."""
    document = {
        "name": "weekly",
        "scope": {"subscriptions": [SUBSCRIPTION]},
        "schedule": {"recurrence": "RRULE:FREQ=WEEKLY;BYDAY=TU", "time": "22:00", "timeZone": "UTC", "window": "PT2H"},
    }
    await storage.policies.put("weekly", document, if_match=None, if_none_match=True, at=NOW)
    return "weekly"


async def test_a_policy_as_a_configuration(weekly: str) -> None:
    body = {"configurationId": ID, "location": "westeurope", "allowLoss": ["maxConcurrent", "separateZones"]}
    answered = await call(policy_conversion.export_policy, name=weekly, body=body)
    assert answered.status == 200, answered.text
    made = answered.json["configuration"]
    assert made["properties"]["maintenanceWindow"]["recurEvery"] == "Week Tuesday"
    assert [each["resourceId"] for each in answered.json["assignments"]] == [f"/subscriptions/{SUBSCRIPTION}"]
    given_up = {field["path"] for field in answered.json["fields"] if field["message"].startswith("Given up")}
    assert given_up == {"maxConcurrent", "separateZones"}


async def test_what_no_schedule_can_carry_is_refused_by_key(weekly: str) -> None:
    answered = await call(
        policy_conversion.export_policy, name=weekly, body={"configurationId": ID, "location": "westeurope"}
    )
    assert answered.status == 422
    assert {error["path"] for error in answered.problem["errors"]} == {"maxConcurrent", "separateZones"}


async def test_an_unknown_policy_and_a_wrong_request(storage: Storage, weekly: str) -> None:
    body = {"configurationId": ID, "location": "westeurope"}
    assert (await call(policy_conversion.export_policy, name="other", body=body)).status == 404
    assert (await call(policy_conversion.export_policy, name="No Name", body=body)).status == 404
    answered = await call(policy_conversion.export_policy, name=weekly, body=body | {"location": ""})
    assert (answered.status, answered.problem["errors"][0]["path"]) == (400, "location")
