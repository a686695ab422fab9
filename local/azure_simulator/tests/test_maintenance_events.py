"""Events of schedules as an endpoint gets them, runs fired by hand, and runs that are cancelled."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from datetime import datetime
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.support.maintenance_requests import CANCEL_API, PROVIDER, body, configuration_id, made, put
from tests.support.simulator import Json, Simulator


class Endpoint:
    """A webhook of Event Grid that keeps what it gets; ``failures`` are answered with 500 first."""

    def __init__(self) -> None:
        self.requests: list[tuple[dict[str, str], Any]] = []
        self.failures = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                sent: Any = json.loads(self.rfile.read(int(self.headers["content-length"])))
                headers = {key.lower(): value for key, value in self.headers.items()}
                answer = b""
                if headers.get("aeg-event-type") == "SubscriptionValidation":
                    answer = json.dumps({"validationResponse": sent[0]["data"]["validationCode"]}).encode()
                elif outer.failures:
                    outer.failures -= 1
                    self.send_error(500)
                    return
                else:
                    outer.requests.append((headers, sent))
                self.send_response(200)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, format: str, *args: Any) -> None:
                del format, args

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/hook"

    def of(self, run: str) -> list[Json]:
        """The events of one run so far, in the order in which they came."""
        sent = [each for _, batch in self.requests for each in (batch if isinstance(batch, list) else [batch])]
        return [each for each in sent if each["id"] == run]

    def wait(self, run: str, number: int) -> list[Json]:
        """Its events, when there are so many."""
        deadline = time.monotonic() + 20
        while len(self.of(run)) < number:
            assert time.monotonic() < deadline, self.requests
            time.sleep(0.02)
        return self.of(run)


@pytest.fixture
def endpoint(simulator: Simulator) -> Iterator[Endpoint]:
    one = Endpoint()
    thread = threading.Thread(target=one.server.serve_forever, args=(0.02,))
    thread.start()
    try:
        reply = simulator.http.post("/_sim/event-grid", json={"url": one.url})
        assert reply.status_code == 200, reply.text
        yield one
        simulator.http.post("/_sim/event-grid", json={"url": None})
    finally:
        one.server.shutdown()
        thread.join()
        one.server.server_close()


def fire(simulator: Simulator, name: str, minutes: float = 1, **delivery: Any) -> Json:
    """Make a configuration with one machine that may be patched, and fire a run of it."""
    configuration = made(simulator, name)
    machine = simulator.take_system("Linux", pendingPatches=1, installMinutes=1, rebootRequired=False)
    bypass = {"bypassPlatformSafetyChecksOnUserSchedule": True}
    settings = {"patchMode": "AutomaticByPlatform", "automaticByPlatformSettings": bypass}
    change = {"properties": {"osProfile": {"linuxConfiguration": {"patchSettings": settings}}}}
    reply = simulator.http.patch(machine, params=CANCEL_API, json=change)
    reply.status_code = 202
    simulator.follow(reply)
    document = {"location": "westeurope", "properties": {"maintenanceConfigurationId": configuration}}
    assert put(simulator, f"{machine}{PROVIDER}/configurationAssignments/{name}", document).status_code == 200
    if delivery:
        told = simulator.http.post("/_sim/maintenance", json={"configuration": configuration} | delivery)
        assert told.status_code == 200, told.text
    reply = simulator.http.post("/_sim/maintenance/fire", json={"configuration": configuration, "inMinutes": minutes})
    assert reply.status_code == 200, reply.text
    return reply.json()


def kinds(events: list[Json]) -> list[str]:
    words = [str(each.get("eventType") or each["type"]) for each in events]
    return [word.removeprefix("Microsoft.Maintenance.").removesuffix("MaintenanceEvent") for word in words]


def test_a_run_announces_itself_and_reports_its_end(simulator: Simulator, endpoint: Endpoint) -> None:
    run = fire(simulator, "With-Events")
    pre, post = endpoint.wait(run["id"], 2)
    assert pre["id"] == post["id"] == run["id"]
    assert pre["eventType"] == "Microsoft.Maintenance.PreMaintenanceEvent"
    assert pre["subject"] == "With-Events"
    data = pre["data"]
    assert data["CorrelationId"] == run["id"]
    assert list(data) == [
        "CorrelationId",
        "MaintenanceConfigurationId",
        "StartDateTime",
        "EndDateTime",
        "ResourceSubscriptionIds",
        "CancellationCutOffDateTime",
    ]
    start, cut_off = (datetime.fromisoformat(data[key]) for key in ("StartDateTime", "CancellationCutOffDateTime"))
    assert (start - cut_off).total_seconds() * simulator.http.get("/_sim").json()["speed"] == pytest.approx(60, abs=1)
    assert post["data"]["Status"] == "Succeeded"
    assert "CancellationCutOffDateTime" not in post["data"]
    headers, sent = endpoint.requests[0]
    assert headers["aeg-event-type"] == "Notification"
    assert isinstance(sent, list)


def test_cloud_events_and_the_older_casing(simulator: Simulator, endpoint: Endpoint) -> None:
    run = fire(simulator, "In-Cloud-Events", schema="CloudEvents", casing="camel")
    pre = endpoint.wait(run["id"], 1)[0]
    assert pre["specversion"] == "1.0"
    assert pre["data"]["correlationId"] == run["id"]
    headers = next(headers for headers, sent in endpoint.requests if sent == pre)
    assert headers["content-type"].startswith("application/cloudevents+json")


def test_events_are_duplicated_or_reordered_on_request(simulator: Simulator, endpoint: Endpoint) -> None:
    run = fire(simulator, "Twice", duplicates=1)
    assert sorted(kinds(endpoint.wait(run["id"], 4))) == ["Post", "Post", "Pre", "Pre"]
    run = fire(simulator, "Wrong-Way-Round", postFirst=True)
    assert kinds(endpoint.wait(run["id"], 2)) == ["Post", "Pre"]


def test_a_failed_delivery_is_repeated(simulator: Simulator, endpoint: Endpoint) -> None:
    endpoint.failures = 2
    run = fire(simulator, "Again", sendPost=False)
    assert kinds(endpoint.wait(run["id"], 1)) == ["Pre"]
    tries = [each["status"] for each in simulator.http.get("/_sim/maintenance").json()["deliveries"]]
    assert tries.count(500) == 2


def test_a_run_is_cancelled_before_its_cut_off(simulator: Simulator) -> None:
    run = fire(simulator, "To-Cancel", minutes=600)
    cancel = {"properties": {"status": "Cancel"}}
    path = run["id"]
    assert simulator.http.put(path, params={"api-version": "2023-04-01"}, json=cancel).status_code == 400
    assert simulator.http.put(path, params=CANCEL_API, json={"properties": {"status": "Stop"}}).status_code == 400
    reply = simulator.http.put(path, params=CANCEL_API, json=cancel)
    assert (reply.status_code, reply.json()["properties"]["status"]) == (200, "Cancelled")
    assert simulator.http.get(path, params=CANCEL_API).json()["properties"]["status"] == "Cancelled"


def test_a_run_of_the_future_is_cancelled_by_its_name(simulator: Simulator) -> None:
    configuration = configuration_id("Far-Away")
    assert put(simulator, configuration, body(timeZone="UTC")).status_code == 200
    path = f"{configuration}{PROVIDER}/applyUpdates/"
    cancel = {"properties": {"status": "Cancel"}}
    assert simulator.http.put(path + "20300106220000", params=CANCEL_API, json=cancel).status_code == 201
    assert simulator.http.put(path + "20300106220000", params=CANCEL_API, json=cancel).status_code == 200
    missing = simulator.http.put(path + "20300106220100", params=CANCEL_API, json=cancel)
    assert missing.json()["Error"]["Code"] == "NotFound"
