"""Which machines a policy is for: selectors that a machine must all match, and exclusions that leave it out.

Inside one list the entries are alternatives; between lists every one must match, explicit machine ids included.
So naming one machine beside the other selectors can only narrow a scope, never widen it. Everything is compared
without case: Azure changes the case of ids between answers, and treats tag names without case everywhere but in
Resource Graph.
"""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Annotated, Self

from pydantic import AfterValidator, BeforeValidator, Field

from patchwave.domain.core.documents import Document
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import MACHINE_NAME, RESOURCE_GROUP_NAME, MachineId, MachineType, check_scale_set_id

SUBSCRIPTION_PATTERN = r"^[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}$"
RESOURCE_GROUP_PATTERN = rf"^{RESOURCE_GROUP_NAME}$"
MACHINE_ID_PATTERN = (
    rf"^/[Ss]ubscriptions/[0-9a-fA-F-]{{36}}/[Rr]esource[Gg]roups/{RESOURCE_GROUP_NAME}"
    r"/[Pp]roviders/[Mm]icrosoft\.([Cc]ompute/[Vv]irtual[Mm]achines|[Hh]ybrid[Cc]ompute/[Mm]achines)"
    rf"/{MACHINE_NAME}$"
)
SCALE_SET_ID_PATTERN = (
    rf"^/[Ss]ubscriptions/[0-9a-fA-F-]{{36}}/[Rr]esource[Gg]roups/{RESOURCE_GROUP_NAME}"
    rf"/[Pp]roviders/[Mm]icrosoft\.[Cc]ompute/[Vv]irtual[Mm]achine[Ss]cale[Ss]ets/{MACHINE_NAME}$"
)

_SUBSCRIPTION = re.compile(SUBSCRIPTION_PATTERN)
_RESOURCE_GROUP = re.compile(RESOURCE_GROUP_PATTERN)
_LOCATION = re.compile(r"[a-z0-9]{2,40}")
_TAG_NAME_LIMIT = 512
_TAG_VALUE_LIMIT = 256
MAX_TAGS = 50
"""Names in one filter: as many as a resource can have."""
MAX_TAG_VALUES = 500
MAX_SCALE_SETS = 100
"""Named in one scope: their ids fit into one query."""
MAX_LOCATIONS = 200
"""More than Azure has regions."""


class OsType(StrEnum):
    """The two operating systems that guest patching knows."""

    WINDOWS = "Windows"
    LINUX = "Linux"

    @classmethod
    def read(cls, text: str) -> Self | None:
        """The system that Azure names, in whatever case; ``None`` for anything else."""
        return next((system for system in cls if system.value.casefold() == text.casefold()), None)


class TagMatch(StrEnum):
    """How several tag names combine."""

    ALL = "all"
    ANY = "any"


def _subscription(value: str) -> str:
    if not _SUBSCRIPTION.fullmatch(value):
        raise ValueError("is not a subscription id; write it as a GUID such as 11111111-1111-1111-1111-111111111111")
    return value.lower()


def _resource_group(value: str) -> str:
    if not _RESOURCE_GROUP.fullmatch(value) or ".." in value:
        raise ValueError(
            "is not a resource group name; write the name only: letters, digits, _ - . ( ), at most 90"
            " characters, without a dot at the end"
        )
    return value


def _location(value: str) -> str:
    name = value.lower().replace(" ", "")
    if not _LOCATION.fullmatch(name):
        raise ValueError("is not a location; write its name, such as westeurope or West Europe")
    return name


def _os_type(value: object) -> object:
    # Azure and its tools write windows, Windows and WINDOWS; people do too.
    return value.capitalize() if isinstance(value, str) else value


def _machine_type(value: object) -> object:
    return value.lower() if isinstance(value, str) else value


def _machine_id(value: str) -> str:
    return MachineId.parse(value).text


def _tag_text(value: str, limit: int) -> str:
    if len(value) > limit or any(ord(character) < 32 or ord(character) == 127 for character in value):
        raise ValueError(f"must be at most {limit} characters without line breaks or control characters")
    return value


