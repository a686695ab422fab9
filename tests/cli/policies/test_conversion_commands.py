"""``patchwave policy import`` and ``export`` against a service over HTTP."""

from __future__ import annotations

import pytest
import yaml
from starlette.responses import JSONResponse

from tests.cli.conftest import Patchwave
from tests.cli.service import Service, problem

CONFIGURATION = (
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg-updates"
    "/providers/Microsoft.Maintenance/maintenanceConfigurations/weekly"
)
WINDOW = "properties.maintenanceWindow"
POLICIES = [{"name": "weekly", "enabled": False}, {"name": "weekly-2", "enabled": False}]
IMPORTED = {
    "policies": POLICIES,
    "fields": [{"path": f"{WINDOW}.duration", "becomes": "schedule.window", "message": "All of [it]."}],
    "problems": [],
}
LOST = IMPORTED | {"problems": [{"path": f"{WINDOW}.recurEvery", "message": "6Hours has no place in a policy"}]}
ASSIGNMENT = {
    "id": "made-by-the-service",
    "name": "weekly-1a2b3c4d",
    "maintenanceConfigurationId": CONFIGURATION,
    "resourceId": "/subscriptions/11111111-2222-4333-8444-555555555555",
    "location": "",
    "filter": {"resourceTypes": [], "locations": ["westeurope"], "tagSettings": None},
}
MOVED_OUT = {
    "configuration": {
        "id": CONFIGURATION,
        "name": "weekly",
        "location": "westeurope",
        "tags": {},
        "systemData": None,
        "properties": {"namespace": None, "maintenanceWindow": {"duration": "02:00", "expirationDateTime": ""}},
    },
    "assignments": [ASSIGNMENT],
    "fields": [{"path": "rings", "becomes": "", "message": "Given up: it orders the machines."}],
}
MISSING = problem(404, "Not Found", "There is no such maintenance configuration.")


class TestImport:
    def test_prints_policies_to_save_and_notes_on_their_fields(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(IMPORTED)]
        result = patchwave("policy", "import", "--from-configuration", CONFIGURATION, "--name", "weekly")
        assert (result.code, list(yaml.safe_load_all(result.output))) == (0, POLICIES)
        assert "schedule.window  All of [it]." in " ".join(result.errors.split(" "))
        (asked,) = service.asked("POST", "/api/policies/import")
        assert asked["body"] == {"configurationId": CONFIGURATION, "name": "weekly"}

    def test_losses_are_listed_and_need_a_person(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(LOST)]
        result = patchwave("policy", "import", "--from-configuration", CONFIGURATION, "-o", "json")
        assert (result.code, result.document) == (1, LOST)
        assert f"not carried: {WINDOW}.recurEvery: 6Hours has no place in a policy" in result.errors

    def test_stores_them_disabled(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(IMPORTED)]
        result = patchwave("policy", "import", "--from-configuration", CONFIGURATION, "--apply")
        assert (result.code, result.output) == (
            0,
            "policy weekly created, disabled\npolicy weekly-2 created, disabled\n",
        )
        assert [policy["enabled"] for policy, _ in service.policies.values()] == [False, False]
        assert "still patches these machines" in result.errors

    def test_stores_them_enabled_on_request(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(IMPORTED)]
        patchwave("policy", "import", "--from-configuration", CONFIGURATION, "--apply", "--enabled")
        assert [policy["enabled"] for policy, _ in service.policies.values()] == [True, True]

    @pytest.mark.parametrize("options", [[], ["--enabled"]])
    def test_shows_what_it_would_store(self, patchwave: Patchwave, service: Service, options: list[str]):
        service.answers = [JSONResponse(IMPORTED)] * 3
        command = ["policy", "import", "--from-configuration", CONFIGURATION, *options]
        shown = list(yaml.safe_load_all(patchwave(*command).output))
        assert patchwave(*command, "-o", "json").document["policies"] == shown
        patchwave(*command, "--apply")
        assert [policy for policy, _ in service.policies.values()] == shown
        assert [policy["enabled"] for policy in shown] == [bool(options)] * 2

    def test_stores_nothing_that_means_something_else(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(LOST)]
        result = patchwave("policy", "import", "--from-configuration", CONFIGURATION, "--apply")
        assert (result.code, service.policies) == (2, {})
        assert f"{WINDOW}.recurEvery: 6Hours" in result.errors

    def test_replaces_no_policy(self, patchwave: Patchwave, service: Service):
        service.policies = {"weekly-2": ({"name": "weekly-2"}, 1)}
        service.answers = [JSONResponse(IMPORTED)]
        result = patchwave("policy", "import", "--from-configuration", CONFIGURATION, "--apply")
        assert (result.code, list(service.policies)) == (2, ["weekly-2"])
        assert "there is a policy weekly-2; give another --name" in result.errors

    def test_takes_the_short_form_of_an_id(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(IMPORTED)]
        patchwave("policy", "import", "--from-configuration", "11111111-2222-4333-8444-555555555555/rg-updates/weekly")
        assert service.requests[0]["body"] == {"configurationId": CONFIGURATION}


