"""The API of runs, function by function."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from typing import Any

import pytest

from patchwave.api import runs
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.command import Command
from patchwave.domain.core.ids import RunId
from patchwave.domain.core.outcome import Outcome
from patchwave.domain.core.patches import AssessmentSummary, PatchRecord
from patchwave.domain.runs.intent import IntentState
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.runs.run import Run, RunState
from patchwave.storage import Storage
from tests.support.factories import NOW, intent, machine, run, stored_run
from tests.support.http_calls import POLICY, SUBSCRIPTION, Answer, Engine, call, signed_in

SUMMARY = AssessmentSummary(status="Succeeded", critical_and_security=2)


async def start(engine: Engine, body: object, **headers: str) -> Answer:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return await call(runs.start_run, body=body, headers=named, engine=engine)


async def stored(storage: Storage, answer: Answer) -> Run:
    return await stored_run(storage, answer.json["id"])


@pytest.mark.usefixtures("platform")
async def test_a_start_is_accepted_with_its_location(storage: Storage, engine: Engine, monthly: str) -> None:
    answer = await start(engine, {"policy": monthly}, x_ms_client_principal_name="ana@example.org")
    run_id = answer.json["id"]
    assert answer.status == 202
    assert answer.headers["Location"] == f"/api/runs/{run_id}"
    assert int(answer.headers["Retry-After"]) > 0
    assert engine.instances == {run_id: ("patch_run", {"runId": run_id, "generation": 1})}
    found = await stored(storage, answer)
    assert (found.state, found.mode.value, found.policy) == (RunState.QUEUED, "patch", "monthly")
    assert (found.trigger.kind.value, found.trigger.actor) == ("http", "ana@example.org")
    assert found.policy_snapshot
    assert found.policy_snapshot["maxConcurrent"] == 3
    [line] = (await storage.audit.list_page(run_id, 10, None)).items
    assert (line["action"], line["actor"]) == ("run_started", "ana@example.org")


async def test_a_start_has_actor_and_reason(storage: Storage, engine: Engine, monthly: str) -> None:
    said = {"reason": "zero-day", "actor": "ana"}
    answer = await call(runs.start_run, body={"policy": monthly}, query=said, engine=engine)
    assert answer.status == 202
    who = {"actor": "ana (claimed)", "actorId": "", "proven": False}
    assert answer.json["trigger"] == {"kind": "http", **who, "detail": "zero-day", "retryOf": "", "earlierIds": []}
    [line] = (await storage.audit.list_page(answer.json["id"], 10, None)).items
    assert (line["actor"], line["detail"]["trigger"]["detail"]) == ("ana (claimed)", "zero-day")


async def test_an_inline_policy_and_overrides_make_the_snapshot(storage: Storage, engine: Engine) -> None:
    body = {
        "policy": POLICY,
        "mode": "assess",
        "overrides": {"maxConcurrent": 7, "install": {"rebootSetting": "Never"}},
    }
    answer = await start(engine, body)
    assert answer.status == 202
    found = await stored(storage, answer)
    assert re.fullmatch(r"adhoc-[0-9a-f]{8}", found.policy)
    assert found.mode.value == "assess"
    assert found.policy_snapshot
    assert found.policy_snapshot["maxConcurrent"] == 7
    assert found.policy_snapshot["install"]["rebootSetting"] == "Never"


async def test_two_starts_without_a_key_are_two_runs(storage: Storage, engine: Engine, monthly: str) -> None:
    first, second = [await start(engine, {"policy": monthly}) for _ in range(2)]
    assert first.json["id"] != second.json["id"]
    assert len(engine.instances) == 2


async def test_a_repeated_idempotency_key_gives_the_first_run(storage: Storage, engine: Engine, monthly: str) -> None:
    first = await start(engine, {"policy": monthly}, idempotency_key="k-1")
    again = await start(engine, {"policy": monthly}, idempotency_key="k-1")
    other = await start(engine, {"policy": monthly}, idempotency_key="k-2")
    assert again.status == 202
    assert again.json == first.json
    assert other.json["id"] != first.json["id"]
    assert len((await storage.runs.list_page(10, None)).items) == 2


async def test_the_same_key_many_times_at_once_is_one_run(storage: Storage, engine: Engine, monthly: str) -> None:
    answers = await asyncio.gather(*(start(engine, {"policy": monthly}, idempotency_key="k") for _ in range(6)))
    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["id"] for answer in answers}) == 1
    assert len(engine.instances) == 1


async def test_an_unreachable_engine_is_503_and_the_repetition_starts_the_run(
    storage: Storage, engine: Engine, monthly: str
) -> None:
    engine.failing = True
    failed = await start(engine, {"policy": monthly}, idempotency_key="k-1")
    assert failed.status == 503
    assert int(failed.headers["Retry-After"]) > 0
    assert "SECRET" not in failed.text
    engine.failing = False
    answer = await start(engine, {"policy": monthly}, idempotency_key="k-1")
    assert answer.status == 202
    assert list(engine.instances) == [answer.json["id"]] == list(dict.fromkeys(engine.attempts))


async def test_a_run_that_is_live_is_not_started_again(storage: Storage, engine: Engine, monthly: str) -> None:
    first = await start(engine, {"policy": monthly}, idempotency_key="k-1")
    await storage.runs.start(first.json["id"], NOW)
    again = await start(engine, {"policy": monthly}, idempotency_key="k-1")
    assert again.json["state"] == "running"
    assert len(engine.attempts) == 1


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "policy"),
        ({"policy": 7}, "policy"),
        ({"policy": None}, "policy"),
        ({"policy": POLICY, "mode": "install"}, "mode"),
        ({"policy": POLICY, "mode": ["patch"]}, "mode"),
        ({"policy": POLICY, "mode": {"a": 1}}, "mode"),
        ({"policy": POLICY, "override": {}}, "override"),
        ({"policy": {"scope": {}}}, "scope"),
        ({"policy": POLICY, "overrides": 3}, "overrides"),
        ({"policy": POLICY, "overrides": {"maxConcurrent": 0}}, "maxConcurrent"),
        ({"policy": {"scope": {"machineIds": ["/subscriptions/x'; drop"]}}}, "scope.machineIds[0]"),
        ({"policy": {"scope": {"machineIds": ["/subscriptions/../../x\n"]}}}, "scope.machineIds[0]"),
        ({"policy": {"scope": {"subscriptions": [f"{SUBSCRIPTION}' | union x"]}}}, "scope.subscriptions[0]"),
    ],
)
async def test_a_wrong_start_is_refused_with_its_path(
    storage: Storage, engine: Engine, body: dict[str, Any], path: str
) -> None:
    answer = await start(engine, body)
    assert answer.status == 400
    assert path in answer.paths
    assert not engine.attempts
    assert (await storage.runs.list_page(10, None)).items == []


async def test_every_error_of_a_policy_is_listed_at_once(storage: Storage, engine: Engine) -> None:
    policy = {"scope": {"machineIds": ["nonsense"]}, "maxConcurrent": 0, "colour": "red"}
    answer = await start(engine, {"policy": policy})
    assert answer.status == 400
    assert {"scope.machineIds[0]", "maxConcurrent", "colour"} <= set(answer.paths)


@pytest.mark.parametrize("name", ["missing", "", "../monthly", "Monthly'", "a/b", "é" * 100])
async def test_an_unknown_policy_is_not_found(storage: Storage, engine: Engine, name: str) -> None:
    answer = await start(engine, {"policy": name})
    assert answer.status == 404
    assert answer.problem
    assert not engine.attempts


async def test_an_idempotency_key_is_for_one_body(storage: Storage, engine: Engine, monthly: str) -> None:
    headers = {"idempotency-key": "k-1"}
    first = await call(runs.start_run, body=b'{"policy": "monthly", "mode": "assess"}', headers=headers, engine=engine)
    written_otherwise = b' { "mode" : "assess", "policy" : "monthly" } '
    same = await call(runs.start_run, body=written_otherwise, headers=headers, engine=engine)
    assert (same.status, same.json["id"]) == (202, first.json["id"])
    for body in (
        {"policy": "monthly"},
        {"policy": "monthly", "mode": "patch"},
        {"policy": "monthly", "mode": "assess", "overrides": {"maxConcurrent": 1}},
    ):
        other = await call(runs.start_run, body=body, headers=headers, engine=engine)
        assert other.status == 422
        assert first.json["id"] in other.problem["detail"]
    assert list(engine.instances) == [first.json["id"]]


async def test_a_key_of_another_policy_swallows_no_patch_run(storage: Storage, engine: Engine, monthly: str) -> None:
    """One build number is the key of two jobs: the assessment of one policy, and the patches of the other."""
    await storage.policies.put("weekly", {"name": "weekly", **POLICY}, if_match=None, if_none_match=True, at=NOW)
    claimed = await start(engine, {"policy": "weekly", "mode": "assess"}, idempotency_key="build-4711")
    named = {"policy": POLICY | {"name": "inline"}, "mode": "assess"}
    inline = await start(engine, named, idempotency_key="build-4711")
    patch = await start(engine, {"policy": monthly}, idempotency_key="build-4711")
    assert (claimed.status, inline.status, patch.status) == (202, 202, 202)
    found = await stored_run(storage, patch.json["id"])
    assert (found.policy, found.mode.value) == ("monthly", "patch")
    assert len(engine.instances) == 3
    again = await start(engine, {"policy": monthly}, idempotency_key="build-4711")
    assert again.json["id"] == patch.json["id"]


@pytest.mark.usefixtures("roles")
async def test_a_key_of_another_caller_is_another_key(storage: Storage, engine: Engine, monthly: str) -> None:
    async def started_by(caller: str, mode: str) -> Answer:
        headers = signed_in(caller, "operator", "author") | {"idempotency-key": "k-1"}
        return await call(runs.start_run, body={"policy": monthly, "mode": mode}, headers=headers, engine=engine)

    ana, ben = "aaaaaaaa-2222-4333-8444-555555555555", "bbbbbbbb-2222-4333-8444-555555555555"
    first, other, again = (
        await started_by(ana, "assess"),
        await started_by(ben, "patch"),
        await started_by(ana, "assess"),
    )
    assert (first.status, other.status) == (202, 202)
    assert again.json["id"] == first.json["id"] != other.json["id"]


async def test_with_shared_keys_callers_name_themselves(storage: Storage, engine: Engine, monthly: str) -> None:
    async def started_by(name: str, mode: str) -> Answer:
        query, headers = ({"actor": name} if name else {}), {"idempotency-key": "k-1"}
        body = {"policy": monthly, "mode": mode}
        return await call(runs.start_run, body=body, query=query, headers=headers, engine=engine)

    looked = await started_by("nightly-report", "assess")
    patched = await started_by("change-4711", "patch")
    nameless = await started_by("", "patch")
    assert [each.status for each in (looked, patched, nameless)] == [202, 202, 202]
    modes = [(await stored(storage, each)).mode.value for each in (looked, patched, nameless)]
    assert modes == ["assess", "patch", "patch"]
    assert (await started_by("change-4711", "patch")).json["id"] == patched.json["id"]
    assert len(engine.instances) == 3


async def test_an_inline_policy_claims_no_key_of_a_stored_one(storage: Storage, engine: Engine, monthly: str) -> None:
    inline = {"policy": POLICY | {"name": "monthly"}, "mode": "assess"}
    claimed = await start(engine, inline, idempotency_key="build-4711")
    patch = await start(engine, {"policy": monthly}, idempotency_key="build-4711")
    assert (claimed.status, patch.status) == (202, 202)
    found = await stored(storage, patch)
    assert (found.policy, found.mode.value) == ("monthly", "patch")
    assert len(engine.instances) == 2


async def test_an_inline_policy_without_a_name_has_keys_too(engine: Engine, storage: Storage) -> None:
    first = await start(engine, {"policy": POLICY, "mode": "assess"}, idempotency_key="k-1")
    again = await start(engine, {"policy": POLICY, "mode": "assess"}, idempotency_key="k-1")
    assert again.json["id"] == first.json["id"]
    assert (await start(engine, {"policy": POLICY | {"maxConcurrent": 1}}, idempotency_key="k-1")).status == 422


async def test_a_key_is_unused_by_what_was_refused(storage: Storage, engine: Engine, monthly: str) -> None:
    for body in ({"policy": monthly, "mode": "destroy"}, {"policy": "unknown"}, {"policy": monthly, "more": 1}):
        assert (await start(engine, body, idempotency_key="k-1")).status in (400, 404)
    assert (await start(engine, {"policy": monthly}, idempotency_key="k-1")).status == 202


@pytest.mark.parametrize("key", ["x" * 256, "a\x01b"])
async def test_an_idempotency_key_has_bounds(storage: Storage, engine: Engine, monthly: str, key: str) -> None:
    assert (await start(engine, {"policy": monthly}, idempotency_key=key)).status == 400
    assert not engine.attempts


async def test_runs_are_listed_page_by_page_without_policies(storage: Storage) -> None:
    for day in range(3):
        await storage.runs.create(run(NOW + timedelta(days=day)))
    first = await call(runs.list_runs, query={"limit": "2"})
    rest = await call(runs.list_runs, query={"limit": "2", "cursor": first.json["cursor"]})
    listed = [*first.json["runs"], *rest.json["runs"]]
    assert rest.json["cursor"] is None
    assert [one["id"] for one in listed] == sorted((one["id"] for one in listed), reverse=True)
    assert len(listed) == 3
    assert all("policySnapshot" not in one for one in listed)


@pytest.mark.parametrize("query", [{"limit": text} for text in ("0", "-1", "1001", "x", "1e3", "٣", "99999999")])
async def test_a_limit_out_of_bounds_is_refused(storage: Storage, query: dict[str, str]) -> None:
    for function in (runs.list_runs, runs.list_run_machines):
        answer = await call(function, query=query, runId=run().id)
        assert answer.status == 400
        assert answer.paths == ["limit"]


async def test_a_cursor_of_somewhere_else_is_refused(storage: Storage) -> None:
    assert (await call(runs.list_runs, query={"cursor": "nonsense'"})).status == 400


async def test_a_live_run_is_counted_now_and_an_ended_one_is_as_it_was(storage: Storage) -> None:
    await storage.runs.create(run())
    await storage.machines.add(run().id, [machine(number) for number in range(3)])
    await storage.runs.start(run().id, NOW)
    await storage.machines.update(run().id, machine(0).key, Stage.INSTALLING)
    await storage.results.record_outcomes(run().id, [machine(1).key], Outcome.canceled(), NOW)
    live = await call(runs.get_run, runId=run().id)
    assert live.json["countsByStage"] == {"waiting": 1, "installing": 1, "done": 1}
    assert live.json["countsByOutcome"] == {"canceled": 1}
    assert live.json["machines"] == 3
    assert live.json["policySnapshot"]["name"] == "monthly"
    await storage.runs.close(run().id, RunState.COMPLETED, "", NOW)
    ended = await call(runs.get_run, runId=run().id)
    assert ended.json["state"] == "completed"
    assert "Retry-After" not in ended.headers


async def test_a_machine_shows_what_it_waits_for(storage: Storage) -> None:
    await storage.runs.create(run())
    await storage.machines.add(run().id, [machine(number) for number in range(3)])
    await storage.machines.update(run().id, machine(0).key, Stage.INSTALLING)
    await storage.results.record_outcomes(run().id, [machine(1).key], Outcome.canceled(), NOW)
    listed = (await call(runs.list_run_machines, runId=run().id)).json["machines"]
    waits = {one["name"]: one["waitingFor"] for one in listed}
    assert waits == {"vm-0": "", "vm-1": "", "vm-2": "its assessment"}
    one = await call(runs.get_run_machine, runId=run().id, machineKey=machine(2).key)
    assert one.json["waitingFor"] == "its assessment"
    await storage.runs.pause(run().id, Command(actor="ana", at=NOW))
    one = await call(runs.get_run_machine, runId=run().id, machineKey=machine(2).key)
    assert one.json["waitingFor"] == "the run, which is paused, to be resumed"


async def test_machines_are_listed_and_filtered(storage: Storage) -> None:
    await storage.runs.create(run())
    await storage.machines.add(run().id, [machine(number) for number in range(4)])
    await storage.results.record_assessment(run().id, machine(0).key, SUMMARY, [], NOW)
    await storage.results.record_outcomes(run().id, [machine(1).key], Outcome.canceled(), NOW)
    everything = await call(runs.list_run_machines, runId=run().id)
    assert len(everything.json["machines"]) == 4
    assert {one["assessment"]["criticalAndSecurity"] for one in everything.json["machines"] if one["assessment"]} == {2}
    canceled = await call(runs.list_run_machines, query={"outcome": "canceled"}, runId=run().id)
    assert [one["name"] for one in canceled.json["machines"]] == ["vm-1"]
    wrong = await call(runs.list_run_machines, query={"outcome": "broken' or 1 eq 1"}, runId=run().id)
    assert wrong.status == 400
    assert wrong.paths == ["outcome"]


async def test_a_machine_has_its_patches_and_no_operation_urls(storage: Storage) -> None:
    await storage.runs.create(run())
    await storage.machines.add(run().id, [machine(1)])
    patches = [PatchRecord(name="openssl", version="3"), PatchRecord(name="KB1", kb_id="1")]
    await storage.results.record_assessment(run().id, machine(1).key, SUMMARY, patches, NOW)
    url = "https://management.azure.com/subscriptions/x/op?c=SIGNATURE"
    body = {"maximumDuration": "PT2H", "rebootSetting": "Never"}
    assessed: dict[str, Any] = {"kind": OperationKind.ASSESS, "state": IntentState.ACCEPTED, "activity_id": "op"}
    await storage.intents.declare(intent(run().id, async_url=url, location_url=url, parameters=body))
    await storage.intents.declare(intent(run().id, **assessed))
    await storage.intents.declare(intent(run().id, 2))
    found = await call(runs.get_run_machine, runId=run().id, machineKey=machine(1).key)
    assert [
        (one["operation"], one["number"], one["state"], one["parameters"], one["activityId"])
        for one in found.json["attempts"]
    ] == [("assess", 1, "accepted", None, "op"), ("install", 1, "declared", body, "")]
    assert found.json["id"] == machine(1).id
    assert [patch["name"] for patch in found.json["patches"]] == ["openssl", "KB1"]
    everything = await call(runs.list_run_machines, runId=run().id)
    assert "SIGNATURE" not in found.text + everything.text


@pytest.mark.parametrize("run_id", ["20261110T190000Z-other", "nonsense", "../runs", "a'b", ""])
async def test_what_is_not_there_is_not_found(storage: Storage, engine: Engine, run_id: str) -> None:
    answers = [
        await call(runs.get_run, runId=run_id),
        await call(runs.list_run_machines, runId=run_id),
        await call(runs.get_run_machine, runId=run_id, machineKey="0" * 24),
    ]
    assert [answer.problem["status"] for answer in answers] == [404] * 3


@pytest.mark.parametrize("key", ["0" * 24, "i~x", "A" * 24, "../x", ""])
async def test_a_machine_of_another_key_is_not_found(storage: Storage, key: str) -> None:
    await storage.runs.create(run())
    await storage.machines.add(run().id, [machine(1)])
    assert (await call(runs.get_run_machine, runId=run().id, machineKey=key)).status == 404


async def test_a_run_that_cannot_be_read_is_named_beside_the_others(storage: Storage) -> None:
    kept, damaged = run(), run(NOW - timedelta(days=1))
    for one in (kept, damaged):
        await storage.runs.create(one)
    key = RunId.parse(damaged.id).row_key
    await storage._store.runs.merge("runs", key, {"state": "perhaps"})
    listed = (await call(runs.list_runs)).json
    assert ([each["id"] for each in listed["runs"]], listed["unreadable"]) == ([kept.id], [key])


async def test_a_policy_that_only_assesses_is_never_patched_by_request(storage: Storage, engine: Engine) -> None:
    policy = POLICY | {"mode": "assess"}
    by_itself = await start(engine, {"policy": policy})
    assert (by_itself.status, by_itself.json["mode"]) == (202, "assess")
    refused = await start(engine, {"policy": policy, "mode": "patch"})
    assert (refused.status, refused.paths) == (400, ["mode"])
    overridden = await start(engine, {"policy": policy, "overrides": {"mode": "patch"}})
    assert (overridden.status, overridden.json["mode"]) == (202, "patch")
    narrowed = await start(engine, {"policy": POLICY, "overrides": {"mode": "assess"}})
    assert (narrowed.status, narrowed.json["mode"]) == (202, "assess")
