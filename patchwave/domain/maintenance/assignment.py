"""What a maintenance configuration is assigned to: one machine, or a dynamic scope.

A dynamic scope is a subscription or a resource group with a filter; the machines are found when a run comes. Azure
has one type for both, ``configurationAssignments``, told apart by the resource under which they stand.
"""

import hashlib
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Self

from pydantic import AfterValidator, Field

from patchwave.domain.core.documents import (
    Document,
    Json,
    lower_keys,
    object_or_none,
    read_leniently,
    str_or_empty,
    without_empty,
)
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import GUID, RESOURCE_GROUP_NAME, ConfigurationId, MachineId, MachineType
from patchwave.domain.core.region_pairs import region_name
from patchwave.domain.core.validation import Problem
from patchwave.domain.fleet.discovery import DiscoveredMachine
from patchwave.domain.policy.scope import OsType, Scope, TagFilter, TagMatch

RESOURCE_TYPES = tuple(kind.full_type for kind in MachineType)
"""What a filter may select; one without types selects both."""
OPERATORS = ("All", "Any")
MAX_TAGS = 50
"""Tags of one filter."""
MAX_RESOURCE_GROUPS = 50
"""Resource groups of one filter."""
MAX_SCOPES = 200
"""Dynamic scopes of one schedule."""
MAX_SUBSCRIPTIONS = 200
"""Subscriptions in which the scopes of one schedule look (100 in some sovereign clouds)."""
MAX_ASSOCIATIONS = 3_000
"""Machines of one schedule, whichever way they come to it."""
MAX_IN_DYNAMIC_SCOPE = 1_000
"""Machines of one dynamic scope."""

_PROVIDER = "/providers/Microsoft.Maintenance/configurationAssignments/"
_ASSIGNMENT_ID = re.compile(
    rf"(?P<scope>/subscriptions/.+?){_PROVIDER.replace('.', '[.]')}(?P<name>[A-Za-z0-9_.()-]{{1,260}})", re.IGNORECASE
)
_DYNAMIC_SCOPE = re.compile(
    rf"/subscriptions/(?P<subscription>{GUID})(/resourceGroups/(?P<group>{RESOURCE_GROUP_NAME}))?", re.IGNORECASE
)
_NAME = re.compile(r"[A-Za-z0-9_.()-]{1,260}")


@dataclass(frozen=True, slots=True)
class DynamicScope:
    """Where a dynamic scope looks: a subscription, or one resource group of it (else empty)."""

    subscription_id: str
    resource_group: str

    @classmethod
    def parse(cls, resource_id: str) -> Self | None:
        """Read the ARM id of a subscription or a resource group; ``None`` when it is neither."""
        found = _DYNAMIC_SCOPE.fullmatch(resource_id)
        if found is None or ".." in resource_id:
            return None
        return cls(found["subscription"].lower(), found["group"] or "")


def _spell_operator(text: str) -> str:
    return next((word for word in OPERATORS if word.casefold() == text.strip().casefold()), text)


class TagSettings(Document):
    """``filter.tagSettings``: tag names with the values that count, of which all or any must match."""

    tags: dict[str, tuple[str, ...]] = Field(default_factory=dict[str, tuple[str, ...]], description="Tags and values.")
    filter_operator: Annotated[str, AfterValidator(_spell_operator)] = Field(default="All", description="All or Any.")


class ScopeFilter(Document):
    """The filter of a dynamic scope. Inside one list the entries are alternatives; every list given must match."""

    resource_types: tuple[str, ...] = Field(
        default=(),
        description="microsoft.compute/virtualmachines, microsoft.hybridcompute/machines (Arc), or both unless given.",
    )
    resource_groups: tuple[str, ...] = Field(default=(), description="Names of resource groups, at most 50.")
    os_types: tuple[str, ...] = Field(default=(), description="Windows, Linux, or both unless given.")
    locations: tuple[str, ...] = Field(default=(), description="Regions; needed for the scope of a resource group.")
    tag_settings: TagSettings | None = Field(default=None, description="At most 50 tags.")

    @property
    def is_empty(self) -> bool:
        """Whether it leaves no virtual machine of its subscription or resource group out."""
        tags = self.tag_settings.tags if self.tag_settings else {}
        systems = {system.casefold() for system in self.os_types}
        return not (self.resource_groups or self.locations or tags) and systems in (set(), {"windows", "linux"})

    @property
    def machine_types(self) -> tuple[MachineType, ...]:
        """The types of machines that it selects."""
        return tuple(kind for kind in MachineType if _within(kind.full_type, self.resource_types))

    @property
    def identity(self) -> Json:
        """What the filter selects, in one form: the same for another order, case or repetition of its words."""
        settings = self.tag_settings or TagSettings()
        tags: dict[str, set[str]] = {}
        for name, values in settings.tags.items():
            tags.setdefault(name.casefold(), set()).update(value.casefold() for value in values)
        return {
            "resourceTypes": _folded(self.resource_types),
            "resourceGroups": _folded(self.resource_groups),
            "osTypes": _folded(self.os_types),
            "locations": sorted({region_name(location) for location in self.locations}),
            "tags": {name: sorted(tags[name]) for name in sorted(tags)},
            # Of one tag, all and any are the same.
            "operator": settings.filter_operator.casefold() if len(tags) > 1 else "all",
        }


