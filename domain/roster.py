"""Machines with their places, in few bytes: a phase carries up to 1,700 of them from one generation to the next.

What one machine shares with others (its lane, the groups of the rules that keep it apart) is written once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, cast

from pydantic import BeforeValidator, Field, PlainSerializer

from domain.base import Document


class Placed(Document):
    """A machine with what decides when it may start; ``places`` are texts of `domain.admission.Place`.

    ``attempt`` counts how often it was started in this step: one that had to be put back gets a new instance.
    """

    key: str
    lane: str = ""
    wave: int = 0
    wave_size: int = 1
    places: list[str] = Field(default_factory=list[str])
    attempt: int = 1


def _pack(machines: Sequence[Placed]) -> dict[str, list[Any]]:
    """The lanes and places, each once, and per machine ``[key, lane, wave, wave size, attempt, place, …]``."""
    lanes = _numbered(machine.lane for machine in machines)
    places = _numbered(place for machine in machines for place in machine.places)
    rows: list[list[str | int]] = [
        [
            machine.key,
            lanes[machine.lane],
            machine.wave,
            machine.wave_size,
            machine.attempt,
            *(places[place] for place in machine.places),
        ]
        for machine in machines
    ]
    return {"lanes": list(lanes), "places": list(places), "machines": rows}


def _unpack(given: object) -> object:
    if not isinstance(given, Mapping):
        return given
    packed = cast("Mapping[str, list[Any]]", given)
    lanes, places = packed["lanes"], packed["places"]
    return [
        Placed(
            key=key,
            lane=lanes[lane],
            wave=wave,
            wave_size=wave_size,
            attempt=attempt,
            places=[places[number] for number in numbers],
        )
        for key, lane, wave, wave_size, attempt, *numbers in packed["machines"]
    ]


def _numbered(texts: Iterable[str]) -> dict[str, int]:
    return {text: number for number, text in enumerate(dict.fromkeys(texts))}


type Roster = Annotated[list[Placed], BeforeValidator(_unpack), PlainSerializer(_pack)]
"""A list of machines that is packed on the wire, in its order."""
