"""import_results on a Resource Graph of pages: slices, what is news, what is kept, and pages that cannot be read."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activities import maintenance_results
from patchwave.azure.resource_graph import QueryPage
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.documents import Json
from patchwave.domain.maintenance.occurrence import MaintenanceOccurrence
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.domain.workflow.maintenance_run import ResultsPage
from patchwave.domain.workflow.run import MachinesPageRequest
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.factories import NOW, machine

RUN = "20261110T190000Z-weekly"
ID = (
    "/subscriptions/11111111-2222-3333-4444-555555555555/resourcegroups/rg/providers/microsoft.maintenance"
    "/maintenanceconfigurations/weekly/providers/microsoft.maintenance/applyupdates/20261110190000"
)
STARTED = datetime(2026, 11, 10, 19, 10, tzinfo=UTC)


class Graph:
    """Pages of installations by token, and one page of patches for each question about some of them."""

    def __init__(self, pages: dict[str, QueryPage]) -> None:
        self.pages = pages
        self.asked: list[int] = []
        """Of each question about patches, how many installations it names."""
        self.queries: list[tuple[str, Sequence[str], str]] = []
        self.patch_pages: list[QueryPage] = []

    async def page(self, query: str, subscriptions: Sequence[str], token: str) -> QueryPage:
        self.queries.append((query, tuple(subscriptions), token))
        named = re.findall(r"id startswith '([^']+)/'", query)
        if not named:
            return self.pages[token]
        self.asked.append(len(named))
        if self.patch_pages:
            return self.patch_pages.pop(0)
        return QueryPage(rows=[patch(one) for one in named])


def patch(installation_id: str, name: str = "curl") -> Json:
    properties = {
        "patchName": name,
        "version": "8.1",
        "installationState": "Installed",
        "classifications": ["Security"],
    }
    return {"id": f"{installation_id}/softwarePatches/{name}", "properties": properties}


def installation(number: int, at: datetime = STARTED, **properties: Any) -> Json:
    fields = {
        "status": "Succeeded",
        "installedPatchCount": 1,
        "rebootStatus": "NotNeeded",
        "startDateTime": at.isoformat(),
    }
    name = f"00000000-0000-4000-8000-{number:012d}"
    return {"id": f"{machine(number).id}/patchInstallationResults/{name}", "properties": fields | properties}


@pytest.fixture
def graph(
    services: Services,
) -> Graph:
    made = Graph({})
    vars(services).update(resource_graph=made)
    return made


async def begin(storage: Storage, count: int) -> None:
    occurrence = MaintenanceOccurrence(
        id=ID,
        configuration_id=ID.partition("/providers/microsoft.maintenance/applyupdates")[0],
        starts_at=NOW,
        ends_at=NOW,
        subscriptions=["s-1"],
        pre_deadline=NOW,
        cancel_deadline=NOW,
        post_deadline=NOW,
    )
    run = Run(
        id=RUN,
        policy="weekly",
        mode=Mode.MAINTENANCE,
        state=RunState.RUNNING,
        trigger=Trigger(kind=TriggerKind.EVENT_GRID),
        created_at=NOW,
        machines=count,
        policy_snapshot={"name": "weekly", "scope": {"osTypes": ["Linux"]}},
        maintenance=occurrence,
    )
    await storage.runs.create(run)
    await storage.machines.add(RUN, [machine(number) for number in range(count)])


async def copy(services: Services, cursor: str = "", attempt: int = 0) -> ResultsPage:
    request = MachinesPageRequest(run_id=RUN, cursor=cursor, attempt=attempt)
    return await maintenance_results.import_results(services, request)


async def row(storage: Storage, number: int) -> MachineRecord:
    found = await storage.machines.get(RUN, machine(number).key)
    assert found
    return found


async def test_a_page_is_copied_in_slices_of_fifty_and_patches_are_read_ten_at_a_time(
    services: Services, storage: Storage, graph: Graph
) -> None:
    await begin(storage, 53)
    graph.pages = {
        "": QueryPage(rows=[installation(number) for number in range(51)], skip_token="next", wait_seconds=3),
        "next": QueryPage(rows=[installation(51)]),
    }
    first = await copy(services)
    assert (first.cursor, first.wait_seconds, first.machines) == ('["", 50]', 3.0, 53)
    assert graph.asked == [10, 10, 10, 10, 10]
    assert (await row(storage, 49)).installation
    assert (await row(storage, 50)).installation is None
    second = await copy(services, first.cursor)
    assert second.cursor == '["next", 0]'
    assert graph.asked[5:] == [1]
    third = await copy(services, second.cursor)
    assert (third.cursor, third.awaited, third.in_progress, third.failure) == ("", 1, 1, "")
    assert graph.asked[6:] == [1]
    query, subscriptions, token = graph.queries[0]
    assert (ID in query, subscriptions, token) == (True, ("s-1",), "")


async def test_what_is_copied_is_kept_with_patches_and_errors(
    services: Services, storage: Storage, graph: Graph
) -> None:
    await begin(storage, 1)
    error = {"code": "1", "details": [{"code": "UA_ESM_REQUIRED", "message": "7 patches requires Ubuntu Pro"}]}
    graph.pages = {"": QueryPage(rows=[installation(0, errorDetails=error)])}
    graph.patch_pages = [
        QueryPage(rows=[patch(installation(0)["id"].lower())], skip_token="more"),
        QueryPage(rows=[patch(installation(0)["id"].lower(), "vim"), patch("/other/patchInstallationResults/x")]),
    ]
    copied = await copy(services)
    assert (copied.awaited, copied.in_progress) == (0, 0)
    kept = await row(storage, 0)
    assert kept.stage is Stage.VERIFYING
    assert kept.update_manager_error == "UA_ESM_REQUIRED: 7 patches requires Ubuntu Pro"
    assert kept.installation
    assert (kept.installation.installed, kept.installation.started_at) == (1, STARTED)
    assert [(each.code, each.count) for each in kept.installation.errors] == [("UA_ESM_REQUIRED", 7)]
    assert [each.name for each in await storage.results.list_patches(RUN, kept.key)] == ["curl", "vim"]
    assert [token for query, _, token in graph.queries if "startswith" in query] == ["", "more"]


async def test_an_installation_without_errors_reports_none(services: Services, storage: Storage, graph: Graph) -> None:
    await begin(storage, 1)
    graph.pages = {"": QueryPage(rows=[installation(0, errorDetails={"code": "0", "details": []})])}
    await copy(services)
    assert (await row(storage, 0)).update_manager_error == ""


async def test_only_what_is_over_and_newer_is_news(services: Services, storage: Storage, graph: Graph) -> None:
    await begin(storage, 2)
    graph.pages = {"": QueryPage(rows=[installation(0, status="InProgress"), installation(7), {"id": "nonsense"}])}
    copied = await copy(services)
    assert (copied.awaited, graph.asked) == (2, [])
    for at, installed, expected in (
        (STARTED, 1, 1),
        (STARTED, 2, 1),
        (STARTED - timedelta(minutes=1), 3, 1),
        (STARTED + timedelta(minutes=1), 4, 4),
    ):
        graph.pages = {"": QueryPage(rows=[installation(0, at, installedPatchCount=installed)])}
        await copy(services)
        kept = (await row(storage, 0)).installation
        assert kept
        assert kept.installed == expected
    graph.pages = {"": QueryPage(rows=[installation(0, startDateTime=None, installedPatchCount=9)])}
    await copy(services)
    kept = (await row(storage, 0)).installation
    assert kept
    assert kept.installed == 4, "without a time it is not known to be newer"


@pytest.mark.parametrize("of_patches", [False, True])
async def test_an_unreadable_page_has_the_time_to_wait(
    services: Services, storage: Storage, graph: Graph, of_patches: bool
) -> None:
    await begin(storage, 1)
    failure = ArmFailure(status=503, code="ServerBusy", message="busy")
    bad = QueryPage(failure=failure, wait_seconds=10)
    graph.pages = {"": QueryPage(rows=[installation(0)]) if of_patches else bad}
    graph.patch_pages = [bad]
    copied = await copy(services)
    assert copied.failure.startswith("The results of the scheduled run could not be read. ")
    assert "ServerBusy" in copied.failure
    assert copied.wait_seconds >= 10
    assert (copied.machines, copied.cursor) == (1, "")
    assert (await row(storage, 0)).installation is None
    final = QueryPage(failure=ArmFailure(status=403, code="AuthorizationFailed", message="no"))
    graph.pages, graph.patch_pages = {"": QueryPage(rows=[installation(0)]) if of_patches else final}, [final]
    copied = await copy(services, attempt=1)
    assert (copied.wait_seconds, bool(copied.failure)) == (0, True)


async def test_a_copy_that_is_repeated_changes_nothing(services: Services, storage: Storage, graph: Graph) -> None:
    await begin(storage, 1)
    graph.pages = {"": QueryPage(rows=[installation(0)])}
    await copy(services)
    before = await row(storage, 0)
    await copy(services)
    assert await row(storage, 0) == before
    assert graph.asked == [1]
