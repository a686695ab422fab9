"""Machines with their permits, in few bytes: a phase carries up to 6,200 of them from one execution to the next.

What one machine shares with others (its lane, the groups of the rules that keep it apart) is written once.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, Field, PlainSerializer

from patchwave.domain.core.documents import Document


class PlacedMachine(Document):
    """A machine with what decides when it may start; ``permits`` are texts of an admission's `Permit`.

    ``attempt`` counts how often it was started in this step: one that was requeued gets a new instance.
    """

    key: str
    lane: str = ""
    wave: int = 0
    wave_size: int = 1
    permits: list[str] = Field(default_factory=list[str])
    attempt: int = 1


def _pack(machines: Sequence[PlacedMachine]) -> dict[str, list[Any]]:
    """Lanes, permits, and what else machines share, each once; then each run of machines as
    ``[index of its placement, key, key, …]``.

    A placement is ``[lane, wave, wave size, attempt, permit, …]``. Neighbours in a plan mostly share all of them.
    """
    lanes = _numbered(machine.lane for machine in machines)
    permits = _numbered(permit for machine in machines for permit in machine.permits)
    placements: dict[tuple[int, ...], int] = {}
    runs: list[list[str | int]] = []
    for machine in machines:
        own = (
            lanes[machine.lane],
            machine.wave,
            machine.wave_size,
            machine.attempt,
            *(permits[permit] for permit in machine.permits),
        )
        number = placements.setdefault(own, len(placements))
        if not runs or runs[-1][0] != number:
            runs.append([number])
        runs[-1].append(machine.key)
    return {"lanes": list(lanes), "permits": list(permits), "placements": list(placements), "machines": runs}


def _unpack(given: object) -> object:
    if not isinstance(given, Mapping):
        return given
    packed = cast("Mapping[str, list[Any]]", given)
    lanes, permits, placements = packed["lanes"], packed["permits"], packed["placements"]
    machines: list[PlacedMachine] = []
    for number, *keys in packed["machines"]:
        lane, wave, wave_size, attempt, *own = placements[number]
        machines += [
            PlacedMachine(
                key=key,
                lane=lanes[lane],
                wave=wave,
                wave_size=wave_size,
                attempt=attempt,
                permits=[permits[permit] for permit in own],
            )
            for key in keys
        ]
    return machines


def _numbered(texts: Iterable[str]) -> dict[str, int]:
    return {text: number for number, text in enumerate(dict.fromkeys(texts))}


type PlacedMachines = Annotated[list[PlacedMachine], BeforeValidator(_unpack), PlainSerializer(_pack)]
"""A list of machines that is packed on the wire, in its order."""
