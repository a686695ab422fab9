"""The machines of a maintenance configuration, said as scopes of policies, and the other way.

A configuration holds the union of its assignments; the scope of a policy is one selection. Assignments that one
selection can say together become one scope, such as one filter over five subscriptions; the others one scope each.
"""

from collections.abc import Iterable, Iterator, Sequence

from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import ConfigurationId, MachineId, MachineType
from patchwave.domain.core.validation import Problem
from patchwave.domain.maintenance.assignment import (
    MAX_ASSOCIATIONS,
    MAX_SUBSCRIPTIONS,
    RESOURCE_TYPES,
    Assignment,
    ScopeFilter,
    TagSettings,
    assignment_id,
    assignment_name,
    check_assignment,
)
from patchwave.domain.maintenance.conversion_report import ConversionReport, NotConvertible
from patchwave.domain.policy.scope import OsType, Scope, TagFilter

MAX_NAMED = 800
"""Machines by name in one policy: with the longest ids they fit into one request."""

_LISTS = ("subscriptions", "resource_groups", "locations", "os_types", "machine_types", "machine_ids")
_BOTH = frozenset(OsType)


# --- scopes of assignments -----------------------------------------------------------------------------------


def scopes_of(assignments: Iterable[Assignment], systems: frozenset[OsType], moved: ConversionReport) -> list[Scope]:
    """The scopes that together hold exactly the machines of the assignments.

    Args:
        assignments: all that the configuration has.
        systems: for which the configuration installs anything.
        moved: learns what became of each assignment.
    """
    named: list[MachineId] = []
    scopes: list[Scope] = []
    for each in assignments:
        machine = each.machine_id
        if machine is not None:
            named.append(machine)
        elif each.is_dynamic:
            found = _dynamic(each, systems, moved)
            scopes = _joined(scopes, found) if found else scopes
        else:
            message = f"{each.resource_id} is neither a virtual machine nor an Arc machine: Patchwave does not patch it"
            moved.lost(f"assignments[{each.id}]", message)
    if named:
        moved.carried("assignments", "scope.machineIds", f"{len(set(named))} machines are named.")
        ordered = sorted({machine.folded: machine.text for machine in named}.items())
        texts = [text for _, text in ordered]
        only = tuple(sorted(systems)) if systems != _BOTH else ()
        scopes += [_named(texts[start : start + MAX_NAMED], only) for start in range(0, len(texts), MAX_NAMED)]
    return scopes


def _named(machine_ids: Sequence[str], os_types: Sequence[OsType]) -> Scope:
    """The scope of these machines."""
    kinds = {MachineType.of(each) for each in machine_ids}
    types = tuple(kind for kind in MachineType if kind in kinds)
    return Scope(machine_ids=tuple(machine_ids), os_types=tuple(os_types), machine_types=types)


def _dynamic(assignment: Assignment, systems: frozenset[OsType], moved: ConversionReport) -> Scope | None:
    """The scope of a dynamic scope; ``None`` when it holds nothing that is patched, or cannot be said."""
    place, criteria = f"assignments[{assignment.id}]", assignment.filter or ScopeFilter()
    if not criteria.machine_types:
        message = "It is for neither virtual machines nor Arc machines: nothing to patch here."
        moved.left(f"{place}.filter.resourceTypes", message)
        return None
    scope = assignment.scope
    if scope is None:
        moved.lost(
            f"{place}.filter",
            "selects nothing that can be told: a tag without values, or a group where the scope does not lie",
        )
        return None
    os_types = systems.intersection(scope.os_types or _BOTH)
    if not os_types:
        moved.left(f"{place}.filter.osTypes", "The configuration installs nothing on these systems: nothing to patch.")
        return None
    _tell(criteria, place, moved)
    only = tuple(sorted(os_types)) if scope.os_types or systems != _BOTH else ()
    return scope.model_copy(update={"os_types": only})


def _tell(given: ScopeFilter, place: str, moved: ConversionReport) -> None:
    moved.carried(place, "scope.subscriptions", "The subscription, or the resource group, of the dynamic scope.")
    for key, value, becomes in (
        ("osTypes", given.os_types, "scope.osTypes"),
        ("resourceGroups", given.resource_groups, "scope.resourceGroups"),
        ("locations", given.locations, "scope.locations"),
        ("tagSettings", given.tag_settings, "scope.tags"),
    ):
        if value:
            moved.carried(f"{place}.filter.{key}", becomes)
    types = ", ".join(kind.value for kind in given.machine_types)
    unless = "" if given.resource_types else ", as without a filter of types"
    moved.carried(f"{place}.filter.resourceTypes", "scope.machineTypes", f"{types.capitalize()}{unless}.")
    others = [kind for kind in given.resource_types if kind.casefold() not in RESOURCE_TYPES]
    if others:
        message = f"{', '.join(others)} stay behind: Patchwave patches virtual machines and Arc machines."
        moved.left(f"{place}.filter.resourceTypes", message)


def _joined(scopes: Sequence[Scope], newcomer: Scope) -> list[Scope]:
    """The scopes with one more, put together with others wherever one scope holds exactly what two did."""
    for index, each in enumerate(scopes):
        both = _union(each, newcomer)
        if both is not None:
            return _joined([*scopes[:index], *scopes[index + 1 :]], both)
    return [*scopes, newcomer]


