"""Who did something, by the audit log: name, object id, and whether the platform names them."""

from __future__ import annotations

from typing import Any

import pytest

from patchwave.api import evidence, freezes, policies, policy_schedule, run_commands, runs
from patchwave.domain.runs.run import RunState
from patchwave.storage import Storage
from tests.support.factories import NOW, RUN, end_machine, machine, run
from tests.support.http_calls import POLICY, Answer, Engine, call, signed_in
from triggers.webhook import run_webhook

ANA = "aaaaaaaa-2222-4333-8444-555555555555"
SIGNED = signed_in(ANA, "author", "approver", name="ana@example.org")
PROVEN = ("ana@example.org", ANA, True)
TYPED = ("ana@example.org (claimed)", "", False)
NO_PERSON = ("api", "", False)
APPROVED_POLICY = {**POLICY, "rings": [{"name": "all", "approval": {}}]}

REASON = {"reason": "maintenance", "actor": "ana@example.org"}
COMMENT = {"reason": "maintenance", "actor": "ana@example.org"}
SCHEDULE = {"recurrence": "RRULE:FREQ=DAILY", "startDate": "2099-01-01", "time": "02:30", "timeZone": "UTC"}
FREEZE = {"from": "2026-12-20", "to": "2027-01-03", "timeZone": "Europe/Berlin", "reason": "closing"}


async def last_line(storage: Storage, subject: str, action: str) -> tuple[str, str, bool]:
    found = (await storage.audit.list_page(subject, 100, None)).items
    line = [line for line in found if line["action"] == action][-1]
    return line["actor"], line["actorId"], line["proven"]


async def every_command(storage: Storage, headers: dict[str, str], *, typed: bool) -> dict[str, tuple[str, str, bool]]:
    """Send every command to a policy, a freeze and a run, and read its actor, by action."""
    engine = Engine()
    query = REASON if typed else {"reason": "maintenance"}
    reason: Any = REASON if typed else {"reason": "maintenance"}
    comment: Any = COMMENT if typed else {}

    async def ask(function: object, body: object = b"", *, client: Engine | None = None, **route: str) -> Answer:
        answer = await call(function, body=body, headers=headers, query=query, engine=client, **route)
        assert answer.status < 300, answer.text
        return answer

    async def send(function: object, body: object = b"", **route: str) -> Answer:
        return await ask(function, body, client=engine, **route)

    await ask(policies.put_policy, {**APPROVED_POLICY, "schedule": {**SCHEDULE, "window": "PT4H"}}, name="monthly")
    await ask(policy_schedule.pause_policy, reason, name="monthly")
    await send(policy_schedule.resume_policy, reason, name="monthly")
    await ask(policy_schedule.skip_next_occurrence, reason, name="monthly")
    await ask(policy_schedule.unskip_next_occurrence, name="monthly")
    await send(policy_schedule.run_policy_now, reason, name="monthly")
    await ask(freezes.put_freeze, FREEZE, name="year-end")
    await ask(freezes.delete_freeze, name="year-end")
    started = await send(runs.start_run, {"policy": "monthly"})
    await storage.runs.create(run(policy_snapshot={"name": "monthly", **APPROVED_POLICY}))
    await storage.runs.start(RUN, NOW)
    await storage.machines.add(RUN, [machine(1, ring="all"), machine(2, ring="all")])
    engine.instances[RUN] = ("patch_run", {})
    await end_machine(storage)
    await send(run_commands.pause_run, comment, runId=RUN)
    await send(run_commands.resume_run, comment, runId=RUN)
    await send(run_commands.approve_ring, {"ring": "all", **comment}, runId=RUN)
    await ask(run_commands.skip_machine, comment, runId=RUN, machineKey=machine(2).key)
    await send(run_commands.retry_machine, comment, runId=RUN, machineKey=machine(1).key)
    await send(run_commands.cancel_run, comment, runId=RUN)
    await ask(policies.delete_policy, name="monthly")
    subjects = {
        "monthly": (
            "policy_written",
            "policy_paused",
            "policy_resumed",
            "occurrence_skipped",
            "occurrence_skip_removed",
            "run_requested",
            "policy_deleted",
        ),
        "freeze~year-end": ("freeze_written", "freeze_deleted"),
        started.json["id"]: ("run_started",),
        RUN: ("run_paused", "run_resumed", "ring_approved", "machine_skipped", "machine_retried", "cancel_requested"),
    }
    return {
        action: await last_line(storage, subject, action) for subject, actions in subjects.items() for action in actions
    }


