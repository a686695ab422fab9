"""What a read of a large fleet costs: Resource Graph queries, and processor time of the worker.

``GET /api/fleet/status`` reads status, modes and eligibility of every machine at once. The fleet has several
subscriptions and modes, a schedule over all of them, policies, and for each machine an assessment and an installation
of the days before.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from benchmarks.scenario import Scene, Stage
from local.stack import StackOptions

MACHINES = 10_000
_SPEED = 30.0
_SUBSCRIPTIONS = 6
_POLICIES = 5
_READS = 3
"""The least processor time of so many reads counts: others on this machine only ever add to it."""
_TIMEOUT_SECONDS = 240

type Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class _Estate(Scene):
    """A fleet with a history."""

    def options(self, **changes: Any) -> StackOptions:
        fleet = self.folder / "history.json"
        made = replace(Scene(self.folder, 1, self.speed, self.seed).options(**changes), fleet=fleet)
        fleet.write_text(json.dumps({"machines": [_machine(number) for number in range(self.machines)]}))
        return made


def measure(folder: Path, machines: int = MACHINES, seed: int = 1) -> Json:
    """``machines``, ``queries`` of Resource Graph for one read, ``cpuSeconds`` of the worker, ``bytes`` of the answer.

    Raises:
        RuntimeError: an answer is not of the whole fleet.
    """
    with Stage(_Estate(folder, machines, _SPEED, seed)) as stage:
        stage.app.timeout = _TIMEOUT_SECONDS
        _write_policies(stage)
        _schedule(stage)
        # What a worker loads at its first request is not a part of reading.
        stage.app.get("/api/fleet/status", params={"machine": _machine(0)["id"]}).raise_for_status()
        reads = [_read(stage, machines) for _ in range(_READS)]
    return {"machines": machines} | {key: min(read[key] for read in reads) for key in reads[0]}


def _read(stage: Stage, machines: int) -> Json:
    stage.reset()
    with stage.watch() as watch:
        reply = stage.app.get("/api/fleet/status").raise_for_status()
    found = reply.json()
    counted = (len(found["machines"]), found["counts"]["byResult"].get("Succeeded"), found["notes"])
    if counted != (machines, machines, []):
        raise RuntimeError(f"a read of {machines} machines tells of {counted}")
    queries = sum(stage.counts()["azure"]["requests"]["graph"].values())
    return {
        "queries": queries,
        "cpuSeconds": watch.document()["worker"]["cpuSeconds"],
        "bytes": len(reply.content),
    }


def _subscription(number: int) -> str:
    return f"5f1c0a3e-0000-4000-8000-{number % _SUBSCRIPTIONS:012d}"


def _machine(number: int) -> Json:
    system = "windows" if number % 3 == 0 else "linux"
    mode = ("AutomaticByPlatform", "AutomaticByOS" if system == "windows" else "ImageDefault")[number % 4 == 0]
    settings: Json = {"patchMode": mode, "assessmentMode": "AutomaticByPlatform"}
    if mode == "AutomaticByPlatform":
        settings["automaticByPlatformSettings"] = {"bypassPlatformSafetyChecksOnUserSchedule": number % 2 == 0}
    group = f"/subscriptions/{_subscription(number)}/resourceGroups/rg-{number % 40:02d}"
    return {
        "id": f"{group}/providers/Microsoft.Compute/virtualMachines/vm-{number:05d}",
        "name": f"vm-{number:05d}",
        "location": "westeurope",
        "osType": system.capitalize(),
        "tags": {"app": f"app-{number % 25:02d}"},
        "properties": {"osProfile": {f"{system}Configuration": {"patchSettings": settings}}},
        "simulation": {"assessedHoursAgo": 5, "installedHoursAgo": 100, "pendingPatches": 3},
    }


def _write_policies(stage: Stage) -> None:
    for number in range(_POLICIES):
        schedule = {"recurrence": "second Tuesday", "time": "22:00", "timeZone": "Europe/Berlin", "window": "PT4H"}
        policy = {"scope": {"subscriptions": [_subscription(number)]}, "schedule": schedule}
        stage.app.put(f"/api/policies/bench-{number}", json=policy).raise_for_status()


def _schedule(stage: Stage) -> None:
    """A schedule of Update Manager over a part of a subscription."""
    address = f"/api/maintenance/configurations/{_subscription(0)}/rg-00/bench"
    starts = datetime.now(UTC) + timedelta(days=300)
    window = {
        "startDateTime": f"{starts:%Y-%m-%d %H:%M}",
        "duration": "02:00",
        "timeZone": "UTC",
        "recurEvery": "Month Second Tuesday",
    }
    patches = {"linuxParameters": {"classificationsToInclude": ["Critical", "Security"]}}
    properties = {
        "extensionProperties": {"InGuestPatchMode": "User"},
        "maintenanceWindow": window,
        "installPatches": patches,
    }
    body = {"location": "westeurope", "properties": properties}
    stage.app.put(address, json=body).raise_for_status()
    identity = (
        f"/subscriptions/{_subscription(0)}/resourceGroups/rg-00"
        "/providers/Microsoft.Maintenance/maintenanceConfigurations/bench"
    )
    scope = {"configurationId": identity, "resourceId": f"/subscriptions/{_subscription(0)}"}
    # A scope holds at most 1,000 machines.
    tags = {"app": [f"app-{number:02d}" for number in range(8)]}
    criteria: Json = {"filter": {"locations": ["westeurope"], "tagSettings": {"filterOperator": "Any", "tags": tags}}}
    stage.app.put("/api/maintenance/assignments", json=scope | criteria).raise_for_status()
