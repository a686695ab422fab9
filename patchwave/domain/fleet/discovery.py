"""Finds the machines of a scope in Azure Resource Graph: builds the queries, reads the rows, applies the rule.

A query only narrows what is fetched; `Scope.holds` decides. That keeps the query small and right: Resource Graph
compares tag *names* with case while Azure does not, so tags are only pre-filtered (``contains`` ignores case) and
then compared here. Exclusions by id and by tag are decided here as well.

The instances of a Uniform scale set are no virtual machines, and no API assesses or patches them one by one: the set is
a row of its own, with that as its ``problem``, so that its machines are not missing in silence.

Grammar of the queries: ``where`` with ``=~``, ``!~``, ``in~``, ``contains``, ``and``, ``or``, ``not (...)``;
``project`` of paths and ``tostring(path)``; ``order by id asc``. Rows are ordered by id because pages of an unordered
query may overlap. The operators of KQL ignore the case of ASCII only, so names in other scripts are compared by
``tolower``.

Virtual machines and Arc machines are asked for apart, since their columns differ. A virtual machine that is enrolled in
Azure Arc as well is there twice; its Arc half is left out (`evaluate_duplicates`), because two installations in one
guest break each other off.
"""

import re
import uuid
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any

from pydantic import BeforeValidator, Field

from patchwave.domain.calendar.region_time_zones import machine_zone
from patchwave.domain.core.documents import (
    Document,
    ExternalDocument,
    int_or_none,
    list_or_empty,
    str_or_empty,
    texts_by_name,
)
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import MachineId, MachineType, is_scale_set_id
from patchwave.domain.core.outcome import Reason
from patchwave.domain.policy.boundary import Boundary, outside
from patchwave.domain.policy.scope import OsType, Scope, TagFilter, TagMatch

IDS_PER_QUERY = 200
"""Explicit ids in one query: about 40 KB of text, well inside a request."""
UNIQUE_IDS_PER_QUERY = 1_000
"""The same of unique ids of machines."""
NO_MEMBERS = (
    "No member of this scale set was found: it does not exist or has none, they cannot be read, or another selector"
    " leaves them out."
)
"""What is said of a named scale set without machines."""
SUBSCRIPTIONS_PER_QUERY = 300
"""Subscriptions of one request; Microsoft advises groups below 300 against throttling."""

_PROJECTION = (
    "id",
    "name",
    "subscriptionId",
    "resourceGroup",
    "location",
    "zones",
    "tags",
    "osType = tostring(properties.storageProfile.osDisk.osType)",
    "powerState = tostring(properties.extended.instanceView.powerState.code)",
    "vmSize = tostring(properties.hardwareProfile.vmSize)",
    "imageReference = properties.storageProfile.imageReference",
    "windowsPatchMode = tostring(properties.osProfile.windowsConfiguration.patchSettings.patchMode)",
    "linuxPatchMode = tostring(properties.osProfile.linuxConfiguration.patchSettings.patchMode)",
    "availabilitySetId = tostring(properties.availabilitySet.id)",
    "windowsTimeZone = tostring(properties.osProfile.windowsConfiguration.timeZone)",
    "scaleSetId = tostring(properties.virtualMachineScaleSet.id)",
    "faultDomain = tostring(properties.platformFaultDomain)",
    # Of a Uniform scale set:
    "orchestrationMode = tostring(properties.orchestrationMode)",
    "instances = sku.capacity",
    "profileOsType = tostring(properties.virtualMachineProfile.storageProfile.osDisk.osType)",
)
_ARC_PROJECTION = (
    "id",
    "name",
    "subscriptionId",
    "resourceGroup",
    "location",
    "tags",
    "osType = tostring(properties.osType)",
    "powerState = tostring(properties.status)",
    "imageReference = tostring(properties.osSku)",
    "vmId = tostring(properties.vmId)",
    "vmUuid = tostring(properties.vmUuid)",
    "cloudProvider = tostring(properties.cloudMetadata.provider)",
)
_MACHINES = "type =~ 'microsoft.compute/virtualmachines'"
_UNIFORM_SETS = (
    "(type =~ 'microsoft.compute/virtualmachinescalesets' and tostring(properties.orchestrationMode) !~ 'Flexible')"
)
_ARC_MACHINES = "type =~ 'microsoft.hybridcompute/machines'"
_OS_COLUMNS = {
    MachineType.AZURE: (
        "tostring(properties.storageProfile.osDisk.osType)",
        "tostring(properties.virtualMachineProfile.storageProfile.osDisk.osType)",
    ),
    MachineType.ARC: ("tostring(properties.osType)",),
}
_SCALE_SET_COLUMNS = ("tostring(properties.virtualMachineScaleSet.id)", "id")
# Characters that every JSON writer leaves alone, so that they are found in the text of a tag bag.
_PLAIN = re.compile(r"[A-Za-z0-9 _.:@,=()*-]+")
_ESCAPES = str.maketrans({"\\": "\\\\", "'": "\\'", "\n": "\\n", "\r": "\\r", "\t": "\\t"})
_INEXPRESSIBLE = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")