def _tag_name(value: str) -> str:
    if not value.strip():
        raise ValueError("is blank; name the tag")
    return _tag_text(value, _TAG_NAME_LIMIT)


def _tag_value(value: str) -> str:
    return _tag_text(value, _TAG_VALUE_LIMIT)


def _once(values: tuple[str, ...]) -> tuple[str, ...]:
    """Each value once, the first spelling kept: two values that differ by case are one."""
    seen: dict[str, str] = {}
    for value in values:
        seen.setdefault(fold(value), value)
    return tuple(seen.values())


def _one_spelling(values: dict[str, tuple[str, ...]]) -> dict[str, tuple[str, ...]]:
    seen: dict[str, str] = {}
    for name in values:
        if fold(name) in seen:
            raise ValueError(
                f"has the tag {name!r} twice (also as {seen[fold(name)]!r}): tag names differ by more than case,"
                " put the values into one list"
            )
        seen[fold(name)] = name
    return values


SubscriptionId = Annotated[
    str, AfterValidator(_subscription), Field(json_schema_extra={"pattern": SUBSCRIPTION_PATTERN})
]
ResourceGroupName = Annotated[
    str, AfterValidator(_resource_group), Field(json_schema_extra={"pattern": RESOURCE_GROUP_PATTERN, "maxLength": 90})
]
Location = Annotated[
    str, AfterValidator(_location), Field(json_schema_extra={"pattern": r"^ *[A-Za-z0-9][A-Za-z0-9 ]*$"})
]
ScopeOsType = Annotated[OsType, BeforeValidator(_os_type)]
ScopeMachineType = Annotated[MachineType, BeforeValidator(_machine_type)]
MachineIdText = Annotated[str, AfterValidator(_machine_id), Field(json_schema_extra={"pattern": MACHINE_ID_PATTERN})]
ScaleSetIdText = Annotated[
    str, AfterValidator(check_scale_set_id), Field(json_schema_extra={"pattern": SCALE_SET_ID_PATTERN})
]
TagName = Annotated[str, AfterValidator(_tag_name)]
TagValue = Annotated[str, AfterValidator(_tag_value), Field(json_schema_extra={"maxLength": _TAG_VALUE_LIMIT})]
TagValues = Annotated[
    dict[TagName, Annotated[tuple[TagValue, ...], Field(min_length=1, max_length=MAX_TAG_VALUES)]],
    Field(
        min_length=1,
        max_length=MAX_TAGS,
        title="Values",
        description="Tag names with the values that count. A machine has the tag when its value is one of them.",
    ),
    AfterValidator(_one_spelling),
]


class TagFilter(Document):
    """Tags a machine must have: of every name (`all`) or of at least one name (`any`)."""

    match: TagMatch = Field(
        default=TagMatch.ALL, title="Match", description="all: every named tag must match. any: one is enough."
    )
    values: TagValues

    def matches(self, tags: Mapping[str, str]) -> bool:
        """Whether these tags pass. Names and values are compared without case."""
        folded = {fold(name): fold(value) for name, value in tags.items()}
        hits = (folded.get(fold(name)) in {fold(value) for value in wanted} for name, wanted in self.values.items())
        return all(hits) if self.match is TagMatch.ALL else any(hits)

    @property
    def folded(self) -> dict[str, frozenset[str]]:
        """The values that count by name, as they are compared."""
        return {fold(name): _folded(values) for name, values in self.values.items()}

    @property
    def cases(self) -> list[dict[str, frozenset[str]]]:
        """The filter as alternatives, each with the values that every one of its tags must have."""
        return [self.folded] if self.match is TagMatch.ALL else [{name: each} for name, each in self.folded.items()]

    def implies(self, other: "TagFilter") -> bool:
        """Whether every machine that passes this filter is certain to pass the other."""
        wanted, combine = other.folded.items(), all if other.match is TagMatch.ALL else any
        return all(combine(name in case and case[name] <= values for name, values in wanted) for case in self.cases)


class ExcludedTags(TagFilter):
    """Tags that leave a machine out; unless said otherwise one matching tag is enough."""

    match: TagMatch = Field(
        default=TagMatch.ANY,
        title="Match",
        description="any: one matching tag leaves the machine out. all: every named tag must match for that.",
    )


