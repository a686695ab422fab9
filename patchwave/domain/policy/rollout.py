"""In which order a policy takes its machines: rings, phases, limits, and what must never run together."""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import Annotated, Self

from pydantic import AfterValidator, Field, StrictInt, model_validator

from patchwave.domain.core.documents import Document
from patchwave.domain.core.duration import Duration
from patchwave.domain.core.quantity import Limit
from patchwave.domain.policy.gates import Approval
from patchwave.domain.policy.scope import MachineIdText, TagFilter

MAX_RINGS = 20
_RING_NAME = re.compile(r"[a-z0-9]([a-z0-9-]{0,30}[a-z0-9])?")


def _check_ring_name(value: str) -> str:
    if not _RING_NAME.fullmatch(value):
        raise ValueError("must be 1 to 32 lower-case letters, digits and inner hyphens")
    return value


class Ring(Document):
    """An ordered slice of the fleet. A machine belongs to the first ring that selects it.

    Without a selector a ring takes everything that is left; only the last ring may do that.
    """

    name: Annotated[str, AfterValidator(_check_ring_name)] = Field(
        title="Name", description="Lower-case letters, digits and inner hyphens.", examples=["canary"]
    )
    tags: TagFilter | None = Field(default=None, title="Tags", description="Machines with these tags.")
    percent: Annotated[StrictInt, Field(ge=1, le=99)] | None = Field(
        default=None,
        title="Per cent",
        description="A part of the machines in scope, spread over regions and images. The same machines every time.",
    )
    machine_ids: list[MachineIdText] | None = Field(
        default=None, min_length=1, max_length=1000, title="Machine ids", description="Exactly these machines."
    )
    after: str | None = Field(
        default=None,
        title="After",
        description="The ring that comes before this one, where the order of the list is not the order of the rings.",
    )
    approval: Approval | None = Field(
        default=None, title="Approval", description="A person has to approve before this ring starts."
    )
    bake: Duration | None = Field(
        default=None, title="Bake time", description="How long to wait after this ring; bake.rings unless given."
    )

    @property
    def selectors(self) -> list[str]:
        given = {"tags": self.tags, "percent": self.percent, "machineIds": self.machine_ids}
        return [name for name, value in given.items() if value is not None]

    @model_validator(mode="after")
    def _check_selectors(self) -> Self:
        if len(self.selectors) > 1:
            raise ValueError(f"has {' and '.join(self.selectors)}; a ring selects in one way: keep one")
        return self


class TagLimit(Document):
    """How many machines with the same value of a tag may run at a time."""

    tag: str = Field(min_length=1, max_length=512, title="Tag", description="Name of the tag.", examples=["app"])
    max_concurrent: Limit = Field(
        title="Machines at a time",
        description="For each value of the tag: a number, or a per cent of the machines that have the value.",
    )


class Limits(Document):
    """Limits beside that of the run."""

    region: Limit | None = Field(
        default=None,
        title="Region",
        description="Machines at a time in one region: a number, or a per cent of its machines in the run. It is no"
        " limit for Arc machines, whose location says nothing of where they are: limit those by a tag.",
    )
    tags: list[TagLimit] = Field(
        default_factory=list[TagLimit], max_length=10, title="Tags", description="Machines at a time per tag value."
    )


class AvailabilitySets(Document):
    """How careful a run is with availability sets; never less than Azure's own rule."""

    percent: Annotated[StrictInt, Field(ge=1, le=20)] = Field(
        default=20,
        title="Per cent",
        description="The largest part of a set at a time, inside one update domain. Sets of fewer than 10 machines"
        " always go one by one.",
    )


class ScaleSets(Document):
    """How careful a run is with Flexible scale sets; never less than with availability sets."""

    percent: Annotated[StrictInt, Field(ge=1, le=20)] = Field(
        default=20,
        title="Per cent",
        description="The largest part of a set at a time, inside one fault domain. Sets of fewer than 10 machines"
        " always go one by one.",
    )


class RebootMode(StrEnum):
    """When machines restart."""

    TOGETHER = "together"
    SEPARATE = "separate"


class PhaseOrder(StrEnum):
    """What decides which regions go side by side where the policy does not name them."""

    SHORTEST = "shortest"
    """The least time; ties as with the fewest machines first."""
    FEWEST_MACHINES = "fewestMachines"
    """The regions with the fewest machines go first, each in the first phase without its pair, whatever it takes."""


class Bake(Document):
    """How long to wait, and watch, before going on."""

    waves: Duration | None = Field(
        default=None,
        title="Waves",
        description="After each wave of a lane. With it a wave starts only when the one before has ended.",
    )
    rings: Duration | None = Field(default=None, title="Rings", description="After each ring but the last.")


WHOLE_FLEET = Ring(name="all")
"""The only ring of a policy that names none."""


def order_rings(rings: Sequence[Ring]) -> list[Ring]:
    """The rings in the order in which they run: that of the list, or of ``after`` where it is given.

    Raises:
        ValueError: the order has a cycle, an unknown name, or no single beginning; a policy with such rings is refused.
    """
    if not rings:
        return [WHOLE_FLEET]
    if all(ring.after is None for ring in rings):
        return list(rings)
    follower = {ring.after: ring for ring in rings}
    ordered: list[Ring] = []
    found = follower.get(None)
    while found is not None and len(ordered) < len(rings):
        ordered.append(found)
        found = follower.get(found.name)
    if len(ordered) != len(rings) or found is not None:
        raise ValueError("the order of the rings is no chain")
    return ordered
