"""HTTP probes of machines: the address for one machine, and what the answer says of its health."""

from dataclasses import dataclass

from patchwave.domain.core.folding import fold
from patchwave.domain.policy.http_probe import TAG_PREFIX, Probe, ProbeImpossible, fill_template
from patchwave.domain.runs.machine_record import MachineRecord, Signal, SignalState


@dataclass(frozen=True, slots=True)
class ProbeAnswer:
    """What came back; ``body`` is the beginning of it, and empty when the probe does not look at it."""

    status: int
    body: str = ""


@dataclass(frozen=True, slots=True)
class ProbeFailure:
    """There was no answer. Only when the machine ``was_tried`` does that say something of it.

    ``detail`` goes on after "The probe": ``was refused a connection``.
    """

    detail: str
    was_tried: bool


def fill_url(template: str, machine: MachineRecord) -> str:
    """The address for one machine.

    Raises:
        ProbeImpossible: the machine lacks a tag, or a value makes no host name.
    """
    tags = {fold(name): value for name, value in machine.tags.items()}
    values = {"name": machine.name, "resourceGroup": machine.resource_group, "location": machine.location}

    def value_of(place: str) -> str:
        value = tags.get(fold(place.removeprefix(TAG_PREFIX)), "") if place.startswith(TAG_PREFIX) else values[place]
        if not value:
            raise ProbeImpossible(f"the machine has no {place.removeprefix(TAG_PREFIX)!r} for its address")
        return value

    return fill_template(template, value_of)


def evaluate_probe(probe: Probe, answer: ProbeAnswer | ProbeFailure) -> Signal:
    if isinstance(answer, ProbeFailure):
        state = SignalState.UNHEALTHY if answer.was_tried else SignalState.UNKNOWN
        return Signal(state=state, detail=f"The probe {answer.detail}.")
    if answer.status not in probe.status:
        wanted = " or ".join(map(str, probe.status))
        return Signal(
            state=SignalState.UNHEALTHY, detail=f"The probe was answered with {answer.status} instead of {wanted}."
        )
    if probe.contains is not None and probe.contains not in answer.body:
        return Signal(state=SignalState.UNHEALTHY, detail=f"The answer to the probe does not hold {probe.contains!r}.")
    return Signal(state=SignalState.HEALTHY)