@pytest.mark.usefixtures("roles")
async def test_every_command_of_a_signed_in_person_keeps_name_object_id_and_proof(storage: Storage) -> None:
    found = await every_command(storage, SIGNED, typed=True)
    assert found == dict.fromkeys(found, PROVEN)


async def test_every_order_of_a_key_holder_shows_the_typed_name_as_claimed(storage: Storage) -> None:
    forged = {key: value for key, value in SIGNED.items() if key != "x-ms-client-principal-name"}
    found = await every_command(storage, forged, typed=True)
    assert found == dict.fromkeys(found, TYPED)


async def test_every_order_without_a_name_is_of_the_api(storage: Storage) -> None:
    found = await every_command(storage, {}, typed=False)
    assert found == dict.fromkeys(found, NO_PERSON)


@pytest.mark.parametrize("typed", ["timer", "patchwave", "api", "azure", "cleanup"])
async def test_no_key_holder_can_claim_the_name_of_a_part_of_the_app(
    storage: Storage, monthly: str, typed: str
) -> None:
    assert (await call(policy_schedule.pause_policy, body={**REASON, "actor": typed}, name=monthly)).status == 200
    assert await last_line(storage, monthly, "policy_paused") == (f"{typed} (claimed)", "", False)


@pytest.mark.usefixtures("platform")
async def test_a_sign_in_wins_over_keys(storage: Storage, monthly: str) -> None:
    headers = signed_in(ANA, name="ana@example.org")
    assert (await call(policy_schedule.pause_policy, body=REASON, headers=headers, name=monthly)).status == 200
    assert await last_line(storage, monthly, "policy_paused") == PROVEN


@pytest.mark.usefixtures("platform")
async def test_the_id_of_another_provider_is_no_object_id(storage: Storage, monthly: str) -> None:
    headers = signed_in(ANA, name="ana@example.org") | {"x-ms-client-principal-idp": "google"}
    assert (await call(policy_schedule.pause_policy, body=REASON, headers=headers, name=monthly)).status == 200
    assert await last_line(storage, monthly, "policy_paused") == ("ana@example.org", "", True)


@pytest.mark.usefixtures("roles")
async def test_an_export_keeps_its_actor(storage: Storage) -> None:
    await storage.runs.create(run())
    await storage.runs.close(RUN, RunState.COMPLETED, "", NOW)
    count = await storage.evidence.count(RUN)
    operator = signed_in(ANA, "operator", name="ana@example.org")
    answer = await call(evidence.acknowledge_export, body={"records": count}, headers=operator, runId=RUN)
    assert answer.status == 200, answer.text
    assert await last_line(storage, RUN, "evidence_exported") == PROVEN


async def test_a_webhook_starts_runs_in_nobodys_name(storage: Storage, monthly: str) -> None:
    started = await call(run_webhook, body=b'{"actor": "ana@example.org"}', engine=Engine(), policy=monthly)
    assert await last_line(storage, started.json["id"], "run_started") == NO_PERSON


async def test_a_line_from_before_ids_were_kept_is_shown_without_one(storage: Storage) -> None:
    await storage._store.audit.insert("monthly", "2026-11-10~1", {"at": "2026-11-10", "action": "old", "actor": "ana"})
    [line] = (await storage.audit.list_page("monthly", 10, None)).items
    assert (line["actor"], line["actorId"], line["proven"]) == ("ana", "", False)
