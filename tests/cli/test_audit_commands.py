"""``patchwave audit``: who was not let in."""

from __future__ import annotations

from starlette.responses import JSONResponse

from tests.cli.conftest import Patchwave
from tests.cli.service import Service


def line(actor: str, function: str, status: int, why: str) -> dict[str, object]:
    detail = {"function": function, "status": status, "reason": why}
    return {"at": "2026-12-01T10:00:00.000Z", "action": "call_refused", "actor": actor, "actorId": "", "detail": detail}


def test_refused_calls_are_read_page_by_page(patchwave: Patchwave, service: Service) -> None:
    first = line("unknown", "list_runs", 401, "the request has no principal")
    second = line("ben@example.org", "put_policy", 403, "put_policy needs author, the caller has reader")
    service.answers = [
        JSONResponse({"audit": [first], "cursor": "x"}),
        JSONResponse({"audit": [second], "cursor": None}),
    ]
    output = " ".join(patchwave("audit", "refused").output.split())
    assert (
        "2026-12-01 10:00:00Z call_refused unknown function list_runs, status 401, reason the request has no" in output
    )
    assert "ben@example.org function put_policy, status 403" in output
    asked = service.asked("GET", "/api/audit/refused")
    assert [each["query"].get("cursor") for each in asked] == [None, "x"]


def test_a_name_that_was_typed_is_shown_as_claimed(patchwave: Patchwave, service: Service) -> None:
    paused = {
        "at": "2026-12-01T10:00:00.000Z",
        "action": "policy_paused",
        "actor": "ana (claimed)",
        "actorId": "",
        "proven": False,
        "detail": {"reason": "closing"},
    }
    service.answers = [JSONResponse({"audit": [paused], "cursor": None})]
    assert "ana (claimed)" in patchwave("policy", "audit", "monthly").output
