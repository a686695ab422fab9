"""The doctor over HTTP: the fleet is the simulator's, read from its Resource Graph over HTTPS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

from patchwave.api import drift
from patchwave.azure.resource_graph import ResourceGraph
from patchwave.azure.vm_agents import AgentVersions
from patchwave.domain.drift.findings import DriftReport, FindingKind
from patchwave.domain.scheduling.overrides import Pause
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.azure import Access
from tests.support.http_calls import call
from tests.support.maintenance_requests import API, body
from tests.support.simulator import as_client, running

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-web"
SCHEDULE = {"recurrence": "second Tuesday", "time": "22:00", "timeZone": "UTC", "window": "PT4H"}


def machine_id(name: str) -> str:
    return f"{GROUP}/providers/Microsoft.Compute/virtualMachines/{name}"


def configuration_id(name: str) -> str:
    return f"{GROUP}/providers/Microsoft.Maintenance/maintenanceConfigurations/{name}"


def entry(name: str, *, bypass: bool, mode: str = "AutomaticByPlatform") -> dict[str, Any]:
    """A Linux machine of the fleet file."""
    settings = {
        "patchMode": mode,
        "assessmentMode": "AutomaticByPlatform",
        "automaticByPlatformSettings": {"bypassPlatformSafetyChecksOnUserSchedule": bypass},
    }
    properties = {"osProfile": {"linuxConfiguration": {"patchSettings": settings}}}
    return {"id": machine_id(name), "location": "westeurope", "osType": "Linux", "properties": properties}


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The ready document of a simulator with four machines, which each test leaves as they are."""
    folder = tmp_path_factory.mktemp("doctor")
    machines = [
        entry("unpatched", bypass=True),
        entry("scheduled", bypass=True),
        entry("azure", bypass=False),
        entry("image", bypass=False, mode="ImageDefault"),
    ]
    # At that speed the minute by which Resource Graph lags is a moment.
    with running(folder, machines, "--speed", "100000") as document:
        yield document


@pytest.fixture
async def azure(
    access: Access, graph: ResourceGraph, services: Services, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx.AsyncClient]:
    """Azure as the trigger reaches it; the simulator's own controls for the test."""
    versions = AgentVersions(access.settings, access.pipeline())
    vars(services).update(resource_graph=graph, agent_versions=versions)
    async with httpx.AsyncClient(**as_client(access.document)) as http:
        yield http
        await http.delete("/_sim/faults")
    await versions.close()


async def schedule(azure: httpx.AsyncClient, name: str, *machines: str) -> None:
    """A schedule far in the future, and its assignments."""
    one = configuration_id(name)
    made = await azure.put(one, params=API, json=body(timeZone="UTC", recurEvery="Week Saturday"))
    assert made.status_code == 200, made.text
    for machine in machines:
        path = f"{machine_id(machine)}/providers/Microsoft.Maintenance/configurationAssignments/{name}"
        assignment = {"location": "westeurope", "properties": {"maintenanceConfigurationId": one}}
        assigned = await azure.put(path, params=API, json=assignment)
        assert assigned.status_code == 200, assigned.text


async def examined(**query: str) -> DriftReport:
    answered = await call(drift.examine_fleet, query=query)
    assert answered.status == 200, answered.text
    return DriftReport.model_validate(answered.json)


def by_kind(report: DriftReport) -> dict[str, set[str]]:
    """The names of what is found, by kind; none of these machines has an assessment, which is left out."""
    found: dict[str, set[str]] = {}
    for finding in report.findings:
        if finding.kind is not FindingKind.STALE_ASSESSMENT:
            found.setdefault(finding.kind, set()).add(finding.subject.rpartition("/")[2].lower())
    return found


