"""``demo-maintenance``: one run of an Update Manager schedule with pre and post maintenance, then drift detection.

Driven through the product's command and API (``local.demo.maintenance_play``). Facts about machines come from
the simulator's log, not from the app under test.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, cast

from local import ROOT
from local.demo.scenario import ask_simulator, write_report
from local.stack import Stack, StackOptions

type Json = dict[str, Any]

FOLDER = ROOT / ".local" / "demo-maintenance"
FLEET = ROOT / "examples" / "fleets" / "maintenance.json"

SPEED = 90.0
"""Simulated seconds per second: the forty minutes from the pre event to the start are over in half a minute."""
LEAD = timedelta(minutes=46)
"""From setting the start to the start: over the forty minutes that a schedule with events needs, by some seconds."""

POWER_SECONDS = 10.0
"""Time of a machine's start or stop: 35 simulated seconds, more on a slow computer."""
_POWER_LOOK_SECONDS = 0.2
_CHANGING = frozenset({"starting", "stopping", "deallocating"})

SUBSCRIPTION = "3f2b9a64-71c8-4d05-9e1a-8c6d5f0b7e42"
_GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups"
SHOP = f"{_GROUP}/rg-shop"
STOPPED, NO_BYPASS, EXCLUDED, TWICE, MANUAL, BY_IMAGE = (
    f"{_GROUP}/{group}/providers/Microsoft.Compute/virtualMachines/{name}"
    for group, name in (
        ("rg-shop", "batch-01"),
        ("rg-shop", "web-03"),
        ("rg-shop", "web-02"),
        ("rg-shop", "sql-01"),
        ("rg-office", "office-01"),
        ("rg-office", "office-02"),
    )
)
"""What each machine shows: one that is stopped, one that lacks the bypass flag, one that misses what the schedule
excludes, one with two schedules, one that nothing patches, and one that is left to its image."""
BY_NAME = (STOPPED, TWICE)
"""Assigned one by one; the others of the shop by a dynamic scope over their tag."""
IN_RUN = 6
"""Machines of the scheduled run: all of the shop."""

POLICY = "around-weekly"
WEEKLY, COPY, RETIRED, LEGACY = (
    f"{SUBSCRIPTION}/rg-schedules/{name}" for name in ("weekly", "weekly-copy", "retired", "legacy")
)
"""The schedule, and three by which the fleet is neglected, in the short form of the command."""


def arm_id(configuration: str) -> str:
    """The ARM id of ``SUBSCRIPTION/GROUP/NAME``."""
    subscription, group, name = configuration.split("/")
    provider = "Microsoft.Maintenance/maintenanceConfigurations"
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/{provider}/{name}"


def policy() -> Json:
    """The policy of the schedule's maintenance runs."""
    return {
        "name": POLICY,
        "description": "Before each weekly run: start what is stopped, take a snapshot, tell the users on Linux.",
        "scope": {"subscriptions": [SUBSCRIPTION]},
        "maintenance": {"configurations": [arm_id(WEEKLY)]},
        "startStopped": True,
        "hooks": {"snapshot": {}, "before": {"linux": "echo Maintenance begins in half an hour"}},
    }


def stack_options() -> StackOptions:
    """A stack with its own small fleet, on a free port."""
    return StackOptions(
        state=FOLDER / "stack",
        port=0,
        fleet=FLEET,
        speed=SPEED,
        poll_seconds=0.2,
        signs_in=True,
        settings={"PATCHWAVE_SCRIPTS": "true"},
    )


