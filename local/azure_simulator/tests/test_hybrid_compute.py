"""What Azure puts on the wire for Arc machines: machines, patch operations, results, and their rows."""

from __future__ import annotations

import re
import time
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import httpx
import pytest

from tests.support.simulator import ARC_GROUP, SUBSCRIPTION, Json, Simulator

API = {"api-version": "2024-07-10"}
BODY: Json = {
    "maximumDuration": "PT2H",
    "rebootSetting": "IfRequired",
    "windowsParameters": {"classificationsToInclude": ["Critical", "Security"]},
    "linuxParameters": {"classificationsToInclude": ["Critical", "Security"]},
}
ASSESSED = [
    "startDateTime", "lastModifiedDateTime", "startedBy", "rebootPending", "patchServiceUsed", "status",
    "availablePatchCountByClassification", "assessmentActivityId", "osType",
]  # fmt: skip
INSTALLED = [
    "startDateTime", "lastModifiedDateTime", "startedBy", "patchServiceUsed", "status", "maintenanceWindowExceeded",
    "rebootStatus", "notSelectedPatchCount", "pendingPatchCount", "failedPatchCount", "installedPatchCount",
    "excludedPatchCount", "osType", "installationActivityId",
]  # fmt: skip
TWO_WINDOWS = [
    {"name": "Cumulative", "kb": "5000001", "classification": "Security"},
    {"name": "Tool", "kb": "5000002", "classification": "Tools"},
]


def assess(simulator: Simulator, one: str) -> httpx.Response:
    return simulator.http.post(f"{one}/assessPatches", params=API, json={})


def install(simulator: Simulator, one: str, **changes: Any) -> httpx.Response:
    return simulator.http.post(f"{one}/installPatches", params=API, json=BODY | changes)


def ask(simulator: Simulator, query: str) -> list[Json]:
    reply = simulator.http.post(
        "/providers/Microsoft.ResourceGraph/resources", params={"api-version": "2022-10-01"}, json={"query": query}
    )
    assert reply.status_code == 200, reply.text
    return reply.json()["data"]


def ask_until(simulator: Simulator, query: str, count: int) -> list[Json]:
    """The rows of a table that lags."""
    deadline = time.monotonic() + 10
    while len(rows := ask(simulator, query)) != count:
        assert time.monotonic() < deadline, rows
        time.sleep(0.05)
    return rows


def test_accepted_with_one_signed_url(simulator: Simulator) -> None:
    reply = assess(simulator, simulator.take_arc())
    assert (reply.status_code, reply.content) == (202, b"")
    assert "content-type" not in reply.headers
    assert "azure-asyncoperation" not in reply.headers
    assert reply.headers["retry-after"] == "1", "a minute at speed 1200"
    assert reply.headers["x-ms-ratelimit-remaining-subscription-resource-requests"].isdigit()
    url = urlsplit(reply.headers["location"])
    assert re.fullmatch(
        rf"/subscriptions/{SUBSCRIPTION}/providers/Microsoft\.HybridCompute/locations/westeurope"
        r"/updateCenterOperationResults/[0-9a-f-]{36}",
        url.path,
    )
    assert [key for key, _ in parse_qsl(url.query)] == ["api-version", "t", "c", "s", "h"]
    assert 3_000 < len(reply.headers["location"]) < 4_096


def test_each_poll_signs_the_url_anew_and_every_one_stays_valid(simulator: Simulator) -> None:
    first = assess(simulator, simulator.take_arc(assessMinutes=60))
    second = simulator.get(first.headers["location"])
    assert (second.status_code, second.content) == (202, b"")
    assert second.headers["location"] != first.headers["location"]
    assert second.headers["retry-after"] == "1"
    for url in (first.headers["location"], second.headers["location"]):
        assert simulator.get(url).status_code == 202
        for altered in (url + "&x=1", url[:-1], url.replace("&t=6", "&t=7", 1)):
            assert simulator.get(altered).status_code == 400, altered[-60:]
    unknown = first.headers["location"].replace("Results/", "Results/0")
    assert simulator.get(unknown).status_code == 404


