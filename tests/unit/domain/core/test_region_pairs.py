"""The built-in region pairs: the facts that a plan must not get wrong."""

from __future__ import annotations

import re

import pytest

from local.azure_simulator.arm.regions import REGIONS
from patchwave.domain.core.region_pairs import KNOWN_PAIRS, region_name


@pytest.mark.parametrize(
    ("region", "pair"),
    [
        ("westus3", "eastus"),
        ("eastus", "westus"),
        ("brazilsouth", "southcentralus"),
        ("southcentralus", "northcentralus"),
        ("westindia", "southindia"),
        ("southindia", "centralindia"),
        ("usgovarizona", "usgovtexas"),
        ("usgovtexas", "usgovvirginia"),
    ],
)
def test_pairs_are_not_symmetric(region: str, pair: str):
    assert KNOWN_PAIRS[region] == pair


def test_only_the_documented_regions_are_paired_in_one_direction():
    one_way = {region for region, pair in KNOWN_PAIRS.items() if KNOWN_PAIRS.get(pair) != region}
    assert one_way == {"westus3", "brazilsouth", "brazilsoutheast", "westindia", "usgovarizona"}


@pytest.mark.parametrize("region", ["italynorth", "polandcentral", "spaincentral", "israelcentral", "qatarcentral"])
def test_newer_regions_have_no_pair(region: str):
    assert region not in KNOWN_PAIRS
    assert region not in KNOWN_PAIRS.values()


def test_every_name_is_a_region_name():
    names = {*KNOWN_PAIRS, *KNOWN_PAIRS.values()}
    assert all(re.fullmatch(r"[a-z0-9]+", name) and region_name(name) == name for name in names)


def test_no_region_is_its_own_pair():
    assert not [region for region, pair in KNOWN_PAIRS.items() if region == pair]


def test_a_display_name_is_the_same_region():
    assert region_name("West US 3") == "westus3"


def test_the_simulator_has_no_other_pairs():
    simulated = {region.name: region.pair for region in REGIONS.values() if region.pair}
    assert simulated == {region: KNOWN_PAIRS.get(region) for region in simulated}
