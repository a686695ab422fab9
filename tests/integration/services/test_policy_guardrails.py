"""Policies with scripts and probes are taken only where the operator of the app allows them."""

from __future__ import annotations

from typing import Any

import pytest

from patchwave.api.policies import put_policy
from patchwave.api.runs import start_run
from patchwave.settings import load_settings
from patchwave.storage import Storage
from tests.support.factories import NOW
from tests.support.http_calls import POLICY, SUBSCRIPTION, TENANT, Engine, call, signed_in

ANA = "aaaaaaaa-2222-4333-8444-555555555555"
ELSEWHERE = "99999999-2222-4333-8444-555555555555"
WITH_SCRIPT = POLICY | {"hooks": {"before": {"linux": "exit 0"}}}


@pytest.fixture
def allowed(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    del storage  # which has made the other settings
    monkeypatch.setenv("PATCHWAVE_SCRIPTS", "true")
    monkeypatch.setenv("PATCHWAVE_AUTHORIZATION", "roles")
    monkeypatch.setenv("PATCHWAVE_TENANT_ID", TENANT)
    monkeypatch.setenv("WEBSITE_AUTH_ENABLED", "True")
    load_settings.cache_clear()


async def test_a_policy_with_scripts_is_refused_while_they_are_off(storage: Storage) -> None:
    refused = await call(put_policy, body=WITH_SCRIPT, name="monthly")
    assert refused.problem["status"] == 400
    assert refused.paths == ["hooks"]
    assert "PATCHWAVE_SCRIPTS" in refused.text
    assert await storage.policies.get("monthly") is None


async def test_scripts_are_refused_in_every_kind_of_request(storage: Storage, engine: Engine) -> None:
    await call(put_policy, body=POLICY, name="monthly")
    for body in ({"policy": WITH_SCRIPT}, {"policy": "monthly", "overrides": {"hooks": WITH_SCRIPT["hooks"]}}):
        refused = await call(start_run, body=body, engine=engine)
        assert refused.problem["status"] == 400
        assert refused.paths == ["hooks"]
    assert engine.instances == {}


@pytest.mark.usefixtures("allowed")
async def test_where_scripts_are_allowed_they_are_taken(engine: Engine) -> None:
    author = signed_in(ANA, "author")
    assert (await call(put_policy, body=WITH_SCRIPT, headers=author, name="monthly")).status == 201
    assert (await call(start_run, body={"policy": WITH_SCRIPT}, headers=author, engine=engine)).status == 202


async def test_a_key_alone_may_not_store_scripts(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key does not say who wrote a script, so that scripts need roles as well as their own setting."""
    monkeypatch.setenv("PATCHWAVE_SCRIPTS", "true")
    load_settings.cache_clear()
    await call(put_policy, body=POLICY, name="monthly")
    answers = [await call(put_policy, body=WITH_SCRIPT, name="other")]
    for body in ({"policy": WITH_SCRIPT}, {"policy": "monthly", "overrides": {"hooks": WITH_SCRIPT["hooks"]}}):
        answers.append(await call(start_run, body=body, engine=engine))
    for refused in answers:
        assert (refused.status, refused.paths) == (400, ["hooks"])
        assert "PATCHWAVE_AUTHORIZATION" in refused.text
    assert (await storage.policies.get("other"), engine.instances) == (None, {})


async def test_a_probe_of_a_host_that_may_not_be_called_is_refused(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = POLICY | {"health": {"probe": {"url": "https://{name}.example.org/health"}}}
    refused = await call(put_policy, body=body, name="monthly")
    assert (refused.status, refused.paths) == (400, ["health.probe.url"])
    assert "{name}.example.org is not in PATCHWAVE_PROBE_HOSTS" in refused.text
    assert await storage.policies.get("monthly") is None
    monkeypatch.setenv("PATCHWAVE_PROBE_HOSTS", "*.example.org")
    load_settings.cache_clear()
    assert (await call(put_policy, body=body, name="monthly")).status == 201


async def test_a_snapshot_in_the_group_of_its_machine_needs_no_permission(storage: Storage) -> None:
    del storage
    body = POLICY | {"hooks": {"snapshot": {}}}
    assert (await call(put_policy, body=body, name="monthly")).status == 201


async def test_snapshots_go_to_listed_groups_only(
    storage: Storage, engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    hooks = {"snapshot": {"resourceGroup": "rg-loot"}}
    refused = await call(put_policy, body=POLICY | {"hooks": hooks}, name="monthly")
    assert (refused.status, refused.paths) == (400, ["hooks.snapshot.resourceGroup"])
    assert "PATCHWAVE_SNAPSHOT_GROUPS" in refused.text
    await call(put_policy, body=POLICY, name="monthly")
    for body in ({"policy": POLICY | {"hooks": hooks}}, {"policy": "monthly", "overrides": {"hooks": hooks}}):
        assert (await call(start_run, body=body, engine=engine)).paths == ["hooks.snapshot.resourceGroup"]
    assert engine.instances == {}
    monkeypatch.setenv("PATCHWAVE_SNAPSHOT_GROUPS", "rg-keep, RG-Loot")
    load_settings.cache_clear()
    assert (await call(put_policy, body=POLICY | {"hooks": hooks}, name="monthly")).status == 200


@pytest.fixture
def bounded(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    del storage  # which has made the other settings
    monkeypatch.setenv("PATCHWAVE_SUBSCRIPTIONS", SUBSCRIPTION.upper())
    load_settings.cache_clear()


def configuration_in(subscription: str) -> str:
    group = f"/subscriptions/{subscription}/resourceGroups/rg-updates"
    return f"{group}/providers/Microsoft.Maintenance/maintenanceConfigurations/weekly"


def machine_in(subscription: str) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm"


@pytest.mark.usefixtures("bounded")
@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"scope": {"subscriptions": [SUBSCRIPTION, ELSEWHERE]}}, "scope.subscriptions[1]"),
        ({"scope": {"machineIds": [machine_in(SUBSCRIPTION), machine_in(ELSEWHERE)]}}, "scope.machineIds[1]"),
        ({"maintenance": {"configurations": [configuration_in(ELSEWHERE)]}}, "maintenance.configurations[0]"),
    ],
)
async def test_no_policy_names_what_is_outside_of_the_boundary(
    storage: Storage, engine: Engine, change: dict[str, Any], path: str
) -> None:
    refused = await call(put_policy, body=POLICY | change, name="monthly")
    assert (refused.status, refused.paths) == (400, [path])
    assert f"{ELSEWHERE} is not in PATCHWAVE_SUBSCRIPTIONS" in refused.text
    await call(put_policy, body=POLICY, name="monthly")
    for body in ({"policy": POLICY | change}, {"policy": "monthly", "overrides": change}):
        assert (await call(start_run, body=body, engine=engine)).paths == [path]
    assert engine.instances == {}


@pytest.mark.usefixtures("bounded")
async def test_within_the_boundary_a_policy_is_taken(engine: Engine) -> None:
    around = {"maintenance": {"configurations": [configuration_in(SUBSCRIPTION)]}}
    assert (await call(put_policy, body=POLICY | around, name="monthly")).status == 201
    assert (await call(start_run, body={"policy": {"scope": {"osTypes": ["Linux"]}}}, engine=engine)).status == 202


async def test_a_scope_of_nothing_but_systems_needs_the_boundary(storage: Storage, engine: Engine) -> None:
    everything = {"scope": {"osTypes": ["Linux", "Windows"]}}
    refused = await call(put_policy, body=everything, name="monthly")
    assert (refused.status, refused.paths) == (400, ["scope"])
    assert "PATCHWAVE_SUBSCRIPTIONS" in refused.text
    assert (await call(start_run, body={"policy": everything}, engine=engine)).paths == ["scope"]
    # One that was stored before the rule.
    await storage.policies.put("old", {"name": "old", **everything}, if_match=None, if_none_match=True, at=NOW)
    assert (await call(start_run, body={"policy": "old"}, engine=engine)).paths == ["scope"]
    assert engine.instances == {}
