"""The discovery page by page: what it adds, what it counts, and what it costs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from activities.discover import discover_machines, pause_after
from patchwave.azure.resource_graph import QueryPage
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.policy.policy import parse_policy
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.domain.runs.window_results import WindowResult
from patchwave.domain.workflow.run import DiscoveryPage, MachinesPageRequest
from patchwave.settings import Settings, load_settings
from patchwave.storage import Storage
from patchwave.storage.machine_history import MachineHistoryRepository
from patchwave.storage.runs import RunRepository
from patchwave.wiring import Services
from tests.support.factories import NOW, SUBSCRIPTION

ELSEWHERE = "99999999-2222-4333-8444-555555555555"
RUN = "20261110T190000Z-monthly"


def vm_id(number: int) -> str:
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm-{number}"


def row(number: int) -> dict[str, Any]:
    return {
        "id": vm_id(number),
        "name": f"vm-{number}",
        "type": "microsoft.compute/virtualmachines",
        "subscriptionId": SUBSCRIPTION,
        "resourceGroup": "rg",
        "location": "westeurope",
        "osType": "Linux",
        "powerState": "PowerState/running",
        "tags": {},
        "zones": [],
    }


class Graph:
    """Pages of Resource Graph, by the token that asks for them."""

    def __init__(self, pages: dict[str, QueryPage]) -> None:
        self.pages = pages

    async def page(self, query: str, subscriptions: object = (), skip_token: str = "") -> QueryPage:
        return self.pages[skip_token]


async def begin(services: Services, storage: Storage, pages: dict[str, QueryPage], **scope: Any) -> None:
    policy = parse_policy({"name": "monthly", "scope": {"subscriptions": [SUBSCRIPTION], **scope}})
    run = Run(
        id=RUN,
        policy="monthly",
        mode=Mode.PATCH,
        state=RunState.QUEUED,
        trigger=Trigger(kind=TriggerKind.TIMER),
        created_at=NOW,
        policy_snapshot=policy.to_wire(),
    )
    await storage.runs.create(run)
    graph = Graph(pages)
    vars(services).update(resource_graph=graph)


async def discover_page(services: Services, cursor: str = "") -> DiscoveryPage:
    return await discover_machines(services, MachinesPageRequest(run_id=RUN, cursor=cursor))


async def shown(storage: Storage) -> int:
    run = await storage.runs.get(RUN)
    assert run is not None
    return run.machines


async def test_pages_add_up_and_only_the_last_one_counts_the_rows(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second page tells a machine of the first one again, and the second one is executed twice."""
    pages = {
        "": QueryPage([row(1), row(2)], "two", 1.5),
        "two": QueryPage([row(2), row(3)], "three"),
        "three": QueryPage([row(4)]),
    }
    await begin(services, storage, pages)
    counted: list[str] = []
    count = RunRepository.count_machines

    async def noted(self: RunRepository, run_id: str) -> int:
        counted.append(run_id)
        return await count(self, run_id)

    monkeypatch.setattr(RunRepository, "count_machines", noted)
    first = await discover_page(services)
    assert (first.machines, first.wait_seconds, first.failure) == (2, 1.5, "")
    assert await shown(storage) == 2
    second = await discover_page(services, first.cursor)
    assert await discover_page(services, first.cursor) == second
    assert (second.machines, await shown(storage)) == (4, 4)
    assert counted == []
    last = await discover_page(services, second.cursor)
    assert (last.machines, last.cursor) == (4, "")
    assert last.selectors
    assert counted == [RUN]
    assert await shown(storage) == 4
    assert (await storage.runs.progress(RUN))[1] == {"waiting": 4}


async def test_a_cursor_of_before_is_understood(services: Services, storage: Storage) -> None:
    await begin(services, storage, {"two": QueryPage([row(3)])})
    assert (await discover_page(services, '[0, "two"]')).machines == 1


async def test_an_id_that_does_not_exist_gets_its_row_and_counts(services: Services, storage: Storage) -> None:
    await begin(services, storage, {"": QueryPage([row(1)])}, machineIds=[vm_id(1), vm_id(9)])
    found = await discover_page(services)
    assert (found.machines, found.cursor) == (2, "")
    assert await storage.runs.progress(RUN) == ({"skipped": 1}, {"waiting": 1, "done": 1})


