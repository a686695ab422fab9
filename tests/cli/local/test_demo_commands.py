"""The demonstrations: what needs no running stack. The end-to-end tests have the rest."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from local.demo.scenario import FLEET, PAIRS, ROLLOUT, STOP, Demonstration, Install, Report
from patchwave.domain.policy.policy import parse_policy
from tests.cli.service import machine_document, run_document

RUN = "20261110T190000Z-demo"
CANARY, BROAD, PAIR = "canary-1", "broad-1", "broad-2"
STOPPED_AT = "2026-11-10T19:10:00Z"


@pytest.mark.parametrize("scene", [ROLLOUT, STOP], ids=lambda scene: scene.name)
def test_a_policy_is_valid_and_covers_the_fleet(scene: Demonstration):
    policy = parse_policy(scene.policy)
    fleet = json.loads(FLEET.read_text("utf-8"))
    assert {machine["id"].split("/")[2].lower() for machine in fleet} == set(policy.scope.subscriptions)
    assert {region for pair in PAIRS for region in pair} == {machine["location"] for machine in fleet}


def test_the_bad_update_is_one_of_the_broad_ring_in_one_region():
    fleet = {machine["id"]: machine for machine in json.loads(FLEET.read_text("utf-8"))}
    assert len({fleet[one]["location"] for one in STOP.bad}) == 1
    assert all(fleet[one]["tags"]["env"] != "test" for one in STOP.bad)


def row(name: str, outcome: str = "patched", reason: str = "ok", **fields: Any) -> dict[str, Any]:
    return machine_document(name, outcome, reason) | {"placementReasons": [], "wave": 1, "phase": 1} | fields


def report(*, late: bool = False, **changes: Any) -> Report:
    """Three machines; the pair of the second is patched after it, or at the same time."""
    machines = [
        row(CANARY, ring="canary", lane="westeurope"),
        row(BROAD, ring="broad", lane="westeurope"),
        row(PAIR, "failed", "patches_failed", ring="broad", lane="northeurope"),
    ]
    ids = [machine["id"] for machine in machines]
    installs = [
        Install(ids[0], "2026-11-10T19:00:00+00:00", 0, 10),
        Install(ids[1], "2026-11-10T19:05:00+00:00", 10, 20),
        Install(ids[2], "2026-11-10T19:12:00+00:00" if late else "2026-11-10T19:06:00+00:00", 20, 30),
    ]
    run = run_document(RUN, machines=3, countsByOutcome={"patched": 2, "failed": 1}, **changes)
    return Report(run, machines, {"makespan": {"predictedSeconds": 30, "lowerBoundSeconds": 30}}, installs)


def test_the_report_on_disk(tmp_path: Path):
    made = report()
    made.write(tmp_path / "new" / "report.json")
    written = json.loads((tmp_path / "new" / "report.json").read_text("utf-8"))
    assert written["run"]["id"] == RUN
    assert written["countsByOutcome"] == {"patched": 2, "failed": 1}
    assert written["machines"][2]["outcome"] == "failed"
    assert written["machines"][2]["ring"] == "broad"
    assert written["makespan"]["lowerBoundSeconds"] == 30
    assert written["simulator"] == {"acceptedInstalls": {machine["id"]: 1 for machine in made.machines}}
    assert ROLLOUT.violations(made) == []


def test_a_second_install_is_reported():
    made = report()
    twice = Report(made.run, made.machines, made.plan, [*made.installs, made.installs[-1]._replace(start=40, end=50)])
    assert "install 2 times" in ROLLOUT.violations(twice)[0]


def test_a_run_that_did_not_complete_is_reported():
    assert "ended as failed" in ROLLOUT.violations(report(state="failed"))[0]


def test_a_machine_without_an_outcome_is_reported():
    made = report()
    made.machines[1]["outcome"] = None
    assert f"No outcome: {BROAD}" in ROLLOUT.violations(made)


@pytest.mark.parametrize("change", ["lost", "twice"])
def test_rows_that_do_not_add_up_are_reported(change: str):
    made = report()
    if change == "lost":
        made.machines.pop()
    else:
        made.machines[2] = {**made.machines[1], "id": made.machines[1]["id"].upper()}
    assert any("do not agree" in sentence for sentence in ROLLOUT.violations(made))


def test_a_pair_at_the_same_time_and_a_ring_too_early_are_reported():
    made = report()
    at_once = [install._replace(start=0, end=10) for install in made.installs]
    broken = ROLLOUT.violations(Report(made.run, made.machines, made.plan, at_once))
    assert any("before the canaries" in sentence for sentence in broken)
    assert any("its pair northeurope" in sentence for sentence in broken)


def test_the_stop_has_to_keep_machines_from_being_patched():
    stopped: dict[str, Any] = {"state": "stopped", "stoppedAt": STOPPED_AT, "stopReason": "The budget is used up."}
    assert "kept no machine" in STOP.violations(report(**stopped))[0]
    made = report(**stopped)
    made.machines[2]["reason"] = "error_budget"
    assert any("skipped although" in sentence for sentence in STOP.violations(made))
    late = STOP.violations(report(late=True, **stopped))
    assert any("after the run was stopped" in sentence and PAIR in sentence for sentence in late)
