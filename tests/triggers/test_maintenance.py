"""Schedules over HTTP against the simulator: each REST example of Microsoft's document, limits, and cancelling."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
from azure.core.pipeline.transport import AioHttpTransport

from adapters.maintenance import Maintenance
from adapters.pipeline import ArmPipeline
from adapters.resource_graph import ResourceGraph
from adapters.tables import Records
from domain.base import parse_instant
from domain.identity import MachineId
from settings import Settings
from tests.adapters.test_locations import Credential
from tests.simulator.conftest import as_client, running, token
from tests.triggers.support import Answer, call
from tests.unit.maintenance_samples import (
    ASSIGNMENT,
    CONFIGURATION,
    EXAMPLE,
    GROUP,
    MACHINE,
    SUBSCRIPTION,
    THEN,
    changed,
)
from triggers import assignments, maintenance, scheduled_runs

API = {"api-version": "2021-09-01-preview"}
"""The version of the document."""
ASSIGNED = f"{MACHINE}/providers/Microsoft.Maintenance/configurationAssignments/TestAzureInGuestAdv"
OTHER = MACHINE.replace("win-atscalepatching-1", "linux-2")


class Then(datetime):
    """The clock of the day on which the document's example was made."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # pyright: ignore[reportIncompatibleMethodOverride] - always of UTC
        return THEN if tz is None else THEN.astimezone(tz)


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The ready document of a simulator with the machines of the document; Resource Graph does not lag."""
    folder = tmp_path_factory.mktemp("maintenance")
    fleet = [
        {"id": MACHINE, "location": "eastus2euap", "osType": "Windows", "tags": {"env": "prod"}},
        {"id": OTHER, "location": "eastus2euap", "osType": "Linux", "tags": {"env": "test"}},
    ]
    with running(folder, fleet, "--graph-lag", "0") as document:
        yield document


@pytest.fixture
async def azure(
    simulator: dict[str, Any], records: Records, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """Azure as the triggers reach it, without schedules; and as Azure's own clients reach it."""
    del records
    settings = Settings(resource_manager=simulator["arm"], tables_endpoint="https://account.table.core.windows.net")
    credential = Credential(token(simulator))

    def transport() -> AioHttpTransport:
        # aiohttp reads SSL_CERT_FILE once per process, so the CA is given to it.
        return AioHttpTransport(connection_verify=simulator["ca"])

    graph = ResourceGraph(settings, ArmPipeline(settings, credential, transport()))
    schedules = Maintenance(settings, credential, transport)
    for module in (maintenance, assignments):
        monkeypatch.setattr(module, "open_resource_graph", lambda: graph)
        monkeypatch.setattr(module, "open_maintenance", lambda: schedules)
    monkeypatch.setattr(scheduled_runs, "open_maintenance", lambda: schedules)
    async with httpx.AsyncClient(**as_client(simulator), params=API) as http:
        yield http
        await http.delete("/_sim/faults")
        for kind in ("configurationAssignments", "maintenanceConfigurations"):
            found = await http.get(f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Maintenance/{kind}")
            for each in found.json()["value"]:
                await http.delete(each["id"])
    await graph.close()
    await schedules.close()


def place(name: str = "TestAzureInGuestAdv2") -> dict[str, Any]:
    return {"subscriptionId": SUBSCRIPTION, "resourceGroup": "atscalepatching", "configuration": name}


def coming(hours: float = 2, **window: Any) -> dict[str, Any]:
    """A configuration whose first run comes in so many hours, in UTC."""
    starts = datetime.now(UTC) + timedelta(hours=hours)
    changes = {"startDateTime": f"{starts:%Y-%m-%d %H:%M}", "timeZone": "UTC"} | window
    return changed("properties.maintenanceWindow", EXAMPLE["properties"]["maintenanceWindow"] | changes)


async def put(name: str = "TestAzureInGuestAdv2", body: dict[str, Any] | None = None) -> Answer:
    return await call(maintenance.put_configuration, body=body or coming(), query={"by": "ana"}, **place(name))


async def assign(**body: Any) -> Answer:
    return await call(assignments.put_assignment, body={"configurationId": CONFIGURATION} | body, query={"by": "ana"})


async def audit() -> list[str]:
    found = await call(maintenance.list_configuration_audit, **place())
    return [line["action"] for line in found.json["audit"]]


# --- the REST examples of the document -----------------------------------------------------------------------------


async def test_create_a_maintenance_configuration_schedule(
    azure: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(maintenance, "datetime", Then)
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
    again = await put(body=there)
    assert again.status == 200, again.text
    assert await audit() == ["configuration_written", "configuration_written"]


async def test_associate_a_machine_with_a_schedule_and_remove_it(azure: httpx.AsyncClient) -> None:
    """PUT and DELETE of the document, and its query of Resource Graph for the names."""
    wanted = ASSIGNMENT["properties"]["maintenanceConfigurationId"]
    assert (await put("TestAzureInGuestIntermediate2")).status == 201
    body = {"configurationId": wanted, "resourceId": MACHINE, "location": ASSIGNMENT["location"]}
    made = await assign(**body, name="TestAzureInGuestAdv")
    assert made.status == 200, made.text
    assert made.json["nextRun"]
    there = (await azure.get(ASSIGNED)).json()
    assert there["properties"]["maintenanceConfigurationId"].lower() == wanted.lower()
    assert there["properties"]["resourceId"].lower() == MACHINE.lower()
    # A second name for the same is what people make with several tools.
    assert (await assign(**body, name="second")).status == 200
    query = {"machine": MACHINE, "configuration": wanted, "reason": "it is retired"}
    removed = await call(assignments.remove_assignments, query=query)
    assert removed.status == 200, removed.text
    assert sorted(each.rpartition("/")[2].lower() for each in removed.json["removed"]) == [
        "second",
        "testazureinguestadv",
    ]
    assert (await azure.get(ASSIGNED)).status_code == 404
    assert (await call(assignments.remove_assignments, query=query)).status == 404


# --- configurations ------------------------------------------------------------------------------------------------


async def test_a_configuration_is_made_read_listed_changed_and_deleted(azure: httpx.AsyncClient) -> None:
    assert (await call(maintenance.get_configuration, **place())).status == 404
    assert (await put()).status == 201
    read = await call(maintenance.get_configuration, **place())
    assert read.json["configuration"]["properties"]["maintenanceWindow"]["recurEvery"] == "Day"
    for query in (
        {},
        {"subscription": SUBSCRIPTION},
        {"subscription": SUBSCRIPTION, "resourceGroup": "ATSCALEPATCHING"},
    ):
        listed = await call(maintenance.list_configurations, query=query)
        assert [each["configuration"]["name"] for each in listed.json["configurations"]] == ["TestAzureInGuestAdv2"]
        assert listed.json["configurations"][0]["nextRun"]
    change = {"tags": {"owner": "ana"}, "properties": {"maintenanceWindow": {"duration": "03:00"}}}
    changed_one = await call(maintenance.change_configuration, body=change, **place())
    assert changed_one.status == 200, changed_one.text
    there = (await azure.get(CONFIGURATION)).json()
    assert (there["tags"], there["properties"]["maintenanceWindow"]["duration"]) == ({"owner": "ana"}, "03:00")
    assert there["properties"]["maintenanceWindow"]["recurEvery"] == "Day"
    gone = await call(maintenance.delete_configuration, query={"reason": "not needed"}, **place())
    assert gone.status == 204
    assert (await azure.get(CONFIGURATION)).status_code == 404
    assert (await call(maintenance.delete_configuration, query={"reason": "again"}, **place())).status == 404
    assert await audit() == ["configuration_written", "configuration_written", "configuration_deleted"]


async def test_configurations_that_patch_no_machines_are_not_listed(azure: httpx.AsyncClient) -> None:
    host = {"location": "eastus2euap", "properties": {"maintenanceScope": "Host"}}
    assert (await azure.put(CONFIGURATION, json=host)).status_code == 200
    assert (await call(maintenance.list_configurations)).json["configurations"] == []


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
    assert (await call(maintenance.put_configuration, body=[], **place())).paths == ["$"]
    assert (await call(maintenance.change_configuration, body=[], **place())).paths == ["$"]
    assert (await call(maintenance.list_configurations, query={"subscription": "x"})).status == 400
    deep = b'{"properties":' * 900 + b"1" + b"}" * 900
    assert (await call(maintenance.put_configuration, body=deep, **place())).paths[0].startswith(("$", "properties"))
    assert (await call(maintenance.put_configuration, body={"properties": []}, **place())).paths == ["properties"]


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
async def test_what_azure_refuses_is_told_in_its_words(
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


# --- cancelling ----------------------------------------------------------------------------------------------------


async def test_one_coming_run_is_cancelled_and_later_ones_stay(azure: httpx.AsyncClient) -> None:
    await put()
    runs = (await call(scheduled_runs.list_coming_runs, query={"count": "2"}, **place())).json["runs"]
    order = {"reason": "release night", "by": "ana"}
    done = await call(scheduled_runs.cancel_scheduled_run, body=order, **place())
    assert done.status == 200, done.text
    assert done.json["run"] == runs[0]
    at_azure = f"{CONFIGURATION}/providers/Microsoft.Maintenance/applyUpdates/"
    params = {"api-version": "2025-11-01"}
    first = (await azure.get(at_azure + runs[0]["run"], params=params)).json()
    assert first["properties"]["status"] == "Cancelled"
    second = await azure.get(at_azure + runs[1]["run"], params=params)
    assert second.status_code == 404 or second.json()["properties"]["status"] != "Cancelled"
    assert await audit() == ["configuration_written", "scheduled_run_canceled"]


async def test_a_run_is_cancelled_by_the_name_that_an_event_gives(azure: httpx.AsyncClient) -> None:
    await put()
    run = (await call(scheduled_runs.list_coming_runs, query={"count": "1"}, **place())).json["runs"][0]
    named = f"{CONFIGURATION.lower()}/providers/microsoft.maintenance/applyupdates/{run['run']}"
    done = await call(scheduled_runs.cancel_scheduled_run, body={"reason": "no"}, query={"run": named}, **place())
    assert (done.status, done.json["run"]["run"]) == (200, run["run"])
    wrong = await call(scheduled_runs.cancel_scheduled_run, body={"reason": "no"}, query={"run": "tonight"}, **place())
    assert (wrong.status, wrong.paths) == (400, ["run"])


async def test_it_is_said_clearly_when_it_is_too_late(
    azure: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put()
    run = (await call(scheduled_runs.list_coming_runs, query={"count": "1"}, **place())).json["runs"][0]
    starts = parse_instant(run["startsAt"])
    assert starts

    class Late(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:  # pyright: ignore[reportIncompatibleMethodOverride] - of UTC
            return starts - timedelta(minutes=10)

    monkeypatch.setattr(scheduled_runs, "datetime", Late)
    late = await call(scheduled_runs.cancel_scheduled_run, body={"reason": "no"}, **place())
    assert late.status == 409
    assert late.problem["detail"].startswith(f"Too late: the run that starts at {starts:%Y-%m-%d %H:%M:%S}Z could be")
    assert f"The one after it, {starts + timedelta(days=1):%Y%m%d%H%M%S}" in late.problem["detail"]
    assert await audit() == ["configuration_written"]


async def test_a_configuration_without_a_window_has_nothing_to_cancel(azure: httpx.AsyncClient) -> None:
    host = {"location": "eastus2euap", "properties": {"maintenanceScope": "Host"}}
    assert (await azure.put(CONFIGURATION, json=host)).status_code == 200
    refused = await call(scheduled_runs.cancel_scheduled_run, body={"reason": "no"}, **place())
    assert refused.status == 409
    assert "There is no run to come. Nobody can say when it runs: it has no maintenance window." in refused.text


# --- assignments ---------------------------------------------------------------------------------------------------


async def test_a_dynamic_scope_is_assigned_and_its_machines_say_so(azure: httpx.AsyncClient) -> None:
    await put()
    criteria = {
        "osTypes": ["Linux"],
        "locations": ["eastus2euap"],
        "tagSettings": {"tags": {"env": ["test", "stage"]}, "filterOperator": "Any"},
    }
    made = await assign(resourceId=GROUP, filter=criteria)
    assert made.status == 200, made.text
    assert made.json["dynamic"] is True
    there = (await azure.get(made.json["assignment"]["id"])).json()
    assert there["properties"]["filter"] == criteria
    assert (await assign(resourceId=GROUP, filter=criteria)).json["assignment"]["id"] == made.json["assignment"]["id"]
    held = (await call(assignments.list_assignments, query={"machine": OTHER})).json
    assert [(each["dynamic"], bool(each["nextRun"])) for each in held["assignments"]] == [(True, True)]
    assert (await call(assignments.list_assignments, query={"machine": MACHINE})).json["assignments"] == []
    of_it = (await call(assignments.list_assignments, query={"configuration": CONFIGURATION})).json["assignments"]
    assert [each["assignment"]["name"] for each in of_it] == [made.json["assignment"]["name"].lower()]
    still = await call(
        assignments.remove_assignments, query={"machine": OTHER, "configuration": CONFIGURATION, "reason": "x"}
    )
    assert (still.json["removed"], len(still.json["stillAssigned"])) == ([], 1)
    one = await call(
        assignments.remove_assignments, query={"assignment": made.json["assignment"]["id"], "reason": "moved"}
    )
    assert [each.lower() for each in one.json["removed"]] == [made.json["assignment"]["id"].lower()]
    assert await audit() == ["configuration_written", "assignment_written", "assignment_written", "assignment_removed"]


async def test_what_an_assignment_may_not_be(azure: httpx.AsyncClient) -> None:
    await put()
    assert (await assign(resourceId=GROUP, filter={"osTypes": ["Linux"]})).paths == ["filter.locations"]
    assert (await assign(resourceId=MACHINE.replace("virtualMachines", "disks"))).paths == ["resourceId"]
    assert (await assign(resourceId=MACHINE, name="a/b")).paths == ["name"]
    assert (await assign(configurationId="x", resourceId=MACHINE)).paths == ["configurationId"]
    assert (await assign(resourceId=MACHINE, extra=1)).paths == ["extra"]
    missing = await assign(configurationId=CONFIGURATION + "x", resourceId=MACHINE)
    assert (missing.status, missing.problem["detail"]) == (404, "There is no such maintenance configuration.")
    nobody = await assign(resourceId=MACHINE + "x")
    assert nobody.status == 404
    for query in ({}, {"machine": "x"}, {"configuration": "x"}, {"machine": MACHINE, "configuration": CONFIGURATION}):
        assert (await call(assignments.list_assignments, query=query)).status == 400
    for query in ({"machine": MACHINE}, {"assignment": "x"}):
        assert (await call(assignments.remove_assignments, query=query | {"reason": "x"})).status == 400


async def test_a_name_is_not_taken_from_another_configuration(azure: httpx.AsyncClient) -> None:
    await put()
    await put("second")
    assert (await assign(resourceId=MACHINE, name="one")).status == 200
    taken = await assign(
        configurationId=CONFIGURATION.replace("TestAzureInGuestAdv2", "second"), resourceId=MACHINE, name="one"
    )
    assert taken.status == 409
    assert "give another name" in taken.problem["detail"]


async def test_limits_of_machines_are_counted_in_resource_graph(
    azure: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    await put()
    assert (await assign(resourceId=MACHINE)).status == 200
    monkeypatch.setattr("domain.assignment.MOST_IN_DYNAMIC_SCOPE", 1)
    many = await assign(resourceId=GROUP, filter={"locations": ["eastus2euap"]})
    assert "matches 2 machines; a dynamic scope holds at most 1" in many.problem["errors"][0]["message"]
    monkeypatch.setattr("domain.assignment.MOST_ASSOCIATIONS", 1)
    monkeypatch.setattr(assignments, "MOST_ASSOCIATIONS", 1)
    full = await assign(resourceId=OTHER)
    assert "would have 2 machines; a schedule holds at most 1" in full.problem["errors"][0]["message"]


async def test_what_a_machine_that_is_gone_left_behind_is_removed(
    azure: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own list is gone with it; Resource Graph still knows the assignment."""
    await put()
    made = await assign(resourceId=MACHINE)
    exact = Maintenance.assignments_of

    async def gone(self: Maintenance, machine: MachineId) -> Any:
        return await exact(self, MachineId.parse(machine.text + "-gone"))

    monkeypatch.setattr(Maintenance, "assignments_of", gone)
    query = {"machine": MACHINE, "configuration": CONFIGURATION, "reason": "deleted"}
    removed = await call(assignments.remove_assignments, query=query)
    assert [each.lower() for each in removed.json["removed"]] == [made.json["assignment"]["id"].lower()]
