"""Maintenance configurations over HTTP against the simulator: the example of Microsoft's document, limits, refusals."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from patchwave.api import maintenance_configurations
from patchwave.services import maintenance_configurations as configurations
from tests.integration.api.maintenance.support import audit, coming, place, put
from tests.support.http_calls import call, clock_at
from tests.support.maintenance_samples import CONFIGURATION, EXAMPLE, SUBSCRIPTION, THEN

CASES = Path(__file__).parents[3] / "cases"


async def puts(azure: httpx.AsyncClient) -> list[dict[str, Any]]:
    """Every PUT of the configuration that Azure got."""
    asked = await azure.get("/_sim/requests", params={"method": "PUT", "path": CONFIGURATION})
    return asked.json()["requests"]


async def test_create_a_maintenance_configuration_schedule(
    azure: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(configurations, "datetime", clock_at(THEN))
    made = await put(body=EXAMPLE)
    assert made.status == 201, made.text
    assert made.json["configuration"]["id"] == CONFIGURATION
    assert made.json["nextRun"]["startsAt"] == "2021-08-20T19:48:00.000Z"
    there = (await azure.get(CONFIGURATION)).json()
    assert there["location"] == "eastus2euap"
    for name, value in EXAMPLE["properties"]["maintenanceWindow"].items():
        assert there["properties"]["maintenanceWindow"][name] == value
    assert there["properties"]["installPatches"]["linuxParameters"]["classificationsToInclude"] == ["Other"]
    assert there["properties"]["extensionProperties"] == {"InGuestPatchMode": "User"}
    # What Azure answers to a GET can be sent back.
    again = await put(body=there | {"tags": {"owner": "ana"}})
    assert again.status == 200, again.text
    assert await audit() == ["configuration_written", "configuration_written"]


async def test_a_configuration_is_made_read_listed_changed_and_deleted(azure: httpx.AsyncClient) -> None:
    assert (await call(maintenance_configurations.get_configuration, **place())).status == 404
    assert (await put()).status == 201
    read = await call(maintenance_configurations.get_configuration, **place())
    assert read.json["configuration"]["properties"]["maintenanceWindow"]["recurEvery"] == "Day"
    for query in (
        {},
        {"subscription": SUBSCRIPTION},
        {"subscription": SUBSCRIPTION, "resourceGroup": "ATSCALEPATCHING"},
    ):
        listed = await call(maintenance_configurations.list_configurations, query=query)
        assert [each["configuration"]["name"] for each in listed.json["configurations"]] == ["TestAzureInGuestAdv2"]
        assert listed.json["configurations"][0]["nextRun"]
    change = {"tags": {"owner": "ana"}, "properties": {"maintenanceWindow": {"duration": "03:00"}}}
    changed_one = await call(maintenance_configurations.change_configuration, body=change, **place())
    assert changed_one.status == 200, changed_one.text
    there = (await azure.get(CONFIGURATION)).json()
    assert (there["tags"], there["properties"]["maintenanceWindow"]["duration"]) == ({"owner": "ana"}, "03:00")
    assert there["properties"]["maintenanceWindow"]["recurEvery"] == "Day"
    gone = await call(maintenance_configurations.delete_configuration, query={"reason": "not needed"}, **place())
    assert gone.status == 204
    assert (await azure.get(CONFIGURATION)).status_code == 404
    assert (
        await call(maintenance_configurations.delete_configuration, query={"reason": "again"}, **place())
    ).status == 404
    assert await audit() == ["configuration_written", "configuration_written", "configuration_deleted"]


async def test_a_change_of_another_key_never_fails_on_the_word_that_azure_stores(azure: httpx.AsyncClient) -> None:
    stored = json.loads((CASES / "reboot-word-neverreboot.json").read_text())
    assert (await azure.put(CONFIGURATION, json=stored)).status_code == 200
    change = {"properties": {"maintenanceWindow": {"duration": "03:00"}}}
    changed_one = await call(maintenance_configurations.change_configuration, body=change, **place())
    assert changed_one.status == 200, changed_one.text
    shown = changed_one.json["configuration"]["properties"]
    assert (shown["installPatches"]["rebootSetting"], shown["maintenanceWindow"]["duration"]) == ("Never", "03:00")
    there = (await azure.get(CONFIGURATION)).json()["properties"]
    assert there["installPatches"]["rebootSetting"] == "NeverReboot"
    assert there["installPatches"]["windowsParameters"]["classificationsToInclude"] == [
        *("Critical", "Security", "UpdateRollup", "Definition", "Updates")
    ]
    assert (await puts(azure))[-1]["body"]["properties"]["installPatches"]["rebootSetting"] == "Never"
    # A body with Azure's words is taken as well.
    assert (await put(body=stored)).status == 200


@pytest.mark.parametrize(
    ("name", "path"),
    [("dst-gap-start", "maintenanceWindow.startDateTime"), ("month-only", "maintenanceWindow.recurEvery")],
)
async def test_what_azure_refuses_is_refused_before_the_call(azure: httpx.AsyncClient, name: str, path: str) -> None:
    before = await puts(azure)
    refused = await put(body=json.loads((CASES / f"{name}.json").read_text()))
    assert (refused.status, refused.paths) == (400, [f"properties.{path}"])
    assert await puts(azure) == before


async def test_configurations_that_patch_no_machines_are_not_listed(azure: httpx.AsyncClient) -> None:
    host = {"location": "eastus2euap", "properties": {"maintenanceScope": "Host"}}
    assert (await azure.put(CONFIGURATION, json=host)).status_code == 200
    assert (await call(maintenance_configurations.list_configurations)).json["configurations"] == []


async def test_a_configuration_that_is_only_to_be_created_is_never_replaced(azure: httpx.AsyncClient) -> None:
    only, body = {"If-None-Match": "*"}, coming()
    made = await call(maintenance_configurations.put_configuration, body=body, headers=only, **place())
    assert made.status == 201
    again = await call(
        maintenance_configurations.put_configuration, body=coming(duration="03:00"), headers=only, **place()
    )
    assert again.status == 412
    assert CONFIGURATION in again.problem["detail"]
    there = (await azure.get(CONFIGURATION)).json()["properties"]["maintenanceWindow"]
    assert there["duration"] == body["properties"]["maintenanceWindow"]["duration"]
    tagged = await call(
        maintenance_configurations.put_configuration, body=coming(), headers={"If-None-Match": '"1"'}, **place()
    )
    assert tagged.status == 400
    assert (await put()).status == 200


async def test_every_limit_is_refused_at_once_and_before_the_call(azure: httpx.AsyncClient) -> None:
    body = coming(duration="05:00", recurEvery="2Hours", timeZone="Mars")
    body["properties"]["extensionProperties"] = {}
    body["properties"]["installPatches"]["windowsParameters"] = {"kbNumbersToInclude": ["4512508"]}
    refused = await put(body=body)
    assert refused.status == 400
    window = "properties.maintenanceWindow"
    assert refused.paths == [
        "properties.extensionProperties.InGuestPatchMode",
        f"{window}.duration",
        f"{window}.timeZone",
        f"{window}.recurEvery",
        "properties.installPatches.windowsParameters.kbNumbersToInclude[0]",
    ]
    soon = await put(body=coming(0.2))
    assert "at least 15 minutes" in soon.problem["errors"][0]["message"]
    assert (await azure.get(CONFIGURATION)).status_code == 404


async def test_a_slip_in_a_name_is_pointed_at(azure: httpx.AsyncClient) -> None:
    body = coming()
    body["properties"]["maintenanceWindow"]["recurEvry"] = "Day"
    refused = await put(body=body)
    assert refused.paths == ["properties.maintenanceWindow.recurEvry"]
    assert "recurEvery" in refused.problem["errors"][0]["message"]
    assert (await put(body=coming() | {"id": CONFIGURATION + "x"})).paths == ["id"]
    assert (await call(maintenance_configurations.put_configuration, body=[], **place())).paths == ["$"]
    assert (await call(maintenance_configurations.change_configuration, body=[], **place())).paths == ["$"]
    assert (await call(maintenance_configurations.list_configurations, query={"subscription": "x"})).status == 400
    deep = b'{"properties":' * 900 + b"1" + b"}" * 900
    assert (
        (await call(maintenance_configurations.put_configuration, body=deep, **place()))
        .paths[0]
        .startswith(("$", "properties"))
    )
    assert (await call(maintenance_configurations.put_configuration, body={"properties": []}, **place())).paths == [
        "properties"
    ]


PASCAL = {"Error": {"Code": "InvalidInput", "Message": "Extension properties must contain Patch mode"}}
DENIED = {"error": {"code": "AuthorizationFailed", "message": "does not have authorization"}}


@pytest.mark.parametrize(
    ("effect", "status", "said"),
    [
        ({"status": 400, "body": PASCAL}, 400, "InvalidInput: Extension properties must contain Patch mode"),
        ({"status": 403, "body": DENIED}, 502, "the app's identity lacks a role"),
        ({"status": 404, "body": DENIED}, 404, "There is no such resource group"),
        ({"status": 409, "body": PASCAL}, 409, "InvalidInput"),
        ({"status": 429, "headers": {"Retry-After": "7"}}, 503, "Azure cannot answer now"),
        ({"status": 500, "body": "<html>oops</html>"}, 503, "Azure cannot answer now"),
        ({"status": 200, "body": [1]}, 502, "in no known form"),
        ({"status": 200, "body": "null"}, 502, "in no known form"),
        ({"drop": "before"}, 503, "Azure cannot answer now"),
    ],
)
async def test_a_refusal_of_azure_is_passed_on_with_its_text(
    azure: httpx.AsyncClient, effect: dict[str, Any], status: int, said: str
) -> None:
    """Asked once: how often to ask again is the caller's decision."""
    rule = {"match": {"method": "PUT", "path": CONFIGURATION}, "effect": effect}
    assert (await azure.post("/_sim/faults", json=rule)).is_success
    refused = await put()
    assert refused.status == status, refused.text
    assert said in refused.problem["detail"]
    assert refused.headers.get("Retry-After") == (
        {429: "7"}.get(effect.get("status", 0), "15") if status == 503 else None
    )
    assert await audit() == []
    # A kept connection that breaks before an answer may be tried once more below the SDK.
    assert (await azure.get("/_sim/faults")).json()["faults"][0]["hits"] <= (1 if "status" in effect else 2)
