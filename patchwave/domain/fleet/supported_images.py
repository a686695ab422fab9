"""The images that Azure's guest patching supports, and until when their publishers make updates: data with its date.

Azure adds images without notice, and takes those off that have reached their end of life. An image that the table
lacks is therefore *unknown*, and never unsupported: what Azure answers for a machine counts. Settings of the app add
images and dates (`ImageTable.extend`).

Sources: the tables "Supported Windows Images" and "Supported Linux Images" of Microsoft's page "Automatic Guest
Patching for Azure Virtual Machines and Scale Sets" (azure-compute-docs, commit 0ba239a8), and that page's section
"Image End-of-Life (EOL)". End of life: Ubuntu's releases page, Red Hat's and SUSE's life cycles, Microsoft's lifecycle
pages, Azure Linux' release cadence, and Azure Batch's announcement for Ubuntu 22.04; as read on that day too. The end
of extended security updates counts for Windows Server, which come to machines in Azure without a purchase.
"""

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import date
from fnmatch import translate
from typing import NamedTuple, Self

DOCUMENT_DATE = date(2024, 7, 31)
"""The date that the page bears; its tables have been added to since."""
READ_ON = date(2026, 12, 1)
"""When the tables were taken from the page: the date by which the table is named."""
FORMER_DATE = date(2021, 10, 20)
"""The date of an older page, some of whose images are not on the page any more."""
MAX_EXTENSIONS = 500

