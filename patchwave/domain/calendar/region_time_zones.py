"""Which time zone an Azure region is in, and so what the clock of a machine there shows.

Source: "Azure regions list" of Microsoft's documentation, in its state of `AS_OF`, has the regions with their physical
locations; the zones are those of the IANA database for these locations. Beside the regions of that page the table has
those of the sovereign clouds, of early access, and those that need an approval and are not listed [inferred from the
names that Azure's command-line tool knows].
"""

from collections.abc import Mapping
from datetime import date

from patchwave.domain.calendar.windows_time_zones import ZONES, documented_name
from patchwave.domain.core.region_pairs import region_name

AS_OF = date(2025, 9, 23)
"""The date of the documentation page that the regions were taken from."""

_TABLE = """
Africa/Johannesburg southafricanorth southafricawest
America/Chicago     centralus northcentralus southcentralus centraluseuap southcentralusstg usdodcentral usgoviowa
America/Chicago     usgovtexas
America/Denver      westcentralus
America/Los_Angeles westus westus2
America/Mexico_City mexicocentral
America/New_York    eastus eastus2 eastus3 eastus2euap eastusstg usdodeast usgovvirginia
America/Phoenix     westus3 usgovarizona
America/Santiago    chilecentral
America/Sao_Paulo   brazilsouth brazilsoutheast brazilus
America/Toronto     canadacentral canadaeast
Asia/Dubai          uaecentral uaenorth
Asia/Hong_Kong      eastasia
Asia/Jakarta        indonesiacentral
Asia/Jerusalem      israelcentral israelnorthwest
Asia/Kolkata        centralindia southindia westindia jioindiacentral jioindiawest indiasouthcentral
Asia/Kuala_Lumpur   malaysiawest malaysiasouth
Asia/Qatar          qatarcentral
Asia/Riyadh         saudiarabiacentral saudiarabiaeast
Asia/Seoul          koreacentral koreasouth
Asia/Shanghai       chinaeast chinaeast2 chinaeast3 chinanorth chinanorth2 chinanorth3
Asia/Singapore      southeastasia
Asia/Taipei         taiwannorth taiwannorthwest
Asia/Tokyo          japaneast japanwest
Australia/Melbourne australiasoutheast
Australia/Sydney    australiacentral australiacentral2 australiaeast
Europe/Amsterdam    westeurope
Europe/Athens       greececentral
Europe/Berlin       germanynorth germanywestcentral germanycentral germanynortheast
Europe/Brussels     belgiumcentral
Europe/Copenhagen   denmarkeast
Europe/Dublin       northeurope
Europe/Helsinki     finlandcentral
Europe/London       uksouth ukwest
Europe/Madrid       spaincentral
Europe/Oslo         norwayeast norwaywest
Europe/Paris        francecentral francesouth
Europe/Rome         italynorth
Europe/Stockholm    swedencentral swedensouth
Europe/Vienna       austriaeast
Europe/Warsaw       polandcentral
Europe/Zurich       switzerlandnorth switzerlandwest
Pacific/Auckland    newzealandnorth
"""

REGION_ZONES: Mapping[str, str] = {
    region: zone for zone, *regions in map(str.split, _TABLE.strip().splitlines()) for region in regions
}
"""IANA zone by the name of the region."""


def machine_zone(windows_time_zone: str, location: str) -> str:
    """The IANA zone of a machine's clock: of its Windows time zone where one is known, else of its region.

    Empty when neither is known. The name of a Windows time zone counts without case, and one that is not known as none.
    """
    return ZONES.get(documented_name(windows_time_zone), "") or REGION_ZONES.get(region_name(location), "")
