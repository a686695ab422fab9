"""What the rules keep apart never overlaps: runs over made-up fleets, judged by what Azure saw.

The judge (`tests.support.plan_invariants`) is written from the rules and not from the planner; the intervals come from
the log of the simulator, and the machines from the generator of the planner's benchmark.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pytest

from benchmarks.fleets import SHAPES, Shape, make_fleet, make_topology
from patchwave.domain.planning.topology import PlannerMachine, Topology
from patchwave.domain.policy.policy import Policy, parse_policy
from tests.support.plan_invariants import Interval, broken_rules
from tests.support.product import Product

type Json = dict[str, Any]

SIZE = 24


@dataclass(frozen=True)
class Estate:
    """A fleet of its own subscriptions, and the policy that patches it."""

    number: int
    shape: str
    seed: int
    policy: Json

    @cached_property
    def _shape(self) -> Shape:
        return next(shape for shape in SHAPES if shape.name == self.shape)

    def _own(self, text: str) -> str:
        """Subscriptions of the generator, moved aside so that no two estates share one."""
        return text.replace("0000000", f"{self.number}000000", 1)

    @cached_property
    def machines(self) -> list[PlannerMachine]:
        return [
            replace(
                machine,
                id=self._own(machine.id),
                subscription=self._own(machine.subscription),
                availability_set=self._own(machine.availability_set),
            )
            for machine in make_fleet(self._shape, SIZE, self.seed)
        ]

    @cached_property
    def topology(self) -> Topology:
        made = make_topology(self._shape)
        zones = {(self._own(owner), region, zone): place for (owner, region, zone), place in made.zones.items()}
        return Topology.of(made.pairs, zones)

    @cached_property
    def document(self) -> Json:
        return {"scope": {"machineIds": [machine.id for machine in self.machines]}, **self.policy}

    @cached_property
    def parsed(self) -> Policy:
        return parse_policy({"name": "judged", **self.document})

    def entries(self) -> Iterator[Json]:
        """The machines as a fleet file has them."""
        source = random.Random(self.seed)
        for machine in self.machines:
            entry: Json = {
                "id": machine.id,
                "name": machine.name,
                "location": machine.location,
                "zones": list(machine.zones),
                "tags": dict(machine.tags),
                "osType": machine.os_type,
                "simulation": {
                    "assessMinutes": 1,
                    "installMinutes": source.randint(8, 20),
                    "rebootMinutes": 1,
                    "rebootRequired": source.random() < 0.5,
                    "pendingPatches": source.choice([0, 2, 2, 2, 2]),
                    "power": "deallocated" if source.random() < 0.05 else "running",
                },
            }
            if machine.availability_set:
                entry["availabilitySet"] = {"id": machine.availability_set}
                entry["simulation"]["updateDomain"] = int(machine.update_domain)
            yield entry


CANARY = [{"name": "canary", "tags": {"values": {"ring": ["canary"]}}}, {"name": "broad"}]
ESTATES = [
    Estate(1, "mixed", 3, {"rings": CANARY, "maxConcurrent": 12, "mutuallyExclusiveTag": "cluster", "ramp": True}),
    Estate(
        2,
        "limited",
        7,
        {
            "rings": [{"name": "early", "percent": 25}, {"name": "broad"}],
            "maxConcurrent": "40%",
            "mutuallyExclusiveTag": "cluster",
            "limits": {"region": 4, "tags": [{"tag": "app", "maxConcurrent": 1}]},
        },
    ),
    Estate(3, "sets", 5, {"maxConcurrent": 20, "rebootMode": "separate"}),
    Estate(4, "zoned", 9, {"maxConcurrent": 20, "mutuallyExclusiveTag": "cluster", "phases": [["eastus"], ["westus"]]}),
]


@pytest.fixture(scope="module")
def estates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The product on a fleet of all estates."""
    folder = tmp_path_factory.mktemp("estates")
    zones = [
        {"subscriptionId": owner, "location": region, "logicalZone": zone, "physicalZone": place}
        for estate in ESTATES
        for (owner, region, zone), place in estate.topology.zones.items()
    ]
    pairs = sorted({pair for estate in ESTATES for pair in estate.topology.pairs})
    fleet = folder / "fleet.json"
    machines = [entry for estate in ESTATES for entry in estate.entries()]
    fleet.write_text(json.dumps({"machines": machines, "zoneMappings": zones, "regionPairs": pairs}))
    product = Product.open(folder, fleet)
    try:
        yield product
    finally:
        product.close()


def observed(product: Product, estate: Estate, kind: str) -> list[Interval]:
    keys = {machine.id.lower(): machine.key for machine in estate.machines}
    return [
        Interval(keys[each["machine"].lower()], each["start"], each["end"])
        for each in product.intervals(kind)
        if each["machine"].lower() in keys
    ]


def most_at_a_time(intervals: list[Interval]) -> int:
    return max(sum(each.start <= one.start < each.end for each in intervals) for one in intervals)


@pytest.mark.timeout(600)
def test_no_two_installations_that_the_rules_keep_apart_overlap(estates: Product) -> None:
    runs = {estate.number: estates.start([], **estate.document) for estate in ESTATES}
    for estate in ESTATES:
        run = estates.wait(runs[estate.number], timeout=540)
        assert run["state"] == "completed", run
        judge_run(estates, estate, run)


def judge_run(product: Product, estate: Estate, run: Json) -> None:
    assert run["machines"] == SIZE
    installs = observed(product, estate, "install")
    assert len({each.key for each in installs}) == len(installs), "at most one accepted install each"
    assert len(installs) >= SIZE // 2, run["countsByOutcome"]
    assert most_at_a_time(installs) >= 3, "they do run side by side"
    assert broken_rules(installs, estate.machines, estate.parsed, estate.topology) == []
    restarts = observed(product, estate, "restart")
    if estate.parsed.reboot_mode == "separate":
        assert restarts
        assert max(each.end for each in installs) <= min(each.start for each in restarts)
        assert broken_rules(restarts, estate.machines, estate.parsed, estate.topology) == []
        assert "reboot_required" not in run["countsByOutcome"], run["countsByOutcome"]
    else:
        assert not restarts


def test_the_judge_would_have_seen_it() -> None:
    """All machines at once break every kind of rule: a judge that says nothing here would be worth nothing."""
    for estate in ESTATES:
        at_once = [Interval(machine.key, 0, 10) for machine in estate.machines]
        assert len(broken_rules(at_once, estate.machines, estate.parsed, estate.topology)) >= 3
