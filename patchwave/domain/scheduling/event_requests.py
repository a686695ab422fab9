"""Runs that events ask for: a burst of events is one run of a policy in each quarter of an hour.

The first event starts the run of its quarter at once. Later ones wait for the run of the next quarter, together with
everything else: a run holds what was asked for before it was created, and nothing is lost.
"""

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

from patchwave.domain.core.documents import Document, Json, UtcDatetime, object_or_none, strings_or_empty
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import MachineId, RunId
from patchwave.domain.policy.policy import Policy, apply_overrides

MAX_MACHINES = 1_000
"""Machines of one run; further ones go with the next."""


class EventRequest(Document):
    """One event that asks for a run of one policy: of a machine, or of the whole scope (no ``machine_id``)."""

    policy: str
    event_id: str
    kind: str
    key: str
    """What makes it one and the same, however often it is delivered: 64 hexadecimal digits."""
    at: UtcDatetime
    """When it was first received."""
    machine_id: str = ""


def request_key(event_key: str, policy: str) -> str:
    """The key of a request; ids of maintenance events are paths that exceed the length of a row key."""
    return hashlib.sha256(f"{event_key}|{policy}".encode("utf-8", "surrogatepass")).hexdigest()


def quarter_of(at: datetime) -> datetime:
    """The quarter of an hour that a moment lies in, by its beginning."""
    moment = at.astimezone(UTC)
    return moment.replace(minute=moment.minute // 15 * 15, second=0, microsecond=0)


def run_of_quarter(policy: str, at: datetime) -> RunId:
    """The one run of a policy that events start in a quarter of an hour."""
    quarter = quarter_of(at)
    return RunId.derived(quarter, policy, "events", policy, quarter.isoformat())


def due_at(policy: Policy, request: EventRequest) -> datetime:
    """When the request may start a run: the delay of the policy counts, as it is now."""
    return request.at + policy.events.delay


def policy_for(policy: Policy, requests: Sequence[EventRequest]) -> Policy:
    """The policy as the run of these requests follows it: narrowed to the machines, unless one is of all of it."""
    if any(not request.machine_id for request in requests):
        return policy
    machines: dict[str, str] = {}
    for request in sorted(requests, key=lambda request: (request.at, request.key)):
        machines.setdefault(fold(request.machine_id), request.machine_id)
    return apply_overrides(policy.to_wire(), {"scope": {"machineIds": list(machines.values())[:MAX_MACHINES]}})


def served_by(
    requests: Iterable[EventRequest], policy: Policy, snapshot: Json, created_at: datetime
) -> list[EventRequest]:
    """The requests that a run holds which was created at that moment with that snapshot of its policy."""
    scope = object_or_none(snapshot.get("scope")) or {}
    is_whole = scope == policy.to_wire()["scope"]
    machines = {fold(text) for text in strings_or_empty(scope.get("machineIds"))}
    return [
        request
        for request in requests
        if due_at(policy, request) <= created_at
        and (fold(request.machine_id) in machines if request.machine_id and not is_whole else is_whole)
    ]


def may_ask(policy: Policy, machine: MachineId, *, started: bool) -> bool:
    """Whether a new machine, or one that was ``started``, may be one of those for which the policy wants a run.

    Tags and location are not in an event: discovery decides.
    """
    is_wanted = policy.events.machine_started if started else policy.events.new_machine
    return policy.enabled and is_wanted and policy.scope.may_hold(machine)
