"""Regions, pairs and zones, however Azure and people write them."""

from __future__ import annotations

from patchwave.domain.planning.topology import Topology
from tests.support.fleet_strategies import SUBSCRIPTIONS, make_machine


def test_a_pair_counts_in_both_directions() -> None:
    topology = Topology.of([("West US 3", "East US"), ("eastus", "westus"), ("westus", "westus")])
    assert topology.conflicts("eastus") == {"westus3", "westus"}
    assert topology.conflicts("westus3") == {"eastus"}
    assert topology.conflicts("westus") == {"eastus"}
    assert topology.conflicts("polandcentral") == frozenset()


def test_physical_zones_are_found_without_case() -> None:
    topology = Topology.of(zones={(SUBSCRIPTIONS[0].upper(), "West Europe", "1"): "westeurope-az2"})
    assert topology.physical_zone(SUBSCRIPTIONS[0], "westeurope", "1") == "westeurope-az2"
    assert topology.physical_zone(SUBSCRIPTIONS[0], "westeurope", "2") == ""
    assert topology.physical_zone(SUBSCRIPTIONS[1], "westeurope", "1") == ""


def test_a_region_is_its_short_name() -> None:
    assert make_machine(1, location="North Europe").region == "northeurope"
