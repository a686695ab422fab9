"""Reservations: the rule between machines of one run, between phases of several."""

from __future__ import annotations

import itertools
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.planning.admission import Admission, Candidate, Permit
from patchwave.domain.planning.constraints import ConcurrencyConstraints
from patchwave.domain.planning.reservation import (
    Groups,
    Reservation,
    ahead_of,
    behind,
    groups_of,
    keeps_apart,
    waits_for,
)
from patchwave.domain.planning.topology import Topology
from tests.support.fleet_strategies import make_machine, make_policy, scale_set_id

NOW = datetime(2026, 11, 21, tzinfo=UTC)
PAIRED = Topology.of([("westeurope", "northeurope"), ("westus3", "eastus"), ("eastus", "westus"), ("westus", "eastus")])


def reservation(number: int, groups: Groups | None, run_id: str = "") -> Reservation:
    return Reservation(
        run_id=run_id or f"run-{number}", sequence=1, phase="0.0", number=number, since=NOW, groups=groups
    )


def of(*permits: Permit, regions: tuple[str, ...] = ()) -> Groups:
    return groups_of(permits, regions, PAIRED)


SET = Permit("set:s/rg/av", 1)
OTHER_SET = Permit("set:s/rg/other", 1)


@pytest.mark.parametrize(
    ("one", "other", "apart"),
    [
        (of(SET), of(SET), ["set:s/rg/av"]),
        (of(Permit("set:s/rg/av", 2)), of(Permit("set:s/rg/av", 9)), ["set:s/rg/av"]),
        (of(SET), of(OTHER_SET), []),
        (of(Permit("scaleset:s/rg/web", 2)), of(Permit("scaleset:s/rg/web", 9)), ["scaleset:s/rg/web"]),
        (of(Permit("faults:s/rg/web", 1, "0")), of(Permit("faults:s/rg/web", 1, "1")), []),
        (of(Permit("scaleset:s/rg/av", 2)), of(SET), []),
        (of(Permit("exclusive:cluster=c", 1)), of(Permit("exclusive:cluster=c", 1)), ["exclusive:cluster=c"]),
        (of(Permit("tag:app=shop", 3)), of(Permit("tag:app=shop", 3)), ["tag:app=shop"]),
        (of(Permit("zones:westeurope", 1, "az1")), of(Permit("zones:westeurope", 1, "az2")), ["zones:westeurope"]),
        (of(Permit("zones:westeurope", 1, "az1")), of(Permit("zones:westeurope", 1, "az1")), []),
        (
            of(Permit("zones:westeurope", 1, "az1"), Permit("zones:westeurope", 1, "az2")),
            of(Permit("zones:westeurope", 1, "az1"), Permit("zones:westeurope", 1, "az2")),
            ["zones:westeurope"],
        ),
        (of(Permit("zones:westeurope", 1, "az1")), of(Permit("zones:northeurope", 1, "az2")), []),
        (of(regions=("westeurope",)), of(regions=("northeurope",)), ["pair:northeurope+westeurope"]),
        (of(regions=("westeurope",)), of(regions=("westeurope",)), []),
        (of(regions=("westus3",)), of(regions=("eastus",)), ["pair:eastus+westus3"]),
        (of(regions=("westus3",)), of(regions=("westus",)), []),
        (of(Permit("run", 5)), of(Permit("run", 5)), []),
        (of(Permit("region:westeurope", 5)), of(Permit("region:westeurope", 5)), []),
    ],
)
def test_what_keeps_two_phases_apart(one: Groups, other: Groups, apart: list[str]) -> None:
    assert keeps_apart(one, other) == apart
    assert keeps_apart(other, one) == apart


def _places() -> st.SearchStrategy[Permit]:
    zones = st.builds(
        lambda region, slot: Permit(f"zones:{region}", 1, slot), st.sampled_from("ab"), st.sampled_from("123")
    )
    units = st.builds(
        lambda kind, name: Permit(f"{kind}:{name}", 1),
        st.sampled_from(["set", "scaleset", "exclusive", "tag"]),
        st.sampled_from("xyz"),
    )
    return st.one_of(zones, units)


MACHINES = st.lists(st.lists(_places(), max_size=3, unique_by=lambda place: place.group), min_size=1, max_size=4)


@given(MACHINES, MACHINES)
def test_phases_are_kept_apart_exactly_when_two_of_their_machines_are(
    one: list[list[Permit]], other: list[list[Permit]]
) -> None:
    """The judge is the rule that machines of one run follow."""
    apart = False
    for mine in one:
        for theirs in other:
            admission = Admission()
            admission.resume([Candidate("mine", permits=tuple(mine))])
            admission.add([Candidate("theirs", permits=tuple(theirs))])
            apart |= not admission.start()
    assert bool(keeps_apart(of(*itertools.chain(*one)), of(*itertools.chain(*other)))) == apart