# publisher | offer | skus
_TABLE = """
AlmaLinux | almalinux-hpc | 8-hpc-gen2, 8_5-hpc, 8_5-hpc-gen2, 8_6-hpc, 8_6-hpc-gen2, 8_7-hpc-gen1, 8_7-hpc-gen2
AlmaLinux | almalinux-hpc | 8_10-hpc-gen1, 8_10-hpc-gen2
Canonical | UbuntuServer | 16.04-LTS, 16.04.0-LTS, 18.04-LTS, 18_04-LTS-arm64, 18_04-LTS-gen2
Canonical | ubuntu-24_04-lts | cvm, server, server-arm64, server-gen1, ubuntu-pro, ubuntu-pro-cvm
Canonical | 0001-com-ubuntu-confidential-vm-focal | 20_04-lts-cvm
Canonical | 0001-com-ubuntu-confidential-vm-jammy | 22_04-lts-cvm
Canonical | 0001-com-ubuntu-pro-bionic | pro-18_04-lts
Canonical | 0001-com-ubuntu-pro-focal | pro-20_04-lts, pro-20_04-lts-gen2
Canonical | 0001-com-ubuntu-pro-jammy | pro-22_04-lts-gen2
Canonical | 0001-com-ubuntu-server-focal | 20_04-lts, 20_04-lts-arm64, 20_04-lts-gen2
Canonical | 0001-com-ubuntu-server-jammy | 22_04-lts, 22_04-lts-arm64, 22_04-lts-gen2
Center-for-Internet-Security-Inc | cis-rhel-7-v2-2-0-l1 | cis-redhat7-l1
Center-for-Internet-Security-Inc | cis-rhel | cis-redhat7-l2-gen1, cis-redhat8-l1-gen1, cis-redhat8-l1-gen2
Center-for-Internet-Security-Inc | cis-rhel | cis-redhat8-l2-gen1, cis-redhat9-l1-gen2, cis-redhat9-l2-gen2
Center-for-Internet-Security-Inc | cis-ubuntu-linux-2004-l1 | cis-ubuntu-linux-2004-l1
Center-for-Internet-Security-Inc | cis-ubuntu-linux-2204-l1 | cis-ubuntu-linux-2204-l1
Center-for-Internet-Security-Inc | cis-ubuntu | cis-ubuntulinux2004-l1-gen1, cis-ubuntulinux2204-l1-gen2
Center-for-Internet-Security-Inc | cis-ubuntu | cis-ubuntulinux2404-l1-gen1, cis-ubuntulinux2404-l1-gen2
Center-for-Internet-Security-Inc | cis-windows-server-2019-v1-0-0-l2 | cis-ws2019-l2
Center-for-Internet-Security-Inc | cis-windows-server | cis-windows-server2019-l1-gen1
Center-for-Internet-Security-Inc | cis-windows-server | cis-windows-server2022-l1-gen1, cis-windows-server2022-l1-gen2
Center-for-Internet-Security-Inc | cis-windows-server | cis-windows-server2022-l2-gen2
Center-for-Internet-Security-Inc | cis-windows-server-2022-l2 | cis-windows-server-2022-l2-gen2
MicrosoftCblMariner | azure-linux-3 | azure-linux-3-gen2
MicrosoftCblMariner | cbl-mariner | cbl-mariner-1, 1-gen2, cbl-mariner-2, cbl-mariner-2-arm64, cbl-mariner-2-gen2
MicrosoftCblMariner | cbl-mariner | cbl-mariner-2-gen2-fips
Microsoft-AKS | aks | aks-engine-ubuntu-1804-202112
Microsoft-DSVM | aml-workstation | ubuntu-20, ubuntu-20-gen2
Microsoft-DSVM | ubuntu-hpc | 1804, 1804-ncv4, 2004, 2004-preview-ndv5, 2204, 2204-preview-ndv5
Redhat | RHEL | 7.2, 7.3, 7.4, 7.5, 7.6, 7.7, 7.8, 7_9, 7-lvm, 7-raw
Redhat | RHEL | 8, 8.1, 81gen2, 8.2, 82gen2, 8_3, 83-gen2, 8_4, 84-gen2, 8_5, 85-gen2, 8_6, 86-gen2
Redhat | RHEL | 8_7, 8_8, 8_10, 8-lvm, 8-lvm-gen2
Redhat | RHEL | 9_0, 9_1, 9_2, 9_3, 9_4, 9-lvm, 9-lvm-gen2
Redhat | RHEL-RAW | 8-raw, 8-raw-gen2
Redhat | RHEL-ARM64 | 8_6-arm64, 9_0-arm64, 9_1-arm64
Redhat | RHEL-SAP-APPS | 86sapapps-gen2, 88sapapps-gen2
Redhat | RHEL-SAP-HA | 86sapha-gen2, 88sapha-gen2
SUSE | sles-12-sp5 | gen1, gen2
SUSE | sles-15-sp2 | gen1, gen2
SUSE | sles-sap-15-sp4 | gen2
SUSE | sles-sap-15-sp5 | gen2
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
MicrosoftWindowsServer | WindowsServer | 2022-datacenter-azure-edition-hotpatch
MicrosoftWindowsServer | WindowsServer | 2022-datacenter-azure-edition-hotpatch-smalldisk
MicrosoftWindowsServer | WindowsServer | 2025-datacenter, 2025-datacenter-core, 2025-datacenter-core-smalldisk
MicrosoftWindowsServer | WindowsServer | 2025-datacenter-smalldisk
MicrosoftWindowsServer | WindowsServer | 2025-datacenter-azure-edition, 2025-datacenter-azure-edition-core
MicrosoftWindowsServer | WindowsServer | 2025-datacenter-azure-edition-smalldisk
MicrosoftWindowsServer | WindowsServer | 2025-datacenter-azure-edition-core-smalldisk
MicrosoftWindowsServer | WindowsServerHotpatch-previews | windows-server-2022-azure-edition-hotpatch
MicrosoftWindowsServer | MicrosoftServerOperatingSystems-previews | windows-server-2025-azure-edition-hotpatch
"""

# What the page of 2021-10-20 listed and the present one does not.
_FORMER_TABLE = """
Canonical | UbuntuServer | 18.04-LTS-gen2
OpenLogic | CentOS | 7.2, 7.3, 7.4, 7.5, 7.6, 7.7, 7_8, 7_9, 7_9-gen2, 8.0, 8_1, 8_2, 8_3, 8_4, 8_5
OpenLogic | centos-lvm | 7-lvm, 8-lvm
"""