class Assignment(Document):
    """One assignment. ``resource_id`` is a machine, a subscription or a resource group, in the case of its source."""

    id: str
    name: str
    maintenance_configuration_id: str
    resource_id: str
    location: str = ""
    filter: ScopeFilter | None = None

    @property
    def machine_id(self) -> MachineId | None:
        """The machine that it is for; ``None`` for dynamic scopes and other resources."""
        return MachineId.find(self.resource_id)

    @property
    def configuration_id(self) -> ConfigurationId | None:
        """The configuration that is assigned; ``None`` when the text is no id."""
        try:
            return ConfigurationId.parse(self.maintenance_configuration_id)
        except ValueError:
            return None

    @property
    def is_dynamic(self) -> bool:
        """Whether it is for whatever machines match, in a subscription or a resource group."""
        return DynamicScope.parse(self.resource_id) is not None

    @property
    def is_subscription(self) -> bool:
        place = DynamicScope.parse(self.resource_id)
        return place is not None and not place.resource_group

    @property
    def folded(self) -> str:
        return fold(self.id)

    def is_same_as(self, other: "Assignment") -> bool:
        """Whether both give the same configuration to the same machines, whatever their names are."""
        ours, theirs = (each.filter or ScopeFilter() for each in (self, other))
        return (
            fold(self.resource_id) == fold(other.resource_id)
            and self.configuration_id is not None
            and self.configuration_id == other.configuration_id
            and (not self.is_dynamic or ours.identity == theirs.identity)
        )

    @cached_property
    def scope(self) -> Scope | None:
        """The machines that get the configuration by this assignment; ``None`` when there can be none.

        It selects with the rules of policies, which are those of Azure: without case, tags by name and value.
        """
        found, criteria = DynamicScope.parse(self.resource_id), self.filter or ScopeFilter()
        try:
            if found is None:
                return Scope(machine_ids=(self.resource_id,), machine_types=(MachineType.of(self.resource_id),))
            group, groups = found.resource_group, criteria.resource_groups
            systems = tuple(filter(None, map(OsType.read, criteria.os_types)))
            if not criteria.machine_types or (group and not _within(group, groups)):
                return None
            if criteria.os_types and not systems:
                return None
            return Scope(
                subscriptions=(found.subscription_id,),
                resource_groups=(group,) if group else groups,
                locations=criteria.locations,
                os_types=systems,
                machine_types=criteria.machine_types,
                tags=_tag_filter(criteria.tag_settings),
            )
        except ValueError:
            # Azure holds ids of other kinds of machines, and filters that are empty inside.
            return None

    def holds(self, machine: DiscoveredMachine) -> bool:
        """Whether the machine gets the configuration by this assignment, as far as Resource Graph shows it."""
        return self.scope is not None and self.scope.holds(
            machine.machine_id, location=machine.location, os_type=machine.os_type, tags=machine.tags
        )

    def to_azure(self) -> Json:
        properties = {
            "maintenanceConfigurationId": self.maintenance_configuration_id,
            "resourceId": self.resource_id,
            "filter": without_empty(self.filter.to_wire()) if self.filter else None,
        }
        return without_empty({"location": self.location, "properties": properties})


def assignment_id(resource_id: str, name: str) -> str:
    """The id of an assignment under a machine, a subscription or a resource group.

    Raises:
        ValueError: ``name`` is no name of an assignment.
    """
    if not _NAME.fullmatch(name) or ".." in name:
        raise ValueError("must be 1 to 260 letters, digits and - _ . ( )")
    return f"{resource_id}{_PROVIDER}{name}"


def read_assignment(body: Mapping[str, Any]) -> Assignment | None:
    """Read Azure's body or a row of Resource Graph leniently; ``None`` when it is no assignment.

    Keys count without case, unknown ones and odd values are passed over, a missing ``resourceId`` is what the id
    stands under.
    """
    found = lower_keys(body)
    identity = _ASSIGNMENT_ID.fullmatch(str_or_empty(found.get("id")))
    if identity is None:
        return None
    properties = lower_keys(object_or_none(found.get("properties")) or {})
    criteria = object_or_none(properties.get("filter"))
    return Assignment(
        id=identity[0],
        name=identity["name"],
        maintenance_configuration_id=str_or_empty(properties.get("maintenanceconfigurationid")),
        # What stands under a subscription is a dynamic scope, whatever Azure repeats inside.
        resource_id=identity["scope"],
        location=str_or_empty(found.get("location")),
        filter=read_leniently(ScopeFilter, criteria) if criteria else None,
    )