async def test_an_unreadable_page_has_the_reason_and_the_time_to_wait(services: Services, storage: Storage) -> None:
    failure = ArmFailure(status=429, code="RateLimiting", message="slow down")
    await begin(services, storage, {"": QueryPage(failure=failure, wait_seconds=7)})
    found = await discover_page(services)
    assert found.failure.startswith("The machines could not be listed. ")
    assert 7 <= found.wait_seconds <= 8
    assert found.cursor == ""
    assert found.machines == 0


# --- a page that cannot be read


THROTTLED = ArmFailure(status=429, code="RateLimiting", message="Please slow down.")
AWAY = ArmFailure(status=503, code="ServiceUnavailable", message="Away.", retry_after=20)
DOWN = ArmFailure(status=503, message="down")
BROKEN = ArmFailure(status=500, code="InternalServerError", message="Broken.")
FORBIDDEN = ArmFailure(status=403, code="AuthorizationFailed", message="No.")


@pytest.mark.parametrize(
    ("failure", "counts"), [(THROTTLED, False), (AWAY, False), (DOWN, False), (BROKEN, True), (FORBIDDEN, True)]
)
async def test_the_result_tells_throttled_from_failed(
    services: Services, storage: Storage, failure: ArmFailure, counts: bool
) -> None:
    await begin(services, storage, {"": QueryPage(failure=failure, wait_seconds=5)})
    answer = await discover_page(services)
    assert answer.counts_as_attempt is counts
    assert answer.wait_seconds > 0
    assert answer.failure.startswith("The machines could not be listed. ")
    assert failure.message in answer.failure


@pytest.mark.usefixtures("storage")
@pytest.mark.parametrize(
    ("failure", "asked", "attempt", "least", "most"),
    [
        (THROTTLED, 5, 0, 5, 6),
        (THROTTLED, 5, 5, 5, 6),
        (THROTTLED, 5, 6, 200, 270),
        (THROTTLED, 600, 6, 600, 661),
        (AWAY, 5, 0, 20, 23),
        (DOWN, 5, 0, 27, 33),
        (DOWN, 5, 9, 216, 264),
        (BROKEN, 5, 0, 27, 33),
        (BROKEN, 5, 1, 54, 66),
        (BROKEN, 5, 9, 216, 264),
        (FORBIDDEN, 0, 3, 0, 0),
    ],
)
def test_pauses_follow_retry_after_and_grow(
    failure: ArmFailure, asked: float, attempt: int, least: float, most: float
) -> None:
    settings = Settings(tables_endpoint="https://account.table.core.windows.net", poll_seconds=30)
    assert least <= pause_after(settings, failure, asked, attempt) <= most


