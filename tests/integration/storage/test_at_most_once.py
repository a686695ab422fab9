"""Intents, leases, claims, policies and the audit log: the rows that decide who may act."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.machine.at_most_once import AtMostOnceRecord, GuardedCall
from patchwave.domain.runs.intent import IntentState
from patchwave.storage import PreconditionFailed, RecordTooLarge, Storage
from tests.support.factories import NOW, RUN, intent, machine

KEY = machine(1).key
HOUR = timedelta(hours=1)
SIGNED = (
    "https://management.azure.com/subscriptions/x/op/1?api-version=2025-04-01&t=638&c=MIIH%2b%3D&s=~'\"é&h="
    + "A" * 7900
)


async def test_an_intent_is_declared_once(storage: Storage) -> None:
    assert await storage.intents.get(RUN, KEY, OperationKind.INSTALL) is None
    assert await storage.intents.declare(intent(RUN)) == (intent(RUN), True)
    stored, created = await storage.intents.declare(intent(RUN, created_at=NOW + HOUR))
    assert (stored, created) == (intent(RUN), False)
    assert (await storage.intents.declare(intent(RUN, kind=OperationKind.ASSESS)))[1]


async def test_of_many_declarations_at_once_one_is_the_first(storage: Storage) -> None:
    answers = await asyncio.gather(*(storage.intents.declare(intent(RUN, attempt=n)) for n in range(1, 9)))
    assert sum(created for _, created in answers) == 1
    assert len({stored.attempt for stored, _ in answers}) == 1


async def test_an_intent_is_declared_again_by_one_execution(storage: Storage) -> None:
    refused = intent(RUN, state=IntentState.REFUSED)
    await storage.intents.declare(refused)
    anew = [intent(RUN, sent_at=NOW + n * HOUR, async_url=SIGNED) for n in range(1, 7)]
    taken = await asyncio.gather(*(storage.intents.redeclare(refused, each) for each in anew))
    assert sum(taken) == 1
    assert not await storage.intents.redeclare(refused, intent(RUN))
    assert await storage.intents.get(RUN, KEY, OperationKind.INSTALL) == anew[taken.index(True)]


async def test_operation_urls_are_kept_byte_for_byte(storage: Storage) -> None:
    await storage.intents.declare(intent(RUN))
    done = intent(RUN, accepted_at=NOW, async_url=SIGNED, location_url=SIGNED + "?x", activity_id="a-1", failed_polls=2)
    await storage.intents.save(done)
    assert await storage.intents.get(RUN, KEY, OperationKind.INSTALL) == done


async def test_a_machine_is_held_by_one_owner(storage: Storage) -> None:
    assert await storage.leases.acquire(KEY, "run-a", NOW, NOW + HOUR) == "run-a"
    assert await storage.leases.acquire(KEY, "run-b", NOW, NOW + HOUR) == "run-a"
    assert await storage.leases.acquire(KEY, "run-a", NOW, NOW + 2 * HOUR) == "run-a"
    # The lease was extended: the first expiry does not count any more, nor does a shorter one.
    assert await storage.leases.acquire(KEY, "run-a", NOW, NOW) == "run-a"
    assert await storage.leases.acquire(KEY, "run-b", NOW + HOUR, NOW + 3 * HOUR) == "run-a"


async def test_a_lease_that_ran_out_is_taken_over(storage: Storage) -> None:
    await storage.leases.acquire(KEY, "run-a", NOW, NOW + HOUR)
    assert await storage.leases.acquire(KEY, "run-b", NOW + HOUR, NOW + 2 * HOUR) == "run-b"
    await storage.leases.release(KEY, "run-a")
    assert await storage.leases.acquire(KEY, "run-c", NOW + HOUR, NOW + 2 * HOUR) == "run-b"


async def test_only_the_owner_releases(storage: Storage) -> None:
    await storage.leases.release(KEY, "run-a")
    await storage.leases.acquire(KEY, "run-a", NOW, NOW + HOUR)
    await storage.leases.release(KEY, "run-b")
    assert await storage.leases.acquire(KEY, "run-b", NOW, NOW + HOUR) == "run-a"
    await storage.leases.release(KEY, "run-a")
    assert await storage.leases.acquire(KEY, "run-b", NOW, NOW + HOUR) == "run-b"


@pytest.mark.parametrize("expired", [False, True])
async def test_of_many_runs_at_once_one_gets_the_machine(storage: Storage, expired: bool) -> None:
    if expired:
        await storage.leases.acquire(KEY, "dead", NOW - HOUR, NOW)
    owners = [f"run-{n}" for n in range(8)]
    holders = await asyncio.gather(*(storage.leases.acquire(KEY, one, NOW, NOW + HOUR) for one in owners))
    assert len(set(holders)) == 1
    assert holders[0] in owners


async def test_a_lease_is_not_history(storage: Storage) -> None:
    await storage.leases.acquire(KEY, "run-a", NOW, NOW + HOUR)
    assert (await storage.history.list_page(KEY, 10, None)).items == []


async def test_a_claim_binds_a_key_once(storage: Storage) -> None:
    awkward = "key/with\\every#odd?thing\n" + "é" * 3000
    assert await storage.idempotency.reserve("idempotency-key", awkward, "run-1", NOW) == ("run-1", True)
    assert await storage.idempotency.reserve("idempotency-key", awkward, "run-2", NOW) == ("run-1", False)
    assert await storage.idempotency.reserve("delivery", awkward, "run-2", NOW) == ("run-2", True)


async def test_of_many_claims_at_once_one_wins(storage: Storage) -> None:
    answers = await asyncio.gather(*(storage.idempotency.reserve("event", "id-1", f"run-{n}", NOW) for n in range(10)))
    assert sum(created for _, created in answers) == 1
    assert len({value for value, _ in answers}) == 1


async def test_the_audit_log_is_in_order_and_complete(storage: Storage) -> None:
    for minute in range(5):
        await storage.audit.add(RUN, "skipped", actor="run", at=NOW + timedelta(minutes=minute), detail={"n": minute})
    await storage.audit.add("monthly", "policy_changed", actor="ana", at=NOW)
    first = await storage.audit.list_page(RUN, 3, None)
    rest = await storage.audit.list_page(RUN, 3, first.cursor)
    assert [line["detail"]["n"] for line in [*first.items, *rest.items]] == [0, 1, 2, 3, 4]
    assert first.items[0]["action"] == "skipped"
    assert rest.cursor is None


async def test_the_same_line_of_the_same_moment_is_written_once(storage: Storage) -> None:
    for actor in ("ana", "ana", "ben"):
        await storage.audit.add(RUN, "started", actor=actor, at=NOW, detail={"mode": "patch"})
    assert sorted(line["actor"] for line in (await storage.audit.list_page(RUN, 10, None)).items) == ["ana", "ben"]


async def test_the_audit_log_holds_no_signature_and_no_token(storage: Storage) -> None:
    detail = {"url": SIGNED, "headers": ["Bearer abcdefghijkl", {"x": "https://a.b/c?code=SECRET"}]}
    await storage.audit.add(RUN, "started", actor="api?", at=NOW, detail=detail)
    [line] = (await storage.audit.list_page(RUN, 10, None)).items
    assert "api-version" not in str(line)
    assert "abcdefghijkl" not in str(line)
    assert "SECRET" not in str(line)
    assert line["detail"]["headers"][1] == {"x": "https://a.b/c?***"}


async def test_a_long_audit_detail_is_cut_with_a_marker(storage: Storage) -> None:
    await storage.audit.add(RUN, "started", actor="ana", at=NOW, detail={"ids": ["x" * 100] * 1000})
    [line] = (await storage.audit.list_page(RUN, 10, None)).items
    assert "[cut: " in line["detail"]


async def test_a_policy_is_versioned_and_its_etag_guards_it(storage: Storage) -> None:
    assert await storage.policies.get("monthly") is None
    first = await storage.policies.put("monthly", {"a": 1}, if_match=None, if_none_match=True, at=NOW)
    assert (first.name, first.version, first.document) == ("monthly", 1, {"a": 1})
    assert first.etag.startswith('"')
    assert await storage.policies.get("monthly") == first
    with pytest.raises(PreconditionFailed):
        await storage.policies.put("monthly", {"a": 2}, if_match=None, if_none_match=True, at=NOW)
    second = await storage.policies.put("monthly", {"a": 2}, if_match=first.etag, if_none_match=False, at=NOW + HOUR)
    assert second.version == 2
    with pytest.raises(PreconditionFailed):
        await storage.policies.put("monthly", {"a": 3}, if_match=first.etag, if_none_match=False, at=NOW)
    third = await storage.policies.put("monthly", {"a": 3}, if_match="*", if_none_match=False, at=NOW)
    fourth = await storage.policies.put("monthly", {"a": 4}, if_match=None, if_none_match=False, at=NOW)
    assert (third.version, fourth.version) == (3, 4)
    with pytest.raises(PreconditionFailed):
        await storage.policies.delete("monthly", if_match=third.etag)
    assert await storage.policies.delete("monthly", if_match=f'"other", {fourth.etag}')
    assert not await storage.policies.delete("monthly", if_match=None)
    with pytest.raises(PreconditionFailed):
        await storage.policies.put("monthly", {"a": 5}, if_match="*", if_none_match=False, at=NOW)


async def test_a_policy_that_is_created_again_has_another_etag(storage: Storage) -> None:
    first = await storage.policies.put("monthly", {"a": 1}, if_match=None, if_none_match=False, at=NOW)
    await storage.policies.delete("monthly", if_match=None)
    again = await storage.policies.put("monthly", {"a": 1}, if_match=None, if_none_match=False, at=NOW + HOUR)
    assert again.version == first.version
    assert again.etag != first.etag


async def test_of_many_changes_with_one_etag_one_happens(storage: Storage) -> None:
    first = await storage.policies.put("monthly", {"n": 0}, if_match=None, if_none_match=False, at=NOW)

    async def change(n: int) -> bool:
        try:
            await storage.policies.put("monthly", {"n": n}, if_match=first.etag, if_none_match=False, at=NOW)
        except PreconditionFailed:
            return False
        return True

    assert sum(await asyncio.gather(*(change(n) for n in range(1, 7)))) == 1
    stored = await storage.policies.get("monthly")
    assert stored
    assert stored.version == 2


async def test_policies_are_listed_by_name_and_large_ones_kept_whole(storage: Storage) -> None:
    large = {"ids": [f"/subscriptions/{n:0100d}" for n in range(1500)]}
    await storage.policies.put("weekly", large, if_match=None, if_none_match=False, at=NOW)
    await storage.policies.put("canary", {}, if_match=None, if_none_match=False, at=NOW)
    found = await storage.policies.list_all()
    assert [one.name for one in found] == ["canary", "weekly"]
    assert found[1].document == large
    # A smaller document leaves nothing of the larger one behind.
    await storage.policies.put("weekly", {"ids": []}, if_match=None, if_none_match=False, at=NOW)
    stored = await storage.policies.get("weekly")
    assert stored
    assert stored.document == {"ids": []}
    with pytest.raises(RecordTooLarge):
        await storage.policies.put("weekly", {"x": "é" * 500_000}, if_match=None, if_none_match=False, at=NOW)


def guard(**changes: Any) -> AtMostOnceRecord:
    fields: dict[str, Any] = {
        "run_id": RUN,
        "machine_key": KEY,
        "call": GuardedCall.BEFORE_SCRIPT,
        "token": "mine",
        "created_at": NOW,
        "deadline_at": NOW + HOUR,
    }
    return AtMostOnceRecord(**{**fields, **changes})


async def test_of_many_executions_one_declares_the_guard(storage: Storage) -> None:
    tokens = [f"token-{number}" for number in range(8)]
    stored = await asyncio.gather(*(storage.at_most_once.declare(guard(token=token)) for token in tokens))
    assert len({one.token for one in stored}) == 1
    # The answer to the first insert may be lost: a repeated call finds its own row.
    again = await storage.at_most_once.declare(guard(token=stored[0].token))
    assert again.token == stored[0].token
    assert (await storage.at_most_once.declare(guard(call=GuardedCall.AFTER_SCRIPT, token="other"))).token == "other"


async def test_a_guard_keeps_its_urls_byte_for_byte(storage: Storage) -> None:
    await storage.at_most_once.declare(guard())
    done = guard(state=IntentState.ACCEPTED, async_url=SIGNED, location_url=SIGNED + "?x", ended_at=NOW, failure="why")
    await storage.at_most_once.save(done)
    assert await storage.at_most_once.get(RUN, KEY, GuardedCall.BEFORE_SCRIPT) == done
    assert await storage.at_most_once.get(RUN, KEY, GuardedCall.RESTART) is None


async def test_a_refused_call_is_declared_anew_by_one_execution(storage: Storage) -> None:
    refused = guard(state=IntentState.REFUSED)
    await storage.at_most_once.declare(refused)
    taken = await asyncio.gather(
        *(storage.at_most_once.redeclare(refused, guard(token=f"token-{n}")) for n in range(6))
    )
    assert sum(taken) == 1
    assert not await storage.at_most_once.redeclare(refused, guard(token="late"))
    stored = await storage.at_most_once.get(RUN, KEY, GuardedCall.BEFORE_SCRIPT)
    assert stored is not None
    assert (stored.state, stored.token) == (IntentState.DECLARED, f"token-{taken.index(True)}")
