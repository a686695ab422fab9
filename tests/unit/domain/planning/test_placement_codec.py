"""Rosters: what is packed comes back as it was, in its order, and all that a phase carries fits into a payload."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from orchestrators.phase_starter import MAX_WAITING
from orchestrators.phase_window import MAX_RUNNING
from patchwave.domain.planning.placement_codec import PlacedMachine, PlacedMachines

ADAPTER: TypeAdapter[Any] = TypeAdapter(PlacedMachines)
MAX_PAYLOAD = 256 * 1024

texts = st.text(max_size=12)
machines = st.lists(
    st.builds(
        lambda key, lane, wave, size, permits, attempt: PlacedMachine(
            key=key, lane=lane, wave=wave, wave_size=size, permits=permits, attempt=attempt
        ),
        texts,
        st.sampled_from(["", "westeurope", "eastus"]),
        st.integers(0, 9),
        st.integers(1, 500),
        st.lists(texts, max_size=4),
        st.integers(1, 40),
    ),
    max_size=30,
)


@given(machines)
def test_placements_round_trip(machines: list[PlacedMachine]) -> None:
    wire = json.loads(ADAPTER.dump_json(machines))
    assert ADAPTER.validate_python(wire) == machines
    assert ADAPTER.validate_python(machines) == machines


def place(number: int, *, is_clustered: bool, is_in_set: bool) -> PlacedMachine:
    """The machine of that number in a large estate, with the rules that hold it apart from others."""
    home = f"/subscriptions/3f6d0f5e-8a3c-4b1d-9a64-6f1f0c2b7e11/resourcegroups/rg-web-{number // 400}"
    in_set = f"1|{number % 5}|availability-set:{home}/providers/microsoft.compute/availabilitysets/av-{number // 400}"
    own = [in_set] if is_in_set else [f"1||tag:cluster=sql-{number // 20}"] if is_clustered else []
    return PlacedMachine(
        key=hashlib.sha256(b"%d" % number).hexdigest()[:24],
        lane=f"region{number % 12}",
        wave=number // 300,
        wave_size=250,
        permits=[*own, f"1|{number % 3}|zones:region{number % 12}", "5500||run"],
    )


def test_what_a_phase_carries_fits_into_a_payload_when_a_third_of_its_machines_have_rules_of_their_own() -> None:
    running = [
        place(number, is_clustered=number % 5 == 0, is_in_set=number % 10 == 1)
        for number in sorted(range(MAX_RUNNING), key=lambda number: (number // 300, number % 12))
    ]
    waiting = [place(number, is_clustered=True, is_in_set=False) for number in range(6_000, 6_000 + MAX_WAITING)]
    assert len(ADAPTER.dump_json(running)) + len(ADAPTER.dump_json(waiting)) < MAX_PAYLOAD


def test_neighbours_that_share_everything_cost_their_keys() -> None:
    machines = [place(number, is_clustered=False, is_in_set=False) for number in range(0, 12 * 3_000, 36)]
    assert len({machine.lane for machine in machines}) == 1
    assert len(ADAPTER.dump_json(machines)) < 32 * len(machines)