def check_assignment(assignment: Assignment) -> list[Problem]:
    """What Azure would refuse or never act on, each with the limit."""
    problems: list[Problem] = []
    if assignment.configuration_id is None:
        message = (
            "is not the id of a maintenance configuration; write /subscriptions/{guid}/resourceGroups/{group}"
            "/providers/Microsoft.Maintenance/maintenanceConfigurations/{name}"
        )
        problems.append(Problem(path="configurationId", message=message))
    place = DynamicScope.parse(assignment.resource_id)
    if assignment.machine_id is None and place is None:
        message = "is neither a machine nor a subscription nor a resource group; write the ARM id of one"
        problems.append(Problem(path="resourceId", message=message))
    if place is not None:
        problems += _check_filter(assignment.filter or ScopeFilter(), is_group=bool(place.resource_group))
    elif assignment.filter is not None:
        problems.append(Problem(path="filter", message="is for dynamic scopes; leave it out for a machine"))
    return problems


def assignment_name(configuration: ConfigurationId, criteria: ScopeFilter | None = None) -> str:
    """A name for an assignment, the same for the same: configurations of two groups may have one name."""
    if criteria is None:
        return f"{configuration.name}-{configuration.key[:8]}"
    described = hashlib.sha256(json.dumps(criteria.identity).encode()).hexdigest()
    return f"{configuration.name}-{configuration.key[:8]}-{described[:8]}"


def check_scopes(assignments: Iterable[Assignment]) -> list[Problem]:
    """Whether one configuration may have all of these dynamic scopes."""
    scopes = list(filter(None, (DynamicScope.parse(each.resource_id) for each in assignments)))
    problems: list[Problem] = []
    if len(scopes) > MAX_SCOPES:
        message = f"would have {len(scopes)} dynamic scopes; a schedule has at most {MAX_SCOPES}"
        problems.append(Problem(path="configurationId", message=message))
    subscriptions = len({scope.subscription_id for scope in scopes})
    if subscriptions > MAX_SUBSCRIPTIONS:
        message = f"would look in {subscriptions} subscriptions; a schedule looks in at most {MAX_SUBSCRIPTIONS}"
        problems.append(Problem(path="configurationId", message=message))
    return problems


def check_sizes(machines: int, in_scope: int | None = None) -> list[Problem]:
    """Whether a schedule stays within what it may hold.

    Args:
        machines: that the schedule would have, each counted once.
        in_scope: that match the dynamic scope in question; ``None`` when it is about one machine.
    """
    problems: list[Problem] = []
    if in_scope is not None and in_scope > MAX_IN_DYNAMIC_SCOPE:
        message = (
            f"matches {in_scope:,} machines; a dynamic scope holds at most {MAX_IN_DYNAMIC_SCOPE:,}:"
            " narrow the filter or make several scopes"
        )
        problems.append(Problem(path="filter", message=message))
    if machines > MAX_ASSOCIATIONS:
        message = (
            f"would have {machines:,} machines; a schedule holds at most {MAX_ASSOCIATIONS:,}:"
            " assign some of them to another configuration"
        )
        problems.append(Problem(path="configurationId", message=message))
    return problems


def _check_filter(criteria: ScopeFilter, *, is_group: bool) -> list[Problem]:
    problems: list[Problem] = []
    if is_group and not criteria.locations:
        message = "is missing; the dynamic scope of a resource group needs at least one region"
        problems.append(Problem(path="filter.locations", message=message))
    problems += _listed_in("filter.resourceTypes", criteria.resource_types, RESOURCE_TYPES)
    problems += _listed_in("filter.osTypes", criteria.os_types, ("Windows", "Linux"))
    if len(criteria.resource_groups) > MAX_RESOURCE_GROUPS:
        message = f"has {len(criteria.resource_groups)} resource groups; at most {MAX_RESOURCE_GROUPS}"
        problems.append(Problem(path="filter.resourceGroups", message=message))
    settings = criteria.tag_settings
    if settings is not None:
        problems += _listed_in("filter.tagSettings.filterOperator", (settings.filter_operator,), OPERATORS)
        if len(settings.tags) > MAX_TAGS:
            problems.append(
                Problem(path="filter.tagSettings.tags", message=f"has {len(settings.tags)} tags; at most {MAX_TAGS}")
            )
        problems += [
            Problem(path=f"filter.tagSettings.tags[{name!r}]", message="has no values; give at least one")
            for name, values in settings.tags.items()
            if not values
        ]
    return problems


def _listed_in(path: str, values: Sequence[str], known: Sequence[str]) -> list[Problem]:
    return [
        Problem(path=path, message=f"{value!r} is not one of {', '.join(known)}")
        for value in values
        if not _within(value, known)
    ]


def _tag_filter(settings: TagSettings | None) -> TagFilter | None:
    if settings is None or not settings.tags:
        return None
    match = TagMatch.ANY if settings.filter_operator.casefold() == "any" else TagMatch.ALL
    return TagFilter(match=match, values=settings.tags)


def _folded(values: Iterable[str]) -> list[str]:
    return sorted({value.casefold() for value in values})


def _within(value: str, given: Sequence[str]) -> bool:
    """Whether a list that was given has the value, without case; an empty list has everything."""
    return not given or fold(value) in {fold(item) for item in given}
