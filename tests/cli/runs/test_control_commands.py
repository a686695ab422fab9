"""The orders of ``patchwave run`` against a service over HTTP."""

from __future__ import annotations

import getpass
from typing import Any

import pytest

from patchwave.domain.planning.plan import Makespan, Plan, PlannedMachine, PlannedRing
from tests.cli.conftest import Patchwave
from tests.cli.service import MOMENT, Service, machine_document, problem, run_document

RUN = "20261110T190000Z-monthly"
PLAN = Plan(
    policy="monthly",
    rings=[PlannedRing(name="canary", machines=1, phases=[["westeurope"]])],
    machines=[
        PlannedMachine(
            id=machine_document("web-1", None)["id"],
            ring="canary",
            phase=1,
            lane="westeurope",
            wave=1,
            predicted_start=0,
            predicted_end=1800,
            placement_reasons=["first of its ring"],
        )
    ],
    makespan=Makespan(predicted_seconds=1800, lower_bound_seconds=1800),
)


class TestCommandsToARun:
    @pytest.mark.parametrize(("order", "state"), [("pause", "paused"), ("resume", "running"), ("cancel", "running")])
    def test_asks_with_name_and_comment_and_shows_the_run(
        self, patchwave: Patchwave, service: Service, order: str, state: str
    ):
        service.runs[RUN] = [run_document(RUN, "running")]
        result = patchwave("run", order, RUN, "--reason", "disks are full", "--actor", "ana", "-o", "json")
        assert result.code == 0
        assert result.document["state"] == state
        (request,) = service.asked("POST", f"/api/runs/{RUN}/{order}")
        assert request["body"] == {"reason": "disks are full", "actor": "ana"}

    def test_the_login_name_is_the_default_actor(
        self, patchwave: Patchwave, service: Service, monkeypatch: pytest.MonkeyPatch
    ):
        monkeypatch.setattr(getpass, "getuser", lambda: "ben")
        service.runs[RUN] = [run_document(RUN, "running")]
        assert patchwave("run", "pause", "latest").code == 0
        (request,) = service.asked("POST", f"/api/runs/{RUN}/pause")
        assert request["body"] == {"actor": "ben"}

    @pytest.mark.parametrize("order", ["pause", "resume", "cancel", "approve", "reject"])
    def test_of_an_unknown_run(self, patchwave: Patchwave, order: str):
        assert patchwave("run", order, RUN).code == 2

    def test_shows_why_it_was_refused(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN)]
        service.answers = [problem(409, "Conflict", "The run has ended as completed; it cannot be paused any more.")]
        result = patchwave("run", "pause", RUN)
        assert result.code == 2
        assert "cannot be paused" in result.errors


class TestCommandsToTheLatestRun:
    ENDED, LIVE, RETRY = "20261112T190000Z-monthly", "20261111T190000Z-monthly", "20261113T190000Z-monthly-0a"

    @pytest.fixture
    def runs(self, service: Service) -> None:
        """One that goes on, a newer one that has ended, and a retry that goes on."""
        service.runs = {
            self.LIVE: [run_document(self.LIVE, "running", createdAt="2026-11-11T19:00:00.000Z")],
            self.ENDED: [run_document(self.ENDED, createdAt="2026-11-12T19:00:00.000Z")],
            self.RETRY: [
                run_document(
                    self.RETRY,
                    "running",
                    createdAt="2026-11-13T19:00:00.000Z",
                    trigger={"kind": "http", "actor": "ana", "detail": "", "retryOf": self.LIVE},
                )
            ],
        }
        for run_id in service.runs:
            service.machines[run_id] = [machine_document("web-1", "failed")]

    @pytest.mark.usefixtures("runs")
    @pytest.mark.parametrize("order", ["pause", "resume", "cancel", "approve", "reject"])
    def test_go_to_the_one_that_goes_on(self, patchwave: Patchwave, service: Service, order: str):
        result = patchwave("run", order, "latest", "--policy", "monthly")
        assert (result.code, result.errors) == (0, f"latest is {self.LIVE}\n")
        assert len(service.asked("POST", f"/api/runs/{self.LIVE}/{order}")) == 1

    @pytest.mark.usefixtures("runs")
    @pytest.mark.parametrize(("order", "run"), [("skip", LIVE), ("retry", ENDED)])
    def test_about_a_machine(self, patchwave: Patchwave, service: Service, order: str, run: str):
        result = patchwave("run", order, "latest", "web-1")
        assert (result.code, result.errors) == (0, f"latest is {run}\n")
        key = service.machines[run][0]["key"]
        assert len(service.asked("POST", f"/api/runs/{run}/machines/{key}/{order}")) == 1

    @pytest.mark.usefixtures("runs")
    def test_go_to_the_newest_where_none_goes_on(self, patchwave: Patchwave, service: Service):
        del service.runs[self.LIVE]
        assert patchwave("run", "pause", "latest").errors == f"latest is {self.ENDED}\n"


