"""Configurations, assignments and runs of Microsoft.Maintenance, and the schedules that fire them.

A run is announced forty minutes before its start, with the machines assigned then; at its start, the machines assigned
by then are patched. Nothing ticks: ``settle`` applies due events, each as of its own time.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable
from datetime import datetime, timedelta
from itertools import count
from typing import Any

from local.azure_simulator.arm.names import folded
from local.azure_simulator.clock import NEVER
from local.azure_simulator.compute.install_request import InstallRequest, read_install_request
from local.azure_simulator.compute.machine import Machine
from local.azure_simulator.compute.machine_views import properties
from local.azure_simulator.hybrid_compute.machine import AnyMachine
from local.azure_simulator.maintenance.assignments import Assignment
from local.azure_simulator.maintenance.configurations import Configuration, maintenance_error
from local.azure_simulator.maintenance.occurrences import (
    ANNOUNCED_SECONDS,
    FAILED,
    UNRESPONSIVE,
    MachineRun,
    Occurrence,
)
from local.azure_simulator.server.errors import ArmError
from local.azure_simulator.server.json_readers import dig, object_or_none
from local.azure_simulator.state import AzureState

SETTLED_SECONDS = 15 * 60.0
"""A schedule must exist unchanged for this long before a start, or that start is skipped."""
_API_VERSION = "2024-07-01"

type Publish = Callable[[str, Occurrence], None]


class Schedules:
    """All configurations, assignments and runs, by normalized id."""

    def __init__(self, azure: AzureState) -> None:
        self.azure = azure
        self.configurations: dict[str, Configuration] = {}
        self.assignments: dict[str, Assignment] = {}
        self.former: list[Assignment] = []
        """Removed assignments, which Resource Graph shows a little longer."""
        self.occurrences: dict[str, Occurrence] = {}
        self.publish: Publish | None = None
        """Called with ``Pre`` or ``Post`` and the run; none without a subscribed endpoint."""
        self.on_planned: Callable[[], None] | None = None
        """Called after new events were scheduled that may be due first."""
        self._due: list[tuple[float, int, Callable[[float], None]]] = []
        self._numbers = count()

    # -- stored resources -------------------------------------------------------------------------------------------

    def put(self, configuration: Configuration) -> None:
        """Store a new or changed configuration, and schedule its next run."""
        self.configurations[configuration.folded] = configuration
        self._plan(configuration, self.azure.clock.calendar())

    def remove(self, folded: str) -> bool:
        """Delete a configuration; false when there is none. Its assignments stay stale, as in Azure."""
        return self.configurations.pop(folded, None) is not None

    def unassign(self, folded: str) -> bool:
        """Delete an assignment; false when there is none."""
        found = self.assignments.pop(folded, None)
        if found is not None:
            found.removed = self.azure.clock.now()
            self.former.append(found)
        return found is not None

    def machines_of(self, configuration: Configuration) -> list[AnyMachine]:
        """The currently assigned machines, each once, in fleet order."""
        mine = [each for each in self.assignments.values() if each.configuration == configuration.folded]
        if not mine:
            return []
        # Only dynamic scopes are evaluated per machine: there may be thousands of both.
        named = {folded(each.scope) for each in mine if not each.is_dynamic}
        dynamic = [each for each in mine if each.is_dynamic]
        return [
            machine
            for folded, machine in self.azure.machines.items()
            if not machine.simulation.is_gone and (folded in named or any(each.holds(machine) for each in dynamic))
        ]

    # -- time -------------------------------------------------------------------------------------------------------

    @property
    def next_due(self) -> float:
        """The time of the next event; infinite without one."""
        return self._due[0][0] if self._due else NEVER

    def settle(self) -> None:
        now = self.azure.clock.now()
        while self._due and self._due[0][0] <= now:
            moment, _, action = heapq.heappop(self._due)
            action(moment)

    def _at(self, moment: float, action: Callable[[float], None]) -> None:
        heapq.heappush(self._due, (moment, next(self._numbers), action))
        if self.on_planned is not None:
            self.on_planned()

    def next_start(self, configuration: Configuration, after: datetime) -> datetime | None:
        """The next start that will take place, on the calendar."""
        settled = self.azure.clock.calendar(configuration.changed + SETTLED_SECONDS)
        window = configuration.window
        if window is None or not configuration.patches_guests:
            return None
        return window.next_start(max(after, settled - timedelta(microseconds=1)))

    def _plan(self, configuration: Configuration, after: datetime) -> None:
        start = self.next_start(configuration, after)
        if start is None:
            return

        def announce(moment: float) -> None:
            if self.configurations.get(configuration.folded) is configuration:
                self._announce(configuration, start, moment)
                self._plan(configuration, start)

        now = self.azure.clock.now()
        self._at(max(self.azure.clock.moment(start) - ANNOUNCED_SECONDS, now), announce)

    def _announce(self, configuration: Configuration, start: datetime, moment: float) -> None:
        made = self._open(configuration, self.azure.clock.moment(start), moment)
        if self.publish is None or made.cancelled is not None:
            return
        if made.starts - configuration.changed < ANNOUNCED_SECONDS:
            # Documented for schedules with events: their pre event could not have been in time.
            made.cancelled = moment
            made.message = "The schedule was changed less than 40 minutes before its start."
        else:
            self.publish("Pre", made)

    def fire(self, configuration: Configuration, minutes: float) -> Occurrence:
        """Announce a run now that starts in ``minutes`` simulated minutes, whatever the schedule."""
        now = self.azure.clock.now()
        made = self._open(configuration, now + minutes * 60, now)
        made.is_by_hand = True
        if self.publish is not None:
            self.publish("Pre", made)
        self.settle()
        return made

    def _open(self, configuration: Configuration, starts: float, moment: float) -> Occurrence:
        name = f"{self.azure.clock.calendar(starts):%Y%m%d%H%M%S}"
        known = self._known(configuration, name)
        if known is not None:
            # Planned anew by a change of the schedule: announced already, or cancelled ahead of its announcement.
            known.configuration = configuration
            return known
        made = Occurrence(configuration, name, moment, starts, starts + _duration(configuration))
        made.machines = {machine.folded: MachineRun(machine) for machine in self.machines_of(configuration)}
        self.occurrences[made.id] = made
        self._at(starts, lambda at: self._begin(made, at))
        return made

    # -- a run ------------------------------------------------------------------------------------------------------

    def cancel(self, occurrence: Occurrence, message: str = "") -> None:
        """Cancel a run that has not begun."""
        occurrence.cancelled, occurrence.message = self.azure.clock.now(), message

    def coming(self, configuration: Configuration, name: str) -> Occurrence | None:
        """The run with that name: announced, or the schedule's next one; none without such a run."""
        known = self._known(configuration, name)
        if known is not None:
            return known
        after = self.azure.clock.calendar()
        for _ in range(100):
            start = self.next_start(configuration, after)
            if start is None or f"{start:%Y%m%d%H%M%S}" > name:
                return None
            if f"{start:%Y%m%d%H%M%S}" == name:
                return self._open(configuration, self.azure.clock.moment(start), self.azure.clock.now())
            after = start
        return None

    def _known(self, configuration: Configuration, name: str) -> Occurrence | None:
        return self.occurrences.get(f"{configuration.folded}/providers/microsoft.maintenance/applyupdates/{name}")

    def _begin(self, occurrence: Occurrence, moment: float) -> None:
        configuration = self.configurations.get(occurrence.configuration.folded)
        if occurrence.cancelled is None and not self._is_still_planned(occurrence, configuration):
            occurrence.cancelled = moment
            occurrence.message = "The maintenance configuration was changed or deleted."
        if occurrence.cancelled is not None or configuration is None:
            return
        occurrence.configuration, occurrence.has_begun = configuration, True
        occurrence.window_end = moment + _duration(configuration)
        taken = {
            folded
            for other in self.occurrences.values()
            if other is not occurrence and other.has_begun and abs(other.starts - occurrence.starts) < 1
            for folded in other.machines
        }
        occurrence.machines = {
            machine.folded: self._patch(occurrence, machine, moment)
            for machine in self.machines_of(configuration)
            # Of schedules that start together, one fires.
            if machine.folded not in taken
        }
        self._at(occurrence.planned_end(), lambda at: self._end(occurrence, at))

    def _is_still_planned(self, occurrence: Occurrence, configuration: Configuration | None) -> bool:
        if configuration is None or occurrence.is_by_hand:
            return configuration is not None
        start = self.next_start(configuration, self.azure.clock.calendar(occurrence.starts - 1))
        return start is not None and f"{start:%Y%m%d%H%M%S}" == occurrence.name

    def _end(self, occurrence: Occurrence, moment: float) -> None:
        occurrence.ended = moment
        if self.publish is not None:
            self.publish("Post", occurrence)

    def _patch(self, occurrence: Occurrence, machine: AnyMachine, moment: float) -> MachineRun:
        made = MachineRun(machine)
        machine.settle(moment)
        made.refused, made.message = self._obstacle(occurrence, machine, moment)
        if made.refused:
            return made
        try:
            request = _request(occurrence, machine)
            completion = machine.plan("install", request, moment)
        except ArmError as refused:
            made.refused, made.message = FAILED, str(dig(refused.body, "error", "message"))
            return made
        made.operation = self.azure.operations.begin(
            "install", machine, completion, _API_VERSION, started=moment, maintenance_run=occurrence.id
        )
        machine.begin(made.operation)
        return made

    def _obstacle(self, occurrence: Occurrence, machine: AnyMachine, moment: float) -> tuple[str, str]:
        """Status and message of a machine that the run cannot patch; empty for one that it can.

        Schedules need no patch mode of Arc machines; that one without contact counts as unresponsive is assumed.
        """
        if not isinstance(machine, Machine):
            is_responsive = machine.status(moment) == "Connected"
            return ("", "") if is_responsive else (UNRESPONSIVE, "The machine was disconnected.")
        missing = _prerequisite(machine)
        if missing:
            return FAILED, missing
        if machine.power != "running" or machine.simulation.agent in ("missing", "notReady"):
            return UNRESPONSIVE, "The machine was shut down or unresponsive."
        if machine.recreated is not None and machine.recreated > self._assigned_at(occurrence, machine):
            return UNRESPONSIVE, "The machine was created again after it had been assigned."
        return "", ""

    def _assigned_at(self, occurrence: Occurrence, machine: Machine) -> float:
        mine = [
            each.created
            for each in self.assignments.values()
            if each.configuration == occurrence.configuration.folded and not each.is_dynamic and each.holds(machine)
        ]
        return max(mine, default=NEVER)


