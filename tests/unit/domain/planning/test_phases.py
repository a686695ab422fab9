"""Which regions go side by side: pairs never do, the fewest machines go first, and a policy may say otherwise."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.domain.core.region_pairs import KNOWN_PAIRS
from patchwave.domain.planning.phases import PhasePlan, make_phases
from patchwave.domain.planning.region_coloring import RegionLoad
from patchwave.domain.planning.topology import Topology

AZURE = Topology.of(KNOWN_PAIRS.items())


@dataclass
class Longest:
    """A phase takes as long as its longest region, and whatever ``more`` says of it."""

    loads: Mapping[str, RegionLoad]
    more: Mapping[frozenset[str], float]

    def predicted(self, regions: Sequence[str], ended: int) -> float:
        return self.bound(regions, ended) + self.more.get(frozenset(regions), 0.0)

    def bound(self, regions: Sequence[str], ended: int) -> float:
        return max(self.loads[region].seconds for region in regions)


def phases_of(
    machines: Mapping[str, int],
    fixed: Sequence[Sequence[str]] | None = None,
    seconds: Mapping[str, float] | None = None,
    more: Mapping[frozenset[str], float] | None = None,
    *,
    most_drawn: int = 1,
    fewest_first: bool = False,
) -> PhasePlan:
    """Regions that all take a minute, unless ``seconds`` says otherwise."""
    loads = {region: RegionLoad(count, (seconds or {}).get(region, 60.0)) for region, count in machines.items()}
    clock = Longest(loads, more or {})
    return make_phases(loads, AZURE, fixed, clock, most_drawn=most_drawn, fewest_first=fewest_first)


def test_the_fewest_machines_go_first_and_ties_go_by_name() -> None:
    made = phases_of({"westeurope": 5, "northeurope": 9, "polandcentral": 100})
    assert made.regions == [["polandcentral", "westeurope"], ["northeurope"]]
    assert made.reasons == {"northeurope": "phase 2: northeurope is paired with westeurope"}
    assert phases_of({"westeurope": 5, "northeurope": 5}).regions == [["northeurope"], ["westeurope"]]


def test_a_chain_of_pairs_needs_no_more_phases_than_it_must() -> None:
    """West US 3 names East US, which is paired with West US: two phases are enough."""
    made = phases_of({"westus3": 1, "eastus": 2, "westus": 3})
    assert made.regions == [["westus", "westus3"], ["eastus"]]


def test_the_policy_fixes_the_order_and_the_rest_follows() -> None:
    machines = {"westeurope": 5, "eastus": 1, "polandcentral": 1, "northeurope": 1}
    made = phases_of(machines, [["westeurope", "uksouth"], ["eastus"]])
    assert made.regions == [["westeurope"], ["eastus"], ["northeurope", "polandcentral"]]
    assert made.reasons["westeurope"] == "phase 1 by the policy"
    assert made.reasons["polandcentral"] == "phase 3: after the regions that the policy names"
    assert made.notes == []


def test_a_pair_that_the_policy_puts_together_is_parted_and_noted() -> None:
    made = phases_of({"westeurope": 5, "northeurope": 1}, [["westeurope", "northeurope"]])
    assert made.regions == [["northeurope"], ["westeurope"]]
    assert made.reasons["westeurope"] == "phase 2: westeurope is paired with northeurope"
    assert made.notes == ["phases[0] of the policy names paired regions: they are patched one after the other."]


def test_nothing_to_do_needs_no_phase() -> None:
    assert phases_of({}, [["westeurope"]]).regions == []


def test_regions_without_a_pair_are_placed_where_they_cost_the_least() -> None:
    """North Europe is short, and Poland takes as long as West Europe: side by side they cost nothing."""
    machines = {"northeurope": 1, "polandcentral": 4, "westeurope": 5}
    seconds = {"northeurope": 40.0, "polandcentral": 160.0, "westeurope": 200.0}
    made = phases_of(machines, seconds=seconds)
    assert made.regions == [["northeurope"], ["polandcentral", "westeurope"]]
    assert made.bound == 240.0
    assert made.reasons == {
        "westeurope": "phase 2: westeurope is paired with northeurope",
        "polandcentral": "phase 2: beside westeurope it makes the ring shorter",
    }
    by_number = phases_of(machines, seconds=seconds, fewest_first=True)
    assert by_number.regions == [["northeurope", "polandcentral"], ["westeurope"]]
    assert by_number.reasons == {"westeurope": "phase 2: westeurope is paired with northeurope"}
    assert by_number.bound == 240.0


def test_each_of_three_phases_has_what_it_waits_for() -> None:
    """Brazil Southeast names Brazil South, which names South Central US, which is paired with North Central US."""
    machines = {"northcentralus": 1, "southcentralus": 2, "brazilsouth": 3, "brazilsoutheast": 4, "uksouth": 9}
    seconds = {"northcentralus": 90.0, "southcentralus": 1.0, "brazilsouth": 1.0, "brazilsoutheast": 90.0}
    made = phases_of(machines, seconds=seconds | {"uksouth": 90.0})
    assert made.regions == [["brazilsoutheast", "northcentralus", "uksouth"], ["southcentralus"], ["brazilsouth"]]
    assert made.bound == 92.0
    assert made.reasons == {
        "southcentralus": "phase 2: southcentralus is paired with northcentralus",
        "brazilsouth": "phase 3: brazilsouth is paired with southcentralus",
    }


def test_phases_behind_fixed_ones_are_numbered_on() -> None:
    made = phases_of({"uksouth": 1, "westeurope": 2, "northeurope": 3}, [["uksouth"]])
    assert made.regions == [["uksouth"], ["westeurope"], ["northeurope"]]
    assert made.reasons == {
        "uksouth": "phase 1 by the policy",
        "westeurope": "phase 2: after the regions that the policy names",
        "northeurope": "phase 3: northeurope is paired with westeurope",
    }


def test_of_equal_phases_the_shortest_timeline_wins() -> None:
    machines = {"northeurope": 1, "polandcentral": 2, "westeurope": 3}
    more = {frozenset({"northeurope", "polandcentral"}): 5.0}
    assert phases_of(machines, more=more).regions == [["northeurope", "polandcentral"], ["westeurope"]]
    drawn = phases_of(machines, more=more, most_drawn=2)
    assert drawn.regions == [["northeurope"], ["polandcentral", "westeurope"]]
    assert phases_of(machines, more=more, most_drawn=2, fewest_first=True).regions[1] == ["westeurope"]


def test_each_phase_is_drawn_after_the_machines_of_those_before() -> None:
    @dataclass
    class Recording(Longest):
        asked: list[tuple[list[str], int]]

        def predicted(self, regions: Sequence[str], ended: int) -> float:
            self.asked.append((sorted(regions), ended))
            return super().predicted(regions, ended)

    machines = {"uksouth": 5, "northeurope": 1, "polandcentral": 2, "westeurope": 3}
    loads = {region: RegionLoad(count, 60.0) for region, count in machines.items()}
    clock = Recording(loads, {frozenset({"northeurope", "polandcentral"}): 5.0}, [])
    make_phases(loads, AZURE, [["uksouth"]], clock, most_drawn=2)
    assert clock.asked == [
        (["northeurope", "polandcentral"], 5),
        (["westeurope"], 8),
        (["northeurope"], 5),
        (["polandcentral", "westeurope"], 6),
    ]


def test_the_bound_of_fixed_phases_is_that_of_each_after_the_other() -> None:
    machines, seconds = {"westeurope": 5, "northeurope": 1, "uksouth": 2}, {"westeurope": 100.0, "uksouth": 30.0}
    assert phases_of(machines, [["westeurope"], ["uksouth"]], seconds).bound == 100.0 + 30.0 + 60.0
    assert phases_of(machines, [["westeurope", "northeurope", "uksouth"]], seconds).bound == 100.0 + 60.0
    assert phases_of(machines, None, seconds).bound == 100.0 + 60.0


def test_a_file_with_any_number_of_places_is_parted_all_the_same() -> None:
    machines = {f"place{number}": number + 1 for number in range(300)} | {"westeurope": 1, "northeurope": 2}
    made = phases_of(machines, seconds={"westeurope": 300.0})
    assert made.regions[1] == ["northeurope"]
    assert len(made.regions[0]) == 301
    assert made.bound == 360.0


@settings(deadline=None)
@given(
    machines=st.dictionaries(st.sampled_from(sorted(KNOWN_PAIRS)), st.integers(1, 5), max_size=20),
    fixed=st.one_of(st.none(), st.lists(st.lists(st.sampled_from(sorted(KNOWN_PAIRS)), max_size=4), max_size=3)),
)
def test_every_region_is_in_one_phase_and_no_phase_has_a_pair(
    machines: dict[str, int], fixed: list[list[str]] | None
) -> None:
    made = phases_of(machines, fixed and _once(fixed))
    assert sorted(region for phase in made.regions for region in phase) == sorted(machines)
    for phase in made.regions:
        assert phase
        assert not any(KNOWN_PAIRS.get(one) == other for one in phase for other in phase)


def _once(phases: list[list[str]]) -> list[list[str]]:
    """A region is named once, as the policy's validation asks for."""
    seen: set[str] = set()
    return [[region for region in phase if not (region in seen or seen.add(region))] for phase in phases]