class Exclusions(Document):
    """Machines that are left out although the selectors match them."""

    machine_ids: Annotated[tuple[MachineIdText, ...], AfterValidator(_once)] = Field(
        default=(), title="Machine ids", description="ARM ids of machines to leave out."
    )
    subscriptions: Annotated[tuple[SubscriptionId, ...], AfterValidator(_once)] = Field(
        default=(), title="Subscriptions", description="Subscription ids to leave out."
    )
    resource_groups: Annotated[tuple[ResourceGroupName, ...], AfterValidator(_once)] = Field(
        default=(), title="Resource groups", description="Names of resource groups to leave out."
    )
    locations: Annotated[tuple[Location, ...], AfterValidator(_once)] = Field(
        default=(), max_length=MAX_LOCATIONS, title="Locations", description="Azure regions to leave out."
    )
    tags: ExcludedTags | None = Field(default=None, title="Tags", description="Machines with these tags are left out.")

    @cached_property
    def machine_id_set(self) -> frozenset[str]:
        return _folded(self.machine_ids)

    def names(self, machine: MachineId) -> bool:
        """Whether the machine's id alone leaves it out."""
        return (
            _is_named(machine.text, self.machine_id_set)
            or _is_named(machine.subscription_id, _folded(self.subscriptions))
            or _is_named(machine.resource_group, _folded(self.resource_groups))
        )


