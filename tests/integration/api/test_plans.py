"""Drafts over HTTP: the live fleet is the simulator's, over HTTPS; nothing is stored, and nothing is started."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest

from patchwave.api import plans
from patchwave.azure.locations import Locations
from patchwave.azure.resource_graph import ResourceGraph
from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import AssessmentSummary, PatchRecord
from patchwave.domain.machine.patch_selection import select
from patchwave.domain.planning.plan import Plan
from patchwave.domain.policy.policy import parse_policy
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.services import dry_run
from patchwave.settings import load_settings
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.azure import Access
from tests.support.http_calls import call
from tests.support.simulator import as_client, running

FIRST, SECOND = "11111111-2222-4333-8444-555555555555", "99999999-2222-4333-8444-555555555555"
RUN = "20261110T190000Z-monthly"


def machine_id(number: int) -> str:
    group = f"/subscriptions/{FIRST if number % 2 else SECOND}/resourceGroups/rg-plan"
    return f"{group}/providers/Microsoft.Compute/virtualMachines/vm-{number:02d}"


def policy(**changes: Any) -> dict[str, Any]:
    return {"name": "monthly", "scope": {"subscriptions": [FIRST, SECOND]}, "maxConcurrent": 4, **changes}


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The ready document of a simulator with twelve machines in two subscriptions and two paired regions."""
    folder = tmp_path_factory.mktemp("plans")
    regions, words = ("westeurope", "northeurope"), ("running", "deallocated")
    fleet = [
        {
            "id": machine_id(number),
            "location": regions[number % 4 // 2],
            "tags": {"patchwave-hold": "moving"} if number == 3 else {"env": "test"},
            "zones": [str(number % 3 + 1)],
            "osType": "Linux",
            "simulation": {"power": words[number == 5]},
        }
        for number in range(12)
    ]
    with running(folder, fleet) as document:
        yield document


@pytest.fixture
async def azure(access: Access, graph: ResourceGraph, services: Services) -> AsyncIterator[httpx.AsyncClient]:
    """Azure as the trigger reaches it; the simulator's own controls for the test."""
    locations = Locations(access.settings, access.pipeline())
    vars(services).update(resource_graph=graph, locations=locations)
    async with httpx.AsyncClient(**as_client(access.document)) as http:
        yield http
        await http.delete("/_sim/faults")
    await locations.close()


async def test_the_plan_of_an_inline_policy(azure: httpx.AsyncClient, storage: Storage):
    answered = await call(plans.plan_dry_run, body={"policy": policy()})
    assert answered.status == 200, answered.text
    plan = Plan.model_validate(answered.json)
    assert plan.policy == "adhoc-monthly"
    assert {machine.id for machine in plan.machines} == {machine_id(number) for number in range(12)} - {
        machine_id(3),
        machine_id(5),
    }
    assert {machine.id: machine.reason for machine in plan.excluded} == {
        machine_id(3): "hold_tag",
        machine_id(5): "not_running",
    }
    # Paired regions, as the locations of the subscriptions say.
    assert sorted(plan.rings[0].phases) == [["northeurope"], ["westeurope"]]
    assert (await azure.get("/_sim/accepted")).json() == {}
    assert (await storage.runs.list_page(10, None)).items == []
    assert (await storage.policies.list_all()) == []


async def test_machines_outside_of_the_boundary_are_left_out_with_the_reason(
    azure: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("PATCHWAVE_SUBSCRIPTIONS", FIRST)
    load_settings.cache_clear()
    tagged = policy(scope={"tags": {"values": {"env": ["test"]}}})
    plan = Plan.model_validate((await call(plans.plan_dry_run, body={"policy": tagged})).json)
    outside = {machine.id for machine in plan.excluded if machine.reason == "outside_boundary"}
    assert outside == {machine_id(number) for number in range(0, 12, 2)}
    assert {machine.id for machine in plan.machines} == {machine_id(number) for number in (1, 7, 9, 11)}


async def test_zones_are_compared_by_building(azure: httpx.AsyncClient):
    """Logical zones of the two subscriptions are different buildings here; the plan goes by the physical ones."""
    mapping = {
        (subscription, region["name"], zone["logicalZone"]): zone["physicalZone"]
        for subscription in (FIRST, SECOND)
        for region in (
            await azure.get(
                f"/subscriptions/{subscription}/locations",
                params={"api-version": "2022-12-01"},
            )
        ).json()["value"]
        for zone in region.get("availabilityZoneMappings", [])
    }
    plan = Plan.model_validate((await call(plans.plan_dry_run, body={"policy": policy(maxConcurrent=100)})).json)
    for one in plan.machines:
        for other in plan.machines:
            overlap = one.predicted_start < other.predicted_end and other.predicted_start < one.predicted_end
            if one.lane == other.lane and overlap:
                assert building(mapping, one.id, one.lane) == building(mapping, other.id, other.lane)


def building(mapping: dict[tuple[str, str, str], str], machine: str, region: str) -> str:
    number = int(machine[-2:])
    return mapping[MachineId.parse(machine).subscription_id, region, str(number % 3 + 1)]


async def test_a_stored_policy_with_overrides(azure: httpx.AsyncClient, storage: Storage):
    await storage.policies.put("monthly", policy(), if_match=None, if_none_match=True, at=datetime.now(UTC))
    narrowed = {"scope": {"locations": ["westeurope"]}}
    answered = await call(plans.plan_dry_run, body={"policy": "monthly", "overrides": narrowed})
    plan = Plan.model_validate(answered.json)
    assert {machine.lane for machine in plan.machines} == {"westeurope"}


async def test_durations_of_the_last_runs_are_used(azure: httpx.AsyncClient, storage: Storage):
    now = datetime.now(UTC)
    await ended(storage, 0, now - timedelta(hours=1), now)
    await ended(storage, 1, now - timedelta(hours=30), now)
    await ended(storage, 2, now - timedelta(hours=1), now, OutcomeKind.PATCHED)
    plan = Plan.model_validate((await call(plans.plan_dry_run, body={"policy": policy()})).json)
    reasons = {machine.id: machine.reason for machine in plan.excluded}
    assert reasons.pop(machine_id(0)) == "no_pending_patches"
    assert set(reasons) == {machine_id(3), machine_id(5)}


async def test_a_draft_judges_by_its_own_policy_what_the_last_run_found(azure: httpx.AsyncClient, storage: Storage):
    """The run took Critical and Security, and found one Other patch on each machine."""
    now = datetime.now(UTC)
    vim = PatchRecord(name="vim", version="9", classifications=["Other"], state="Available")
    default = parse_policy(policy()).install.linux
    for number in (0, 1, 2):
        summary = AssessmentSummary(status="Succeeded", other=1, at=now)
        patches = [vim] if number < 2 else []
        selection = select(default, summary, patches) if number else None
        found = summary.model_copy(update={"selection": selection})
        await ended(storage, number, now, now, OutcomeKind.ASSESSED, found, patches)
    drafted = await excluded(policy())
    assert drafted == {machine_id(0), machine_id(1)}, "what is counted and not listed counts as selected"
    assert await excluded(policy(install={"linux": {"classificationsToInclude": ["Other"]}})) == set()
    masked = {"classificationsToInclude": ["Other"], "packageNameMasksToExclude": ["vim"]}
    assert await excluded(policy(install={"linux": masked})) == {machine_id(0), machine_id(1)}


async def test_a_draft_reads_a_bounded_number_of_lists(
    azure: httpx.AsyncClient, storage: Storage, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(dry_run, "MAX_LISTS", 1)
    now = datetime.now(UTC)
    vim = PatchRecord(name="vim", version="9", classifications=["Other"], state="Available")
    for number in (0, 1):
        summary = AssessmentSummary(status="Succeeded", other=1, at=now)
        await ended(storage, number, now, now, OutcomeKind.ASSESSED, summary, [vim])
    assert len(await excluded(policy())) == 1


async def excluded(document: dict[str, Any]) -> set[str]:
    """The machines of which a draft says that there is nothing to install."""
    plan = Plan.model_validate((await call(plans.plan_dry_run, body={"policy": document})).json)
    return {machine.id for machine in plan.excluded if machine.reason == "no_pending_patches"}


async def ended(
    storage: Storage,
    number: int,
    assessed: datetime,
    at: datetime,
    kind: OutcomeKind = OutcomeKind.NOTHING_TO_INSTALL,
    summary: AssessmentSummary | None = None,
    patches: Sequence[PatchRecord] = (),
) -> None:
    """A run that ended a machine, after an assessment that found nothing, or this."""
    identity = MachineId.parse(machine_id(number))
    run_id = f"{RUN}-{number:08d}"
    trigger = Trigger(kind=TriggerKind.HTTP)
    await storage.runs.create(
        Run(
            id=run_id, policy="monthly", mode=Mode.PATCH, state=RunState.QUEUED, trigger=trigger, created_at=at,
            policy_snapshot=policy(),
        )
    )  # fmt: skip
    machine = MachineRecord(
        id=identity.text,
        key=identity.key,
        name=identity.name,
        subscription_id=identity.subscription_id,
        resource_group=identity.resource_group,
    )
    await storage.machines.add(run_id, [machine])
    summary = summary or AssessmentSummary(status="Succeeded", at=assessed)
    await storage.results.record_assessment(run_id, identity.key, summary, patches, assessed)
    outcome = Outcome(outcome=kind, reason=Reason.OK, message="")
    await storage.results.record_outcome(run_id, identity.key, outcome, at=at, installation=None, patches=[])


async def test_ids_that_do_not_exist(azure: httpx.AsyncClient):
    asked = [machine_id(1), machine_id(77)]
    plan = Plan.model_validate(
        (await call(plans.plan_dry_run, body={"policy": policy(scope={"machineIds": asked})})).json
    )
    assert [machine.id for machine in plan.machines] == [machine_id(1)]
    assert [(machine.id, machine.reason) for machine in plan.excluded] == [(machine_id(77), "not_found")]


async def test_a_fleet_that_one_answer_cannot_hold(azure: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dry_run, "MAX_MACHINES", 11)
    refused = await call(plans.plan_dry_run, body={"policy": policy()})
    assert refused.problem["status"] == 422
    assert "more than 11 machines" in refused.problem["detail"]
    monkeypatch.setattr(dry_run, "MAX_MACHINES", 12)
    assert (await call(plans.plan_dry_run, body={"policy": policy()})).status == 200


async def test_a_throttled_page_is_requested_again(azure: httpx.AsyncClient):
    rule = {"match": {"operation": "graph"}, "times": 1, "effect": {"status": 429, "headers": {"Retry-After": "1"}}}
    assert (await azure.post("/_sim/faults", json=rule)).is_success
    assert len((await call(plans.plan_dry_run, body={"policy": policy()})).json["machines"]) == 10


async def test_a_list_that_takes_too_long(azure: httpx.AsyncClient, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(dry_run, "MAX_SECONDS", 0.2)
    rule = {"match": {"operation": "graph"}, "effect": {"status": 503, "headers": {"Retry-After": "1"}}}
    assert (await azure.post("/_sim/faults", json=rule)).is_success
    refused = await call(plans.plan_dry_run, body={"policy": policy()})
    assert (refused.problem["status"], refused.headers["Retry-After"]) == (503, "60")


@pytest.mark.parametrize(
    "effect", [{"status": 403}, {"status": 200, "body": {"count": 3}}], ids=["no right", "no list"]
)
async def test_a_list_that_azure_refuses(azure: httpx.AsyncClient, effect: dict[str, Any]):
    rule = {"match": {"operation": "graph"}, "effect": effect}
    assert (await azure.post("/_sim/faults", json=rule)).is_success
    refused = await call(plans.plan_dry_run, body={"policy": policy()})
    assert refused.problem["status"] == 502
    assert "could not be listed" in refused.problem["detail"]


@pytest.mark.parametrize(
    ("body", "status", "paths"),
    [
        ([], 400, ["$"]),
        ({}, 400, ["policy"]),
        ({"policy": policy(), "mode": "patch"}, 400, ["mode"]),
        ({"policy": "nothing"}, 404, []),
        ({"policy": policy(maxConcurrent=0)}, 400, ["maxConcurrent"]),
        ({"policy": policy(), "overrides": {"maxConcurrent": 0}}, 400, ["maxConcurrent"]),
    ],
)
async def test_a_request_that_is_not_valid(storage: Storage, body: object, status: int, paths: list[str]):
    refused = await call(plans.plan_dry_run, body=body)
    assert refused.problem["status"] == status
    assert refused.paths == paths
