"""Which Azure regions are paired, as far as it can be known without asking Azure.

Source: "Azure region pairs and nonpaired regions" of Microsoft's documentation, in its state of `AS_OF`. With a
connection to Azure, ``patchwave.azure.locations`` asks for the pairs of the subscription, and these fill what it leaves
out.
"""

from datetime import date

AS_OF = date(2025, 1, 13)
"""The date of the documentation page that the pairs were taken from."""

ARC_REGION = "arc"
"""Stands in plans and phases for the region of all Arc machines: the location of an Arc machine is where Azure keeps
its record, and says nothing of where it runs."""

_PAIRS = """
eastasia southeastasia
australiaeast australiasoutheast
australiacentral australiacentral2
canadacentral canadaeast
chinanorth chinaeast
chinanorth2 chinaeast2
chinanorth3 chinaeast3
northeurope westeurope
francecentral francesouth
germanywestcentral germanynorth
centralindia southindia
japaneast japanwest
koreacentral koreasouth
norwayeast norwaywest
southafricanorth southafricawest
swedencentral swedensouth
switzerlandnorth switzerlandwest
ukwest uksouth
eastus westus
eastus2 centralus
northcentralus southcentralus
westus2 westcentralus
uaenorth uaecentral
usdodeast usdodcentral
usgovvirginia usgovtexas
"""
_ONE_WAY = {
    "brazilsouth": "southcentralus",
    "brazilsoutheast": "brazilsouth",
    "westindia": "southindia",
    "westus3": "eastus",
    "usgovarizona": "usgovtexas",
}
"""Regions that fail over to one that fails over elsewhere."""

KNOWN_PAIRS: dict[str, str] = _ONE_WAY | {
    region: pair
    for one, other in (line.split() for line in _PAIRS.strip().splitlines())
    for region, pair in ((one, other), (other, one))
}
"""Region to the region that Azure pairs it with. Most of the newer regions have none."""


def region_name(text: str) -> str:
    """The name of a region as Resource Manager writes it: ``West Europe`` is ``westeurope``."""
    return text.replace(" ", "").lower()
