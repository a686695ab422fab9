"""The host's HTTP side: routes, keys, Event Grid, running by hand."""

import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from local.functions_host.tests.running import RunningHost, alive
from local.processes import ChildFailed


@pytest.fixture(scope="module")
def host(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    with RunningHost(tmp_path_factory.mktemp("open")) as running:
        yield running


@pytest.fixture(scope="module")
def locked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningHost]:
    with RunningHost(tmp_path_factory.mktemp("locked"), "--require-keys") as running:
        yield running


def test_a_request_reaches_the_function_as_it_was(host: RunningHost) -> None:
    answer = host.client.post(
        "/api/echo/a%2Fb%20c?x=1&x=2&y=%C3%BC", content=b"\x00\xffbody", headers={"X-Sample": "given"}
    )
    assert answer.status_code == 200
    assert answer.headers["x-answer"] == "yes"
    assert answer.headers["content-type"] == "application/json"
    assert answer.json() == {
        "method": "POST",
        "url": f"{host.client.base_url}/api/echo/a%2Fb%20c?x=1&x=2&y=%C3%BC",
        "params": {"name": "a/b c"},
        "query": {"x": "1,2", "y": "ü"},
        "header": "given",
        "body": "\x00\xffbody",
    }


def test_a_line_break_is_part_of_a_path(host: RunningHost) -> None:
    assert host.client.get("/api/things/a%0Ab").json() == {"thing": "a\nb"}


def test_an_optional_parameter_may_be_missing(host: RunningHost) -> None:
    assert host.client.get("/api/echo").json()["params"] == {}


def test_a_literal_segment_wins_over_a_parameter(host: RunningHost) -> None:
    assert host.client.get("/api/things/special").json() == {"thing": "the special one"}
    assert host.client.get("/api/THINGS/other").json() == {"thing": "other"}


@pytest.mark.parametrize(("method", "path"), [("GET", "/api/none"), ("GET", "/health"), ("DELETE", "/api/echo")])
def test_no_route_is_404(host: RunningHost, method: str, path: str) -> None:
    assert host.client.request(method, path).status_code == 404


def test_a_function_that_raises_is_500_without_details(host: RunningHost) -> None:
    answer = host.client.get("/api/broken")
    assert (answer.status_code, answer.content) == (500, b"")


def test_requests_run_side_by_side_with_a_large_body(host: RunningHost) -> None:
    body = b"x" * 3_000_000
    assert len(host.client.post("/api/echo", content=body).json()["body"]) == len(body)


@pytest.mark.parametrize("headers", [{"Host": "evil.example"}, {"Origin": "https://evil.example"}])
def test_a_foreign_page_is_refused_while_no_keys_are_required(host: RunningHost, headers: dict[str, str]) -> None:
    assert host.client.get("/api/health", headers=headers).status_code == 403
    assert host.client.post("/admin/functions/tick", headers=headers, json={}).status_code == 403


def test_keys_are_required(locked: RunningHost) -> None:
    keys, client = locked.keys, locked.client
    assert client.get("/api/health").status_code == 200
    assert client.get("/api/echo").status_code == 401
    assert client.get("/api/echo", headers={"x-functions-key": "wrong"}).status_code == 401
    assert client.get("/api/echo", headers={"x-functions-key": keys["eventgrid"]}).status_code == 401
    for name in ("default", "master"):
        assert client.get("/api/echo", headers={"x-functions-key": keys[name]}).status_code == 200
        assert client.get("/api/echo", params={"code": keys[name]}).status_code == 200
    assert client.get("/admin/host/status", headers={"x-functions-key": keys["default"]}).status_code == 401
    assert client.get("/admin/host/status", headers={"x-functions-key": keys["master"]}).status_code == 200
    address = "/runtime/webhooks/EventGrid?functionName=on_event"
    assert client.post(address, json=[], headers={"aeg-event-type": "Notification"}).status_code == 401
    with_key = f"{address}&code={keys['eventgrid']}"
    assert client.post(with_key, json=[], headers={"aeg-event-type": "Notification"}).status_code == 202


def test_neither_keys_nor_payloads_are_in_the_log(locked: RunningHost) -> None:
    locked.client.post("/api/echo", params={"code": locked.keys["default"]}, content=b"a private body")
    log = locked.child.log.read_text()
    assert "POST /api/echo -> 200" in log
    assert "a private body" not in log
    assert not [key for key in locked.keys.values() if key in log]


def test_status_and_functions(host: RunningHost) -> None:
    status = host.client.get("/admin/host/status").json()
    assert (status["state"], status["workers"]) == ("Running", host.workers)
    names = {function["name"] for function in host.client.get("/admin/functions").json()}
    assert {"echo", "tick", "on_event", "fan_out", "double"} <= names


