"""The functions of the app, as the worker lists them."""

from dataclasses import dataclass
from typing import Any, cast

from local.functions_host.worker.framing import Frame

HTTP = "httpTrigger"
TIMER = "timerTrigger"
EVENT_GRID = "eventGridTrigger"
ORCHESTRATION = "orchestrationTrigger"
ACTIVITY = "activityTrigger"
ENTITY = "entityTrigger"
DURABLE_CLIENT = "durableClient"

# The name in the binding under which durable functions are called.
_DURABLE_NAMES = {ORCHESTRATION: "orchestration", ACTIVITY: "activity", ENTITY: "entityName"}


@dataclass(frozen=True, slots=True)
class Function:
    """One function: its trigger and other bindings are the JSON objects of the metadata."""

    id: str
    name: str
    trigger: dict[str, Any]
    bindings: list[dict[str, Any]]

    @property
    def kind(self) -> str:
        """The type of the trigger, such as ``httpTrigger``."""
        return str(self.trigger["type"])

    @property
    def durable_name(self) -> str:
        return str(self.trigger.get(_DURABLE_NAMES.get(self.kind, "")) or self.name)


class Functions:
    """All functions, by name and by durable name; names do not differ by case."""

    def __init__(self, functions: list[Function]) -> None:
        self.all = functions
        self._by_name = {function.name.casefold(): function for function in functions}
        self._durable = {
            (function.kind, function.durable_name.casefold()): function
            for function in functions
            if function.kind in _DURABLE_NAMES
        }

    @classmethod
    def from_frame(cls, frame: Frame) -> "Functions":
        """Reads the ``ready`` frame of a worker."""
        functions: list[Function] = []
        for listed in cast(list[dict[str, Any]], frame.head["functions"]):
            bindings = cast(list[dict[str, Any]], listed["bindings"])
            triggers = [binding for binding in bindings if str(binding["type"]).endswith("Trigger")]
            if triggers:
                functions.append(Function(listed["id"], listed["name"], triggers[0], bindings))
        return cls(functions)

    def named(self, name: str) -> Function | None:
        return self._by_name.get(name.casefold())

    def durable(self, kind: str, name: str) -> Function | None:
        return self._durable.get((kind, name.casefold()))

    def of_kind(self, kind: str) -> list[Function]:
        return [function for function in self.all if function.kind == kind]
