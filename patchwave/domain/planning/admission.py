"""Which machines may start now: the one rule that the plan and the running phase both follow.

Every concurrency constraint is a group with a capacity. A machine takes a *permit* in each of its groups while it is
worked on, and may start when each of them has room:

- a permit without a slot is a unit of its own: ``run`` with capacity 20 lets 20 machines run;
- a permit with a slot is shared by all machines in the same slot: ``zones:westeurope`` with capacity 1 lets any number
  of machines run as long as all of them are in one zone.

The planner asks with predicted ends and so draws the timeline; the orchestrator asks with real ends and so follows
the same rules. There is no clock here: the caller says what has ended.
"""

import heapq
import sys
from collections import Counter, deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, Self

RUN_GROUP = "run"
"""The whole run: its capacity is ``maxConcurrent``."""
UNLIMITED = 0
"""The capacity of a group that only holds, and never limits."""


class Permit(NamedTuple):
    """What a machine takes in a group: a unit of its own, or a share of ``slot``. ``capacity`` is the group's."""

    group: str
    capacity: int
    slot: str = ""

    @property
    def text(self) -> str:
        return f"{self.capacity}|{self.slot}|{self.group}"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``text`` back.

        Raises:
            ValueError: it is no permit.
        """
        capacity, slot, group = text.split("|", 2)
        return cls(group, int(capacity), slot)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A machine that waits: the lane and the wave that the plan put it in, and its permits."""

    key: str
    lane: str = ""
    wave: int = 0
    permits: tuple[Permit, ...] = ()


class Admitted(NamedTuple):
    """A machine that may start now, and the group that held it back last (empty: none ever did)."""

    key: str
    after: str


class Released(NamedTuple):
    """Whether the machine ran, and whether it was the last of its wave, as far as machines have been added."""

    was_running: bool
    wave_is_over: bool


def lane_scope(lane: str) -> str:
    return f"lane:{lane}"


def wave_scope(lane: str, wave: int) -> str:
    return f"wave:{lane}/{wave}"


def ramp_limit(ended: int) -> int:
    """How many may run at a time while a ring ramps up: 1, 2, 4, … each step after the one before has ended."""
    return 1 << ((ended + 1).bit_length() - 1)


class _Turn(NamedTuple):
    """When a queue is looked at: by the rank of its first machine. ``origin`` is the group that woke it."""

    rank: int
    queue: int
    origin: str = ""


@dataclass(slots=True)
class _Group:
    """The permits of one rule that are taken, and the queues that wait for one, by the slot that they want."""

    units: int = 0
    slots: dict[str, int] = field(default_factory=dict[str, int])
    hold: str = ""
    parked: dict[str, list[_Turn]] = field(default_factory=dict[str, list[_Turn]])

    def has_room(self, slot: str, limit: int) -> bool:
        if self.hold:
            return False
        return slot in self.slots or limit == UNLIMITED or self.units + len(self.slots) < limit

    def take(self, slot: str) -> None:
        if slot:
            self.slots[slot] = self.slots.get(slot, 0) + 1
        else:
            self.units += 1

    def give_back(self, slot: str) -> bool:
        """Whether there is more room now: a slot that others share is still taken."""
        if not slot:
            self.units -= 1
            return True
        self.slots[slot] -= 1
        if self.slots[slot]:
            return False
        del self.slots[slot]
        return True

    def park(self, slot: str, turn: _Turn) -> None:
        heapq.heappush(self.parked.setdefault(slot, []), turn)

    def next_parked(self) -> int | None:
        """The queue whose turn comes first, whatever its slot."""
        slot = min(self.parked, key=lambda name: self.parked[name][0], default=None)
        return None if slot is None else self._pop(slot)

    def parked_for(self, slot: str) -> list[int]:
        """Every queue that wants this slot."""
        return [turn.queue for turn in self.parked.pop(slot, [])]

    def _pop(self, slot: str) -> int:
        turn = heapq.heappop(self.parked[slot])
        if not self.parked[slot]:
            del self.parked[slot]
        return turn.queue


@dataclass(slots=True)
class _Queue:
    """Machines with the same permits, in order: they are interchangeable, so only the first is ever looked at."""

    lane: str
    wave: int
    permits: tuple[Permit, ...]
    waiting: deque[tuple[int, str]] = field(default_factory=deque[tuple[int, str]])
    is_queued: bool = False
    after: str = ""


