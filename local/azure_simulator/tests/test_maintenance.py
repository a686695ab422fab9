"""Microsoft.Maintenance on the wire: configurations and assignments, with the habits that were recorded."""

from __future__ import annotations

import json
import time

import pytest

from local import ROOT
from tests.support.maintenance_requests import API, PROVIDER, body, configuration_id, made, put
from tests.support.simulator import GROUP, SUBSCRIPTION, Json, Simulator

CASES = ROOT / "tests" / "cases"


def test_a_configuration_is_made_read_changed_and_deleted(simulator: Simulator) -> None:
    one = configuration_id("Nightly")
    created = put(simulator, one, body())
    assert created.status_code == 200
    document = created.json()
    assert document["tags"] == {}
    assert "namespace" not in document["properties"]
    assert document["properties"]["configurationType"] == "Regular"
    assert document["properties"]["maintenanceWindow"]["expirationDateTime"] == "9999-12-31 23:59:59"
    assert document["id"].endswith("/resourcegroups/rg-maintenance" + PROVIDER + "/maintenanceConfigurations/Nightly")
    read = simulator.http.get(one, params=API).json()
    assert "/providers/microsoft.maintenance/maintenanceconfigurations/Nightly" in read["id"]
    change = {"tags": {"a": "b"}, "properties": {"maintenanceWindow": {"duration": "03:00"}}}
    changed = simulator.http.patch(one, params=API, json=change)
    assert changed.json()["tags"] == {"a": "b"}
    assert changed.json()["id"] == read["id"]
    assert changed.json()["properties"]["maintenanceWindow"]["duration"] == "03:00"
    assert changed.json()["properties"]["maintenanceWindow"]["recurEvery"] == "Day"
    listed = simulator.http.get(one.rpartition("/")[0], params=API).json()["value"]
    assert "Nightly" in [each["name"] for each in listed]
    gone = simulator.http.delete(one, params=API)
    assert (gone.status_code, gone.content) == (200, b"")
    assert simulator.http.delete(one, params=API).status_code == 204
    missing = simulator.http.get(one, params=API)
    assert missing.status_code == 404
    assert missing.json()["Error"]["Code"] == "NotFound"


@pytest.mark.parametrize(
    "window",
    [
        {"duration": "01:29"},
        {"duration": "03:56"},
        {"duration": "two hours"},
        {"recurEvery": "5Hours"},
        {"recurEvery": "Month Third Sunday Offset7"},
        {"timeZone": "Europe/Berlin"},
        {"startDateTime": "05.01.2030"},
        {"expirationDateTime": "2020-01-01 00:00"},
        {"recurEvery": "Month"},
        {"recurEvery": "3Months"},
        {"startDateTime": "2030-03-31 02:30"},
    ],
)
def test_a_window_outside_the_limits_is_refused(simulator: Simulator, window: Json) -> None:
    refused = put(simulator, configuration_id("refused"), body(**window))
    assert refused.status_code == 400
    assert refused.json()["Error"]["Message"]


@pytest.mark.parametrize(
    ("window", "visibility"),
    [
        ({"startDateTime": "2030-03-31 03:00"}, "custom"),
        ({"startDateTime": "2030-10-27 02:30"}, "PUBLIC"),  # comes twice
        ({"timeZone": "Kamchatka Standard Time"}, "Custom"),
        ({"timeZone": "Mid-Atlantic Standard Time"}, "Custom"),
        ({"recurEvery": "Month day31"}, "Custom"),
    ],
)
def test_what_azure_takes(simulator: Simulator, window: Json, visibility: str) -> None:
    document = body(**window)
    document["properties"]["visibility"] = visibility
    taken = put(simulator, configuration_id("Taken"), document)
    assert taken.status_code == 200, taken.text


@pytest.mark.parametrize("name", ["dst-gap-start", "month-only"])
def test_a_body_that_azure_refuses(simulator: Simulator, name: str) -> None:
    refused = put(simulator, configuration_id("Refused"), json.loads((CASES / f"{name}.json").read_text()))
    assert refused.status_code == 400
    assert refused.json()["Error"]["Code"] == "BadRequest"