def find_configuration(schedules: Schedules, wanted: str) -> Configuration:
    """A configuration by id.

    Raises:
        ArmError: 404, with capital letters.
    """
    found = schedules.configurations.get(wanted.rstrip("/").casefold())
    if found is None:
        raise maintenance_error(404, "NotFound", f"Maintenance configuration '{wanted}' was not found.")
    return found


def _duration(configuration: Configuration) -> float:
    return 0.0 if configuration.window is None else configuration.window.duration.total_seconds()


def _patch_settings(machine: Machine) -> dict[str, Any]:
    half = "windowsConfiguration" if machine.os_type == "Windows" else "linuxConfiguration"
    return object_or_none(dig(properties(machine), "osProfile", half, "patchSettings"))


def _prerequisite(machine: Machine) -> str:
    """The missing prerequisite of a machine; empty when a schedule may patch it. Both are required, as documented."""
    settings = _patch_settings(machine)
    if settings.get("patchMode") != "AutomaticByPlatform":
        return "The patch mode of the machine is not 'Customer Managed Schedules': it must be AutomaticByPlatform."
    if not dig(settings, "automaticByPlatformSettings", "bypassPlatformSafetyChecksOnUserSchedule"):
        return "The machine does not bypass the platform's safety checks on user schedules."
    return ""


