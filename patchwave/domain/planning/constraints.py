"""Every concurrency constraint as a group with a capacity: the permits of each machine, and the rules in words."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

from patchwave.domain.core.folding import fold
from patchwave.domain.core.quantity import capacity
from patchwave.domain.planning.admission import RUN_GROUP, Permit
from patchwave.domain.planning.plan_windows import PlanWindows, window_group, window_permit
from patchwave.domain.planning.topology import PlannerMachine, Topology
from patchwave.domain.policy.policy import Policy

MIN_SHARED_SET = 10
"""Sets of fewer machines go one machine at a time, as in Azure's own guest patching."""

ACROSS_RUNS: Mapping[str, Callable[[str], str]] = {
    "zones": lambda name: f"zones of {name}",
    "pair": lambda name: f"the paired regions {' and '.join(name.split('+'))}",
    "set": lambda name: f"the availability set {name.rpartition('/')[2]}",
    "scaleset": lambda name: f"the scale set {name.rpartition('/')[2]}",
    "exclusive": lambda name: f"machines with {name}",
    "tag": lambda name: f"machines with {name}",
}
"""Groups that keep apart what different runs work on, in words, by the kind before the colon of their names. The others
are limits of one run, or parts of one of these (update and fault domains)."""

_NUMBER = re.compile(r"[0-9]+")


class SlotLabel(NamedTuple):
    """What a slot is: ``zone 2``, or ``update domain 3`` with what it is a part of, `` of av-web``."""

    name: str
    of: str = ""


def pair_permit(region: str, other: str) -> Permit:
    """The permit of a region in its pair with another one."""
    return Permit(f"pair:{'+'.join(sorted((region, other)))}", 1, region)


class _MachineSet(NamedTuple):
    """A set that a machine is in: the kinds of its two groups, its ARM id, and the domain that the machine is in.

    ``domain`` is what it is called, such as ``update domain 3``; its ``slot`` is empty when Azure has not told it.
    """

    kind: str
    domain_kind: str
    id: str
    slot: str
    domain: str

    @property
    def key(self) -> str:
        """Subscription, resource group and name: what tells it from others."""
        parts = fold(self.id).strip("/").split("/")
        return "/".join(parts[1:4:2] + parts[-1:]) if len(parts) == 8 else "/".join(parts)

    @property
    def name(self) -> str:
        return self.id.rstrip("/").rpartition("/")[2]

    @property
    def share(self) -> str:
        """The group of which a machine takes a share."""
        return f"{self.kind}:{self.key}"


@lru_cache(maxsize=4096)
def slot_order(slot: str) -> str:
    """The key by which slots are sorted: update domain 10 comes after 2."""
    return _NUMBER.sub(lambda found: found[0].zfill(12), slot)


