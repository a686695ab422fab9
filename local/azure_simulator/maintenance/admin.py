"""``/_sim/maintenance`` and ``/_sim/event-grid``: fire runs, disturb event delivery, and inspect both."""

from __future__ import annotations

from typing import Any

import httpx

from local.azure_simulator.maintenance.configurations import Configuration
from local.azure_simulator.maintenance.event_grid import Delivery, EventGrid
from local.azure_simulator.maintenance.occurrences import Occurrence


class MaintenanceAdmin:
    """Controls of schedules and their events."""

    def __init__(self, events: EventGrid) -> None:
        self.events = events
        self.schedules = events.schedules
        self.clock = events.clock

    def document(self) -> dict[str, Any]:
        """The calendar, every configuration with its next start, every run, and every delivery of an event."""
        self.schedules.settle()
        return {
            "calendar": f"{self.clock.calendar():%Y-%m-%dT%H:%M:%S}Z",
            "endpoint": self.events.url is not None,
            "configurations": [self._configuration(each) for each in self.schedules.configurations.values()],
            "occurrences": [self._occurrence(each) for each in self.schedules.occurrences.values()],
            "deliveries": self.events.deliveries,
        }

    async def write(self, part: str, document: dict[str, Any]) -> dict[str, Any]:
        """One of the three controls: ``event-grid``, ``maintenance`` and ``maintenance/fire``.

        Raises:
            KeyError: no such configuration.
            ValueError: an endpoint that cannot be used.
            pydantic.ValidationError: an unknown option.
        """
        if part == "event-grid":
            if document["url"] is None:
                self.events.disconnect()
                return {"endpoint": False}
            try:
                await self.events.connect(str(document["url"]), str(document.get("key") or ""))
            except httpx.HTTPError as error:
                raise ValueError(f"{type(error).__name__}: {error}") from error
            return {"endpoint": True}
        configuration = self.schedules.configurations[str(document.pop("configuration")).rstrip("/").casefold()]
        if part == "maintenance/fire":
            return self._occurrence(self.schedules.fire(configuration, float(document.get("inMinutes", 0))))
        if document.pop("withoutPatchMode", False):
            # Azure does not accept such a configuration any more; older ones exist.
            configuration.properties["extensionProperties"] = {}
        options = Delivery.model_validate(document)
        self.events.deliver_as(configuration.folded, options)
        return options.model_dump(mode="json", by_alias=True)

    def _configuration(self, configuration: Configuration) -> dict[str, Any]:
        start = self.schedules.next_start(configuration, self.clock.calendar())
        return {
            "id": configuration.id,
            "nextStart": None if start is None else f"{start:%Y-%m-%dT%H:%M:%S}Z",
            "machines": len(self.schedules.machines_of(configuration)),
            "events": self.events.options(configuration.folded).model_dump(mode="json", by_alias=True),
        }

    def _occurrence(self, occurrence: Occurrence) -> dict[str, Any]:
        now = self.clock.now()
        words = {folded: occurrence.machine_status(folded, now, self.clock)[0] for folded in occurrence.machines}
        return {
            "id": occurrence.id,
            "status": occurrence.status(now, self.clock),
            "startsAt": self.clock.stamp(occurrence.starts),
            "machines": {
                each.machine.id: {"status": words[folded], "message": each.message}
                for folded, each in occurrence.machines.items()
            },
        }
