"""Reservations on a real Azurite: one order for all runs, whatever comes together."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from patchwave.domain.planning.admission import Permit
from patchwave.domain.planning.plan import Makespan, Plan
from patchwave.domain.planning.reservation import Groups, Reservation, ahead_of, groups_of, waits_for
from patchwave.domain.planning.topology import Topology
from patchwave.domain.workflow.messages import PlannedRun
from patchwave.storage import Records

NOW = datetime(2026, 11, 21, tzinfo=UTC)
RUN_ID = "20261121T000000Z-monthly"
AV = groups_of([Permit("set:s/rg/av", 1)], ["westeurope"], Topology.of([("westeurope", "northeurope")]))


def wanted(run_id: str, turn: int = 1, phase: str = "0.0", groups: Groups = AV) -> Reservation:
    return Reservation(run_id=run_id, turn=turn, phase=phase, since=NOW, groups=groups)


async def test_a_reservation_comes_back_as_it_was_without_names(records: Records) -> None:
    kept, others = await records.reserve(wanted("a", turn=7, phase="1.2"))
    assert (kept.number, others) == (1, [])
    (stored,) = await records.list_reservations()
    assert (stored.run_id, stored.turn, stored.phase, stored.number, stored.since) == ("a", 7, "1.2", 1, NOW)
    assert stored.groups is not None
    assert (stored.groups.slots, stored.groups.units) == ({"pair:northeurope+westeurope": "westeurope"}, AV.units)
    assert stored.groups.names == {}


async def test_of_runs_that_reserve_at_the_same_moment_all_but_one_see_another(records: Records) -> None:
    names = [f"run-{number}" for number in range(6)]
    found = await asyncio.gather(*(records.reserve(wanted(name)) for name in names))
    assert sorted(own.number for own, _ in found) == [1, 2, 3, 4, 5, 6]
    assert sorted(len(ahead_of(own, others)) for own, others in found) == [0, 1, 2, 3, 4, 5]


async def test_the_same_turn_again_finds_its_reservation(records: Records) -> None:
    first, _ = await records.reserve(wanted("a"))
    await records.reserve(wanted("b"))
    again, others = await records.reserve(wanted("a"))
    assert again.number == first.number == 1
    assert {each.run_id for each in others} == {"a", "b"}


async def test_the_next_phase_queues_behind_and_the_same_one_keeps_its_number(records: Records) -> None:
    await records.reserve(wanted("a"))
    await records.reserve(wanted("b"))
    same, _ = await records.reserve(wanted("a", turn=2))
    assert (same.number, same.turn) == (1, 2)
    following, _ = await records.reserve(wanted("a", turn=3, phase="0.1"))
    assert following.number == 3


async def test_what_was_given_back_is_not_reserved_by_a_late_execution(records: Records) -> None:
    await records.reserve(wanted("a", turn=2))
    given = await records.give_back("a", 2)
    assert given is not None
    assert given.groups is not None
    late, _ = await records.reserve(wanted("a", turn=2))
    assert late.groups is None
    assert await records.give_back("a", 2) is None, "once is enough"
    other, others = await records.reserve(wanted("b"))
    assert ahead_of(other, others) == []
    anew, _ = await records.reserve(wanted("a", turn=3))
    assert (anew.number, anew.groups is not None) == (3, True)


async def test_an_earlier_turn_gives_nothing_back_that_a_later_one_reserved(records: Records) -> None:
    await records.reserve(wanted("a", turn=5))
    assert await records.give_back("a", 4) is None
    assert await records.give_back("nobody", 4) is None
    (stored,) = await records.list_reservations()
    assert stored.groups is not None


async def test_the_phase_that_a_run_is_in(records: Records) -> None:
    assert await records.reserved_phase("a") is None
    await records.reserve(wanted("a", phase="2.13"))
    assert await records.reserved_phase("a") == (2, 13)
    await records.give_back("a", 1)
    assert await records.reserved_phase("a") is None


async def test_a_forgotten_run_leaves_no_row(records: Records) -> None:
    await records.reserve(wanted("a"))
    await records.forget_reservation("a")
    await records.forget_reservation("a")
    assert await records.list_reservations() == []
    own, _ = await records.reserve(wanted("b"))
    assert own.number == 2, "numbers go on"


async def test_the_largest_phase_fits_into_a_row(records: Records) -> None:
    """With the longest names of tags and values, in letters that take most of the room."""
    places = [Permit(f"tag:{'ü' * 512}={number:05d}{'ä' * 251}", 1) for number in range(20_000)]
    zones = [Permit(f"zones:region{number}", 1, "1") for number in range(100)]
    groups = groups_of([*places, *zones], [], Topology.of([]))
    stored, _ = await records.reserve(wanted("a", groups=groups))
    assert stored.groups is not None
    assert len(stored.groups.units) == 20_000
    await records.reserve(wanted("b", groups=groups))
    assert [len(each.groups.units) if each.groups else 0 for each in await records.list_reservations()] == [20_000] * 2
    makespan = Makespan(predicted_seconds=0, lower_bound_seconds=0)
    plan = Plan(policy="p", rings=[], machines=[], excluded=[], makespan=makespan, notes=[])
    await records.save_plan(RUN_ID, plan, [], PlannedRun(), groups={(0, 0): groups, (0, 1): groups})
    assert await records.get_groups(RUN_ID, 0, 1) == groups


async def test_a_reservation_that_cannot_be_read_is_ahead_of_all_until_it_is_replaced(records: Records) -> None:
    await records.reserve(wanted("a"))
    await records._store.runs.merge("reservations", "a", {"groups": "{"})
    own, others = await records.reserve(wanted("b"))
    assert [each.run_id for each in ahead_of(own, others)] == ["a"]
    assert waits_for(own, others[0], 0) == (
        "the run a: what it has reserved cannot be read, so that it has to end first"
    )
    assert await records.reserved_phase("a") is None
    # Its own run replaces it, behind the other.
    own, others = await records.reserve(wanted("a", turn=2))
    assert [each.run_id for each in ahead_of(own, others)] == ["b"]


async def test_a_reservation_that_cannot_be_read_is_given_back(records: Records) -> None:
    await records.reserve(wanted("a"))
    own, _ = await records.reserve(wanted("b"))
    await records._store.runs.merge("reservations", "a", {"groups": "{"})
    assert await records.give_back("a", 1) is not None
    assert ahead_of(own, await records.list_reservations()) == []
