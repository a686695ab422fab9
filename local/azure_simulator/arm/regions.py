"""Azure regions of the simulator: pairs (which are not symmetric) and availability zones."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Region:
    """A region; ``pair`` is empty for regions without one."""

    name: str
    display: str
    geography: str
    place: str
    pair: str
    has_zones: bool


_TABLE = """
eastus|East US|US|Virginia|westus|z
eastus2|East US 2|US|Virginia|centralus|z
westus|West US|US|California|eastus|
westus2|West US 2|US|Washington|westcentralus|z
westus3|West US 3|US|Phoenix|eastus|z
centralus|Central US|US|Iowa|eastus2|z
northcentralus|North Central US|US|Illinois|southcentralus|
southcentralus|South Central US|US|Texas|northcentralus|z
westcentralus|West Central US|US|Wyoming|westus2|
northeurope|North Europe|Europe|Ireland|westeurope|z
westeurope|West Europe|Europe|Netherlands|northeurope|z
uksouth|UK South|UK|London|ukwest|z
ukwest|UK West|UK|Cardiff|uksouth|
francecentral|France Central|France|Paris|francesouth|z
francesouth|France South|France|Marseille|francecentral|
germanywestcentral|Germany West Central|Germany|Frankfurt|germanynorth|z
germanynorth|Germany North|Germany|Berlin|germanywestcentral|
swedencentral|Sweden Central|Sweden|Gavle|swedensouth|z
swedensouth|Sweden South|Sweden|Malmo|swedencentral|
norwayeast|Norway East|Norway|Norway|norwaywest|z
norwaywest|Norway West|Norway|Norway|norwayeast|
switzerlandnorth|Switzerland North|Switzerland|Zurich|switzerlandwest|z
switzerlandwest|Switzerland West|Switzerland|Geneva|switzerlandnorth|
italynorth|Italy North|Italy|Milan||z
polandcentral|Poland Central|Poland|Warsaw||z
spaincentral|Spain Central|Spain|Madrid||z
israelcentral|Israel Central|Israel|Israel||z
southeastasia|Southeast Asia|Asia Pacific|Singapore|eastasia|z
eastasia|East Asia|Asia Pacific|Hong Kong|southeastasia|z
japaneast|Japan East|Japan|Tokyo|japanwest|z
japanwest|Japan West|Japan|Osaka|japaneast|
australiaeast|Australia East|Asia Pacific|New South Wales|australiasoutheast|z
australiasoutheast|Australia Southeast|Asia Pacific|Victoria|australiaeast|
centralindia|Central India|India|Pune|southindia|z
southindia|South India|India|Chennai|centralindia|
westindia|West India|India|Mumbai|southindia|
canadacentral|Canada Central|Canada|Toronto|canadaeast|z
canadaeast|Canada East|Canada|Quebec|canadacentral|
brazilsouth|Brazil South|Brazil|Sao Paulo|southcentralus|z
brazilsoutheast|Brazil Southeast|Brazil|Rio|brazilsouth|
"""


_LINES = [line.split("|") for line in _TABLE.strip().splitlines()]
REGIONS = {name: Region(name, *words, has_zones=zones == "z") for name, *words, zones in _LINES}


@dataclass(frozen=True, slots=True)
class Geography:
    """Zones and region pairs of a fleet file; by default pairs of the table, and generated zones."""

    zones: Mapping[tuple[str, str, str], str] = field(default_factory=dict[tuple[str, str, str], str])
    """Physical zone by subscription (normalized), region and logical zone."""
    pairs: Mapping[str, str] = field(default_factory=dict[str, str])
    """The paired region, by region."""


def location_document(subscription_id: str, region: Region, geography: Geography) -> dict[str, Any]:
    """A row of ``GET /subscriptions/{id}/locations``.

    Zone numbers are logical: "zone 1" of two subscriptions may be two buildings.
    """
    locations = f"/subscriptions/{subscription_id}/locations"
    pair = geography.pairs.get(region.name, region.pair)
    made: dict[str, Any] = {
        "id": f"{locations}/{region.name}",
        "name": region.name,
        "type": "Region",
        "displayName": region.display,
        "regionalDisplayName": f"({region.geography}) {region.display}",
        "metadata": {
            "regionType": "Physical",
            "regionCategory": "Recommended" if region.has_zones else "Other",
            "geography": region.geography,
            "geographyGroup": region.geography,
            "physicalLocation": region.place,
            "pairedRegion": [{"name": pair, "id": f"{locations}/{pair}"}] if pair else [],
        },
    }
    if region.has_zones:
        folded = subscription_id.casefold()
        turn = hashlib.sha256(f"{folded}{region.name}".encode()).digest()[0] % 3
        generated = {str(zone): f"{region.name}-az{(zone - 1 + turn) % 3 + 1}" for zone in (1, 2, 3)}
        made["availabilityZoneMappings"] = [
            {"logicalZone": logical, "physicalZone": geography.zones.get((folded, region.name, logical), zone)}
            for logical, zone in generated.items()
        ]
    return made
