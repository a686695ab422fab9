"""The simulator's state: clock, machines, operations, limits, faults and the request log."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from local.azure_simulator.arm.names import folded
from local.azure_simulator.arm.regions import Geography
from local.azure_simulator.clock import Clock
from local.azure_simulator.compute.machine import Machine
from local.azure_simulator.compute.operations import Operations
from local.azure_simulator.compute.scale_sets import ScaleSet, ScaleSets
from local.azure_simulator.hybrid_compute.machine import AnyMachine, ArcMachine
from local.azure_simulator.server import errors
from local.azure_simulator.server.faults import Faults
from local.azure_simulator.server.json_readers import dig
from local.azure_simulator.server.metrics import Metrics
from local.azure_simulator.server.request_log import RequestLog
from local.azure_simulator.server.throttle import Throttle


def machine_id(subscription_id: str, group: str, name: str) -> str:
    """The ARM id of a virtual machine."""
    return f"/subscriptions/{subscription_id}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{name}"


def arc_machine_id(subscription_id: str, group: str, name: str) -> str:
    """The ARM id of an Arc machine."""
    return f"/subscriptions/{subscription_id}/resourceGroups/{group}/providers/Microsoft.HybridCompute/machines/{name}"


@dataclass(slots=True)
class AvailabilitySet:
    """An availability set, made from the machines that name it."""

    id: str
    name: str
    subscription_id: str
    resource_group: str
    location: str
    members: list[Machine]


class AzureState:
    """The state behind all endpoints of one simulator process."""

    def __init__(
        self,
        machines: Sequence[AnyMachine],
        clock: Clock,
        base_url: str,
        *,
        seed: int = 0,
        retry_after: int | None = None,
        geography: Geography | None = None,
        graph_lag: float = 60,
        scale_sets: Iterable[ScaleSet] = (),
    ) -> None:
        source = random.Random(f"world:{seed}")
        self.clock = clock
        self.base_url = base_url
        self.seed = seed
        self.retry_after = retry_after
        """Retry-After in polls of patch operations, in real seconds; none omits the header."""
        self.graph_lag = graph_lag
        """Simulated seconds by which Resource Graph's patch tables lag."""
        self.geography = geography or Geography()
        self.tenant_id = str(uuid.UUID(int=source.getrandbits(128), version=4))
        self.client_id = str(uuid.UUID(int=source.getrandbits(128), version=4))
        self.operations = Operations(clock, base_url, seed)
        self.metrics = Metrics(clock)
        self.throttle = Throttle(clock, self.metrics)
        self.faults = Faults(seed)
        self.request_log = RequestLog()
        self.machines: dict[str, AnyMachine] = {machine.folded: machine for machine in machines}
        """Virtual machines and Arc machines."""
        self.by_subscription: dict[str, list[AnyMachine]] = {}
        self.by_group: dict[tuple[str, str], list[AnyMachine]] = {}
        self.sets: dict[str, AvailabilitySet] = {}
        self.scale_sets = ScaleSets(scale_sets)
        for machine in machines:
            subscription = machine.subscription_id.casefold()
            self.by_subscription.setdefault(subscription, []).append(machine)
            self.by_group.setdefault((subscription, folded(machine.resource_group)), []).append(machine)
            if isinstance(machine, Machine):
                self._join_set(machine)
                self.scale_sets.join(machine)

    def _join_set(self, machine: Machine) -> None:
        set_id = str(dig(machine.given, "properties", "availabilitySet", "id") or "")
        parts = set_id.split("/")
        if len(parts) != 9:
            return
        found = self.sets.setdefault(
            set_id.casefold(), AvailabilitySet(set_id, parts[8], parts[2], parts[4], machine.location, [])
        )
        given = dig(machine.given, "properties", "instanceView", "platformUpdateDomain")
        known = [domain for domain in (machine.simulation.update_domain, given) if isinstance(domain, int)]
        machine.update_domain = known[0] if known else len(found.members) % 5
        machine.fault_domain = len(found.members) % 3
        found.members.append(machine)

    def subscription(self, subscription_id: str) -> list[AnyMachine]:
        """The machines of a subscription.

        Raises:
            ArmError: 404 SubscriptionNotFound.
        """
        found = self.by_subscription.get(subscription_id.casefold())
        if found is None:
            raise errors.subscription_not_found(subscription_id)
        return found

    def group(self, subscription_id: str, group: str) -> list[AnyMachine]:
        """The machines of a resource group.

        Raises:
            ArmError: 404 for the subscription or the group.
        """
        self.subscription(subscription_id)
        found = self.by_group.get((folded(subscription_id), folded(group)))
        if found is None:
            raise errors.group_not_found(group)
        return found

    def scope(self, subscription_id: str, group: str) -> list[AnyMachine]:
        """The machines of a resource group, or without one of the subscription; errors as for these."""
        return self.group(subscription_id, group) if group else self.subscription(subscription_id)

    def machine(self, subscription_id: str, group: str, name: str) -> Machine:
        """A virtual machine, settled to now.

        Raises:
            ArmError: 404 for the subscription, the group or the machine.
        """
        self.group(subscription_id, group)
        found = self.machines.get(folded(machine_id(subscription_id, group, name)))
        if not isinstance(found, Machine) or found.simulation.is_gone:
            raise errors.resource_not_found(Machine.TYPE, name, group)
        found.settle(self.clock.now())
        return found

    def arc_machine(self, subscription_id: str, group: str, name: str) -> ArcMachine:
        """An Arc machine, settled to now; errors as for ``machine``."""
        self.group(subscription_id, group)
        found = self.machines.get(folded(arc_machine_id(subscription_id, group, name)))
        if not isinstance(found, ArcMachine) or found.simulation.is_gone:
            raise errors.resource_not_found(ArcMachine.TYPE, name, group)
        found.settle(self.clock.now())
        return found

    def settled(self) -> Iterator[AnyMachine]:
        """All machines except deleted ones, settled one by one, because thousands take a while."""
        now = self.clock.now()
        for machine in list(self.machines.values()):
            if not machine.simulation.deleted:
                machine.settle(now)
                yield machine

    def change(self, wanted: str, overrides: dict[str, Any]) -> AnyMachine:
        """Merge overrides into a machine's own at run time.

        Raises:
            KeyError: no such machine.
            pydantic.ValidationError: unknown key or impossible value.
        """
        machine = self.machines[folded(wanted)]
        machine.settle(self.clock.now())
        machine.override(overrides)
        machine.graph_row = None
        return machine

    def state(self, machine: AnyMachine) -> dict[str, Any]:
        """The simulator's own view of a machine, for tests and reports."""
        active = machine.active
        return {
            "id": machine.id,
            **machine.state(self.clock.now()),
            "rebootPending": machine.reboot_pending,
            "pendingPatches": len(machine.pending),
            "operation": None if active is None else {"id": active.id, "kind": active.kind},
            "accepted": dict(machine.accepted),
            "simulation": machine.simulation.model_dump(mode="json", by_alias=True, exclude_unset=True),
        }

    def intervals(self, kind: str = "") -> list[dict[str, Any]]:
        """Start and end of accepted operations, in simulated seconds, to check concurrency."""
        now = self.clock.now()
        return [
            {
                "machine": self.machines[each.machine].id,
                "kind": each.kind,
                "startedAt": self.clock.stamp(each.started),
                "start": each.started,
                "end": each.ends if each.is_over(now) else None,
            }
            for each in self.operations.all()
            if each.machine in self.machines and kind in ("", each.kind)
        ]

    def accepted(self) -> dict[str, dict[str, int]]:
        """Accepted patch operations by machine id, for the machines that have any."""
        return {
            machine.id: dict(machine.accepted) for machine in self.machines.values() if any(machine.accepted.values())
        }
