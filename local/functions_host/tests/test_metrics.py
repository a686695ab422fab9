"""What the engine counts of orchestrations: replayed events, histories, payloads, calls that were given out again."""

from typing import Any

import pytest

from local.functions_host.durable.engine import Engine
from local.functions_host.tests.rig import COMPLETED, Rig, activity, complete, continue_as_new


@pytest.fixture
def engine(rig: Rig) -> Engine:
    assert isinstance(rig.backend, Engine)
    return rig.backend


def orchestrator(engine: Engine) -> dict[str, Any]:
    return engine.measure()["orchestrators"]["orchestrator"]


def test_sequential_steps_replay_as_often_as_their_closed_form(rig: Rig, engine: Engine) -> None:
    steps = 12
    rig.start()
    for number in range(steps):
        rig.turn(rig.must_take(), activity(number))
        rig.finish(rig.must_take())
    rig.turn(rig.must_take(), complete())
    assert rig.state().orchestrationStatus == COMPLETED
    counts = orchestrator(engine)
    assert counts["turns"] == steps + 1
    # Four events a step: started, scheduled, the one that closes the turn, and the result.
    assert counts["replayedEvents"] == 2 * steps**2 + 2 * steps
    assert counts["longestHistory"] == 4 * steps + 4
    assert counts["resultBytes"] == steps * len('"result"')
    assert counts["sentBytes"] == steps * len('"in"') + len('"out"')
    assert counts["largestPayload"] == len('"result"')
    assert counts["largestOutput"] == len('"out"')
    assert engine.measure()["activities"]["activity"] == {
        "executions": steps,
        "repeated": 0,
        "lost": 0,
        "largestInput": len('"in"'),
        "largestResult": len('"result"'),
    }


def test_continuing_as_new_is_an_execution_without_a_past(rig: Rig, engine: Engine) -> None:
    rig.start(text='"begin"')
    for _ in range(3):
        rig.turn(rig.must_take(), continue_as_new())
    counts = orchestrator(engine)
    assert (counts["executions"], counts["turns"], counts["replayedEvents"]) == (3, 3, 0)
    assert counts["largestInput"] == len('"begin"')
    assert counts["largestState"] >= 2, "what it carries is no input and no output"
    assert counts["largestOutput"] == 0


def test_a_call_of_a_worker_that_died_counts_as_repeated(rig: Rig, engine: Engine) -> None:
    rig.begun(activity())
    rig.must_take()
    rig.worker_dies()
    rig.finish(rig.must_take())
    counts = engine.measure()["activities"]["activity"]
    assert (counts["executions"], counts["repeated"], counts["lost"]) == (2, 1, 1)


def test_a_reset_counts_anew(rig: Rig, engine: Engine) -> None:
    rig.begun(activity())
    engine.reset_metrics()
    assert engine.measure() == {"orchestrators": {}, "activities": {}}
