"""Long-running operations and their signed URLs.

Both URLs of a Compute operation have a query: ``p`` before the api-version, ``monitor=true`` only in Location, then
``t`` (ticks), ``c`` (a certificate), ``s`` (a signature) and ``h``, over 3,000 characters in all. It is only valid byte
for byte. The one URL of an operation on an Arc machine has the same without ``p``; each poll gives it a new signature,
and those given before stay valid (recorded with Az.ConnectedMachine, 2023-12 and 2024-11).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import random
import secrets
import uuid
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl

from local.azure_simulator.clock import Clock
from local.azure_simulator.compute.guest_agent import Completion, stamps
from local.azure_simulator.server.errors import altered_operation_url, operation_not_found

if TYPE_CHECKING:
    from local.azure_simulator.hybrid_compute.machine import AnyMachine

RECORD_HOURS = 24.0
"""Simulated hours for which a record outlives its operation; later polls return 404."""
_TICKS_AT_UNIX_EPOCH = 621_355_968_000_000_000
_CERTIFICATE_BYTES = 1_912
_SIGNATURE_BYTES = 256


def indented(document: dict[str, Any]) -> str:
    """JSON as Azure writes poll and error bodies: CRLF, two spaces."""
    return json.dumps(document, indent=2, ensure_ascii=False).replace("\n", "\r\n")


@dataclass(slots=True)
class Operation:
    """An accepted operation. ``machine`` is the normalized id."""

    id: str
    kind: str
    machine: str
    subscription_id: str
    location: str
    started: float
    completion: Completion
    api_version: str
    polling_query: str
    location_query: str
    lost: bool = False
    """The record is lost while the guest continues: polls return 404."""
    forbidden: bool = False
    maintenance_run: str = ""
    """The scheduled run that started it; empty for a client's operation."""
    by_platform: bool = False
    """No client started it."""
    graph_row: dict[str, Any] | None = None
    """Cached for the Resource Graph tables once it has ended."""
    _result: dict[str, Any] | None = field(default=None)

    @property
    def ends(self) -> float:
        return self.started + self.completion.seconds

    def is_over(self, now: float) -> bool:
        return now >= self.ends

    def result(self, clock: Clock) -> dict[str, Any] | None:
        """The inner result; none for power operations, and failures before the guest."""
        if self._result is None and self.completion.result is not None:
            began, modified = stamps(clock, self.started, self.ends)
            self._result = self.completion.result(self.id, began, modified)
            if "maintenanceRunId" in self._result:
                self._result["maintenanceRunId"] = self.maintenance_run
        return self._result

    def status_body(self, clock: Clock, now: float) -> str:
        """The body of the Azure-AsyncOperation URL: exactly three keys until the end."""
        began = clock.stamp(self.started)
        if not self.is_over(now):
            return indented({"startTime": began, "status": "InProgress", "name": self.id})
        body: dict[str, Any] = {"startTime": began, "endTime": clock.stamp(self.ends), "status": self.completion.status}
        result = self.result(clock) if self.completion.status == "Succeeded" else None
        if self.completion.error is not None:
            body["error"] = self.completion.error
        if result is not None:
            body["properties"] = {"output": 0}
        body["name"] = self.id
        text = indented(body)
        if result is None:
            return text
        compact = json.dumps(result, separators=(",", ":"), ensure_ascii=False)
        return text.replace('"output": 0', f'"output": {compact}', 1)


