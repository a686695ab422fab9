"""A worker dies or a connection breaks at every external effect of a run: nothing is lost or installed twice."""

from __future__ import annotations

from itertools import cycle

import pytest

from tests.resilience.chaos.effects import Way
from tests.resilience.chaos.systematic import MACHINES, Attempt, Rig

_SPREAD = 4
_SHARES = 2
"""Each way is cut into so many tests, which test processes share."""
_STEPS = {Way.KILL_AFTER: 1, Way.RESET_AFTER: 1, Way.RESET_BEFORE: 1, Way.KILL_BEFORE: 4}
"""A worker that dies before an effect leaves the world as it was after the one before it: each fourth is enough to see
that both ends of a request are broken alike. A lost request has to be noticed by its sender."""


def _judge(attempt: Attempt) -> None:
    where = f"effect {attempt.number} ({attempt.effect or 'none'}), {attempt.way}"
    assert not attempt.problems, f"{where}:\n" + "\n".join(attempt.problems)
    assert attempt.completed == MACHINES, where


@pytest.mark.chaos
@pytest.mark.timeout(900)
@pytest.mark.parametrize("share", range(1, _SHARES + 1))
@pytest.mark.parametrize("way", Way)
def test_at_every_effect(rig: Rig, way: Way, share: int) -> None:
    spoilt = 0
    step = _STEPS[way]
    for attempt in rig.every(way, first=1 + step * (share - 1), step=step * _SHARES):
        _judge(attempt)
        spoilt += bool(attempt.effect)
    assert spoilt > 20 // step, "the run has fewer effects than it can have"


@pytest.mark.timeout(300)
def test_at_some_effects(rig: Rig) -> None:
    """The selection of `make test`: a few effects over the whole run, in every way."""
    effects = rig.attempt(0, Way.KILL_BEFORE).effects
    numbers = [1 + effects * part // (_SPREAD + 2) for part in range(1, _SPREAD + 1)]
    attempts = [rig.attempt(number, way) for number, way in zip(numbers, cycle(Way), strict=False)]
    for attempt in attempts:
        _judge(attempt)
    # How many effects a run has depends on which writes share a transaction: the last may not be reached.
    assert sum(bool(attempt.effect) for attempt in attempts) > _SPREAD // 2