@pytest.mark.parametrize(
    ("system", "patches", "counts"),
    [
        (
            "Windows",
            TWO_WINDOWS,
            {"security": 1, "critical": 0, "definition": 0, "updateRollup": 0, "featurePack": 0, "servicePack": 0}
            | {"tools": 1, "updates": 0},
        ),
        (
            "Linux",
            [{"name": "curl", "classification": "Security"}, {"name": "apt", "classification": "Other"}],
            {"security": 1, "critical": 0, "other": 1},
        ),
    ],
)
def test_the_result_of_an_assessment(simulator: Simulator, system: str, patches: list[Json], counts: Json) -> None:
    one = simulator.take_arc_system(system, pendingPatches=patches, assessMinutes=1)
    reply = assess(simulator, one)
    result = simulator.follow_arc(reply)
    assert list(result) == ASSESSED
    assert result["availablePatchCountByClassification"] == counts
    assert list(result["availablePatchCountByClassification"]) == list(counts)
    assert (result["status"], result["startedBy"], result["osType"]) == ("Succeeded", "User", system)
    assert result["patchServiceUsed"] == {"Windows": "WU", "Linux": "APT"}[system]
    assert result["startDateTime"].endswith("Z")
    assert urlsplit(reply.headers["location"]).path.endswith(f"/{result['assessmentActivityId']}")


def test_the_result_of_an_installation(simulator: Simulator) -> None:
    one = simulator.take_arc_system("Windows", pendingPatches=TWO_WINDOWS, installMinutes=2, rebootRequired=False)
    result = simulator.follow_arc(install(simulator, one))
    assert list(result) == INSTALLED
    assert (result["status"], result["rebootStatus"]) == ("Succeeded", "NotNeeded")
    assert (result["installedPatchCount"], result["notSelectedPatchCount"]) == (1, 1)
    again = simulator.follow_arc(assess(simulator, one))
    assert again["availablePatchCountByClassification"]["security"] == 0
    assert again["availablePatchCountByClassification"]["tools"] == 1


def test_patches_that_fail_are_in_the_error_details(simulator: Simulator) -> None:
    one = simulator.take_arc_system("Windows", pendingPatches=TWO_WINDOWS, installMinutes=2, installFails=True)
    result = simulator.follow_arc(install(simulator, one))
    assert (result["status"], result["failedPatchCount"]) == ("Failed", 1)
    assert result["errorDetails"]["details"][0]["code"] == "OPERATION_FAILED"


@pytest.mark.parametrize(
    ("simulation", "code"),
    [
        ({"agent": "old"}, "1"),
        ({"operationFails": {"code": "SomethingElse", "message": "It went wrong."}}, "SomethingElse"),
    ],
)
def test_an_operation_that_fails_ends_with_a_result(simulator: Simulator, simulation: Json, code: str) -> None:
    one = simulator.take_arc(**simulation)
    result = simulator.follow_arc(install(simulator, one))
    assert (result["status"], result["installedPatchCount"]) == ("Failed", 0)
    assert result["errorDetails"]["code"] == code
    result = simulator.follow_arc(assess(simulator, one))
    assert (result["status"], result["errorDetails"]["code"]) == ("Failed", code)


@pytest.mark.parametrize(
    ("changes", "code", "target"),
    [
        ({"maximumDuration": None}, "InvalidParameter", "maximumDuration"),
        ({"maximumDuration": "4 hours"}, "InvalidParameter", "maximumDuration"),
        ({"rebootSetting": None}, "InvalidParameter", "rebootSetting"),
        ({"rebootSetting": "NeverReboot"}, "InvalidParameter", "rebootSetting"),
        (
            {"linuxParameters": {"classificationsToInclude": ["Others"]}},
            "InvalidParameter",
            "linuxParameters.classificationsToInclude",
        ),
        (
            {"windowsParameters": {"kbNumbersToInclude": ["1111"]}},
            "InvalidParameter",
            "windowsParameters.kbNumbersToInclude",
        ),
        ({"linuxParameters": {"packages": []}}, "InvalidRequestContent", None),
        ({"reboot": "Never"}, "InvalidRequestContent", None),
    ],
)
def test_a_request_that_is_wrong_is_refused_at_once(
    simulator: Simulator, changes: Json, code: str, target: str | None
) -> None:
    reply = install(simulator, simulator.take_arc_system("Linux"), **changes)
    assert reply.status_code == 400, reply.text
    error = reply.json()["error"]
    assert (error["code"], error.get("target")) == (code, target)