class TestDecisions:
    @pytest.mark.parametrize("order", ["approve", "reject"])
    @pytest.mark.parametrize(
        "shown", [{"state": "awaiting_approval"}, {"state": "paused", "pausedFromState": "awaiting_approval"}]
    )
    def test_names_the_ring_that_the_run_waits_for(
        self, patchwave: Patchwave, service: Service, order: str, shown: dict[str, str]
    ):
        """The next ring must not be decided when the request is sent again."""
        service.runs[RUN] = [run_document(RUN, **shown, waitingFor="broad")]
        assert patchwave("run", order, RUN, "-r", "looks good", "--actor", "ana").code == 0
        (request,) = service.asked("POST", f"/api/runs/{RUN}/{order}")
        assert request["body"] == {"reason": "looks good", "actor": "ana", "ring": "broad"}

    @pytest.mark.parametrize("option", ["--reason", "-r"])
    def test_reason_is_taken_as_for_policies_and_freezes(self, patchwave: Patchwave, service: Service, option: str):
        service.runs[RUN] = [run_document(RUN, "running")]
        assert patchwave("run", "pause", RUN, option, "disks are full", "--actor", "ana").code == 0
        (request,) = service.asked("POST", f"/api/runs/{RUN}/pause")
        assert request["body"] == {"reason": "disks are full", "actor": "ana"}

    def test_of_a_ring_by_name(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN, "awaiting_approval", waitingFor="early")]
        assert patchwave("run", "approve", RUN, "--ring", "broad", "--actor", "ana").code == 0
        (request,) = service.asked("POST", f"/api/runs/{RUN}/approve")
        assert request["body"] == {"actor": "ana", "ring": "broad"}

    def test_what_else_a_run_waits_for_is_no_ring(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN, "held", waitingFor="lane:broad/westeurope")]
        assert patchwave("run", "approve", RUN, "--actor", "ana").code == 0
        (request,) = service.asked("POST", f"/api/runs/{RUN}/approve")
        assert request["body"] == {"actor": "ana"}


class TestMachines:
    def test_skip_by_name(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN, "running")]
        service.machines[RUN] = [machine_document("web-1", None), machine_document("web-2", None)]
        result = patchwave("run", "skip", RUN, "web-2", "-r", "being rebuilt", "--actor", "ana")
        assert result.code == 0
        key = service.machines[RUN][1]["key"]
        (request,) = service.asked("POST", f"/api/runs/{RUN}/machines/{key}/skip")
        assert request["body"] == {"reason": "being rebuilt", "actor": "ana"}
        assert "by ana 2026-11-10 19:30:00Z: being rebuilt" in result.output

    def test_retry_shows_the_new_run(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN)]
        service.machines[RUN] = [machine_document("web-1", "failed")]
        result = patchwave("run", "retry", RUN, "web-1", "-o", "json")
        assert result.code == 0
        assert result.document["id"] == f"{RUN}-retry"

    def test_retry_shows_scope_and_scripts_as_a_start_does(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN)]
        service.machines[RUN] = [machine_document("web-1", "failed")]
        lines = patchwave("run", "retry", RUN, "web-1").output.splitlines()
        assert [line.split() for line in lines if line.startswith(("scope", "scripts"))] == [
            ["scope", "subscriptions", "s-1"],
            ["scripts", "none"],
        ]

    def test_retry_waits_for_the_end_of_the_new_run(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN)]
        service.machines[RUN] = [machine_document("web-1", "failed")]
        result = patchwave("run", "retry", RUN, "web-1", "--wait", "--interval", "0.1", "-o", "json")
        assert (result.code, result.document["state"]) == (0, "completed")

    @pytest.mark.parametrize("order", ["skip", "retry"])
    def test_of_an_unknown_machine(self, patchwave: Patchwave, service: Service, order: str):
        service.runs[RUN] = [run_document(RUN)]
        result = patchwave("run", order, RUN, "web-9")
        assert result.code == 2
        assert "web-9" in result.errors


