"""``patchwave maintenance`` against a service over HTTP: what is asked for, and what people see."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from tests.cli.conftest import Patchwave
from tests.cli.service import Service, problem

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"
PROVIDER = "/providers/Microsoft.Maintenance/maintenanceConfigurations/"
ID = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-schedules{PROVIDER}monthly"
SHORT = f"{SUBSCRIPTION}/rg-schedules/monthly"
PATH = f"/api/maintenance/configurations/{SUBSCRIPTION}/rg-schedules/monthly"
ASSIGNMENTS = "/api/maintenance/assignments"
MACHINE = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-app/providers/Microsoft.Compute/virtualMachines/vm-1"
WHO = ("--actor", "ana")
RUN = {
    "run": "20270112210000",
    "startsAt": "2027-01-12T21:00:00.000Z",
    "endsAt": "2027-01-13T00:55:00.000Z",
    "cancelDeadline": "2027-01-12T20:50:00.000Z",
}
VIEW: dict[str, Any] = {
    "configuration": {
        "id": ID,
        "name": "monthly",
        "type": "Microsoft.Maintenance/maintenanceConfigurations",
        "location": "westeurope",
        "tags": {"owner": "ana"},
        "properties": {
            "extensionProperties": {"InGuestPatchMode": "User"},
            "visibility": "Custom",
            "maintenanceWindow": {
                "startDateTime": "2027-01-12 22:00",
                "expirationDateTime": "2030-01-01 00:00",
                "duration": "03:55",
                "timeZone": "W. Europe Standard Time",
                "recurEvery": "Month Second Tuesday Offset4",
            },
            "installPatches": {
                "rebootSetting": "IfRequired",
                "linuxParameters": {"classificationsToInclude": ["Critical", "Security"]},
            },
        },
    },
    "nextRun": RUN,
    "notes": ["The next run is under 40 minutes away."],
}
ASSIGNED: dict[str, Any] = {
    "assignment": {
        "id": f"{MACHINE}/providers/Microsoft.Maintenance/configurationAssignments/monthly-1",
        "name": "monthly-1",
        "maintenanceConfigurationId": ID,
        "resourceId": MACHINE,
        "location": "",
        "filter": None,
    },
    "dynamic": False,
    "nextRun": RUN["startsAt"],
    "notes": [],
}


def test_configurations_are_listed_page_by_page(patchwave: Patchwave, service: Service) -> None:
    pages = [{"configurations": [VIEW], "cursor": "more"}, {"configurations": [VIEW], "cursor": None}]
    service.answers = [JSONResponse(page) for page in pages]
    result = patchwave("maintenance", "configuration", "list", "--subscription", SUBSCRIPTION)
    assert result.code == 0
    lines = [line for line in result.output.splitlines() if line.startswith("monthly")]
    assert len(lines) == 2
    assert ("rg-schedules" in lines[0], "Month Second Tuesday Offset4" in lines[0]) == (True, True)
    assert "2027-01-12 21:00:00Z" in lines[0]
    asked = service.asked("GET", "/api/maintenance/configurations")
    assert [each["query"].get("cursor") for each in asked] == [None, "more"]
    assert asked[0]["query"]["subscription"] == SUBSCRIPTION


@pytest.mark.parametrize("name", [ID, SHORT, ID.strip("/").lower()])
def test_a_configuration_is_shown_whole(patchwave: Patchwave, service: Service, name: str) -> None:
    service.answers = [JSONResponse(VIEW)]
    result = patchwave("maintenance", "configuration", "show", name)
    assert result.code == 0
    for said in (
        "westeurope",
        "owner ana",
        "03:55 W. Europe Standard Time",
        "until 2030-01-01 00:00",
        "under 40 minutes",
    ):
        assert said in result.output
    [asked] = service.requests
    assert asked["path"].lower() == PATH


def test_a_name_of_no_configuration_is_refused_without_asking(patchwave: Patchwave, service: Service) -> None:
    result = patchwave("maintenance", "configuration", "show", "monthly")
    assert (result.code, service.requests) == (2, [])
    assert "SUBSCRIPTION/GROUP/NAME" in result.errors


def test_the_documents_command_to_create_a_schedule(patchwave: Patchwave, service: Service) -> None:
    """``az maintenance configuration create`` of the document, option by option."""
    service.answers = [JSONResponse(VIEW, 201)]
    result = patchwave(
        "maintenance", "configuration", "create", SHORT, "--location", "eastus", "--duration", "02:00",
        "--recur-every", "20days", "--start", "2022-12-30 07:00", "--time-zone", "Pacific Standard Time",
        "--exclude-package", "ppt", "--include-package", "apt", "--linux", "Other",
        "--exclude-kb", "KB123456", "--include-kb", "KB123456", "--windows", "FeaturePack",
        "--reboot-setting", "IfRequired", "--tag", "owner=ana", *WHO,
    )  # fmt: skip
    assert result.code == 0, result.errors
    [asked] = service.asked("PUT", PATH)
    assert asked["query"] == {"actor": "ana"}
    assert asked["headers"]["if-none-match"] == "*"
    assert result.output.startswith("configuration monthly created")
    assert asked["body"] == {
        "location": "eastus",
        "tags": {"owner": "ana"},
        "properties": {
            "maintenanceScope": "InGuestPatch",
            "extensionProperties": {"InGuestPatchMode": "User"},
            "visibility": "Custom",
            "maintenanceWindow": {
                "startDateTime": "2022-12-30 07:00",
                "duration": "02:00",
                "timeZone": "Pacific Standard Time",
                "recurEvery": "20days",
            },
            "installPatches": {
                "rebootSetting": "IfRequired",
                "windowsParameters": {
                    "classificationsToInclude": ["FeaturePack"],
                    "kbNumbersToInclude": ["KB123456"],
                    "kbNumbersToExclude": ["KB123456"],
                },
                "linuxParameters": {
                    "classificationsToInclude": ["Other"],
                    "packageNameMasksToInclude": ["apt"],
                    "packageNameMasksToExclude": ["ppt"],
                },
            },
        },
    }


def test_a_body_of_azure_is_applied_from_a_file(patchwave: Patchwave, service: Service, tmp_path: Path) -> None:
    file = tmp_path / "monthly.json"
    file.write_text(json.dumps(VIEW["configuration"]))
    service.answers = [JSONResponse(VIEW, 201), JSONResponse(VIEW)]
    new, old = (patchwave("maintenance", "configuration", "apply", ID, "-f", str(file), *WHO) for _ in range(2))
    assert (new.code, old.code) == (0, 0)
    assert new.output.startswith("configuration monthly created")
    assert old.output.startswith("configuration monthly replaced")
    asked = service.asked("PUT", PATH)[0]
    assert asked["body"] == VIEW["configuration"]
    assert "if-none-match" not in asked["headers"]
    file.write_text("- 1")
    assert (
        "does not hold a maintenance configuration"
        in patchwave("maintenance", "configuration", "apply", ID, "-f", str(file)).errors
    )


def test_create_never_replaces(patchwave: Patchwave, service: Service) -> None:
    service.answers = [problem(412, "Precondition Failed", f"There is a maintenance configuration {ID}.")]
    refused = patchwave(
        "maintenance", "configuration", "create", SHORT, "--location", "eastus", "--recur-every", "Day",
        "--start", "2030-12-30 07:00", "--time-zone", "UTC", "--linux", "Security",
    )  # fmt: skip
    assert (refused.code, "There is a maintenance configuration" in refused.errors) == (2, True)


def test_properties_are_changed_one_by_one(patchwave: Patchwave, service: Service) -> None:
    service.answers = [JSONResponse(VIEW)]
    window = "properties.maintenanceWindow"
    result = patchwave(
        "maintenance", "configuration", "change", ID, "--set", f"{window}.duration=03:00",
        "--set", f"{window}.recurEvery=Week Saturday,Sunday", "--set", "tags.owner=null", *WHO,
    )  # fmt: skip
    assert result.code == 0, result.errors
    [asked] = service.asked("PATCH", PATH)
    assert asked["body"] == {
        "properties": {"maintenanceWindow": {"duration": "03:00", "recurEvery": "Week Saturday,Sunday"}},
        "tags": {"owner": None},
    }


def test_limits_that_are_passed_are_listed(patchwave: Patchwave, service: Service) -> None:
    path = "properties.maintenanceWindow.duration"
    service.answers = [problem(400, "Bad Request", "The configuration is not valid.", (path, "01:30 to 03:55"))]
    result = patchwave("maintenance", "configuration", "change", ID, "--set", f"{path}=05:00")
    assert result.code == 2
    assert f"{path}: 01:30 to 03:55" in result.errors


def test_coming_runs_and_the_cancelling_of_one(patchwave: Patchwave, service: Service) -> None:
    service.answers = [
        JSONResponse({"configuration": ID, "runs": [RUN], "notes": []}),
        JSONResponse({"configuration": ID, "run": RUN | {"canceled": True}, "already": False}),
        problem(
            409, "Conflict", "Too late: the run that starts at 2027-01-12 21:00:00Z could be cancelled until 20:50."
        ),
    ]
    listed = patchwave("maintenance", "configuration", "runs", ID, "--count", "1")
    assert ("20270112210000" in listed.output, "2027-01-12 20:50:00Z" in listed.output) == (True, True)
    done = patchwave("maintenance", "configuration", "cancel", ID, "--run", RUN["run"], "--reason", "release", *WHO)
    assert done.code == 0
    assert "2027-01-12 21:00:00Z is cancelled" in done.output
    [asked] = service.asked("POST", f"{PATH}/cancel")
    assert (asked["query"], asked["body"]) == ({"run": RUN["run"]}, {"reason": "release", "actor": "ana"})
    late = patchwave("maintenance", "configuration", "cancel", ID, "--reason", "release")
    assert (late.code, "Too late" in late.errors) == (2, True)


def test_a_cancelled_run_is_shown_as_cancelled_and_a_second_cancel_says_so(
    patchwave: Patchwave, service: Service
) -> None:
    canceled = RUN | {"canceled": True}
    service.answers = [
        JSONResponse({"configuration": ID, "runs": [canceled], "notes": []}),
        JSONResponse(VIEW | {"nextRun": canceled}),
        JSONResponse({"configurations": [VIEW | {"nextRun": canceled}], "cursor": None}),
        JSONResponse({"configuration": ID, "run": canceled, "already": True}),
    ]
    listed = patchwave("maintenance", "configuration", "runs", ID).output
    assert ("cancelled" in listed, "20:50:00Z" in listed) == (True, False)
    shown = patchwave("maintenance", "configuration", "show", ID).output
    assert ("2027-01-12 21:00:00Z (cancelled)" in shown, "cancel until" in shown) == (True, False)
    assert "(cancelled)" in patchwave("maintenance", "configuration", "list").output
    again = patchwave("maintenance", "configuration", "cancel", ID, "--reason", "release", *WHO)
    assert again.code == 0
    assert "was cancelled already" in again.output


def test_a_configuration_is_deleted_and_its_audit_read(patchwave: Patchwave, service: Service) -> None:
    line = {"at": RUN["startsAt"], "action": "configuration_deleted", "actor": "ana", "detail": {"reason": "old"}}
    service.answers = [Response(status_code=204), JSONResponse({"audit": [line], "cursor": None})]
    assert patchwave("maintenance", "configuration", "delete", ID, "--reason", "old", *WHO).code == 0
    assert service.asked("DELETE", PATH)[0]["query"] == {"reason": "old", "actor": "ana"}
    assert "configuration_deleted" in patchwave("maintenance", "configuration", "audit", ID).output


def test_a_machine_is_assigned_and_removed(patchwave: Patchwave, service: Service) -> None:
    gone = {"removed": [ASSIGNED["assignment"]["id"]], "stillAssigned": [ASSIGNED["assignment"]]}
    service.answers = [JSONResponse(ASSIGNED), JSONResponse(gone)]
    made = patchwave("maintenance", "assign", SHORT, MACHINE, *WHO)
    assert made.output.startswith("vm-1 has monthly (assignment monthly-1); next run 2027-01-12 21:00:00Z")
    [asked] = service.asked("PUT", ASSIGNMENTS)
    assert asked["body"] == {"configurationId": ID, "resourceId": MACHINE, "name": "", "location": ""}
    removed = patchwave("maintenance", "unassign", ID, MACHINE, "--reason", "retired", *WHO)
    assert removed.output.splitlines()[0] == f"removed {ASSIGNED['assignment']['id']}"
    assert "still assigned by the dynamic scope" in removed.output
    [asked] = service.asked("DELETE", ASSIGNMENTS)
    assert asked["query"] == {"configuration": ID, "machine": MACHINE, "reason": "retired", "actor": "ana"}


def test_a_dynamic_scope_is_assigned_with_its_filter(patchwave: Patchwave, service: Service) -> None:
    made = ASSIGNED | {"dynamic": True, "matching": 1_234}
    service.answers = [JSONResponse(made), JSONResponse(ASSIGNED | {"dynamic": True, "matching": 0})]
    scope = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-app"
    one = patchwave(
        "maintenance", "assign", ID, scope, "--os", "Linux", "--location", "westeurope", "-g", "rg-app",
        "--tag", "env=prod", "--tag", "env=stage", "--any",
    )  # fmt: skip
    assert "; 1,234 machines now; next run" in one.output.replace("(assignment monthly-1)", "")
    two = patchwave("maintenance", "assign", ID, f"/subscriptions/{SUBSCRIPTION}", "--all-machines")
    assert "0 machines now" in two.output
    first, second = service.asked("PUT", ASSIGNMENTS)
    assert first["body"]["filter"] == {
        "osTypes": ["Linux"],
        "locations": ["westeurope"],
        "resourceGroups": ["rg-app"],
        "tagSettings": {"tags": {"env": ["prod", "stage"]}, "filterOperator": "Any"},
    }
    assert second["body"]["allMachines"] is True
    assert "filter" not in second["body"]


def test_what_a_machine_is_assigned_to(patchwave: Patchwave, service: Service) -> None:
    dynamic = ASSIGNED | {"dynamic": True, "nextRun": None, "notes": ["Its configuration never runs."]}
    dynamic["assignment"] = ASSIGNED["assignment"] | {"filter": {"osTypes": ["Linux"], "locations": []}}
    listed = {"assignments": [ASSIGNED, dynamic], "notes": ["Resource Graph does not know this machine."]}
    service.answers = [JSONResponse(listed), JSONResponse(listed)]
    result = patchwave("maintenance", "assignment", "list", "--machine", MACHINE)
    first, second = (line for line in result.output.splitlines() if "monthly-1" in line)
    assert "2027-01-12 21:00:00Z" in first
    assert ("osTypes" in second, "never runs" in second, "westeurope" in second) == (True, True, False)
    assert "Resource Graph does not know" in result.output
    patchwave("maintenance", "assignment", "list", "--configuration", SHORT)
    assert [each["query"] for each in service.asked("GET", ASSIGNMENTS)] == [
        {"machine": MACHINE},
        {"configuration": ID},
    ]


def test_one_assignment_is_deleted_by_its_id(patchwave: Patchwave, service: Service) -> None:
    one = ASSIGNED["assignment"]["id"]
    service.answers = [JSONResponse({"removed": [one], "stillAssigned": []})]
    assert patchwave("maintenance", "assignment", "delete", one, *WHO).output == f"removed {one}\n"
    [asked] = service.asked("DELETE", ASSIGNMENTS)
    assert asked["query"] == {"assignment": one, "reason": "requested on the command line", "actor": "ana"}
