"""What Azure puts on the wire for patch operations, point by point of the recordings."""

from __future__ import annotations

import ssl
import time
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest

from tests.support.simulator import API, GROUP, MACHINES, SUBSCRIPTION, Simulator

INSTALL = {
    "maximumDuration": "PT2H",
    "rebootSetting": "IfRequired",
    "windowsParameters": {"classificationsToInclude": ["Critical", "Security"]},
    "linuxParameters": {"classificationsToInclude": ["Critical", "Security"]},
}


def test_accepted_without_a_body_with_two_signed_urls(simulator: Simulator) -> None:
    reply = simulator.post(simulator.take(), "assessPatches")
    assert reply.status_code == 202
    assert reply.content == b""
    assert "content-type" not in reply.headers
    polled, location = reply.headers["azure-asyncoperation"], reply.headers["location"]
    for url in (polled, location):
        assert url.startswith(f"{simulator.ready['arm']}/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/")
        assert 3_000 < len(url) < 4_096
        assert {"p", "t", "c", "s", "h", "api-version"} <= {key for key, _ in parse_qsl(urlsplit(url).query)}
    assert "monitor=true" in location
    assert "monitor=true" not in polled
    assert dict(parse_qsl(urlsplit(polled).query))["s"] != dict(parse_qsl(urlsplit(location).query))["s"]


def test_an_altered_url_is_refused(simulator: Simulator) -> None:
    url = simulator.post(simulator.take(), "assessPatches").headers["azure-asyncoperation"]
    parts = urlsplit(url)
    query = parse_qsl(parts.query)
    reordered = parts._replace(query=urlencode(sorted(query))).geturl()
    for altered in (reordered, url + "&x=1", url.replace("&t=6", "&t=7", 1), url[:-1]):
        assert 400 <= simulator.get(altered).status_code < 500, altered[-60:]
    assert simulator.get(url).status_code == 200


def test_running_then_both_ends_of_the_operation(simulator: Simulator) -> None:
    one = simulator.take(assessMinutes=20, pendingPatches=4)
    reply = simulator.post(one, "assessPatches")
    body = simulator.get(reply.headers["azure-asyncoperation"]).json()
    assert list(body) == ["startTime", "status", "name"]
    assert body["status"] == "InProgress"
    early = simulator.get(reply.headers["location"])
    assert (early.status_code, early.content) == (202, b"")
    last = simulator.follow(reply)
    result = last["properties"]["output"]
    assert last["status"] == "Succeeded"
    assert last["name"] == body["name"] == result["assessmentActivityId"]
    assert simulator.get(reply.headers["location"]).json() == result
    assert result["criticalAndSecurityPatchCount"] + result["otherPatchCount"] == 4 == len(result["availablePatches"])
    assert isinstance(result["error"], dict), "an error object comes with clean success too"
    summary = simulator.machine(one)["properties"]["instanceView"]["patchStatus"]["availablePatchSummary"]
    assert summary["assessmentActivityId"] == result["assessmentActivityId"]


@pytest.mark.parametrize(("system", "absent"), [("Linux", "kbId"), ("Windows", "version")])
def test_keys_that_the_other_system_has(simulator: Simulator, system: str, absent: str) -> None:
    one = simulator.take_system(system, pendingPatches=5)
    result = simulator.follow(simulator.post(one, "assessPatches"))["properties"]["output"]
    assert all(absent not in patch for patch in result["availablePatches"])
    if system == "Linux":
        assert {patch["publishedDate"][:4] for patch in result["availablePatches"]} == {"0001"}


def test_ubuntu_pro_patches_are_counted_and_warned_about(simulator: Simulator) -> None:
    one = simulator.take_system("Linux", pendingPatches=2, needsUbuntuPro=6)
    result = simulator.follow(simulator.post(one, "assessPatches"))["properties"]["output"]
    listed = [patch for patch in result["availablePatches"] if patch["classifications"] == ["Security-ESM"]]
    assert len(listed) == 6
    assert {patch["version"] for patch in listed} == {"UA_ESM_Required"}
    assert result["status"] == "Succeeded"
    assert [detail["code"] for detail in result["error"]["details"]] == ["UA_ESM_REQUIRED"]


