"""What goes wrong in a schedule, drawn from its seed: the network to storage and to Azure, and the lives of workers."""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

type Json = dict[str, Any]

_RETRY_LATER = ({"Retry-After": "30"}, {"Retry-After": None}, {"Retry-After": "abc"}, {"Retry-After": "1000000000"})
_CONFLICT = {"error": {"code": "Conflict", "message": "The request failed due to conflict with a concurrent request."}}


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultSchedule:
    """One schedule. What is left out of it can be left out one by one to find what a failure needs.

    Attributes:
        seed: of everything that is drawn while it runs: latencies, which worker gets what, which request fails.
        faults: rules of the simulator.
        kills: moments, in virtual seconds, at which a worker is killed; which one is drawn then.
        outages: moments and lengths of outages of the storage, in virtual seconds.
        lost_requests, lost_answers: shares of storage requests that fail before, and after, they were carried out.
        twice: share of activities that are given out again while their worker still has them, so that two executions
            run side by side and the later completion is a duplicate.
        late: share of completions that come seconds after the activity has ended.
    """

    seed: int
    faults: tuple[Json, ...] = ()
    kills: tuple[float, ...] = ()
    outages: tuple[tuple[float, float], ...] = ()
    lost_requests: float = 0
    lost_answers: float = 0
    twice: float = 0
    late: float = 0
    source: random.Random = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "source", random.Random(f"weather:{self.seed}"))

    @classmethod
    def of(cls, seed: int, machines: list[str], seconds: float) -> FaultSchedule:
        """The faults of a seed over machines (ARM ids) whose run takes about so many seconds."""
        source = random.Random(f"schedule:{seed}")
        return cls(
            seed=seed,
            faults=tuple(_fault(source, machines) for _ in range(source.randint(2, 10))),
            kills=tuple(sorted(source.uniform(1, seconds) for _ in range(source.randint(1, 8)))),
            outages=tuple((source.uniform(0, seconds), source.uniform(5, 240)) for _ in range(source.randint(0, 2))),
            lost_requests=source.choice((0, 0.01, 0.05)),
            lost_answers=source.choice((0, 0.01, 0.05)),
            twice=source.choice((0, 0.005, 0.02)),
            late=source.choice((0, 0.01, 0.05)),
        )


def _fault(source: random.Random, machines: list[str]) -> Json:
    """A rule of the simulator: for a few requests, of one machine or of any."""
    operation, effect = source.choice(
        (
            ("install", {"drop": "before"}),
            ("install", {"drop": "after"}),
            ("install", {"status": 503, "accept": True, "body": {"error": {"code": "ServerBusy"}}}),
            ("install", {"status": 409, "body": _CONFLICT}),
            ("assess", {"drop": "after"}),
            ("assess", {"status": 409, "body": _CONFLICT}),
            ("assess", {"status": 500, "body": {"error": {"code": "InternalServerError"}}}),
            *(
                (operation, {"status": status, "headers": headers, "body": {"code": "TooManyRequests"}})
                for operation, status in (("install", 429), ("assess", 429), ("poll", 503))
                for headers in _RETRY_LATER
            ),
            ("install", {"loseOperation": True}),
            ("install", {"delaySeconds": source.randint(5, 600)}),
            ("poll", {"status": 404, "body": {"error": {"code": "NotFound"}}}),
            ("poll", {"status": 200, "body": "<html>proxy</html>", "contentType": "text/html"}),
            ("poll", {"status": 200, "body": '{"status":"Succ'}),
            ("poll", {"operationStatus": "Reticulating"}),
            ("poll", {"drop": "before"}),
            ("poll", {"delaySeconds": source.randint(5, 90)}),
            ("read", {"drop": "before"}),
            ("read", {"status": 503, "body": {"error": {"code": "ServerBusy"}}}),
            ("graph", {"status": 429, "headers": {"Retry-After": "5"}, "body": {"code": "RateLimiting"}}),
            ("power", {"drop": "after"}),
        )
    )
    match: Json = {"operation": operation}
    if source.random() < 0.5:
        match["machine"] = source.choice(machines)
    return {"match": match, "effect": effect, "times": source.randint(1, 4), "after": source.randint(0, 60)}


__all__ = ["FaultSchedule"]
