"""The document of the API against the app: every route is in it, it is valid, and what it says is so."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from azure.data.tables import TableServiceClient
from openapi_spec_validator import validate

from local import ROOT
from patchwave.api import endpoint
from patchwave.api import openapi as described
from patchwave.api.endpoint import RouteSpec
from patchwave.api.http import MAX_BODY
from patchwave.api.openapi import API_VERSION, PREFIX, openapi, path_of, routes
from patchwave.domain.core.command import Command
from patchwave.domain.core.ids import RunId
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.fleet.patch_mode import WantedSettings
from patchwave.domain.fleet.patch_mode_change import ChangeState, ModeChange
from patchwave.domain.policy.scope import Scope
from patchwave.domain.runs.run import RunState
from patchwave.settings import load_settings
from patchwave.storage import Storage, StorageUnreachable
from patchwave.wiring import Services
from tests.integration.conftest import engine, monthly, no_identity, storage
from tests.support.azurite import azurite
from tests.support.factories import NOW, machine
from tests.support.factories import run as a_run
from tests.support.function_index import HTTP, registered
from tests.support.http_calls import POLICY, SUBSCRIPTION, Engine, call, call_route

__all__ = ["azurite", "engine", "monthly", "no_identity", "storage"]

DOCUMENT: dict[str, Any] = openapi()
ROUTES = {route.name: route for route in routes()}


def operation(route: RouteSpec) -> dict[str, Any]:
    return DOCUMENT["paths"][path_of(route)][route.method.lower()]


def test_the_document_is_valid() -> None:
    validate(DOCUMENT)


def test_every_http_function_of_the_app_is_in_it() -> None:
    """Those that the app registers, not those that a list names."""
    assert {(route.name, route.path, route.method.lower()) for route in routes()} == {
        (name, route, method) for name, (route, method) in HTTP.items()
    }
    assert {name for name, function in registered().items() if function.is_http_function()} == set(ROUTES)


def test_names_are_unique_and_every_part_of_a_route_is_described() -> None:
    names = [operation(route)["operationId"] for route in routes()]
    assert len(set(names)) == len(names)
    for route in routes():
        parts = {part[1:-1] for part in route.path.split("/") if part.startswith("{")}
        assert parts == {each["name"] for each in operation(route)["parameters"] if each["in"] == "path"}


def test_prefix_and_version_are_those_of_the_app() -> None:
    host = json.loads((ROOT / "host.json").read_text(encoding="utf-8"))
    assert host.get("extensions", {}).get("http", {}).get("routePrefix", "api") == PREFIX.strip("/")
    assert f'version = "{API_VERSION}"' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


async def test_the_document_is_served(storage: Storage) -> None:
    answer = await call(described.get_openapi)
    assert (answer.status, answer.json) == (200, DOCUMENT)


# --- what it says of answers ---------------------------------------------------------------------------------

ASK_AZURE = {
    "plan_dry_run",
    "list_configurations",
    "put_configuration",
    "change_configuration",
    "cancel_scheduled_run",
    "put_assignment",
    "import_policy",
    "list_fleet_modes",
    "list_fleet_status",
    "list_fleet_eligibility",
    "plan_mode_change",
    "examine_fleet",
}
"""Routes whose examples are tried where Azure answers: tests/integration/api."""
PLACES = {"runId": "20261110T190000Z-monthly", "machineKey": machine(1).key, "name": "monthly", "policy": "monthly"} | {
    "subscriptionId": SUBSCRIPTION,
    "resourceGroup": "rg-schedules",
    "configuration": "monthly-servers",
    "changeId": "20261110T190000Z-modes-1a2b3c4d",
}


def a_change() -> ModeChange:
    """A change of patch modes that may be started."""
    return ModeChange(
        id=PLACES["changeId"],
        state=ChangeState.PLANNED,
        wanted=WantedSettings(bypass=True),
        scope=Scope(),
        max_concurrent=1,
        max_failures=1,
        planned=Command(actor="ana", at=datetime.now(UTC)),
    )


def parts_of(route: RouteSpec) -> dict[str, str]:
    """The parts of its route, of things that exist."""
    parts = {name: value for name, value in PLACES.items() if f"{{{name}}}" in route.path}
    return parts | {"name": "year-end"} if "freezes" in route.path else parts


async def status_of(route: RouteSpec, engine: Engine, body: object = b"", parts: dict[str, str] | None = None) -> int:
    """The status of one call; without parts it is about what does not exist."""
    missing = {name: f"no-such-{name.lower()}" for name in parts_of(route)}
    given: dict[str, Any] = missing if parts is None else parts
    found = await call_route(
        route,
        body=body,
        engine=engine,
        query={"reason": "tests"} if route.method == "DELETE" else {},
        **given,
    )
    return found.status


@pytest.mark.parametrize("name", sorted(ROUTES))
async def test_what_a_route_answers_when_nothing_exists(storage: Storage, engine: Engine, name: str) -> None:
    """404 where it is said; and everything else that comes back is said as well."""
    route = ROUTES[name]
    if name in ASK_AZURE and "{" not in route.path:
        pytest.skip("it asks Azure")
    said = set(operation(route)["responses"])
    examples = route.body.examples.values() if route.body else [b""]
    for body in examples:
        status = await status_of(route, engine, body)
        assert str(status) in said
        if route.path.count("{") and route.method != "PUT" and name not in ("run_webhook",):
            assert status in (404, 200 if name.endswith("audit") else 404)


@pytest.mark.parametrize("name", sorted(name for name, route in ROUTES.items() if route.body))
async def test_bodies_that_are_wrong_or_too_large(storage: Storage, engine: Engine, monthly: str, name: str) -> None:
    route = ROUTES[name]
    assert await status_of(route, engine, b"[", parts_of(route)) == 400
    assert await status_of(route, engine, b" " * (MAX_BODY + 1), parts_of(route)) == 413
    assert {"400", "413"} <= set(operation(route)["responses"])


@pytest.mark.parametrize("name", sorted(name for name, route in ROUTES.items() if route.body))
async def test_the_examples_work(storage: Storage, engine: Engine, monthly: str, name: str) -> None:
    route = ROUTES[name]
    if name in ASK_AZURE:
        pytest.skip("it asks Azure")
    state = RunState.AWAITING_APPROVAL if name.endswith("_ring") else RunState.RUNNING
    state = RunState.COMPLETED if name == "acknowledge_export" else state
    rings = [{"name": "canary", "percent": 10}, {"name": "rest", "approval": {}}]
    snapshot = {"name": "monthly", **POLICY, "rings": rings}
    run = a_run(
        NOW, state=state, started_at=NOW, waiting_for="rest" if name.endswith("_ring") else "", policy_snapshot=snapshot
    )
    await storage.runs.create(run)
    await storage.machines.add(run.id, [machine(1)])
    if name == "retry_machine":
        await storage.results.record_outcomes(run.id, [machine(1).key], Outcome.canceled(), NOW)
    engine.instances[run.id] = ("patch_run", None)
    if "changeId" in route.path:
        await storage.patch_mode_changes.create(a_change(), [])
    if name == "reset_machine":
        await fail_in_a_window(storage)
    if name.startswith(("skip_next", "unskip", "export")):
        example = ROUTES["put_policy"].body
        assert example
        await status_of(ROUTES["put_policy"], engine, example.examples["monthly"], {"name": monthly})
    assert route.body
    good = {answer.status for answer in route.responses}
    for body in route.body.examples.values():
        assert await status_of(route, engine, body, parts_of(route)) in good


async def fail_in_a_window(storage: Storage) -> None:
    """Let the machine need a person."""
    at = NOW + timedelta(days=1)
    run_id = RunId.of(at, "monthly").text
    failed = Outcome.of(OutcomeKind.FAILED, Reason.PATCHES_FAILED, "1 patch failed.")
    await storage.machines.add(run_id, [machine(1, occurrence=at, max_failed_windows=1)])
    await storage.results.record_outcome(run_id, machine(1).key, failed, at=at, installation=None, patches=[])


def stored() -> dict[str, list[dict[str, Any]]]:
    """Every row of every table of the test."""
    settings = load_settings()
    with TableServiceClient.from_connection_string(settings.tables_connection.get_secret_value()) as service:
        names = [each.name for each in service.list_tables() if each.name.startswith(settings.table_prefix)]
        return {name: [dict(row) for row in service.get_table_client(name).list_entities()] for name in names}


@pytest.mark.usefixtures("no_identity")
@pytest.mark.parametrize("name", sorted(name for name, route in ROUTES.items() if route.method == "GET"))
async def test_a_get_changes_nothing(storage: Storage, engine: Engine, monthly: str, name: str) -> None:
    """Front ends, browsers and tools repeat and prefetch a GET."""
    route = ROUTES[name]
    if name in ASK_AZURE:
        pytest.skip("it asks Azure")
    run = a_run(NOW, state=RunState.COMPLETED, ended_at=NOW, policy_snapshot={"name": "monthly", **POLICY})
    await storage.runs.create(run)
    await storage.machines.add(run.id, [machine(1)])
    await storage.patch_mode_changes.create(a_change(), [])
    before = stored()
    assert await status_of(route, engine, parts=parts_of(route)) in (200, 400, 404, 502, 503)
    assert stored() == before


@pytest.mark.parametrize("name", sorted(ROUTES))
@pytest.mark.parametrize(("error", "status"), [(StorageUnreachable("away"), 503), (RuntimeError("odd"), 500)])
async def test_failures_of_the_storage(
    monkeypatch: pytest.MonkeyPatch, storage: Storage, engine: Engine, name: str, error: Exception, status: int
) -> None:
    """503 with ``Retry-After``, or 500 with a problem, exactly from those that are said to use the storage."""

    def fail() -> Services:
        raise error

    route = ROUTES[name]
    monkeypatch.setattr(endpoint, "current_services", fail)
    body = next(iter(route.body.examples.values())) if route.body else b""
    if not route.uses_storage:
        pytest.skip("it uses no storage")
    assert await status_of(route, engine, body, parts_of(route)) == status
    assert str(status) in operation(route)["responses"]
