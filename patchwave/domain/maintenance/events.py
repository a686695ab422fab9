"""Events of Azure, as Event Grid delivers them: both schemas, both casings of keys, and what they ask for."""

from dataclasses import dataclass
from enum import StrEnum

from patchwave.domain.core.documents import Json, lower_keys, object_or_none, str_or_empty
from patchwave.domain.core.ids import MachineId, MachineType
from patchwave.domain.maintenance.occurrence import OccurrenceNotice


class EventKind(StrEnum):
    """The events that can start a run."""

    BEFORE_MAINTENANCE = "Microsoft.Maintenance.PreMaintenanceEvent"
    AFTER_MAINTENANCE = "Microsoft.Maintenance.PostMaintenanceEvent"
    RESOURCE_WRITTEN = "Microsoft.Resources.ResourceWriteSuccess"
    RESOURCE_ACTION = "Microsoft.Resources.ResourceActionSuccess"
    """Of a VM: it was started. Power actions are no writes [inferred]."""


@dataclass(frozen=True, slots=True)
class AzureEvent:
    """One event. ``id`` is the same for the pre and the post event of one maintenance: only (kind, id) is unique."""

    kind: EventKind
    id: str
    machine: MachineId | None = None
    occurrence: OccurrenceNotice | None = None
    """The scheduled run of a maintenance event; nothing when the event names none that can be read."""
    topic: str = ""
    """The ARM id of what the event is from, as the event says."""

    @property
    def key(self) -> str:
        """What makes the event one and the same, however often it is delivered."""
        return f"{self.kind.value}|{self.id}"


def read_event(document: Json) -> AzureEvent | None:
    """Read one event of either schema; ``None`` when it is none that could start a run.

    Event Grid schema has ``eventType``, CloudEvents has ``type``; other events may reach the same endpoint.
    """
    fields = lower_keys(document)
    word = str(fields.get("eventtype") or fields.get("type") or "")
    kind = next((kind for kind in EventKind if kind.value.casefold() == word.casefold()), None)
    event_id = fields.get("id")
    if kind is None or not isinstance(event_id, str) or not event_id:
        return None
    topic = str_or_empty(fields.get("topic")) or str_or_empty(fields.get("source"))
    operation = _OPERATIONS.get(kind)
    if operation is None:
        data = object_or_none(fields.get("data")) or {}
        return AzureEvent(kind, event_id, occurrence=OccurrenceNotice.read(event_id, data), topic=topic)
    machine = _machine(fields, operation)
    return None if machine is None else AzureEvent(kind, event_id, machine, topic=topic)


_OPERATIONS = {
    EventKind.RESOURCE_WRITTEN: frozenset(f"{each.full_type}/write" for each in MachineType),
    EventKind.RESOURCE_ACTION: frozenset({f"{MachineType.AZURE.full_type}/start/action"}),
}


def _machine(fields: Json, expected: frozenset[str]) -> MachineId | None:
    """The machine of the operation: its id is the subject, and the operation must be of a machine itself.

    A write may leave its operation out; of actions only the name tells a start from a stop.
    """
    data = lower_keys(object_or_none(fields.get("data")) or {})
    operation = str(data.get("operationname") or "").casefold()
    if operation not in expected and (operation or not any(each.endswith("/write") for each in expected)):
        return None
    return MachineId.find(str(fields.get("subject") or "")) or MachineId.find(str(data.get("resourceuri") or ""))
