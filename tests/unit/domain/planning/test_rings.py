"""Rings: the first that selects a machine has it, shares are spread and stay as they are."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.domain.planning.rings import choose_rings, keep_in_ring
from patchwave.domain.planning.topology import PlannerMachine
from patchwave.domain.policy.rollout import Ring, order_rings
from patchwave.domain.policy.scope import TagFilter
from tests.support.fleet_strategies import machine_id, make_machine


def by_tag(name: str, **values: str) -> Ring:
    return Ring(name=name, tags=TagFilter(values={tag: (value,) for tag, value in values.items()}))


def spread_fleet(size: int) -> list[PlannerMachine]:
    return [
        make_machine(number, location=("westeurope", "eastus")[number % 2], image=f"image{number % 3}")
        for number in range(size)
    ]


def test_the_order_is_that_of_the_list_or_of_after() -> None:
    first, second, third = Ring(name="a"), Ring(name="b", after="a"), Ring(name="c", after="b")
    assert order_rings([Ring(name="b"), Ring(name="a")]) == [Ring(name="b"), Ring(name="a")]
    assert order_rings([third, first, second]) == [first, second, third]
    assert [ring.name for ring in order_rings([])] == ["all"]


@pytest.mark.parametrize(
    "rings",
    [
        [Ring(name="a", after="b"), Ring(name="b", after="a")],
        [Ring(name="a"), Ring(name="b", after="x")],
        [Ring(name="a"), Ring(name="b"), Ring(name="c", after="a")],
        [Ring(name="a"), Ring(name="b", after="b")],
    ],
)
def test_what_is_no_chain_has_no_order(rings: list[Ring]) -> None:
    with pytest.raises(ValueError, match="no chain"):
        order_rings(rings)


@pytest.mark.parametrize("name", ["canary", "more", "broad"])
def test_a_machine_alone_stays_in_its_ring(name: str) -> None:
    """A per cent of one machine is that machine, which would go past the approval of its own ring."""
    rings = [Ring(name="canary", percent=5), Ring(name="more", percent=20), Ring(name="broad")]
    alone = make_machine(1)
    assert choose_rings([alone], rings)[alone.key].number == 0
    found = choose_rings([alone], keep_in_ring(rings, name, alone.id))
    assert rings[found[alone.key].number].name == name


def test_a_machine_with_an_unknown_ring_is_in_no_percentage_ring() -> None:
    alone = make_machine(1)
    rings = [Ring(name="canary", percent=5), Ring(name="broad")]
    assert choose_rings([alone], keep_in_ring(rings, "", alone.id))[alone.key].number == 1


def test_the_first_ring_that_selects_a_machine_has_it() -> None:
    canary = make_machine(0, tags={"Ring": "Canary", "app": "web"})
    named, other = make_machine(1, tags={"ring": "canary"}), make_machine(2)
    rings = [
        Ring(name="named", machine_ids=[machine_id(1).upper()]),
        by_tag("canary", ring="canary"),
        Ring(name="rest"),
    ]
    chosen = choose_rings([other, named, canary], rings)
    assert chosen[named.key] == (0, "ring named names it")
    assert chosen[canary.key] == (1, "ring canary by tag Ring=Canary")
    assert chosen[other.key] == (2, "ring rest takes the rest")
    assert other.key not in choose_rings([other], rings[:2])


def test_the_only_ring_needs_no_reason() -> None:
    assert set(choose_rings(spread_fleet(3), order_rings([])).values()) == {(0, "")}


def test_a_share_is_spread_over_regions_and_images() -> None:
    machines = spread_fleet(600)
    chosen = choose_rings(machines, [Ring(name="first", percent=10), Ring(name="rest")])
    taken = [machine for machine in machines if chosen[machine.key].number == 0]
    assert Counter((machine.region, machine.image) for machine in taken) == {
        (region, f"image{image}"): 10 for region in ("westeurope", "eastus") for image in range(3)
    }
    assert chosen[taken[0].key].reason == "ring first: 10 % by hash"


@settings(deadline=None, max_examples=50)
@given(size=st.integers(1, 200), first=st.integers(1, 60), second=st.integers(1, 40))
def test_shares_are_of_the_whole_fleet(size: int, first: int, second: int) -> None:
    rings = [Ring(name="first", percent=first), Ring(name="second", percent=second), Ring(name="rest")]
    counts = Counter(choice.number for choice in choose_rings(spread_fleet(size), rings).values())
    assert sum(counts.values()) == size
    assert counts[0] >= 1
    assert abs(counts[0] - size * first / 100) <= 1
    assert abs(counts[1] - size * second / 100) <= 1


@settings(deadline=None, max_examples=50)
@given(size=st.integers(2, 200), percent=st.integers(1, 99), gone=st.integers(0, 199))
def test_an_added_or_removed_machine_hardly_changes_the_others(size: int, percent: int, gone: int) -> None:
    machines = spread_fleet(size)
    rings = [Ring(name="first", percent=percent), Ring(name="rest")]
    less = [machine for number, machine in enumerate(machines) if number != gone % size]
    before, after = choose_rings(less, rings), choose_rings(machines, rings)
    assert sum(before[machine.key].number != after[machine.key].number for machine in less) <= 2
