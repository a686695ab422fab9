"""The ids of orchestration instances: the same work has the same id, so that it is never started twice.

The engine's storage limits an id to 100 characters. Numbers are written in base 36.
"""

from __future__ import annotations


def phase_name(step: str, place: str = "") -> str:
    """The name of a phase in a step, within its run; ``place`` tells phases and repeated passes apart."""
    return f"{step}:{place}" if place else step


def phase(run_id: str, name: str) -> str:
    """A phase of a run."""
    return f"{run_id}:{name}"


def machine(run_id: str, step: str, machine_key: str, attempt: int = 1) -> str:
    """A machine in a step; one that was requeued and starts again gets a new instance."""
    return f"{run_id}:{step}{_base_36(attempt) if attempt > 1 else ''}:{machine_key}"


def shard(run_id: str, part: str, attempt: int, number: int) -> str:
    """The machines of a shard in a phase of a maintenance run."""
    return f"{run_id}:{part}-shard{_base_36(attempt)}:{number}"


def machine_change(change_id: str, wave: int, machine_key: str) -> str:
    """A machine in a wave of a change of patch modes."""
    return f"{change_id}:{_base_36(wave + 1)}:{machine_key}"


def closing(run_id: str) -> str:
    """The close of a run whose own orchestration has ended without it."""
    return f"{run_id}:close"


def notice(run_id: str, event: str, number: int) -> str:
    """The notification of an event of a run."""
    return f"{run_id}:notify:{event}:{number}"


def operation(machine_instance_id: str, kind: str, attempt: int) -> str:
    """One attempt at an operation, with the first letter of its kind."""
    return f"{machine_instance_id}:{kind[0]}:{attempt}"


def _base_36(number: int) -> str:
    digits = ""
    while number:
        number, digit = divmod(number, 36)
        digits = "0123456789abcdefghijklmnopqrstuvwxyz"[digit] + digits
    return digits
