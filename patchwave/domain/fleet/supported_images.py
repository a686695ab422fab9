"""The images that Azure's guest patching supports, as data with its date.

The table "Supported OS images" of Microsoft's page "Automatic VM Guest Patching for Azure VMs". Azure adds images
without notice, so that the table is a reason to look, and never to refuse: what Azure says of a machine counts.
"""

from datetime import date
from typing import NamedTuple, Self

DOCUMENT_DATE = date(2021, 10, 20)
"""The date that the page bears; its table has been added to since."""
READ_ON = date(2026, 11, 20)
"""When the table was taken from the page."""


class Image(NamedTuple):
    """A marketplace image. Only the exact combination counts, without case."""

    publisher: str
    offer: str
    sku: str

    @classmethod
    def parse(cls, text: str) -> Self | None:
        """Read ``publisher:offer:sku``, with or without version; ``None`` for anything else, such as a custom image."""
        parts = text.split(":")
        return None if len(parts) < 3 or text.startswith("/") or not all(parts[:3]) else cls(*parts[:3])

    @property
    def is_supported(self) -> bool:
        return tuple(part.casefold() for part in self) in _SUPPORTED


# publisher | offer | skus
_TABLE = """
Canonical | UbuntuServer | 16.04-LTS, 16.04.0-LTS, 18.04-LTS, 18.04-LTS-gen2
Canonical | 0001-com-ubuntu-pro-bionic | pro-18_04-lts
Canonical | 0001-com-ubuntu-server-focal | 20_04-lts, 20_04-lts-gen2
Canonical | 0001-com-ubuntu-pro-focal | pro-20_04-lts, pro-20_04-lts-gen2
Canonical | 0001-com-ubuntu-server-jammy | 22_04-lts, 22_04-lts-gen2
microsoftcblmariner | cbl-mariner | cbl-mariner-1, 1-gen2, cbl-mariner-2, cbl-mariner-2-gen2
Redhat | RHEL | 7.2, 7.3, 7.4, 7.5, 7.6, 7.7, 7.8, 7_9, 7-RAW, 7-LVM
Redhat | RHEL | 8, 8.1, 81gen2, 8.2, 82gen2, 8_3, 83-gen2, 8_4, 84-gen2, 8_5, 85-gen2, 8_6, 86-gen2, 8-lvm, 8-lvm-gen2
Redhat | RHEL-RAW | 8-raw, 8-raw-gen2
OpenLogic | CentOS | 7.2, 7.3, 7.4, 7.5, 7.6, 7.7, 7_8, 7_9, 7_9-gen2, 8.0, 8_1, 8_2, 8_3, 8_4, 8_5
OpenLogic | centos-lvm | 7-lvm, 8-lvm
SUSE | sles-12-sp5 | gen1, gen2
SUSE | sles-15-sp2 | gen1, gen2
MicrosoftWindowsServer | WindowsServer | 2008-R2-SP1
MicrosoftWindowsServer | WindowsServer | 2012-R2-Datacenter, 2012-R2-Datacenter-gensecond
MicrosoftWindowsServer | WindowsServer | 2012-R2-Datacenter-smalldisk, 2012-R2-Datacenter-smalldisk-g2
MicrosoftWindowsServer | WindowsServer | 2016-Datacenter, 2016-datacenter-gensecond, 2016-Datacenter-Server-Core
MicrosoftWindowsServer | WindowsServer | 2016-datacenter-smalldisk, 2016-datacenter-with-containers
MicrosoftWindowsServer | WindowsServer | 2019-Datacenter, 2019-Datacenter-Core, 2019-datacenter-gensecond
MicrosoftWindowsServer | WindowsServer | 2019-datacenter-smalldisk, 2019-datacenter-smalldisk-g2
MicrosoftWindowsServer | WindowsServer | 2019-datacenter-with-containers
MicrosoftWindowsServer | WindowsServer | 2022-datacenter, 2022-datacenter-smalldisk, 2022-datacenter-smalldisk-g2
MicrosoftWindowsServer | WindowsServer | 2022-datacenter-g2, 2022-datacenter-core, 2022-datacenter-core-g2
MicrosoftWindowsServer | WindowsServer | 2022-datacenter-azure-edition, 2022-datacenter-azure-edition-core
MicrosoftWindowsServer | WindowsServer | 2022-datacenter-azure-edition-core-smalldisk
MicrosoftWindowsServer | WindowsServer | 2022-datacenter-azure-edition-smalldisk
"""

SUPPORTED_IMAGES = tuple(
    Image(publisher, offer, sku)
    for publisher, offer, skus in (line.split(" | ") for line in _TABLE.strip().splitlines())
    for sku in skus.split(", ")
)
_SUPPORTED = frozenset(tuple(part.casefold() for part in image) for image in SUPPORTED_IMAGES)
