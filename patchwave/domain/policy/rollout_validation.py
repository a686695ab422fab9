"""Rollouts that read well and could never be done: what a policy's rings, phases and limits get wrong together."""

from collections.abc import Iterator, Mapping, Sequence

from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import MachineId, MachineType
from patchwave.domain.core.region_pairs import ARC_REGION, KNOWN_PAIRS
from patchwave.domain.core.validation import Problem, suggest
from patchwave.domain.policy.rollout import Limits, Ring, order_rings
from patchwave.domain.policy.scope import Scope, TagFilter


def rollout_problems(
    rings: Sequence[Ring],
    phases: Sequence[Sequence[str]],
    limits: Limits,
    mutually_exclusive_tag: str | None,
    scope: Scope | None,
) -> list[Problem]:
    """Everything that is wrong with the order and the limits of a policy, each with its path and the fix.

    Only what is certain without looking at Azure: a ring whose tag no machine has is found by the plan.

    Args:
        rings: of the policy, as are the next three.
        phases: regions, folded.
        limits: per region and per tag.
        mutually_exclusive_tag: the tag whose machines go one at a time.
        scope: of the policy; ``None`` when a request has narrowed it, as most rings may be empty then.
    """
    wrong_names, wrong_order = list(_names(rings)), list(_order(rings))
    # Without any after the list is the order, whatever the names are.
    is_ordered = not wrong_order and (not wrong_names or all(ring.after is None for ring in rings))
    selections = _selections(rings, scope) if is_ordered else _selections_alone(rings, scope)
    # A ring that is there twice is one error, not two.
    twice = {problem.path.removesuffix(".name") for problem in wrong_names}
    selections = [each for each in selections if twice.isdisjoint({each.path, each.path.rpartition(".")[0]})]
    problems = [*wrong_names, *wrong_order, *selections]
    return [*problems, *_phases(phases, scope), *_limits(limits, mutually_exclusive_tag)]


def _names(rings: Sequence[Ring]) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for number, ring in enumerate(rings):
        first = seen.setdefault(ring.name, number)
        if first != number:
            message = f"{ring.name} is the name of rings[{first}] as well; give every ring its own"
            yield Problem(path=f"rings[{number}].name", message=message)


def _order(rings: Sequence[Ring]) -> Iterator[Problem]:
    """Rings that name the one before them have to form one chain."""
    if all(ring.after is None for ring in rings):
        return
    numbers = {ring.name: number for number, ring in enumerate(rings)}
    follower: dict[str | None, int] = {}
    is_broken = False
    for number, ring in enumerate(rings):
        path = f"rings[{number}].after"
        if ring.after is not None and ring.after not in numbers:
            is_broken = True
            hint = suggest(ring.after, numbers) or f"the rings are {', '.join(numbers)}"
            yield Problem(path=path, message=f"no ring is named {ring.after}; {hint}")
        elif ring.after in follower:
            is_broken = True
            other = rings[follower[ring.after]].name
            if ring.after is None:
                message = f"is missing: {other} has none either; say after which ring {ring.name} comes"
            else:
                message = f"{other} comes after {ring.after} as well; rings run one by one: say which of both is later"
            yield Problem(path=path, message=message)
        else:
            follower[ring.after] = number
    if not is_broken:
        circle = _circle(rings)
        if circle:
            shown = " after ".join([*circle, circle[0]])
            path = f"rings[{numbers[circle[0]]}].after"
            yield Problem(path=path, message=f"the order has a cycle: {shown}; leave after out of the first ring")


def _circle(rings: Sequence[Ring]) -> list[str]:
    """The names of rings that each come after the next one, the last after the first; empty when there are none."""
    before = {ring.name: ring.after for ring in rings}
    for name in before:
        path = [name]
        while (earlier := before.get(path[-1])) is not None and earlier not in path:
            path.append(earlier)
        if earlier == name:
            return path
    return []


def _selections(rings: Sequence[Ring], scope: Scope | None) -> Iterator[Problem]:
    """Rings that can never take a machine, because of the scope or of the rings before them."""
    # By identity: the names of two rings may be the same, which is another error.
    numbers = {id(ring): number for number, ring in enumerate(rings)}
    ordered = order_rings(rings) if rings else []
    percent = 0
    taken: dict[str, str] = {}
    for place, ring in enumerate(ordered):
        path = f"rings[{numbers[id(ring)]}]"
        earlier = ordered[:place]
        taker = next((other for other in earlier if not other.selectors), None)
        if taker is not None:
            message = f"matches nothing: {taker.name} comes before it and takes everything that is left"
            yield Problem(path=path, message=message + f"; give {taker.name} a selector, or make it the last ring")
        elif ring.percent is not None:
            percent += ring.percent
            if percent > 100:
                message = f"the rings take {percent} % of the machines up to here; together they can take 100"
                yield Problem(path=f"{path}.percent", message=message)
        elif ring.machine_ids is not None:
            yield from _explicit(path, ring.machine_ids, taken, scope)
        elif ring.tags is not None:
            yield from _tagged(path, ring.tags, earlier, scope)
        taken |= {fold(each): ring.name for each in ring.machine_ids or ()}