# The last day with updates, and the images as publisher:offer:sku, in which * stands for anything. The first that
# matches counts, so that paid channels stand before the families they belong to.
_END_OF_LIFE = """
2028-04-01 | Canonical:0001-com-ubuntu-pro-bionic*:*
2030-04-02 | Canonical:0001-com-ubuntu-pro-focal*:*
2032-04-09 | Canonical:0001-com-ubuntu-pro-jammy*:*
2021-04-30 | Canonical:UbuntuServer:16*, Canonical:*xenial*:*
2023-05-31 | Canonical:UbuntuServer:18*, Canonical:*bionic*:*, Microsoft-DSVM:ubuntu-hpc:1804*
2023-05-31 | Microsoft-AKS:aks:aks-engine-ubuntu-1804*
2025-05-31 | Canonical:*focal*:*, Microsoft-DSVM:ubuntu-hpc:2004*, Microsoft-DSVM:aml-workstation:ubuntu-20*
2025-05-31 | Center-for-Internet-Security-Inc:cis-ubuntu*:*2004*
2027-06-30 | Canonical:*jammy*:*, Microsoft-DSVM:ubuntu-hpc:2204*
2027-06-30 | Center-for-Internet-Security-Inc:cis-ubuntu*:*2204*
2029-05-31 | Canonical:ubuntu-24_04-lts:cvm, Canonical:ubuntu-24_04-lts:server*
2029-05-31 | Center-for-Internet-Security-Inc:cis-ubuntu*:*2404*
2020-11-30 | OpenLogic:CentOS*:6*, Redhat:RHEL:6*
2024-06-30 | OpenLogic:CentOS*:7*, Redhat:RHEL:7*, Redhat:RHEL-RAW:7*
2024-06-30 | Center-for-Internet-Security-Inc:cis-rhel*:cis-redhat7*
2021-12-31 | OpenLogic:CentOS*:8*
2029-05-31 | Redhat:RHEL:8*, Redhat:RHEL-RAW:8*, Redhat:RHEL-ARM64:8*, Redhat:RHEL-SAP*:8*
2029-05-31 | Center-for-Internet-Security-Inc:cis-rhel*:cis-redhat8*
2032-05-31 | Redhat:RHEL:9*, Redhat:RHEL-RAW:9*, Redhat:RHEL-ARM64:9*, Redhat:RHEL-SAP*:9*
2032-05-31 | Center-for-Internet-Security-Inc:cis-rhel*:cis-redhat9*
2024-10-31 | SUSE:sles-12-sp5*:*
2021-12-31 | SUSE:sles-15-sp2*:*
2022-12-31 | SUSE:sles-15-sp3*:*
2023-12-31 | SUSE:sles-15-sp4*:*
2024-12-31 | SUSE:sles-15-sp5*:*
2026-12-31 | SUSE:sles-sap-15-sp4*:*
2027-12-31 | SUSE:sles-sap-15-sp5*:*
2023-08-31 | MicrosoftCblMariner:cbl-mariner:cbl-mariner-1*, MicrosoftCblMariner:cbl-mariner:1-*
2025-07-31 | MicrosoftCblMariner:cbl-mariner:*
2027-08-31 | MicrosoftCblMariner:azure-linux-3:*
2024-01-09 | MicrosoftWindowsServer:WindowsServer:2008*
2026-10-13 | MicrosoftWindowsServer:WindowsServer:2012*
2027-01-12 | MicrosoftWindowsServer:WindowsServer:2016*
2029-01-09 | MicrosoftWindowsServer:WindowsServer:2019*
2031-10-14 | MicrosoftWindowsServer:WindowsServer:2022*
2034-10-10 | MicrosoftWindowsServer:WindowsServer:2025*
"""


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
    def name(self) -> str:
        """``publisher:offer:sku``."""
        return ":".join(self)


class ImageExtensionError(ValueError):
    """Entries that are no images, with all of the problems."""


@dataclass(frozen=True)
class _Pattern:
    """Images whose name matches, without case; ``*`` stands for anything."""

    text: str
    expression: re.Pattern[str]

    @classmethod
    def of(cls, text: str) -> Self:
        return cls(text, re.compile(translate(text), re.IGNORECASE))

    def holds(self, name: str) -> bool:
        return self.expression.match(name) is not None