def test_installing_removes_what_was_selected_and_nothing_else(simulator: Simulator) -> None:
    patches = [
        {"name": "openssl", "version": "3.0.2", "classification": "Security"},
        {"name": "kernel", "version": "6.1", "classification": "Critical"},
        {"name": "nano", "version": "7.2", "classification": "Other"},
        {"name": "curl", "version": "8.1", "classification": "Security"},
    ]
    one = simulator.take_system("Linux", pendingPatches=patches, installMinutes=1, rebootRequired=False)
    chosen = {"classificationsToInclude": ["Critical", "Security"], "packageNameMasksToExclude": ["cur*"]}
    result = simulator.install(one, linuxParameters=chosen)
    states = {patch["name"]: patch["installationState"] for patch in result["patches"]}
    assert states["openssl"] == states["kernel"] == "Installed"
    assert (states["nano"], states["curl"]) == ("NotSelected", "Excluded")
    assert (result["installedPatchCount"], result["excludedPatchCount"], result["notSelectedPatchCount"]) == (2, 1, 1)
    again = simulator.follow(simulator.post(one, "assessPatches"))["properties"]["output"]
    assert sorted(patch["name"] for patch in again["availablePatches"]) == ["curl", "nano"]


@pytest.mark.parametrize(("setting", "status"), [("IfRequired", "Completed"), ("Never", "Required")])
def test_reboots_follow_the_setting(simulator: Simulator, setting: str, status: str) -> None:
    one = simulator.take_system("Linux", pendingPatches=3, rebootRequired=True, installMinutes=1, rebootMinutes=1)
    everything = {"classificationsToInclude": ["Critical", "Security", "Other"]}
    result = simulator.install(one, rebootSetting=setting, linuxParameters=everything)
    assert result["rebootStatus"] == status
    summary = simulator.machine(one)["properties"]["instanceView"]["patchStatus"]["lastPatchInstallationSummary"]
    assert "rebootStatus" not in summary
    assert summary["installationActivityId"] == result["installationActivityId"]
    assert simulator.http.get("/_sim/state", params={"id": one}).json()["machines"][0]["rebootPending"] is (
        setting == "Never"
    )


def test_too_little_time_leaves_patches_pending(simulator: Simulator) -> None:
    one = simulator.take(pendingPatches=5, windowTooShort=True)
    result = simulator.install(one, **{key: INSTALL[key] for key in ("windowsParameters", "linuxParameters")})
    assert result["status"] == "Failed"
    assert result["maintenanceWindowExceeded"] is True
    assert result["pendingPatchCount"] > 0


# --- refusals


def test_a_kb_without_its_prefix_is_refused_at_a_price(simulator: Simulator) -> None:
    one = simulator.take_system("Windows")
    body = INSTALL | {"windowsParameters": {"kbNumbersToInclude": ["1111"]}}
    reply = simulator.post(one, "installPatches", body)
    assert reply.status_code == 400
    error = reply.json()["error"]
    assert error["code"] == "InvalidParameter"
    assert error["target"] == "windowsParameters.kbNumbersToInclude"
    assert "azure-asyncoperation" not in reply.headers


@pytest.mark.parametrize(
    "change",
    [
        {"rebootSetting": "AlwaysReboot"},
        {"rebootSetting": None},
        {"windowsParameters": {}, "linuxParameters": {}},
    ],
)
def test_senseless_parameters_are_refused(simulator: Simulator, change: dict[str, object]) -> None:
    assert simulator.post(simulator.take(), "installPatches", INSTALL | change).status_code == 400


def test_a_second_operation_on_a_machine_is_a_conflict(simulator: Simulator) -> None:
    one = simulator.take(assessMinutes=60)
    assert simulator.post(one, "assessPatches").status_code == 202
    reply = simulator.post(one, "installPatches", INSTALL)
    assert reply.status_code == 409
    assert reply.json()["error"]["code"] in ("OperationNotAllowed", "Conflict")


def test_arm64_is_accepted_and_fails_with_a_general_code(simulator: Simulator) -> None:
    last = simulator.follow(simulator.post(simulator.take(architecture="Arm64"), "assessPatches"))
    assert last["status"] == "Failed"
    assert last["error"]["code"] == "VMGuestPatchInternalError"
    assert "properties" not in last


