"""The log of requests, in order."""

from __future__ import annotations

from collections import deque
from fnmatch import fnmatchcase
from typing import Any, NamedTuple

KEPT = 200_000
"""Requests in the log; older ones are dropped."""


class Entry(NamedTuple):
    """One request and its response; ``status`` 0 means that the connection was reset."""

    number: int
    at: str
    method: str
    path: str
    query: str
    status: int
    milliseconds: float
    machine: str | None
    operation: str | None
    body: Any
    fault: bool


class RequestLog:
    """Requests since the start, oldest first."""

    def __init__(self) -> None:
        self._entries: deque[Entry] = deque(maxlen=KEPT)
        self.count = 0

    def write(self, entry: Entry) -> None:
        self._entries.append(entry)

    def next_number(self) -> int:
        self.count += 1
        return self.count

    def documents(
        self, *, since: int = 0, method: str = "", path: str = "", operation: str = "", limit: int = 0
    ) -> list[dict[str, Any]]:
        """The entries after number ``since`` that match; ``limit`` keeps the newest ones."""
        found = [
            entry._asdict()
            for entry in self._entries
            if entry.number > since
            and (not method or entry.method == method.upper())
            and (not path or fnmatchcase(entry.path.casefold(), path.casefold()))
            and (not operation or entry.operation == operation)
        ]
        return found[-limit:] if limit else found
