"""Freezes over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime
from time import thread_time
from typing import Any

import pytest

from patchwave.api.freezes import delete_freeze, get_freeze, list_freeze_audit, list_freezes, put_freeze
from patchwave.storage import Storage, StoredPolicy
from patchwave.storage.policies import PolicyRepository
from tests.support.http_calls import call

FREEZE: dict[str, Any] = {"from": "2026-12-20", "to": "2027-01-03", "timeZone": "Europe/Berlin", "reason": "closing"}


async def test_a_freeze_lives(storage: Storage, monthly: str) -> None:
    created = await call(put_freeze, body=FREEZE, query={"actor": "ann"}, name="year-end")
    assert created.status == 201
    assert created.json == FREEZE | {"name": "year-end", "policies": [], "tags": None}
    assert (await call(get_freeze, name="year-end")).json == created.json
    # What was read can be written again, and that changes nothing.
    assert (await call(put_freeze, body=created.json, name="year-end")).status == 200
    changed = await call(put_freeze, body=FREEZE | {"policies": [monthly]}, name="year-end")
    assert (changed.status, changed.json["policies"]) == (200, [monthly])
    assert (await call(list_freezes)).json == {"freezes": [changed.json]}

    gone = await call(delete_freeze, body={"reason": "the books are closed", "actor": "bob"}, name="year-end")
    assert (gone.status, gone.text) == (204, "")
    assert (await call(get_freeze, name="year-end")).problem["status"] == 404
    assert (await call(list_freezes)).json == {"freezes": []}
    lines = (await call(list_freeze_audit, name="year-end")).json["audit"]
    assert [(line["action"], line["actor"], line["detail"]["reason"]) for line in lines] == [
        ("freeze_written", "ann (claimed)", "closing"),
        ("freeze_written", "api", "closing"),
        ("freeze_deleted", "bob (claimed)", "the books are closed"),
    ]


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({}, {"from", "to", "reason"}),
        (FREEZE | {"timeZone": "Mars/Olympus"}, {"timeZone"}),
        (FREEZE | {"to": "2026-12-19", "colour": "red"}, {"to", "colour"}),
        (FREEZE | {"name": "other"}, {"name"}),
        ([], {"$"}),
    ],
)
async def test_a_wrong_freeze_is_refused_with_every_error(storage: Storage, body: Any, paths: set[str]) -> None:
    refused = await call(put_freeze, body=body, name="year-end")
    assert refused.status == 400
    assert set(refused.paths) == paths
    assert await storage.freezes.list_all() == []


async def test_a_slip_in_the_name_of_a_policy_is_noted(storage: Storage, monthly: str) -> None:
    refused = await call(put_freeze, body=FREEZE | {"policies": [monthly, "adhoc", "montly", "x"]}, name="year-end")
    assert refused.status == 400
    assert [(error["path"], error["message"]) for error in refused.problem["errors"]] == [
        ("policies[2]", 'there is no policy montly; did you mean "monthly"?'),
        ("policies[3]", "there is no policy x"),
    ]
    assert await storage.freezes.list_all() == []


@pytest.mark.parametrize("name", ["Year-End", "a/b", "", "x" * 49])
async def test_a_name_that_no_freeze_may_have(storage: Storage, name: str) -> None:
    assert (await call(put_freeze, body=FREEZE, name=name)).paths == ["name"]
    assert (await call(get_freeze, name=name)).problem["status"] == 404
    assert (await call(list_freeze_audit, name=name)).problem["status"] == 404
    assert (await call(delete_freeze, query={"reason": "x"}, name=name)).problem["status"] == 404


async def test_a_deletion_has_its_reason(storage: Storage) -> None:
    await call(put_freeze, body=FREEZE, name="year-end")
    assert (await call(delete_freeze, name="year-end")).paths == ["reason"]
    assert (await call(get_freeze, name="year-end")).status == 200
    assert (await call(delete_freeze, query={"reason": "x"}, name="other")).problem["status"] == 404


async def test_a_freeze_of_five_hundred_slips_costs_no_half_second(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each hint compares one name with all policies, which are as near as names can be."""
    known = [StoredPolicy(f"patch-fleet-number-{number:05d}", {}, 1, "", datetime.now(UTC)) for number in range(500)]

    async def listed(self: PolicyRepository) -> list[StoredPolicy]:
        return known

    monkeypatch.setattr(PolicyRepository, "list_all", listed)
    names = [f"patch-fleet-numbre-{number:05d}" for number in range(500)]
    began = thread_time()
    refused = await call(put_freeze, body=FREEZE | {"policies": names}, name="year-end")
    assert thread_time() - began < 0.5
    assert len(refused.paths) == 51
    assert "did you mean" in refused.problem["errors"][0]["message"]
