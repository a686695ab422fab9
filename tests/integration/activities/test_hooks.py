"""take_snapshot and run_script on real records and the simulator: once per run and machine, whatever goes wrong."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from activities import script
from activities.script import run_script
from activities.snapshot import take_snapshot
from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.outcome import OutcomeKind, Reason
from patchwave.domain.machine.at_most_once import AtMostOnceRecord, GuardedCall
from patchwave.domain.machine.hooks import HookResult, HookState, ScriptRequest, When
from patchwave.domain.machine.snapshot import snapshot_of
from patchwave.domain.runs.intent import IntentState
from patchwave.domain.runs.machine_record import Stage
from patchwave.domain.workflow.machine import MachineRef
from patchwave.settings import load_settings
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.factories import command
from tests.support.hook_calls import REFUSALS, Json, fault, finish, prepare, row, sent
from tests.support.simulated_azure import azure
from tests.support.simulated_run import AT, RUN_ID
from tests.support.simulator import SUBSCRIPTION, Simulator

__all__ = ["azure"]

LINUX = {"linux": ["echo hello"], "timeout": "PT5M"}
BOTH = {"linux": "exit 0", "windows": "exit 0"}


def snapshot_request(key: str) -> MachineRef:
    return MachineRef(run_id=RUN_ID, machine_key=key)


def script_request(key: str, when: When = When.BEFORE, outcome: OutcomeKind | None = None) -> ScriptRequest:
    return ScriptRequest(run_id=RUN_ID, machine_key=key, when=when, outcome=outcome)


def message(result: HookResult) -> str:
    assert result.outcome is not None
    return result.outcome.message


# --- snapshots


async def test_the_snapshot_is_taken_and_its_use_is_explained(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take()
    key = await prepare(storage, one, {"snapshot": {"keep": "PT48H"}})
    result = await finish(services, take_snapshot, snapshot_request(key))
    assert result.state is HookState.DONE
    machine = await row(storage, key)
    snapshot = snapshot_of(RUN_ID, MachineId.parse(one), None)
    assert machine.snapshot_id == snapshot.text
    assert f"--source {snapshot.text}" in machine.rollback_instructions
    assert (
        f"az vm update --subscription {SUBSCRIPTION} -g rg-sim -n {machine.name} --os-disk "
        in machine.rollback_instructions
    )
    assert machine.stage is Stage.ASSESSED
    shown = azure.http.get(snapshot.text, params={"api-version": "2025-01-02"}).json()
    assert shown["properties"]["incremental"] is True
    assert shown["properties"]["networkAccessPolicy"] == "DenyAll"
    assert shown["tags"]["patchwave-run"] == RUN_ID
    expires = datetime.fromisoformat(shown["tags"]["patchwave-expires"])
    assert timedelta(hours=47) < expires - datetime.now(UTC) <= timedelta(hours=48)


async def test_a_repeated_call_takes_no_second_snapshot(services: Services, azure: Simulator, storage: Storage) -> None:
    one = azure.take()
    key = await prepare(storage, one, {"snapshot": {}})
    answers = await asyncio.gather(*(take_snapshot(services, snapshot_request(key)) for _ in range(3)))
    assert {answer.state for answer in answers} <= {HookState.WAIT, HookState.DONE}
    await finish(services, take_snapshot, snapshot_request(key))
    await finish(services, take_snapshot, snapshot_request(key))
    name = snapshot_of(RUN_ID, MachineId.parse(one), None).name
    listed = azure.http.get(
        f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/snapshots", params={"api-version": "2025-01-02"}
    ).json()["value"]
    assert [each["name"] for each in listed if one.rsplit("/", 1)[1] in each["name"]] == [name]


@pytest.mark.parametrize("effect", [{"drop": "after"}, {"drop": "before"}, {"status": 503}, {"status": 429}])
async def test_a_lost_or_passing_refusal_is_made_good(
    services: Services, azure: Simulator, storage: Storage, effect: Json
) -> None:
    one = azure.take()
    key = await prepare(storage, one, {"snapshot": {}})
    name = snapshot_of(RUN_ID, MachineId.parse(one), None).name
    fault(azure, {"match": {"method": "PUT", "path": f"*{name}"}, "times": 1, "effect": effect})
    assert (await finish(services, take_snapshot, snapshot_request(key))).state is HookState.DONE
    assert (await row(storage, key)).rollback_instructions


@pytest.mark.parametrize(
    ("simulation", "words"),
    [({"snapshotFails": True}, "Failed"), ({"forbidden": True}, "AuthorizationFailed"), ({"gone": True}, "not found")],
)
async def test_without_a_snapshot_the_machine_is_skipped(
    services: Services, azure: Simulator, storage: Storage, simulation: Json, words: str
) -> None:
    key = await prepare(storage, azure.take(**simulation), {"snapshot": {}})
    result = await finish(services, take_snapshot, snapshot_request(key))
    assert result.outcome is not None
    assert (result.state, result.outcome.reason) == (HookState.FAILED, Reason.HOOK_FAILED)
    assert words in result.outcome.message
    assert not (await row(storage, key)).rollback_instructions


async def test_a_foreign_snapshot_is_not_taken_for_ours(services: Services, azure: Simulator, storage: Storage) -> None:
    one = azure.take()
    key = await prepare(storage, one, {"snapshot": {}})
    disk = azure.machine(one)["properties"]["storageProfile"]["osDisk"]["managedDisk"]["id"]
    body = {"location": "westeurope", "properties": {"creationData": {"sourceResourceId": disk}}}
    address = snapshot_of(RUN_ID, MachineId.parse(one), None).text
    azure.http.put(address, params={"api-version": "2025-01-02"}, json=body)
    result = await finish(services, take_snapshot, snapshot_request(key))
    assert result.state is HookState.FAILED
    assert "this run did not take" in message(result)


async def test_without_a_snapshot_hook_nothing_is_requested(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take()
    key = await prepare(storage, one, {"before": LINUX})
    assert (await finish(services, take_snapshot, snapshot_request(key))).state is HookState.DONE
    assert sent(azure, "read", "GET", one) == []


# --- what keeps the installation back keeps hooks back


async def both_end(services: Services, key: str) -> list[HookResult]:
    """How both hooks end that were not begun."""
    return [
        await finish(services, take_snapshot, snapshot_request(key)),
        await finish(services, run_script, script_request(key)),
    ]


def reasons(results: list[HookResult]) -> set[str]:
    return {result.outcome.reason.value if result.outcome else result.state.value for result in results}


async def test_a_machine_of_another_run(services: Services, azure: Simulator, storage: Storage) -> None:
    key = await prepare(storage, azure.take(), {"snapshot": {}, "before": BOTH})
    await storage.leases.acquire(key, "another-run", datetime.now(UTC), datetime.now(UTC) + timedelta(hours=1))
    assert reasons(await both_end(services, key)) == {Reason.LOCKED_BY_RUN}


async def test_a_cancelled_run(services: Services, azure: Simulator, storage: Storage) -> None:
    key = await prepare(storage, azure.take(), {"snapshot": {}, "before": BOTH})
    await storage.runs.cancel(RUN_ID, command(at=AT))
    assert reasons(await both_end(services, key)) == {Reason.CANCELED_BY_USER}


async def test_a_run_that_is_cancelled_while_a_script_runs(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    key = await prepare(storage, azure.take(scriptMinutes=100_000), {"before": BOTH})
    assert (await run_script(services, script_request(key))).state is HookState.WAIT
    await storage.runs.cancel(RUN_ID, command(at=AT))
    assert reasons([await finish(services, run_script, script_request(key))]) == {Reason.CANCELED_BY_USER}


async def test_a_paused_run(services: Services, azure: Simulator, storage: Storage) -> None:
    one = azure.take()
    key = await prepare(storage, one, {"snapshot": {}, "before": BOTH})
    await storage.runs.pause(RUN_ID, command(at=AT))
    assert reasons(await both_end(services, key)) == {"requeued"}
    await storage.runs.resume(RUN_ID, command(at=AT))
    assert reasons(await both_end(services, key)) == {"done"}


@pytest.mark.parametrize(("continues", "reason"), [(True, "requeued"), (False, "window_closed")])
async def test_a_window_that_is_over(
    services: Services, azure: Simulator, storage: Storage, continues: bool, reason: str
) -> None:
    key = await prepare(
        storage, azure.take(), {"snapshot": {}, "before": BOTH}, window_end=datetime.now(UTC), continues=continues
    )
    assert reasons(await both_end(services, key)) == {reason}


# --- scripts


async def test_a_script_runs_and_what_it_printed_is_kept(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take_system("Linux")
    key = await prepare(storage, one, {"before": LINUX})
    assert (await finish(services, run_script, script_request(key))).state is HookState.DONE
    assert (await row(storage, key)).pre_script_output == "hello"
    [request] = sent(azure, "script", "POST", one)
    assert request["body"]["commandId"] == "RunShellScript"
    assert f"export PATCHWAVE_RUN={RUN_ID}" in request["body"]["script"]
    assert f"export PATCHWAVE_MACHINE={one.rsplit('/', 1)[1]}" in request["body"]["script"]


@pytest.mark.parametrize("os_type", ["Linux", "Windows"])
async def test_a_failed_script_skips_the_machine(
    services: Services, azure: Simulator, storage: Storage, os_type: str
) -> None:
    key = await prepare(storage, azure.take_system(os_type, scriptExit=3), {"before": BOTH})
    result = await finish(services, run_script, script_request(key))
    assert result.outcome is not None
    assert (result.outcome.outcome, result.outcome.reason) == (OutcomeKind.SKIPPED, Reason.HOOK_FAILED)
    assert "exit code 3" in result.outcome.message


async def test_a_failed_post_script_is_a_warning(services: Services, azure: Simulator, storage: Storage) -> None:
    one = azure.take_system("Linux", scriptExit=3)
    key = await prepare(storage, one, {"before": LINUX | {"onFailure": "continue"}})
    assert (await finish(services, run_script, script_request(key))).state is HookState.DONE
    assert "exit code 3" in (await row(storage, key)).pre_script_output


async def test_the_post_script_gets_the_outcome_and_runs_in_a_cancelled_run(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take_system("Linux")
    key = await prepare(storage, one, {"after": LINUX})
    await storage.runs.cancel(RUN_ID, command(at=AT))
    assert (
        await finish(services, run_script, script_request(key, When.AFTER, OutcomeKind.FAILED))
    ).state is HookState.DONE
    [request] = sent(azure, "script", "POST", one)
    assert "export PATCHWAVE_OUTCOME=failed" in request["body"]["script"]
    assert (await row(storage, key)).post_script_output == "hello"


async def test_the_lock_lasts_while_the_second_script_runs(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    key = await prepare(storage, azure.take_system("Linux"), {"after": LINUX})
    at = datetime.now(UTC)
    await run_script(services, script_request(key, When.AFTER, OutcomeKind.PATCHED))
    assert await storage.leases.held([key], RUN_ID, at + timedelta(hours=2)) == {key}


async def test_a_repeated_call_sends_a_script_once(services: Services, azure: Simulator, storage: Storage) -> None:
    one = azure.take_system("Linux", scriptMinutes=10)
    key = await prepare(storage, one, {"before": LINUX})
    await asyncio.gather(*(run_script(services, script_request(key)) for _ in range(5)))
    assert (await finish(services, run_script, script_request(key))).state is HookState.DONE
    assert (await finish(services, run_script, script_request(key))).state is HookState.DONE
    assert len(sent(azure, "script", "POST", one)) == 1


@pytest.mark.parametrize(
    "effect", [{"drop": "after"}, {"drop": "before"}, {"status": 503}, {"status": 500, "accept": True}]
)
async def test_a_script_with_an_unknown_fate_is_not_sent_again(
    services: Services, azure: Simulator, storage: Storage, effect: Json
) -> None:
    one = azure.take_system("Linux")
    key = await prepare(storage, one, {"before": LINUX})
    fault(azure, {"match": {"machine": one, "operation": "script"}, "times": 1, "effect": effect})
    for _ in range(2):
        result = await finish(services, run_script, script_request(key))
        assert result.state is HookState.FAILED
        assert "never run twice" in message(result)
    assert len(sent(azure, "script", "POST", one)) == 1


async def test_an_execution_that_died_after_its_guard_is_not_repeated(
    services: Services, azure: Simulator, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = azure.take_system("Linux")
    key = await prepare(storage, one, {"before": LINUX})
    at = datetime.now(UTC)
    await storage.at_most_once.declare(
        AtMostOnceRecord(
            run_id=RUN_ID,
            machine_key=key,
            call=GuardedCall.BEFORE_SCRIPT,
            token="of-the-dead",
            created_at=at,
            deadline_at=at + timedelta(hours=1),
        )
    )
    result = await run_script(services, script_request(key))
    assert (result.state, result.counts_as_attempt) == (HookState.WAIT, False), (
        "it may be about to write down the answer"
    )
    monkeypatch.setattr(script, "now", lambda: at + timedelta(minutes=4))
    result = await run_script(services, script_request(key))
    assert result.state is HookState.FAILED
    assert sent(azure, "script", "POST", one) == []


async def test_a_refusal_that_passes_is_tried_again(services: Services, azure: Simulator, storage: Storage) -> None:
    one = azure.take_system("Linux")
    key = await prepare(storage, one, {"before": LINUX})
    busy = {"error": {"code": "Conflict", "message": "Run command extension execution is in progress."}}
    rule = {"match": {"machine": one, "operation": "script"}, "times": 2, "effect": {"status": 409, "body": busy}}
    fault(azure, rule)
    first = await run_script(services, script_request(key))
    assert (first.state, first.counts_as_attempt) == (HookState.WAIT, True)
    assert "in progress" in message(first)
    assert (await finish(services, run_script, script_request(key))).state is HookState.DONE
    assert len(sent(azure, "script", "POST", one)) == 3


async def test_a_refusal_for_good_fails_at_once(services: Services, azure: Simulator, storage: Storage) -> None:
    key = await prepare(storage, azure.take_system("Linux", forbidden=True), {"before": LINUX})
    result = await run_script(services, script_request(key))
    assert result.state is HookState.FAILED
    assert "AuthorizationFailed" in message(result)


async def test_a_script_that_runs_too_long_times_out(
    services: Services, azure: Simulator, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = azure.take_system("Linux", scriptMinutes=100_000)
    key = await prepare(storage, one, {"before": LINUX})
    at = datetime.now(UTC)
    waits: list[float] = []
    for minutes in (0, 1, 9):
        monkeypatch.setattr(script, "now", lambda minutes=minutes: at + timedelta(minutes=minutes))
        result = await run_script(services, script_request(key))
        assert (result.state, result.counts_as_attempt) == (HookState.WAIT, False)
        waits.append(result.wait_seconds)
    assert waits == sorted(waits), "the longer it takes, the longer the waits"
    assert waits[-1] > 50
    monkeypatch.setattr(script, "now", lambda: at + timedelta(minutes=10))
    result = await run_script(services, script_request(key))
    assert result.state is HookState.FAILED
    assert "did not end within PT5M" in message(result)


async def test_a_lost_operation_of_a_script_has_an_unknown_result(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take_system("Linux", scriptMinutes=10)
    key = await prepare(storage, one, {"before": LINUX})
    await run_script(services, script_request(key))
    rule = {
        "match": {"machine": one, "operation": "poll"},
        "times": 1,
        "effect": {"loseOperation": True, "status": 404},
    }
    fault(azure, rule)
    result = await finish(services, run_script, script_request(key))
    assert result.state is HookState.FAILED
    assert "It is not known" in message(result)


async def test_the_result_behind_the_other_url_is_as_good(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take_system("Linux", scriptExit=4)
    key = await prepare(storage, one, {"before": LINUX})
    without = {"headers": {"Azure-AsyncOperation": None}}
    fault(azure, {"match": {"machine": one, "operation": "script"}, "times": 1, "effect": without})
    result = await finish(services, run_script, script_request(key))
    assert "exit code 4" in message(result)


async def test_a_url_that_leads_elsewhere_is_not_followed(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take_system("Linux")
    key = await prepare(storage, one, {"before": LINUX})
    elsewhere = {"headers": {"Azure-AsyncOperation": "https://example.org/subscriptions/x/operations/1"}}
    fault(azure, {"match": {"machine": one, "operation": "script"}, "times": 1, "effect": elsewhere})
    result = await finish(services, run_script, script_request(key))
    assert "not on the Resource Manager host" in message(result)


async def test_polls_that_fail_for_a_while_do_no_harm(services: Services, azure: Simulator, storage: Storage) -> None:
    one = azure.take_system("Linux")
    key = await prepare(storage, one, {"before": LINUX})
    await run_script(services, script_request(key))
    for effect in ({"status": 500}, {"status": 429}, {"status": 200, "body": "<html>"}):
        fault(azure, {"match": {"machine": one, "operation": "poll"}, "times": 2, "effect": effect})
    assert (await finish(services, run_script, script_request(key))).state is HookState.DONE


async def test_polls_that_fail_for_ever_end_with_an_unknown_result(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take_system("Linux")
    key = await prepare(storage, one, {"before": LINUX})
    await run_script(services, script_request(key))
    fault(azure, {"match": {"machine": one, "operation": "poll"}, "effect": {"status": 500}})
    result = await finish(services, run_script, script_request(key))
    assert "It is not known" in message(result)
    assert len(sent(azure, "poll", "GET", "/operations/")) >= script.MAX_UNCLEAR_POLLS


@pytest.mark.parametrize("setting", ["PATCHWAVE_SCRIPTS", "PATCHWAVE_AUTHORIZATION"])
async def test_scripts_are_off_by_default(
    services: Services, azure: Simulator, storage: Storage, monkeypatch: pytest.MonkeyPatch, setting: str
) -> None:
    """However the policy came in, also before the settings were changed."""
    one = azure.take_system("Linux")
    key = await prepare(storage, one, {"before": LINUX})
    monkeypatch.delenv(setting)
    load_settings.cache_clear()
    result = await finish(services, run_script, script_request(key))
    assert result.state is HookState.FAILED
    assert setting in message(result)
    assert sent(azure, "script", "POST", one) == []


async def test_a_system_without_a_script_has_nothing_to_run(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take_system("Windows")
    key = await prepare(storage, one, {"before": LINUX})
    assert (await finish(services, run_script, script_request(key))).state is HookState.DONE
    assert sent(azure, "script", "POST", one) == []


async def test_signed_urls_stay_in_the_guard(services: Services, azure: Simulator, storage: Storage) -> None:
    one = azure.take_system("Linux", scriptMinutes=5)
    key = await prepare(storage, one, {"before": LINUX})
    answer = await run_script(services, script_request(key))
    assert "http" not in repr(answer)
    guard = await storage.at_most_once.get(RUN_ID, key, GuardedCall.BEFORE_SCRIPT)
    assert guard is not None
    assert guard.state is IntentState.ACCEPTED
    assert len(guard.async_url) > 3_000
    await finish(services, run_script, script_request(key))
    assert "http" not in repr(await row(storage, key))


# --- a script whose refusal may follow an acceptance


_BUSY = {"status": 409, "body": {"error": {"code": "Conflict", "message": "Run command execution is in progress."}}}
_THROTTLED = {"status": 429, "headers": {"Retry-After": "0"}}


@pytest.mark.parametrize("answer", [_BUSY, _THROTTLED], ids=["409", "429"])
async def test_a_script_that_azure_took_and_refused_at_once_runs_once(
    services: Services, azure: Simulator, storage: Storage, answer: Json
) -> None:
    one = azure.take_system("Linux")
    key = await prepare(storage, one, {"before": LINUX})
    rule = {"match": {"machine": one, "operation": "script"}, "times": 1, "effect": answer | {"accept": True}}
    fault(azure, rule)
    for _ in range(2):
        result = await finish(services, run_script, script_request(key))
        assert result.state is HookState.FAILED
        assert "never run twice" in message(result)
        assert f"HTTP {answer['status']}" in message(result)
    assert len(sent(azure, "script", "POST", one)) == 1


@pytest.mark.parametrize("answer", [_BUSY, _THROTTLED], ids=["409", "429"])
async def test_a_script_that_azure_did_not_take_is_sent_again_once_the_machine_shows_nothing_of_it(
    services: Services, azure: Simulator, storage: Storage, answer: Json
) -> None:
    one = azure.take_system("Linux")
    key = await prepare(storage, one, {"before": LINUX})
    fault(azure, {"match": {"machine": one, "operation": "script"}, "times": 1, "effect": answer})
    at = datetime.now(UTC)
    assert (await finish(services, run_script, script_request(key))).state is HookState.DONE
    assert datetime.now(UTC) - at > timedelta(seconds=0.2), "four poll intervals"
    assert (await row(storage, key)).pre_script_output == "hello"
    assert len(sent(azure, "script", "POST", one)) == 2


async def test_a_machine_with_another_command_is_not_sent_a_script(
    services: Services, azure: Simulator, storage: Storage
) -> None:
    one = azure.take_system("Linux", scriptMinutes=20)
    key = await prepare(storage, one, {"before": LINUX})
    azure.post(one, "runCommand", {"commandId": "RunShellScript", "script": ["echo of another"]})
    first = await run_script(services, script_request(key))
    assert (first.state, first.counts_as_attempt) == (HookState.WAIT, True)
    assert "another operation" in message(first)
    assert len(sent(azure, "script", "POST", one)) == 1, "the other one"
    assert await storage.at_most_once.get(RUN_ID, key, GuardedCall.BEFORE_SCRIPT) is None
    assert (await finish(services, run_script, script_request(key))).state is HookState.DONE
    assert (await row(storage, key)).pre_script_output == "hello"


@pytest.mark.parametrize(("effect", "named"), REFUSALS, ids=["lock", "policy"])
async def test_a_script_that_is_refused_for_good_is_not_sent_again(
    services: Services, azure: Simulator, storage: Storage, effect: Json, named: str
) -> None:
    one = azure.take_system("Linux")
    key = await prepare(storage, one, {"before": LINUX})
    fault(azure, {"match": {"machine": one, "operation": "script"}, "effect": effect})
    result = await finish(services, run_script, script_request(key))
    assert result.state is HookState.FAILED
    assert named in message(result).partition(" (HTTP ")[0], "the sentence names it, not only the text of Azure"
    assert len(sent(azure, "script", "POST", one)) == 1


@pytest.mark.parametrize(("effect", "named"), REFUSALS, ids=["lock", "policy"])
async def test_a_finally_refused_snapshot_is_not_requested_again(
    services: Services, azure: Simulator, storage: Storage, effect: Json, named: str
) -> None:
    one = azure.take()
    key = await prepare(storage, one, {"snapshot": {}})
    name = snapshot_of(RUN_ID, MachineId.parse(one), None).name
    fault(azure, {"match": {"method": "PUT", "path": f"*{name}"}, "effect": effect})
    result = await finish(services, take_snapshot, snapshot_request(key))
    assert result.state is HookState.FAILED
    assert named in message(result).partition(" (HTTP ")[0]
    assert len(sent(azure, "snapshot", "PUT", name)) == 1


async def test_a_failure_ends_with_one_full_stop(services: Services, azure: Simulator, storage: Storage) -> None:
    one = azure.take()
    key = await prepare(storage, one, {"snapshot": {}})
    error = {"error": {"code": "ResourceGroupNotFound", "message": "Resource group 'rg' could not be found."}}
    name = snapshot_of(RUN_ID, MachineId.parse(one), None).name
    fault(azure, {"match": {"method": "PUT", "path": f"*{name}"}, "effect": {"status": 404, "body": error}})
    told = message(await finish(services, take_snapshot, snapshot_request(key)))
    assert told == (
        "No snapshot could be taken: HTTP 404 ResourceGroupNotFound: Resource group 'rg' could not be found."
    )


@pytest.mark.parametrize("is_taken", [True, False], ids=["taken", "not taken"])
@pytest.mark.parametrize("answer", [_BUSY, _THROTTLED, {"status": 503}, None], ids=["409", "429", "503", "none"])
async def test_a_snapshot_is_taken_once_whatever_azure_answers(
    services: Services, azure: Simulator, storage: Storage, answer: Json | None, is_taken: bool
) -> None:
    one = azure.take()
    key = await prepare(storage, one, {"snapshot": {}})
    name = snapshot_of(RUN_ID, MachineId.parse(one), None).name
    effect = {"drop": "after" if is_taken else "before"} if answer is None else answer | {"accept": is_taken}
    fault(azure, {"match": {"method": "PUT", "path": f"*{name}"}, "times": 1, "effect": effect})
    assert (await finish(services, take_snapshot, snapshot_request(key))).state is HookState.DONE
    listed = azure.http.get(
        f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/snapshots", params={"api-version": "2025-01-02"}
    ).json()["value"]
    assert [each["name"] for each in listed if each["name"] == name] == [name]
    if answer is not None:
        # Where the connection broke, the transport itself repeats a PUT, which changes nothing.
        assert len(sent(azure, "snapshot", "PUT", name)) == (1 if is_taken else 2)