async def test_a_machine_outside_of_the_boundary_is_a_row_with_the_reason(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = row(2) | {"id": vm_id(2).replace(SUBSCRIPTION, ELSEWHERE), "subscriptionId": ELSEWHERE}
    named = {"subscriptions": [], "machineIds": [vm_id(1), other["id"]]}
    await begin(services, storage, {"": QueryPage([row(1), other])}, **named)
    monkeypatch.setenv("PATCHWAVE_SUBSCRIPTIONS", SUBSCRIPTION)
    load_settings.cache_clear()
    assert (await discover_page(services)).machines == 2
    assert await storage.runs.progress(RUN) == ({"skipped": 1}, {"waiting": 1, "done": 1})
    [skipped] = (await storage.machines.list_page(RUN, outcome=OutcomeKind.SKIPPED, limit=10, cursor=None)).items
    assert (skipped.id, skipped.reason) == (other["id"], "outside_boundary")
    assert "PATCHWAVE_SUBSCRIPTIONS" in skipped.message


async def test_a_stored_scope_of_nothing_but_systems_finds_nothing_without_a_boundary(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await begin(services, storage, {"": QueryPage([row(1)])}, subscriptions=[], osTypes=["Linux"])
    found = await discover_page(services)
    assert "PATCHWAVE_SUBSCRIPTIONS" in found.failure
    assert (found.wait_seconds, await shown(storage)) == (0, 0)
    monkeypatch.setenv("PATCHWAVE_SUBSCRIPTIONS", SUBSCRIPTION)
    load_settings.cache_clear()
    assert (await discover_page(services)).machines == 1


# --- how machines ended in the windows before


def failed_in(windows: int, *, installed: int = 0) -> WindowResult:
    at = NOW - timedelta(days=28)
    return WindowResult(
        run_id="20261013T190000Z-monthly",
        occurrence=at,
        outcome=OutcomeKind.FAILED,
        reason="patches_failed",
        installed=installed,
        failed_windows=windows,
        last_failed=at,
    )


async def begin_in_window(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch, *, run: dict[str, Any], **policy: Any
) -> dict[str, MachineRecord]:
    """Discover four machines in a run of a window; three failed before. Their rows by name."""
    before = {
        MachineId.parse(vm_id(2)).key: failed_in(2),
        MachineId.parse(vm_id(3)).key: failed_in(3),
        MachineId.parse(vm_id(4)).key: failed_in(5, installed=1),
    }

    async def unfinished(self: MachineHistoryRepository) -> dict[str, WindowResult]:
        return before

    monkeypatch.setattr(MachineHistoryRepository, "list_unfinished", unfinished)
    vars(services).update(resource_graph=Graph({"": QueryPage([row(number) for number in range(1, 5)])}))
    document = parse_policy({"name": "monthly", "scope": {"subscriptions": [SUBSCRIPTION]}} | policy)
    fields: dict[str, Any] = {
        "mode": Mode.PATCH,
        "trigger": Trigger(kind=TriggerKind.TIMER),
        "occurrence": NOW,
        "window_end": NOW + timedelta(hours=4),
    }
    made = Run(
        id=RUN,
        policy="monthly",
        state=RunState.QUEUED,
        created_at=NOW,
        policy_snapshot=document.to_wire(),
        **fields | run,
    )
    await storage.runs.create(made)
    for _ in range(2):
        # The activity may be executed again.
        assert (await discover_page(services)).machines == 4
    return {each.name: each async for each in storage.machines.scan(RUN)}


async def test_a_machine_that_failed_too_often_is_left_out_of_its_window(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = await begin_in_window(services, storage, monkeypatch, run={})
    assert {name: (each.outcome, each.reason) for name, each in rows.items()} == {
        "vm-1": (None, ""),
        "vm-2": (None, ""),
        "vm-3": (OutcomeKind.SKIPPED, "needs_person"),
        "vm-4": (None, ""),
    }
    assert {each.occurrence for each in rows.values()} == {NOW}
    assert {each.max_failed_windows for each in rows.values()} == {3}
    counts = {name: each.last_window.failed_windows if each.last_window else None for name, each in rows.items()}
    assert counts == {"vm-1": None, "vm-2": 2, "vm-3": 3, "vm-4": 5}


async def test_without_retries_one_failure_is_enough(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = await begin_in_window(services, storage, monkeypatch, run={}, retryInNextWindow=False)
    assert {name for name, each in rows.items() if each.outcome is OutcomeKind.SKIPPED} == {"vm-2", "vm-3"}
    assert {each.max_failed_windows for each in rows.values()} == {1}


@pytest.mark.parametrize(
    "run",
    [
        {"trigger": Trigger(kind=TriggerKind.HTTP)},
        {"trigger": Trigger(kind=TriggerKind.WEBHOOK)},
        {"mode": Mode.ASSESS},
        {"occurrence": None},
    ],
)
async def test_a_run_by_hand_and_an_assessment_take_every_machine(
    services: Services, storage: Storage, monkeypatch: pytest.MonkeyPatch, run: dict[str, Any]
) -> None:
    rows = await begin_in_window(services, storage, monkeypatch, run=run)
    seen = {(each.outcome, each.occurrence, each.max_failed_windows, each.last_window) for each in rows.values()}
    assert seen == {(None, None, 0, None)}


# --- scale sets


SETS = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Compute/virtualMachineScaleSets"


async def test_scale_sets_are_rows_where_their_machines_cannot_be(services: Services, storage: Storage) -> None:
    member = row(1) | {"scaleSetId": f"{SETS}/web", "faultDomain": "2"}
    uniform = {"id": f"{SETS}/old", "location": "westeurope", "instances": 9, "profileOsType": "Linux"}
    named = [f"{SETS}/{name}" for name in ("WEB", "old", "none")]
    await begin(services, storage, {"": QueryPage([uniform, member])}, scaleSets=named)
    for _ in range(2):
        # A second execution changes nothing.
        assert (await discover_page(services)).machines == 3
    rows = {machine.name: machine async for machine in storage.machines.scan(RUN)}
    assert {name: (machine.outcome, machine.reason) for name, machine in rows.items()} == {
        "vm-1": (None, ""),
        "old": (OutcomeKind.SKIPPED, "uniform_scale_set"),
        "none": (OutcomeKind.SKIPPED, "not_found"),
    }
    assert (rows["vm-1"].scale_set, rows["vm-1"].fault_domain) == (f"{SETS}/web", "2")
    assert "9 instances" in rows["old"].message


# --- Arc machines

UNIQUE = "01234567-89ab-cdef-0123-456789abcdef"


def arc_row(number: int, **columns: Any) -> dict[str, Any]:
    group = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-arc"
    arc = {"id": f"{group}/providers/Microsoft.HybridCompute/machines/srv-{number}", "name": f"srv-{number}"}
    return row(number) | arc | {"osType": "linux", "powerState": "Connected"} | columns


class BothTypes:
    """Resource Graph with a page of each type, and the virtual machines that have the unique ids in question."""

    def __init__(self, arcs: list[dict[str, Any]], twins: QueryPage) -> None:
        self.queries: list[str] = []
        self._pages = {"hybridcompute": QueryPage(arcs, wait_seconds=1), "properties.vmId": twins}

    async def page(self, query: str, subscriptions: object = (), skip_token: str = "") -> QueryPage:
        self.queries.append(query)
        return next((page for part, page in self._pages.items() if part in query), QueryPage([row(1)]))


async def discover_all(services: Services) -> list[DiscoveryPage]:
    pages = [await discover_page(services)]
    while pages[-1].cursor:
        pages.append(await discover_page(services, pages[-1].cursor))
    return pages


async def test_a_virtual_machine_that_is_an_arc_machine_as_well_is_taken_once(
    services: Services, storage: Storage
) -> None:
    await begin(services, storage, {}, machineTypes=["azure", "arc"])
    arcs = [arc_row(1, vmId=UNIQUE), arc_row(2, cloudProvider="Azure"), arc_row(3, vmUuid=UNIQUE.replace("9", "8"))]
    twins = QueryPage([{"id": vm_id(1), "vmId": UNIQUE}], wait_seconds=2)
    vars(services).update(resource_graph=BothTypes(arcs, twins))
    pages = await discover_all(services)
    assert [page.wait_seconds for page in pages[:1]] == [0]
    assert pages[-1].machines == 4
    found = {
        machine.name: machine
        for machine in (await storage.machines.list_page(RUN, outcome=None, limit=10, cursor=None)).items
    }
    assert {name: machine.outcome for name, machine in found.items()} == {
        "vm-1": None,
        "srv-1": OutcomeKind.SKIPPED,
        "srv-2": OutcomeKind.SKIPPED,
        "srv-3": None,
    }
    assert {found[name].reason for name in ("srv-1", "srv-2")} == {"duplicate"}
    assert vm_id(1) in found["srv-1"].message
    assert (found["srv-3"].os_type, found["srv-3"].power_state) == ("Linux", "Connected")


async def test_without_the_comparison_no_arc_machine_is_taken(services: Services, storage: Storage) -> None:
    await begin(services, storage, {}, machineTypes=["arc"])
    throttled = QueryPage(wait_seconds=5, failure=ArmFailure(status=429, code="RateLimiting"))
    vars(services).update(resource_graph=BothTypes([arc_row(1, vmId=UNIQUE)], throttled))
    page = await discover_page(services)
    assert page.failure.startswith("The Arc machines could not be compared")
    assert (page.wait_seconds > 0, page.counts_as_attempt) == (True, False)
    assert await storage.runs.count_machines(RUN) == 0


async def test_a_policy_for_virtual_machines_asks_for_nothing_else(services: Services, storage: Storage) -> None:
    await begin(services, storage, {})
    graph = BothTypes([], QueryPage())
    vars(services).update(resource_graph=graph)
    await discover_all(services)
    assert len(graph.queries) == 1