@pytest.mark.parametrize(
    ("simulation", "power", "agent"),
    [
        ({}, "PowerState/running", "ProvisioningState/succeeded"),
        ({"power": "stopped"}, "PowerState/stopped", "ProvisioningState/succeeded"),
        ({"power": "deallocated"}, "PowerState/deallocated", None),
        ({"agent": "notReady"}, "PowerState/running", "ProvisioningState/Unavailable"),
        ({"agent": "missing"}, "PowerState/running", None),
    ],
)
def test_states_of_machines(simulator: Simulator, simulation: dict[str, object], power: str, agent: str | None) -> None:
    view = simulator.machine(simulator.take(**simulation))["properties"]["instanceView"]
    assert power in [status["code"] for status in view["statuses"]]
    codes = [status["code"] for status in view["vmAgent"]["statuses"]] if "vmAgent" in view else [None]
    assert codes[0] == agent
    [disk] = view["disks"]
    assert disk["name"].startswith("vm-")
    assert [status["code"] for status in disk["statuses"]] == ["ProvisioningState/succeeded"]


def test_a_hibernated_machine_shows_as_deallocated_with_a_word_of_its_own(simulator: Simulator) -> None:
    one = simulator.take(power="hibernated")
    view = simulator.machine(one)["properties"]["instanceView"]
    codes = [status["code"] for status in view["statuses"]]
    assert codes == ["ProvisioningState/succeeded", "HibernationState/Hibernated", "PowerState/deallocated"]
    assert simulator.http.get("/_sim/state", params={"id": one}).json()["machines"][0]["hibernated"] is True
    simulator.post(one, "start")
    [state] = simulator.http.get("/_sim/state", params={"id": one}).json()["machines"]
    assert state["hibernated"] is False, "its session is over"


def test_missing_and_forbidden_machines(simulator: Simulator) -> None:
    missing = simulator.http.get(f"{GROUP}/providers/Microsoft.Compute/virtualMachines/missing", params=API)
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "ResourceNotFound")
    assert missing.headers["x-ms-failure-cause"] == "gateway"
    forbidden = simulator.post(simulator.take(forbidden=True), "assessPatches")
    assert (forbidden.status_code, forbidden.json()["error"]["code"]) == (403, "AuthorizationFailed")


def test_no_token_no_answer(simulator: Simulator) -> None:
    anonymous = httpx.get(
        f"{simulator.ready['arm']}/subscriptions?api-version=2022-12-01",
        verify=ssl.create_default_context(cafile=simulator.ready["ca"]),
        trust_env=False,
    )
    assert anonymous.status_code == 401
    without_header = httpx.get(
        simulator.ready["identity"], params={"resource": "x", "api-version": "2019-08-01"}, trust_env=False
    )
    assert without_header.status_code == 401


# --- budgets


def test_the_budget_of_a_machine_runs_out_and_the_refusal_has_the_time_to_wait(simulator: Simulator) -> None:
    one = simulator.take_system("Windows")
    simulator.http.post("/_sim/limits", json={"enabled": True})
    try:
        first = simulator.post(one, "assessPatches")
        assert "VMGuestPatchOperationResource;5" in first.headers["x-ms-ratelimit-remaining-resource"]
        body = INSTALL | {"windowsParameters": {"kbNumbersToInclude": ["1111"]}}
        # What is refused costs a token as well, and one or two come back while this runs.
        answers = [simulator.post(one, "installPatches", body).status_code for _ in range(4)]
        assert answers == [400] * 4
        reply = simulator.post(one, "installPatches", body)
        while reply.status_code != 429:
            assert len(answers) < 30
            answers.append(reply.status_code)
            reply = simulator.post(one, "installPatches", body)
        assert int(reply.headers["Retry-After"]) >= 1
        error = reply.json()
        assert "error" not in error, "Compute's throttling has no wrapper"
        assert error["code"] == "OperationNotAllowed"
        assert error["details"][0]["code"] == "TooManyRequests"
        time.sleep(int(reply.headers["Retry-After"]))
        assert simulator.post(one, "installPatches", body).status_code == 400
    finally:
        simulator.http.post("/_sim/limits", json={"enabled": False})


# --- Resource Graph