def test_an_assessment_takes_no_parameters(simulator: Simulator) -> None:
    one = simulator.take_arc()
    assert simulator.http.post(f"{one}/assessPatches", params=API, json={"scope": 1}).status_code == 400
    assert simulator.http.post(f"{one}/assessPatches", params=API).status_code == 202


def test_a_machine_takes_one_operation_at_a_time(simulator: Simulator) -> None:
    one = simulator.take_arc_system("Windows", installMinutes=60)
    assert install(simulator, one).status_code == 202
    for reply in (install(simulator, one), assess(simulator, one)):
        assert reply.status_code == 409
        assert reply.json()["error"]["code"] == "HCRP409"
        assert "WindowsOsUpdateExtension is still processing" in reply.json()["error"]["message"]
    assert simulator.http.get("/_sim/accepted").json()[one] == {"assess": 0, "install": 1}


def test_a_machine_document(simulator: Simulator) -> None:
    one = simulator.take_arc_system("Windows", pendingPatches=1, assessMinutes=1)
    shown = simulator.http.get(one, params=API).json()
    assert (shown["id"], shown["type"], shown["kind"]) == (one, "Microsoft.HybridCompute/machines", "VMware")
    properties = shown["properties"]
    assert (properties["status"], properties["osType"], properties["osName"]) == ("Connected", "windows", "windows")
    assert properties["cloudMetadata"] == {"provider": "N/A"}
    assert properties["agentVersion"].startswith("1.")
    assert shown["resources"] == []
    simulator.follow_arc(assess(simulator, one))
    [extension] = simulator.http.get(one, params=API).json()["resources"]
    assert extension["name"] == "WindowsOsUpdateExtension"
    assert extension["properties"]["publisher"] == "Microsoft.SoftwareUpdateManagement"
    assert simulator.http.get(f"{one}/extensions", params=API).json() == {"value": [extension]}
    [row] = ask(simulator, f"resources | where type =~ '{extension['type']}' and id startswith '{one}/'")
    assert row["id"] == extension["id"]
    assert row["properties"]["provisioningState"] == "Succeeded"


def test_lists_have_the_machines_without_their_extensions(simulator: Simulator) -> None:
    one, gone = simulator.take_arc(), simulator.take_arc(gone=True)
    for scope in (f"/subscriptions/{SUBSCRIPTION}", ARC_GROUP):
        listed = simulator.http.get(f"{scope}/providers/Microsoft.HybridCompute/machines", params=API).json()["value"]
        found = {each["id"]: each for each in listed}
        assert one in found
        assert gone not in found
        assert "resources" not in found[one]
    machines = simulator.http.get(
        f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/virtualMachines", params=API
    ).json()["value"]
    assert machines
    assert all("/virtualMachines/" in each["id"] for each in machines)


@pytest.mark.parametrize(
    ("method", "tail"),
    [
        ("GET", "/instanceView"),
        ("POST", "/start"),
        ("POST", "/deallocate"),
        ("POST", "/restart"),
        ("POST", "/runCommand"),
    ],
)
def test_what_an_arc_machine_does_not_have(simulator: Simulator, method: str, tail: str) -> None:
    one = simulator.take_arc()
    as_vm = one.replace("Microsoft.HybridCompute/machines", "Microsoft.Compute/virtualMachines")
    for path in (one, as_vm):
        reply = simulator.http.request(method, path + tail, params=API, json={})
        assert reply.status_code == 404, reply.text
        assert reply.headers["x-ms-failure-cause"] == "gateway"


def test_a_missing_machine_and_a_forbidden_one(simulator: Simulator) -> None:
    for one, status, code in (
        (simulator.take_arc(gone=True), 404, "ResourceNotFound"),
        (f"{ARC_GROUP}/providers/Microsoft.HybridCompute/machines/missing", 404, "ResourceNotFound"),
        (simulator.take_arc(forbidden=True), 403, "AuthorizationFailed"),
    ):
        for reply in (simulator.http.get(one, params=API), assess(simulator, one), install(simulator, one)):
            assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert "Microsoft.HybridCompute/machines/installPatches/action" in reply.json()["error"]["message"]