@pytest.mark.parametrize(
    ("sent", "answered"), [("Always", "AlwaysReboot"), ("Never", "NeverReboot"), ("IfRequired", "IfRequired")]
)
def test_reboot_settings_are_answered_in_azure_s_words(simulator: Simulator, sent: str, answered: str) -> None:
    document = body()
    document["properties"]["installPatches"]["rebootSetting"] = sent
    path = configuration_id("Reboots")
    assert put(simulator, path, document).json()["properties"]["installPatches"]["rebootSetting"] == answered
    assert simulator.http.get(path, params=API).json()["properties"]["installPatches"]["rebootSetting"] == answered
    change = {"properties": {"installPatches": {"rebootSetting": sent}}}
    patched = simulator.http.patch(path, params=API, json=change).json()
    assert patched["properties"]["installPatches"]["rebootSetting"] == answered


def test_a_stored_body_in_azure_s_words_can_be_sent_back(simulator: Simulator) -> None:
    stored = json.loads((CASES / "reboot-word-neverreboot.json").read_text())
    taken = put(simulator, configuration_id("Stored"), stored)
    assert taken.json()["properties"]["installPatches"] == stored["properties"]["installPatches"]


def test_a_configuration_of_guests_needs_the_patch_mode(simulator: Simulator) -> None:
    document = body()
    document["properties"]["extensionProperties"] = {}
    refused = put(simulator, configuration_id("refused"), document)
    assert refused.json()["Error"]["Message"] == "Extension properties must contain Patch mode"


def test_a_machine_is_assigned_and_removed(simulator: Simulator) -> None:
    configuration, machine = made(simulator, "For-One"), simulator.take()
    path = f"{machine}{PROVIDER}/configurationAssignments/mine"
    document = {"location": "westeurope", "properties": {"maintenanceConfigurationId": configuration}}
    created = put(simulator, path, document).json()
    assert created["location"] == "westeurope"
    assert created["properties"] == {
        "maintenanceConfigurationId": configuration.lower(),
        "resourceId": machine.lower(),
    }
    scope, name = machine.lower(), machine.rpartition("/")[2].lower()
    assert created["id"] == f"{scope}{PROVIDER}/configurationAssignments/mine"
    read = simulator.http.get(path, params=API).json()
    assert "location" not in read
    assert read["properties"] == created["properties"]
    documented = scope.rpartition("/providers/")[0] + f"/providers/Microsoft.Compute/virtualMachines/{name}"
    assert read["id"] == f"{documented}{PROVIDER}/configurationAssignments/mine"
    assert simulator.http.get(path.rpartition("/")[0], params=API).json() == {"value": [read]}
    assert simulator.http.delete(path, params=API).status_code == 200
    assert simulator.http.delete(path, params=API).status_code == 204
    assert simulator.http.get(path, params=API).json()["Error"]["Code"] == "NotFound"


def test_a_dynamic_scope_of_a_group_names_locations(simulator: Simulator) -> None:
    configuration = made(simulator, "For-Many")
    path = f"{GROUP}{PROVIDER}/configurationAssignments/web"
    filter_: Json = {"tagSettings": {"tags": {"role": ["web"]}, "filterOperator": "Any"}, "osTypes": ["Linux"]}
    properties: Json = {"maintenanceConfigurationId": configuration, "filter": filter_}
    assert put(simulator, path, {"properties": properties}).status_code == 400
    filter_["locations"] = ["westeurope"]
    created = put(simulator, path, {"location": "global", "properties": properties}).json()
    assert created == {
        "location": "global",
        "properties": {
            "maintenanceConfigurationId": configuration,
            "resourceId": GROUP.lower(),
            "filter": {
                "tagSettings": {"tags": {"role": ["web"]}, "filterOperator": "Any"},
                "resourceTypes": None,
                "locations": ["westeurope"],
                "resourceGroups": None,
                "osTypes": ["Linux"],
            },
        },
        "id": f"{GROUP.lower()}/providers/microsoft.maintenance/configurationassignments/web",
        "name": "web",
        "type": "microsoft.maintenance/configurationassignments",
    }
    assert simulator.http.get(path, params=API).json() == created
    update = {"properties": {"filter": {"osTypes": ["Windows"]}}}
    assert simulator.http.patch(path, params=API, json=update).json()["properties"]["filter"]["osTypes"] == ["Windows"]
    whole = f"/subscriptions/{SUBSCRIPTION}{PROVIDER}/configurationAssignments"
    listed = simulator.http.get(whole, params=API).json()["value"]
    assert "web" in [each["name"] for each in listed]
    assert simulator.http.delete(path, params=API).status_code == 200


