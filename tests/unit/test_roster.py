"""Rosters: what is packed comes back as it was, in its order, and a full one stays far below a payload's limit."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from domain.roster import Placed, Roster

ADAPTER: TypeAdapter[Any] = TypeAdapter(Roster)
LARGEST_PAYLOAD = 256 * 1024

texts = st.text(max_size=12)
machines = st.lists(
    st.builds(
        lambda key, lane, wave, size, places, attempt: Placed(
            key=key, lane=lane, wave=wave, wave_size=size, places=places, attempt=attempt
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
def test_what_is_packed_comes_back(roster: list[Placed]) -> None:
    wire = json.loads(ADAPTER.dump_json(roster))
    assert ADAPTER.validate_python(wire) == roster
    assert ADAPTER.validate_python(roster) == roster


def test_a_full_roster_of_clusters_and_sets_stays_far_below_the_limit_of_a_payload() -> None:
    roster = [
        Placed(
            key=f"{number:024x}",
            lane=f"region{number % 12}",
            wave=number % 40,
            wave_size=50,
            places=[
                "1||availability-set:/subscriptions/3f6d0f5e-8a3c-4b1d-9a64-6f1f0c2b7e11/resourcegroups/rg-web-"
                f"{number // 20}/providers/microsoft.compute/availabilitysets/av-{number // 20}|ud",
                f"1||tag:cluster=sql-{number // 2}",
                f"1|{number % 3}|zones:region{number % 12}",
                "1000||run",
            ],
        )
        for number in range(1_700)
    ]
    assert len(ADAPTER.dump_json(roster)) < LARGEST_PAYLOAD * 0.75