def _selections_alone(rings: Sequence[Ring], scope: Scope | None) -> Iterator[Problem]:
    """Rings that the scope leaves no machine, whatever their order is."""
    for number, ring in enumerate(rings):
        path = f"rings[{number}]"
        if ring.machine_ids is not None:
            yield from _explicit(path, ring.machine_ids, {}, scope)
        elif ring.tags is not None:
            yield from _tagged(path, ring.tags, (), scope)


def _explicit(
    path: str, machine_ids: Sequence[str], taken: Mapping[str, str], scope: Scope | None
) -> Iterator[Problem]:
    """``taken``: folded ids of the rings before this one, each with the name of its ring."""
    inside = [each for each in machine_ids if scope is None or scope.may_hold(MachineId.parse(each))]
    if not inside:
        message = "matches nothing: none of these machines can be in the scope of the policy"
        yield Problem(path=f"{path}.machineIds", message=message)
    elif all(fold(each) in taken for each in inside):
        rings = ", ".join(sorted({taken[fold(each)] for each in inside}))
        yield Problem(
            path=f"{path}.machineIds", message=f"matches nothing: every machine of it is in a ring before it ({rings})"
        )


def _tagged(path: str, tags: TagFilter, earlier: Sequence[Ring], scope: Scope | None) -> Iterator[Problem]:
    path = f"{path}.tags"
    for ring in earlier:
        if ring.tags is not None and tags.implies(ring.tags):
            message = f"matches nothing: {ring.name} comes before it and takes all machines with these tags"
            yield Problem(path=path, message=message)
            return
    if scope is None:
        return
    if scope.exclude.tags is not None and tags.implies(scope.exclude.tags):
        yield Problem(path=path, message="matches nothing: scope.exclude.tags leaves out all machines with these tags")
    elif scope.tags is not None and _excludes(tags, scope.tags):
        yield Problem(path=path, message="matches nothing: scope.tags wants other values of the same tag")


def _excludes(tags: TagFilter, other: TagFilter) -> bool:
    """Whether no machine can pass both filters, as both want the same tag to have different values."""
    return all(
        any(name in one and one[name].isdisjoint(values) for name, values in two.items())
        for one in tags.cases
        for two in other.cases
    )


def _phases(phases: Sequence[Sequence[str]], scope: Scope | None) -> Iterator[Problem]:
    seen: dict[str, str] = {}
    for number, regions in enumerate(phases):
        path = f"phases[{number}]"
        if not regions:
            yield Problem(path=path, message="names no region; leave it out")
        before: dict[str, int] = {}
        for place, region in enumerate(regions):
            here = f"{path}[{place}]"
            first = seen.setdefault(region, here)
            if first != here:
                yield Problem(path=here, message=f"{region} is named in {first} already; name every region once")
            elif scope is not None and not _may_hold(scope, region):
                yield Problem(path=here, message=f"matches nothing: {region} is not in the scope of the policy")
            pair = min(_PAIRED.get(region, set[str]()) & before.keys(), key=before.__getitem__, default=None)
            before.setdefault(region, place)
            if pair is not None:
                message = f"{region} and {pair} are a pair and are never patched side by side; put them into two phases"
                yield Problem(path=here, message=message)


def _paired() -> dict[str, set[str]]:
    """By region, its pair and the regions that have it as theirs."""
    paired: dict[str, set[str]] = {}
    for region, pair in KNOWN_PAIRS.items():
        if region != pair:
            paired.setdefault(region, set()).add(pair)
            paired.setdefault(pair, set()).add(region)
    return paired


_PAIRED = _paired()


def _may_hold(scope: Scope, region: str) -> bool:
    if region == ARC_REGION:
        return scope.holds_arc
    if MachineType.AZURE not in scope.machine_types:
        return False
    return (not scope.locations or region in scope.locations) and region not in scope.exclude.locations


def _limits(limits: Limits, mutually_exclusive_tag: str | None) -> Iterator[Problem]:
    seen: dict[str, int] = {}
    for number, limit in enumerate(limits.tags):
        first = seen.setdefault(fold(limit.tag), number)
        path = f"limits.tags[{number}].tag"
        if first != number:
            yield Problem(path=path, message=f"limits.tags[{first}] is about the tag {limit.tag} as well; keep one")
        elif mutually_exclusive_tag is not None and fold(mutually_exclusive_tag) == fold(limit.tag):
            message = f"{limit.tag} is the mutuallyExclusiveTag, whose machines go one at a time; keep one of both"
            yield Problem(path=path, message=message)