class DiscoveryQuery(Document):
    """One query and the subscriptions it is sent to; no subscriptions means all that the identity can read."""

    text: str
    subscriptions: tuple[str, ...] = ()


def literal(text: str) -> str:
    """A KQL string literal. The only way by which a value enters a query.

    Raises:
        ValueError: the text holds a control character that KQL cannot express.
    """
    if _INEXPRESSIBLE.search(text):
        raise ValueError("control characters cannot be part of a query")
    return f"'{text.translate(_ESCAPES)}'"


def same_as(column: str, value: str) -> str:
    """The condition that a column has the value, without case in every script."""
    plain = f"{column} =~ {literal(value)}"
    return plain if value.isascii() else f"({plain} or tolower({column}) =~ {literal(value.lower())})"


def one_of(column: str, values: Sequence[str]) -> str:
    """The condition that a column has one of the values, without case in every script; empty without values."""
    if not values:
        return ""
    plain = f"{column} in~ ({', '.join(map(literal, values))})"
    others = [literal(value.lower()) for value in values if not value.isascii()]
    return f"({plain} or tolower({column}) in~ ({', '.join(others)}))" if others else plain


def starts_with(column: str, value: str) -> str:
    """The condition that a column begins with the value, without case in every script."""
    plain = f"{column} startswith {literal(value)}"
    return plain if value.isascii() else f"({plain} or tolower({column}) startswith {literal(value.lower())})"


def build_queries(scope: Scope, columns: Sequence[str] = ()) -> list[DiscoveryQuery]:
    """The queries that together return every machine of the scope (and perhaps more; see `select_machines`).

    There are several when many ids or subscriptions are named, and for each type of machine, and none when the ids lie
    outside the scope's subscriptions. ``columns`` are shown beside those of `DiscoveredMachine`.
    """
    return [query for kind in scope.machine_types for query in _queries_of(kind, scope, columns)]


def _queries_of(kind: MachineType, scope: Scope, columns: Sequence[str]) -> list[DiscoveryQuery]:
    if kind is MachineType.ARC and scope.scale_sets:
        # No Arc machine is a member of a scale set.
        return []
    conditions = _conditions(kind, scope)
    machines = _ARC_MACHINES if kind is MachineType.ARC else _MACHINES
    all_of_kind = machines if kind is MachineType.ARC else f"{_MACHINES} or {_UNIFORM_SETS}"
    if not scope.machine_ids:
        return [
            DiscoveryQuery(text=_query(kind, [all_of_kind, *conditions], columns), subscriptions=chunk)
            for chunk in _chunks(_subscriptions(scope), SUBSCRIPTIONS_PER_QUERY) or [()]
        ]
    named = [machine for machine in map(MachineId.parse, scope.machine_ids) if machine.machine_type is kind]
    wanted = sorted(filter(scope.may_hold, named), key=lambda machine: machine.folded)
    return [
        DiscoveryQuery(
            text=_query(kind, [machines, one_of("id", [machine.text for machine in chunk]), *conditions], columns),
            subscriptions=tuple(sorted({machine.subscription_id for machine in chunk})),
        )
        for chunk in _chunks(wanted, IDS_PER_QUERY)
    ]


def _conditions(kind: MachineType, scope: Scope) -> list[str]:
    excluded = scope.exclude
    conditions = [
        one_of("subscriptionId", scope.subscriptions),
        one_of("resourceGroup", scope.resource_groups),
        one_of("location", scope.locations),
        _either(_OS_COLUMNS[kind], [os_type.value for os_type in scope.os_types]),
        _either(_SCALE_SET_COLUMNS, scope.scale_sets),
        _tags_contain(scope.tags) if scope.tags else "",
        _none_of("subscriptionId", excluded.subscriptions),
        _none_of("resourceGroup", excluded.resource_groups),
        _none_of("location", excluded.locations),
    ]
    return [condition for condition in conditions if condition]