@given(st.sets(st.integers(0, 29), min_size=1), st.sets(st.integers(0, 29), min_size=1), st.booleans())
def test_two_runs_never_work_on_one_scale_set(mine: set[int], theirs: set[int], is_told: bool) -> None:
    """Whichever members each has, in whatever fault domains, and also where Azure has not told one."""
    fault = {number: str(number % 3) for number in range(30)} | ({} if is_told else {0: "", 7: ""})

    def phase(numbers: set[int]) -> Groups:
        machines = [
            make_machine(number, scale_set=scale_set_id("web"), fault_domain=fault[number])
            for number in sorted(numbers)
        ]
        constraints = ConcurrencyConstraints(machines, machines, make_policy(), Topology())
        return of(*itertools.chain(*map(constraints.permits, machines)), regions=())

    assert keeps_apart(phase(mine), phase(theirs)) == ["scaleset:11111111-1111-1111-1111-111111111111/rg/web"]


@given(st.lists(st.tuples(MACHINES, st.booleans()), min_size=1, max_size=6))
def test_reserved_phases_never_conflict_and_one_is_always_reserved(
    phases: list[tuple[list[list[Permit]], bool]],
) -> None:
    reserved = [
        reservation(number, None if is_given_back else of(*itertools.chain(*machines)))
        for number, (machines, is_given_back) in enumerate(phases, start=1)
    ]
    in_turn = [each for each in reserved if each.groups is not None and not ahead_of(each, reserved)]
    for each in in_turn:
        for other in in_turn:
            if each is not other:
                assert not keeps_apart(each.groups or Groups(), other.groups or Groups())
    assert in_turn or all(each.groups is None for each in reserved), "the lowest number waits for none"
    for each in reserved:
        for other in reserved:
            assert (other in ahead_of(each, reserved)) == (each in behind(other, reserved))


def test_a_run_does_not_wait_for_itself_nor_for_what_was_given_back() -> None:
    own = reservation(3, of(SET), "own")
    assert ahead_of(own, [reservation(1, of(SET), "own"), reservation(2, None), reservation(4, of(SET))]) == []
    assert [each.number for each in ahead_of(own, [reservation(2, of(SET)), reservation(1, of(SET))])] == [1, 2]


@pytest.mark.parametrize(
    ("groups", "words"),
    [
        (of(SET), "the availability set av"),
        (of(Permit("scaleset:s/rg/web", 1)), "the scale set web"),
        (of(Permit("exclusive:cluster=c", 1)), "machines with cluster=c"),
    ],
)
def test_the_wait_in_words(groups: Groups, words: str) -> None:
    assert waits_for(reservation(2, groups), reservation(1, groups), 0) == f"the run run-1: both work on {words}"


def test_the_wait_in_words_names_the_first_of_several() -> None:
    mine, theirs = of(regions=("westeurope",)), of(regions=("northeurope",))
    assert waits_for(reservation(3, mine), reservation(1, theirs), 2) == (
        "the run run-1, and 2 more: both work on the paired regions northeurope and westeurope"
    )
    zones = of(Permit("zones:westeurope", 1, "1")), of(Permit("zones:westeurope", 1, "2"))
    assert waits_for(reservation(3, zones[0]), reservation(1, zones[1]), 0).endswith("both work on zones of westeurope")


def test_a_large_phase_stays_small_and_keeps_the_names_of_some() -> None:
    permits = [Permit(f"set:sub/rg/av-{number:05d}", 1) for number in range(5_000)]
    groups = of(*permits)
    assert len(groups.units) == 5_000
    assert len(groups.names) == 200
    assert all(len(unit) == 12 for unit in groups.units)
    unnamed = of(permits[4_999])
    assert keeps_apart(groups, unnamed) == unnamed.units
    assert waits_for(reservation(2, groups), reservation(1, unnamed), 0).endswith("on a set or a tag that both have")


def test_a_phase_with_more_groups_than_a_row_holds_is_kept_apart_from_all_that_have_any() -> None:
    many = of(*(Permit(f"tag:app={number}", 1) for number in range(20_001)), regions=("westeurope",))
    assert (many.units, many.names) == (["*"], {})
    assert many.slots == {"pair:northeurope+westeurope": "westeurope"}
    for other in (of(SET), many):
        assert keeps_apart(many, other) == keeps_apart(other, many) == ["*"]
    assert keeps_apart(many, of(regions=("westeurope",))) == []
    assert keeps_apart(of(regions=("westeurope",)), many) == []
    assert waits_for(reservation(2, of(SET)), reservation(1, many), 0).endswith(
        "both work on a set or a tag that both have"
    )
    assert len(of(*(Permit(f"tag:app={number}", 1) for number in range(20_000))).units) == 20_000