def test_polls_need_an_action_of_their_own(simulator: Simulator) -> None:
    reply = simulator.get(assess(simulator, simulator.take_arc(forbiddenPolls=True)).headers["location"])
    assert reply.status_code == 403
    assert "locations/updateCenterOperationResults/read" in reply.json()["error"]["message"]


def test_patch_settings_and_tags_change(simulator: Simulator) -> None:
    one = simulator.take_arc_system("Linux")
    settings = {"assessmentMode": "AutomaticByPlatform"}
    body = {"tags": {"a": "b"}, "properties": {"osProfile": {"linuxConfiguration": {"patchSettings": settings}}}}
    reply = simulator.http.patch(one, params=API, json=body)
    assert reply.status_code == 200
    assert reply.json()["properties"]["provisioningState"] == "Updating"
    assert not {"azure-asyncoperation", "location"} & set(reply.headers)
    shown = simulator.http.get(one, params=API).json()
    assert shown["tags"] == {"a": "b"}
    assert shown["properties"]["osProfile"]["linuxConfiguration"] == {"patchSettings": settings}
    [row] = ask(simulator, f"resources | where id =~ '{one}' | project tags, p = properties.osProfile")
    assert row["tags"] == {"a": "b"}
    assert row["p"]["linuxConfiguration"] == {"patchSettings": settings}


@pytest.mark.parametrize(
    ("half", "settings"),
    [
        ("windowsConfiguration", {"assessmentMode": "ImageDefault"}),
        ("linuxConfiguration", {"assessmentMode": "Sometimes"}),
        ("linuxConfiguration", {"patchMode": "Sometimes"}),
    ],
)
def test_settings_that_do_not_exist_are_refused(simulator: Simulator, half: str, settings: Json) -> None:
    one = simulator.take_arc_system("Linux")
    body = {"properties": {"osProfile": {half: {"patchSettings": settings}}}}
    assert simulator.http.patch(one, params=API, json=body).status_code == 400


def test_the_latest_assessment_of_a_machine(simulator: Simulator) -> None:
    one = simulator.take_arc(pendingPatches=3, assessMinutes=1)
    path = f"{one}/patchAssessmentResults/latest"
    assert simulator.http.get(path, params=API).status_code == 404
    result = simulator.follow_arc(assess(simulator, one))
    shown = simulator.http.get(path, params=API).json()
    assert (shown["id"], shown["properties"]) == (path, result)


def test_an_installation_is_followed_by_an_assessment(simulator: Simulator) -> None:
    one = simulator.take_arc_system("Windows", pendingPatches=TWO_WINDOWS, installMinutes=2, rebootRequired=True)
    installed = simulator.follow_arc(install(simulator, one, rebootSetting="Never"))
    latest = simulator.http.get(f"{one}/patchAssessmentResults/latest", params=API).json()["properties"]
    assert latest["assessmentActivityId"] == installed["installationActivityId"]
    assert latest["rebootPending"] is True
    assert latest["availablePatchCountByClassification"]["security"] == 0
    [row, patch] = ask_until(simulator, f"patchassessmentresources | where id startswith '{one}/' | order by id asc", 2)
    assert {key: row["properties"][key] for key in latest} == latest
    assert patch["properties"]["patchName"] == "Tool"


def test_alerts_of_a_machine(simulator: Simulator) -> None:
    one = simulator.take_arc(alerts=[{"rule": "disk"}])
    path = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.AlertsManagement/alerts"
    [alert] = simulator.http.get(path, params=API | {"targetResource": one}).json()["value"]
    assert alert["properties"]["essentials"]["targetResourceType"] == "machines"
    assert alert["properties"]["essentials"]["targetResource"] == one.lower()


def test_the_newest_installation_of_each_machine(simulator: Simulator) -> None:
    one = simulator.take_arc(pendingPatches=4, installMinutes=1, rebootRequired=False)
    results = [simulator.follow_arc(install(simulator, one)) for _ in range(2)]
    query = (
        f"patchinstallationresources | where id startswith '{one}/' and type endswith '/patchinstallationresults' "
        "| extend machine = tostring(split(tolower(id), '/patchinstallationresults/')[0]), "
        "at = todatetime(properties.startDateTime) | summarize arg_max(at, id, properties) by machine "
        f"| where properties.installationActivityId == '{results[1]['installationActivityId']}'"
    )
    [row] = ask_until(simulator, query, 1)
    assert row["machine"] == one.lower()
    assert row["properties"]["installedPatchCount"] == 0