def _request(occurrence: Occurrence, machine: AnyMachine) -> InstallRequest:
    """The installation request of a schedule; its reboot settings have other names.

    Raises:
        ArmError: 400, for values that were not validated with the configuration.
    """
    configuration = occurrence.configuration
    patches = object_or_none(configuration.properties.get("installPatches"))
    reboot = str(patches.get("rebootSetting", "IfRequired"))
    words = {"NeverReboot": "Never", "RebootIfRequired": "IfRequired", "AlwaysReboot": "Always"}
    # Documented: the setting of a virtual machine wins over the schedule.
    settings = _patch_settings(machine) if isinstance(machine, Machine) else {}
    own = dig(settings, "automaticByPlatformSettings", "rebootSetting")
    reboot = reboot if own in (None, "Unknown") else str(own)
    halves: dict[str, Any] = {
        name: {key: value for key, value in object_or_none(patches.get(name)).items() if value is not None}
        for name in ("windowsParameters", "linuxParameters")
    }
    half = halves["windowsParameters" if machine.os_type == "Windows" else "linuxParameters"]
    if not any(value for key, value in half.items() if key.endswith("Include")):
        half["classificationsToInclude"] = ["Critical", "Security"]
    minutes = round((occurrence.window_end - occurrence.starts) / 60)
    body = {"maximumDuration": f"PT{minutes}M", "rebootSetting": words.get(reboot, reboot)} | halves
    return read_install_request(body, machine.os_type, _API_VERSION, machine.simulation.rejects_kb)
