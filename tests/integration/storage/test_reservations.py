"""Reservations on a real Azurite: one order for all runs, whatever comes together."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime

from patchwave.domain.planning.admission import Permit
from patchwave.domain.planning.plan import Makespan, Plan
from patchwave.domain.planning.reservation import Groups, Reservation, ahead_of, groups_of, waits_for
from patchwave.domain.planning.topology import Topology
from patchwave.domain.workflow.run import PlanSummary
from patchwave.storage import Storage

NOW = datetime(2026, 11, 21, tzinfo=UTC)
RUN_ID = "20261121T000000Z-monthly"
AV = groups_of([Permit("set:s/rg/av", 1)], ["westeurope"], Topology.of([("westeurope", "northeurope")]))


def wanted(run_id: str, sequence: int = 1, phase: str = "0.0", groups: Groups = AV) -> Reservation:
    return Reservation(run_id=run_id, sequence=sequence, phase=phase, since=NOW, groups=groups)


async def test_a_reservation_round_trips_without_names(storage: Storage) -> None:
    kept, others = await storage.reservations.reserve(wanted("a", sequence=7, phase="1.2"))
    assert (kept.number, others) == (1, [])
    (stored,) = await storage.reservations.list_all()
    assert (stored.run_id, stored.sequence, stored.phase, stored.number, stored.since) == ("a", 7, "1.2", 1, NOW)
    assert stored.groups is not None
    assert (stored.groups.slots, stored.groups.units) == ({"pair:northeurope+westeurope": "westeurope"}, AV.units)
    assert stored.groups.names == {}


async def test_of_runs_that_reserve_at_the_same_moment_all_but_one_see_another(storage: Storage) -> None:
    names = [f"run-{number}" for number in range(6)]
    found = await asyncio.gather(*(storage.reservations.reserve(wanted(name)) for name in names))
    assert sorted(own.number for own, _ in found) == [1, 2, 3, 4, 5, 6]
    assert sorted(len(ahead_of(own, others)) for own, others in found) == [0, 1, 2, 3, 4, 5]


async def test_the_same_turn_again_finds_its_reservation(storage: Storage) -> None:
    first, _ = await storage.reservations.reserve(wanted("a"))
    await storage.reservations.reserve(wanted("b"))
    again, others = await storage.reservations.reserve(wanted("a"))
    assert again.number == first.number == 1
    assert {each.run_id for each in others} == {"a", "b"}


async def test_the_next_phase_queues_behind_and_the_same_one_keeps_its_number(storage: Storage) -> None:
    await storage.reservations.reserve(wanted("a"))
    await storage.reservations.reserve(wanted("b"))
    same, _ = await storage.reservations.reserve(wanted("a", sequence=2))
    assert (same.number, same.sequence) == (1, 2)
    following, _ = await storage.reservations.reserve(wanted("a", sequence=3, phase="0.1"))
    assert following.number == 3


async def test_what_was_given_back_is_not_reserved_by_a_late_execution(storage: Storage) -> None:
    await storage.reservations.reserve(wanted("a", sequence=2))
    given = await storage.reservations.release("a", 2)
    assert given is not None
    assert given.groups is not None
    late, _ = await storage.reservations.reserve(wanted("a", sequence=2))
    assert late.groups is None
    assert await storage.reservations.release("a", 2) is None, "once is enough"
    other, others = await storage.reservations.reserve(wanted("b"))
    assert ahead_of(other, others) == []
    anew, _ = await storage.reservations.reserve(wanted("a", sequence=3))
    assert (anew.number, anew.groups is not None) == (3, True)


async def test_an_earlier_turn_gives_nothing_back_that_a_later_one_reserved(storage: Storage) -> None:
    await storage.reservations.reserve(wanted("a", sequence=5))
    assert await storage.reservations.release("a", 4) is None
    assert await storage.reservations.release("missing", 4) is None
    (stored,) = await storage.reservations.list_all()
    assert stored.groups is not None


async def test_the_phase_that_a_run_is_in(storage: Storage) -> None:
    assert await storage.reservations.get_phase("a") is None
    await storage.reservations.reserve(wanted("a", phase="2.13"))
    assert await storage.reservations.get_phase("a") == (2, 13)
    await storage.reservations.release("a", 1)
    assert await storage.reservations.get_phase("a") is None


async def test_a_purged_run_leaves_no_row(storage: Storage) -> None:
    await storage.reservations.reserve(wanted("a"))
    await storage.reservations.remove("a")
    await storage.reservations.remove("a")
    assert await storage.reservations.list_all() == []
    own, _ = await storage.reservations.reserve(wanted("b"))
    assert own.number == 2, "numbers go on"


async def test_the_largest_phase_fits_into_a_row(storage: Storage) -> None:
    """With the longest names of tags and values, in letters that take most of the room."""
    places = [Permit(f"tag:{'ü' * 512}={number:05d}{'ä' * 251}", 1) for number in range(20_000)]
    zones = [Permit(f"zones:region{number}", 1, "1") for number in range(100)]
    groups = groups_of([*places, *zones], [], Topology.of([]))
    stored, _ = await storage.reservations.reserve(wanted("a", groups=groups))
    assert stored.groups is not None
    assert len(stored.groups.units) == 20_000
    await storage.reservations.reserve(wanted("b", groups=groups))
    assert [len(each.groups.units) if each.groups else 0 for each in await storage.reservations.list_all()] == [
        20_000
    ] * 2
    makespan = Makespan(predicted_seconds=0, lower_bound_seconds=0)
    plan = Plan(policy="p", rings=[], machines=[], excluded=[], makespan=makespan, notes=[])
    await storage.plans.save(RUN_ID, plan, [], PlanSummary(), groups={(0, 0): groups, (0, 1): groups})
    assert await storage.reservations.get_groups(RUN_ID, 0, 1) == groups


async def test_a_reservation_that_cannot_be_read_is_ahead_of_all_until_it_is_replaced(storage: Storage) -> None:
    await storage.reservations.reserve(wanted("a"))
    await storage._store.runs.merge("reservations", "a", {"groups": "{"})
    own, others = await storage.reservations.reserve(wanted("b"))
    assert [each.run_id for each in ahead_of(own, others)] == ["a"]
    assert waits_for(own, others[0], 0) == (
        "the run a: what it has reserved cannot be read, so that it has to end first"
    )
    assert await storage.reservations.get_phase("a") is None
    # Its own run replaces it, behind the other.
    own, others = await storage.reservations.reserve(wanted("a", sequence=2))
    assert [each.run_id for each in ahead_of(own, others)] == ["b"]


async def test_a_reservation_that_cannot_be_read_is_given_back(storage: Storage) -> None:
    await storage.reservations.reserve(wanted("a"))
    own, _ = await storage.reservations.reserve(wanted("b"))
    await storage._store.runs.merge("reservations", "a", {"groups": "{"})
    assert await storage.reservations.release("a", 1) is not None
    assert ahead_of(own, await storage.reservations.list_all()) == []