async def test_the_fleet_is_read_and_judged(azure: httpx.AsyncClient, storage: Storage):
    await schedule(azure, "weekly", "scheduled", "azure")
    await schedule(azure, "twin", "scheduled")
    report = await examined()
    assert (report.machines, report.configurations) == (4, 2)
    assert by_kind(report) == {
        FindingKind.UNPATCHED: {"unpatched", "azure"},
        FindingKind.OS_MANAGED: {"image"},
        FindingKind.SAME_START: {"scheduled"},
    }
    assert report.findings_by_kind[FindingKind.STALE_ASSESSMENT] == 4

    policy = {"name": "monthly", "scope": {"subscriptions": [SUBSCRIPTION]}, "schedule": SCHEDULE}
    await storage.policies.put("monthly", policy, if_match=None, if_none_match=True, at=datetime.now(UTC))
    assert by_kind(await examined()) == {
        FindingKind.MULTIPLE_PATCHERS: {"scheduled"},
        FindingKind.INEFFECTIVE_SCHEDULE: {"azure"},
        FindingKind.SAME_START: {"scheduled"},
    }

    pause = Pause(actor="ann", reason="holidays", at=datetime.now(UTC))
    await storage.overrides.pause("monthly", pause)
    (unpatched,) = (await examined(kind="unpatched", subject="UNPATCHED")).findings
    assert "is paused by ann: holidays" in unpatched.evidence


async def test_wrong_parameters_are_refused(storage: Storage):
    del storage
    answered = await call(drift.examine_fleet, query={"kind": "unpatched,flu"})
    assert (answered.status, answered.paths) == (400, ["kind"])
    answered = await call(drift.examine_fleet, query={"staleDays": "0"})
    assert (answered.status, answered.paths) == (400, ["staleDays"])


async def test_a_fleet_that_azure_does_not_show(azure: httpx.AsyncClient):
    rule = {"match": {"operation": "graph"}, "effect": {"status": 403}}
    assert (await azure.post("/_sim/faults", json=rule)).status_code == 201
    answered = await call(drift.examine_fleet)
    assert answered.status == 502
    assert "could not be" in answered.problem["detail"]


async def test_what_is_wrong_in_guests_is_read_from_their_agents_and_errors(services: Services, tmp_path: Path):
    """Machines of a simulator of their own: agents that are old or not there, and errors of assessments."""
    windows = {"osType": "Windows", "properties": {}}
    machines = [
        entry("missing", bypass=True) | {"simulation": {"agent": "missing"}},
        entry("old", bypass=True) | {"simulation": {"agent": "old"}},
        entry("red-hat", bypass=True) | {"simulation": {"guestProblem": "packagekit"}},
        entry("offline", bypass=True) | {"simulation": {"guestProblem": "sourceUnreachable"}},
        entry("disabled", bypass=True) | windows | {"simulation": {"guestProblem": "updateServiceDisabled"}},
        entry("wsus", bypass=True) | windows | {"simulation": {"guestProblem": "sourceUnreachable"}},
    ]
    with running(tmp_path, machines, "--speed", "100000") as document:
        own = Access(document)
        graph, versions = ResourceGraph(own.settings, own.pipeline()), AgentVersions(own.settings, own.pipeline())
        vars(services).update(resource_graph=graph, agent_versions=versions)
        async with httpx.AsyncClient(**as_client(document)) as http:
            for name in ("red-hat", "offline", "disabled", "wsus"):
                accepted = await http.post(f"{machine_id(name)}/assessPatches", params={"api-version": "2025-04-01"})
                assert accepted.status_code == 202, accepted.text
        report = await examined()
        for _ in range(100):
            if len(by_kind(report)) == 6:
                break
            await asyncio.sleep(0.1)
            report = await examined()
        await versions.close()
        await graph.close()
    found = by_kind(report)
    assert {kind: found.get(kind) for kind in GUEST_KINDS} == {
        FindingKind.NO_AGENT: {"missing"},
        FindingKind.OLD_AGENT: {"old"},
        FindingKind.PACKAGEKIT_RUNNING: {"red-hat"},
        FindingKind.UPDATE_SERVICE_DISABLED: {"disabled"},
        FindingKind.UPDATE_SOURCE_UNREACHABLE: {"offline", "wsus"},
    }
    assert not [each for each in report.findings if "run start" in each.fix and each.subject.endswith("missing")]


GUEST_KINDS = (
    FindingKind.NO_AGENT,
    FindingKind.OLD_AGENT,
    FindingKind.PACKAGEKIT_RUNNING,
    FindingKind.UPDATE_SERVICE_DISABLED,
    FindingKind.UPDATE_SOURCE_UNREACHABLE,
)
