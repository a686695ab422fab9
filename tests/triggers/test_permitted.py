"""Policies with scripts and probes are taken only where the operator of the app allows them."""

from __future__ import annotations

import pytest

from adapters.tables import Records
from settings import load_settings
from tests.triggers.support import POLICY, Engine, call
from triggers.policies import put_policy
from triggers.runs import start_run

WITH_SCRIPT = POLICY | {"hooks": {"before": {"linux": "exit 0"}}}


@pytest.fixture
def allowed(records: Records, monkeypatch: pytest.MonkeyPatch) -> None:
    del records  # which has made the other settings
    monkeypatch.setenv("PATCHWAVE_SCRIPTS", "true")
    load_settings.cache_clear()


async def test_a_policy_with_scripts_is_refused_while_they_are_off(records: Records) -> None:
    refused = await call(put_policy, body=WITH_SCRIPT, name="monthly")
    assert refused.problem["status"] == 400
    assert refused.paths == ["hooks"]
    assert "PATCHWAVE_SCRIPTS" in refused.text
    assert await records.get_policy("monthly") is None


async def test_no_request_brings_scripts_in_another_way(records: Records, engine: Engine) -> None:
    await call(put_policy, body=POLICY, name="monthly")
    for body in ({"policy": WITH_SCRIPT}, {"policy": "monthly", "overrides": {"hooks": WITH_SCRIPT["hooks"]}}):
        refused = await call(start_run, body=body, engine=engine)
        assert refused.problem["status"] == 400
        assert refused.paths == ["hooks"]
    assert engine.instances == {}


@pytest.mark.usefixtures("allowed")
async def test_where_scripts_are_allowed_they_are_taken(engine: Engine) -> None:
    assert (await call(put_policy, body=WITH_SCRIPT, name="monthly")).status == 201
    assert (await call(start_run, body={"policy": WITH_SCRIPT}, engine=engine)).status == 202


async def test_a_probe_of_a_host_that_may_not_be_called_is_refused(
    records: Records, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = POLICY | {"health": {"probe": {"url": "https://{name}.example.org/health"}}}
    refused = await call(put_policy, body=body, name="monthly")
    assert (refused.status, refused.paths) == (400, ["health.probe.url"])
    assert "{name}.example.org is not in PATCHWAVE_PROBE_HOSTS" in refused.text
    assert await records.get_policy("monthly") is None
    monkeypatch.setenv("PATCHWAVE_PROBE_HOSTS", "*.example.org")
    load_settings.cache_clear()
    assert (await call(put_policy, body=body, name="monthly")).status == 201


async def test_a_snapshot_needs_nobody_s_permission(records: Records) -> None:
    del records
    body = POLICY | {"hooks": {"snapshot": {}}}
    assert (await call(put_policy, body=body, name="monthly")).status == 201