@dataclass(slots=True)
class _Lane:
    """How many machines each wave of a lane still has."""

    machines: Counter[int] = field(default_factory=Counter[int])
    order: list[int] = field(default_factory=list[int])
    """A heap of waves. Those that are over stay in it until they come first."""

    @property
    def lowest(self) -> int | None:
        """The wave in progress; ``None`` when all are over."""
        return self.order[0] if self.order else None

    def join(self, wave: int) -> None:
        if not self.machines[wave]:
            heapq.heappush(self.order, wave)
        self.machines[wave] += 1

    def leave(self, wave: int) -> bool:
        """Whether it was the last machine of the wave."""
        self.machines[wave] -= 1
        if self.machines[wave]:
            return False
        del self.machines[wave]
        while self.order and self.order[0] not in self.machines:
            heapq.heappop(self.order)
        return True


class Admission:
    """Who runs, who waits, and who may start: first come first served among those whose groups all have room.

    A queue that has to wait is looked at again only when the group that stopped it changes, so that admitting a whole
    fleet takes time in proportion to its size.
    """

    def __init__(self, *, ramp: bool = False, ended: int = 0, wave_barrier: bool = False) -> None:
        """
        Args:
            ramp: the run's capacity grows 1, 2, 4, … with the number of machines that have ``ended``.
            ended: machines of the ring that have ended before.
            wave_barrier: a wave of a lane starts when the wave before it has ended; otherwise no machine waits for
                waves.
        """
        self._is_ramping = ramp
        self._ended = ended
        self._has_barrier = wave_barrier
        self._groups: dict[str, _Group] = {}
        self._queues: list[_Queue] = []
        self._queue_of: dict[tuple[str, int, tuple[Permit, ...]], int] = {}
        self._ready: list[_Turn] = []
        self._running: dict[str, Candidate] = {}
        self._held: dict[str, tuple[Permit, ...]] = {}
        self._waiting: dict[str, Candidate] = {}
        self._lanes: dict[str, _Lane] = {}
        self._next_rank = 0

    @property
    def running(self) -> tuple[Candidate, ...]:
        """The machines that hold permits, in the order in which they started."""
        return tuple(self._running.values())

    @property
    def waiting(self) -> tuple[Candidate, ...]:
        """The machines that have not started, in order."""
        return tuple(self._waiting.values())

    @property
    def ended(self) -> int:
        """Machines that have ended, those of before included."""
        return self._ended

    @property
    def holds(self) -> dict[str, str]:
        """The groups and scopes that start nothing, and why."""
        return {name: group.hold for name, group in self._groups.items() if group.hold}

    def resume(self, running: Iterable[Candidate]) -> None:
        """Add machines that are in progress: they hold their permits, whether or not there is room."""
        for candidate in running:
            self._join_lane(candidate)
            self._occupy(candidate, self._permits(candidate))

    def add(self, candidates: Iterable[Candidate]) -> None:
        """Let machines wait, behind those that wait already. Known machines are passed over."""
        for candidate in candidates:
            if candidate.key in self._waiting or candidate.key in self._running:
                continue
            self._waiting[candidate.key] = candidate
            self._join_lane(candidate)
            number = self._queue(candidate)
            self._queues[number].waiting.append((self._next_rank, candidate.key))
            self._next_rank += 1
            self._make_ready(number)

    def start(self, most: int = sys.maxsize) -> list[Admitted]:
        """Start all machines that may start now, in order, up to ``most``; they hold their permits until `end`."""
        started: list[Admitted] = []
        while self._ready and len(started) < most:
            turn = heapq.heappop(self._ready)
            queue = self._queues[turn.queue]
            queue.is_queued = False
            self._drop_removed(queue)
            blocking = self._blocking(queue) if queue.waiting else None
            if blocking is not None:
                queue.after = blocking.group
                queue.is_queued = True
                parked = _Turn(queue.waiting[0][0], turn.queue)
                self._groups[blocking.group].park(blocking.slot, parked)
            elif queue.waiting:
                _, key = queue.waiting.popleft()
                started.append(Admitted(key, queue.after))
                self._occupy(self._waiting.pop(key), queue.permits)
                self._make_ready(turn.queue)
            if turn.origin and (blocking is None or blocking.group != turn.origin):
                # There may be more room where this one was woken from.
                self._wake(turn.origin)
        return started

    def end(self, key: str, *, counts: bool = True) -> Released:
        """Give back the permits of a machine; one that was requeued does not count for the ramp."""
        candidate = self._running.pop(key, None)
        if candidate is None:
            return Released(was_running=False, wave_is_over=False)
        self._ended += counts
        for permit in [permit for permit in self._held.pop(key) if self._groups[permit.group].give_back(permit.slot)]:
            self._wake(permit.group)
        return Released(was_running=True, wave_is_over=self._leave_lane(candidate))

    def remove(self, key: str) -> bool:
        """Forget a machine that waits: it will not be started. ``False`` when it does not wait."""
        candidate = self._waiting.pop(key, None)
        if candidate is None:
            return False
        self._leave_lane(candidate)
        return True

    def hold(self, scope: str, why: str) -> None:
        """Start nothing more in a scope: a group, a lane, a wave, or the run. What runs goes on."""
        self._group(scope).hold = why

    def release(self, scope: str) -> None:
        self._group(scope).hold = ""
        self._wake(scope)

    def held_by(self) -> dict[str, str]:
        """For every machine that waits and was looked at, the group or scope that holds it back."""
        return {
            key: queue.after
            for queue in self._queues
            if queue.after
            for _, key in queue.waiting
            if key in self._waiting
        }

    def _blocking(self, queue: _Queue) -> Permit | None:
        """The first permit that the machines of the queue cannot have now."""
        if self._has_barrier and queue.wave != self._lanes[queue.lane].lowest:
            return Permit(wave_scope(queue.lane, queue.wave), UNLIMITED)
        for permit in queue.permits:
            limit = permit.capacity
            if permit.group == RUN_GROUP and self._is_ramping:
                limit = min(limit or sys.maxsize, ramp_limit(self._ended))
            if not self._groups[permit.group].has_room(permit.slot, limit):
                return permit
        return None

    def _occupy(self, candidate: Candidate, permits: tuple[Permit, ...]) -> None:
        self._running[candidate.key] = candidate
        self._held[candidate.key] = permits
        for permit in permits:
            group = self._group(permit.group)
            group.take(permit.slot)
            if permit.slot and group.slots[permit.slot] == 1:
                # Machines that wait for this very slot may share it now.
                for number in group.parked_for(permit.slot):
                    self._queues[number].is_queued = False
                    self._make_ready(number)

    def _join_lane(self, candidate: Candidate) -> None:
        lane = self._lanes.get(candidate.lane)
        if lane is None:
            lane = self._lanes[candidate.lane] = _Lane()
        lane.join(candidate.wave)

    def _leave_lane(self, candidate: Candidate) -> bool:
        """Count a machine out of its wave; whether it was the last of it."""
        lane = self._lanes[candidate.lane]
        before = lane.lowest
        wave_is_over = lane.leave(candidate.wave)
        if lane.lowest is not None and lane.lowest != before:
            self._wake(wave_scope(candidate.lane, lane.lowest))
        return wave_is_over

    def _wake(self, name: str) -> None:
        """Reconsider the first machine that waits for a group that has changed; `start` then considers the next."""
        group = self._groups.get(name)
        if group is None or group.hold:
            return
        number = group.next_parked()
        if number is not None:
            self._queues[number].is_queued = False
            self._make_ready(number, name)

    def _make_ready(self, number: int, origin: str = "") -> None:
        queue = self._queues[number]
        if queue.waiting and not queue.is_queued:
            queue.is_queued = True
            heapq.heappush(self._ready, _Turn(queue.waiting[0][0], number, origin))

    def _drop_removed(self, queue: _Queue) -> None:
        while queue.waiting and queue.waiting[0][1] not in self._waiting:
            queue.waiting.popleft()

    def _queue(self, candidate: Candidate) -> int:
        signature = (candidate.lane, candidate.wave, candidate.permits)
        number = self._queue_of.get(signature)
        if number is None:
            number = self._queue_of[signature] = len(self._queues)
            permits = self._permits(candidate)
            for permit in permits:
                self._group(permit.group)
            self._queues.append(_Queue(candidate.lane, candidate.wave, permits))
        return number

    def _group(self, name: str) -> _Group:
        group = self._groups.get(name)
        if group is None:
            group = self._groups[name] = _Group()
        return group

    def _permits(self, candidate: Candidate) -> tuple[Permit, ...]:
        """Scopes first, the run last: who is held for another reason must not wait in the queue of the whole run."""
        own = [permit for permit in candidate.permits if permit.group != RUN_GROUP]
        run = [permit for permit in candidate.permits if permit.group == RUN_GROUP] or [Permit(RUN_GROUP, UNLIMITED)]
        scopes = [
            Permit(lane_scope(candidate.lane), UNLIMITED),
            Permit(wave_scope(candidate.lane, candidate.wave), UNLIMITED),
        ]
        return (*scopes, *own, *run)
