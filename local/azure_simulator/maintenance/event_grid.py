"""Event Grid: pre and post events of schedules, delivered to one endpoint at least once.

Sources: "Azure Event Grid schema for maintenance configurations" in both its editions (keys were camel case in 2023 and
are Pascal case now), and the delivery of Event Grid: a handshake first, later an array for its own schema and one
document for CloudEvents, and again after a while when the endpoint does not answer with success.
"""

from __future__ import annotations

import asyncio
import heapq
import ssl
import uuid
from dataclasses import dataclass, replace
from itertools import count
from typing import Any, Literal
from urllib.parse import urlsplit

import httpx
from pydantic import Field

from local.azure_simulator.clock import NEVER
from local.azure_simulator.maintenance.occurrences import CUT_OFF_SECONDS, Occurrence
from local.azure_simulator.maintenance.scheduler import Schedules
from local.azure_simulator.server.json_readers import Strict

RETRY_SECONDS = (10.0, 30.0, 60.0, 300.0, 600.0)
"""Simulated seconds until each retry; after the last one an event is dropped."""
_LOOPBACK = ("localhost", "127.0.0.1", "::1")
_TIMEOUT_SECONDS = 30.0
_KEPT_DELIVERIES = 500


class Delivery(Strict):
    """Delivery options of one configuration's events. Minutes are simulated."""

    duplicates: int = Field(default=0, ge=0, le=20)
    """Additional deliveries of each event."""
    pre_delay_minutes: float = Field(default=0, ge=0)
    """Delay of the pre event."""
    post_delay_minutes: float = Field(default=0, ge=0)
    post_first: bool = False
    """The pre event waits until the post event has been delivered."""
    send_pre: bool = True
    send_post: bool = True
    schema_: Literal["EventGrid", "CloudEvents"] = Field(default="EventGrid", alias="schema")
    casing: Literal["pascal", "camel"] = "pascal"


@dataclass(slots=True)
class _Parcel:
    kind: str
    occurrence: Occurrence
    event: dict[str, Any]
    is_cloud: bool
    then: _Parcel | None = None
    """The next delivery after this one succeeds."""
    tries: int = 0


