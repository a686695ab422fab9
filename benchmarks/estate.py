"""The fleet of the benchmark, and the least time that Azure's limits leave for it.

One subscription and one region, so that all machines share one bucket of patch operations; every machine needs patches.
"""

from __future__ import annotations

import json
from pathlib import Path
from random import Random
from typing import Any

SUBSCRIPTION = "5f1c0a3e-0000-4000-8000-000000000000"
LOCATION = "westeurope"
ASSESS_MINUTES = (2.0, 3.0)
INSTALL_MINUTES = (10.0, 30.0)

PATCH_OPERATIONS_A_MINUTE = 200
PATCH_OPERATIONS_AT_ONCE = 600
READS_A_SECOND = 25
"""Of Compute and of Resource Manager, per subscription (and region): what the simulator enforces."""

_SLACK_MINUTES = 38.0


def write_fleet(path: Path, machines: int, seed: int) -> Path:
    """A fleet file of so many machines; the same one for the same seed."""
    random = Random(f"estate/{machines}/{seed}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps({"machines": [_machine(number, random) for number in range(machines)]}))
    return path


def _machine(number: int, random: Random) -> dict[str, Any]:
    name = f"vm-{number:05d}"
    group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-{number % 40:02d}"
    return {
        "id": f"{group}/providers/Microsoft.Compute/virtualMachines/{name}",
        "name": name,
        "location": LOCATION,
        "tags": {"app": f"app-{number % 25:02d}"},
        "hardwareProfile": {"vmSize": "Standard_D2s_v5"},
        "storageProfile": {"osDisk": {"osType": random.choice(("Linux", "Windows"))}},
        "simulation": {
            "assessMinutes": round(random.uniform(*ASSESS_MINUTES), 2),
            "installMinutes": round(random.uniform(*INSTALL_MINUTES), 2),
            "pendingPatches": [
                {"name": f"patch-{patch}", "classification": "Security"} for patch in range(random.randint(2, 8))
            ],
            "rebootRequired": False,
        },
    }


def throttle_minutes(operations: int, after: float = 0.0, taken: int = 0) -> float:
    """Simulated minutes before the last of so many patch operations can be accepted.

    Args:
        after: minutes since the bucket was full.
        taken: operations that were accepted in them.
    """
    there = min(PATCH_OPERATIONS_AT_ONCE, PATCH_OPERATIONS_AT_ONCE + after * PATCH_OPERATIONS_A_MINUTE - taken)
    return max(0.0, (operations - there) / PATCH_OPERATIONS_A_MINUTE)


def expected_minutes(machines: int) -> float:
    """About how many simulated minutes a good run takes, with the ends of both steps: what the speed is chosen by."""
    return throttle_minutes(2 * machines) + _SLACK_MINUTES


def speed_for(machines: int, seconds_per_machine: float, least_seconds: float) -> float:
    """Simulated seconds per real second, so that this machine has so many real seconds for each machine."""
    return 60 * expected_minutes(machines) / max(least_seconds, machines * seconds_per_machine)
