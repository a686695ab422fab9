"""Fleets for the planner's benchmark: made up from a seed, in the proportions of real estates.

Regions with pairs, zones that each subscription numbers in its own way, availability sets with update domains,
clusters, applications, both systems, and durations that differ from machine to machine.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import Any

from patchwave.domain.core.region_pairs import KNOWN_PAIRS
from patchwave.domain.planning.topology import PlannerMachine, Topology
from patchwave.domain.policy.policy import Policy, parse_policy

_REGIONS = (
    "westeurope", "northeurope", "eastus", "westus", "westus3", "southcentralus", "brazilsouth", "swedencentral",
    "polandcentral", "japaneast", "uksouth", "ukwest",
)  # fmt: skip
_IMAGES = {
    "Linux": ("canonical:ubuntu-24_04-lts:server", "redhat:rhel:9-lvm-gen2", "suse:sles-15-sp6:gen2"),
    "Windows": ("microsoftwindowsserver:windowsserver:2022-datacenter-g2", "microsoftsqlserver:sql2022-ws2022:std"),
}
_MINUTES = {"Linux": (8, 35), "Windows": (20, 70)}


@dataclass(frozen=True, slots=True)
class Shape:
    """What a fleet consists of: shares of its machines, and the policy that it is planned with."""

    name: str
    policy: Mapping[str, Any]
    regions: int = 8
    subscriptions: int = 6
    zoned: float = 0.5
    in_sets: float = 0.2
    clustered: float = 0.1
    mapped: bool = True
    """Whether Azure tells the physical zones."""


_RINGS: list[dict[str, Any]] = [{"name": "canary", "percent": 2}, {"name": "early", "percent": 20}, {"name": "broad"}]

SHAPES = (
    Shape("mixed", {"maxConcurrent": "2%", "mutuallyExclusiveTag": "cluster", "rings": _RINGS}),
    Shape("ramped", {"maxConcurrent": "2%", "mutuallyExclusiveTag": "cluster", "rings": _RINGS, "ramp": True}),
    Shape("zoned", {"maxConcurrent": "5%", "mutuallyExclusiveTag": "cluster"}, zoned=0.95, in_sets=0.0, clustered=0.3),
    Shape("sets", {"maxConcurrent": "2%", "availabilitySets": {"percent": 10}}, zoned=0.1, in_sets=0.8),
    Shape(
        "limited",
        {
            "maxConcurrent": "5%",
            "mutuallyExclusiveTag": "cluster",
            "limits": {"region": "5%", "tags": [{"tag": "app", "maxConcurrent": "10%"}]},
            "rings": [{"name": "canary", "tags": {"values": {"ring": ["canary"]}}}, {"name": "broad"}],
        },
        regions=12,
    ),
    Shape("unmapped", {"maxConcurrent": "2%", "mutuallyExclusiveTag": "cluster"}, subscriptions=4, mapped=False),
    Shape("wide", {"maxConcurrent": 1000}, in_sets=0.3),
    Shape("narrow", {"maxConcurrent": 20, "mutuallyExclusiveTag": "cluster", "rings": _RINGS}),
)


def make_policy(shape: Shape) -> Policy:
    """The policy of a shape, as a person would put it."""
    return parse_policy({"name": "bench", "scope": {"osTypes": ["Linux", "Windows"]}, **shape.policy})


def make_topology(shape: Shape) -> Topology:
    """The built-in pairs, and zones that every subscription numbers in its own way."""
    zones = {
        (_subscription(number), region, str(logical + 1)): f"{region}-az{(logical + number) % 3 + 1}"
        for number in range(shape.subscriptions if shape.mapped else 0)
        for region in _REGIONS
        for logical in range(3)
    }
    return Topology.of(KNOWN_PAIRS.items(), zones)


def make_fleet(shape: Shape, size: int, seed: int) -> list[PlannerMachine]:
    """So many machines; the same ones for the same seed.

    Sets have 2 to 40 machines in five update domains and no zone, as in Azure; clusters have 2 to 4 nodes in the
    zones of one region. The first regions are the largest.
    """
    random = Random(f"{shape.name}/{size}/{seed}")
    regions = _REGIONS[: shape.regions]
    weights = [1 / (rank + 2) for rank in range(len(regions))]
    # The shares are of machines, and a set brings 21 at once, a cluster 3.
    kinds = (shape.in_sets / 21, shape.clustered / 3, max(0.0, 1 - shape.in_sets - shape.clustered))
    machines: list[PlannerMachine] = []
    while len(machines) < size:
        region = random.choices(regions, weights)[0]
        subscription = _subscription(random.randrange(shape.subscriptions))
        kind = random.choices(("set", "cluster", "machine"), kinds)[0]
        members = {"set": random.randint(2, 40), "cluster": random.randint(2, 4), "machine": 1}[kind]
        group = len(machines)
        for member in range(min(members, size - len(machines))):
            machines.append(_machine(shape, random, len(machines), region, subscription, kind, group, member))
    return machines


def _machine(
    shape: Shape, random: Random, number: int, region: str, subscription: str, kind: str, group: int, member: int
) -> PlannerMachine:
    system = random.choice(("Linux", "Linux", "Windows"))
    in_set = kind == "set"
    zone = str((member if kind == "cluster" else random.randrange(3)) % 3 + 1)
    is_zoned = not in_set and random.random() < min(1.0, shape.zoned / (1 - shape.in_sets))
    tags = {"app": f"app{random.randrange(40)}"}
    if kind == "cluster":
        tags["cluster"] = f"c{group}"
    if random.random() < 0.02:
        tags["ring"] = "canary"
    home = f"/subscriptions/{subscription}/resourceGroups/rg{number % 50}/providers/Microsoft.Compute"
    return PlannerMachine(
        id=f"{home}/virtualMachines/vm{number:06d}",
        key=f"{random.getrandbits(96):024x}",
        name=f"vm{number:06d}",
        subscription=subscription,
        location=region,
        zones=(zone,) if is_zoned else (),
        availability_set=f"{home.replace(f'rg{number % 50}', 'rg-sets')}/availabilitySets/av{group}" if in_set else "",
        update_domain=str(member % 5) if in_set else "",
        os_type=system,
        image=random.choice(_IMAGES[system]),
        tags=tags,
        power_state="PowerState/running" if random.random() < 0.97 else "PowerState/deallocated",
        pending=random.choice((None, 0, 3, 12, 40)),
        predicted_seconds=60.0 * random.randint(*_MINUTES[system]) if random.random() < 0.7 else None,
    )


def _subscription(number: int) -> str:
    return f"{number:08d}-0000-4000-8000-000000000000"