def _subscriptions(scope: Scope) -> tuple[str, ...]:
    """Those to ask in: of the scope, else of the scale sets that it names; none stands for all."""
    named = {scale_set.split("/")[2].lower() for scale_set in scope.scale_sets}
    return scope.subscriptions or tuple(sorted(named))


def _either(columns: Sequence[str], values: Sequence[str]) -> str:
    """The condition that one of the columns has one of the values; empty without values."""
    return f"({' or '.join(one_of(column, values) for column in columns)})" if values else ""


def _query(kind: MachineType, conditions: Sequence[str], columns: Sequence[str]) -> str:
    projection = _ARC_PROJECTION if kind is MachineType.ARC else _PROJECTION
    lines = ["resources", *(f"| where {condition}" for condition in conditions)]
    lines += ["| project " + ", ".join((*projection, *columns)), "| order by id asc"]
    return "\n".join(lines)


def _none_of(column: str, values: Sequence[str]) -> str:
    """None of the values that can be compared with certainty; `Scope.holds` leaves out the others."""
    plain = [value for value in values if value.isascii()]
    return f"not ({one_of(column, plain)})" if plain else ""


def _tags_contain(tags: TagFilter) -> str:
    """Machines whose tags mention the names and values at all; empty when that cannot be asked safely."""
    conditions: list[str] = []
    for name, values in tags.values.items():
        mentioned = [_mentions(name)]
        if all(_PLAIN.fullmatch(value) for value in values):
            mentioned.append("(" + " or ".join(_mentions(value) for value in values) + ")")
        condition = " and ".join(part for part in mentioned if part)
        if condition:
            conditions.append(f"({condition})")
        elif tags.match is TagMatch.ANY:
            # One alternative cannot be asked, so no alternative may be a condition.
            return ""
    return (" and " if tags.match is TagMatch.ALL else " or ").join(conditions)


def _mentions(text: str) -> str:
    return f"tostring(tags) contains {literal(text)}" if _PLAIN.fullmatch(text) else ""


def _chunks[Item](items: Sequence[Item], size: int) -> list[tuple[Item, ...]]:
    return [tuple(items[start : start + size]) for start in range(0, len(items), size)]


def _texts(value: object) -> tuple[str, ...]:
    return tuple(str(item) for item in list_or_empty(value) if item is not None)


def _image(value: object) -> str:
    """``publisher:offer:sku:version`` of a marketplace image, else the id of a custom one; of Arc the system's name."""
    if isinstance(value, str):
        return value
    bag = {name.lower(): text for name, text in texts_by_name(value).items()}
    parts = [bag.get(part, "") for part in ("publisher", "offer", "sku", "version")]
    if any(parts[:3]):
        return ":".join(parts).rstrip(":")
    return bag.get("id") or bag.get("communitygalleryimageid") or bag.get("sharedgalleryimageid") or ""


def _fault_domain(value: object) -> str:
    """A number; empty for none, which Azure writes as -1 as well."""
    text = "" if value is None or isinstance(value, bool) else str(value)
    return text if text.isascii() and text.isdigit() else ""


LenientText = Annotated[str, BeforeValidator(str_or_empty)]


class DiscoveredMachine(ExternalDocument):
    """A machine as Resource Graph shows it, minutes behind the truth: good for planning, not for acting.

    Only the id is certain to be there; any other column is empty when Azure does not say. ``power_state`` is the
    code as Azure writes it, such as ``PowerState/running``; of an Arc machine its status, such as ``Connected``.
    """

    id: str
    name: LenientText = ""
    subscription_id: LenientText = ""
    resource_group: LenientText = ""
    location: LenientText = ""
    zones: Annotated[tuple[str, ...], BeforeValidator(_texts)] = ()
    tags: Annotated[dict[str, str], BeforeValidator(texts_by_name)] = Field(default_factory=dict[str, str])
    os_type: LenientText = ""
    power_state: LenientText = ""
    vm_size: LenientText = ""
    image: Annotated[str, BeforeValidator(_image), Field(alias="imageReference")] = ""
    windows_patch_mode: LenientText = ""
    linux_patch_mode: LenientText = ""
    availability_set_id: LenientText = ""
    vm_id: LenientText = ""
    vm_uuid: LenientText = ""
    """Of an Arc machine: the id that its agent knows, and that of the firmware."""
    cloud_provider: LenientText = ""
    """Of an Arc machine, as its agent tells it: ``AWS``, ``Azure`` or another; ``N/A`` for none."""
    windows_time_zone: LenientText = ""
    scale_set_id: LenientText = ""
    """The Flexible scale set that it is a member of."""
    fault_domain: Annotated[str, BeforeValidator(_fault_domain)] = ""
    """The fault domain that it was created with; most are assigned by Azure, and only the machine itself tells them."""
    orchestration_mode: LenientText = ""
    profile_os_type: LenientText = ""
    instances: Annotated[int | None, BeforeValidator(int_or_none)] = None
    """What a Uniform scale set says of itself; empty for machines."""
    problem: str = ""
    """Why nothing can be done with the machine; empty for one whose id can be read, within the boundary."""
    problem_reason: Reason = Reason.UNREADABLE_ID
    """The code of the problem."""

    @cached_property
    def machine_id(self) -> MachineId:
        """The id, parsed; of one that cannot be read, what the other columns say."""
        if self.problem:
            return MachineId(self.id, self.subscription_id.lower(), self.resource_group, self.name)
        return MachineId.parse(self.id)

    @property
    def is_arc(self) -> bool:
        return MachineType.of(self.id) is MachineType.ARC

    @property
    def time_zone(self) -> str:
        """The IANA zone of its clock: of its Windows time zone, else of its region; empty when neither is known.

        The location of an Arc machine tells nothing of its clock.
        """
        return machine_zone(self.windows_time_zone, "" if self.is_arc else self.location)

    @property
    def is_uniform_set(self) -> bool:
        """Whether it is no machine but a Uniform scale set, whose instances nothing patches one by one."""
        return self.problem_reason is Reason.UNIFORM_SCALE_SET

    @property
    def patch_mode(self) -> str:
        """The patch mode of the machine's own operating system; empty when it has none set."""
        return self.windows_patch_mode or self.linux_patch_mode


