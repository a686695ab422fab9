"""Scale sets in the activities: what the preflight learns of a member, and what the plan of a run reads of its set."""

from __future__ import annotations

from typing import Any

import pytest

from activities.machine import preflight_machine
from activities.plan import plan_run
from patchwave.azure.resource_graph import QueryPage
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.instance_view import MachineView
from patchwave.domain.core.ids import MachineId
from patchwave.domain.machine.health import Moment
from patchwave.domain.planning.topology import Topology
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.workflow.machine import PreflightRequest, PreflightResult
from patchwave.domain.workflow.run import RunRef
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.azure_bodies import machine as body
from tests.support.scripted_azure import KEY, RUN_ID, prepare

SET = (
    "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg/providers/Microsoft.Compute"
    "/virtualMachineScaleSets/web"
)


async def check(services: Services, scale_set: str, domain: int | None = None) -> PreflightResult:
    shown = body("running", platformFaultDomain=domain)
    shown["properties"]["virtualMachineScaleSet"] = {"id": scale_set} if scale_set else None
    view = MachineView.model_validate(shown)

    class Azure:
        async def read_machine(self, machine_id: MachineId, *, keep_for: Moment | None = None) -> MachineView:
            return view

    vars(services).update(resource_manager=Azure())
    return await preflight_machine(services, PreflightRequest(run_id=RUN_ID, machine_key=KEY, start_stopped=False))


async def stored(storage: Storage) -> MachineRecord:
    found = await storage.machines.get(RUN_ID, KEY)
    assert found is not None
    return found


async def test_the_machine_itself_tells_its_set_and_its_fault_domain(services: Services, storage: Storage) -> None:
    await prepare(storage)
    assert (await check(services, SET, 2)).preflight.readiness == "ready"
    assert ((await stored(storage)).scale_set, (await stored(storage)).fault_domain) == (SET, "2")


async def test_before_the_plan_the_set_that_it_is_in_now_counts(services: Services, storage: Storage) -> None:
    await prepare(storage, scale_set=f"{SET}-2", fault_domain="1")
    await check(services, SET, 0)
    assert ((await stored(storage)).scale_set, (await stored(storage)).fault_domain) == (SET, "0")
    await check(services, "", 2)
    assert ((await stored(storage)).scale_set, (await stored(storage)).fault_domain) == (SET, "0")


async def test_outside_of_scale_sets_the_fault_domain_is_of_no_use(services: Services, storage: Storage) -> None:
    await prepare(storage)
    await check(services, "", 2)
    assert ((await stored(storage)).scale_set, (await stored(storage)).fault_domain) == ("", "")


@pytest.mark.parametrize(
    ("planned", "now_in", "wave", "readiness"),
    [
        ("", SET, 1, "skip"),
        (SET, f"{SET}-2", 1, "skip"),
        (SET, SET.upper(), 1, "ready"),
        (SET, "", 1, "ready"),
        ("", SET, 0, "ready"),
    ],
)
async def test_a_machine_that_has_joined_a_set_since_the_plan_is_left_to_the_next_run(
    services: Services, storage: Storage, planned: str, now_in: str, wave: int, readiness: str
) -> None:
    await prepare(storage, scale_set=planned, wave=wave)
    checked = (await check(services, now_in)).preflight
    assert checked.readiness == readiness
    if readiness == "skip":
        assert checked.outcome is not None
        assert (checked.outcome.outcome, checked.outcome.reason) == ("skipped", "scale_set_changed")
        assert now_in in checked.outcome.message


class Regions:
    async def read(self, subscriptions: object) -> Topology:
        return Topology.of()


@pytest.mark.parametrize(
    ("page", "said"),
    [
        (QueryPage([{"id": SET, "model": True, "faultDomains": 1, "extensions": None}]), True),
        (QueryPage(failure=ArmFailure(status=503)), False),
    ],
)
async def test_the_plan_of_a_run_reads_its_scale_sets(
    services: Services, storage: Storage, page: QueryPage, said: bool
) -> None:
    asked: list[Any] = []

    class Graph:
        async def page(self, query: str, subscriptions: object = (), skip_token: str = "") -> QueryPage:
            asked.append(query)
            return page

    await prepare(storage, scale_set=SET)
    vars(services).update(locations=Regions(), resource_graph=Graph())
    await plan_run(services, RunRef(run_id=RUN_ID))
    assert len(asked) == 1
    plan = await storage.plans.get(RUN_ID)
    assert plan is not None
    assert any("no Application Health extension" in note for note in plan.notes) == said
    assert ("web has no Application Health extension" in plan.machines[0].placement_reasons) == said
