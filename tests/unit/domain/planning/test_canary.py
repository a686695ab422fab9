"""Machines that the first ring cannot vouch for: they are named, and the policy says what is done with them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from patchwave.domain.planning.canary import (
    can_be_pinned,
    canary_kinds,
    certain_notes,
    kind_of,
    pin_notes,
    with_approvals,
)
from patchwave.domain.planning.planner import make_plan
from patchwave.domain.planning.rings import choose_rings
from patchwave.domain.planning.topology import PlannerMachine, Topology
from patchwave.domain.policy.policy import Policy, PolicyError, parse_policy
from patchwave.domain.policy.rollout import order_rings

UBUNTU = "Canonical:0001-com-ubuntu-server-jammy:22_04-lts"
NOBLE = "canonical:ubuntu-24_04-lts:server"
RHEL = "RedHat:RHEL:9-lvm"
SERVER = "MicrosoftWindowsServer:WindowsServer:2022-datacenter-g2"
GROUP = "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg-a"


def machine(number: int, os_type: str = "Linux", image: str = UBUNTU, ring: str = "") -> PlannerMachine:
    name = f"vm-{number:02d}"
    return PlannerMachine(
        id=f"{GROUP}/providers/Microsoft.Compute/virtualMachines/{name}",
        key=name,
        name=name,
        location="westeurope",
        os_type=os_type,
        image=image,
        tags={"ring": ring} if ring else {},
    )


def policy(**changes: Any) -> Policy:
    document: dict[str, Any] = {
        "name": "monthly",
        "scope": {"locations": ["westeurope"]},
        "pinRings": True,
        "rings": [{"name": "canary", "tags": {"values": {"ring": ["canary"]}}}, {"name": "broad"}],
    }
    return parse_policy(document | changes)


def notes(of: Policy, *machines: PlannerMachine) -> list[str]:
    chosen = choose_rings(machines, order_rings(of.rings))
    return pin_notes(of, machines, machines, chosen)


@pytest.mark.parametrize(
    ("os_type", "image", "kind"),
    [
        ("Windows", SERVER, "Windows"),
        ("windows", "", "Windows"),
        ("Linux", UBUNTU, "Linux/apt"),
        ("linux", "debian:debian-12:12-gen2", "Linux/apt"),
        ("Linux", "credativ:Debian:9", "Linux/apt"),
        ("Linux", RHEL, "Linux/dnf"),
        ("Linux", "OpenLogic:CentOS:7_9", "Linux/dnf"),
        ("Linux", "Oracle:Oracle-Linux:ol9-lvm", "Linux/dnf"),
        ("Linux", "almalinux:almalinux-x86_64:9-gen2", "Linux/dnf"),
        ("Linux", "resf:rockylinux-x86_64:9-base", "Linux/dnf"),
        ("Linux", "ciq:rocky:9", "Linux/dnf"),
        ("Linux", "SUSE:sles-15-sp5:gen2", "Linux/zypper"),
        ("Linux", "MicrosoftCBLMariner:cbl-mariner:cbl-mariner-2", "Linux/tdnf"),
        ("Linux", "contoso:appliance:1", "Linux"),
        ("Linux", f"{GROUP}/providers/Microsoft.Compute/images/golden", "Linux"),
        ("Linux", "", "Linux"),
        ("", UBUNTU, ""),
        ("FreeBSD", "", ""),
    ],
)
def test_kinds_of_machines(os_type: str, image: str, kind: str) -> None:
    assert kind_of(os_type, image) == kind


@pytest.mark.parametrize(
    ("kind", "canary", "may"),
    [
        ("Windows", {"Windows"}, True),
        ("Windows", {"Linux/apt"}, False),
        ("Linux/apt", {"Windows"}, False),
        ("Linux/apt", {"Linux/apt", "Windows"}, True),
        ("Linux/apt", {"Linux/dnf"}, False),
        ("Linux/zypper", {"Linux/dnf", "Linux/apt"}, False),
        # Where a package manager is not known, nothing is certain.
        ("Linux", {"Linux/apt"}, True),
        ("Linux/apt", {"Linux"}, True),
        ("Linux", {"Windows"}, False),
        ("", {"Windows"}, True),
        ("Windows", {"", "Linux"}, True),
        ("Windows", set[str](), True),
    ],
)
def test_kinds_of_images_that_can_be_pinned(kind: str, canary: set[str], may: bool) -> None:
    assert can_be_pinned(kind, canary) is may


def test_the_kinds_of_the_first_ring_are_those_of_all_that_it_selects() -> None:
    machines = [
        machine(1, ring="canary"),
        machine(2, image=RHEL, ring="canary"),
        machine(3, "Windows", SERVER),
        machine(4, ring="canary"),
    ]
    assert canary_kinds(machines, policy().rings) == ["Linux/apt", "Linux/dnf"]
    assert canary_kinds(machines[2:3], policy().rings) == []
    reversed_rings = [{"name": "broad", "after": "canary"}, policy().to_wire()["rings"][0]]
    assert canary_kinds(machines[2:], policy(rings=reversed_rings).rings) == ["Linux/apt"]


# --- what a plan says


@pytest.mark.parametrize(
    ("choice", "then"),
    [
        ("skip", "these machines are skipped (withoutPin: skip)"),
        ("wait", "their rings wait for an approval to install them unpinned (withoutPin: wait)"),
        ("install", "they install all that the policy selects (withoutPin: install)"),
    ],
)
def test_a_plan_names_what_the_first_ring_misses_and_what_is_done_then(choice: str, then: str) -> None:
    fleet = [
        machine(1, ring="canary"),
        machine(2, "Windows", SERVER),
        machine(3, "Windows", SERVER),
        machine(4, image=RHEL),
    ]
    found = notes(policy(withoutPin=choice), *fleet)
    assert found == [
        "Ring canary has no machine of Linux with the package manager dnf, and later rings have 1: nothing can be"
        f" pinned for them, and {then}.",
        f"Ring canary has no machine of Windows, and later rings have 2: nothing can be pinned for them, and {then}.",
    ]
    assert set(found) <= set(make_plan(fleet, policy(withoutPin=choice), Topology()).plan.notes)
    assert notes(policy(pinRings=False), *fleet) == []


def test_a_percentage_that_misses_an_image_is_noted() -> None:
    fleet = [machine(1, ring="canary"), machine(2, image=NOBLE), machine(3, image=NOBLE), machine(4)]
    assert notes(policy(), *fleet) == [
        "Ring canary has no machine of these images of later rings, which get only what has the same KB numbers or"
        f" versions: {NOBLE} (2)."
    ]
    assert notes(policy(), machine(1, ring="canary"), machine(2, image=UBUNTU.upper())) == []
    many = [machine(number, image=f"canonical:ubuntu:{number}") for number in range(2, 9)]
    (note,) = notes(policy(), machine(1, ring="canary"), *many)
    assert note.endswith("canonical:ubuntu:6 (1) and 2 more.")


def test_a_first_ring_without_machines_pins_nothing() -> None:
    assert notes(policy(), machine(1)) == [
        "Ring canary selects no machine: nothing can be pinned, and all machines of later rings are skipped."
    ]
    assert notes(policy(), machine(1, ring="canary")) == []


def test_only_machines_with_work_are_counted_and_all_of_the_first_ring() -> None:
    fleet = [machine(1, ring="canary"), machine(2, "Windows", SERVER, ring="canary"), machine(3, "Windows", SERVER)]
    of = policy()
    ended = {"vm-02": ("no_pending_patches", "-")}
    assert not [note for note in make_plan(fleet, of, Topology(), ended).plan.notes if "pinned" in note]
    chosen = choose_rings(fleet, order_rings(of.rings))
    assert pin_notes(of, fleet[:1] + fleet[2:], fleet[:1], chosen) == []


# --- what waits for an approval


def test_rings_with_machines_that_cannot_be_pinned_wait_for_an_approval() -> None:
    fleet = [machine(1, ring="canary"), machine(2, "Windows", SERVER)]
    waiting = with_approvals(policy(withoutPin="wait"), fleet)
    assert [ring.approval and ring.approval.within for ring in waiting.rings] == [None, timedelta(hours=24)]
    own = policy(
        withoutPin="wait",
        rings=[
            policy().to_wire()["rings"][0],
            {"name": "broad", "approval": {"within": "PT2H", "requireSecondPerson": True}},
        ],
    )
    assert with_approvals(own, fleet) == own
    assert with_approvals(policy(withoutPin="wait"), fleet, {"vm-02"}) == policy(withoutPin="wait")
    assert with_approvals(policy(withoutPin="wait"), fleet[:1]) == policy(withoutPin="wait")
    for choice in ("skip", "install"):
        assert with_approvals(policy(withoutPin=choice), fleet) == policy(withoutPin=choice)


def test_the_approval_of_a_ring_is_known_before_a_plan_is() -> None:
    waits = policy(withoutPin="wait")
    canary, broad = waits.rings
    assert waits.approval_of(canary) is None
    needed = waits.approval_of(broad)
    assert needed
    assert needed.within == timedelta(hours=24)
    assert policy().approval_of(policy().rings[1]) is None
    assert policy(withoutPin="install").approval_of(broad) is None


# --- what is certain without a fleet


@pytest.mark.parametrize(
    ("first", "scope", "count"),
    [
        ({"machineIds": [machine(1).id]}, {"osTypes": ["Windows", "Linux"]}, 1),
        ({"machineIds": [machine(1).id, machine(1).id.upper()]}, {"osTypes": ["Windows", "Linux"]}, 1),
        ({"machineIds": [machine(1).id, machine(2).id]}, {"osTypes": ["Windows", "Linux"]}, 0),
        ({"machineIds": [machine(1).id]}, {"osTypes": ["Linux"]}, 0),
        ({"machineIds": [machine(1).id]}, {"locations": ["westeurope"]}, 0),
        ({"percent": 5}, {"osTypes": ["Windows", "Linux"]}, 0),
        ({"percent": 5}, {"osTypes": ["Windows", "Linux"], "machineIds": [machine(n).id for n in range(20)]}, 1),
        ({"percent": 5}, {"osTypes": ["Windows", "Linux"], "machineIds": [machine(n).id for n in range(30)]}, 0),
        ({"percent": 1}, {"osTypes": ["Windows", "Linux"], "machineIds": [machine(n).id for n in range(2)]}, 1),
    ],
)
def test_a_first_ring_that_is_too_small_for_the_scope_is_certain(
    first: dict[str, Any], scope: dict[str, Any], count: int
) -> None:
    of = policy(scope=scope, rings=[{"name": "canary", **first}, {"name": "broad"}])
    found = certain_notes(of)
    assert len(found) == count
    if count:
        assert found[0].startswith("Ring canary holds 1 machine, and the scope is for Windows and Linux: ")
        assert found[0].endswith("these machines are skipped (withoutPin: skip).")
    assert certain_notes(of.model_copy(update={"pin_rings": False})) == []


def test_without_pin_counts_with_pinned_rings_only() -> None:
    with pytest.raises(PolicyError) as caught:
        policy(pinRings=False, withoutPin="install")
    (problem,) = caught.value.errors
    assert (problem.path, problem.message) == (
        "withoutPin",
        "counts with pinRings only: set pinRings, or leave it out",
    )
    assert policy().without_pin.value == "skip"
    with pytest.raises(PolicyError):
        policy(withoutPin="maybe")
