"""patch_run: assess, plan, ring by ring; closed in every case, with one outcome per machine."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import pytest
from durabletask.client import OrchestrationStatus

from domain.run import Mode
from domain.work import Discovered, RunRef
from orchestrators import names
from orchestrators.run import MOST_DISCOVERY_FAILURES
from tests.replay import fakes
from tests.replay.fakes import RUN_ID, Fleet, Script

INPUT = RunRef(run_id=RUN_ID).to_wire()


def keys(count: int) -> list[str]:
    return [f"{number:024x}" for number in range(count)]


def run(fleet: Fleet, **replaced: Callable[[Any], Any]) -> dict[str, Any]:
    with fleet.bench(**replaced) as bench:
        ended = bench.run("patch_run", INPUT, instance_id=RUN_ID, timeout=60)
    assert ended.status is OrchestrationStatus.COMPLETED, ended.failure
    assert fleet.order.index(names.CLOSE_OPEN_MACHINES) < fleet.order.index(names.CLOSE_RUN)
    assert len(fleet.closed) == 1
    assert set(fleet.recorded) == set(fleet.keys)
    return fleet.closed[0]


def test_a_fleet_is_assessed_and_then_patched() -> None:
    fleet = Fleet(keys(12), {keys(12)[3]: Script(assess_polls=[fakes.CLEAN])})
    assert run(fleet)["state"] == "completed"
    outcomes = fleet.outcomes
    assert outcomes.pop(keys(12)[3]) == ("nothing_to_install", "no_pending_patches")
    assert set(outcomes.values()) == {("patched", "ok")}
    assert all(fleet.accepted[key, "assess"] == 1 for key in fleet.keys)
    assert sum(fleet.accepted[key, "install"] for key in fleet.keys) == 11
    assert fleet.order.index(names.INSTALL_PATCHES) > max(
        index for index, name in enumerate(fleet.order) if name == names.ASSESS_MACHINE
    ), "every machine is assessed before the first installation"


def test_an_assess_run_installs_nothing() -> None:
    fleet = Fleet(keys(5), mode=Mode.ASSESS)
    run(fleet)
    assert set(fleet.outcomes.values()) == {("assessed", "patches_pending")}
    assert names.INSTALL_PATCHES not in fleet.order


def test_discovery_goes_page_by_page_and_waits_as_asked() -> None:
    fleet = Fleet(keys(3))
    fleet.discoveries = [
        Discovered(machines=1, cursor="2"),
        Discovered(machines=1, wait_seconds=5, failure="throttled"),
        Discovered(machines=2, cursor="3", wait_seconds=5),
        Discovered(machines=3),
    ]
    with fleet.bench() as bench:
        bench.run("patch_run", INPUT, timeout=60)
        asked = bench.calls_of(names.DISCOVER_MACHINES)
    assert [(call["cursor"], call["attempt"]) for call in asked] == [("", 0), ("2", 0), ("2", 1), ("3", 0)]
    assert len(fleet.outcomes) == 3


@pytest.mark.parametrize(("wait", "asked"), [(5.0, MOST_DISCOVERY_FAILURES), (0.0, 1)])
def test_a_discovery_that_fails_ends_the_run_with_the_reason(wait: float, asked: int) -> None:
    fleet = Fleet([])
    fleet.discoveries = [Discovered(wait_seconds=wait, failure="The machines could not be listed.")]
    closed = run(fleet)
    assert (closed["state"], closed["reason"]) == ("failed", "The machines could not be listed.")
    assert fleet.order.count(names.DISCOVER_MACHINES) == asked


def test_a_scope_without_machines_is_empty() -> None:
    fleet = Fleet([])
    closed = run(fleet)
    assert closed["state"] == "empty"
    assert "tags env=prod" in closed["reason"]


def test_a_cancel_before_the_phases_ends_every_machine_as_canceled() -> None:
    fleet = Fleet(keys(4))
    fleet.discoveries = [Discovered(machines=2, cursor="2", wait_seconds=3600), Discovered(machines=4)]
    with fleet.bench() as bench:
        instance = bench.start("patch_run", INPUT, instance_id=RUN_ID)
        bench.client.raise_orchestration_event(RUN_ID, names.CANCEL_EVENT)
        assert bench.wait(instance).output["state"] == "canceled"
    assert set(fleet.outcomes.values()) == {("canceled", "canceled_by_user")}
    assert not fleet.accepted


def test_a_run_that_has_ended_already_is_left_alone() -> None:
    fleet = Fleet([])
    fleet.opened = fleet.opened.model_copy(update={"is_final": True})
    run(fleet)
    assert names.DISCOVER_MACHINES not in fleet.order


def test_a_run_whose_own_activity_fails_is_closed_as_failed() -> None:
    fleet = Fleet(keys(2))

    def broken(_: Any) -> Any:
        raise fakes.Broken("the storage is away")

    closed = run(fleet, **{names.NEXT_MACHINES: broken})
    assert closed["state"] == "failed"
    assert set(fleet.outcomes.values()) == {("unknown", "internal")}


@pytest.mark.parametrize("seed", range(4))
def test_random_fleets_end_with_one_outcome_each_and_one_installation_at_most(seed: int) -> None:
    source = random.Random(seed)
    scripts = {key: _random_script(source) for key in keys(40)}
    fleet = Fleet(keys(40), scripts)
    assert run(fleet)["state"] == "completed"
    assert len(fleet.outcomes) == 40, f"seed {seed}"
    assert all(fleet.accepted[key, "install"] <= 1 for key in fleet.keys), f"seed {seed}"


def _random_script(source: random.Random) -> Script:
    return Script(
        looks=[*source.choices([fakes.READY, fakes.LOCKED, fakes.STOPPED], [8, 1, 1], k=2), fakes.READY],
        assess_starts=source.choices([fakes.ACCEPTED, fakes.THROTTLED, fakes.BUSY], [6, 1, 1], k=3),
        install_starts=source.choices([fakes.ACCEPTED, fakes.THROTTLED, fakes.BUSY], [6, 1, 1], k=3),
        assess_polls=[*source.choices([fakes.RUNNING, fakes.ASSESSED, fakes.PASSING], k=3), fakes.ASSESSED],
        install_polls=[
            *source.choices([fakes.RUNNING, fakes.INSTALLED, fakes.PASSING, fakes.LOST], k=3),
            fakes.INSTALLED,
        ],
        breaks=source.choice([""] * 8 + [names.POLL_OPERATION, names.INSTALL_PATCHES]),
    )