def test_the_row_of_a_machine(simulator: Simulator) -> None:
    one = simulator.take_arc_system("Linux")
    query = f"resources | where type =~ 'microsoft.hybridcompute/machines' and id =~ '{one}'"
    [row] = ask(simulator, query)
    assert (row["id"], row["kind"], row["resourceGroup"], row["zones"]) == (one, "VMware", "rg-arc", None)
    assert row["properties"]["status"] == "Connected"
    assert row["properties"]["osType"] == "linux"
    assert row["properties"]["vmId"] == simulator.http.get(one, params=API).json()["properties"]["vmId"]
    simulator.http.post("/_sim/machines", json={"id": one, "simulation": {"status": "Disconnected"}})
    [row] = ask(simulator, query)
    assert row["properties"]["status"] == "Disconnected"


def test_rows_of_an_installation(simulator: Simulator) -> None:
    one = simulator.take_arc_system("Windows", pendingPatches=TWO_WINDOWS, installMinutes=30, rebootRequired=False)
    reply = install(simulator, one)
    table = f"patchinstallationresources | where id startswith '{one}/'"
    results = f"{table} | where type =~ 'microsoft.hybridcompute/machines/patchinstallationresults'"
    [row] = ask_until(simulator, results, 1)
    assert row["properties"]["status"] == "InProgress"
    assert row["properties"]["installedPatchCount"] == 0
    result = simulator.follow_arc(reply)
    ended = f"{results} | where properties.status =~ 'Succeeded'"
    [row] = ask_until(simulator, ended, 1)
    assert (row["name"], row["id"]) == (
        result["installationActivityId"],
        f"{one}/patchInstallationResults/{result['installationActivityId']}",
    )
    assert {key: row["properties"][key] for key in result} == result
    assert row["properties"]["errorDetails"] is None
    patches = ask(simulator, f"{table} | where type endswith '/patchinstallationresults/softwarepatches'")
    assert {each["type"] for each in patches} == {
        "microsoft.hybridcompute/machines/patchinstallationresults/softwarepatches"
    }
    states = {each["properties"]["patchName"]: each["properties"]["installationState"] for each in patches}
    assert states == {"Cumulative": "Installed", "Tool": "NotSelected"}


def test_rows_of_an_assessment(simulator: Simulator) -> None:
    one = simulator.take_arc_system("Windows", pendingPatches=TWO_WINDOWS, assessMinutes=1)
    result = simulator.follow_arc(assess(simulator, one))
    table = f"patchassessmentresources | where id startswith '{one}/'"
    rows = ask_until(simulator, table, 3)
    [latest] = [row for row in rows if row["name"] == "latest"]
    assert latest["type"] == "microsoft.hybridcompute/machines/patchassessmentresults"
    assert {key: latest["properties"][key] for key in result} == result
    names = {row["properties"]["patchName"] for row in rows if row["type"].endswith("/softwarepatches")}
    assert names == {"Cumulative", "Tool"}


def test_faults_and_the_request_log_know_arc_machines(simulator: Simulator) -> None:
    one = simulator.take_arc(assessMinutes=60)
    rule = {"match": {"machine": one, "operation": "assess"}, "times": 1, "effect": {"loseOperation": True}}
    assert simulator.http.post("/_sim/faults", json=rule).status_code == 201
    reply = assess(simulator, one)
    assert reply.status_code == 202
    assert simulator.get(reply.headers["location"]).status_code == 404
    assert assess(simulator, one).status_code == 409, "the machine works on"
    logged = simulator.http.get("/_sim/requests", params={"operation": "assess"}).json()["requests"]
    mine = [each for each in logged if each["machine"] == one]
    assert [(each["status"], each["fault"]) for each in mine] == [(202, True), (409, False)]
    polled = simulator.http.get("/_sim/requests", params={"operation": "poll", "path": "*updatecenter*"}).json()
    assert any(each["machine"] == one for each in polled["requests"])