def _union(one: Scope, other: Scope) -> Scope | None:
    """The scope of all machines of both, if one selection can say it."""
    if _tag_values(one.tags) == _tag_values(other.tags):
        differing = [name for name in _LISTS if _folded(one, name) != _folded(other, name)]
        if not differing:
            return one
        if len(differing) == 1:
            (name,) = differing
            ours, theirs = getattr(one, name), getattr(other, name)
            # An empty list selects everything, and so holds the other.
            both = (*ours, *theirs) if ours and theirs else ()
            return Scope.model_validate(one.model_dump() | {name: both})
    return next((large for large, small in ((one, other), (other, one)) if _contains(large, small)), None)


def _contains(large: Scope, small: Scope) -> bool:
    is_wide = large.tags is None or _tag_values(large.tags) == _tag_values(small.tags)
    return is_wide and all(
        not _folded(large, name) or frozenset() < _folded(small, name) <= _folded(large, name) for name in _LISTS
    )


def _folded(scope: Scope, name: str) -> frozenset[str]:
    return frozenset(fold(str(value)) for value in getattr(scope, name))


def _tag_values(tags: TagFilter | None) -> object:
    return tags and (tags.match if len(tags.values) > 1 else None, tags.folded)


# --- assignments of a scope ----------------------------------------------------------------------------------


def assignments_of(scope: Scope, configuration: ConfigurationId, location: str) -> list[Assignment]:
    """The assignments that give the configuration to exactly the machines of the scope.

    Operating systems of named machines are not in them: the configuration installs nothing on the others.

    Raises:
        NotConvertible: assignments cannot say it; every problem at once.
    """
    if problems := list(_not_assignable(scope)):
        raise NotConvertible(problems)
    out = scope.exclude
    if scope.machine_ids:
        machines = [machine for machine in map(MachineId.parse, scope.machine_ids) if scope.may_hold(machine)]
        made = [_assigned(machine.text, configuration, location) for machine in machines]
    else:
        tags = scope.tags
        settings = TagSettings(tags=tags.values, filter_operator=tags.match.value.capitalize()) if tags else None
        criteria = ScopeFilter(
            resource_types=tuple(kind.full_type for kind in scope.machine_types),
            resource_groups=_without(scope.resource_groups, out.resource_groups),
            os_types=tuple(system.value for system in scope.os_types),
            locations=_without(scope.locations, out.locations),
            tag_settings=settings,
        )
        made = [
            _assigned(f"/subscriptions/{subscription}", configuration, "", criteria)
            for subscription in _without(scope.subscriptions, out.subscriptions)
        ]
    # They differ in nothing that is checked.
    problems = [
        *_too_many(scope, made),
        *(_in_scope(problem) for each in made[:1] for problem in check_assignment(each)),
    ]
    if problems:
        raise NotConvertible(problems)
    return made


def _not_assignable(scope: Scope) -> Iterator[Problem]:
    out = scope.exclude
    if scope.scale_sets:
        message = "selects members of scale sets, which no assignment can: name the machines, or select them by a tag"
        yield Problem(path="scope.scaleSets", message=message)
    if scope.machine_ids:
        narrowing = {"locations": scope.locations, "tags": scope.tags}
        narrowing |= {"exclude.locations": out.locations, "exclude.tags": out.tags}
        for name, value in narrowing.items():
            if value:
                message = "narrows machines that are named; an assignment to a machine cannot be narrowed: keep one way"
                yield Problem(path=f"scope.{name}", message=message)
        return
    if not scope.subscriptions:
        message = "is missing; a dynamic scope lies in one subscription: name each of them"
        yield Problem(path="scope.subscriptions", message=message)
    leaving_out = {
        "machineIds": out.machine_ids,
        "resourceGroups": () if scope.resource_groups else out.resource_groups,
        "locations": () if scope.locations else out.locations,
        "tags": out.tags,
    }
    for name, value in leaving_out.items():
        if value:
            message = "leaves machines out, which a dynamic scope cannot: select those that are meant, by a tag"
            yield Problem(path=f"scope.exclude.{name}", message=message)


def _without(values: Sequence[str], excluded: Sequence[str]) -> tuple[str, ...]:
    folded = {fold(value) for value in excluded}
    return tuple(value for value in values if fold(value) not in folded)


def _assigned(
    resource_id: str, configuration: ConfigurationId, location: str, criteria: ScopeFilter | None = None
) -> Assignment:
    name = assignment_name(configuration, criteria)
    return Assignment(
        id=assignment_id(resource_id, name),
        name=name,
        maintenance_configuration_id=str(configuration),
        resource_id=resource_id,
        location=location,
        filter=criteria,
    )


def _too_many(scope: Scope, made: Sequence[Assignment]) -> Iterator[Problem]:
    if not made:
        yield Problem(path="scope.exclude", message="leaves out everything that the scope selects")
    if scope.machine_ids and len(made) > MAX_ASSOCIATIONS:
        message = f"names {len(made):,} machines; a schedule has at most {MAX_ASSOCIATIONS:,}"
        yield Problem(path="scope.machineIds", message=message)
    if not scope.machine_ids and len(made) > MAX_SUBSCRIPTIONS:
        message = f"names {len(made)} subscriptions; a schedule looks in at most {MAX_SUBSCRIPTIONS}"
        yield Problem(path="scope.subscriptions", message=message)


def _in_scope(problem: Problem) -> Problem:
    """A problem of a filter, as one of the scope that it came from."""
    path = problem.path.replace("filter.tagSettings.tags", "scope.tags.values").replace("filter.", "scope.")
    return Problem(path=path, message=problem.message)
