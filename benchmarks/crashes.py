"""M12: the worker is killed before and after its external effects, one per run; what became of the machines.

The scheme and the judge are those of `make chaos`, which kills at every single effect; here a share of them is enough
for the figures.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.resilience.chaos.effects import Way
from tests.resilience.chaos.systematic import MACHINES, Rig

WAYS = (Way.KILL_BEFORE, Way.KILL_AFTER)


def measure(folder: Path, step: int) -> dict[str, Any]:
    """Kill at each ``step``-th effect, once before it is sent and once after.

    ``completed`` is the share of machines that were patched; ``beyond`` the most activities that were repeated although
    the worker did not have them in hand.
    """
    with Rig.open(folder) as rig:
        attempts = [attempt for way in WAYS for attempt in rig.every(way, step=step)]
    spoilt = [attempt for attempt in attempts if attempt.effect]
    return {
        "effects": max(attempt.effects for attempt in attempts),
        "kills": len(spoilt),
        "completed": sum(attempt.completed for attempt in attempts) / (MACHINES * len(attempts)),
        "lost": sum(attempt.lost for attempt in attempts),
        "doubleRows": sum(attempt.duplicates for attempt in attempts),
        "installedTwice": sum(attempt.double_installs for attempt in attempts),
        "beyond": max(max(0, attempt.repeated - attempt.in_flight) for attempt in attempts),
        "problems": [f"{each.way} {each.number} {each.effect}: {text}" for each in attempts for text in each.problems],
    }
