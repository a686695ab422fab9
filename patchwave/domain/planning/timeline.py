"""The timeline of a phase: the running lane's own admission, asked with expected ends instead of real ones."""

import heapq
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from patchwave.domain.planning.admission import Admission, Candidate, lane_scope
from patchwave.domain.planning.critical_path import Job


class Slice(NamedTuple):
    """When a machine is expected to be worked on, in seconds, and the group that held it back last (empty: none)."""

    start: float
    end: float
    after: str


def draw_timeline(
    jobs: Iterable[Job],
    waves: Mapping[str, int],
    *,
    at: float = 0.0,
    ramp: bool = False,
    ended: int = 0,
    wave_barrier: bool = False,
    bake_seconds: float = 0.0,
    openings: Mapping[str, float] = {},
) -> dict[str, Slice]:
    """When each machine of a phase starts and ends, by key.

    Args:
        jobs: of all lanes of the phase, in the order in which they are looked at.
        waves: the wave of each machine inside its lane.
        at: when the phase begins, in seconds.
        ramp: as `Admission`.
        ended: machines of the ring that have ended before.
        wave_barrier: a wave starts when the one before it has ended.
        bake_seconds: how long a lane rests after each wave.
        openings: groups that are held at first, and the second at which each is released.
    """
    ordered = list(jobs)
    seconds = {job.key: job.seconds for job in ordered}
    lanes = {job.key: job.lane for job in ordered}
    admission = Admission(ramp=ramp, ended=ended, wave_barrier=wave_barrier)
    admission.add(Candidate(job.key, job.lane, waves[job.key], job.permits) for job in ordered)
    slices: dict[str, Slice] = {}
    # The end of a machine in its lane, or (with an empty key) the release of a scope.
    events: list[tuple[float, str, str]] = []
    for group, second in openings.items():
        if second > at:
            admission.hold(group, "window")
            heapq.heappush(events, (second, "", group))
    while True:
        for started in admission.start():
            end = at + seconds[started.key]
            slices[started.key] = Slice(at, end, started.after)
            heapq.heappush(events, (end, started.key, lanes[started.key]))
        if not events:
            return slices
        at = events[0][0]
        # Everything that happens at one moment is known before a machine starts.
        while events and events[0][0] == at:
            _, key, lane = heapq.heappop(events)
            if not key:
                admission.release(lane)
            elif admission.end(key).wave_is_over and bake_seconds and len(slices) < len(seconds):
                admission.hold(lane_scope(lane), "bake time")
                heapq.heappush(events, (at + bake_seconds, "", lane_scope(lane)))