class ConcurrencyConstraints:
    """The groups of a fleet under a policy.

    ``rules`` says by group what it means for its machines, ``slots`` by group and slot what the slot is, both in words.
    Groups that cannot block a machine have no label. ``unused_tags`` are those of limits that no machine has.
    """

    def __init__(
        self,
        machines: Sequence[PlannerMachine],
        planned: Iterable[PlannerMachine],
        policy: Policy,
        topology: Topology,
        windows: PlanWindows | None = None,
    ) -> None:
        """
        Args:
            machines: all machines of the run; percentages refer to these.
            planned: those that have a permit in the plan. One unknown domain among them makes their set go one by one.
            policy: the limits.
            topology: which zones of two subscriptions are one building, and which regions are paired.
            windows: the hours of each time zone, if machines read their own clocks.
        """
        self.rules: dict[str, str] = {}
        self.slots: dict[tuple[str, str], SlotLabel] = {}
        self._policy = policy
        self._topology = topology
        self._windows = windows
        self.has_pair_permits = windows is not None and policy.phases is None
        """Paired regions are kept apart machine by machine. With phases one half of the world would wait for the other,
        and its windows would be over by then."""
        tags = [limit.tag for limit in policy.limits.tags] + (
            [policy.mutually_exclusive_tag] if policy.mutually_exclusive_tag else []
        )
        self._limited_tags = frozenset(fold(tag) for tag in tags)
        self._by_region = Counter(machine.region for machine in machines)
        self._by_tag = Counter(pair for machine in machines for pair in self._tag_values(machine).items())
        used = {name for name, _ in self._by_tag}
        self.unused_tags = [tag for tag in tags if machines and fold(tag) not in used]
        self._by_set = Counter(each.share for machine in machines for each in self._sets(machine))
        self._unknown_domains: set[str] = set()
        self._zone_owners: dict[str, set[str]] = {}
        for machine in planned:
            self._unknown_domains.update(each.share for each in self._sets(machine) if not each.slot)
            if machine.zones:
                self._zone_owners.setdefault(machine.region, set()).add(_subscription(machine))
        if windows is not None:
            self.rules |= {window_group(zone): windows.rule(zone) for zone in windows.hours}
        total = capacity(policy.max_concurrent, len(machines))
        # Most machines take the same permits as many others: keeping them once keeps large plans small.
        self._shared: dict[tuple[Permit, ...], tuple[Permit, ...]] = {}
        self._run = Permit(RUN_GROUP, total)
        self._say(RUN_GROUP, f"the run takes {total} at a time", binds=len(machines) > total)

    @property
    def run_capacity(self) -> int:
        return self._run.capacity

    def permits(self, machine: PlannerMachine) -> tuple[Permit, ...]:
        """The permits of a machine; groups of which only a part of the fleet is a member come first."""
        permits: list[Permit] = [window_permit(machine.time_zone)] if self._windows is not None else []
        if self.has_pair_permits:
            permits += self._pairs(machine.region)
        if machine.zones and self._policy.separate_zones:
            permits.append(self._zone(machine))
        for each in self._sets(machine):
            permits += self._set(each)
        permits += self._tags(machine)
        if self._policy.limits.region is not None and not machine.is_arc:
            permits.append(self._region(machine.region, self._policy.limits.region))
        permits.append(self._run)
        taken = tuple(permits)
        return self._shared.setdefault(taken, taken)

    def _pairs(self, region: str) -> list[Permit]:
        """The pairs that a region is in: the machines of one region each at a time."""
        permits: list[Permit] = []
        for other in sorted(self._topology.conflicts(region) & self._by_region.keys()):
            permits.append(pair_permit(region, other))
            self.slots[permits[-1].group, region] = SlotLabel(f"never beside {other}")
        return permits

    def _zone(self, machine: PlannerMachine) -> Permit:
        """The physical zone where Azure tells it; else the zone of the subscription, which is mixed with no other."""
        region, owner = machine.region, _subscription(machine)
        zone = "+".join(sorted(machine.zones))
        physical = self._topology.physical_zone(owner, region, zone)
        permit = Permit(f"zones:{region}", 1, _plain(physical or f"{owner}/{zone}"))
        if len(self._zone_owners.get(region, ())) <= 1:
            label = f"zone {zone}"
        else:
            label = f"physical zone {physical}" if physical else f"zone {zone} of subscription {owner}"
        self.slots[permit.group, permit.slot] = SlotLabel(label)
        return permit

    def _sets(self, machine: PlannerMachine) -> Iterator[_MachineSet]:
        """The availability set and the scale set of a machine; Azure puts it in one of them at most."""
        if machine.availability_set:
            domain = machine.update_domain
            yield _MachineSet("set", "domains", machine.availability_set, _plain(domain), f"update domain {domain}")
        if machine.scale_set:
            slot = self._topology.fault_domain(machine)
            words = f"fault domain {slot}"
            if slot and machine.zones:
                # Each zone has fault domains of its own, which are numbered alike.
                zone = "+".join(sorted(machine.zones))
                slot, words = f"{zone}/{slot}", f"{words} in zone {zone}"
            yield _MachineSet("scaleset", "faults", machine.scale_set, _plain(slot), words)

    def _set(self, each: _MachineSet) -> list[Permit]:
        """A share of the set and the domain in it; machines that go alone never run beside another domain."""
        size, name = self._by_set[each.share], each.name
        policy = self._policy
        percent = policy.availability_sets.percent if each.kind == "set" else policy.scale_sets.percent
        share = Permit(each.share, capacity(f"{percent}%", size))
        if each.share in self._unknown_domains:
            share = Permit(share.group, 1)
            what = "an update domain" if each.kind == "set" else "a fault domain"
            self._say(share.group, f"{what} of {name} is not known: one at a time", binds=size > 1)
        elif size < MIN_SHARED_SET:
            share = Permit(share.group, 1)
            self._say(share.group, f"{name} has {size} machines: one at a time", binds=size > 1)
        else:
            self._say(share.group, f"{percent} % of {name} is {share.capacity} at a time", binds=True)
        if each.share in self._unknown_domains or not each.slot:
            return [share]
        domain = Permit(f"{each.domain_kind}:{each.key}", 1, each.slot)
        self.slots[domain.group, domain.slot] = SlotLabel(each.domain, f" of {name}")
        return [domain, share]

    def _tags(self, machine: PlannerMachine) -> list[Permit]:
        if not self._limited_tags:
            return []
        exclusive = self._policy.mutually_exclusive_tag
        tags = self._tag_values(machine)
        permits: list[Permit] = []
        if exclusive is not None and (value := tags.get(fold(exclusive))):
            permits.append(Permit(f"exclusive:{fold(exclusive)}={value}", 1))
            machines = self._by_tag[fold(exclusive), value]
            self._say(permits[-1].group, f"{exclusive}={value} goes one at a time", binds=machines > 1)
        for limit in self._policy.limits.tags:
            if value := tags.get(fold(limit.tag)):
                machines = self._by_tag[fold(limit.tag), value]
                permit = Permit(f"tag:{fold(limit.tag)}={value}", capacity(limit.max_concurrent, machines))
                words = f"{limit.tag}={value}: {permit.capacity} at a time"
                self._say(permit.group, words, binds=machines > permit.capacity)
                permits.append(permit)
        return permits

    def _tag_values(self, machine: PlannerMachine) -> dict[str, str]:
        """The tags that a limit is about. Azure compares their names without case; values are folded like them."""
        values: dict[str, str] = {}
        for name, value in machine.tags.items():
            folded = fold(name)
            if folded in self._limited_tags:
                values[folded] = fold(value.strip())
        return values

    def _region(self, region: str, limit: int | str) -> Permit:
        machines = self._by_region[region]
        permit = Permit(f"region:{region}", capacity(limit, machines))
        self._say(permit.group, f"{region} takes {permit.capacity} at a time", binds=machines > permit.capacity)
        return permit

    def _say(self, group: str, words: str, *, binds: bool) -> None:
        if binds:
            self.rules[group] = words


def _subscription(machine: PlannerMachine) -> str:
    return fold(machine.subscription) or fold(machine.id).removeprefix("/subscriptions/").partition("/")[0]


def _plain(slot: str) -> str:
    """A slot without the mark that parts the fields of a permit's text."""
    return slot.replace("|", "/")