def test_an_assignment_needs_its_machine_and_its_configuration(simulator: Simulator) -> None:
    machine = simulator.take()
    document = {"location": "westeurope", "properties": {"maintenanceConfigurationId": configuration_id("none")}}
    assert put(simulator, f"{machine}{PROVIDER}/configurationAssignments/a", document).status_code == 404
    missing = f"{GROUP}/providers/Microsoft.Compute/virtualMachines/missing{PROVIDER}/configurationAssignments/a"
    assert put(simulator, missing, document).json()["error"]["code"] == "ResourceNotFound"


def test_a_machine_with_nothing_pending_answers_null(simulator: Simulator) -> None:
    machine = simulator.take()
    path = f"{machine}{PROVIDER}/applyUpdates/default"
    reply = put(simulator, path, {})
    assert (reply.status_code, reply.text) == (200, "null")
    read = simulator.http.get(path, params=API)
    assert (read.status_code, read.json()) == (
        200,
        {
            "properties": {"status": "Completed", "resourceId": machine, "lastUpdateTime": "0001-01-01T00:00:00"},
            "id": path,
            "name": "default",
            "type": "Microsoft.Maintenance/applyUpdates",
        },
    )
    assert simulator.http.get(path.replace("default", "other"), params=API).status_code == 404


def test_the_documented_query_finds_the_assignments_to_delete(simulator: Simulator) -> None:
    configuration, machine = made(simulator, "To-Find"), simulator.take()
    document = {"location": "westeurope", "properties": {"maintenanceConfigurationId": configuration}}
    put(simulator, f"{machine}{PROVIDER}/configurationAssignments/findMe", document)
    query = f"""
    maintenanceresources
    | where type =~ "microsoft.maintenance/configurationassignments"
    | where properties.maintenanceConfigurationId =~ "{configuration}"
    | where properties.resourceId =~ "{machine}"
    | project name, id
    """
    deadline = time.monotonic() + 10
    while not (rows := ask(simulator, query)):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert rows == [{"name": "findMe", "id": f"{machine}{PROVIDER}/configurationAssignments/findMe".lower()}]
    assert ask(simulator, f"resources | where id =~ '{configuration}' | project name") == [{"name": "To-Find"}]


def test_a_machine_that_forbids_calls_forbids_assignments(simulator: Simulator) -> None:
    configuration, machine = made(simulator, "Forbidden"), simulator.take(forbidden=True)
    document = {"location": "westeurope", "properties": {"maintenanceConfigurationId": configuration}}
    refused = put(simulator, f"{machine}{PROVIDER}/configurationAssignments/a", document)
    assert refused.status_code == 403
    assert "Microsoft.Maintenance/configurationAssignments/write" in refused.json()["error"]["message"]


def ask(simulator: Simulator, query: str) -> list[Json]:
    path, api = "/providers/Microsoft.ResourceGraph/resources", {"api-version": "2021-03-01"}
    return simulator.http.post(path, params=api, json={"query": query}).json()["data"]


def test_an_assignment_of_an_arc_machine(simulator: Simulator) -> None:
    one, configuration = simulator.take_arc(), made(simulator, "ForArc")
    path = f"{one}{PROVIDER}/configurationAssignments/Nightly"
    document = {"location": "westeurope", "properties": {"maintenanceConfigurationId": configuration}}
    assert put(simulator, path, document).json()["id"] == path.replace(one, one.lower())
    read = simulator.http.get(path, params=API).json()
    assert "/providers/Microsoft.HybridCompute/machines/" in read["id"]
    assert read["properties"]["resourceId"] == one.lower()
    listed = simulator.http.get(path.rpartition("/")[0], params=API).json()["value"]
    assert [each["name"] for each in listed] == ["Nightly"]
    as_vm = path.replace("Microsoft.HybridCompute/machines", "Microsoft.Compute/virtualMachines")
    assert put(simulator, as_vm, document).status_code == 404
    assert simulator.http.delete(path, params=API).status_code == 200


def test_an_assignment_of_an_arc_machine_needs_rights(simulator: Simulator) -> None:
    one, configuration = simulator.take_arc(forbidden=True), made(simulator, "ForbiddenArc")
    document = {"location": "westeurope", "properties": {"maintenanceConfigurationId": configuration}}
    assert put(simulator, f"{one}{PROVIDER}/configurationAssignments/Nightly", document).status_code == 403
