"""Which Azure regions are paired, as far as it can be known without asking Azure.

Source: "Azure region pairs and nonpaired regions" of Microsoft's documentation, in its state of `AS_OF`. With a
connection to Azure, ``patchwave.azure.locations`` asks for the pairs of the subscription, and these fill what it leaves
out.
"""

from __future__ import annotations

from datetime import date

AS_OF = date(2025, 1, 13)
"""The date of the documentation page that the pairs were taken from."""

# A region and the region that it fails over to. Not symmetric: West US 3 names East US, which names West US.
_PAIRS = """
eastasia southeastasia
southeastasia eastasia
australiaeast australiasoutheast
australiasoutheast australiaeast
australiacentral australiacentral2
australiacentral2 australiacentral
brazilsouth southcentralus
brazilsoutheast brazilsouth
canadacentral canadaeast
canadaeast canadacentral
chinanorth chinaeast
chinaeast chinanorth
chinanorth2 chinaeast2
chinaeast2 chinanorth2
chinanorth3 chinaeast3
chinaeast3 chinanorth3
northeurope westeurope
westeurope northeurope
francecentral francesouth
francesouth francecentral
germanywestcentral germanynorth
germanynorth germanywestcentral
centralindia southindia
southindia centralindia
westindia southindia
japaneast japanwest
japanwest japaneast
koreacentral koreasouth
koreasouth koreacentral
norwayeast norwaywest
norwaywest norwayeast
southafricanorth southafricawest
southafricawest southafricanorth
swedencentral swedensouth
swedensouth swedencentral
switzerlandnorth switzerlandwest
switzerlandwest switzerlandnorth
ukwest uksouth
uksouth ukwest
eastus westus
westus eastus
eastus2 centralus
centralus eastus2
northcentralus southcentralus
southcentralus northcentralus
westus2 westcentralus
westcentralus westus2
westus3 eastus
uaenorth uaecentral
uaecentral uaenorth
usdodeast usdodcentral
usdodcentral usdodeast
usgovarizona usgovtexas
usgovvirginia usgovtexas
usgovtexas usgovvirginia
"""

KNOWN_PAIRS: dict[str, str] = {
    region: pair for region, _, pair in (line.partition(" ") for line in _PAIRS.strip().splitlines())
}
"""Region to the region that Azure pairs it with. Most of the newer regions have none."""


def region_name(text: str) -> str:
    """The name of a region as Resource Manager writes it: ``West Europe`` is ``westeurope``."""
    return text.replace(" ", "").lower()
