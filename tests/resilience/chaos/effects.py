"""External effects and how they go wrong: what the harness and the worker that it breaks tell each other.

An effect is a request of a worker to Resource Manager or to Table storage that may change something. They are numbered
over all workers, from 1, in the order in which they are sent.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

from local.processes import write_atomically

FOLDER = "CHAOS_FOLDER"
"""The environment variable that names the folder of the order and of the traces."""


class Way(StrEnum):
    """What happens to one effect."""

    KILL_BEFORE = "kill-before"
    """The worker is killed with SIGKILL instead of sending it."""
    KILL_AFTER = "kill-after"
    """The worker is killed when the answer has arrived, before it can do anything about it."""
    RESET_BEFORE = "reset-before"
    """The connection is reset before anything is sent."""
    RESET_AFTER = "reset-after"
    """The connection is reset when the server has done the work: the answer is lost."""


@dataclass(frozen=True, slots=True)
class Order:
    """Spoil effect ``number`` in this ``way``; ``name`` tells orders apart."""

    name: str
    number: int
    way: Way

    def give(self, folder: Path) -> None:
        """Put it where workers look."""
        write_atomically(folder / "order.json", asdict(self))

    @classmethod
    def read(cls, folder: Path) -> Order:
        """The order that counts now.

        Raises:
            FileNotFoundError: there is none yet.
        """
        found = json.loads((folder / "order.json").read_text())
        return cls(found["name"], found["number"], Way(found["way"]))

    def effects(self, folder: Path) -> Path:
        """Where workers write each effect: a line with method and address."""
        return folder / f"{self.name}.effects"

    def spoilt(self, folder: Path) -> Path:
        """Where the worker writes which effect it was when it carried out the order."""
        return folder / f"{self.name}.spoilt"


__all__ = ["FOLDER", "Order", "Way"]