def graph(simulator: Simulator, query: str, **options: object) -> httpx.Response:
    return simulator.http.post(
        "/providers/Microsoft.ResourceGraph/resources",
        params={"api-version": "2021-03-01"},
        json={"subscriptions": [SUBSCRIPTION], "query": query, "options": {"resultFormat": "objectArray", **options}},
    )


def test_resource_graph_pages(simulator: Simulator) -> None:
    query = "Resources | where type =~ 'microsoft.compute/virtualmachines' | project id, name | order by id asc"
    names: list[str] = []
    options: dict[str, object] = {"$top": 30}
    while True:
        reply = graph(simulator, query, **options)
        body = reply.json()
        assert isinstance(body["resultTruncated"], str)
        assert {"x-ms-user-quota-remaining", "x-ms-user-quota-resets-after"} <= set(reply.headers)
        names += [row["name"] for row in body["data"]]
        if "$skipToken" not in body:
            break
        options["$skipToken"] = body["$skipToken"]
    assert names == [f"vm-{number:03d}" for number in range(MACHINES)]
    assert body["totalRecords"] == MACHINES


def test_resource_graph_shows_patch_operations_a_while_later(simulator: Simulator) -> None:
    one = simulator.take(installMinutes=60)
    accepted = simulator.post(one, "installPatches", INSTALL)
    operation = accepted.headers["azure-asyncoperation"].split("/operations/")[1].split("?")[0]
    query = (
        "patchinstallationresources | where type =~ 'microsoft.compute/virtualmachines/patchinstallationresults' and "
        f"properties.installationActivityId =~ '{operation}' | project id, status = properties.status"
    )
    seen: list[str] = []
    for _ in range(400):
        rows = graph(simulator, query).json()["data"]
        assert all(row["id"] == f"{one}/patchInstallationResults/{operation}" for row in rows)
        state = rows[0]["status"] if rows else "absent"
        if state not in seen:
            seen.append(state)
        if state == "Succeeded":
            break
        time.sleep(0.02)
    assert seen[-2:] == ["InProgress", "Succeeded"]
    assert simulator.follow(accepted)["status"] == "Succeeded"


def test_resource_graph_shows_the_latest_assessment(simulator: Simulator) -> None:
    one = simulator.take(assessMinutes=1)
    simulator.follow(simulator.post(one, "assessPatches"))
    query = f"patchassessmentresources | where id =~ '{one}/patchAssessmentResults/latest'"
    rows = graph(simulator, query).json()["data"]
    for _ in range(200):
        if rows:
            break
        time.sleep(0.02)
        rows = graph(simulator, query).json()["data"]
    assert rows[0]["type"] == "microsoft.compute/virtualmachines/patchassessmentresults"
    assert set(rows[0]["properties"]) >= {"rebootPending", "startDateTime", "availablePatchCountByClassification"}