class EventGrid:
    """Queues events, and delivers them while ``run`` is awaited."""

    def __init__(self, schedules: Schedules) -> None:
        self.schedules = schedules
        self.clock = schedules.azure.clock
        self.url: str | None = None
        self.deliveries: list[dict[str, Any]] = []
        """Each attempt: event id, type, simulated time and status (0 without a response)."""
        self._options: dict[str, Delivery] = {}
        self._out: list[tuple[float, int, _Parcel]] = []
        self._held: dict[str, _Parcel] = {}
        self._numbers = count()
        self._wake = asyncio.Event()
        schedules.on_planned = self._wake.set

    def options(self, configuration: str) -> Delivery:
        """The delivery options of the configuration with this normalized id."""
        return self._options.get(configuration, Delivery())

    def deliver_as(self, configuration: str, options: Delivery) -> None:
        self._options[configuration] = options

    def disconnect(self) -> None:
        """Remove the endpoint: schedules run without events, as without a subscription."""
        self.url = self.schedules.publish = None
        self._out.clear()

    async def connect(self, url: str, key: str = "") -> None:
        """Subscribe an endpoint to every configuration, after the handshake of Event Grid.

        Raises:
            ValueError: it is not a loopback address, or does not answer the handshake.
        """
        if urlsplit(url).hostname not in _LOOPBACK:
            raise ValueError("events are delivered to loopback addresses only")
        code = str(uuid.uuid4())
        greeting = {
            "id": str(uuid.uuid4()),
            "topic": "",
            "subject": "",
            "data": {"validationCode": code},
            "eventType": "Microsoft.EventGrid.SubscriptionValidationEvent",
            "eventTime": self.clock.stamp(),
            "metadataVersion": "1",
            "dataVersion": "2",
        }
        target = _with_key(url, key)
        async with _client() as http:
            reply = await http.post(target, json=[greeting], headers={"aeg-event-type": "SubscriptionValidation"})
        answer: Any = reply.json() if reply.is_success else None
        if not isinstance(answer, dict) or answer != {"validationResponse": code}:
            raise ValueError(f"the endpoint did not answer the handshake: {reply.status_code} {reply.text[:200]}")
        self.url = target
        self.schedules.publish = self.publish
        self._wake.set()

    # -- events -----------------------------------------------------------------------------------------------------

    def publish(self, kind: str, occurrence: Occurrence) -> None:
        """Queue the ``Pre`` or ``Post`` event of a run."""
        options = self.options(occurrence.configuration.folded)
        is_pre = kind == "Pre"
        if not (options.send_pre if is_pre else options.send_post):
            return
        now = self.clock.now()
        due = now + 60 * (options.pre_delay_minutes if is_pre else options.post_delay_minutes)
        parcel = _Parcel(kind, occurrence, self._event(kind, occurrence, options), options.schema_ == "CloudEvents")
        if is_pre and options.post_first:
            self._held[occurrence.id] = parcel
            return
        for _ in range(options.duplicates):
            self._put(due, replace(parcel))
        parcel.then = self._held.pop(occurrence.id, None)
        self._put(due, parcel)

    def _put(self, due: float, parcel: _Parcel) -> None:
        heapq.heappush(self._out, (due, next(self._numbers), parcel))
        self._wake.set()

    def _event(self, kind: str, occurrence: Occurrence, options: Delivery) -> dict[str, Any]:
        clock, configuration = self.clock, occurrence.configuration
        subscriptions = {each.machine.subscription_id: None for each in occurrence.machines.values()}
        data: dict[str, Any] = {
            "correlationId": occurrence.id,
            "maintenanceConfigurationId": configuration.folded,
            "startDateTime": _zulu(clock.stamp(occurrence.starts)),
            "endDateTime": _zulu(clock.stamp(occurrence.window_end)),
            "resourceSubscriptionIds": list(subscriptions),
        }
        if kind == "Pre":
            data["cancellationCutOffDateTime"] = _zulu(clock.stamp(occurrence.starts - CUT_OFF_SECONDS))
        else:
            data["status"] = occurrence.status(clock.now(), clock)
        if options.casing == "pascal":
            data = {key[0].upper() + key[1:]: value for key, value in data.items()}
        event_type, at = f"Microsoft.Maintenance.{kind}MaintenanceEvent", _zulu(clock.stamp())
        common = {"id": occurrence.id, "subject": configuration.name, "data": data}
        if options.schema_ == "CloudEvents":
            return common | {"source": configuration.folded, "type": event_type, "time": at, "specversion": "1.0"}
        versions = {"dataVersion": "1.0", "metadataVersion": "1"}
        return common | {"topic": configuration.folded, "eventType": event_type, "eventTime": at} | versions

    # -- delivery ---------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Fire schedules and deliver events when due, until cancelled."""
        async with _client() as http, asyncio.TaskGroup() as tasks:
            while True:
                self._wake.clear()
                self.schedules.settle()
                now = self.clock.now()
                while self._out and self._out[0][0] <= now:
                    tasks.create_task(self._deliver(http, heapq.heappop(self._out)[2]))
                due = min(self.schedules.next_due, self._out[0][0] if self._out else NEVER)
                wait = None if due == NEVER else max(0.0, self.clock.real_seconds(due - self.clock.now()))
                try:
                    await asyncio.wait_for(self._wake.wait(), wait)
                except TimeoutError:
                    continue

    async def _deliver(self, http: httpx.AsyncClient, parcel: _Parcel) -> None:
        if self.url is None:
            return
        if parcel.is_cloud:
            headers = {"Content-Type": "application/cloudevents+json; charset=utf-8"}
        else:
            headers = {"aeg-event-type": "Notification", "aeg-subscription-name": "PATCHWAVE"}
        body = parcel.event if parcel.is_cloud else [parcel.event]
        try:
            status = (await http.post(self.url, json=body, headers=headers)).status_code
        except httpx.HTTPError:
            status = 0
        word = parcel.event.get("eventType") or parcel.event["type"]
        self.deliveries.append({"id": parcel.event["id"], "type": word, "at": self.clock.now(), "status": status})
        del self.deliveries[:-_KEPT_DELIVERIES]
        if 200 <= status < 300:
            if parcel.then is not None:
                self._put(self.clock.now(), parcel.then)
            return
        parcel.tries += 1
        if parcel.tries <= len(RETRY_SECONDS):
            self._put(self.clock.now() + RETRY_SECONDS[parcel.tries - 1], parcel)
        elif parcel.kind == "Pre" and not parcel.occurrence.has_begun:
            # Documented: a run whose pre event could not be delivered is cancelled.
            self.schedules.cancel(parcel.occurrence, "The pre event could not be delivered.")


def _client() -> httpx.AsyncClient:
    # Endpoints are local and use plain HTTP: no CA is needed, and none is loaded.
    no_trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    return httpx.AsyncClient(trust_env=False, timeout=_TIMEOUT_SECONDS, verify=no_trust)


def _with_key(url: str, key: str) -> str:
    return url if not key else f"{url}{'&' if '?' in url else '?'}code={key}"


def _zulu(stamp: str) -> str:
    return stamp.replace("+00:00", "Z")