# Event Grid


def _deliver(
    host: RunningHost, document: Any, function: str = "on_event", kind: str | None = "Notification"
) -> httpx.Response:
    headers = {} if kind is None else {"aeg-event-type": kind}
    return host.client.post(
        "/runtime/webhooks/EventGrid", params={"functionName": function}, json=document, headers=headers
    )


def _event(name: str, subject: str = "s") -> dict[str, Any]:
    return {
        "id": name,
        "topic": "t",
        "subject": subject,
        "eventType": "Sample",
        "eventTime": "2026-11-21T00:00:00Z",
        "data": {"n": 1},
        "dataVersion": "1",
    }


def test_the_validation_handshake(host: RunningHost) -> None:
    answer = _deliver(host, [{"data": {"validationCode": "abc"}}], kind="SubscriptionValidation")
    assert (answer.status_code, answer.json()) == (200, {"validationResponse": "abc"})


def test_every_event_of_a_delivery_is_one_invocation(host: RunningHost) -> None:
    assert _deliver(host, [_event("a"), _event("b")]).status_code == 202
    assert {note["id"] for note in host.notes("event")} >= {"a", "b"}


def test_a_failed_event_fails_the_delivery(host: RunningHost) -> None:
    assert _deliver(host, [_event("fine"), _event("bad", "fail")]).status_code == 500


def test_cloud_events_single_and_batch(host: RunningHost) -> None:
    event = {"specversion": "1.0", "id": "c1", "type": "Sample", "source": "s", "data": {"n": 1}}
    single = host.client.post(
        "/runtime/webhooks/EventGrid?functionName=on_cloud_event",
        json=event,
        headers={"content-type": "application/cloudevents+json"},
    )
    assert single.status_code == 202
    assert _deliver(host, [event | {"id": "c2"}], "on_cloud_event").status_code == 202
    assert [note["id"] for note in host.notes("cloudEvent")] == ["c1", "c2"]


def test_the_cloud_events_handshake(host: RunningHost) -> None:
    answer = host.client.options(
        "/runtime/webhooks/EventGrid?functionName=on_event",
        headers={"WebHook-Request-Origin": "eventgrid.azure.net"},
    )
    assert answer.status_code == 200
    assert answer.headers["WebHook-Allowed-Origin"] == "eventgrid.azure.net"


@pytest.mark.parametrize(
    ("function", "kind", "status"),
    [("missing", "Notification", 404), ("echo", "Notification", 404), ("on_event", None, 400)],
)
def test_deliveries_that_are_refused(host: RunningHost, function: str, kind: str | None, status: int) -> None:
    assert _deliver(host, [_event("x")], function, kind).status_code == status
    assert (
        host.client.post(
            "/runtime/webhooks/EventGrid?functionName=on_event",
            content=b"not json",
            headers={"aeg-event-type": "Notification"},
        ).status_code
        == 400
    )


# By hand


def test_a_timer_runs_by_hand(host: RunningHost) -> None:
    before = len(host.notes("tick"))
    assert host.client.post("/admin/functions/tick", json={"input": ""}).status_code == 202
    host.wait_for(lambda: len(host.notes("tick")) > before)
    assert host.notes("tick")[-1]["pastDue"] is False


@pytest.mark.parametrize(("name", "status"), [("absent", 404), ("echo", 400), ("double", 400), ("on_event", 400)])
def test_what_cannot_run_by_hand(host: RunningHost, name: str, status: int) -> None:
    assert host.client.post(f"/admin/functions/{name}", json={"input": ""}).status_code == status


# Workers and starting


def test_a_killed_worker_is_replaced_and_requests_go_on(host: RunningHost) -> None:
    first = host.client.get("/api/health").json()["pid"]
    host.kill_worker(first)
    second = host.client.get("/api/health").json()["pid"]
    assert second != first
    assert host.workers == [second]


def test_the_host_ends_on_sigterm_and_takes_its_workers_with_it(tmp_path_factory: pytest.TempPathFactory) -> None:
    with RunningHost(tmp_path_factory.mktemp("sigterm")) as host:
        pids = host.workers
        started = time.monotonic()
        host.child.stop()
        assert time.monotonic() - started < 4
        assert not [pid for pid in pids if alive(pid)]


def test_an_app_that_cannot_be_loaded_fails_with_the_reason(tmp_path_factory: pytest.TempPathFactory) -> None:
    folder = tmp_path_factory.mktemp("bad")
    (folder / "function_app.py").write_text("import no_such_module\n")
    with pytest.raises(ChildFailed, match="no_such_module"):
        RunningHost(folder / "host", app=folder)