@dataclass(frozen=True)
class ImageTable:
    """The images that are listed, those that once were, and the end of life of families of images.

    ``listed`` and ``former`` are names in lower case; of patterns the first that matches counts.
    """

    listed: frozenset[str]
    former: frozenset[str] = frozenset()
    added: tuple[_Pattern, ...] = ()
    ends: tuple[tuple[_Pattern, date], ...] = ()
    _known_ends: dict[str, date | None] = field(default_factory=dict[str, date | None], compare=False, repr=False)

    def has(self, image: Image) -> bool:
        """Whether the image is in the table, or was added to it."""
        return image.name.casefold() in self.listed or any(each.holds(image.name) for each in self.added)

    def had(self, image: Image) -> bool:
        """Whether the image was in an older table."""
        return image.name.casefold() in self.former

    def end_of_life(self, image: str) -> date | None:
        """The last day with updates of an image: ``publisher:offer:sku[:version]``, or the id of a custom one."""
        found = Image.parse(image)
        name = found.name if found else image
        if name not in self._known_ends:
            self._known_ends[name] = next((day for pattern, day in self.ends if pattern.holds(name)), None)
        return self._known_ends[name]

    def extend(self, images: Sequence[str] = (), ends: Sequence[str] = ()) -> Self:
        """The table with more.

        Args:
            images: ``publisher:offer:sku`` that Azure supports by now; ``*`` stands for anything.
            ends: ``publisher:offer:sku=YYYY-MM-DD``, or the id of a custom image in place of its name. They count
                before those of the table.

        Raises:
            ImageExtensionError: what is wrong with which entries.
        """
        problems: list[str] = []
        added = [_added_image(text, problems) for text in images]
        dated = [_dated_image(text, problems) for text in ends]
        if len(images) + len(ends) > MAX_EXTENSIONS:
            problems.append(f"{len(images) + len(ends)} entries; at most {MAX_EXTENSIONS}")
        if problems:
            raise ImageExtensionError("; ".join(problems))
        more = tuple(each for each in added if each)
        own = tuple(each for each in dated if each)
        return type(self)(self.listed, self.former, (*self.added, *more), (*own, *self.ends))


_MAX_SHOWN = 100
_NAME = re.compile(r"[\w.*-]+(:[\w.*-]+){2}", re.ASCII)
_CUSTOM = re.compile(r"/[\w.*() -]+(/[\w.*() -]+)+", re.ASCII)


def _added_image(text: str, problems: list[str]) -> _Pattern | None:
    if _NAME.fullmatch(text):
        return _Pattern.of(text)
    problems.append(f"{text[:_MAX_SHOWN]!r} is no publisher:offer:sku, without a version")
    return None


def _dated_image(text: str, problems: list[str]) -> tuple[_Pattern, date] | None:
    name, equals, day = (part.strip() for part in text.rpartition("="))
    if not equals:
        problems.append(f"{text[:_MAX_SHOWN]!r} has no date: write publisher:offer:sku=YYYY-MM-DD")
    elif not (_NAME.fullmatch(name) or _CUSTOM.fullmatch(name)):
        problems.append(f"{name[:_MAX_SHOWN]!r} is no publisher:offer:sku, and no id of a custom image")
    elif not re.fullmatch(r"[0-9]{4}-[0-9]{2}-[0-9]{2}", day) or (found := _day(day)) is None:
        problems.append(f"{day[:_MAX_SHOWN]!r} of {name[:_MAX_SHOWN]} is no date as YYYY-MM-DD")
    else:
        return _Pattern.of(name), found
    return None


def _day(text: str) -> date | None:
    try:
        return date.fromisoformat(text)
    except ValueError:
        return None


def _read_table(text: str) -> tuple[Image, ...]:
    rows: Iterable[list[str]] = (line.split(" | ") for line in text.strip().splitlines())
    return tuple(Image(publisher, offer, sku) for publisher, offer, skus in rows for sku in skus.split(", "))


def _read_ends(text: str) -> tuple[tuple[_Pattern, date], ...]:
    rows = (line.split(" | ") for line in text.strip().splitlines())
    return tuple((_Pattern.of(name), date.fromisoformat(day)) for day, names in rows for name in names.split(", "))


SUPPORTED_IMAGES = _read_table(_TABLE)
FORMER_IMAGES = _read_table(_FORMER_TABLE)
IMAGE_TABLE = ImageTable(
    listed=frozenset(image.name.casefold() for image in SUPPORTED_IMAGES),
    former=frozenset(image.name.casefold() for image in FORMER_IMAGES),
    ends=_read_ends(_END_OF_LIFE),
)
"""The table without extensions of the app's settings."""
