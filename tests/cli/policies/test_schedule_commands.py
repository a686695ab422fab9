"""``patchwave schedule``, ``patchwave freeze`` and the orders of ``patchwave policy`` against a service over HTTP."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.responses import JSONResponse, Response

from tests.cli.conftest import Patchwave
from tests.cli.service import Service, problem, run_document

PAUSE = {"actor": "ann", "reason": "bank holiday", "at": "2026-11-01T08:00:00.000Z"}
SKIP = PAUSE | {"occurrence": "2026-11-10T19:00:00.000Z", "reason": "release night"}
RUN = "20261101T080000Z-monthly-1a2b3c4d"


def controls(**changes: Any) -> Response:
    empty: dict[str, Any] = {
        "policy": "monthly",
        "pause": None,
        "skips": [],
        "windowReservations": [],
        "requestedRun": "",
    }
    return JSONResponse(empty | changes)


def occurrence(month: int, decision: str, why: str = "") -> dict[str, Any]:
    return {
        "at": f"2026-{month}-10T19:00:00.000Z",
        "localTime": f"2026-{month}-10T20:00:00+01:00",
        "windowEnd": f"2026-{month}-10T23:00:00.000Z",
        "runId": f"2026{month}10T190000Z-monthly",
        "decision": decision,
        "willRun": decision == "run",
        "reason": why,
    }


class TestSchedule:
    CALENDAR: dict[str, Any] = {  # noqa: RUF012 - only read
        "policy": "monthly",
        "enabled": True,
        "pause": None,
        "occurrences": [
            occurrence(11, "run"),
            occurrence(12, "frozen", "frozen until 2027-01-04 by year-end: closing"),
        ],
    }

    def test_shows_upcoming_windows_and_why_one_will_not_run(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(self.CALENDAR)]
        result = patchwave("schedule", "show", "monthly", "--count", "2")
        assert result.code == 0
        first, second = (line for line in result.output.splitlines() if "20:00 +01:00" in line)
        assert first.startswith("Tue 2026-11-10 20:00 +01:00")
        assert ("2026-11-10 23:00" in first, "20261110T190000Z-monthly" in first) == (True, True)
        assert "frozen until 2027-01-04 by year-end: closing" in second
        assert "20261210T190000Z-monthly" not in second
        [asked] = service.asked("GET", "/api/policies/monthly/occurrences")
        assert asked["query"] == {"count": "2"}

    def test_the_hours_of_each_zone_of_the_next_occurrence(self, patchwave: Patchwave, service: Service):
        hours = {"timeZones": ["Europe/Berlin", "Europe/Paris"], "opensAt": "2026-12-08T21:00:00Z"}
        zones = {
            "localTime": "2026-12-10T22:00:00",
            "zoneHours": [hours | {"closesAt": "2026-12-09T05:00:00Z"}],
        }
        listed = [occurrence(11, "paused"), occurrence(12, "run") | zones]
        service.answers = [JSONResponse(self.CALENDAR | {"occurrences": listed})]
        output = patchwave("schedule", "show", "monthly").output
        assert "Thu 2026-12-10 22:00 there" in output
        [line] = [line for line in output.splitlines() if "Europe/Berlin" in line]
        assert line.split() == ["2026-12-08", "21:00", "2026-12-09", "05:00", "Europe/Berlin,", "Europe/Paris"]

    def test_the_mode_of_each_occurrence_is_shown(self, patchwave: Patchwave, service: Service):
        occurrences = [occurrence(11, "run") | {"mode": "assess"}, occurrence(12, "run") | {"mode": "patch"}]
        service.answers = [JSONResponse(self.CALENDAR | {"occurrences": occurrences})]
        lines = patchwave("schedule", "show", "monthly").output.splitlines()
        assert [line.split()[6] for line in lines if "20:00 +01:00" in line] == ["assess", "patch"]

    def test_as_json(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(self.CALENDAR)]
        assert patchwave("schedule", "show", "monthly", "-o", "json").document == self.CALENDAR
        assert service.requests[0]["query"] == {"count": "12"}

    def test_a_policy_that_is_off_paused_and_has_no_schedule(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(self.CALENDAR | {"enabled": False, "pause": PAUSE, "occurrences": []})]
        output = patchwave("schedule", "show", "monthly").output
        for part in ("disabled", "paused by ann: bank holiday", "nothing is scheduled"):
            assert part in output

    @pytest.mark.parametrize("count", ["0", "101", "x"])
    def test_a_count_that_is_none(self, patchwave: Patchwave, service: Service, count: str):
        assert patchwave("schedule", "show", "monthly", "--count", count).code == 2
        assert service.requests == []

    def test_unknown(self, patchwave: Patchwave):
        assert patchwave("schedule", "show", "none").code == 2


class TestCommands:
    @pytest.mark.parametrize(
        ("command", "answer", "said"),
        [
            ("pause", {"pause": PAUSE}, "policy monthly: paused by ann: bank holiday"),
            ("resume", {}, "policy monthly: follows its schedule"),
            ("skip-next", {"skips": [SKIP]}, "policy monthly: skips 2026-11-10 19:00 UTC, by ann: release night"),
        ],
    )
    def test_a_command_shows_actor_and_reason(
        self, patchwave: Patchwave, service: Service, command: str, answer: dict[str, Any], said: str
    ):
        service.answers = [controls(**answer)]
        result = patchwave("policy", command, "monthly", "-r", "bank holiday", "--actor", "ann")
        assert (result.code, result.output.strip()) == (0, said)
        [asked] = service.asked("POST", f"/api/policies/monthly/{command}")
        assert asked["body"] == {"reason": "bank holiday", "actor": "ann"}

    def test_brackets_and_colons_in_a_reason_are_text(self, patchwave: Patchwave, service: Service):
        reason = "as in [inc-7], until [/etc/motd] is right :warning:"
        service.answers = [controls(pause=PAUSE | {"reason": reason})]
        result = patchwave("policy", "pause", "monthly", "-r", reason, "--actor", "ann")
        assert (result.code, result.output.strip()) == (0, f"policy monthly: paused by ann: {reason}")

    def test_the_login_name_is_the_actor(self, patchwave: Patchwave, service: Service, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("LOGNAME", "bea")
        service.answers = [controls()]
        assert patchwave("policy", "resume", "monthly", "--reason", "done").code == 0
        assert service.requests[0]["body"] == {"reason": "done", "actor": "bea"}

    def test_without_a_login_name_the_actor_is_empty(
        self, patchwave: Patchwave, service: Service, monkeypatch: pytest.MonkeyPatch
    ):
        def no_login_name() -> str:
            raise OSError("no such user")

        monkeypatch.setattr("getpass.getuser", no_login_name)
        service.answers = [controls()]
        assert patchwave("policy", "resume", "monthly", "--reason", "done").code == 0
        assert service.requests[0]["body"] == {"reason": "done", "actor": ""}

    def test_a_skip_is_taken_back(self, patchwave: Patchwave, service: Service):
        service.answers = [controls()]
        result = patchwave("policy", "skip-next", "monthly", "--undo", "-r", "a mistake", "--actor", "ann")
        assert result.code == 0
        [asked] = service.asked("DELETE", "/api/policies/monthly/skip-next")
        assert asked["query"] == {"reason": "a mistake", "actor": "ann"}

    def test_run_now_shows_the_run(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN, "queued")]
        service.answers = [JSONResponse(run_document(RUN, "queued"), 202)]
        result = patchwave("policy", "run-now", "monthly", "-r", "zero day", "-o", "json")
        assert (result.code, result.document["id"]) == (0, RUN)

    def test_a_refusal_is_shown(self, patchwave: Patchwave, service: Service):
        service.answers = [problem(409, "Conflict", "The policy is frozen until 2027-01-04 by year-end: closing")]
        result = patchwave("policy", "run-now", "monthly", "-r", "zero day")
        assert (result.code, "frozen until 2027-01-04" in result.errors) == (2, True)

    @pytest.mark.parametrize("command", ["pause", "resume", "skip-next", "run-now"])
    def test_no_command_without_a_reason(self, patchwave: Patchwave, service: Service, command: str):
        assert patchwave("policy", command, "monthly").code == 2
        assert service.requests == []


class TestFreezes:
    FREEZE: dict[str, Any] = {  # noqa: RUF012 - only read
        "name": "year-end",
        "timeZone": "Europe/Berlin",
        "from": "2026-12-20",
        "to": "2027-01-03",
        "reason": "closing",
        "policies": [],
        "tags": None,
    }
    BOUNDS = (
        "--from",
        "2026-12-20",
        "--to",
        "2027-01-03",
        "--zone",
        "Europe/Berlin",
        "-r",
        "closing",
        "--actor",
        "ann",
    )

    def test_put(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(self.FREEZE, 201), JSONResponse(self.FREEZE)]
        said = [patchwave("freeze", "put", "year-end", *self.BOUNDS).output for _ in range(2)]
        assert said == ["freeze year-end created\n", "freeze year-end stored\n"]
        asked = service.asked("PUT", "/api/freezes/year-end")[0]
        assert asked["query"] == {"actor": "ann"}
        assert asked["body"] == {
            "from": "2026-12-20",
            "to": "2027-01-03",
            "timeZone": "Europe/Berlin",
            "reason": "closing",
            "policies": [],
        }

    def test_put_for_some(self, patchwave: Patchwave, service: Service):
        service.answers = [JSONResponse(self.FREEZE, 201)]
        some = ("--policy", "monthly", "--policy", "weekly", "--tag", "app=shop", "--tag", "app=a=b", "--tag", "x=y")
        assert patchwave("freeze", "put", "year-end", *self.BOUNDS, *some, "--any").code == 0
        body = service.requests[0]["body"]
        assert body["policies"] == ["monthly", "weekly"]
        assert body["tags"] == {"match": "any", "values": {"app": ["shop", "a=b"], "x": ["y"]}}

    @pytest.mark.parametrize("tag", ["app", "=shop"])
    def test_a_tag_that_is_none(self, patchwave: Patchwave, service: Service, tag: str):
        result = patchwave("freeze", "put", "year-end", *self.BOUNDS, "--tag", tag)
        assert (result.code, "NAME=VALUE" in result.errors) == (2, True)
        assert service.requests == []

    def test_what_is_wrong_is_shown_with_its_path(self, patchwave: Patchwave, service: Service):
        service.answers = [problem(400, "Bad Request", "The freeze is not valid.", ("to", "must be later than from"))]
        result = patchwave("freeze", "put", "year-end", *self.BOUNDS)
        assert (result.code, "to: must be later than from" in result.errors) == (2, True)

    def test_list(self, patchwave: Patchwave, service: Service):
        tags = {"match": "any", "values": {"app": ["shop", "till"], "tier": ["gold"]}}
        some = self.FREEZE | {"name": "sale", "policies": ["monthly", "weekly"], "tags": tags}
        service.answers = [JSONResponse({"freezes": [some, self.FREEZE]})]
        _, sale, year_end = patchwave("freeze", "list").output.splitlines()
        assert "monthly, weekly" in sale
        assert "app=shop|till or tier=gold" in sale
        assert year_end.split() == [
            "year-end",
            "2026-12-20",
            "2027-01-03",
            "Europe/Berlin",
            "all",
            "all",
            "closing",
        ]

    def test_delete(self, patchwave: Patchwave, service: Service):
        service.answers = [Response(status_code=204)]
        result = patchwave("freeze", "delete", "year-end", "-r", "over", "--actor", "ann")
        assert (result.code, result.output) == (0, "freeze year-end deleted\n")
        assert service.asked("DELETE", "/api/freezes/year-end")[0]["query"] == {"reason": "over", "actor": "ann"}


@pytest.mark.parametrize(
    ("command", "path"),
    [(("policy", "audit", "monthly"), "policies/monthly"), (("freeze", "audit", "year-end"), "freezes/year-end")],
)
def test_the_audit_log_is_read_page_by_page(
    patchwave: Patchwave, service: Service, command: tuple[str, ...], path: str
):
    lines = [
        {
            "at": f"2026-11-0{day}T08:00:00.000Z",
            "action": "policy_paused",
            "actor": "ann",
            "detail": {"reason": f"r{day}"},
        }
        for day in (1, 2)
    ]
    pages = [{"audit": lines[:1], "cursor": "x"}, {"audit": lines[1:], "cursor": None}]
    service.answers = [JSONResponse(page) for page in pages]
    output = patchwave(*command).output
    for said in ("2026-11-01 08:00:00Z", "policy_paused", "ann", "reason r1", "reason r2"):
        assert said in output
    asked = service.asked("GET", f"/api/{path}/audit")
    assert [each["query"].get("cursor") for each in asked] == [None, "x"]
