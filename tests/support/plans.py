"""Plans of a run, as storage hands them out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from patchwave.domain.planning.admission import Permit
from patchwave.domain.planning.placement_codec import PlacedMachine
from patchwave.domain.planning.plan import ExcludedMachine, Makespan, Plan, PlannedMachine
from patchwave.domain.planning.plan import PlannedRing as RingOfPlan
from tests.support.factories import machine


def planned_machine(number: int, **changes: Any) -> PlannedMachine:
    fields: dict[str, Any] = {
        "id": machine(number).id,
        "ring": "canary",
        "phase": 1,
        "lane": "westeurope",
        "wave": 1,
        "groups": ["run"],
        "predicted_start": float(number),
        "predicted_end": number + 600.0,
        "placement_reasons": ["ring canary by tag"],
    }
    return PlannedMachine(**{**fields, **changes})


def place(one: PlannedMachine) -> PlacedMachine:
    return PlacedMachine(
        key=key_of(one),
        lane=one.lane,
        wave=one.wave,
        wave_size=3,
        permits=[Permit("run", 20).text, Permit("zones:westeurope", 1, "zone|1").text],
    )


def key_of(one: PlannedMachine | ExcludedMachine) -> str:
    return machine(int(one.id.rpartition("-")[2])).key


def make(machines: Sequence[PlannedMachine], excluded: Sequence[ExcludedMachine] = (), **changes: Any) -> Plan:
    fields: dict[str, Any] = {
        "policy": "monthly",
        "rings": [
            RingOfPlan(name="canary", machines=2, phases=[["westeurope"], ["northeurope"]]),
            RingOfPlan(name="broad", machines=1, phases=[["westeurope", "eastus"]], approval=True),
        ],
        "machines": list(machines),
        "excluded": list(excluded),
        "makespan": Makespan(predicted_seconds=1200.5, lower_bound_seconds=1100),
        "notes": ["zones of two subscriptions are not compared"],
    }
    return Plan(**{**fields, **changes})


def in_order(plan: Plan) -> list[PlacedMachine]:
    """As the planner does: by ring, phase, predicted start."""
    rings = [ring.name for ring in plan.rings]
    ordered = sorted(plan.machines, key=lambda one: (rings.index(one.ring), one.phase, one.predicted_start, one.id))
    return [place(one) for one in ordered]
