"""A burst of events is one run of a policy in a quarter of an hour, and nothing that was asked for is lost."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.policy.policy import parse_policy
from patchwave.domain.scheduling.event_requests import (
    MAX_MACHINES,
    EventRequest,
    policy_for,
    quarter_of,
    request_key,
    run_of_quarter,
    served_by,
)

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
NOON = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
POLICY = parse_policy({"name": "newcomers", "scope": {"subscriptions": [SUBSCRIPTION]}, "events": {"newMachine": True}})


def asked(number: int, at: datetime = NOON, *, whole: bool = False) -> EventRequest:
    machine = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm-{number}"
    key = request_key(f"e-{number}", "newcomers")
    machine_id = "" if whole else machine
    return EventRequest(policy="newcomers", event_id=f"e-{number}", kind="k", key=key, at=at, machine_id=machine_id)


@given(st.integers(0, 10**7), st.integers(0, 10**7))
def test_two_moments_share_a_run_when_they_share_a_quarter(one: int, other: int) -> None:
    first, second = NOON + timedelta(seconds=one), NOON + timedelta(seconds=other)
    same = quarter_of(first) == quarter_of(second)
    assert same == (one // 900 == other // 900)
    assert (run_of_quarter("newcomers", first) == run_of_quarter("newcomers", second)) is same


def test_the_run_of_a_quarter_has_an_id_of_its_own() -> None:
    run_id = run_of_quarter("newcomers", NOON + timedelta(minutes=14))
    assert run_id.text.startswith("20261121T120000Z-newcomers-")
    assert run_id.parse(run_id.text) == run_id
    assert run_of_quarter("newcomers", NOON).text != run_of_quarter("new", NOON).text
    assert len(run_of_quarter("a" * 32, NOON).text) <= 58


def test_a_run_is_narrowed_to_the_machines_or_has_the_whole_scope() -> None:
    narrowed = policy_for(POLICY, [asked(2), asked(1), asked(2)])
    assert {text.rpartition("/")[2] for text in narrowed.scope.machine_ids} == {"vm-1", "vm-2"}
    assert narrowed.scope.subscriptions == (SUBSCRIPTION,)
    assert policy_for(POLICY, [asked(1), asked(2, whole=True)]) == POLICY


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(-600, 600), st.booleans()), min_size=1, max_size=30),
    st.integers(1, 30),
)
def test_every_request_is_in_a_run_in_the_end(burst: list[tuple[int, int, bool]], seen: int) -> None:
    """Some requests are there when the run is made, others come later; each round serves what its run holds."""
    waiting = [asked(number, NOON + timedelta(seconds=late), whole=whole) for number, late, whole in burst]
    moment, rounds = NOON, 0
    while waiting:
        rounds += 1
        assert rounds <= len(burst) + 2
        listed = [request for request in waiting if request.at <= moment][:seen] if rounds == 1 else waiting
        moment += timedelta(minutes=15)
        if listed:
            snapshot = policy_for(POLICY, listed).to_wire()
            served = served_by(waiting, POLICY, snapshot, moment)
            assert all(request in served for request in listed)
            waiting = [request for request in waiting if request not in served]


def test_requests_after_the_creation_of_a_run_wait_for_the_next() -> None:
    snapshot = policy_for(POLICY, [asked(1)]).to_wire()
    created = NOON + timedelta(seconds=5)
    later = asked(3, created + timedelta(seconds=1), whole=True)
    assert served_by([asked(1), asked(2), later], POLICY, snapshot, created) == [asked(1)]
    everything = POLICY.to_wire()
    assert served_by([asked(1), asked(2, whole=True), later], POLICY, everything, created) == [
        asked(1),
        asked(2, whole=True),
    ]


def test_one_run_holds_a_thousand_machines_and_the_next_the_rest() -> None:
    burst = [asked(number, NOON + timedelta(milliseconds=number)) for number in range(MAX_MACHINES + 200)]
    snapshot = policy_for(POLICY, burst).to_wire()
    served = served_by(burst, POLICY, snapshot, NOON + timedelta(minutes=1))
    assert served == burst[:1_000]
