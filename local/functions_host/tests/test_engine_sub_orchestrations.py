"""Sub-orchestrations and timers: no limit of 30 s, no thread for each, failures with their type (B1, B8, B12)."""

import threading
import time
from dataclasses import dataclass, field

import pytest
from durabletask.testing import in_memory_backend

from local.functions_host.tests.conftest import MakeRig
from local.functions_host.tests.rig import Rig, child, complete, fail_with, new_events, timer


class _HastyEvent(threading.Event):
    """Waits 600 times shorter, so that the original's 30 s are 50 ms."""

    def wait(self, timeout: float | None = None) -> bool:
        return super().wait(None if timeout is None else timeout / 600)


@dataclass
class _HastyWaiter(in_memory_backend.StateWaiter):
    event: threading.Event = field(default_factory=_HastyEvent)


def test_b1_a_child_that_takes_longer_than_the_wait_reports_to_its_parent(
    rig: Rig, mended: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_memory_backend, "StateWaiter", _HastyWaiter)
    rig.begun(child("kid"))
    item = rig.must_take()
    time.sleep(0.15)
    rig.turn(item, complete(text='"slow"'))
    time.sleep(0.02)
    reported = new_events(rig.take(), "subOrchestrationInstanceCompleted")
    assert len(reported) == int(mended)


def test_b1_a_client_without_deadline_waits_longer_than_the_default(
    make_rig: MakeRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(in_memory_backend, "StateWaiter", _HastyWaiter)
    rig = make_rig()
    rig.start()
    item = rig.must_take()
    ended: list[object] = []
    waiter = threading.Thread(target=lambda: ended.append(_wait_for_completion(rig)))
    waiter.start()
    time.sleep(0.1)
    assert ended == []
    rig.turn(item, complete())
    waiter.join(2)
    assert ended == ['"out"']


def _wait_for_completion(rig: Rig) -> str:
    from durabletask.internal import orchestrator_service_pb2 as pb

    from local.functions_host.tests.rig import FakeContext

    request = pb.GetInstanceRequest(instanceId="main", getInputsAndOutputs=True)
    context = FakeContext()
    return rig.backend.WaitForInstanceCompletion(request, context).orchestrationState.output.value  # pyright: ignore[reportArgumentType]


def test_b8_timers_and_children_have_no_threads_of_their_own(rig: Rig, mended: bool) -> None:
    before = threading.active_count()
    rig.begun(*(timer(0.4, n) for n in range(1, 101)), *(child(f"kid{n}", n) for n in range(101, 201)))
    more = threading.active_count() - before
    for _ in range(100):
        rig.turn(rig.must_take(), complete())
    if mended:
        assert more <= 1
    else:
        assert more >= 190


def test_b12_a_parent_sees_the_type_that_a_child_failed_with(rig: Rig, mended: bool) -> None:
    rig.begun(child("kid"))
    rig.turn(rig.must_take(), fail_with("ValueError", "not a number"))
    failed = new_events(rig.must_take(), "subOrchestrationInstanceFailed")[0].subOrchestrationInstanceFailed
    assert failed.failureDetails.errorMessage == "not a number"
    assert (failed.failureDetails.errorType == "ValueError") is mended


def test_a_thousand_timers_fire_in_order(rig: Rig) -> None:
    rig.begun(*(timer(0.05 + (n * 7 % 1000) / 20_000, n) for n in range(1, 1001)))
    fired: list[float] = []
    end = time.monotonic() + 30
    while len(fired) < 1000 and time.monotonic() < end:
        item = rig.take()
        if item is None:
            time.sleep(0.002)
            continue
        fired += [event.timerFired.fireAt.ToNanoseconds() for event in new_events(item, "timerFired")]
        rig.turn(item)
    assert len(fired) == 1000
    assert fired == sorted(fired)


def test_skipped_time_runs_days_of_timers_at_once(make_rig: MakeRig) -> None:
    rig = make_rig(skip_time=True)
    rig.begun(timer(86_400, 1), timer(172_800, 2))
    first = rig.must_take()
    assert [event.timerFired.timerId for event in new_events(first, "timerFired")] == [1]
    started = new_events(first, "orchestratorStarted")[0].timestamp.ToSeconds()
    rig.turn(first)
    second = rig.must_take()
    assert [event.timerFired.timerId for event in new_events(second, "timerFired")] == [2]
    assert new_events(second, "orchestratorStarted")[0].timestamp.ToSeconds() - started == pytest.approx(86_400, abs=2)
