"""Orders to a run and to its machines, function by function."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from patchwave.api import run_commands, runs
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.machine.patch_pinning import LinuxPin, Pin
from patchwave.domain.planning.rings import choose_rings
from patchwave.domain.planning.topology import PlannerMachine
from patchwave.domain.policy.policy import Policy
from patchwave.domain.runs.error_budget import ErrorBudgetExceeded
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import RunState
from patchwave.storage import Storage
from tests.support.factories import KEY, NOW, RUN, end_machine, intent, machine, run, stored_run
from tests.support.factories import command as a_command
from tests.support.http_calls import POLICY, Answer, Engine, call

RINGS = [{"name": "canary", "percent": 5}, {"name": "broad", "approval": {"within": "PT4H"}}]
SNAPSHOT: dict[str, Any] = {"name": "monthly", **POLICY, "rings": RINGS}
pytestmark = pytest.mark.usefixtures("platform")
ANA = {"x-ms-client-principal-name": "ana@example.org"}
COMMANDS = {
    "pause": run_commands.pause_run,
    "resume": run_commands.resume_run,
    "cancel": run_commands.cancel_run,
    "approve": run_commands.approve_ring,
    "reject": run_commands.reject_ring,
}


@pytest.fixture
async def live(storage: Storage, engine: Engine) -> Storage:
    """Records with a run in progress that has one machine, and its orchestration in the engine."""
    await begin(storage, engine)
    return storage


async def begin(storage: Storage, engine: Engine, **changes: Any) -> None:
    await storage.runs.create(run(policy_snapshot=SNAPSHOT | changes))
    await storage.runs.start(RUN, NOW)
    await storage.machines.add(RUN, [machine(1, ring="broad", lane="westeurope", wave=1)])
    engine.instances[RUN] = ("patch_run", {"runId": RUN})


async def lines(storage: Storage, run_id: str = RUN) -> list[dict[str, Any]]:
    return (await storage.audit.list_page(run_id, 50, None)).items


async def give(engine: Engine, command: str, body: object = b"", **headers: str) -> Answer:
    return await call(COMMANDS[command], body=body, headers=headers, engine=engine, runId=RUN)


async def test_a_pause_is_stored_signalled_and_audited_once(live: Storage, engine: Engine) -> None:
    body = {"reason": "the disks are full"}
    first = await call(run_commands.pause_run, body=body, headers=ANA, engine=engine, runId=RUN)
    second = await give(engine, "pause", {"reason": "me too", "actor": "ben"})
    assert (first.status, second.status) == (202, 202)
    assert first.headers["Location"] == f"/api/runs/{RUN}"
    assert first.json == second.json
    assert (first.json["state"], first.json["pausedFromState"]) == ("paused", "running")
    shown = await call(runs.get_run, runId=RUN)
    assert shown.json["lastCommands"]["pause"]["actor"] == "ana@example.org"
    assert shown.json["lastCommands"]["pause"]["reason"] == "the disks are full"
    assert engine.events == [(RUN, "control"), (RUN, "control")]
    [line] = await lines(live)
    assert (line["action"], line["actor"]) == ("run_paused", "ana@example.org")
    assert line["detail"] == {"reason": "the disks are full", "before": "running", "after": "paused"}


async def test_a_resume_clears_gates_and_a_run_that_goes_on_needs_none(live: Storage, engine: Engine) -> None:
    await live.runs.trip_error_budget(
        ErrorBudgetExceeded(run_id=RUN, scope="ring:broad", failures=3, limit=2, ends_run=False), NOW
    )
    held = await call(runs.get_run, runId=RUN)
    assert (held.json["state"], held.json["blockedScopes"], held.json["waitingFor"]) == (
        "held", ["ring:broad"], "ring:broad",
    )  # fmt: skip
    for _ in range(2):
        answer = await give(engine, "resume", {"actor": "ben", "reason": "known failures"})
        assert (answer.status, answer.json["state"], answer.json["resumeCount"]) == (202, "running", 1)
    [line] = await lines(live)
    assert (line["action"], line["actor"], line["detail"]["before"]) == ("run_resumed", "ben (claimed)", "held")


async def test_an_approval_is_for_the_ring_that_the_run_waits_for(live: Storage, engine: Engine) -> None:
    await live.runs.set_state(RUN, RunState.AWAITING_APPROVAL, "broad")
    first = await call(run_commands.approve_ring, body={"reason": "go"}, headers=ANA, engine=engine, runId=RUN)
    again = await give(engine, "approve", {"actor": "ben"})
    assert (first.status, again.status) == (202, 202)
    assert first.json["decisions"] == again.json["decisions"]
    assert first.json["decisions"]["broad"]["actor"] == "ana@example.org"
    contrary = await give(engine, "reject")
    assert contrary.status == 409
    assert "approved by ana@example.org" in contrary.problem["detail"]
    [line] = await lines(live)
    assert (line["action"], line["detail"]["ring"], line["detail"]["reason"]) == ("ring_approved", "broad", "go")


async def test_a_rejection_names_its_ring(live: Storage, engine: Engine) -> None:
    answer = await give(engine, "reject", {"ring": "broad", "actor": "ben", "reason": "not this month"})
    assert answer.status == 202
    decision = (await stored_run(live)).decisions["broad"]
    assert (decision.approved, decision.actor, decision.reason) == (False, "ben (claimed)", "not this month")
    assert engine.events == [(RUN, "control")]
    assert [line["action"] for line in await lines(live)] == ["ring_rejected"]


@pytest.mark.parametrize("body", [b"", {"ring": "canary"}, {"ring": "missing"}])
async def test_an_approval_of_nothing_is_refused(live: Storage, engine: Engine, body: object) -> None:
    answer = await give(engine, "approve", body)
    assert answer.status == 409
    assert not (await stored_run(live)).decisions
    assert not engine.events


@pytest.mark.parametrize("command", ["pause", "resume", "approve", "reject"])
async def test_a_command_is_kept_when_its_signal_fails(live: Storage, engine: Engine, command: str) -> None:
    await live.runs.set_state(RUN, RunState.AWAITING_APPROVAL, "broad")
    if command == "resume":
        await live.runs.pause(RUN, a_command())
    engine.failing = True
    failed = await give(engine, command)
    assert failed.status == 503
    assert int(failed.headers["Retry-After"]) > 0
    assert "SECRET" not in failed.text
    told = await stored_run(live)
    engine.failing = False
    assert (await give(engine, command)).status == 202
    assert await stored_run(live) == told
    assert engine.events == [(RUN, "control")]
    assert len(await lines(live)) == 1


@pytest.mark.parametrize("command", COMMANDS)
async def test_a_run_that_has_ended_takes_no_orders(live: Storage, engine: Engine, command: str) -> None:
    await live.runs.close(RUN, RunState.COMPLETED, "", NOW)
    answer = await give(engine, command, {"ring": "broad"} if command in ("approve", "reject") else b"")
    assert answer.status == 409
    assert "completed" in answer.problem["detail"]
    assert not engine.events
    assert not await lines(live)


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("run_id", ["20261110T190000Z-other", "nonsense", "../runs", "a'b", ""])
async def test_a_run_that_is_not_there(storage: Storage, engine: Engine, command: str, run_id: str) -> None:
    assert (await call(COMMANDS[command], engine=engine, runId=run_id)).problem["status"] == 404


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize(
    ("body", "paths"),
    [
        (b"{", []),
        ([], ["$"]),
        ({"reason": 7, "actor": None, "colour": "red"}, ["reason", "actor", "colour"]),
        ({"reason": "x" * 1_001}, ["reason"]),
    ],
)
async def test_a_wrong_body_is_refused_with_every_path(
    live: Storage, engine: Engine, command: str, body: object, paths: list[str]
) -> None:
    answer = await give(engine, command, body)
    assert answer.status == 400
    assert answer.paths == paths
    assert not engine.events


async def test_a_signed_in_user_cannot_claim_another_name(live: Storage, engine: Engine) -> None:
    await call(run_commands.pause_run, body={"actor": "root"}, headers=ANA, engine=engine, runId=RUN)
    await give(engine, "resume", {"actor": "ben\n\x1b[31m"})
    last = (await stored_run(live)).last_commands
    assert (last["pause"].actor, last["resume"].actor) == ("ana@example.org", "ben[31m (claimed)")


class TestCancel:
    async def test_it_is_stored_signalled_and_audited_once(self, live: Storage, engine: Engine) -> None:
        first = await call(run_commands.cancel_run, body={"reason": "why"}, headers=ANA, engine=engine, runId=RUN)
        second = await give(engine, "cancel")
        assert (first.status, second.status) == (202, 202)
        assert first.json["cancelRequestedAt"] == second.json["cancelRequestedAt"] is not None
        assert await live.runs.is_canceled(RUN)
        assert set(engine.events) == {(RUN, "cancel")}
        [line] = await lines(live)
        assert (line["action"], line["actor"], line["detail"]["reason"]) == (
            "cancel_requested",
            "ana@example.org",
            "why",
        )

    async def test_it_holds_when_the_engine_is_away(self, live: Storage, engine: Engine) -> None:
        engine.failing = True
        answer = await give(engine, "cancel")
        assert answer.status == 202
        assert "SECRET" not in answer.text
        assert await live.runs.is_canceled(RUN)

    async def test_a_run_that_was_never_scheduled_can_end(self, storage: Storage, engine: Engine) -> None:
        """Its starter died between the row and the engine; without an orchestration it would stay queued for ever."""
        await storage.runs.create(run())
        await storage.runs.pause(RUN, a_command())
        assert (await give(engine, "cancel")).status == 202
        assert list(engine.instances) == [RUN]
        assert engine.events == [(RUN, "cancel")]

    async def test_a_run_that_ended_by_it_is_answered_alike(self, live: Storage, engine: Engine) -> None:
        await live.runs.cancel(RUN, a_command())
        await live.runs.close(RUN, RunState.CANCELED, "", NOW)
        answer = await give(engine, "cancel")
        assert (answer.status, answer.json["state"]) == (202, "canceled")
        assert not engine.events


class TestSkip:
    async def test_it_is_written_and_audited_once(self, live: Storage) -> None:
        body = {"reason": "being rebuilt"}
        first = await call(run_commands.skip_machine, body=body, headers=ANA, runId=RUN, machineKey=KEY)
        second = await call(run_commands.skip_machine, body={"actor": "ben"}, runId=RUN, machineKey=KEY)
        assert (first.status, second.status) == (202, 202)
        assert first.headers["Location"] == f"/api/runs/{RUN}/machines/{KEY}"
        assert first.json["skipCommand"] == second.json["skipCommand"]
        assert (first.json["skipCommand"]["actor"], first.json["skipCommand"]["reason"]) == (
            "ana@example.org",
            "being rebuilt",
        )
        [line] = await lines(live)
        assert (line["action"], line["detail"]) == (
            "machine_skipped", {"machine": machine(1).id, "reason": "being rebuilt"},
        )  # fmt: skip

    async def test_it_is_too_late_once_the_installation_has_begun(self, live: Storage) -> None:
        await live.intents.declare(intent(RUN))
        await live.machines.begin_operation(RUN, KEY, Stage.INSTALLING, NOW)
        answer = await call(run_commands.skip_machine, runId=RUN, machineKey=KEY)
        assert answer.status == 409
        assert "installing" in answer.problem["detail"]
        assert not await lines(live)

    async def test_in_a_run_that_assesses_the_assessment_is_the_operation(
        self, storage: Storage, engine: Engine
    ) -> None:
        await storage.runs.create(run(mode="assess", policy_snapshot=SNAPSHOT))
        await storage.machines.add(RUN, [machine(1)])
        await storage.intents.declare(intent(RUN, kind=OperationKind.ASSESS))
        assert (await call(run_commands.skip_machine, runId=RUN, machineKey=KEY)).status == 409

    @pytest.mark.parametrize("key", ["0" * 24, "i~x", "A" * 24, "../x", ""])
    async def test_a_machine_that_is_not_there(self, live: Storage, engine: Engine, key: str) -> None:
        answers = [
            await call(run_commands.skip_machine, runId=RUN, machineKey=key),
            await call(run_commands.retry_machine, engine=engine, runId=RUN, machineKey=key),
        ]
        assert [answer.problem["status"] for answer in answers] == [404, 404]


class TestRetry:
    @staticmethod
    async def retry(engine: Engine, body: object = b"") -> Answer:
        return await call(run_commands.retry_machine, body=body, headers=ANA, engine=engine, runId=RUN, machineKey=KEY)

    async def test_it_is_a_run_of_its_own_by_the_same_policy(self, live: Storage, engine: Engine) -> None:
        await end_machine(live)
        answer = await self.retry(engine, {"reason": "disk cleaned"})
        assert answer.status == 202
        new = await stored_run(live, answer.json["id"])
        assert new.id != RUN
        assert answer.headers["Location"] == f"/api/runs/{new.id}"
        assert engine.instances[new.id] == ("patch_run", {"runId": new.id, "generation": 1})
        assert (new.trigger.actor, new.trigger.detail) == ("ana@example.org", f"retry of vm-1 in {RUN}: disk cleaned")
        assert new.trigger.retry_of == RUN
        assert new.policy_snapshot
        assert new.policy_snapshot["scope"]["machineIds"] == [machine(1).id]
        old = await stored_run(live)
        assert old.policy_snapshot
        assert new.policy_snapshot["rings"][1]["name"] == old.policy_snapshot["rings"][1]["name"]
        assert new.mode is old.mode

    async def test_a_retry_does_not_go_past_the_approval_of_its_ring(self, storage: Storage, engine: Engine) -> None:
        await begin(storage, engine, rings=[{"name": "canary", "percent": 5}, {"name": "broad", "approval": {}}])
        await end_machine(storage)
        old = await storage.machines.get(RUN, KEY)
        new = await stored_run(storage, (await self.retry(engine)).json["id"])
        assert old
        policy = Policy.model_validate(new.policy_snapshot)
        alone = PlannerMachine(id=old.id, key=old.key, location="westeurope")
        assert policy.rings[choose_rings([alone], policy.rings)[KEY].number].name == old.ring == "broad"

    async def test_both_runs_audit_it_once_and_a_repetition_gives_the_same_run(
        self, live: Storage, engine: Engine
    ) -> None:
        await end_machine(live)
        answers = await asyncio.gather(*(self.retry(engine) for _ in range(4)))
        assert {answer.status for answer in answers} == {202}
        [new] = {answer.json["id"] for answer in answers}
        assert [line["action"] for line in await lines(live)] == ["machine_retried"]
        told = [line for line in await lines(live, new) if line["action"] == "machine_retried"]
        assert [line["detail"]["of"] for line in told] == [RUN]
        assert (await live.machines.get(RUN, KEY)) is not None

    async def test_an_open_machine_is_not_retried(self, live: Storage, engine: Engine) -> None:
        answer = await self.retry(engine)
        assert answer.status == 409
        assert "waiting" in answer.problem["detail"]
        assert list(engine.instances) == [RUN]

    async def test_a_pinned_machine_stays_pinned(self, storage: Storage, engine: Engine) -> None:
        await begin(storage, engine, pinRings=True)
        await end_machine(storage)
        refused = await self.retry(engine)
        assert refused.status == 409
        assert "canary" in refused.problem["detail"]
        pin = Pin(from_ring="canary", at=NOW, linux=LinuxPin(masks=["openssl=3.0.2"]))
        await storage.patch_pins.save(RUN, pin)
        answer = await self.retry(engine)
        assert answer.status == 202
        assert await storage.patch_pins.get(answer.json["id"]) == pin


async def test_the_audit_is_read_page_by_page_oldest_first(live: Storage, engine: Engine) -> None:
    for number in range(5):
        await live.audit.add(RUN, f"action_{number}", actor="ana", at=NOW + timedelta(seconds=number))
    first = await call(runs.list_run_audit, query={"limit": "3"}, runId=RUN)
    rest = await call(runs.list_run_audit, query={"limit": "3", "cursor": first.json["cursor"]}, runId=RUN)
    listed = [*first.json["audit"], *rest.json["audit"]]
    assert [line["action"] for line in listed] == [f"action_{number}" for number in range(5)]
    assert rest.json["cursor"] is None
    assert set(listed[0]) == {"at", "action", "actor", "actorId", "proven", "detail"}
    assert (await call(runs.list_run_audit, runId="20261110T190000Z-other")).status == 404


async def test_a_run_without_a_plan_is_404(live: Storage) -> None:
    answer = await call(runs.get_run_plan, runId=RUN)
    assert answer.status == 404
    assert "no plan" in answer.problem["detail"]