@pytest.mark.parametrize(
    ("condition", "count"),
    [
        ("tags['number'] =~ '7'", 1),
        ("name in~ ('VM-001', 'vm-002')", 2),
        ("tostring(properties.storageProfile.osDisk.osType) =~ 'windows'", MACHINES // 2),
        ("name =~ 'vm-001' or name =~ 'vm-003'", 2),
        ("not (name contains 'vm-0')", MACHINES - 100),
        ("name == 'it''s'", None),
    ],
)
def test_resource_graph_conditions(simulator: Simulator, condition: str, count: int | None) -> None:
    reply = graph(simulator, f"resources | where type =~ 'microsoft.compute/virtualmachines' | where {condition}")
    if count is None:
        assert reply.status_code == 400
        assert reply.json()["error"]["details"][0]["code"] in ("InvalidQuery", "ParserFailure")
    else:
        assert reply.json()["totalRecords"] == count


def test_a_query_may_begin_with_an_operator_and_is_about_resources(simulator: Simulator) -> None:
    """Recorded: ``project id, tags, properties | limit 2``."""
    body = graph(simulator, "project id, tags, properties | limit 2").json()
    assert body["count"] == 2
    assert set(body["data"][0]) == {"id", "tags", "properties"}
    assert graph(simulator, "where name =~ 'vm-007' | project name").json()["data"] == [{"name": "vm-007"}]
    assert graph(simulator, "nothing | project id").status_code == 400


@pytest.mark.parametrize(
    ("expression", "value"),
    [
        ('parse_json(\'{"a":{"b":[1,2]}}\').a.b[1]', 2),
        ("parse_json(tostring(tags)).number", "7"),
        ("parse_json(tags).number", "7"),
        ("parse_json('no json')", "no json"),
        ("parse_json(managedBy.nothing)", None),
    ],
)
def test_json_inside_of_text_is_read(simulator: Simulator, expression: str, value: object) -> None:
    query = f"resources | where name =~ 'vm-007' | project found = {expression}"
    assert graph(simulator, query).json()["data"] == [{"found": value}]


@pytest.mark.parametrize(
    ("query", "options"),
    [("resources | where", {}), ("nowhere", {}), ("resources", {"$top": 5_000}), ("resources", {"$skipToken": "x"})],
)
def test_a_refused_query_has_the_remaining_quota(simulator: Simulator, query: str, options: dict[str, object]) -> None:
    refused = graph(simulator, query, **options)
    assert refused.status_code == 400
    assert int(refused.headers["x-ms-user-quota-remaining"]) >= 0
    assert refused.headers["x-ms-user-quota-resets-after"].startswith("00:00:")


# --- faults and the log of requests


def test_faults_act_as_often_as_their_rule_has_it(simulator: Simulator) -> None:
    one = simulator.take()
    rule = {
        "match": {"machine": one, "operation": "read"},
        "after": 1,
        "times": 2,
        "effect": {"status": 503, "body": {"error": {"code": "ServerBusy"}}, "headers": {"Retry-After": "7"}},
    }
    made = simulator.http.post("/_sim/faults", json=rule)
    assert made.status_code == 201
    answers = [simulator.http.get(one, params=API) for _ in range(4)]
    assert [answer.status_code for answer in answers] == [200, 503, 503, 200]
    assert answers[1].headers["Retry-After"] == "7"
    assert simulator.http.delete(f"/_sim/faults/{made.json()['id']}").status_code == 204


def test_a_dropped_answer_may_have_been_accepted(simulator: Simulator) -> None:
    for drop, accepted in (("before", 0), ("after", 1)):
        one = simulator.take(assessMinutes=30)
        rule = {"match": {"machine": one, "operation": "assess"}, "times": 1, "effect": {"drop": drop}}
        assert simulator.http.post("/_sim/faults", json=rule).status_code == 201
        with pytest.raises(httpx.TransportError):
            simulator.post(one, "assessPatches")
        accepted_requests = simulator.http.get("/_sim/accepted").json()
        assert accepted_requests.get(one, {"assess": 0})["assess"] == accepted


def test_a_lost_operation_runs_on(simulator: Simulator) -> None:
    one = simulator.take(assessMinutes=1)
    rule = {"match": {"machine": one, "operation": "assess"}, "times": 1, "effect": {"loseOperation": True}}
    simulator.http.post("/_sim/faults", json=rule)
    reply = simulator.post(one, "assessPatches")
    assert simulator.get(reply.headers["azure-asyncoperation"]).status_code == 404
    time.sleep(0.2)
    summary = simulator.machine(one)["properties"]["instanceView"]["patchStatus"]["availablePatchSummary"]
    assert summary["status"] == "Succeeded"


@pytest.mark.parametrize("rule", [{}, {"effect": {}}, {"effect": {"status": 99}}, {"effect": {"sttus": 500}}])
def test_senseless_fault_rules_are_refused(simulator: Simulator, rule: dict[str, object]) -> None:
    reply = simulator.http.post("/_sim/faults", json=rule)
    assert reply.status_code == 400, reply.text


@pytest.mark.parametrize("query", ["since=abc", "limit=-x"])
def test_a_senseless_query_for_requests_is_refused(simulator: Simulator, query: str) -> None:
    assert simulator.http.get(f"/_sim/requests?{query}").status_code == 400


def test_a_requested_version_is_installed_while_the_repository_has_it(simulator: Simulator) -> None:
    patches = [
        {"name": "openssl", "version": "1.4", "older": ["1.1", "1.2", "1.3"]},
        {"name": "curl", "version": "8.1"},
        {"name": "vim", "version": "9.1", "older": ["9.0"]},
    ]
    one = simulator.take_system("Linux", pendingPatches=patches, installMinutes=1)
    result = simulator.install(one, linuxParameters={"packageNameMasksToInclude": ["openssl=1.2", "curl=8.0", "vim"]})
    states = {(patch["name"], patch["version"]): patch["installationState"] for patch in result["patches"]}
    assert states == {
        ("openssl", "1.2"): "Installed",
        ("openssl", "1.4"): "NotSelected",
        ("curl", "8.1"): "NotSelected",
        ("vim", "9.1"): "Installed",
    }
    assert (result["installedPatchCount"], result["notSelectedPatchCount"]) == (2, 2)
    again = simulator.follow(simulator.post(one, "assessPatches"))["properties"]["output"]
    assert {(patch["name"], patch["version"]) for patch in again["availablePatches"]} == {
        ("openssl", "1.4"),
        ("curl", "8.1"),
    }
    older = simulator.install(one, linuxParameters={"packageNameMasksToInclude": ["openssl=1.1", "openssl=1.2"]})
    assert older["installedPatchCount"] == 0, "what is older than what is installed is no update"
    newer = simulator.install(one, linuxParameters={"packageNameMasksToInclude": ["openssl=1.3", "openssl=1.4"]})
    assert [patch["version"] for patch in newer["patches"] if patch["installationState"] == "Installed"] == ["1.4"]


def test_an_exclusion_matches_the_name_in_any_version(simulator: Simulator) -> None:
    one = simulator.take_system("Linux", pendingPatches=[{"name": "curl", "version": "8.1"}], installMinutes=1)
    chosen = {"classificationsToInclude": ["Security"], "packageNameMasksToExclude": ["curl=7.0"]}
    assert simulator.install(one, linuxParameters=chosen)["excludedPatchCount"] == 1


def test_packages_compare_with_case_and_without_their_architecture(simulator: Simulator) -> None:
    patches = [{"name": name, "version": "8.1"} for name in ("curl.x86_64", "Vim.noarch", "openssl", "zlib.aarch64")]
    one = simulator.take_system("Linux", pendingPatches=patches, installMinutes=1)
    chosen = {
        "packageNameMasksToInclude": ["curl", "vim", "openssl.x86_64", "zlib.aarch64", "Vim*"],
        "packageNameMasksToExclude": ["Vim"],
    }
    result = simulator.install(one, linuxParameters=chosen)
    assert {patch["name"]: patch["installationState"] for patch in result["patches"]} == {
        "curl.x86_64": "Installed",
        "Vim.noarch": "Excluded",
        "openssl": "NotSelected",
        "zlib.aarch64": "Installed",
    }


def test_windows_selects_by_kb_numbers_and_the_date_of_publication(simulator: Simulator) -> None:
    patches = [
        {"name": "Cumulative", "kb": "5000001", "published": "2026-11-10T18:00:00.0000000+00:00"},
        {"name": "Definitions", "kb": "2267602", "published": "2026-11-12T06:00:00+01:00"},
        {"name": "Other", "kb": "5000003", "published": "2026-11-01T18:00:00+00:00"},
    ]
    one = simulator.take_system("Windows", pendingPatches=patches, installMinutes=1)
    chosen = {"kbNumbersToInclude": ["KB5000001", "KB2267602"], "maxPatchPublishDate": "2026-11-12T05:00:00.000Z"}
    before = chosen | {"maxPatchPublishDate": "2026-11-12T04:59:59.000Z"}
    first = simulator.install(one, windowsParameters=before)
    assert [patch["kbId"] for patch in first["patches"] if patch["installationState"] == "Installed"] == ["5000001"]
    second = simulator.install(one, windowsParameters=chosen)
    assert [patch["kbId"] for patch in second["patches"] if patch["installationState"] == "Installed"] == ["2267602"]


@pytest.mark.parametrize(("system", "key"), [("Windows", "kbId"), ("Linux", "version")])
def test_one_months_patches_have_the_same_names_on_every_machine(simulator: Simulator, system: str, key: str) -> None:
    found: list[dict[str, str]] = []
    for _ in range(2):
        one = simulator.take_system(system, pendingPatches=22)
        listed = simulator.follow(simulator.post(one, "assessPatches"))["properties"]["output"]["availablePatches"]
        found.append({patch["name"]: patch[key] for patch in listed})
    assert found[0] == found[1]