class Operations:
    """All operations by id."""

    def __init__(self, clock: Clock, base_url: str, seed: int) -> None:
        self._clock = clock
        self._base_url = base_url
        source = random.Random(f"operations:{seed}")
        self._all: dict[str, Operation] = {}
        self._partition = str(uuid.UUID(int=source.getrandbits(128), version=4))
        self._certificate = "MIIHhz" + _base64url(source.randbytes(_CERTIFICATE_BYTES))
        self._key = secrets.token_bytes(32)

    def begin(
        self,
        kind: str,
        machine: AnyMachine,
        completion: Completion,
        api_version: str,
        *,
        started: float | None = None,
        maintenance_run: str = "",
    ) -> Operation:
        """Record an accepted operation, by default as of now; its id is the activity id everywhere."""
        operation_id = str(uuid.uuid4())  # not from the seed: a client may keep ids over a restart of the simulator
        made = Operation(
            id=operation_id,
            kind=kind,
            machine=machine.folded,
            subscription_id=machine.subscription_id,
            location=machine.location,
            started=self._clock.now() if started is None else started,
            completion=completion,
            api_version=api_version,
            polling_query=self._query(operation_id, api_version, monitor=False),
            location_query=self._query(operation_id, api_version, monitor=True),
            maintenance_run=maintenance_run,
        )
        self._all[operation_id] = made
        return made

    def urls(self, operation: Operation) -> tuple[str, str]:
        """Azure-AsyncOperation and Location."""
        path = (
            f"{self._base_url}/subscriptions/{operation.subscription_id}/providers/Microsoft.Compute"
            f"/locations/{operation.location}/operations/{operation.id}"
        )
        return f"{path}?{operation.polling_query}", f"{path}?{operation.location_query}"

    def result_url(self, operation: Operation) -> str:
        """Location of an operation on an Arc machine, signed anew."""
        query = self._result_query(operation, str(_ticks()))
        return (
            f"{self._base_url}/subscriptions/{operation.subscription_id}/providers/Microsoft.HybridCompute"
            f"/locations/{operation.location}/updateCenterOperationResults/{operation.id}?{query}"
        )

    def find(self, operation_id: str) -> Operation | None:
        return self._all.get(operation_id.casefold())

    def all(self) -> list[Operation]:
        """Every accepted operation, in start order."""
        return list(self._all.values())

    def polled(self, operation_id: str, subscription_id: str, location: str, query: str) -> tuple[Operation, bool]:
        """The operation of a URL, and whether the URL was its Location.

        Raises:
            ArmError: 404 for an unknown, expired or lost operation, 400 for an altered query.
        """
        found = self._known(operation_id, subscription_id, location)
        if query == found.polling_query:
            return found, False
        if query == found.location_query:
            return found, True
        raise altered_operation_url()

    def polled_result(self, operation_id: str, subscription_id: str, location: str, query: str) -> Operation:
        """The operation of an Arc machine's URL; errors as for ``polled``."""
        found = self._known(operation_id, subscription_id, location)
        ticks = dict(parse_qsl(query)).get("t", "")
        if query != self._result_query(found, ticks):
            raise altered_operation_url()
        return found

    def _known(self, operation_id: str, subscription_id: str, location: str) -> Operation:
        found = self.find(operation_id)
        if (
            found is None
            or found.lost
            or found.subscription_id.casefold() != subscription_id.casefold()
            or found.location.casefold() != location.casefold()
            or self._clock.now() > found.ends + RECORD_HOURS * 3600
        ):
            raise operation_not_found(operation_id)
        return found

    def _query(self, operation_id: str, api_version: str, *, monitor: bool) -> str:
        ticks = _ticks() + (37 if monitor else 0)
        head = f"p={self._partition}&{'monitor=true&' if monitor else ''}api-version={api_version}"
        return f"{head}&{self._signature(operation_id, str(ticks))}"

    def _result_query(self, operation: Operation, ticks: str) -> str:
        return f"api-version={operation.api_version}&{self._signature(operation.id, ticks)}"

    def _signature(self, operation_id: str, ticks: str) -> str:
        """Recomputed rather than stored, since each poll of an Arc machine gets another one."""
        digest = hmac.digest(self._key, f"{operation_id}{ticks}".encode(), "sha256")
        signature = hashlib.shake_256(digest).digest(_SIGNATURE_BYTES)
        return f"t={ticks}&c={self._certificate}&s={_base64url(signature)}&h={_base64url(digest)}"


def _ticks() -> int:
    return _TICKS_AT_UNIX_EPOCH + int(datetime.now(UTC).timestamp() * 10_000_000)


def _base64url(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")