def read_row(row: Mapping[str, Any]) -> DiscoveredMachine:
    """Read one row leniently. Each row is a machine: one whose id cannot be read has a ``problem``."""
    given_id = str_or_empty(row.get("id"))
    machine = DiscoveredMachine.model_validate({**row, "id": given_id})
    if is_scale_set_id(given_id):
        return _uniform_set(machine)
    try:
        parsed = MachineId.parse(given_id)
    except ValueError:
        return _unreadable(machine)
    system = OsType.read(machine.os_type) if parsed.is_arc else None
    is_complete = machine.name and machine.resource_group and machine.subscription_id == parsed.subscription_id
    if is_complete and not (parsed.is_arc or row.get("problem")):
        return machine
    return machine.model_copy(
        update={
            "os_type": system.value if system else machine.os_type,
            "name": machine.name or parsed.name,
            "subscription_id": parsed.subscription_id,
            "resource_group": machine.resource_group or parsed.resource_group,
            "problem": "",
            "problem_reason": Reason.UNREADABLE_ID,
        }
    )


def _uniform_set(found: DiscoveredMachine) -> DiscoveredMachine:
    size = "" if found.instances is None else f" with {found.instances:,} instances"
    problem = (
        f"It is a Uniform scale set{size}, which Azure cannot assess or patch one by one: let Azure upgrade their image"
        " (automatic OS image upgrades), or move them to a Flexible scale set."
    )
    parts = found.id.split("/")
    return found.model_copy(
        update={
            "name": found.name or parts[8],
            "subscription_id": parts[2].lower(),
            "resource_group": found.resource_group or parts[4],
            "os_type": found.os_type or found.profile_os_type,
            "scale_set_id": found.id,
            "problem": problem,
            "problem_reason": Reason.UNIFORM_SCALE_SET,
        }
    )


def _unreadable(machine: DiscoveredMachine) -> DiscoveredMachine:
    """The machine with what its id says as far as it goes, for scopes and for people."""
    # /subscriptions/{2}/resourceGroups/{4}/providers/Microsoft.Compute/virtualMachines/{8}
    parts = [*machine.id.split("/"), *[""] * 9]
    places = {
        "subscription_id": machine.subscription_id or parts[2],
        "resource_group": machine.resource_group or parts[4],
        "name": machine.name or parts[8],
    }
    shown = machine.id or "/".join(places.values())
    problem = f"Azure lists it by the id {shown!r}, which is not one of a machine: patch it by other means."
    return machine.model_copy(update={**places, "id": shown, "problem": problem})


def select_machines(scope: Scope, rows: Iterable[Mapping[str, Any]]) -> list[DiscoveredMachine]:
    """The machines of the scope among the rows: each once, ids compared without case, ordered by id.

    Those with a ``problem`` are among them, to be counted and shown. Rows move while Azure pages, so one machine can
    come twice.
    """
    return select_discovered(scope, map(read_row, rows))


