"""When to poll an operation: first near its expected end, then less and less often, and never many at once.

Azure does not announce the end of an operation, and every poll costs a read. An assessment takes two minutes. An
installation may take hours, but about as long as the last one on the same machine, and about as long on similar
machines. Moments are seconds of one clock, given by the caller.
"""

from collections import Counter, deque
from dataclasses import dataclass
from heapq import heappop, heappush
from statistics import median

from patchwave.domain.azure.operation import OperationKind

NEAR_THE_END = 0.9
"""Of the time that the machine's last installation took, which includes what was done after it."""
_DEFAULT_POLLS = {OperationKind.ASSESS: 5, OperationKind.INSTALL: 12}
"""Poll intervals to the first poll without an estimate: two and a half minutes, and six."""
_GROWTH = 0.3
"""Of the time that an operation has taken so far: the wait to the next poll."""
_SPARE_LOOKS = 4
"""With few operations in progress, reads are to spare: no wait is longer than this multiple of one round of polls."""
MAX_POLLS = 20
"""The longest wait in poll intervals: after its run was stopped, an operation may run that long without a poll."""
_LOOKS_SHARE = 0.5
"""Share of our reads for polls of operations. The rest is for reads of machines."""
_GRAINS_PER_POLL = 10
_REMEMBERED = 50


@dataclass(frozen=True, slots=True)
class TrackedOperation:
    """An operation: its name, the subscription and region that count it, and what is like it (kind, system)."""

    name: str
    place: str
    kind: OperationKind
    os_type: str


class _PollSlots:
    """Which moments are taken, in grains of time that hold as many polls as there are reads for."""

    def __init__(self, grain: float, looks_per_second: float) -> None:
        self._grain = grain
        self._room = max(1, int(grain * looks_per_second))
        self._taken: Counter[int] = Counter()
        self._pruned_at = 0

    def book(self, now: float, wanted: float, latest: float) -> float:
        """The first free moment from ``wanted`` on; ``latest`` when there is none before."""
        number = int(wanted / self._grain)
        last = int(latest / self._grain)
        while self._taken[number] >= self._room and number < last:
            number += 1
        moment = max(wanted, (number + self._taken[number] / self._room) * self._grain)
        self._taken[number] += 1
        self._forget_before(int(now / self._grain))
        return min(moment, latest)

    def _forget_before(self, number: int) -> None:
        if number > self._pruned_at:
            self._pruned_at = number
            for past in [each for each in self._taken if each < number]:
                del self._taken[past]


class _InFlight:
    """Operations that run as far as is known, each until it would have been polled again.

    They are counted at every poll; a heap of the moments avoids a walk over all of them.
    """

    def __init__(self) -> None:
        self._until: dict[str, float] = {}
        self._moments: list[tuple[float, str]] = []

    def put(self, name: str, until: float) -> None:
        self._until[name] = until
        heappush(self._moments, (until, name))

    def drop(self, name: str) -> None:
        self._until.pop(name, None)

    def count(self, now: float) -> int:
        while self._moments and self._moments[0][0] < now:
            until, name = heappop(self._moments)
            if self._until.get(name) == until:
                del self._until[name]
        return len(self._until)


class PollSchedule:
    """What one worker knows of operations in flight, and how long those took that it saw end.

    Args:
        poll_seconds: the shortest time between two polls of one operation.
        reads_per_second: how many reads are ours.
    """

    def __init__(self, poll_seconds: float, reads_per_second: float) -> None:
        self._poll_seconds = poll_seconds
        self._looks_per_second = reads_per_second * _LOOKS_SHARE
        self._in_flight: dict[str, _InFlight] = {}
        self._calendars: dict[str, _PollSlots] = {}
        self._took: dict[tuple[OperationKind, str], deque[float]] = {}

    def first(self, operation: TrackedOperation, now: float, elapsed: float, known: float | None) -> float:
        """Seconds to the first poll of an operation that was accepted.

        Args:
            elapsed: how long ago that was.
            known: how long the last one of this kind took on this machine.
        """
        return self._follow(operation, now, self._expected(operation, known) - elapsed)

    def following(self, operation: TrackedOperation, now: float, elapsed: float) -> float:
        """Seconds to the next poll of an operation that runs."""
        all_once = self.in_flight(operation.place, now) / self._looks_per_second
        # No duration estimate may have existed when the operation started.
        wait = max(elapsed * _GROWTH, self._median(operation, 0) - elapsed)
        return self._follow(operation, now, min(wait, all_once * _SPARE_LOOKS))

    def ended(self, operation: TrackedOperation, seconds: float | None = None) -> None:
        """It needs no poll any more; ``seconds`` is how long it took, when that is known."""
        if operation.place in self._in_flight:
            self._in_flight[operation.place].drop(operation.name)
        if seconds is not None and seconds > 0:
            took = self._took.setdefault((operation.kind, operation.os_type), deque(maxlen=_REMEMBERED))
            took.append(seconds)

    def in_flight(self, place: str, now: float) -> int:
        """Operations in a region that this worker has seen run. Other workers poll some of them, and see them end."""
        return self._in_flight[place].count(now) if place in self._in_flight else 0

    def _expected(self, operation: TrackedOperation, known: float | None) -> float:
        if known is not None and operation.kind is OperationKind.INSTALL:
            return known * NEAR_THE_END
        return self._median(operation, self._poll_seconds * _DEFAULT_POLLS[operation.kind])

    def _median(self, operation: TrackedOperation, default: float) -> float:
        took = self._took.get((operation.kind, operation.os_type))
        return median(took) if took else default

    def _follow(self, operation: TrackedOperation, now: float, wait: float) -> float:
        latest = now + self._poll_seconds * MAX_POLLS
        calendar = self._calendars.get(operation.place)
        if calendar is None:
            calendar = _PollSlots(self._poll_seconds / _GRAINS_PER_POLL, self._looks_per_second)
            self._calendars[operation.place] = calendar
        # A poll without a rate-limit reservation is an execution and a replay for nothing: each gets its slot at once.
        moment = calendar.book(now, min(now + max(self._poll_seconds, wait), latest), latest)
        # The next poll may be another worker's: by then this one has to forget the operation.
        self._in_flight.setdefault(operation.place, _InFlight()).put(operation.name, moment + 2 * self._poll_seconds)
        return moment - now
