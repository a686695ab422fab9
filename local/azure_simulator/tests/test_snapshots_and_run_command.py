"""Snapshots of OS disks, run commands and restarts: what Azure answers to the calls that hooks make."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.simulator import API, GROUP, SUBSCRIPTION, Simulator

DISKS = {"api-version": "2025-01-02"}
GRAPH = "/providers/Microsoft.ResourceGraph/resources"


def os_disk(simulator: Simulator, one: str) -> str:
    return simulator.machine(one)["properties"]["storageProfile"]["osDisk"]["managedDisk"]["id"]


def put(simulator: Simulator, name: str, source: str, *, location: str = "westeurope", **tags: str) -> httpx.Response:
    body = {
        "location": location,
        "tags": tags,
        "properties": {"creationData": {"createOption": "Copy", "sourceResourceId": source}, "incremental": True},
    }
    return simulator.http.put(f"{GROUP}/providers/Microsoft.Compute/snapshots/{name}", params=DISKS, json=body)


def get(simulator: Simulator, name: str) -> httpx.Response:
    return simulator.http.get(f"{GROUP}/providers/Microsoft.Compute/snapshots/{name}", params=DISKS)


def test_a_snapshot_is_accepted_with_its_document_and_ready_a_little_later(simulator: Simulator) -> None:
    source = os_disk(simulator, simulator.take())
    reply = put(simulator, "snap-1", source, owner="me")
    assert reply.status_code == 202
    assert reply.json()["properties"]["provisioningState"] == "Updating"
    assert reply.headers["azure-asyncoperation"] != reply.headers["location"]
    assert simulator.follow(reply)["status"] == "Succeeded"
    shown = get(simulator, "snap-1").json()
    assert shown["properties"]["provisioningState"] == "Succeeded"
    assert shown["properties"]["creationData"]["sourceResourceId"] == source
    assert shown["tags"] == {"owner": "me"}


def test_a_second_put_changes_tags_and_never_the_source(simulator: Simulator) -> None:
    one, other = simulator.take(), simulator.take()
    put(simulator, "snap-2", os_disk(simulator, one))
    first = get(simulator, "snap-2").json()
    again = put(simulator, "snap-2", os_disk(simulator, one).upper(), kept="longer")
    assert again.status_code == 200
    refused = put(simulator, "snap-2", os_disk(simulator, other))
    assert (refused.status_code, refused.json()["error"]["code"]) == (409, "PropertyChangeNotAllowed")
    now = get(simulator, "SNAP-2").json()
    assert now["properties"]["uniqueId"] == first["properties"]["uniqueId"]
    assert now["tags"] == {"kept": "longer"}


def test_a_snapshot_that_fails(simulator: Simulator) -> None:
    reply = put(simulator, "snap-3", os_disk(simulator, simulator.take(snapshotFails=True)))
    assert simulator.follow(reply)["status"] == "Failed"
    assert get(simulator, "snap-3").json()["properties"]["provisioningState"] == "Failed"


def test_what_no_snapshot_can_be_taken_of(simulator: Simulator) -> None:
    assert put(simulator, "snap-4", f"{GROUP}/providers/Microsoft.Compute/disks/nobodys").status_code == 404
    elsewhere = put(simulator, "snap-4", os_disk(simulator, simulator.take()), location="northeurope")
    assert elsewhere.status_code == 400
    forbidden = put(simulator, "snap-4", f"{GROUP}/providers/Microsoft.Compute/disks/vm-099_OsDisk")
    assert forbidden.status_code == 202
    assert get(simulator, "snap-5").status_code == 404


def test_a_deleted_snapshot_is_gone_everywhere(simulator: Simulator) -> None:
    put(simulator, "snap-6", os_disk(simulator, simulator.take()), purpose="delete-me")
    query = "resources | where type =~ 'microsoft.compute/snapshots' | where isnotempty(tags['purpose']) | project id"
    rows: Any = simulator.http.post(GRAPH, params={"api-version": "2021-03-01"}, json={"query": query}).json()["data"]
    assert [row["id"].rsplit("/", 1)[1] for row in rows] == ["snap-6"]
    listed = simulator.http.get(
        f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/snapshots", params=DISKS
    ).json()["value"]
    assert "snap-6" in [each["name"] for each in listed]
    address = f"{GROUP}/providers/Microsoft.Compute/snapshots/snap-6"
    assert simulator.http.delete(address, params=DISKS).status_code == 202
    assert simulator.http.delete(address, params=DISKS).status_code == 204
    assert get(simulator, "snap-6").status_code == 404
    rows = simulator.http.post(GRAPH, params={"api-version": "2021-03-01"}, json={"query": query}).json()["data"]
    assert rows == []


@pytest.mark.parametrize("exit_code", [0, 3])
def test_a_linux_command_has_both_streams_in_one_message(simulator: Simulator, exit_code: int) -> None:
    one = simulator.take_system("Linux", scriptExit=exit_code)
    body = {"commandId": "RunShellScript", "script": ["true", 'echo "ended with $code"']}
    reply = simulator.post(one, "runCommand", body)
    ended = simulator.follow(reply)
    assert ended["status"] == "Succeeded", "whatever the script did"
    result = ended["properties"]["output"]
    [entry] = result["value"]
    assert entry["message"] == f"Enable succeeded: \n[stdout]\nended with {exit_code}\n\n[stderr]\n"
    assert simulator.get(reply.headers["location"]).json() == result


def test_a_windows_command_has_an_entry_for_each_stream(simulator: Simulator) -> None:
    one = simulator.take_system("Windows")
    body = {"commandId": "RunPowerShellScript", "script": ['Write-Output "all well"']}
    entries = simulator.follow(simulator.post(one, "runCommand", body))["properties"]["output"]["value"]
    assert [(entry["code"], entry["message"]) for entry in entries] == [
        ("ComponentStatus/StdOut/succeeded", "all well"),
        ("ComponentStatus/StdErr/succeeded", ""),
    ]


def test_one_command_at_a_time_and_only_where_one_can_run(simulator: Simulator) -> None:
    body = {"commandId": "RunShellScript", "script": ["sleep 60"]}
    one = simulator.take_system("Linux", scriptMinutes=600)
    assert simulator.post(one, "runCommand", body).status_code == 202
    second = simulator.post(one, "runCommand", body)
    assert (second.status_code, second.json()["error"]["code"]) == (409, "Conflict")
    stopped = simulator.take_system("Linux", power="stopped")
    assert simulator.post(stopped, "runCommand", body).status_code == 409
    assert simulator.post(simulator.take_system("Windows"), "runCommand", body).status_code == 400


def test_a_restart_takes_the_agent_away_and_clears_a_pending_reboot(simulator: Simulator) -> None:
    one = simulator.take(rebootPending=True)
    reply = simulator.http.post(f"{one}/restart", params=API)
    assert reply.status_code == 202
    assert simulator.machine(one)["properties"]["instanceView"]["vmAgent"]["statuses"][0]["displayStatus"] == (
        "Not Ready"
    )
    assert simulator.follow(reply)["status"] == "Succeeded"
    state = simulator.http.get("/_sim/state", params={"id": one}).json()["machines"][0]
    assert state["rebootPending"] is False
