"""Policies over HTTP: what is stored is valid, changes are guarded by ETags, and everything wrong is said at once."""

from __future__ import annotations

from typing import Any

import jsonschema
import pytest

from patchwave.api.policies import delete_policy, get_policy, get_policy_schema, list_policies, put_policy
from patchwave.storage import Storage
from tests.support.http_calls import POLICY, call


async def test_a_policy_lives(storage: Storage) -> None:
    created = await call(put_policy, body=POLICY, headers={"If-None-Match": "*"}, name="monthly")
    assert created.status == 201
    assert created.json["name"] == "monthly"
    assert created.json["install"]["maximumDuration"] == "PT2H"

    read = await call(get_policy, name="monthly")
    assert (read.status, read.json, read.headers["ETag"]) == (200, created.json, created.headers["ETag"])
    assert (await call(list_policies)).json == {"policies": [created.json]}

    changed = await call(
        put_policy, body=POLICY | {"maxConcurrent": 9}, headers={"If-Match": read.headers["ETag"]}, name="monthly"
    )
    assert (changed.status, changed.json["maxConcurrent"]) == (200, 9)
    assert changed.headers["ETag"] != read.headers["ETag"]

    stale = await call(delete_policy, headers={"If-Match": read.headers["ETag"]}, name="monthly")
    assert stale.problem["status"] == 412
    gone = await call(delete_policy, headers={"If-Match": changed.headers["ETag"]}, name="monthly")
    assert (gone.status, gone.text) == (204, "")
    assert (await call(get_policy, name="monthly")).problem["status"] == 404
    assert (await call(delete_policy, name="monthly")).problem["status"] == 404

    actions = [line["action"] for line in (await storage.audit.list_page("monthly", 10, None)).items]
    assert actions == ["policy_written", "policy_written", "policy_deleted"]


async def test_the_audit_log_has_change_actor_and_reason(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    await call(put_policy, body=POLICY, query={"actor": "ana"}, name="monthly")
    changed = POLICY | {"maxConcurrent": 9, "ramp": True}
    await call(put_policy, body=changed, query={"actor": "ana", "reason": "a careful start"}, name="monthly")
    monkeypatch.setattr("patchwave.api.auth.platform_signs_in", lambda: True)
    signed_in = {"x-ms-client-principal-name": "ben@example.org"}
    await call(delete_policy, query={"actor": "ana", "reason": "moved"}, headers=signed_in, name="monthly")
    first, second, third = (await storage.audit.list_page("monthly", 10, None)).items
    assert (first["actor"], first["detail"]["version"], first["detail"]["scripts"]) == ("ana (claimed)", 1, {})
    assert second["actor"] == "ana (claimed)"
    assert second["detail"] | {"digest": "", "scope": "", "scripts": {}} == {
        "digest": "",
        "scope": "",
        "scripts": {},
        "version": 2,
        "reason": "a careful start",
        "changed": [
            {"path": "maxConcurrent", "before": 3, "after": 9},
            {"path": "ramp", "before": False, "after": True},
        ],
    }
    assert (third["action"], third["actor"], third["detail"]) == (
        "policy_deleted",
        "ben@example.org",
        {"reason": "moved"},
    )


@pytest.mark.parametrize(
    ("query", "path"),
    [({"reason": "x" * 501}, "reason"), ({"reason": "a\nb"}, "reason"), ({"actor": "x" * 201}, "actor")],
)
async def test_a_reason_or_name_that_cannot_be_kept_is_refused(
    storage: Storage, query: dict[str, str], path: str
) -> None:
    refused = await call(put_policy, body=POLICY, query=query, name="monthly")
    assert (refused.status, refused.paths) == (400, [path])
    assert await storage.policies.get("monthly") is None


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"If-Match": '"1-000000000000"'}, 412),
        ({"If-None-Match": "*"}, 412),
        ({"If-None-Match": '"1-000000000000"'}, 400),
        ({"If-Match": "*"}, 200),
        ({}, 200),
    ],
)
async def test_conditions_guard_a_change(storage: Storage, headers: dict[str, str], status: int) -> None:
    await call(put_policy, body=POLICY, name="monthly")
    answered = await call(put_policy, body=POLICY | {"maxConcurrent": 9}, headers=headers, name="monthly")
    assert answered.status == status
    stored = (await call(get_policy, name="monthly")).json["maxConcurrent"]
    assert stored == (9 if status == 200 else POLICY["maxConcurrent"])


async def test_if_match_on_a_policy_that_does_not_exist(storage: Storage) -> None:
    assert (await call(put_policy, body=POLICY, headers={"If-Match": "*"}, name="monthly")).problem["status"] == 412
    assert (await call(get_policy, name="monthly")).status == 404


@pytest.mark.parametrize(
    ("body", "paths"),
    [
        ({"maxConcurrent": 0, "colour": "red"}, {"scope", "maxConcurrent", "colour"}),
        ({"scope": {}}, {"scope"}),
        ({**POLICY, "name": "weekly"}, {"name"}),
        ([], {"$"}),
        ({"scope": {"machineIds": ["x' or 'y", "../z"]}}, {"scope.machineIds[0]", "scope.machineIds[1]"}),
    ],
)
async def test_an_invalid_policy_is_refused_with_every_error(storage: Storage, body: Any, paths: set[str]) -> None:
    refused = await call(put_policy, body=body, name="monthly")
    assert refused.status == 400
    assert set(refused.paths) == paths
    assert (await call(get_policy, name="monthly")).status == 404


@pytest.mark.parametrize(("body", "status"), [(b"{", 400), (b"", 400), (b"\xff", 400), (b" " * (256 * 1024 + 1), 413)])
async def test_a_body_that_cannot_be_read(storage: Storage, body: bytes, status: int) -> None:
    assert (await call(put_policy, body=body, name="monthly")).problem["status"] == status


@pytest.mark.parametrize("name", ["Monthly", "a/b", "", "schema", "x" * 49, "a'b"])
async def test_a_name_that_no_policy_may_have(storage: Storage, name: str) -> None:
    assert (await call(put_policy, body=POLICY, name=name)).paths == ["name"]
    assert (await call(delete_policy, name=name)).paths == ["name"]


async def test_the_schema_describes_what_is_stored(storage: Storage) -> None:
    schema = await call(get_policy_schema)
    assert schema.status == 200
    validator = jsonschema.Draft202012Validator(schema.json)
    assert validator.is_valid({"name": "monthly", **POLICY})
    assert not validator.is_valid({"name": "monthly"})
