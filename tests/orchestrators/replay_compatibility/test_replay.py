"""Runs in progress when the app is deployed: recorded histories of every supported version, replayed now.

When one of these fails, instances that are running could not go on: raise ``contracts.VERSION``, let
``context.version`` decide where the behaviour changed (or take the old version out of ``orchestrators.versioning``),
and record the new version with ``make golden``.
"""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from durabletask import task
from durabletask.client import OrchestrationStatus

from local.functions_host.durable.workbench import Workbench
from orchestrators.versioning import SUPPORTED, versioned
from patchwave.domain.runs.run import Step
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.run import RunInput
from tests.orchestrators.replay_compatibility.histories import FOLDER, ORCHESTRATORS, Execution, Json
from tests.support.scripted_fleet import RUN_ID, Fleet

FILES = sorted(path for version in SUPPORTED for path in (FOLDER / version).glob("*.json"))


@pytest.mark.parametrize("path", FILES, ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_a_recorded_history_is_replayed_action_by_action(path: Path) -> None:
    execution = Execution.read(path)
    for turn, actions in execution.replay():
        assert actions == turn.actions, difference(execution, turn.upto, turn.actions, actions)


@pytest.mark.parametrize("path", FILES[::7], ids=lambda path: f"{path.parent.name}/{path.stem}")
def test_two_replays_give_the_same_actions(path: Path) -> None:
    execution = Execution.read(path)
    assert list(execution.replay()) == list(execution.replay())


def difference(execution: Execution, upto: int, recorded: list[Json], now: list[Json]) -> str:
    """Which event the code of today answers otherwise, and how."""
    event = execution.history[upto - 1]
    kind = next(name for name in event if name not in ("eventId", "timestamp"))
    return (
        f"{execution.name} of version {execution.version}: event {upto - 1} ({kind}) had the answer\n  {recorded}\n"
        f"and has now\n  {now}\n{__doc__}"
    )


def test_the_current_version_is_supported_and_recorded_in_full() -> None:
    """Every orchestrator, every step of a machine, and an operation of several executions."""
    recorded = [Execution.read(path) for path in FILES if path.parent.name == contracts.VERSION]
    assert {execution.name for execution in recorded} == set(ORCHESTRATORS)
    assert {execution.version for execution in recorded} == {contracts.VERSION}
    instances = " ".join(
        execution.instance_id for execution in recorded if execution.name == contracts.PATCH_MACHINE.name
    )
    assert all(f":{step.value}" in instances for step in Step)
    ends = {
        (execution.name, action["completeOrchestration"]["orchestrationStatus"])
        for execution in recorded
        for action in execution.turns[-1].actions
        if "completeOrchestration" in action
    }
    assert (contracts.AWAIT_OPERATION.name, "ORCHESTRATION_STATUS_CONTINUED_AS_NEW") in ends
    assert (contracts.PATCH_PHASE.name, "ORCHESTRATION_STATUS_CONTINUED_AS_NEW") in ends


def test_every_supported_version_has_its_histories() -> None:
    assert contracts.VERSION in SUPPORTED
    assert {path.parent.name for path in FILES} == SUPPORTED


def test_a_changed_orchestrator_is_noticed() -> None:
    """The guard itself: a history that says something else fails."""
    path = next(path for path in FILES if ".patch-" in path.name)
    execution = Execution.read(path)
    started = next(event for event in execution.history if "taskScheduled" in event)
    started["taskScheduled"]["name"] = contracts.BEGIN_RUN.name
    assert any(actions != turn.actions for turn, actions in execution.replay())


@pytest.mark.parametrize("version", ["0", None])
def test_an_instance_of_another_version_fails_before_it_does_anything(version: str | None) -> None:
    fleet = Fleet([])
    with Workbench(ORCHESTRATORS, fleet.activities()) as bench:
        bench.client.schedule_new_orchestration(
            contracts.PATCH_RUN.name, input=RunInput(run_id=RUN_ID).to_wire(), instance_id=RUN_ID, version=version
        )
        ended = bench.wait(RUN_ID)
    assert ended.status is OrchestrationStatus.FAILED
    assert ended.failure
    assert ended.failure.error_type.endswith("UnsupportedVersion")
    assert not fleet.calls


def test_a_running_instance_fails_when_its_version_is_no_longer_supported(monkeypatch: pytest.MonkeyPatch) -> None:
    """A deployment under a running instance: its next turn fails at once, and its history grows no further."""
    path = next(path for path in FILES if path.name.startswith("rollout.run."))
    monkeypatch.setattr("orchestrators.versioning.SUPPORTED", frozenset({"2"}))
    *_, (_, actions) = Execution.read(path).replay()
    assert [action["completeOrchestration"]["orchestrationStatus"] for action in actions] == [
        "ORCHESTRATION_STATUS_FAILED"
    ]


def test_children_and_later_executions_inherit_the_version() -> None:
    def parent(context: task.OrchestrationContext, data: Json) -> object:
        if not data.get("again"):
            context.continue_as_new({"again": True})
            return None
        child = yield context.call_sub_orchestrator("child", version=context.version)
        return [context.version, child]

    def child(context: task.OrchestrationContext, _: object) -> object:
        return context.version

    with Workbench({"parent": parent, "child": child}) as bench:
        bench.client.schedule_new_orchestration("parent", input={}, instance_id="p", version="7")
        assert bench.wait("p").output == ["7", "7"]


def test_the_wrapper_keeps_the_shape_that_the_library_reads() -> None:
    """It tells native orchestrators by their two parameters."""

    def orchestrator(context: task.OrchestrationContext, data: Json) -> Generator[task.Task[Any], Any]:
        yield context.wait_for_external_event(data["name"])

    wrapped = versioned(orchestrator)
    assert wrapped.__name__ == "orchestrator"
    assert wrapped.__annotations__ == orchestrator.__annotations__
