"""The boundary: the subscriptions in which the app may change anything, whatever its identity is allowed to do.

One rule for every write, by the method and the address that are about to be sent, so that no feature has to remember
it. Snapshots hold all that a disk holds, so they have a rule of their own on top: a snapshot goes to the resource group
of its disk, whose owners have that data already, or to a group that the settings list.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote, urlsplit

from patchwave.domain.core.documents import object_or_none, parse_object, str_or_empty
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import GUID, RESOURCE_GROUP_NAME
from patchwave.domain.policy.scope import Scope

READS = ("GET", "HEAD")
_QUERY_PATH = "/providers/microsoft.resourcegraph/resources"
"""A query of Resource Graph is a POST and changes nothing."""
_SUBSCRIPTION = re.compile(rf"/subscriptions/({GUID})(?:/.*)?", re.IGNORECASE | re.DOTALL)
_IN_GROUP = rf"/subscriptions/(?P<subscription>{GUID})/resourceGroups/(?P<group>{RESOURCE_GROUP_NAME})"
_SNAPSHOT = re.compile(rf"{_IN_GROUP}/providers/Microsoft\.Compute/snapshots/[^/]+", re.IGNORECASE)
_DISK = re.compile(rf"{_IN_GROUP}/providers/Microsoft\.Compute/disks/[^/]+", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Boundary:
    """Where the app may write: ids of subscriptions in lower case (none: everywhere), folded names of groups."""

    subscriptions: frozenset[str] = frozenset()
    snapshot_groups: frozenset[str] = frozenset()

    @classmethod
    def of(cls, subscriptions: Iterable[str] = (), snapshot_groups: Iterable[str] = ()) -> Self:
        return cls(frozenset(map(str.lower, subscriptions)), frozenset(map(fold, snapshot_groups)))

    def holds(self, subscription_id: str) -> bool:
        return not self.subscriptions or subscription_id.lower() in self.subscriptions

    def takes_snapshots(self, resource_group: str) -> bool:
        """Whether snapshots of other groups' disks may go to this resource group."""
        return fold(resource_group) in self.snapshot_groups

    def is_needed_by(self, scope: Scope) -> bool:
        """Whether only a boundary would limit the scope: it names nothing but operating systems, and there is none."""
        places = scope.subscriptions or scope.resource_groups or scope.locations
        named = places or scope.tags or scope.machine_ids or scope.scale_sets
        return not self.subscriptions and not named

    def reason_not_to_send(self, method: str, url: str, body: str | bytes = "") -> str:
        """Why this request to Resource Manager must not be sent, in a sentence; empty when it may be."""
        if method.upper() in READS:
            return ""
        path = unquote(urlsplit(url).path)
        if method.upper() == "POST" and path.lower() == _QUERY_PATH:
            return ""
        found = _SUBSCRIPTION.fullmatch(path)
        if self.subscriptions and (found is None or ".." in path.split("/") or not self.holds(found[1])):
            return outside(found[1] if found else "")
        snapshot = _SNAPSHOT.fullmatch(path)
        if method.upper() != "PUT" or snapshot is None or self.takes_snapshots(snapshot["group"]):
            return ""
        disk = _DISK.fullmatch(_source_of(body))
        if disk is not None and _place(disk) == _place(snapshot):
            return ""
        return snapshot_elsewhere(snapshot["group"])


def outside(subscription_id: str) -> str:
    """What is said of a thing in a subscription in which the app may change nothing."""
    named = f"The subscription {subscription_id.lower()} is" if subscription_id else "It is"
    return f"{named} not in PATCHWAVE_SUBSCRIPTIONS: this app changes nothing there."


def snapshot_elsewhere(resource_group: str) -> str:
    """What is said of a snapshot that would go to a group that is not listed."""
    return (
        f"No snapshot may go to the resource group {resource_group}: it is not that of the disk,"
        " and not in PATCHWAVE_SNAPSHOT_GROUPS."
    )


def needs_boundary() -> str:
    """What is said of a scope that `Boundary.is_needed_by`."""
    return (
        "names nothing but operating systems, which is every machine that the app can read: name subscriptions, groups,"
        " locations, tags or machines, or have PATCHWAVE_SUBSCRIPTIONS set"
    )


def _place(found: re.Match[str]) -> tuple[str, str]:
    return found["subscription"].lower(), fold(found["group"])


def _source_of(body: str | bytes) -> str:
    """The disk that a snapshot is made of; empty when the body does not say."""
    text = body.decode("utf-8", "replace") if isinstance(body, bytes) else body
    properties = object_or_none((parse_object(text) or {}).get("properties")) or {}
    return str_or_empty((object_or_none(properties.get("creationData")) or {}).get("sourceResourceId"))
