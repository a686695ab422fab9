"""The permits of single machines: which groups they are in, and how many those take."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from patchwave.domain.fleet.scale_sets import ScaleSet
from patchwave.domain.planning.admission import RUN_GROUP, Permit
from patchwave.domain.planning.constraints import ConcurrencyConstraints, slot_order
from patchwave.domain.planning.topology import PlannerMachine, Topology
from tests.support.fleet_strategies import SUBSCRIPTIONS, make_machine, make_policy, scale_set_id, set_id

OWNER = SUBSCRIPTIONS[0]


def permits(
    machines: list[PlannerMachine], topology: Topology | None = None, **policy: Any
) -> list[tuple[Permit, ...]]:
    """The permits of each machine, all of them planned."""
    constraints = ConcurrencyConstraints(machines, machines, make_policy(**policy), topology or Topology())
    return [constraints.permits(machine) for machine in machines]


def av_set(size: int, *, name: str = "av-web", first: int = 0) -> list[PlannerMachine]:
    return [
        make_machine(first + number, availability_set=set_id(name), update_domain=str(number % 5))
        for number in range(size)
    ]


def test_the_run_takes_so_many() -> None:
    assert permits([make_machine(0)]) == [(Permit(RUN_GROUP, 20),)]
    assert permits([make_machine(number) for number in range(25)], maxConcurrent="10%")[0] == (Permit(RUN_GROUP, 2),)
    assert permits([make_machine(0)], maxConcurrent="10%")[0] == (Permit(RUN_GROUP, 1),)


def test_a_zone_is_a_building_where_that_is_known() -> None:
    machines = [make_machine(number, zones=zones) for number, zones in enumerate([("1",), ("2",), ("2", "1"), ()])]
    known = Topology.of(zones={(OWNER, "West Europe", "1"): "we-az3"})
    found = [[place for place in mine if place.group == "zones:westeurope"] for mine in permits(machines, known)]
    assert found == [
        [Permit("zones:westeurope", 1, "we-az3")],
        [Permit("zones:westeurope", 1, f"{OWNER}/2")],
        [Permit("zones:westeurope", 1, f"{OWNER}/1+2")],
        [],
    ]
    assert all(len(mine) == 1 for mine in permits(machines, known, separateZones=False))


def test_a_set_has_one_update_domain_at_a_time_and_a_share_of_it() -> None:
    key = f"{OWNER}/rg/av-web"
    domain, share, _ = permits(av_set(19))[3]
    assert domain == Permit(f"domains:{key}", 1, "3")
    assert share == Permit(f"set:{key}", 3)
    assert permits(av_set(9))[0][1] == Permit(f"set:{key}", 1)
    assert permits(av_set(10))[0][1] == Permit(f"set:{key}", 2)
    assert permits(av_set(40), availabilitySets={"percent": 5})[0][1] == Permit(f"set:{key}", 2)


def test_sets_of_one_name_in_two_subscriptions_are_two() -> None:
    one = make_machine(0, availability_set=set_id("av"), update_domain="1")
    other = make_machine(1, availability_set=set_id("av", SUBSCRIPTIONS[1]), update_domain="1")
    same = make_machine(2, availability_set=set_id("AV").upper(), update_domain="1")
    groups = [{place.group for place in mine} for mine in permits([one, other, same])]
    assert groups[0] == groups[2] != groups[1]


def test_an_unknown_update_domain_serializes_its_set_unless_it_is_not_planned() -> None:
    machines = [*av_set(20), make_machine(90, availability_set=set_id("av-web"))]
    share = Permit(f"set:{OWNER}/rg/av-web", 1)
    assert {mine[:-1] for mine in permits(machines)} == {(share,)}
    without = ConcurrencyConstraints(machines, machines[:-1], make_policy(), Topology())
    assert without.permits(machines[0])[1] == Permit(share.group, 4)


def scale_set(size: int, **fields: Any) -> list[PlannerMachine]:
    """Members of one scale set over five fault domains."""
    return [
        make_machine(number, **{"scale_set": scale_set_id("vmss-web"), "fault_domain": str(number % 5)} | fields)
        for number in range(size)
    ]


def test_a_scale_set_has_one_fault_domain_at_a_time_and_a_share_of_it() -> None:
    key = f"{OWNER}/rg/vmss-web"
    domain, share, _ = permits(scale_set(19))[3]
    assert domain == Permit(f"faults:{key}", 1, "3")
    assert share == Permit(f"scaleset:{key}", 3)
    assert permits(scale_set(9))[0][1] == Permit(f"scaleset:{key}", 1)
    assert permits(scale_set(10))[0][1] == Permit(f"scaleset:{key}", 2)
    assert permits(scale_set(40), scaleSets={"percent": 5})[0][1] == Permit(f"scaleset:{key}", 2)
    assert permits(scale_set(40), availabilitySets={"percent": 5})[0][1] == Permit(f"scaleset:{key}", 8)


def test_an_unknown_fault_domain_serializes_its_scale_set_unless_it_is_not_planned() -> None:
    machines = [*scale_set(20), make_machine(90, scale_set=scale_set_id("VMSS-WEB"))]
    share = Permit(f"scaleset:{OWNER}/rg/vmss-web", 1)
    assert {mine[:-1] for mine in permits(machines)} == {(share,)}
    without = ConcurrencyConstraints(machines, machines[:-1], make_policy(), Topology())
    assert without.permits(machines[0])[1] == Permit(share.group, 4)
    assert without.rules[share.group] == "20 % of vmss-web is 4 at a time"


def test_with_maximum_spreading_the_share_and_the_zones_remain() -> None:
    web = scale_set_id("vmss-web")
    machines = scale_set(20, fault_domain="")
    key = f"{OWNER}/rg/vmss-web"
    for domains, share in [(1, 4), (3, 1), (None, 1)]:
        known = Topology.of(scale_sets=[ScaleSet(id=web.upper(), fault_domains=domains)])
        assert permits(machines, known)[0][-2] == Permit(f"scaleset:{key}", share)
    spread = Topology.of(scale_sets=[ScaleSet(id=web, fault_domains=1)])
    assert permits(machines, spread)[0][0] == Permit(f"faults:{key}", 1, "0")


def test_each_zone_has_fault_domains_of_its_own() -> None:
    machines = [*scale_set(10, zones=("2",), fault_domain="0"), *scale_set(10, zones=("1",), fault_domain="0")]
    constraints = ConcurrencyConstraints(machines, machines, make_policy(separateZones=False), Topology())
    found = {constraints.permits(machine)[0] for machine in machines}
    assert {permit.slot for permit in found} == {"1/0", "2/0"}
    assert {constraints.slots[permit.group, permit.slot].name for permit in found} == {
        "fault domain 0 in zone 1",
        "fault domain 0 in zone 2",
    }


def test_tags_are_compared_without_case() -> None:
    machines = [make_machine(number, tags={"APP": "Web", "Cluster": "C1"}) for number in range(9)]
    policy: dict[str, Any] = {
        "mutuallyExclusiveTag": "cluster",
        "limits": {"tags": [{"tag": "app", "maxConcurrent": "50%"}]},
    }
    assert permits(machines, **policy)[0][:-1] == (Permit("exclusive:cluster=c1", 1), Permit("tag:app=web", 4))
    assert permits([make_machine(0, tags={"cluster": " ", "app": ""})], **policy)[0] == (Permit(RUN_GROUP, 20),)


def test_a_region_counts_its_own_machines() -> None:
    machines = [make_machine(number) for number in range(10)] + [make_machine(10, location="eastus")]
    found = permits(machines, limits={"region": "20%"})
    assert (found[0][0], found[10][0]) == (Permit("region:westeurope", 2), Permit("region:eastus", 1))


def test_rules_that_hold_no_machine_have_no_text() -> None:
    machines = [make_machine(0, tags={"cluster": "c1"}), *av_set(1, first=1)]
    constraints = ConcurrencyConstraints(machines, machines, make_policy(mutuallyExclusiveTag="cluster"), Topology())
    for machine in machines:
        constraints.permits(machine)
    assert constraints.rules == {}


def test_slots_are_numbered_from_one() -> None:
    assert sorted(["10", "9", "we-az2", "we-az10", "1"], key=slot_order) == ["1", "9", "10", "we-az2", "we-az10"]


def test_every_place_survives_its_text() -> None:
    machines = [
        make_machine(0, zones=("1|2",), availability_set=set_id("a"), update_domain="x|y"),
        *av_set(9, name="a"),
    ]
    for place in permits(machines, mutuallyExclusiveTag="app")[0]:
        assert Permit.parse(place.text) == place


def arc(number: int, **fields: Any) -> PlannerMachine:
    one = make_machine(number, **fields)
    arc_id = one.id.replace("Microsoft.Compute/virtualMachines", "Microsoft.HybridCompute/machines")
    return replace(one, id=arc_id)


def test_the_location_of_an_arc_machine_is_no_failure_domain() -> None:
    machines = [arc(number, location=region) for number, region in enumerate(["westeurope", "northeurope"])]
    assert {machine.region for machine in machines} == {"arc"}
    assert Topology.of([("westeurope", "northeurope")]).conflicts("arc") == frozenset()
    found = permits([*machines, make_machine(2, location="westeurope")], limits={"region": 1})
    assert [[place.group for place in mine] for mine in found] == [
        [RUN_GROUP],
        [RUN_GROUP],
        ["region:westeurope", RUN_GROUP],
    ]


def test_arc_machines_are_parted_by_their_tags() -> None:
    machines = [arc(number, tags={"site": "plant-1"}) for number in range(4)]
    found = permits(machines, limits={"tags": [{"tag": "site", "maxConcurrent": 1}]})
    assert found[0] == (Permit("tag:site=plant-1", 1), Permit(RUN_GROUP, 20))
