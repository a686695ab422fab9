"""What the rules keep apart inside a run is kept apart between runs: judged by what Azure saw."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from tests.support.product import Product, wait_until

type Json = dict[str, Any]

GROUP = "/subscriptions/11111111-1111-4111-8111-111111111111/resourceGroups/rg/providers/Microsoft.Compute"
LONG = {"installMinutes": 60, "assessMinutes": 2}


def entry(name: str, location: str = "westeurope", **fields: Any) -> Json:
    simulation = LONG | fields.pop("simulation", {})
    return {
        "id": f"{GROUP}/virtualMachines/{name}",
        "name": name,
        "location": location,
        "osType": "Linux",
        "tags": {},
        "simulation": simulation,
        **fields,
    }


AV = {"id": f"{GROUP}/availabilitySets/av"}
FLEET = [
    entry("z2", zones=["2"], tags={"cluster": "c"}),
    entry("u0", availabilitySet=AV, simulation={"updateDomain": 0}),
    entry("u1", availabilitySet=AV, simulation={"updateDomain": 1}),
    entry("ne", "northeurope"),
    entry("w1"),
]


@pytest.fixture(scope="module")
def apart(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """The product on two update domains of a set, machines of no group, and one in the paired region."""
    folder = tmp_path_factory.mktemp("apart")
    fleet = folder / "fleet.json"
    fleet.write_text(json.dumps({"machines": FLEET}))
    product = Product.open(folder, fleet)
    try:
        yield product
    finally:
        product.close()


def start(product: Product, name: str) -> str:
    return product.start([f"{GROUP}/virtualMachines/{name}"])


def interval(product: Product, name: str) -> tuple[float, float]:
    (found,) = [each for each in product.intervals() if each["machine"].lower().endswith(f"/{name}")]
    return found["start"], found["end"]


def test_three_runs_over_one_set_and_a_region_pair_go_one_after_the_other(apart: Product) -> None:
    names = {start(apart, name): name for name in ("u0", "u1", "ne")}
    waiting = wait_until(
        lambda: [run for run in map(apart.run, names) if run["state"] == "awaiting_run"],
        what=lambda: str([apart.run(run_id) for run_id in names]),
    )
    assert any(f"the run {run_id}" in waiting[0]["waitingFor"] for run_id in names)
    assert "both work on " in waiting[0]["waitingFor"]
    for run_id in names:
        run = apart.wait(run_id)
        assert (run["state"], run["countsByOutcome"], run["waitingFor"]) == ("completed", {"patched": 1}, ""), run
    intervals = sorted(interval(apart, name) for name in names.values())
    assert all(earlier <= later for (_, earlier), (later, _) in pairwise(intervals)), intervals


def test_runs_that_share_no_group_go_side_by_side(apart: Product) -> None:
    runs = [start(apart, name) for name in ("w1", "z2")]
    for run_id in runs:
        assert apart.wait(run_id)["state"] == "completed"
    one, other = interval(apart, "w1"), interval(apart, "z2")
    assert max(one[0], other[0]) < min(one[1], other[1])
