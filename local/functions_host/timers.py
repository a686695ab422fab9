"""Timer triggers: one task per function, with the schedule status in a file.

As in Azure, a timer that missed an occurrence while the host was down runs once at the start, with ``IsPastDue``; a
timer that has never run does not. With ``useMonitor`` off, or more than one occurrence a minute, there is no status.
"""

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

from local.functions_host.functions import TIMER, Function, Functions
from local.functions_host.host_json import HostJsonError, expand_settings
from local.functions_host.ncrontab import Schedule, parse_schedule
from local.processes import write_atomically

log = logging.getLogger(__name__)

# Runs a timer function with its data; False when it failed.
type RunWithData = Callable[[Function, dict[str, Any]], Awaitable[bool]]

# asyncio sleeps on a clock that stops when the computer sleeps; read the wall clock at least this often.
_MAX_SLEEP_SECONDS = 30.0
_NEVER = datetime.min.replace(tzinfo=UTC)


@dataclass(slots=True)
class Status:
    """The last run of a timer, its next occurrence, and when this was written."""

    last: datetime | None
    next: datetime
    updated: datetime

    def as_data(self) -> dict[str, str]:
        """``ScheduleStatus`` as the function gets it."""
        return {
            "Last": (self.last or _NEVER).isoformat(),
            "Next": self.next.isoformat(),
            "LastUpdated": self.updated.isoformat(),
        }


class StatusFile:
    """Statuses of all timers of an app, by function name, in one JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def read(self, name: str) -> Status | None:
        """The status of a timer, or None when there is none that can be read."""
        entry = self._all().get(name)
        if entry is None:
            return None
        try:
            last, following, updated = (datetime.fromisoformat(entry[key]) for key in ("Last", "Next", "LastUpdated"))
            return Status(None if last == _NEVER else last, following, updated)
        except (KeyError, TypeError, ValueError):
            log.warning("the schedule status of '%s' cannot be read and is replaced", name)
            return None

    def write(self, name: str, status: Status) -> None:
        write_atomically(self._path, self._all() | {name: status.as_data()})

    def _all(self) -> dict[str, dict[str, str]]:
        try:
            document: Any = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        return cast(dict[str, dict[str, str]], document) if isinstance(document, dict) else {}


class Timers:
    """All timer functions of an app."""

    def __init__(self, functions: Functions, run: RunWithData, status_file: Path) -> None:
        self._run = run
        self._file = StatusFile(status_file)
        self._timers = [_Timer.of(function) for function in functions.of_kind(TIMER)]

    async def run(self) -> None:
        """Runs all timers until cancelled."""
        async with asyncio.TaskGroup() as group:
            for timer in self._timers:
                group.create_task(self._serve(timer))
            # Also without timers this must not end: its end would end the host.
            await asyncio.Event().wait()

    async def run_now(self, function: Function) -> bool:
        """Runs a timer function by hand, outside its schedule."""
        timer = next(each for each in self._timers if each.function is function)
        return await self._invoke(timer, self._file.read(function.name), past_due=False)

    async def _serve(self, timer: "_Timer") -> None:
        name = timer.function.name
        now = datetime.now(UTC)
        status = self._file.read(name) if timer.monitored else None
        past_due = status is not None and status.next <= now
        if status is None:
            status = Status(None, timer.schedule.next_after(now), now)
            self._keep(timer, status)
        if past_due or timer.run_on_startup:
            await self._invoke(timer, status, past_due=past_due)
            status = self._advance(timer, status.next if past_due else now)
        while True:
            while (left := (status.next - datetime.now(UTC)).total_seconds()) > 0:  # noqa: ASYNC110 - waits for a wall clock
                await asyncio.sleep(min(left, _MAX_SLEEP_SECONDS))
            await self._invoke(timer, status, past_due=False)
            status = self._advance(timer, status.next)

    def _advance(self, timer: "_Timer", occurrence: datetime) -> Status:
        now = datetime.now(UTC)
        # Occurrences that passed during the run are skipped: a timer never runs twice at once.
        status = Status(occurrence, timer.schedule.next_after(max(occurrence, now)), now)
        self._keep(timer, status)
        return status

    def _keep(self, timer: "_Timer", status: Status) -> None:
        if timer.monitored:
            self._file.write(timer.function.name, status)

    async def _invoke(self, timer: "_Timer", status: Status | None, *, past_due: bool) -> bool:
        data: dict[str, Any] = {
            "Schedule": {"AdjustForDST": True},
            "ScheduleStatus": status.as_data() if status is not None and timer.monitored else None,
            "IsPastDue": past_due,
        }
        log.info("timer '%s' runs%s", timer.function.name, " (past due)" if past_due else "")
        return await self._run(timer.function, data)


@dataclass(frozen=True, slots=True)
class _Timer:
    function: Function
    schedule: Schedule
    run_on_startup: bool
    monitored: bool

    @classmethod
    def of(cls, function: Function) -> "_Timer":
        trigger = function.trigger
        try:
            schedule = parse_schedule(expand_settings(str(trigger["schedule"])))
        except HostJsonError as error:
            raise HostJsonError(f"{function.name}: {error}") from error
        first = schedule.next_after(datetime.now(UTC))
        often = schedule.next_after(first) - first < timedelta(minutes=1)
        return cls(
            function,
            schedule,
            run_on_startup=bool(trigger.get("runOnStartup")),
            monitored=trigger.get("useMonitor") is not False and not often,
        )