class Scope(Document):
    """The machines of a policy. A machine is in scope when it matches every selector given and no exclusion."""

    subscriptions: Annotated[tuple[SubscriptionId, ...], AfterValidator(_once)] = Field(
        default=(), title="Subscriptions", description="Ids of the subscriptions to look in."
    )
    resource_groups: Annotated[tuple[ResourceGroupName, ...], AfterValidator(_once)] = Field(
        default=(), title="Resource groups", description="Names of resource groups, in any subscription of the scope."
    )
    locations: Annotated[tuple[Location, ...], AfterValidator(_once)] = Field(
        default=(), max_length=MAX_LOCATIONS, title="Locations", description="Azure regions, such as westeurope."
    )
    os_types: Annotated[tuple[ScopeOsType, ...], AfterValidator(lambda given: tuple(dict.fromkeys(given)))] = Field(
        default=(), title="Operating systems", description="Windows, Linux, or both (the default)."
    )
    machine_types: Annotated[
        tuple[ScopeMachineType, ...], AfterValidator(lambda given: tuple(dict.fromkeys(given)))
    ] = Field(
        default=(MachineType.AZURE,),
        min_length=1,
        title="Machine types",
        description="azure: virtual machines of Azure (the default). arc: machines that are enrolled in Azure Arc,"
        " which Azure charges for.",
        examples=[["azure", "arc"]],
    )
    tags: TagFilter | None = Field(default=None, title="Tags", description="Tags the machines must have.")
    machine_ids: Annotated[tuple[MachineIdText, ...], AfterValidator(_once)] = Field(
        default=(),
        title="Machine ids",
        description="ARM ids of single machines. Beside other selectors they narrow the scope further.",
    )
    scale_sets: Annotated[tuple[ScaleSetIdText, ...], AfterValidator(_once)] = Field(
        default=(),
        max_length=MAX_SCALE_SETS,
        title="Scale sets",
        description="ARM ids of Flexible scale sets: their members. Beside other selectors they narrow the scope"
        " further.",
    )
    exclude: Exclusions = Field(
        default_factory=Exclusions, title="Exclude", description="What to leave out of the machines selected above."
    )

    @property
    def systems(self) -> tuple[OsType, ...]:
        """The operating systems of the machines that can be in scope."""
        return self.os_types or tuple(OsType)

    @property
    def holds_arc(self) -> bool:
        """Whether Arc machines can be in scope."""
        return MachineType.ARC in self.machine_types

    @property
    def of_other_types(self) -> list[int]:
        """The places in ``machine_ids`` of machines whose type is not in ``machine_types``."""
        ids = enumerate(self.machine_ids)
        return [place for place, machine in ids if MachineType.of(machine) not in self.machine_types]

    @property
    def has_selector(self) -> bool:
        """Whether anything limits the scope; exclusions and machine types do not, for they select nothing alone."""
        return bool(
            self.subscriptions
            or self.resource_groups
            or self.locations
            or self.os_types
            or self.tags
            or self.machine_ids
            or self.scale_sets
        )

    @property
    def emptied_by(self) -> str:
        """The exclusion that leaves out everything one selector names, such as ``locations``; empty: there is none."""
        out = self.exclude
        pairs = {
            "machineIds": (self.machine_ids, out.machine_ids),
            "subscriptions": (self.subscriptions, out.subscriptions),
            "resourceGroups": (self.resource_groups, out.resource_groups),
            "locations": (self.locations, out.locations),
        }
        return next((name for name, (ours, theirs) in pairs.items() if ours and _folded(ours) <= _folded(theirs)), "")

    def describe(self) -> str:
        """The selectors in one line, for the reason of a run that found nothing."""
        parts = [
            _listed("subscriptions", self.subscriptions),
            _listed("resource groups", self.resource_groups),
            _listed("locations", self.locations),
            _listed("operating systems", [os_type.value for os_type in self.os_types]),
            _listed("machine types", [each.value for each in self.machine_types]) if self.holds_arc else "",
            _tags("tags", self.tags),
            _listed("machine ids", self.machine_ids),
            _listed("scale sets", self.scale_sets),
            _listed("without subscriptions", self.exclude.subscriptions),
            _listed("without resource groups", self.exclude.resource_groups),
            _listed("without locations", self.exclude.locations),
            _tags("without tags", self.exclude.tags),
            f"without {len(self.exclude.machine_ids)} machine ids" if self.exclude.machine_ids else "",
        ]
        return "; ".join(part for part in parts if part)

    @cached_property
    def machine_id_set(self) -> frozenset[str]:
        return _folded(self.machine_ids)

    def may_hold(self, machine: MachineId) -> bool:
        """Whether the id alone leaves the machine a chance to be in scope.

        Location, operating system, scale set and tags are not in an id, so only discovery can say yes for good.
        """
        return (
            machine.machine_type in self.machine_types
            and _within(machine.subscription_id, _folded(self.subscriptions))
            and _within(machine.resource_group, _folded(self.resource_groups))
            and _within(machine.text, self.machine_id_set)
            and not self.exclude.names(machine)
        )

    def holds(
        self, machine: MachineId, *, location: str, os_type: str, tags: Mapping[str, str], scale_set: str = ""
    ) -> bool:
        """Whether a machine is in scope. This, not the query, is the rule; a query may return more.

        ``scale_set`` is the id of the one that the machine is a member of, or is itself.
        """
        region = location.replace(" ", "").lower()
        return (
            self.may_hold(machine)
            and _within(region, _folded(self.locations))
            and _within(os_type, _folded(self.os_types))
            and _within(scale_set, _folded(self.scale_sets))
            and (self.tags is None or self.tags.matches(tags))
            and region not in _folded(self.exclude.locations)
            and not (self.exclude.tags is not None and self.exclude.tags.matches(tags))
        )


@lru_cache(maxsize=1024)
def _folded(values: tuple[str, ...]) -> frozenset[str]:
    # The same few scopes are compared with every machine of a fleet.
    return frozenset(fold(value) for value in values)


def _within(value: str, folded: frozenset[str]) -> bool:
    """An empty list selects everything."""
    return not folded or fold(value) in folded


def _is_named(value: str, folded: frozenset[str]) -> bool:
    """An empty list names nothing, and costs nothing."""
    return bool(folded) and fold(value) in folded


_SHOWN = 5


def _listed(label: str, values: Iterable[str]) -> str:
    listed = list(values)
    if not listed:
        return ""
    more = f" and {len(listed) - _SHOWN} more" if len(listed) > _SHOWN else ""
    return f"{label} {', '.join(listed[:_SHOWN])}{more}"


def _tags(label: str, tags: TagFilter | None) -> str:
    if tags is None:
        return ""
    listed = ", ".join(f"{name}={'|'.join(values)}" for name, values in tags.values.items())
    return f"{label} ({tags.match}) {listed}"
