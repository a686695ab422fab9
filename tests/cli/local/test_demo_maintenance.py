"""The demonstration of schedules: what it claims is judged by facts that do not hold; all of it is a bench."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from local.demo.maintenance_scenario import (
    BY_IMAGE,
    EXCLUDED,
    EXPECTED,
    FLEET,
    FOLDER,
    IN_RUN,
    MANUAL,
    NO_BYPASS,
    ROOT,
    SHOP,
    STOPPED,
    WEEKLY,
    Fix,
    Json,
    Report,
    SimulatorView,
    arm_id,
    policy,
)
from patchwave.domain.fleet.patch_mode import PatchMode, PatchSettings
from patchwave.domain.policy.policy import parse_policy
from tests.cli.service import machine_document

_EVENTS = ("Pre", "Post")
INSTALLED = {"name": "openssl", "state": "Installed"}


def fleet() -> list[Json]:
    return json.loads(FLEET.read_text("utf-8"))


def row(machine: Json) -> Json:
    one = machine["id"]
    outcome, reason = {
        NO_BYPASS: ("failed", "update_manager_failed"),
        EXCLUDED: ("patched_with_warnings", "status_mismatch"),
    }.get(one, ("patched", "ok"))
    installation = None if one == NO_BYPASS else {"status": "Succeeded", "installed": 1}
    done = {"snapshotId": "snapshot", "preScriptOutput": "said", "poweredOn": one == STOPPED}
    system = machine["storageProfile"]["osDisk"]["osType"]
    known = {"id": one, "osType": system, "installation": installation}
    return machine_document(machine["name"], outcome, reason) | done | known


def report() -> Report:
    """All of it as it should be."""
    rows = [row(machine) for machine in fleet() if machine["id"].startswith(f"{SHOP}/")]
    power = {machine["id"]: machine["simulation"].get("power", "running") for machine in fleet()}
    times = dict.fromkeys(("preEventAt", "preparedAt", "postEventAt", "resultsAt"), "2026-11-21T15:00:00.000Z")
    return Report(
        run={"state": "completed", "occurrence": times | {"statusMismatches": 1}},
        machines=rows,
        patches={each["id"]: [INSTALLED] for each in rows if each["installation"]},
        occurrence={"machines": {each["id"].lower(): {} for each in rows}},
        deliveries=[
            {"type": f"Microsoft.Maintenance.{word}MaintenanceEvent", "status": 202} for word in ("Pre", "Post")
        ],
        power={"before": power, "during": power | {STOPPED: "running"}, "after": dict(power)},
        findings_before=[{"kind": kind, "subject": subject} for kind, subject in EXPECTED],
        fixes=[Fix("patchwave fleet set-mode", 0, "")],
    )


def test_the_policy_is_valid_and_the_fleet_is_as_described():
    around = parse_policy(policy()).maintenance
    assert around is not None
    assert around.configurations == [arm_id(WEEKLY)]
    machines = {machine["id"]: machine for machine in fleet()}
    assert sum(one.startswith(f"{SHOP}/") for one in machines) == IN_RUN
    assert machines[STOPPED]["simulation"]["power"] == "deallocated"

    def settings(one: str) -> PatchSettings:
        system = machines[one]["storageProfile"]["osDisk"]["osType"]
        found = PatchSettings.read(system, machines[one]["osProfile"][f"{system.lower()}Configuration"])
        assert found is not None
        return found

    assert settings(STOPPED).bypass
    assert not settings(NO_BYPASS).bypass
    assert settings(MANUAL).patch_mode is PatchMode.MANUAL
    assert settings(BY_IMAGE).patch_mode is PatchMode.IMAGE_DEFAULT


def test_all_is_well_and_written(tmp_path: Path):
    made = report()
    assert made.violations() == []
    made.write(tmp_path / "new" / "report.json")
    written = json.loads((tmp_path / "new" / "report.json").read_text("utf-8"))
    assert [machine["patches"] for machine in written["machines"] if machine["id"] == STOPPED] == [[INSTALLED]]
    assert written["doctor"]["fixes"] == [{"command": "patchwave fleet set-mode", "exitCode": 0}]


def _machine(one: str, **changes: object) -> Callable[[Report], None]:
    return lambda made: made.machine(one).update(changes)


SPOILED: list[tuple[Callable[[Report], object], str]] = [
    (lambda made: made.deliveries.pop(), "post event did not reach"),
    (lambda made: made.run["occurrence"].update(resultsAt=None), "no resultsAt"),
    (lambda made: made.run["occurrence"].update(statusMismatches=0), "status is wrong on 0"),
    (lambda made: made.run.update(state="failed"), "ended as failed"),
    (lambda made: made.power["during"].update({STOPPED: "deallocated"}), "when the scheduled run began"),
    (lambda made: made.power["after"].update({STOPPED: "running"}), "another power state"),
    (lambda made: made.power["after"].update({EXCLUDED: "deallocated"}), "another power state"),
    (lambda made: made.machines.pop(), "had a maintenance run"),
    (_machine(STOPPED, poweredOn=False), "started by Patchwave: none"),
    (_machine(EXCLUDED, poweredOn=True), "started by Patchwave"),
    (_machine(STOPPED, snapshotId=""), "No snapshot"),
    (_machine(STOPPED, preScriptOutput=""), "No script"),
    (_machine(STOPPED, installation=None), "No result"),
    (_machine(STOPPED, outcome=None), "No outcome"),
    (_machine(STOPPED, outcome="skipped"), "was not patched"),
    (_machine(NO_BYPASS, outcome="patched"), "bypass flag"),
    (_machine(EXCLUDED, reason="ok"), "no finding says so"),
    (lambda made: made.patches.pop(STOPPED), "copied patches of batch-01"),
    (lambda made: made.findings_before.pop(), "did not find reported_done_but_missing"),
    (lambda made: made.findings_after.append(made.findings_before[0]), "Still there"),
    (lambda made: made.fixes.append(Fix("patchwave run start", 1, "")), "Exit code 1: patchwave run start"),
]


@pytest.mark.parametrize(("spoil", "said"), SPOILED)
def test_a_claim_that_does_not_hold(spoil: Callable[[Report], object], said: str):
    made = report()
    spoil(made)
    assert any(said in sentence for sentence in made.violations())


@pytest.mark.bench
@pytest.mark.timeout(330)
def test_the_demonstration_passes():
    ended = subprocess.run(
        [sys.executable, "-m", "patchwave.cli", "demo-maintenance"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    written = json.loads((FOLDER / "report.json").read_text("utf-8"))
    assert written["doctor"]["after"] == []


class _Deallocating(SimulatorView):
    """The view of a machine that is off at the third look."""

    def __init__(self, *looks: str) -> None:
        self.looks = list(looks)

    def _ask(self, method: str, path: str, body: Json | None = None) -> Json:
        power = self.looks.pop(0) if len(self.looks) > 1 else self.looks[0]
        return {"machines": [{"id": "web", "power": "running"}, {"id": "batch", "power": power}]}


@pytest.mark.parametrize("word", ["deallocating", "stopping", "starting"])
def test_the_power_is_read_once_it_has_settled(word: str, monkeypatch: pytest.MonkeyPatch):
    pauses: list[float] = []
    monkeypatch.setattr("local.demo.maintenance_scenario.time.sleep", pauses.append)
    assert _Deallocating(word, word, "deallocated").power() == {"web": "running", "batch": "deallocated"}
    assert len(pauses) == 2


def test_power_that_never_settles_is_reported_as_it_is(monkeypatch: pytest.MonkeyPatch):
    at = iter(range(0, 1_000, 4))
    monkeypatch.setattr("local.demo.maintenance_scenario.time.sleep", lambda _: None)
    monkeypatch.setattr("local.demo.maintenance_scenario.time.monotonic", lambda: next(at))
    view = _Deallocating("deallocating", "deallocating", "deallocating", "deallocating", "deallocated")
    assert view.power()["batch"] == "deallocating", "ten seconds are over"
