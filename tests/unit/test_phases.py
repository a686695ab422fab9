"""Which regions go side by side: pairs never do, the fewest machines go first, and a policy may say otherwise."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from domain.phases import make_phases
from domain.regions import KNOWN_PAIRS
from domain.topology import Topology

AZURE = Topology.of(KNOWN_PAIRS.items())


def test_the_fewest_machines_go_first_and_ties_go_by_name() -> None:
    made = make_phases({"westeurope": 5, "northeurope": 9, "polandcentral": 100}, AZURE, None)
    assert made.regions == [["polandcentral", "westeurope"], ["northeurope"]]
    assert made.why == {"northeurope": "phase 2: northeurope is paired with westeurope"}
    assert make_phases({"westeurope": 5, "northeurope": 5}, AZURE, None).regions == [["northeurope"], ["westeurope"]]


def test_a_chain_of_pairs_needs_no_more_phases_than_it_must() -> None:
    """West US 3 names East US, which is paired with West US: two phases are enough."""
    made = make_phases({"westus3": 1, "eastus": 2, "westus": 3}, AZURE, None)
    assert made.regions == [["westus", "westus3"], ["eastus"]]


def test_the_policy_fixes_the_order_and_the_rest_follows() -> None:
    machines = {"westeurope": 5, "eastus": 1, "polandcentral": 1, "northeurope": 1}
    made = make_phases(machines, AZURE, [["westeurope", "uksouth"], ["eastus"]])
    assert made.regions == [["westeurope"], ["eastus"], ["northeurope", "polandcentral"]]
    assert made.why["westeurope"] == "phase 1 by the policy"
    assert made.why["polandcentral"] == "phase 3: after the regions that the policy names"
    assert made.notes == []


def test_a_pair_that_the_policy_puts_together_is_parted_and_said() -> None:
    made = make_phases({"westeurope": 5, "northeurope": 1}, AZURE, [["westeurope", "northeurope"]])
    assert made.regions == [["northeurope"], ["westeurope"]]
    assert made.why["westeurope"] == "phase 2: westeurope is paired with northeurope"
    assert made.notes == ["phases[0] of the policy names paired regions: they are patched one after the other."]


def test_nothing_to_do_needs_no_phase() -> None:
    assert make_phases({}, AZURE, [["westeurope"]]).regions == []


@settings(deadline=None)
@given(
    machines=st.dictionaries(st.sampled_from(sorted(KNOWN_PAIRS)), st.integers(1, 5), max_size=20),
    fixed=st.one_of(st.none(), st.lists(st.lists(st.sampled_from(sorted(KNOWN_PAIRS)), max_size=4), max_size=3)),
)
def test_every_region_is_in_one_phase_and_no_phase_has_a_pair(
    machines: dict[str, int], fixed: list[list[str]] | None
) -> None:
    made = make_phases(machines, AZURE, fixed and _once(fixed))
    assert sorted(region for phase in made.regions for region in phase) == sorted(machines)
    for phase in made.regions:
        assert phase
        assert not any(KNOWN_PAIRS.get(one) == other for one in phase for other in phase)


def _once(phases: list[list[str]]) -> list[list[str]]:
    """A region is named once, as the policy's validation asks for."""
    seen: set[str] = set()
    return [[region for region in phase if not (region in seen or seen.add(region))] for phase in phases]
