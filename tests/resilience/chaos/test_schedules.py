"""Random schedules: kills, lost requests and answers, refusals and late or repeated completions, drawn from a seed.

``make chaos SEED=17`` plays schedule 17 alone. A schedule that fails is played again without parts of its faults, and
the failure shows what is left.
"""

from __future__ import annotations

import pytest

from tests.resilience.chaos.fault_schedule import FaultSchedule
from tests.resilience.chaos.schedule import SECONDS, Played, machine_ids, play, shrunk

_SCHEDULES = 200
_QUICK = 1


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """One test for each seed, or the one that was asked for."""
    if "seed" not in metafunc.fixturenames:
        return
    asked: int | None = metafunc.config.getoption("--seed")
    seeds = range(1, _SCHEDULES + 1) if asked is None else [asked]
    marked = [
        seed if asked is None and seed <= _QUICK else pytest.param(seed, marks=pytest.mark.chaos) for seed in seeds
    ]
    metafunc.parametrize("seed", marked, ids=[f"seed-{seed}" for seed in seeds])


@pytest.mark.timeout(900)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_schedule(seed: int) -> None:
    fault_schedule = FaultSchedule.of(seed, machine_ids(), SECONDS)
    played = play(fault_schedule)
    assert not played.problems, _told(fault_schedule, played)


@pytest.mark.chaos
@pytest.mark.timeout(900)
def test_the_same_seed_plays_the_same_schedule() -> None:
    first, second = (play(FaultSchedule.of(1, machine_ids(), SECONDS)) for _ in range(2))
    assert first == second


def _told(fault_schedule: FaultSchedule, played: Played) -> str:
    least = shrunk(fault_schedule)
    return "\n".join(
        [
            f"seed {fault_schedule.seed} (make chaos SEED={fault_schedule.seed}):",
            *played.problems,
            f"{played}",
            f"the fewest faults that still break it: {least}",
            *play(least).problems,
        ]
    )
