"""PATCH and PUT of a machine: what changes, what is refused, and in which words."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.simulator import API, Json, Simulator

HALVES = {"Windows": "windowsConfiguration", "Linux": "linuxConfiguration"}


def body_of(system: str, **half: Any) -> Json:
    return {"properties": {"osProfile": {HALVES[system]: half}}}


def change(simulator: Simulator, one: str, system: str, method: str = "PATCH", **half: Any) -> httpx.Response:
    return simulator.http.request(method, one, params=API, json=body_of(system, **half))


def follow(simulator: Simulator, reply: httpx.Response) -> Json:
    """Poll the update to its end; the last body."""
    assert reply.status_code == 200, reply.text
    reply.status_code = 202
    return simulator.follow(reply)


def settings(simulator: Simulator, one: str, system: str) -> Json:
    return simulator.machine(one)["properties"]["osProfile"][HALVES[system]]["patchSettings"]


@pytest.mark.parametrize("method", ["PATCH", "PUT"])
@pytest.mark.parametrize("system", ["Windows", "Linux"])
def test_patch_settings_change_in_an_operation(simulator: Simulator, system: str, method: str) -> None:
    one = simulator.take_system(system)
    bypass = {"bypassPlatformSafetyChecksOnUserSchedule": True, "rebootSetting": "IfRequired"}
    wanted = {"patchMode": "AutomaticByPlatform", "automaticByPlatformSettings": bypass}
    reply = change(simulator, one, system, method, patchSettings=wanted)
    assert reply.json()["properties"]["provisioningState"] == "Updating"
    assert follow(simulator, reply)["status"] == "Succeeded"
    assert settings(simulator, one, system) == {"assessmentMode": "ImageDefault"} | wanted
    row = simulator.http.post(
        "/providers/Microsoft.ResourceGraph/resources",
        params={"api-version": "2021-03-01"},
        json={"query": f"resources | where id =~ '{one}' | project s = properties.osProfile.{HALVES[system]}"},
    ).json()["data"][0]
    assert row["s"]["patchSettings"]["automaticByPlatformSettings"] == bypass


def test_settings_of_the_platform_end_with_its_mode(simulator: Simulator) -> None:
    one = simulator.take_system("Linux")
    bypass = {"bypassPlatformSafetyChecksOnUserSchedule": True}
    wanted = {"patchMode": "AutomaticByPlatform", "automaticByPlatformSettings": bypass}
    follow(simulator, change(simulator, one, "Linux", patchSettings=wanted))
    follow(simulator, change(simulator, one, "Linux", patchSettings={"patchMode": "ImageDefault"}))
    assert settings(simulator, one, "Linux") == {"patchMode": "ImageDefault", "assessmentMode": "ImageDefault"}


BYPASS = {"bypassPlatformSafetyChecksOnUserSchedule": True}
PLATFORM = {"patchMode": "AutomaticByPlatform"}


@pytest.mark.parametrize(
    ("system", "half", "status", "code"),
    [
        ("Windows", {"patchSettings": {"patchMode": "Manual"}}, 409, "OperationNotAllowed"),
        ("Windows", {"enableAutomaticUpdates": False}, 409, "PropertyChangeNotAllowed"),
        ("Windows", {"patchSettings": {"patchMode": "ImageDefault"}}, 400, "InvalidParameter"),
        ("Linux", {"patchSettings": {"patchMode": "Manual"}}, 400, "InvalidParameter"),
        ("Linux", {"patchSettings": {"automaticByPlatformSettings": BYPASS}}, 400, "InvalidParameter"),
        ("Linux", {"patchSettings": {"assessmentMode": "Never"}}, 400, "InvalidParameter"),
        (
            "Windows",
            {"patchSettings": PLATFORM | {"enableHotpatching": True, "automaticByPlatformSettings": BYPASS}},
            400,
            "InvalidParameter",
        ),
    ],
)
def test_a_change_that_azure_refuses_changes_nothing(
    simulator: Simulator, system: str, half: Json, status: int, code: str
) -> None:
    one = simulator.take_system(system)
    before = settings(simulator, one, system)
    reply = change(simulator, one, system, **half)
    assert (reply.status_code, reply.json()["error"]["code"]) == (status, code)
    assert settings(simulator, one, system) == before


def test_the_mode_to_go_back_to_depends_on_how_the_machine_was_created(simulator: Simulator) -> None:
    one = simulator.take_system("Windows")
    follow(simulator, change(simulator, one, "Windows", patchSettings=PLATFORM))
    refused = change(simulator, one, "Windows", patchSettings={"patchMode": "Manual"})
    assert refused.status_code == 400
    assert "enableAutomaticUpdates" in refused.json()["error"]["message"]
    follow(simulator, change(simulator, one, "Windows", patchSettings={"patchMode": "AutomaticByOS"}))


@pytest.mark.parametrize(
    ("simulation", "code"),
    [
        ({"agent": "missing"}, "InvalidParameter"),
        ({"imageUnsupported": True}, "InvalidParameter"),
        ({"busy": True}, "OperationNotAllowed"),
        ({"forbidden": True}, "AuthorizationFailed"),
    ],
)
def test_a_machine_that_cannot_take_the_mode_refuses_it(simulator: Simulator, simulation: Json, code: str) -> None:
    one = simulator.take_system("Linux", **simulation)
    assert change(simulator, one, "Linux", patchSettings=PLATFORM).json()["error"]["code"] == code


def test_an_update_that_fails_leaves_the_settings(simulator: Simulator) -> None:
    one = simulator.take_system("Linux", updateFails=True)
    assert follow(simulator, change(simulator, one, "Linux", patchSettings=PLATFORM))["status"] == "Failed"
    assert settings(simulator, one, "Linux")["patchMode"] == "ImageDefault"


def test_settings_of_the_other_system_are_refused(simulator: Simulator) -> None:
    one = simulator.take_system("Linux")
    assert change(simulator, one, "Windows", patchSettings=PLATFORM).status_code == 400
