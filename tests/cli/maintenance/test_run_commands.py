"""``patchwave maintenance runs`` against a service over HTTP."""

from __future__ import annotations

from typing import Any

from starlette.responses import JSONResponse

from tests.cli.conftest import Patchwave
from tests.cli.service import Service, machine_document, problem

RUN = "20261121T030000Z-weekly-0a1b2c3d"
CONFIGURATION = "/subscriptions/s/resourceGroups/rg/providers/Microsoft.Maintenance/maintenanceConfigurations/nightly"
MAINTENANCE_RUN: dict[str, Any] = {
    "runId": RUN,
    "policy": "weekly",
    "state": "completed",
    "reason": "",
    "waitingFor": "",
    "createdAt": "2026-11-21T02:20:00.000Z",
    "endedAt": "2026-11-21T05:00:00.000Z",
    "machines": 2,
    "countsByOutcome": {"patched": 1, "failed": 1},
    "occurrence": {
        "id": f"{CONFIGURATION}/providers/microsoft.maintenance/applyupdates/20261121030000",
        "configurationId": CONFIGURATION,
        "startsAt": "2026-11-21T03:00:00.000Z",
        "endsAt": "2026-11-21T05:00:00.000Z",
        "preEventAt": None,
        "postEventAt": "2026-11-21T04:10:00.000Z",
        "status": "Succeeded",
        "statusMismatches": 1,
        "passedOver": ["arc-1", "arc-2"],
    },
}


def machine(name: str, outcome: str, **changes: Any) -> dict[str, Any]:
    own = {
        "preTasksDone": True,
        "poweredOn": False,
        "snapshotId": "",
        "preTasksError": "",
        "updateManagerStatus": "Succeeded",
    }
    return machine_document(name, outcome) | own | {"statusMismatch": outcome == "failed"} | changes


MACHINES = [
    machine("web-01", "patched", poweredOn=True, snapshotId="x", installation={"installed": 3}),
    machine("web-02", "failed", message="Update Manager reported Succeeded, but there is no installation."),
]


def test_scheduled_runs_are_listed(patchwave: Patchwave, service: Service) -> None:
    service.answers = [JSONResponse({"runs": [MAINTENANCE_RUN], "cursor": None})]
    result = patchwave("maintenance", "runs", "list")
    assert result.code == 0
    (line,) = [line for line in result.output.splitlines() if RUN in line]
    assert "nightly" in line
    assert "2026-11-21 03:00:00Z" in line
    assert "patched 1, failed 1" in line


def test_one_is_shown_with_its_machines(patchwave: Patchwave, service: Service) -> None:
    service.answers = [
        JSONResponse({"runs": [MAINTENANCE_RUN], "cursor": None}),
        JSONResponse(MAINTENANCE_RUN),
        JSONResponse({"machines": MACHINES, "cursor": None}),
    ]
    result = patchwave("maintenance", "runs", "show", "latest")
    assert result.code == 0
    assert "none came" in result.output
    assert "2 rows about no virtual machine: arc-1, arc-2" in result.output
    first, second = (line for line in result.output.splitlines() if line.startswith("web-"))
    assert "started, snapshot" in first
    assert "failed" in second
    assert service.asked("GET", f"/api/maintenance/runs/{RUN}/machines")[0]["query"].get("statusMismatch") is None


def test_only_what_is_contradicted(patchwave: Patchwave, service: Service) -> None:
    service.answers = [JSONResponse(MAINTENANCE_RUN), JSONResponse({"machines": MACHINES[1:], "cursor": None})]
    result = patchwave("maintenance", "runs", "show", RUN, "--status-mismatch", "-o", "json")
    assert result.document == {"run": MAINTENANCE_RUN, "machines": MACHINES[1:]}
    [asked] = service.asked("GET", f"/api/maintenance/runs/{RUN}/machines")
    assert asked["query"]["statusMismatch"] == "true"


def test_none_yet(patchwave: Patchwave, service: Service) -> None:
    service.answers = [JSONResponse({"runs": [], "cursor": None})]
    assert patchwave("maintenance", "runs", "show", "latest").code == 2
    service.answers = [problem(404, "Not Found", "There is no such run around a scheduled run.")]
    assert patchwave("maintenance", "runs", "show", RUN).code == 2
