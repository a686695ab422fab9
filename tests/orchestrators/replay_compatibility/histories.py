"""Histories of orchestrations as the engine gave them, turn by turn, and their replay with today's code.

A file holds one *execution* of an instance: what lies between two calls of continue-as-new. Its ``history`` is every
event, in order; each turn saw those before ``past``, was given those from there up to ``upto``, and answered with
``actions``.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from azure.durable_functions.internal.serialization import FunctionsDataConverter
from durabletask import worker as durable
from durabletask.internal import orchestrator_service_pb2 as pb
from google.protobuf.json_format import MessageToDict, ParseDict
from google.protobuf.message import Message

from orchestrators.machine import patch_machine
from orchestrators.notifications import send_notifications
from orchestrators.operation import await_operation
from orchestrators.phase import patch_phase
from orchestrators.run import close_orphaned_run, patch_run
from orchestrators.versioning import versioned

type Json = dict[str, Any]

FOLDER = Path(__file__).parent
ORCHESTRATORS = {
    function.__name__: versioned(function)
    for function in (patch_run, close_orphaned_run, patch_phase, patch_machine, await_operation, send_notifications)
}
"""As the app registers them."""


@dataclass
class Turn:
    """What the orchestrator was given, by position in the history, and what it wanted done."""

    past: int
    upto: int
    actions: list[Json]


@dataclass
class Execution:
    """One execution of one instance."""

    instance_id: str
    name: str
    version: str
    history: list[Json] = field(default_factory=list[Json])
    turns: list[Turn] = field(default_factory=list[Turn])

    @classmethod
    def read(cls, path: Path) -> Execution:
        """The execution that a file holds."""
        given = json.loads(path.read_text())
        turns = [Turn(**turn) for turn in given.pop("turns")]
        return cls(**given, turns=turns)

    def write(self, path: Path) -> None:
        """Store it, one event or action a line."""
        lines = [f'{{"instance_id": {json.dumps(self.instance_id)}, "name": "{self.name}",']
        lines += [f'"version": "{self.version}", "history": [']
        lines += [",\n".join(json.dumps(event) for event in self.history)]
        lines += ['], "turns": [']
        lines += [",\n".join(json.dumps(vars(turn)) for turn in self.turns)]
        path.write_text("\n".join([*lines, "]}"]) + "\n")

    def replay(self) -> Iterator[tuple[Turn, list[Json]]]:
        """Each turn with the actions of today's code."""
        events = [ParseDict(event, pb.HistoryEvent()) for event in self.history]
        for turn in self.turns:
            executor = durable._OrchestrationExecutor(  # pyright: ignore[reportPrivateUsage] - replays without a worker
                _registry(), logging.getLogger("golden"), FunctionsDataConverter()
            )
            result = executor.execute(self.instance_id, events[: turn.past], events[turn.past : turn.upto])
            yield turn, [as_json(action) for action in result.actions]


def as_json(message: Message) -> Json:
    """A message as JSON values, without the stack of a failure: its lines move with every edit."""
    found = MessageToDict(message)
    _drop(found, "stackTrace")
    return found


def _drop(value: Any, name: str) -> None:
    match value:
        case dict():
            value.pop(name, None)
            for inner in value.values():
                _drop(inner, name)
        case list():
            for inner in value:
                _drop(inner, name)
        case _:
            pass


def _registry() -> Any:
    registry = durable._Registry()  # pyright: ignore[reportPrivateUsage] - names are not public in 1.12.0
    for name, orchestrator in ORCHESTRATORS.items():
        registry.add_named_orchestrator(name, orchestrator)
    return registry
