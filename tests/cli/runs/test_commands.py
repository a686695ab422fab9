"""``patchwave run`` against a service over HTTP."""

import json
from pathlib import Path

import pytest
from starlette.responses import JSONResponse, Response

from patchwave.cli.runs import commands
from tests.cli.conftest import Patchwave
from tests.cli.service import Service, machine_document, problem, run_document

RUN = "20261110T190000Z-monthly"


class TestStart:
    def test_sends_the_policy_name_and_shows_the_run(self, patchwave: Patchwave, service: Service):
        result = patchwave("run", "start", "monthly")
        assert result.code == 0
        assert RUN in result.output
        (request,) = service.asked("POST", "/api/runs")
        assert request["body"] == {"policy": "monthly"}
        assert "x-functions-key" not in request["headers"]
        assert "idempotency-key" not in request["headers"]

    def test_sends_mode_overrides_key_and_idempotency_key(self, patchwave: Patchwave, service: Service):
        result = patchwave(
            "run", "start", "monthly", "--mode", "assess", "--key", "secret", "--idempotency-key", "change-77",
            "--set", "maxConcurrent=5", "--set", "scope.locations=[westeurope, northeurope]", "--set", "schedule=null",
        )  # fmt: skip
        assert result.code == 0
        (request,) = service.asked("POST", "/api/runs")
        assert request["body"] == {
            "policy": "monthly",
            "mode": "assess",
            "overrides": {
                "maxConcurrent": 5,
                "scope": {"locations": ["westeurope", "northeurope"]},
                "schedule": None,
            },
        }
        assert request["headers"]["x-functions-key"] == "secret"
        assert request["headers"]["idempotency-key"] == "change-77"

    def test_sends_actor_and_reason_of_a_start(self, patchwave: Patchwave, service: Service):
        assert patchwave("run", "start", "monthly", "--reason", "zero-day", "--actor", "ana").code == 0
        (request,) = service.asked("POST", "/api/runs")
        assert request["query"] == {"reason": "zero-day", "actor": "ana"}
        assert request["body"] == {"policy": "monthly"}

    def test_sends_a_policy_file_inline(self, patchwave: Patchwave, service: Service, tmp_path: Path):
        file = tmp_path / "adhoc.yaml"
        file.write_text("scope: {osTypes: [Linux]}\nschedule: {time: 19:00}\n")
        assert patchwave("run", "start", "-f", str(file)).code == 0
        (request,) = service.asked("POST", "/api/runs")
        assert request["body"]["policy"] == {"scope": {"osTypes": ["Linux"]}, "schedule": {"time": "19:00"}}

    @pytest.mark.parametrize("arguments", [[], ["monthly", "-f", "monthly.yaml"]])
    def test_needs_a_name_or_a_file_and_not_both(self, patchwave: Patchwave, service: Service, arguments: list[str]):
        result = patchwave("run", "start", *arguments)
        assert result.code == 2
        assert "one of them" in result.errors
        assert service.requests == []

    def test_shows_every_error_of_a_refusal_with_its_path(self, patchwave: Patchwave, service: Service):
        service.answers = [
            problem(
                400,
                "Invalid policy",
                "The policy has 2 errors",
                ("maxConcurrent", "must be between 1 and 1000"),
                ("scope.locations[1]", "'mars' is no region"),
            )
        ]
        result = patchwave("run", "start", "monthly")
        assert result.code == 2
        assert result.output == ""
        assert "Invalid policy. The policy has 2 errors (400)" in result.errors
        assert "maxConcurrent: must be between 1 and 1000" in result.errors
        assert "scope.locations[1]: 'mars' is no region" in result.errors

    def test_wait_follows_the_run_and_ends_as_it_does(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [
            run_document(RUN, "queued"),
            run_document(RUN, "running", countsByOutcome={}, countsByStage={"assessing": 4}),
            run_document(RUN, countsByOutcome={"patched": 3, "failed": 1}),
        ]
        service.machines[RUN] = [machine_document("web-1", "failed", "patches_failed")]
        result = patchwave("run", "start", "monthly", "--wait", "--interval", "0.1", "-o", "json")
        assert result.code == 1
        assert result.document["countsByOutcome"] == {"patched": 3, "failed": 1}
        assert "4 assessing" in result.errors


class TestListAndShow:
    def test_list_is_newest_first_and_limited(self, patchwave: Patchwave, service: Service):
        for day in range(10, 20):
            run_id = f"202611{day}T190000Z-monthly"
            service.runs[run_id] = [run_document(run_id)]
        result = patchwave("run", "list", "--limit", "3", "-o", "json")
        assert result.code == 0
        assert [each["id"] for each in result.document] == [f"202611{day}T190000Z-monthly" for day in (19, 18, 17)]

    def test_list_pages_when_the_service_returns_less_than_the_limit(self, patchwave: Patchwave, service: Service):
        for number in range(230):
            run_id = f"20261110T19{number // 60:02}{number % 60:02}Z-monthly"
            service.runs[run_id] = [run_document(run_id)]
        found = patchwave("run", "list", "--limit", "210", "-o", "json").document
        assert len(found) == 210
        assert len({each["id"] for each in found}) == 210
        assert [each["query"].get("cursor") for each in service.asked("GET", "/api/runs")] == [None, "100", "200"]

    def test_list_as_a_table(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN, countsByOutcome={"patched": 3, "failed": 1, "skipped": 0})]
        output = patchwave("run", "list").output
        assert RUN in output
        assert "1 failed" in output
        assert output.index("1 failed") < output.index("3 patched")
        assert "1:02:03" in output

    def test_show_latest(self, patchwave: Patchwave, service: Service):
        older, newer = "20261010T190000Z-monthly", RUN
        service.runs = {older: [run_document(older)], newer: [run_document(newer, "empty", reason="Nothing in mars.")]}
        output = patchwave("run", "show", "latest").output
        assert newer in output
        assert older not in output
        assert "Nothing in mars." in output

    def test_list_shows_whole_ids_in_80_columns(
        self, patchwave: Patchwave, service: Service, monkeypatch: pytest.MonkeyPatch
    ):
        longest = "20261110T190000Z-a-policy-with-the-longest-name00-0123abcd"
        for run_id in (RUN, longest):
            service.runs[run_id] = [run_document(run_id, countsByOutcome={"patched": 3, "failed": 1})]
        monkeypatch.setenv("COLUMNS", "80")
        lines = patchwave("run", "list").output.splitlines()
        assert max(map(len, lines)) <= 80
        assert {RUN, longest} <= set(lines)
        facts = "patch completed 4 machines: 1 failed, 3 patched 2026-11-10 19:00:01Z 1:02:03"
        assert " ".join(" ".join(lines).split()).count(facts) == 2
        monkeypatch.setenv("COLUMNS", "160")
        assert len(patchwave("run", "list").output.splitlines()) == 3

    def test_machines_can_be_read_in_80_columns(
        self, patchwave: Patchwave, service: Service, monkeypatch: pytest.MonkeyPatch
    ):
        service.runs[RUN] = [run_document(RUN)]
        waits = "the run 20261110T185900Z-other: both work on the paired regions northeurope and westeurope"
        service.machines[RUN] = [
            machine_document("web-1", "skipped", "locked_by_run", installation={"installed": 1, "failed": 0}),
            machine_document("web-2", None, stage="ready", assessment=None, waitingFor=waits),
        ]
        monkeypatch.setenv("COLUMNS", "80")
        assert [line.rstrip() for line in patchwave("run", "machines", RUN).output.splitlines()] == [
            "web-1  skipped  locked_by_run",
            "  rg-web  westeurope  Linux  5 found, 1 installed, 0 failed",
            "  What to do about web-1.",
            "web-2  ready",
            "  rg-web  westeurope  Linux",
            "  waits for the run 20261110T185900Z-other: both work on the paired regions",
            "  northeurope and westeurope",
        ]
        monkeypatch.setenv("COLUMNS", "160")
        assert patchwave("run", "machines", RUN).output.splitlines()[0].split()[:3] == ["machine", "group", "region"]

    def test_latest_is_never_a_retry_unless_there_is_nothing_else(self, patchwave: Patchwave, service: Service):
        retries = [f"20261112T190{number}00Z-monthly" for number in range(3)]
        for retry in retries:
            trigger = {"kind": "http", "actor": "ana", "detail": f"retry of web-1 in {RUN}", "retryOf": RUN}
            service.runs[retry] = [run_document(retry, trigger=trigger)]
        assert patchwave("run", "show", "latest", "-o", "json").document["id"] == retries[-1]
        service.runs[RUN] = [run_document(RUN)]
        assert patchwave("run", "show", "latest", "-o", "json").document["id"] == RUN

    def test_a_policy_narrows_latest_and_the_list(self, patchwave: Patchwave, service: Service):
        weekly = "20261105T190000Z-weekly"
        service.runs = {weekly: [run_document(weekly, policy="weekly")], RUN: [run_document(RUN)]}
        assert patchwave("run", "show", "latest", "--policy", "weekly", "-o", "json").document["id"] == weekly
        listed = patchwave("run", "list", "--policy", "weekly", "-o", "json").document
        assert [each["id"] for each in listed] == [weekly]
        assert patchwave("run", "cancel", "latest", "--policy", "weekly").code == 0
        assert len(service.asked("POST", f"/api/runs/{weekly}/cancel")) == 1
        none = patchwave("run", "show", "latest", "--policy", "daily")
        assert (none.code, "no run of policy daily" in none.errors) == (2, True)
        both = patchwave("run", "show", RUN, "--policy", "weekly")
        assert (both.code, "narrows 'latest'" in both.errors) == (2, True)

    def test_latest_was_created_last_in_any_order_of_ids(self, patchwave: Patchwave, service: Service):
        """The id of a scheduled run has the start of its window, which is open for a week at most."""
        scheduled, asked, older = "20261104T190000Z-monthly", "20261110T120000Z-monthly-0a", "20261101T190000Z-monthly"
        service.runs = {
            older: [run_document(older, createdAt="2026-11-01T19:00:00.000Z")],
            scheduled: [run_document(scheduled, createdAt="2026-11-11T18:59:59.000Z")],
            asked: [run_document(asked, createdAt="2026-11-10T12:00:00.000Z")],
        }
        result = patchwave("run", "show", "latest", "-o", "json")
        assert (result.document["id"], result.errors) == (scheduled, f"latest is {scheduled}\n")
        listed = patchwave("run", "list", "-o", "json").document
        assert [each["id"] for each in listed] == [scheduled, asked, older]

    def test_latest_is_searched_no_longer_than_needed(self, patchwave: Patchwave, service: Service):
        """The fake gives 100 at a time."""
        for number in range(300):
            day, hour = 1 + number // 24, number % 24
            run_id = f"202611{day:02}T{hour:02}0000Z-monthly"
            service.runs[run_id] = [run_document(run_id, createdAt=f"2026-11-{day:02}T{hour:02}:00:00.000Z")]
        assert patchwave("run", "show", "latest", "-o", "json").document["id"] == "20261113T110000Z-monthly"
        assert len(service.asked("GET", "/api/runs")) == 2

    def test_latest_is_searched_among_5000_runs_at_most(
        self, patchwave: Patchwave, service: Service, monkeypatch: pytest.MonkeyPatch
    ):
        assert commands.LOOKED_THROUGH == 5000
        monkeypatch.setattr(commands, "LOOKED_THROUGH", 100)
        for number in range(101):
            run_id = f"20261110T19{number // 60:02}{number % 60:02}Z-monthly"
            service.runs[run_id] = [run_document(run_id, policy="weekly" if number == 0 else "monthly")]
        result = patchwave("run", "show", "latest", "--policy", "weekly")
        assert (result.code, "no run of policy weekly among the 100 newest" in result.errors) == (2, True)
        assert len(service.asked("GET", "/api/runs")) == 1

    def test_latest_without_any_run(self, patchwave: Patchwave):
        result = patchwave("run", "show", "latest")
        assert (result.code, "no run yet" in result.errors) == (2, True)

    def test_show_has_the_time_of_the_export(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN, exportedAt=None)]
        assert "exported" not in patchwave("run", "show", RUN).output
        service.runs[RUN] = [run_document(RUN, exportedAt="2026-11-11T08:00:00.000Z")]
        lines = patchwave("run", "show", RUN).output.splitlines()
        assert [line.split() for line in lines if line.startswith("exported")] == [
            ["exported", "2026-11-11", "08:00:00Z"]
        ]

    def test_an_unknown_run(self, patchwave: Patchwave):
        result = patchwave("run", "show", "20200101T000000Z-none")
        assert result.code == 2
        assert "(404)" in result.errors

    def test_a_run_id_cannot_reach_another_path(self, patchwave: Patchwave, service: Service):
        patchwave("run", "show", "../policies/monthly?x=1")
        (request,) = service.requests
        assert request["query"] == {}
        assert request["path"].startswith("/api/runs/")

    def test_control_characters_of_the_service_do_not_reach_the_terminal(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN, reason="[red]not markup[/red] \x1b]0;title\x07\u202eabc")]
        output = patchwave("run", "show", RUN).output
        assert "[red]not markup[/red]" in output
        assert not {"\x1b", "\x07", "\u202e"} & set(output)

    def test_half_a_character_in_json_does_not_end_the_command(self, patchwave: Patchwave, service: Service):
        # What a tag of a machine may hold: JSON can write it, no output can.
        document = json.dumps(run_document(RUN, reason="half \ud800 of it"))
        service.answers = [Response(document, media_type="application/json")]
        result = patchwave("run", "show", RUN, "-o", "json")
        assert (result.code, result.document["reason"]) == (0, "half ? of it")