class SimulatorView:
    """The simulator's facts about machines, and its calendar."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def calendar(self) -> datetime:
        """The date and time that schedules see."""
        return datetime.fromisoformat(self._ask("GET", "/_sim")["calendar"])

    def occurrence(self) -> Json | None:
        """The first run of the schedule with its machines, once it is announced."""
        runs = cast("list[Json]", self._ask("GET", "/_sim/maintenance")["occurrences"])
        mine = arm_id(WEEKLY).lower()
        return next((each for each in runs if str(each["id"]).startswith(f"{mine}/")), None)

    def deliveries(self) -> list[Json]:
        """Each try to deliver an event."""
        return cast("list[Json]", self._ask("GET", "/_sim/maintenance")["deliveries"])

    def power(self) -> dict[str, str]:
        """Whether each machine runs, by id, once power states are stable; at the latest after a while."""
        until = time.monotonic() + POWER_SECONDS
        while True:
            machines = cast("list[Json]", self._ask("GET", "/_sim/state")["machines"])
            power = {str(each["id"]): str(each["power"]) for each in machines}
            if not _CHANGING.intersection(power.values()) or time.monotonic() > until:
                return power
            time.sleep(_POWER_LOOK_SECONDS)

    def take_patch_mode(self, configuration: str) -> None:
        """Make a configuration one of those that were created before Azure asked for ``InGuestPatchMode``."""
        self._ask("POST", "/_sim/maintenance", {"configuration": arm_id(configuration), "withoutPatchMode": True})

    def _ask(self, method: str, path: str, body: Json | None = None) -> Json:
        return ask_simulator(self._stack, method, path, body)


@dataclass(frozen=True, slots=True)
class Fix:
    """A command from a finding, and its result."""

    command: str
    exit_code: int
    output: str


@dataclass(slots=True)
class Report:
    """The results of the demonstration.

    ``run`` is what Patchwave says of the scheduled run, with the rows of its ``machines`` and the ``patches`` that were
    copied, by machine id. The simulator tells ``occurrence``, ``deliveries``, and ``power``: whether machines run, by
    moment (``before``, ``during``, ``after``) and id.
    """

    run: Json = field(default_factory=dict[str, Any])
    machines: list[Json] = field(default_factory=list[Json])
    patches: dict[str, list[Json]] = field(default_factory=dict[str, list[Json]])
    occurrence: Json = field(default_factory=dict[str, Any])
    deliveries: list[Json] = field(default_factory=list[Json])
    power: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    findings_before: list[Json] = field(default_factory=list[Json])
    fixes: list[Fix] = field(default_factory=list[Fix])
    findings_after: list[Json] = field(default_factory=list[Json])

    def write(self, path: Path) -> None:
        document = {
            "run": self.run,
            "machines": [each | {"patches": self.patches.get(str(each["id"]), [])} for each in self.machines],
            "power": self.power,
            "doctor": {
                "before": self.findings_before,
                "fixes": [{"command": each.command, "exitCode": each.exit_code} for each in self.fixes],
                "after": self.findings_after,
            },
            "simulator": {"occurrence": self.occurrence, "deliveries": self.deliveries},
        }
        write_report(path, document)

    def machine(self, machine_id: str) -> Json:
        """The machine's row of the run; empty when it has none."""
        found = [each for each in self.machines if str(each["id"]).lower() == machine_id.lower()]
        return found[0] if found else {}

    def violations(self) -> list[str]:
        """Violated claims, a sentence each; empty on success."""
        return [*self._broken_events(), *self._broken_power(), *self._broken_results(), *self._broken_findings()]

    def _broken_events(self) -> Iterable[str]:
        for word in ("Pre", "Post"):
            kind = f"Microsoft.Maintenance.{word}MaintenanceEvent"
            if not any(each["type"] == kind and 200 <= each["status"] < 300 for each in self.deliveries):
                yield f"The {word.lower()} event did not reach the app"
        occurrence = cast("Json", self.run.get("occurrence") or {})
        for key in ("preEventAt", "preparedAt", "postEventAt", "resultsAt"):
            if not occurrence.get(key):
                yield f"The run around the scheduled one has no {key}"
        if occurrence.get("statusMismatches") != 1:
            yield f"Update Manager's status is wrong on {occurrence.get('statusMismatches')} machines, not on one"
        if self.run.get("state") != "completed":
            yield f"The run ended as {self.run.get('state')}: {self.run.get('reason', '')}"

    def _broken_power(self) -> Iterable[str]:
        before, during, after = (self.power.get(moment, {}) for moment in ("before", "during", "after"))
        if during.get(STOPPED) != "running":
            yield f"{STOPPED} was {during.get(STOPPED)} when the scheduled run began"
        started = [each["id"] for each in self.machines if each.get("poweredOn")]
        if started != [STOPPED]:
            yield f"Noted as started by Patchwave: {', '.join(started) or 'none'}, not {STOPPED}"
        changed = [machine for machine, power in after.items() if power != before.get(machine)]
        if changed or before.keys() != after.keys():
            yield f"Left in another power state than before: {', '.join(changed) or 'unknown'}"

    def _broken_results(self) -> Iterable[str]:
        said = {str(each).lower() for each in cast("Json", self.occurrence.get("machines") or {})}
        kept = {str(each["id"]).lower() for each in self.machines}
        if len(said) != IN_RUN or said != kept:
            yield f"The schedule patched {len(said)} machines, {len(kept)} had a maintenance run, of {IN_RUN}"
        for machine in self.machines:
            name = machine["name"]
            if not machine.get("outcome"):
                yield f"No outcome: {name}"
            if not machine.get("snapshotId"):
                yield f"No snapshot: {name}"
            if machine["osType"] == "Linux" and not machine.get("preScriptOutput"):
                yield f"No script before the run: {name}"
            if machine["id"] != NO_BYPASS and not machine.get("installation"):
                yield f"No result of the installation on {name}"
            installed = cast("Json", machine.get("installation") or {}).get("installed", 0)
            patches = self.patches.get(str(machine["id"]), [])
            if sum(patch.get("state") == "Installed" for patch in patches) != installed:
                yield f"The copied patches of {name} are not the {installed} that were installed"
        if self.machine(STOPPED).get("outcome") != "patched":
            yield f"{STOPPED} was not patched"
        if self.machine(NO_BYPASS).get("outcome") != "failed":
            yield f"{NO_BYPASS} did not fail without the bypass flag"
        if self.machine(EXCLUDED).get("reason") != "status_mismatch":
            yield f"{EXCLUDED} misses an update, and no finding says so"

    def _broken_findings(self) -> Iterable[str]:
        found = {(str(each["kind"]), str(each["subject"]).lower()) for each in self.findings_before}
        for kind, subject in EXPECTED:
            if (kind, subject.lower()) not in found:
                yield f"The doctor did not find {kind} of {subject}"
        for fix in self.fixes:
            if fix.exit_code != 0:
                yield f"Exit code {fix.exit_code}: {fix.command}"
        for finding in self.findings_after:
            yield f"Still there after its fix: {finding['kind']} of {finding['subject']}"


EXPECTED = (
    ("unpatched", NO_BYPASS),
    ("unpatched", MANUAL),
    ("os_managed", BY_IMAGE),
    ("same_start", TWICE),
    ("stale_assignment", TWICE),
    ("no_patch_mode", arm_id(LEGACY)),
    ("stale_assessment", MANUAL),
    ("stale_assessment", BY_IMAGE),
    ("reported_done_but_missing", EXCLUDED),
)
"""The expected findings: kind and subject."""
