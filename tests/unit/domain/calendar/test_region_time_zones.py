"""The time zones of regions, and of machines."""

from __future__ import annotations

from zoneinfo import ZoneInfo

import pytest

from patchwave.domain.calendar.region_time_zones import AS_OF, REGION_ZONES, machine_zone
from patchwave.domain.core.region_pairs import KNOWN_PAIRS

PUBLIC = """
australiacentral australiacentral2 australiaeast australiasoutheast austriaeast belgiumcentral brazilsouth
brazilsoutheast canadacentral canadaeast centralindia centralus chilecentral denmarkeast eastasia eastus eastus2
francecentral francesouth germanynorth germanywestcentral indonesiacentral israelcentral italynorth japaneast japanwest
koreacentral koreasouth malaysiawest mexicocentral newzealandnorth northcentralus northeurope norwayeast norwaywest
polandcentral qatarcentral southafricanorth southafricawest southcentralus southindia southeastasia spaincentral
swedencentral switzerlandnorth switzerlandwest uaecentral uaenorth uksouth ukwest westcentralus westeurope westindia
westus westus2 westus3
"""


def test_all_public_regions_of_the_page_are_in_the_table() -> None:
    assert AS_OF.isoformat() == "2025-09-23"
    assert not set(PUBLIC.split()) - REGION_ZONES.keys()


def test_every_region_with_a_pair_is_in_the_table() -> None:
    assert not {*KNOWN_PAIRS, *KNOWN_PAIRS.values()} - REGION_ZONES.keys()


def test_every_zone_is_one_of_the_database() -> None:
    assert all(ZoneInfo(zone).key == zone for zone in REGION_ZONES.values())


@pytest.mark.parametrize(
    ("windows", "location", "zone"),
    [
        ("", "westeurope", "Europe/Amsterdam"),
        ("", "West Europe", "Europe/Amsterdam"),
        ("Tokyo Standard Time", "westeurope", "Asia/Tokyo"),
        ("tokyo standard time", "nowhere", "Asia/Tokyo"),
        ("UTC", "westus", "Etc/UTC"),
        ("Middle Earth Standard Time", "westus", "America/Los_Angeles"),
        ("Middle Earth Standard Time", "nowhere", ""),
        ("", "", ""),
    ],
)
def test_a_machine_reads_its_windows_time_zone_else_the_clock_of_its_region(
    windows: str, location: str, zone: str
) -> None:
    assert machine_zone(windows, location) == zone