def select_discovered(scope: Scope, discovered: Iterable[DiscoveredMachine]) -> list[DiscoveredMachine]:
    """`select_machines` among machines that are read already."""
    machines: dict[str, DiscoveredMachine] = {}
    for machine in discovered:
        if _holds(scope, machine):
            machines.setdefault(machine.machine_id.folded, machine)
    return [machines[folded] for folded in sorted(machines)]


def _holds(scope: Scope, machine: DiscoveredMachine) -> bool:
    return scope.holds(
        machine.machine_id,
        location=machine.location,
        os_type=machine.os_type,
        tags=machine.tags,
        scale_set=machine.scale_set_id,
    )


def evaluate_boundary(machines: Iterable[DiscoveredMachine], boundary: Boundary) -> list[DiscoveredMachine]:
    """The same machines; the boundary is the problem of each that it leaves out, so that none is missing in silence."""
    return [
        machine
        if machine.problem or boundary.holds(machine.subscription_id)
        else machine.model_copy(
            update={"problem": outside(machine.subscription_id), "problem_reason": Reason.OUTSIDE_BOUNDARY}
        )
        for machine in machines
    ]


def twins_queries(machines: Iterable[DiscoveredMachine]) -> list[DiscoveryQuery]:
    """The queries for the virtual machines of Azure that may be the same guests as these Arc machines: ``id, vmId``.

    In every subscription that the identity can read, as both need not be in one. None without Arc machines.
    """
    forms = sorted({form for machine in machines if machine.is_arc for form in _unique_ids(machine)})
    return [DiscoveryQuery(text=_twins_query(chunk)) for chunk in _chunks(forms, UNIQUE_IDS_PER_QUERY)]


def _twins_query(unique_ids: Sequence[str]) -> str:
    return "\n".join(
        [
            "resources",
            f"| where type =~ {literal(MachineType.AZURE.full_type)}",
            f"| where {one_of('tostring(properties.vmId)', unique_ids)}",
            "| project id, vmId = tostring(properties.vmId)",
            "| order by id asc",
        ]
    )


def evaluate_duplicates(
    machines: Iterable[DiscoveredMachine], twins: Iterable[Mapping[str, Any]]
) -> list[DiscoveredMachine]:
    """The same machines; an Arc machine that is a virtual machine of Azure has that as its problem.

    Azure supports no such enrolment, and patches that guest as the virtual machine that it is.

    Args:
        machines: virtual machines pass unchanged.
        twins: rows of `twins_queries`.
    """
    vms = {str_or_empty(row.get("vmId")).lower(): str_or_empty(row.get("id")) for row in twins}
    return [machine if machine.problem else _without_twin(machine, vms) for machine in machines]


def _without_twin(machine: DiscoveredMachine, vms: Mapping[str, str]) -> DiscoveredMachine:
    if not machine.is_arc:
        return machine
    vm = next((vms[form] for form in _unique_ids(machine) if vms.get(form)), "")
    if not vm and machine.cloud_provider.casefold() != "azure":
        return machine
    what = f"the virtual machine {vm}" if vm else "a virtual machine of Azure"
    problem = f"It is {what}, enrolled in Azure Arc as well: it is patched as that one; disconnect its Arc agent."
    return machine.model_copy(update={"problem": problem, "problem_reason": Reason.DUPLICATE})


def _unique_ids(machine: DiscoveredMachine) -> list[str]:
    """The machine's unique ids in lower case; firmware may tell the first three groups with their bytes reversed."""
    forms: list[str] = []
    for text in (machine.vm_id, machine.vm_uuid):
        try:
            one = uuid.UUID(text)
        except ValueError:
            continue
        forms += [str(one), str(uuid.UUID(bytes_le=one.bytes))]
    return list(dict.fromkeys(forms))


def missing_scale_sets(scope: Scope, members_of: Iterable[str]) -> list[str]:
    """The named scale sets of which no member was found, in the order of the policy.

    Args:
        scope: the policy's.
        members_of: the ids of the sets that the found machines are members of, or are themselves.
    """
    seen = {fold(scale_set) for scale_set in members_of}
    return [scale_set for scale_set in scope.scale_sets if fold(scale_set) not in seen]


def missing_ids(scope: Scope, found: Iterable[MachineId]) -> list[MachineId]:
    """The explicit ids of the scope that were not found, in the order of the policy.

    Such a machine does not exist, cannot be read by the identity, or is left out by another selector; ids that
    are excluded by name are not missing.
    """
    seen = {machine.folded for machine in found}
    asked = map(MachineId.parse, scope.machine_ids)
    return [machine for machine in asked if machine.folded not in seen and not scope.exclude.names(machine)]
