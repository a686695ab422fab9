"""Microsoft.HybridCompute: what reading, assessing and installing is on Arc machines.

Plain requests through the pipeline: four of them do not need azure-mgmt-hybridcompute, whose models would be read as
JSON anyway (docs/adr/0043-arc-machines.md). Power, disks and scripts of Arc machines are not changed: no policy may ask
for that (`patchwave.domain.policy.arc_rules`).

Resource Manager tells less than of virtual machines, so Resource Graph is asked as well: for the newest installation of
a machine, and for the list of patches that belongs to a result.
"""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic

from patchwave.azure.compute import Submission, submit
from patchwave.azure.pipeline import ArmPipeline
from patchwave.azure.rate_limiter import open_rate_limits
from patchwave.azure.resource_graph import ResourceGraph, Row
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.hybrid_machine import HybridMachineView, count_patches, read_summary, to_compute_result
from patchwave.domain.azure.install_request import InstallParameters
from patchwave.domain.azure.operation import PollReading, PollState
from patchwave.domain.azure.patch_results import PatchSummary
from patchwave.domain.core.documents import Json, object_or_none, parse_object, str_or_empty
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import MachineId
from patchwave.domain.fleet.arc_results import (
    installations_of,
    newest_installations,
    patches_of,
    read_newest,
    with_patches,
)
from patchwave.settings import Settings

API_VERSION = "2026-07-15"
_NOT_THERE = (403, 404)
"""Of the latest assessment: there is none yet, or the identity may not read it. Both are unknown."""
_LIST_POLLS = 10
"""Poll intervals that an ended operation waits for its list of patches. Without it the result has counts alone."""
_MAX_PAGES = 20
_MAX_LISTING = 2_000


