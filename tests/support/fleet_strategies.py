"""Random fleets, policies and topologies for the planner: small worlds in which the rules get into each other's way."""

from __future__ import annotations

from collections.abc import Sequence
from random import Random
from typing import Any

from hypothesis import strategies as st

from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.region_pairs import KNOWN_PAIRS
from patchwave.domain.planning.topology import PlannerMachine, Topology
from patchwave.domain.policy.policy import Policy, parse_policy

SUBSCRIPTIONS = ("11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222")
REGIONS = ("westeurope", "North Europe", "eastus", "westus", "westus3", "polandcentral")


def machine_id(number: int, subscription: str = SUBSCRIPTIONS[0]) -> str:
    """The ARM id of the machine with that number."""
    return f"/subscriptions/{subscription}/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm{number}"


def make_machine(number: int, subscription: str = SUBSCRIPTIONS[0], **fields: Any) -> PlannerMachine:
    """A running machine in West Europe with patches to install, unless the fields say otherwise."""
    named = machine_id(number, subscription)
    given: dict[str, Any] = {
        "name": f"vm{number}",
        "subscription": subscription,
        "location": "westeurope",
        "os_type": "Linux",
        "pending": 3,
        "power_state": "PowerState/running",
    }
    return PlannerMachine(id=named, key=MachineId.parse(named).key, **(given | fields))


def set_id(name: str, subscription: str = SUBSCRIPTIONS[0]) -> str:
    """The ARM id of an availability set."""
    return f"/subscriptions/{subscription}/resourceGroups/rg/providers/Microsoft.Compute/availabilitySets/{name}"


def scale_set_id(name: str, subscription: str = SUBSCRIPTIONS[0]) -> str:
    """The ARM id of a scale set."""
    return f"/subscriptions/{subscription}/resourceGroups/rg/providers/Microsoft.Compute/virtualMachineScaleSets/{name}"


def make_policy(**fields: Any) -> Policy:
    """A policy with these fields beside what every policy needs."""
    return parse_policy({"name": "test", "scope": {"osTypes": ["Linux", "Windows"]}} | fields)


@st.composite
def fleets(draw: st.DrawFn, largest: int = 40) -> list[PlannerMachine]:
    """Machines that share regions, zones, sets, clusters and tags, some of them with nothing to do."""
    # Drawn from a seed and a size: thousands of single draws would take longer than the plans.
    random = Random(draw(st.integers(0, 10**6)))
    regions = random.sample(REGIONS, random.randint(1, 4))
    return [_draw_machine(random, number, regions) for number in range(draw(st.integers(0, largest)))]


def _draw_machine(random: Random, number: int, regions: Sequence[str]) -> PlannerMachine:
    pick = random.choice
    subscription = pick(SUBSCRIPTIONS)
    # One set is large enough for shares, and one has machines whose update domain is not known.
    in_set = pick(["", "", "av-web", "AV-WEB", "av-sql"])
    in_scale_set = "" if in_set else pick(["", "vmss-web", "VMSS-Web", "vmss-old"])
    return make_machine(
        number,
        subscription,
        location=pick(regions),
        zones=() if in_set and pick([True, False]) else pick([(), ("1",), ("2",), ("3",), ("1", "2")]),
        availability_set=set_id(in_set) if in_set else "",
        update_domain=pick(["0", "1", "2", "" if in_set == "av-sql" else "3"]) if in_set else "",
        scale_set=scale_set_id(in_scale_set) if in_scale_set else "",
        fault_domain=pick(["0", "1", "" if in_scale_set == "vmss-old" else "10"]) if in_scale_set else "",
        os_type=pick(["Linux", "Windows", ""]),
        image=pick(["ubuntu", "rhel"]),
        tags={
            pick(["ring", "Ring"]): pick(["canary", "Early", "other"]),
            pick(["cluster", "CLUSTER"]): pick(["", "c1", "C1", "c2"]),
            "app": pick(["web", "sql"]),
        },
        pending=pick([None, 0, 4, 9]),
        power_state=pick(["", "PowerState/running", "PowerState/running", "PowerState/deallocated"]),
        predicted_seconds=pick([None, 60.0, 600.0, 1234.5, 5000.0]),
    )


_LIMITS = st.sampled_from([1, 2, 5, "1%", "10%", "50%"])
_RINGS: list[list[dict[str, Any]]] = [
    [],
    [{"name": "canary", "tags": {"values": {"ring": ["canary"]}}}, {"name": "rest"}],
    [{"name": "first", "percent": 10}, {"name": "second", "percent": 40, "bake": "PT2H"}, {"name": "rest"}],
    [
        {"name": "last", "after": "named"},
        {"name": "named", "machineIds": [machine_id(0), machine_id(1).upper()], "after": "canary"},
        {"name": "canary", "tags": {"values": {"ring": ["canary", "early"]}}},
    ],
    [{"name": "canary", "tags": {"match": "any", "values": {"ring": ["canary"], "app": ["sql"]}}}],
]


@st.composite
def policies(draw: st.DrawFn) -> Policy:
    """Policies with every kind of limit, ring and order."""
    fields: dict[str, Any] = {
        "maxConcurrent": draw(st.sampled_from([1, 3, 20, "10%", "60%"])),
        "rings": draw(st.sampled_from(_RINGS)),
        "separateZones": draw(st.sampled_from([True, True, False])),
        "availabilitySets": {"percent": draw(st.sampled_from([5, 10, 20]))},
        "scaleSets": {"percent": draw(st.sampled_from([5, 10, 20]))},
        "ramp": draw(st.booleans()),
        "startStopped": draw(st.booleans()),
    }
    if draw(st.booleans()):
        fields["mutuallyExclusiveTag"] = "Cluster"
    if draw(st.booleans()):
        tags = draw(st.sampled_from([[], ["app"], ["APP", "ring"]]))
        limits: dict[str, Any] = {"tags": [{"tag": tag, "maxConcurrent": draw(_LIMITS)} for tag in tags]}
        fields["limits"] = limits | ({"region": draw(_LIMITS)} if draw(st.booleans()) else {})
    if draw(st.sampled_from([True, False, False])):
        fields["bake"] = {"waves": "PT10M", "rings": "PT1H"}
    elif draw(st.sampled_from([True, False, False])):
        fields["errorBudget"] = {"wave": "10%"}
    if draw(st.sampled_from([True, False, False])):
        fields["phases"] = [["westus"], ["eastus", "westeurope"]]
    return make_policy(**fields)


@st.composite
def topologies(draw: st.DrawFn) -> Topology:
    """The pairs of Azure or none; zones that two subscriptions number in different ways, or unknown ones."""
    zones = {
        (subscription, region, str(logical)): f"{region}-az{(logical + shift) % 3}"
        for shift, subscription in enumerate(SUBSCRIPTIONS)
        for region in REGIONS
        for logical in (1, 2, 3)
        if draw(st.booleans())
    }
    return Topology.of(draw(st.sampled_from([[], list(KNOWN_PAIRS.items())])), zones)
