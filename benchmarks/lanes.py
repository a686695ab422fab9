"""Measurements side by side: a run mostly waits for the simulator's clock, and leaves half of the machine idle."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from multiprocessing import get_context
from typing import Any

from local.processes import die_with_parent


@dataclass(frozen=True, slots=True)
class Step:
    """One measurement.

    Attributes:
        name: shown while it runs.
        seconds: about how long it takes; the longest begin first, so that no long one is left at the end.
        measure: gives the result. It is called in another process: a ``partial`` of a function of a module.
        keep: puts the result where it belongs.
    """

    name: str
    seconds: float
    measure: Callable[[], Any]
    keep: Callable[[Any], None]


def measured(steps: Sequence[Step], lanes: int) -> Iterator[Step]:
    """Measure so many at a time; each step comes back once its result is kept.

    Each has a process of its own, since the counters beside a run (the relay before the storage, the samples of
    processes) work in the one that measures, and must not wait for those of another run.

    Raises:
        Exception: that of a measurement, once those in progress have ended. No further one begins.
    """
    waiting = iter(sorted(steps, key=lambda step: -step.seconds))
    context = get_context("spawn")
    with ProcessPoolExecutor(lanes, context, die_with_parent, max_tasks_per_child=1) as pool:

        def begin(step: Step) -> Future[Any]:
            sys.stderr.write(f"{time.strftime('%H:%M:%S')} {step.name} …\n")
            return pool.submit(step.measure)

        in_progress = {begin(step): step for step in islice(waiting, lanes)}
        while in_progress:
            done, _ = wait(in_progress, return_when=FIRST_COMPLETED)
            for each in done:
                step = in_progress.pop(each)
                step.keep(each.result())
                yield step
            in_progress |= {begin(step): step for step in islice(waiting, len(done))}