class TestMachines:
    @pytest.fixture
    def fleet(self, service: Service) -> Service:
        service.runs[RUN] = [run_document(RUN)]
        service.machines[RUN] = [
            machine_document("web-1", "patched"),
            machine_document("web-2", "failed", "patches_failed"),
            machine_document("db-1", "skipped", "hold_tag"),
            machine_document("db-2", None),
        ]
        return service

    @pytest.mark.usefixtures("fleet")
    def test_lists_all_with_reason_and_message(self, patchwave: Patchwave):
        output = patchwave("run", "machines", RUN).output
        for text in ("web-1", "patched", "patches_failed", "What to do about web-2.", "hold_tag", "installing"):
            assert text in output

    @pytest.mark.usefixtures("fleet")
    def test_by_outcome(self, patchwave: Patchwave):
        found = patchwave("run", "machines", RUN, "--outcome", "failed", "--outcome", "patched", "-o", "json").document
        assert [each["name"] for each in found] == ["web-1", "web-2"]

    @pytest.mark.usefixtures("fleet")
    def test_those_that_need_a_person(self, patchwave: Patchwave):
        found = patchwave("run", "machines", RUN, "--attention", "-o", "json").document
        assert [each["name"] for each in found] == ["db-1", "web-2"]

    def test_all_pages_are_read(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN)]
        service.machines[RUN] = [machine_document(f"vm-{number}", "patched") for number in range(250)]
        assert len(patchwave("run", "machines", RUN, "-o", "json").document) == 250
        assert len(patchwave("run", "machines", RUN, "--limit", "120", "-o", "json").document) == 120

    @pytest.mark.usefixtures("fleet")
    def test_one_machine_by_name_whatever_its_case(self, patchwave: Patchwave):
        output = patchwave("run", "machines", RUN, "WEB-2").output
        assert "openssl" in output
        assert "What to do about web-2." in output

    def test_one_machine_shows_its_place_its_health_and_the_way_back(self, patchwave: Patchwave, service: Service):
        placed = {
            "ring": "broad",
            "phase": 2,
            "lane": "westeurope",
            "wave": 3,
            "placementReasons": ["zone 2 after zone 1"],
        }
        health = {"healthBefore": {"healthy": True}, "healthAfter": {"healthy": False, "reason": "The probe said 500."}}
        hooks = {
            "rollbackInstructions": "Use the snapshot snap-1.",
            "preScriptOutput": "drained",
            "postScriptOutput": "",
        }
        service.runs[RUN] = [run_document(RUN)]
        service.machines[RUN] = [machine_document("web-1", "failed", **placed, **health, **hooks)]
        output = patchwave("run", "machines", RUN, "web-1").output
        lines = {" ".join(line.split()) for line in output.splitlines()}
        assert {
            "place ring broad, phase 2, westeurope, wave 3: zone 2 after zone 1",
            "health before healthy",
            "health after unhealthy The probe said 500.",
            "script before drained",
            "way back Use the snapshot snap-1.",
        } <= lines
        assert "script after" not in output

    def test_one_machine_shows_what_the_guest_reported(self, patchwave: Patchwave, service: Service):
        esm = {"code": "UA_ESM_REQUIRED", "message": "133 patches requires Ubuntu Pro", "target": "", "count": 133}
        found = {"status": "Succeeded", "rebootPending": None, "errors": [esm]}
        done = {"status": "Succeeded", "installed": 2, "errors": [{"code": "BRAND_NEW", "message": ""}]}
        service.runs[RUN] = [run_document(RUN)]
        service.machines[RUN] = [machine_document("web-1", "patched", assessment=found, installation=done)]
        output = patchwave("run", "machines", RUN, "web-1").output
        lines = {" ".join(line.split()) for line in output.splitlines()}
        assert {
            "assessment status Succeeded",
            "assessment reports UA_ESM_REQUIRED: 133 patches requires Ubuntu Pro",
            "installation status Succeeded, installed 2",
            "installation reports BRAND_NEW",
        } <= lines

    def test_one_machine_shows_each_attempt_with_its_parameters(self, patchwave: Patchwave, service: Service):
        body = {"maximumDuration": "PT2H", "linuxParameters": {"classificationsToInclude": ["Critical", "Security"]}}
        sent = {"operation": "install", "sentAt": "2026-11-21T00:01:02Z", "parameters": body}
        attempts = [
            sent | {"number": 1, "state": "refused", "answer": "HTTP 409 Conflict: busy"},
            sent | {"number": 2, "state": "accepted", "answer": ""},
        ]
        states = {"state": "Failed", "assessmentState": "Available", "installationState": "Failed"}
        service.runs[RUN] = [run_document(RUN)]
        row = machine_document("web-1", "failed") | {"attempts": attempts, "patches": [{"name": "openssl"} | states]}
        service.machines[RUN] = [row]
        output = patchwave("run", "machines", RUN, "web-1").output
        lines = [" ".join(line.split()) for line in output.splitlines()]
        (first,) = (line for line in lines if line.startswith("install 1 2026-11-21 00:01:02Z refused"))
        (second,) = (line for line in lines if line.startswith("install 2 2026-11-21 00:01:02Z accepted"))
        for line in (first, second):
            assert "maximumDuration PT2H, classificationsToInclude Critical, Security" in line
        assert first.endswith("HTTP 409 Conflict: busy")
        assert "openssl Available Failed" in lines

    def test_one_machine_by_key(self, patchwave: Patchwave, fleet: Service):
        key = fleet.machines[RUN][0]["key"]
        assert patchwave("run", "machines", RUN, key, "-o", "json").document["name"] == "web-1"
        assert fleet.asked("GET", f"/api/runs/{RUN}/machines") == []

    def test_a_name_that_two_machines_have(self, patchwave: Patchwave, fleet: Service):
        twin = machine_document("web-1", "patched")
        twin["id"] = twin["id"].replace("rg-web", "rg-other")
        fleet.machines[RUN].append(twin)
        result = patchwave("run", "machines", RUN, "web-1")
        assert result.code == 2
        assert "rg-other" in result.errors
        assert patchwave("run", "machines", RUN, twin["id"].upper()).code == 0


