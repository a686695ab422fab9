"""What Azure's watchers say of a machine: Resource Health, Application Health, and alerts."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.simulator import SUBSCRIPTION, Simulator

HEALTH_API = {"api-version": "2025-05-01"}
ALERTS_API = {"api-version": "2019-05-05-preview"}


def availability(simulator: Simulator, one: str) -> dict[str, Any]:
    path = f"{one}/providers/Microsoft.ResourceHealth/availabilityStatuses/current"
    reply = simulator.http.get(path, params=HEALTH_API)
    assert reply.status_code == 200, reply.text
    return reply.json()["properties"]


def alerts(simulator: Simulator, **query: str) -> list[dict[str, Any]]:
    path = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.AlertsManagement/alerts"
    reply = simulator.http.get(path, params=ALERTS_API | query)
    assert reply.status_code == 200, reply.text
    return reply.json()["value"]


@pytest.mark.parametrize("state", ["Available", "Unavailable", "Degraded", "Unknown"])
def test_resource_health_reports_what_the_fleet_has(simulator: Simulator, state: str) -> None:
    found = availability(simulator, simulator.take(resourceHealth=state))
    assert found["availabilityState"] == state
    assert found["summary"]


def test_a_stopped_machine_is_unavailable_on_purpose(simulator: Simulator) -> None:
    found = availability(simulator, simulator.take(power="deallocated"))
    assert (found["availabilityState"], found["reasonType"]) == ("Unavailable", "UserInitiated")


def test_no_right_to_ask(simulator: Simulator) -> None:
    one = simulator.take(forbidden=True)
    path = f"{one}/providers/Microsoft.ResourceHealth/availabilityStatuses/current"
    assert simulator.http.get(path, params=HEALTH_API).status_code == 403


def test_application_health_shows_only_with_the_extension(simulator: Simulator) -> None:
    bare = simulator.machine(simulator.take())["properties"]["instanceView"]
    assert "vmHealth" not in bare
    view = simulator.machine(simulator.take(appHealth="healthy"))["properties"]["instanceView"]
    assert view["vmHealth"]["status"]["code"] == "HealthState/healthy"


def test_an_installation_that_leaves_the_machine_unhealthy(simulator: Simulator) -> None:
    one = simulator.take_system(
        "Linux", unhealthyAfterInstall=True, appHealth="healthy", installMinutes=1, pendingPatches=2
    )
    assert availability(simulator, one)["availabilityState"] == "Available"
    result = simulator.install(one, linuxParameters={"classificationsToInclude": ["Critical", "Security"]})
    assert result["status"] == "Succeeded"
    assert availability(simulator, one)["availabilityState"] == "Unavailable"
    view = simulator.machine(one)["properties"]["instanceView"]
    assert view["vmHealth"]["status"]["code"] == "HealthState/unhealthy"


def test_alerts_are_filtered_as_requested(simulator: Simulator) -> None:
    one = simulator.take(
        alerts=[
            {"rule": "cpu-high", "severity": "Sev0"},
            {"rule": "disk-full", "condition": "Resolved"},
            {"rule": "old", "hoursAgo": 30},
        ]
    )
    other = simulator.take(alerts=[{"rule": "elsewhere"}])
    fired = alerts(simulator, targetResource=one, monitorCondition="Fired")
    assert [each["name"] for each in fired] == ["cpu-high"]
    essentials = fired[0]["properties"]["essentials"]
    assert (essentials["severity"], essentials["alertState"]) == ("Sev0", "New")
    assert essentials["targetResource"] == one.lower()
    assert [each["name"] for each in alerts(simulator, targetResource=one, timeRange="7d")] == [
        "cpu-high",
        "disk-full",
        "old",
    ]
    assert "elsewhere" in [each["name"] for each in alerts(simulator)]
    assert alerts(simulator, targetResource=f"{other}0") == []


def test_an_unknown_time_range_is_refused(simulator: Simulator) -> None:
    path = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.AlertsManagement/alerts"
    assert simulator.http.get(path, params=ALERTS_API | {"timeRange": "2d"}).status_code == 400


def test_resource_graph_shows_the_health_of_every_machine(simulator: Simulator) -> None:
    one = simulator.take(resourceHealth="Degraded")
    query = "healthresources | where tostring(properties.availabilityState) =~ 'Degraded' | project properties"
    reply = simulator.http.post(
        "/providers/Microsoft.ResourceGraph/resources", params={"api-version": "2021-03-01"}, json={"query": query}
    )
    assert reply.status_code == 200, reply.text
    targets = [row["properties"]["targetResourceId"] for row in reply.json()["data"]]
    assert one.lower() in targets