class TestExport:
    ARGUMENTS = ("policy", "export", "monthly", "--as-configuration", CONFIGURATION, "--location", "westeurope")

    def test_prints_the_body_of_the_configuration(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(MOVED_OUT)]
        result = patchwave(*self.ARGUMENTS, "--allow-loss", "rings")
        assert (result.code, yaml.safe_load(result.output)) == (
            0,
            {"location": "westeurope", "properties": {"maintenanceWindow": {"duration": "02:00"}}},
        )
        (asked,) = service.asked("POST", "/api/policies/monthly/export")
        assert asked["body"] == {"configurationId": CONFIGURATION, "location": "westeurope", "allowLoss": ["rings"]}
        assert "Given up: it orders the machines." in result.errors
        assert "locations westeurope" in result.errors

    def test_the_whole_document(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(MOVED_OUT)]
        assert patchwave(*self.ARGUMENTS, "-o", "json").document == MOVED_OUT

    def test_every_reason_is_listed(self, patchwave: Patchwave, service: Service):
        errors = (("rings", "orders the machines"), ("enabled", "is false"))
        service.answers = [problem(422, "Unprocessable Content", "A schedule cannot carry all of the policy.", *errors)]
        result = patchwave(*self.ARGUMENTS)
        assert result.code == 2
        assert all(f"{path}: {message}" in result.errors for path, message in errors)

    def test_a_whole_subscription_is_assigned_on_purpose(self, patchwave: Patchwave, service: Service):
        whole = ASSIGNMENT | {"filter": {"resourceTypes": ["microsoft.compute/virtualmachines"]}}
        moved = MOVED_OUT | {"assignments": [whole], "allMachines": True}
        service.answers = [JSONResponse(moved), MISSING, JSONResponse({}, 201), JSONResponse({})]
        assert patchwave(*self.ARGUMENTS, "--apply").code == 0
        (asked,) = service.asked("PUT", "/api/maintenance/assignments")
        assert asked["body"]["allMachines"] is True
        assert "filter" not in asked["body"]

    def test_creates_the_configuration_and_its_assignments(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(MOVED_OUT), MISSING, JSONResponse({}), JSONResponse({})]
        result = patchwave(*self.ARGUMENTS, "--apply", "--actor", "ana")
        assert (result.code, result.output) == (0, f"configuration {CONFIGURATION} created with 1 assignments\n")
        made, assigned = service.requests[2:]
        assert (made["method"], made["body"]["location"]) == ("PUT", "westeurope")
        assert (assigned["path"], assigned["query"]) == ("/api/maintenance/assignments", {"actor": "ana"})
        assert assigned["body"]["configurationId"] == CONFIGURATION
        assert assigned["body"]["resourceId"] == ASSIGNMENT["resourceId"]
        assert assigned["body"]["filter"] == ASSIGNMENT["filter"]
        assert "disable the policy monthly" in result.errors

    def test_replaces_no_configuration(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(MOVED_OUT), JSONResponse({"configuration": {}})]
        result = patchwave(*self.ARGUMENTS, "--apply")
        assert (result.code, len(service.requests)) == (2, 2)
        assert "give another id, or delete it" in result.errors
