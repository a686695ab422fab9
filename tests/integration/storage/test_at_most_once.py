"""Intents, leases, claims, policies and the audit log: the rows that decide who may act."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.machine.at_most_once import Guard, GuardedCall
from patchwave.domain.runs.intent import IntentState
from patchwave.storage import PreconditionFailed, Records, RecordTooLarge
from tests.support.factories import NOW, intent, machine

RUN = "20261110T190000Z-monthly"
KEY = machine(1).key
HOUR = timedelta(hours=1)
SIGNED = (
    "https://management.azure.com/subscriptions/x/op/1?api-version=2025-04-01&t=638&c=MIIH%2b%3D&s=~'\"é&h="
    + "A" * 7900
)


async def test_an_intent_is_declared_once(records: Records) -> None:
    assert await records.get_intent(RUN, KEY, OperationKind.INSTALL) is None
    assert await records.declare_intent(intent(RUN)) == (intent(RUN), True)
    stored, created = await records.declare_intent(intent(RUN, created_at=NOW + HOUR))
    assert (stored, created) == (intent(RUN), False)
    assert (await records.declare_intent(intent(RUN, kind=OperationKind.ASSESS)))[1]


async def test_of_many_declarations_at_once_one_is_the_first(records: Records) -> None:
    answers = await asyncio.gather(*(records.declare_intent(intent(RUN, attempt=n)) for n in range(1, 9)))
    assert sum(created for _, created in answers) == 1
    assert len({stored.attempt for stored, _ in answers}) == 1


async def test_an_intent_is_declared_again_by_one_execution(records: Records) -> None:
    refused = intent(RUN, state=IntentState.REFUSED)
    await records.declare_intent(refused)
    anew = [intent(RUN, sent_at=NOW + n * HOUR, async_url=SIGNED) for n in range(1, 7)]
    taken = await asyncio.gather(*(records.declare_again(refused, each) for each in anew))
    assert sum(taken) == 1
    assert not await records.declare_again(refused, intent(RUN))
    assert await records.get_intent(RUN, KEY, OperationKind.INSTALL) == anew[taken.index(True)]


async def test_operation_urls_are_kept_byte_for_byte(records: Records) -> None:
    await records.declare_intent(intent(RUN))
    done = intent(RUN, accepted_at=NOW, async_url=SIGNED, location_url=SIGNED + "?x", activity_id="a-1", failed_polls=2)
    await records.save_intent(done)
    assert await records.get_intent(RUN, KEY, OperationKind.INSTALL) == done


async def test_a_machine_is_held_by_one_owner(records: Records) -> None:
    assert await records.acquire_lease(KEY, "run-a", NOW, NOW + HOUR) == "run-a"
    assert await records.acquire_lease(KEY, "run-b", NOW, NOW + HOUR) == "run-a"
    assert await records.acquire_lease(KEY, "run-a", NOW, NOW + 2 * HOUR) == "run-a"
    # The lease was extended: the first expiry does not count any more, nor does a shorter one.
    assert await records.acquire_lease(KEY, "run-a", NOW, NOW) == "run-a"
    assert await records.acquire_lease(KEY, "run-b", NOW + HOUR, NOW + 3 * HOUR) == "run-a"


async def test_a_lease_that_ran_out_is_taken_over(records: Records) -> None:
    await records.acquire_lease(KEY, "run-a", NOW, NOW + HOUR)
    assert await records.acquire_lease(KEY, "run-b", NOW + HOUR, NOW + 2 * HOUR) == "run-b"
    await records.release_lease(KEY, "run-a")
    assert await records.acquire_lease(KEY, "run-c", NOW + HOUR, NOW + 2 * HOUR) == "run-b"


async def test_only_the_owner_releases(records: Records) -> None:
    await records.release_lease(KEY, "run-a")
    await records.acquire_lease(KEY, "run-a", NOW, NOW + HOUR)
    await records.release_lease(KEY, "run-b")
    assert await records.acquire_lease(KEY, "run-b", NOW, NOW + HOUR) == "run-a"
    await records.release_lease(KEY, "run-a")
    assert await records.acquire_lease(KEY, "run-b", NOW, NOW + HOUR) == "run-b"


@pytest.mark.parametrize("expired", [False, True])
async def test_of_many_runs_at_once_one_gets_the_machine(records: Records, expired: bool) -> None:
    if expired:
        await records.acquire_lease(KEY, "dead", NOW - HOUR, NOW)
    owners = [f"run-{n}" for n in range(8)]
    holders = await asyncio.gather(*(records.acquire_lease(KEY, one, NOW, NOW + HOUR) for one in owners))
    assert len(set(holders)) == 1
    assert holders[0] in owners


async def test_a_lease_is_not_history(records: Records) -> None:
    await records.acquire_lease(KEY, "run-a", NOW, NOW + HOUR)
    assert (await records.machine_history(KEY, 10, None)).items == []


async def test_a_claim_binds_a_key_once(records: Records) -> None:
    awkward = "key/with\\every#odd?thing\n" + "é" * 3000
    assert await records.claim("idempotency-key", awkward, "run-1", NOW) == ("run-1", True)
    assert await records.claim("idempotency-key", awkward, "run-2", NOW) == ("run-1", False)
    assert await records.claim("delivery", awkward, "run-2", NOW) == ("run-2", True)


async def test_of_many_claims_at_once_one_wins(records: Records) -> None:
    answers = await asyncio.gather(*(records.claim("event", "id-1", f"run-{n}", NOW) for n in range(10)))
    assert sum(created for _, created in answers) == 1
    assert len({value for value, _ in answers}) == 1


async def test_the_audit_log_is_in_order_and_complete(records: Records) -> None:
    for minute in range(5):
        await records.audit(RUN, "skipped", by="run", at=NOW + timedelta(minutes=minute), detail={"n": minute})
    await records.audit("monthly", "policy_changed", by="ana", at=NOW)
    first = await records.list_audit(RUN, 3, None)
    rest = await records.list_audit(RUN, 3, first.cursor)
    assert [line["detail"]["n"] for line in [*first.items, *rest.items]] == [0, 1, 2, 3, 4]
    assert first.items[0]["action"] == "skipped"
    assert rest.cursor is None


async def test_the_same_line_of_the_same_moment_is_written_once(records: Records) -> None:
    for by in ("ana", "ana", "ben"):
        await records.audit(RUN, "started", by=by, at=NOW, detail={"mode": "patch"})
    assert sorted(line["by"] for line in (await records.list_audit(RUN, 10, None)).items) == ["ana", "ben"]


async def test_the_audit_log_holds_no_signature_and_no_token(records: Records) -> None:
    detail = {"url": SIGNED, "headers": ["Bearer abcdefghijkl", {"x": "https://a.b/c?code=SECRET"}]}
    await records.audit(RUN, "started", by="api?", at=NOW, detail=detail)
    [line] = (await records.list_audit(RUN, 10, None)).items
    assert "api-version" not in str(line)
    assert "abcdefghijkl" not in str(line)
    assert "SECRET" not in str(line)
    assert line["detail"]["headers"][1] == {"x": "https://a.b/c?***"}


async def test_a_long_audit_detail_is_cut_with_a_marker(records: Records) -> None:
    await records.audit(RUN, "started", by="ana", at=NOW, detail={"ids": ["x" * 100] * 1000})
    [line] = (await records.list_audit(RUN, 10, None)).items
    assert "[cut: " in line["detail"]


async def test_a_policy_is_versioned_and_its_etag_guards_it(records: Records) -> None:
    assert await records.get_policy("monthly") is None
    first = await records.put_policy("monthly", {"a": 1}, if_match=None, if_none_match=True, at=NOW)
    assert (first.name, first.version, first.document) == ("monthly", 1, {"a": 1})
    assert first.etag.startswith('"')
    assert await records.get_policy("monthly") == first
    with pytest.raises(PreconditionFailed):
        await records.put_policy("monthly", {"a": 2}, if_match=None, if_none_match=True, at=NOW)
    second = await records.put_policy("monthly", {"a": 2}, if_match=first.etag, if_none_match=False, at=NOW + HOUR)
    assert second.version == 2
    with pytest.raises(PreconditionFailed):
        await records.put_policy("monthly", {"a": 3}, if_match=first.etag, if_none_match=False, at=NOW)
    third = await records.put_policy("monthly", {"a": 3}, if_match="*", if_none_match=False, at=NOW)
    fourth = await records.put_policy("monthly", {"a": 4}, if_match=None, if_none_match=False, at=NOW)
    assert (third.version, fourth.version) == (3, 4)
    with pytest.raises(PreconditionFailed):
        await records.delete_policy("monthly", if_match=third.etag)
    assert await records.delete_policy("monthly", if_match=f'"other", {fourth.etag}')
    assert not await records.delete_policy("monthly", if_match=None)
    with pytest.raises(PreconditionFailed):
        await records.put_policy("monthly", {"a": 5}, if_match="*", if_none_match=False, at=NOW)


async def test_a_policy_that_comes_again_has_another_etag(records: Records) -> None:
    first = await records.put_policy("monthly", {"a": 1}, if_match=None, if_none_match=False, at=NOW)
    await records.delete_policy("monthly", if_match=None)
    again = await records.put_policy("monthly", {"a": 1}, if_match=None, if_none_match=False, at=NOW + HOUR)
    assert again.version == first.version
    assert again.etag != first.etag


async def test_of_many_changes_with_one_etag_one_happens(records: Records) -> None:
    first = await records.put_policy("monthly", {"n": 0}, if_match=None, if_none_match=False, at=NOW)

    async def change(n: int) -> bool:
        try:
            await records.put_policy("monthly", {"n": n}, if_match=first.etag, if_none_match=False, at=NOW)
        except PreconditionFailed:
            return False
        return True

    assert sum(await asyncio.gather(*(change(n) for n in range(1, 7)))) == 1
    stored = await records.get_policy("monthly")
    assert stored
    assert stored.version == 2


async def test_policies_are_listed_by_name_and_large_ones_kept_whole(records: Records) -> None:
    large = {"ids": [f"/subscriptions/{n:0100d}" for n in range(1500)]}
    await records.put_policy("weekly", large, if_match=None, if_none_match=False, at=NOW)
    await records.put_policy("canary", {}, if_match=None, if_none_match=False, at=NOW)
    found = await records.list_policies()
    assert [one.name for one in found] == ["canary", "weekly"]
    assert found[1].document == large
    # A smaller document leaves nothing of the larger one behind.
    await records.put_policy("weekly", {"ids": []}, if_match=None, if_none_match=False, at=NOW)
    stored = await records.get_policy("weekly")
    assert stored
    assert stored.document == {"ids": []}
    with pytest.raises(RecordTooLarge):
        await records.put_policy("weekly", {"x": "é" * 500_000}, if_match=None, if_none_match=False, at=NOW)


def guard(**changes: Any) -> Guard:
    fields: dict[str, Any] = {
        "run_id": RUN,
        "machine_key": KEY,
        "call": GuardedCall.BEFORE_SCRIPT,
        "token": "mine",
        "created_at": NOW,
        "deadline_at": NOW + HOUR,
    }
    return Guard(**{**fields, **changes})


async def test_of_many_executions_one_declares_the_guard(records: Records) -> None:
    tokens = [f"token-{number}" for number in range(8)]
    stored = await asyncio.gather(*(records.declare_guard(guard(token=token)) for token in tokens))
    assert len({one.token for one in stored}) == 1
    # The answer to the first insert may be lost: whoever asks again finds his own row.
    again = await records.declare_guard(guard(token=stored[0].token))
    assert again.token == stored[0].token
    assert (await records.declare_guard(guard(call=GuardedCall.AFTER_SCRIPT, token="other"))).token == "other"


async def test_a_guard_keeps_its_urls_byte_for_byte(records: Records) -> None:
    await records.declare_guard(guard())
    done = guard(state=IntentState.ACCEPTED, async_url=SIGNED, location_url=SIGNED + "?x", ended_at=NOW, failure="why")
    await records.save_guard(done)
    assert await records.get_guard(RUN, KEY, GuardedCall.BEFORE_SCRIPT) == done
    assert await records.get_guard(RUN, KEY, GuardedCall.RESTART) is None


async def test_a_refused_call_is_declared_anew_by_one_execution(records: Records) -> None:
    refused = guard(state=IntentState.REFUSED)
    await records.declare_guard(refused)
    taken = await asyncio.gather(*(records.take_over_guard(refused, guard(token=f"token-{n}")) for n in range(6)))
    assert sum(taken) == 1
    assert not await records.take_over_guard(refused, guard(token="late"))
    stored = await records.get_guard(RUN, KEY, GuardedCall.BEFORE_SCRIPT)
    assert stored is not None
    assert (stored.state, stored.token) == (IntentState.DECLARED, f"token-{taken.index(True)}")