class TestWatch:
    def test_a_run_without_problems_ends_with_0(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [
            run_document(RUN, "running", countsByOutcome={"patched": 1}, countsByStage={"installing": 3, "done": 1}),
            run_document(RUN, "running", countsByOutcome={"patched": 1}, countsByStage={"installing": 3, "done": 1}),
            run_document(RUN),
        ]
        result = patchwave("run", "watch", RUN, "--interval", "0.1")
        assert result.code == 0
        lines = [line for line in result.output.splitlines() if line.startswith("running")]
        assert lines == ["running; 1/4 done; 3 installing; 1 patched"]
        assert "needs a person" not in result.output

    def test_what_a_run_waits_for_is_shown(self, patchwave: Patchwave, service: Service):
        waits = "the run 20261110T185900Z-other: both work on zones of westeurope"
        service.runs[RUN] = [
            run_document(RUN, "awaiting_run", countsByOutcome={}, countsByStage={"ready": 4}, waitingFor=waits),
            run_document(RUN),
        ]
        lines = patchwave("run", "watch", RUN, "--interval", "0.1").output.splitlines()
        assert lines[1] == f"awaiting_run: {waits}; 0/4 done; 4 ready"

    @pytest.mark.parametrize(
        "outcome",
        ["failed", "timed_out", "unknown", "reboot_required", "left_running", "skipped", "patched_with_warnings"],
    )
    def test_a_machine_needs_a_person(self, patchwave: Patchwave, service: Service, outcome: str):
        service.runs[RUN] = [run_document(RUN, countsByOutcome={"patched": 3, outcome: 1})]
        service.machines[RUN] = [machine_document("web-9", outcome, "some_reason")]
        result = patchwave("run", "watch", RUN)
        assert result.code == 1
        assert "needs a person" in result.output
        assert "What to do about web-9." in result.output

    @pytest.mark.parametrize("outcome", ["patched", "nothing_to_install", "assessed"])
    def test_quiet_outcomes(self, patchwave: Patchwave, service: Service, outcome: str):
        service.runs[RUN] = [run_document(RUN, countsByOutcome={outcome: 4})]
        assert patchwave("run", "watch", RUN).code == 0

    @pytest.mark.parametrize(("state", "code"), [("failed", 1), ("canceled", 1), ("empty", 0), ("completed", 0)])
    def test_exit_code_by_state(self, patchwave: Patchwave, service: Service, state: str, code: int):
        service.runs[RUN] = [run_document(RUN, state, countsByOutcome={})]
        assert patchwave("run", "watch", RUN).code == code

    def test_the_list_of_attention_is_bounded(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN, machines=90, countsByOutcome={"failed": 10, "skipped": 80})]
        service.machines[RUN] = [machine_document(f"bad-{number}", "failed") for number in range(10)]
        service.machines[RUN] += [machine_document(f"skip-{number}", "skipped") for number in range(80)]
        output = patchwave("run", "watch", RUN).output
        assert sum(f"bad-{number}" in output for number in range(10)) == 10
        assert "and 75 more" in output

    def test_a_failed_read_is_retried(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN)]
        service.answers = [problem(503, "Storage does not answer", "")]
        assert patchwave("run", "watch", RUN, "--interval", "0.1").code == 0

    def test_a_run_that_is_gone_ends_the_watch(self, patchwave: Patchwave):
        assert patchwave("run", "watch", RUN).code == 2


