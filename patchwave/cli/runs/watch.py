"""Follows a run until it ends, and shows how it goes."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Console
from rich.live import Live

from patchwave.cli.errors import ExitCode, UnreachableError
from patchwave.cli.json_fields import Json, counts
from patchwave.cli.output import plain
from patchwave.cli.runs.machine_views import NEEDS_PERSON
from patchwave.cli.runs.views import FINAL_STATES, needs_person, progress_line, progress_view

if TYPE_CHECKING:
    from patchwave.cli.client import ApiClient

ROWS_OF_ATTENTION = 15
"""Machines listed under a live view; `patchwave run machines` has them all."""

TIMEOUT_SECONDS = 120.0
"""How long a service that stopped answering is asked again before the watch ends."""


@dataclass(frozen=True)
class Snapshot:
    """A run at one moment, and the machines that need a person, most urgent first."""

    run: Json
    attention: tuple[Json, ...]

    @property
    def is_final(self) -> bool:
        """Whether the run has ended."""
        return self.run.get("state") in FINAL_STATES


def snapshots(
    client: ApiClient, run_id: str, interval_seconds: float, timeout_seconds: float = TIMEOUT_SECONDS
) -> Iterator[Snapshot]:
    """The run every ``interval_seconds`` until it has ended; the last snapshot is the final one.

    Raises:
        UnreachableError: the service gave no answer for ``timeout_seconds``.
    """
    attention: tuple[Json, ...] = ()
    counted: dict[str, int] = {}
    last_answer = time.monotonic()
    while True:
        try:
            run = client.run(run_id)
            by_outcome = counts(run, "countsByOutcome")
            if by_outcome != counted:
                attention = _attention(client, run_id, by_outcome)
                counted = by_outcome
        except UnreachableError:
            if time.monotonic() - last_answer > timeout_seconds:
                raise
        else:
            last_answer = time.monotonic()
            snapshot = Snapshot(run, attention)
            yield snapshot
            if snapshot.is_final:
                return
        time.sleep(interval_seconds)


def _attention(client: ApiClient, run_id: str, by_outcome: dict[str, int]) -> tuple[Json, ...]:
    found: list[Json] = []
    for outcome in NEEDS_PERSON:
        if by_outcome.get(outcome) and len(found) < ROWS_OF_ATTENTION:
            found += client.machines(run_id, outcome, ROWS_OF_ATTENTION - len(found))
    return tuple(found)


def watch(
    client: ApiClient,
    run_id: str,
    console: Console,
    interval_seconds: float,
    answer: Callable[[Json], None] = lambda _: None,
) -> Json:
    """Show a run until it ends, live on a terminal and as lines elsewhere; the final run document.

    Ctrl-C ends the watching, not the run. ``answer`` is called with each state of the run, to answer its questions.
    """
    if not console.is_terminal:
        return _as_lines(client, run_id, console, interval_seconds, answer)
    final: Json = {}
    with Live(console=console, refresh_per_second=4) as live:
        for snapshot in snapshots(client, run_id, interval_seconds):
            answer(snapshot.run)
            # While it is live the view must fit the terminal; what stays on the screen at the end may be longer.
            height = None if snapshot.is_final else console.height
            live.update(progress_view(snapshot.run, snapshot.attention, height))
            final = snapshot.run
    return final


def _as_lines(
    client: ApiClient, run_id: str, console: Console, interval_seconds: float, answer: Callable[[Json], None]
) -> Json:
    said = ""
    snapshot = None
    for snapshot in snapshots(client, run_id, interval_seconds):
        if not said:
            console.print(f"Run {plain(snapshot.run.get('id', run_id))}")
        line = progress_line(snapshot.run)
        if line != said:
            console.print(line, soft_wrap=True)
            said = line
        answer(snapshot.run)
    if snapshot is None:
        return {}
    console.print(progress_view(snapshot.run, snapshot.attention))
    return snapshot.run


def exit_code_of(run: Json) -> ExitCode:
    """How the command ends for a run that has ended: 0 only when nothing needs a person."""
    if run.get("state") in ("failed", "canceled", "stopped") or needs_person(run):
        return ExitCode.NEEDS_PERSON
    return ExitCode.OK
