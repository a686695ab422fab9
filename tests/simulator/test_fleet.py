"""Fleets: the three forms of a file, made-up ones, and what is refused."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import pytest

from local.simulator.clock import Clock
from local.simulator.fleet import FleetError, generate_fleet, read_fleet
from tests.simulator.conftest import machine_id

FLAT = {"id": machine_id(1), "name": "vm-001", "location": "westeurope", "tags": {"env": "prod"}}
SYSTEM = {"storageProfile": {"osDisk": {"osType": "Linux"}}}


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document))
    return path


@pytest.mark.parametrize(
    "document",
    [
        [FLAT | SYSTEM],
        {"value": [FLAT | {"properties": SYSTEM}]},
        {"data": [FLAT | {"properties": SYSTEM, "type": "microsoft.compute/virtualmachines"}]},
    ],
    ids=["az vm list", "ARM list", "Resource Graph"],
)
def test_the_three_forms_of_a_fleet_file(tmp_path: Path, document: Any) -> None:
    (machine,) = read_fleet(write(tmp_path / "fleet.json", document), Clock(60), 1)
    assert machine.id == machine_id(1)
    assert machine.location == "westeurope"


@pytest.mark.parametrize(
    "document",
    [
        "nothing",
        [{"id": "/subscriptions/x"}],
        [FLAT | SYSTEM, FLAT | SYSTEM | {"id": machine_id(1).upper()}],
        [FLAT | SYSTEM | {"simulation": {"powr": "stopped"}}],
    ],
    ids=["no list", "no id", "twice", "unknown override"],
)
def test_what_is_no_fleet_is_refused(tmp_path: Path, document: Any) -> None:
    with pytest.raises((FleetError, ValueError)):
        read_fleet(write(tmp_path / "fleet.json", document), Clock(60), 1)


def test_the_same_seed_makes_the_same_fleet() -> None:
    first, second = ([(each.id, each.location) for each in generate_fleet(50, Clock(60), seed=7)] for _ in range(2))
    assert first == second
    assert first != [(each.id, each.location) for each in generate_fleet(50, Clock(60), seed=8)]


def test_ten_thousand_machines_load_in_seconds() -> None:
    began = time.monotonic()
    assert len(generate_fleet(10_000, Clock(60), seed=1)) == 10_000
    assert time.monotonic() - began < 20