class TestExport:
    PAGES = (
        {"records": [{"record": "run", "id": RUN, "state": "completed"}], "cursor": "rY3Vyc29y"},
        {"records": [{"record": "machine", "name": "büro-1"}], "cursor": None},
    )

    def test_writes_a_record_a_line(self, patchwave: Patchwave, service: Service, tmp_path: Path):
        service.answers = [*(JSONResponse(page) for page in self.PAGES), JSONResponse(run_document(RUN))]
        file = tmp_path / "evidence.jsonl"
        result = patchwave("run", "export", RUN, str(file))
        assert (result.code, result.errors) == (
            0,
            f"2 records in {file}; the service was told that they are kept\n",
        )
        assert [json.loads(line) for line in file.read_text("utf-8").splitlines()] == [
            {"record": "run", "id": RUN, "state": "completed"},
            {"record": "machine", "name": "büro-1"},
        ]
        asked = [each["query"].get("cursor") for each in service.asked("GET", f"/api/runs/{RUN}/evidence")]
        assert asked == [None, "rY3Vyc29y"]
        [said] = service.asked("POST", f"/api/runs/{RUN}/evidence/exported")
        assert said["body"] == {"records": 2}

    def test_rows_that_cannot_be_read_are_counted(self, patchwave: Patchwave, service: Service):
        pages = [self.PAGES[0], self.PAGES[1] | {"unreadable": ["m~1", "m~2"]}]
        service.answers = [*(JSONResponse(page) for page in pages), JSONResponse(run_document(RUN))]
        result = patchwave("run", "export", RUN, "-")
        assert (result.code, [json.loads(line)["record"] for line in result.output.splitlines()]) == (
            0,
            ["run", "machine"],
        )
        assert "2 records in standard output; the service was told" in result.errors
        [said] = service.asked("POST", f"/api/runs/{RUN}/evidence/exported")
        assert said["body"] == {"records": 4}

    def test_an_unfinished_run_is_not_called_exported(self, patchwave: Patchwave, service: Service, tmp_path: Path):
        service.answers = [
            JSONResponse({"records": [{"record": "run", "id": RUN, "state": "running"}], "cursor": None})
        ]
        file = tmp_path / "evidence.jsonl"
        result = patchwave("run", "export", RUN, str(file))
        assert (result.code, result.errors) == (
            0,
            f"1 record in {file}; the run goes on: this is no export yet; export again when it has ended\n",
        )
        assert service.asked("POST", f"/api/runs/{RUN}/evidence/exported") == []

    @pytest.mark.parametrize("status", [403, 404])
    def test_half_an_export_is_no_file(self, patchwave: Patchwave, service: Service, tmp_path: Path, status: int):
        service.answers = [JSONResponse(self.PAGES[0]), problem(status, "There is no such run", "")]
        assert patchwave("run", "export", RUN, str(tmp_path / "evidence.jsonl")).code == 2
        assert list(tmp_path.iterdir()) == []
        assert service.asked("POST", f"/api/runs/{RUN}/evidence/exported") == []

    @pytest.mark.parametrize("name", ["", "none/evidence.jsonl", "a-file/evidence.jsonl"])
    def test_a_file_that_cannot_be_written_is_refused_before_anything_is_read(
        self, patchwave: Patchwave, service: Service, tmp_path: Path, name: str
    ):
        (tmp_path / "a-file").write_text("notes")
        file = tmp_path / name
        result = patchwave("run", "export", "latest", str(file))
        assert (result.code, result.errors.startswith(f"error: {file} cannot be written: ")) == (2, True)
        assert service.requests == []
        assert [each.name for each in tmp_path.iterdir()] == ["a-file"]

    def test_a_disk_that_is_full(self, patchwave: Patchwave, service: Service, tmp_path: Path):
        (tmp_path / "evidence.jsonl.part").symlink_to("/dev/full")
        service.answers = [JSONResponse(self.PAGES[1])]
        result = patchwave("run", "export", RUN, str(tmp_path / "evidence.jsonl"))
        said = f"error: {tmp_path}/evidence.jsonl cannot be written: No space left on device\n"
        assert (result.code, result.errors) == (2, said)
        assert service.asked("POST", f"/api/runs/{RUN}/evidence/exported") == []
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "there", ['{"record": "run", "id": "20261010T190000Z-monthly"}\n', "notes", "[]", "", "\xff\n"]
    )
    def test_another_file_is_only_replaced_by_force(
        self, patchwave: Patchwave, service: Service, tmp_path: Path, there: str
    ):
        file = tmp_path / "evidence.jsonl"
        file.write_text(there, "latin-1")
        result = patchwave("run", "export", RUN, str(file))
        said = f"error: {file} is there and is no export of {RUN}; --force replaces it\n"
        assert (result.code, result.errors) == (2, said)
        assert (service.requests, file.read_text("latin-1")) == ([], there)
        service.answers = [*(JSONResponse(page) for page in self.PAGES), JSONResponse(run_document(RUN))]
        assert patchwave("run", "export", RUN, str(file), "--force").code == 0
        assert len(file.read_text("utf-8").splitlines()) == 2
        assert [each.name for each in tmp_path.iterdir()] == ["evidence.jsonl"]

    def test_an_older_export_of_the_run_is_replaced(self, patchwave: Patchwave, service: Service, tmp_path: Path):
        file = tmp_path / "evidence.jsonl"
        file.write_text(json.dumps({"record": "run", "id": RUN, "state": "running"}) + "\n")
        service.answers = [*(JSONResponse(page) for page in self.PAGES), JSONResponse(run_document(RUN))]
        assert patchwave("run", "export", RUN, str(file)).code == 0
        assert len(file.read_text("utf-8").splitlines()) == 2


def test_rows_that_cannot_be_read_are_named_beside_the_list(patchwave: Patchwave, service: Service):
    answer = {"runs": [run_document(RUN)], "cursor": None, "unreadable": ["1~a", "2~b"]}
    service.answers = [JSONResponse(answer)]
    result = patchwave("run", "list", "-o", "json")
    assert [run["id"] for run in result.document] == [RUN]
    assert result.errors == "warning: 2 stored rows cannot be read and are left out of runs: 1~a, 2~b\n"