class TestAuditAndPlan:
    LINES: list[dict[str, Any]] = [  # noqa: RUF012 - read only
        {"at": MOMENT, "action": "run_paused", "actor": "ana", "detail": {"reason": "disks are full", "before": ""}},
        {"at": MOMENT, "action": "gate_closed", "actor": "patchwave", "detail": "cut text … [cut"},
        {"at": MOMENT, "action": "run_resumed", "actor": "ben", "detail": None},
    ]

    def test_nested_values_of_the_audit_are_words(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN)]
        rings = {"canary": 1, "broad": 12}
        detail = {"endsRun": False, "trigger": {"kind": "http", "detail": ""}, "rings": rings, "excluded": {}}
        service.audit = [{"at": MOMENT, "action": "planned", "actor": "patchwave", "detail": detail}]
        output = patchwave("run", "audit", RUN).output
        assert "endsRun no, trigger (kind http), rings (canary 1, broad 12)" in " ".join(output.split())
        assert "excluded" not in output

    def test_the_audit_as_a_table(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN)]
        service.audit = self.LINES
        output = patchwave("run", "audit", RUN).output
        assert [line.split()[2] for line in output.splitlines()[1:]] == ["run_paused", "gate_closed", "run_resumed"]
        assert "reason disks are full" in output
        assert "before" not in output
        assert "cut text" in output

    def test_the_audit_is_whole_or_limited(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN)]
        service.audit = self.LINES * 50
        assert len(patchwave("run", "audit", RUN, "-o", "json").document) == 150
        assert len(patchwave("run", "audit", RUN, "--limit", "2", "-o", "json").document) == 2

    def test_the_plan_of_a_run(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN)]
        service.plan = PLAN.to_wire()
        assert patchwave("run", "plan", RUN, "-o", "json").document == PLAN.to_wire()
        for form in ("table", "timeline"):
            output = patchwave("run", "plan", "latest", "-o", form).output
            assert "web-1" in output
            assert "canary" in output

    def test_a_run_without_a_plan(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [run_document(RUN)]
        assert patchwave("run", "plan", RUN).code == 2


class TestShow:
    def test_shows_commands_decisions_and_what_the_run_waits_for(self, patchwave: Patchwave, service: Service):
        order = {"actor": "ana", "reason": "disks are full", "at": MOMENT, "before": "running", "after": "paused"}
        decision = {"approved": True, "actor": "ben", "reason": "canary is fine", "at": MOMENT}
        service.runs[RUN] = [
            run_document(
                RUN,
                "paused",
                waitingFor="lane:broad/westeurope",
                lastCommands={"pause": order},
                decisions={"broad": decision},
            )
        ]
        output = patchwave("run", "show", RUN).output
        assert "lane:broad/westeurope" in output
        assert "by ana 2026-11-10 19:30:00Z: disks are full" in output
        assert "approved by ben 2026-11-10 19:30:00Z: canary is fine" in output

    def test_a_run_that_a_gate_ended_needs_a_person(self, patchwave: Patchwave, service: Service):
        service.runs[RUN] = [
            run_document(RUN, "held", waitingFor="ring:broad", countsByStage={"restarting": 1, "done": 3}),
            run_document(RUN, "stopped", reason="The error budget of the run is used up.", endedAt=MOMENT),
        ]
        result = patchwave("run", "watch", RUN, "--interval", "0.1")
        assert result.code == 1
        assert "1 restarting" in result.output
        assert "used up" in result.output
