"""What Azure Resource Health says of a machine: is the platform below it all right?

Source: "Availability Statuses - Get By Resource", api-version 2025-05-01. The key of the last change is spelt in two
ways (``occurredTime`` in samples, ``occuredTime`` in the schema) and is not needed here.
"""

from typing import Annotated

from pydantic import BeforeValidator

from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.patch_results import Text
from patchwave.domain.core.documents import ExternalDocument, object_or_none
from patchwave.domain.runs.machine_record import Signal, SignalState

_STATES = {"available": SignalState.HEALTHY, "unavailable": SignalState.UNHEALTHY, "degraded": SignalState.UNHEALTHY}
_BY_PEOPLE = ("userinitiated", "customerinitiated")


class _Properties(ExternalDocument):
    availability_state: Text = ""
    summary: Text = ""
    title: Text = ""
    reason_type: Text = ""
    health_event_cause: Text = ""
    context: Text = ""


class Availability(ExternalDocument):
    """The answer to ``GET {machine}/providers/Microsoft.ResourceHealth/availabilityStatuses/current``."""

    properties: Annotated[_Properties, BeforeValidator(lambda value: object_or_none(value) or {})] = _Properties()


def evaluate_availability(found: Availability | ArmFailure) -> Signal:
    """What the answer says of the machine. Not being able to ask says nothing of it."""
    if isinstance(found, ArmFailure):
        return Signal(state=SignalState.UNKNOWN, detail=f"Resource Health could not be asked: {found.clause}.")
    said = found.properties
    state = _STATES.get(said.availability_state.casefold(), SignalState.UNKNOWN)
    if state is SignalState.HEALTHY:
        return Signal(state=state)
    word = said.availability_state or "nothing"
    detail = f"Resource Health says {word}: {said.summary or said.title or 'without a reason'}"
    if state is SignalState.UNHEALTHY and _is_by_people(said):
        # A stop or restart, ours included, is shown for some minutes after it is over; the power state is nearer.
        return Signal(state=SignalState.UNKNOWN, detail=_sentence(f"{detail} (because a person did that)"))
    return Signal(state=state, detail=_sentence(detail))


def _is_by_people(said: _Properties) -> bool:
    causes = (said.reason_type, said.health_event_cause, said.context)
    return any(cause.replace(" ", "").casefold() in _BY_PEOPLE for cause in causes)


def _sentence(text: str) -> str:
    return text[:500].rstrip(". ") + "."