class HybridMachines:
    """Arc machines, with the pipeline of `ResourceManager`."""

    def __init__(self, settings: Settings, pipeline: ArmPipeline) -> None:
        self._settings = settings
        self._pipeline = pipeline
        self._graph = ResourceGraph(settings, pipeline)
        # The newest installation of each Arc machine, by subscription, with the time of the query for all of them.
        self._installed: dict[str, tuple[float, dict[str, PatchSummary]]] = {}
        # One query at a time: all subscriptions share the quota.
        self._gate = asyncio.Lock()
        # Since when each result waits for its list, by activity id.
        self._listing: dict[str, float] = {}

    async def read(self, machine: MachineId, *, settles: bool) -> HybridMachineView | ArmFailure:
        """The machine with its latest assessment and its newest installation.

        Args:
            machine: an Arc machine.
            settles: read the newest installation now, or fail. Otherwise it is one of a poll interval ago, or none.
        """
        found, assessed, installed = await asyncio.gather(
            self._get(machine.text),
            self._get(f"{machine.text}/patchAssessmentResults/latest"),
            self._newest_installation(machine) if settles else self._recent_installation(machine),
        )
        if isinstance(found, ArmFailure):
            return found
        if isinstance(assessed, ArmFailure) and assessed.status not in _NOT_THERE:
            return assessed
        if isinstance(installed, ArmFailure):
            return installed
        view = HybridMachineView.model_validate(found)
        summary = (
            None if isinstance(assessed, ArmFailure) else read_summary(object_or_none(assessed.get("properties")) or {})
        )
        return view.model_copy(update={"last_assessment": summary, "last_installation": installed})

    async def assess(self, machine: MachineId, request_id: str) -> Submission:
        """POST assessPatches; the caller has the reservation of the rate limit."""
        return await self._submit(machine, "assessPatches", {}, request_id)

    async def install(self, machine: MachineId, parameters: InstallParameters, request_id: str) -> Submission:
        """POST installPatches; both ``maximumDuration`` and ``rebootSetting`` are required here."""
        return await self._submit(machine, "installPatches", parameters.to_azure(), request_id)

    async def complete(self, machine: MachineId, ended: PollReading) -> PollReading:
        """The reading of an operation that has ended, with the counts of a virtual machine's and its list of patches.

        While Resource Graph does not show the whole list, the operation counts as running, for a limited time.
        """
        result = to_compute_result(ended.result)
        counted = count_patches(result)
        if not counted:
            return ended.model_copy(update={"result": result})
        rows = await self._rows(patches_of(machine, result), machine)
        if not isinstance(rows, ArmFailure):
            result = with_patches(result, rows)
        listed = len(result.get("patches") or result.get("availablePatches") or ())
        if listed < counted and self._waits_for_list(machine, result):
            return PollReading(state=PollState.RUNNING, retry_after=ended.retry_after)
        return ended.model_copy(update={"result": result})

    def _waits_for_list(self, machine: MachineId, result: Json) -> bool:
        activity = str_or_empty(result.get("installationActivityId")) or str_or_empty(
            result.get("assessmentActivityId")
        )
        since = self._listing.setdefault(f"{machine.key}/{activity}", monotonic())
        if len(self._listing) > _MAX_LISTING:
            self._listing.pop(next(iter(self._listing)))
        return monotonic() - since < self._settings.poll_seconds * _LIST_POLLS

    async def close(self) -> None:
        """Close the connections."""
        await self._pipeline.close()

    async def _submit(self, machine: MachineId, action: str, body: Json, request_id: str) -> Submission:
        from azure.core.rest import HttpRequest

        request = HttpRequest("POST", self._url(f"{machine.text}/{action}"), json=body)
        rate_limit = open_rate_limits(self._settings).of_arc_patches(machine.subscription_id)
        return await submit(partial(self._pipeline.submit, request), rate_limit, request_id, has_reservation=True)

    async def _newest_installation(self, machine: MachineId) -> PatchSummary | ArmFailure | None:
        rows = await self._rows(installations_of(machine), machine)
        return rows if isinstance(rows, ArmFailure) else read_newest(rows)

    async def _recent_installation(self, machine: MachineId) -> PatchSummary | None:
        """The newest installation a poll interval ago; ``None`` where none is known, or Resource Graph fails.

        Before an installation it tells which operations are not ours. One query for each machine would use up the
        quota.
        """
        longest_age = self._settings.poll_seconds
        async with self._gate:
            at, found = self._installed.get(machine.subscription_id, (-longest_age, dict[str, PatchSummary]()))
            if monotonic() - at >= longest_age:
                rows = await self._rows(newest_installations(), machine)
                found = dict[str, PatchSummary]()
                if not isinstance(rows, ArmFailure):
                    found = dict(map(_installation_in, rows))
                self._installed[machine.subscription_id] = (monotonic(), found)
        return found.get(machine.folded)

    async def _rows(self, query: str, machine: MachineId) -> list[Row] | ArmFailure:
        rows: list[Row] = []
        token = ""
        for _ in range(_MAX_PAGES):
            page = await self._graph.page(query, [machine.subscription_id], token)
            if page.failure is not None:
                wait = page.wait_seconds or page.failure.retry_after
                return page.failure.model_copy(update={"retry_after": wait})
            rows += page.rows
            token = page.skip_token
            if not token:
                break
        return rows

    async def _get(self, path: str) -> Json | ArmFailure:
        from azure.core.rest import HttpRequest

        reply = await self._pipeline.send(HttpRequest("GET", self._url(path)))
        if reply.status != 200:
            return reply.to_failure()
        found = parse_object(reply.body)
        return ArmFailure(status=0, message="Resource Manager answered in no known form") if found is None else found

    def _url(self, path: str) -> str:
        return f"{self._settings.manager_url}{path}?api-version={API_VERSION}"


def _installation_in(row: Row) -> tuple[str, PatchSummary]:
    """The machine, by id in lower case, and its newest installation."""
    return fold(str_or_empty(row.get("machine"))), read_summary(object_or_none(row.get("properties")) or {})
