"""Machines with their places, in few bytes: a phase carries up to 6,200 of them from one generation to the next.

What one machine shares with others (its lane, the groups of the rules that keep it apart) is written once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, Field, PlainSerializer

from patchwave.domain.core.documents import Document


class Placed(Document):
    """A machine with what decides when it may start; ``places`` are texts of an admission's `Place`.

    ``attempt`` counts how often it was started in this step: one that had to be put back gets a new instance.
    """

    key: str
    lane: str = ""
    wave: int = 0
    wave_size: int = 1
    places: list[str] = Field(default_factory=list[str])
    attempt: int = 1


def _pack(machines: Sequence[Placed]) -> dict[str, list[Any]]:
    """Lanes, places, and what else machines share, each once; then runs of machines as ``[traits, key, key, …]``.

    Traits are ``[lane, wave, wave size, attempt, place, …]``. Neighbours in a plan mostly share all of them.
    """
    lanes = _numbered(machine.lane for machine in machines)
    places = _numbered(place for machine in machines for place in machine.places)
    traits: dict[tuple[int, ...], int] = {}
    runs: list[list[str | int]] = []
    for machine in machines:
        own = (
            lanes[machine.lane],
            machine.wave,
            machine.wave_size,
            machine.attempt,
            *(places[place] for place in machine.places),
        )
        number = traits.setdefault(own, len(traits))
        if not runs or runs[-1][0] != number:
            runs.append([number])
        runs[-1].append(machine.key)
    return {"lanes": list(lanes), "places": list(places), "traits": list(traits), "machines": runs}


def _unpack(given: object) -> object:
    if not isinstance(given, Mapping):
        return given
    packed = cast("Mapping[str, list[Any]]", given)
    lanes, places, traits = packed["lanes"], packed["places"], packed["traits"]
    machines: list[Placed] = []
    for number, *keys in packed["machines"]:
        lane, wave, wave_size, attempt, *own = traits[number]
        machines += [
            Placed(
                key=key,
                lane=lanes[lane],
                wave=wave,
                wave_size=wave_size,
                attempt=attempt,
                places=[places[place] for place in own],
            )
            for key in keys
        ]
    return machines


def _numbered(texts: Iterable[str]) -> dict[str, int]:
    return {text: number for number, text in enumerate(dict.fromkeys(texts))}


type Roster = Annotated[list[Placed], BeforeValidator(_unpack), PlainSerializer(_pack)]
"""A list of machines that is packed on the wire, in its order."""
