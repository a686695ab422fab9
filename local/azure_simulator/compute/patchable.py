"""A machine that Update Manager patches: its pending patches, and at most one patch operation.

Nothing ticks: a machine stores scheduled events, and ``settle`` applies those that are due. An idle fleet of thousands
costs nothing.
"""

from __future__ import annotations

import random
from typing import Any, ClassVar

from local.azure_simulator.arm.names import folded
from local.azure_simulator.clock import NEVER, Clock
from local.azure_simulator.compute.behavior import PatchSimulation
from local.azure_simulator.compute.guest_agent import Guest
from local.azure_simulator.compute.operations import Operation
from local.azure_simulator.compute.patches import Patch, generate, spelt_out


class PatchableMachine[S: PatchSimulation]:
    """What virtual machines and Arc machines share. ``given`` is the ARM document of the fleet file."""

    TYPE: ClassVar[str]
    """The resource type, in the documented case."""

    def __init__(
        self,
        *,
        machine_id: str,
        location: str,
        os_type: str,
        simulation: S,
        seed: int,
        clock: Clock,
        tags: dict[str, str] | None = None,
        given: dict[str, Any] | None = None,
    ) -> None:
        parts = machine_id.split("/")
        self.id = machine_id
        self.folded = folded(machine_id)
        self.subscription_id, self.resource_group, self.name = parts[2], parts[4], parts[8]
        self.location = location
        self.os_type = os_type
        self.tags = tags or {}
        self.given = given or {}
        self.clock = clock
        self.simulation = simulation
        self.accepted = {"assess": 0, "install": 0}
        self.active: Operation | None = None
        self.own_operations: list[Operation] = []
        """Those that no client started: Azure's assessments, and what was before the simulator's start."""
        self.graph_row: dict[str, Any] | None = None
        """Cached for the Resource Graph tables: building thousands of rows for each query is slow."""
        self._source = random.Random(f"{seed}:{self.folded}")
        self._pending: list[Patch] | None = None
        self._failures: dict[str, int] = {}
        self.reboot_pending = False
        self.busy_until = 0.0
        self.updating_until = 0.0
        """End of the current PATCH or PUT of the machine."""

    def behave(self, simulation: S, changed: set[str] | None = None) -> None:
        """Apply new overrides.

        Args:
            simulation: all overrides of the machine from now on.
            changed: the changed fields; those of a state (power, busy, pending patches, a pending reboot) take effect
                at once. None means all of them.
        """
        self.simulation = simulation
        fresh = set(type(simulation).model_fields) if changed is None else changed
        if "reboot_pending" in fresh:
            self.reboot_pending = simulation.reboot_pending
        if fresh & {"pending_patches", "needs_ubuntu_pro"}:
            self._pending = None
        if "busy" in fresh:
            busy = simulation.busy
            self.busy_until = NEVER if busy is True else self.clock.now() + float(busy) * 60
        self._behave(fresh)

    def override(self, overrides: dict[str, Any]) -> None:
        """Merge overrides into the machine's own.

        Raises:
            pydantic.ValidationError: unknown key or impossible value.
        """
        kind = type(self.simulation)
        changed = kind.model_validate(overrides).model_fields_set
        current = self.simulation.model_dump(by_alias=True, exclude_unset=True)
        self.behave(kind.model_validate(current | overrides), changed)

    def _behave(self, fresh: set[str]) -> None:
        """Apply the changed overrides that the kind of machine has of its own."""

    @property
    def pending(self) -> list[Patch]:
        """The pending patches; generated on first use."""
        if self._pending is None:
            wanted = self.simulation.pending_patches
            pro = self.simulation.needs_ubuntu_pro
            esm = 12 if pro is True else int(pro)
            listed = spelt_out(wanted, self.os_type, self._source) if isinstance(wanted, list) else []
            count = 0 if isinstance(wanted, list) else wanted
            self._pending = listed + generate(self.os_type, count, esm, self._source, self.clock.started_at)
        return self._pending

    def settle(self, now: float) -> None:
        """Apply all events that are due by ``now``."""
        if self.active is not None and self.active.is_over(now):
            self._finish(self.active)

    def begin(self, operation: Operation) -> None:
        """Start an accepted assessment or installation."""
        if not operation.maintenance_run:
            self.accepted[operation.kind] += 1
        self.active = operation

    def _finish(self, operation: Operation) -> None:
        self.active = None
        completion = operation.completion
        if not completion.touches_guest:
            return
        self._pending = [left for patch in self.pending if (left := patch.without(completion.removed)) is not None]
        if completion.reboot_pending is not None:
            self.reboot_pending = completion.reboot_pending

    def is_busy(self, now: float) -> bool:
        """Whether an operation holds the machine."""
        return self.active is not None or now < max(self.busy_until, self.updating_until)

    def _guest(self, agent: str, too_old: dict[str, str] | None = None) -> Guest:
        return Guest(
            name=self.name,
            os_type=self.os_type,
            agent=agent,
            pending=self.pending,
            reboot_pending=self.reboot_pending,
            simulation=self.simulation,
            source=self._source,
            failures=self._failures,
            too_old=too_old,
        )
