"""Flexible scale sets as Resource Graph shows them: over how many fault domains they spread, and who watches them.

Sources: the Compute models of 2024-11-01, and "Using Application Health extension with Virtual Machine Scale Sets" for
the types of the extension, which Azure's own guest patching requires of Flexible sets. Inferred: the extensions in the
set's model are those of its members. A set without a model, whose members were added one by one, tells nothing.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from patchwave.domain.core.documents import Document, count_or_zero, list_or_empty, object_or_none, str_or_empty
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import is_scale_set_id
from patchwave.domain.fleet.discovery import IDS_PER_QUERY, DiscoveryQuery, one_of

HEALTH_EXTENSIONS = frozenset({"applicationhealthlinux", "applicationhealthwindows"})
"""Types of the Application Health extension, in lower case."""
_QUERY = (
    "resources",
    "| where type =~ 'microsoft.compute/virtualmachinescalesets'",
    "| where tostring(properties.orchestrationMode) =~ 'Flexible'",
)
_PROJECTION = (
    "| project id, osType = tostring(properties.virtualMachineProfile.storageProfile.osDisk.osType),"
    " faultDomains = properties.platformFaultDomainCount, model = isnotnull(properties.virtualMachineProfile),"
    " extensions = properties.virtualMachineProfile.extensionProfile.extensions",
    "| order by id asc",
)


class ScaleSet(Document):
    """A Flexible scale set; ``None`` where Azure does not tell."""

    id: str
    os_type: str = ""
    fault_domains: int | None = None
    """How many it spreads over; 1 is maximum spreading, where all members show one and the same."""
    monitors_health: bool | None = None
    """Whether its members have the Application Health extension."""

    @property
    def name(self) -> str:
        return self.id.rstrip("/").rpartition("/")[2]


def all_scale_sets() -> str:
    """The query for every Flexible scale set that the identity can read."""
    return "\n".join([*_QUERY, *_PROJECTION])


def scale_set_queries(ids: Iterable[str]) -> list[DiscoveryQuery]:
    """The queries for these scale sets; ids that are none are left out."""
    named = sorted({fold(text): text for text in ids if is_scale_set_id(text)}.items())
    chunks = [named[start : start + IDS_PER_QUERY] for start in range(0, len(named), IDS_PER_QUERY)]
    return [
        DiscoveryQuery(
            text="\n".join([*_QUERY, f"| where {one_of('id', [text for _, text in chunk])}", *_PROJECTION]),
            subscriptions=tuple(sorted({folded.split("/")[2] for folded, _ in chunk})),
        )
        for chunk in chunks
    ]


def read_scale_set(row: Mapping[str, Any]) -> ScaleSet | None:
    """A row of these queries; ``None`` when its id cannot be read."""
    set_id, domains = str_or_empty(row.get("id")), row.get("faultDomains")
    if not is_scale_set_id(set_id):
        return None
    kinds = [_kind(each) for each in list_or_empty(row.get("extensions"))]
    has_model = row.get("model") is True or bool(kinds)
    return ScaleSet(
        id=set_id,
        os_type=str_or_empty(row.get("osType")),
        fault_domains=count_or_zero(domains) or None,
        monitors_health=any(kind in HEALTH_EXTENSIONS for kind in kinds) if has_model else None,
    )


def _kind(extension: object) -> str:
    """The type of an extension in lower case."""
    shown = object_or_none(extension) or {}
    return str_or_empty((object_or_none(shown.get("properties")) or shown).get("type")).lower()
