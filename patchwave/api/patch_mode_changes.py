"""Changes of patch modes over HTTP: a plan that changes nothing, then its start, and its stop.

Only a plan can be started, so that nobody changes a fleet without having been able to see what that means.
"""

from __future__ import annotations

import asyncio
import secrets
from datetime import UTC, datetime
from typing import Annotated

import azure.durable_functions as df
import azure.functions as func
import grpc
from pydantic import Field, ValidationError

from patchwave.api.endpoint import (
    INVALID_BODY,
    INVALID_QUERY,
    LOCATION,
    PAGED,
    Answer,
    AuditPage,
    Body,
    ListPage,
    Parameter,
    described,
)
from patchwave.api.http import (
    Refusal,
    answer,
    answered,
    caller_of,
    invalid_body,
    no_such,
    page_of,
    paged,
    read_json,
    route_of,
    word_of,
)
from patchwave.api.requests import MAX_REASON, ORDER, read_order
from patchwave.domain.core.command import Order
from patchwave.domain.core.documents import Json
from patchwave.domain.core.validation import Problem, explain
from patchwave.domain.fleet.discovery import missing_ids
from patchwave.domain.fleet.machine import within_boundary
from patchwave.domain.fleet.patch_mode import WantedSettings
from patchwave.domain.fleet.patch_mode_change import (
    MAX_WAVE,
    ChangeEnd,
    ChangeRef,
    ChangeState,
    MachineChange,
    ModeChange,
    change_id,
    count_ends,
    missing_machine,
    plan_machine,
)
from patchwave.domain.policy.scope import Scope
from patchwave.domain.workflow import contracts
from patchwave.services.fleet_reader import FLEET_REFUSES, one_of_few, read_fleet
from patchwave.services.policy_guardrails import boundary, scope_problems
from patchwave.services.start_run import DurableClient
from patchwave.storage import Storage, open_storage

DEFAULT_WAVE = 20
DEFAULT_FAILURES = 10
MAX_FAILURES = 100_000
"""More than a change has machines: beyond it the limit would never be reached."""
NO_CHANGE = {404: "There is no such change."}
_WHAT = "change of patch modes"
_EXAMPLE: Json = {
    "scope": {"subscriptions": ["11111111-2222-4333-8444-555555555555"], "osTypes": ["Linux"]},
    "patchMode": "AutomaticByPlatform",
    "bypass": True,
    "reason": "Patchwave patches these machines.",
}

bp = df.Blueprint()


class ChangeRequest(WantedSettings):
    """Which machines shall be set to what, how many of them at a time, and when to give up."""

    scope: Scope = Field(description="The machines; at least one selector.")
    max_concurrent: int = Field(
        default=DEFAULT_WAVE, ge=1, le=MAX_WAVE, description="Machines that are changed at the same time."
    )
    max_failures: int = Field(
        default=DEFAULT_FAILURES,
        ge=1,
        le=MAX_FAILURES,
        description="The change ends once so many machines have failed.",
    )
    reason: Annotated[str, Field(max_length=MAX_REASON)] = Field(default="", description="Why, for people.")
    by: Annotated[str, Field(max_length=200)] = Field(
        default="", description="Who asks, where the platform does not know who calls."
    )


class ChangePage(ListPage):
    """Changes, newest first."""

    changes: list[ModeChange]


class MachineChangePage(ListPage):
    """Machines of a change."""

    machines: list[MachineChange]


_END = Parameter("end", {"type": "string", "enum": list(ChangeEnd)}, "Only machines that ended like this.")


@bp.route(route="fleet/mode-changes", methods=["POST"])
@described(
    Answer(201, ModeChange, headers=(LOCATION,)),
    body=Body(ChangeRequest, {"to Patchwave": _EXAMPLE}),
    refuses=INVALID_BODY | FLEET_REFUSES,
)
@answered
@one_of_few
async def plan_mode_change(req: func.HttpRequest) -> func.HttpResponse:
    """Plan a change of patch modes: what becomes of each machine of the scope, without changing anything.

    Machines that are set so already, and those for which Azure would refuse it, have their end in the plan; the rest
    is what `start` changes.
    """
    # Beside the event loop: it may have 256 KB.
    request, wanted = await asyncio.to_thread(_read, read_json(req))
    storage = open_storage()
    found = await read_fleet(request.scope)
    at = datetime.now(UTC)
    within = within_boundary(found, boundary())

    def plan() -> list[MachineChange]:
        missing = missing_ids(request.scope, (machine.found.machine_id for machine in found))
        planned = [plan_machine(machine, wanted, at) for machine in within]
        return planned + [missing_machine(identity, at) for identity in missing]

    # Seconds for a large fleet: other requests of this process go on meanwhile.
    machines = await asyncio.to_thread(plan)
    ends: dict[str, int] = {}
    for machine in machines:
        if machine.end is not None:
            ends[machine.end] = ends.get(machine.end, 0) + 1
    order = Order(**caller_of(req, claimed=request.by).who, why=request.reason, at=at)
    change = ModeChange(
        id=change_id(at, secrets.token_hex(4)),
        state=ChangeState.PLANNED,
        wanted=wanted,
        scope=request.scope,
        max_concurrent=request.max_concurrent,
        max_failures=request.max_failures,
        planned=order,
        machines=len(machines),
        to_change=len(machines) - sum(ends.values()),
        counts_by_end=count_ends(ends),
    )
    await storage.patch_mode_changes.create(change, machines)
    await storage.audit.add(
        change.id, "mode_change_planned", **order.who, at=at, detail={"wanted": wanted.to_wire(), "why": order.why}
    )
    return answer(change.to_wire(), status=201, headers={"Location": f"/api/fleet/mode-changes/{change.id}"})


@bp.route(route="fleet/mode-changes", methods=["GET"])
@described(Answer(200, ChangePage), query=PAGED, refuses=INVALID_QUERY)
@answered
async def list_mode_changes(req: func.HttpRequest) -> func.HttpResponse:
    """Changes of patch modes, newest first, a page at a time."""
    limit, cursor = page_of(req)
    page = await open_storage().patch_mode_changes.list_page(limit, cursor)
    return answer(paged("changes", [change.to_wire() for change in page.items], page))


@bp.route(route="fleet/mode-changes/{changeId}", methods=["GET"])
@described(Answer(200, ModeChange), refuses=NO_CHANGE)
@answered
async def get_mode_change(req: func.HttpRequest) -> func.HttpResponse:
    """One change; the ends of one that is under way are counted now."""
    storage = open_storage()
    return answer((await _counted(storage, await _find(storage, req))).to_wire())


@bp.route(route="fleet/mode-changes/{changeId}/machines", methods=["GET"])
@described(Answer(200, MachineChangePage), query=[_END, *PAGED], refuses=INVALID_QUERY | NO_CHANGE)
@answered
async def list_mode_change_machines(req: func.HttpRequest) -> func.HttpResponse:
    """The machines of a change, a page at a time, of one end or of all; one without an end is still to be changed."""
    limit, cursor = page_of(req)
    end = word_of(req, "end", ChangeEnd)
    storage = open_storage()
    change = await _find(storage, req)
    page = await storage.patch_mode_changes.list_machines(change.id, end=end, limit=limit, cursor=cursor)
    return answer(paged("machines", [machine.to_wire() for machine in page.items], page))


@bp.route(route="fleet/mode-changes/{changeId}/audit", methods=["GET"])
@described(Answer(200, AuditPage), query=PAGED, refuses=INVALID_QUERY | NO_CHANGE)
@answered
async def list_mode_change_audit(req: func.HttpRequest) -> func.HttpResponse:
    """Who planned, started and stopped a change, oldest first."""
    limit, cursor = page_of(req)
    storage = open_storage()
    change = await _find(storage, req)
    page = await storage.audit.list_page(change.id, limit, cursor)
    return answer(paged("audit", page.items, page))


@bp.route(route="fleet/mode-changes/{changeId}/start", methods=["POST"])
@bp.durable_client_input(client_name="client")
@described(
    Answer(202, ModeChange, headers=(LOCATION,)),
    body=ORDER,
    refuses=INVALID_BODY | NO_CHANGE | {409: "It was stopped, or its plan is older than 24 hours."},
)
@answered
async def start_mode_change(req: func.HttpRequest, client: df.DurableFunctionsClient) -> func.HttpResponse:
    """Carry out a plan. Repeating it changes nothing, and takes up a change whose worker was lost for good."""
    storage = open_storage()
    order = read_order(req, datetime.now(UTC))
    change = await storage.patch_mode_changes.start((await _find(storage, req)).id, order)
    if change.state is ChangeState.RUNNING:
        if change.started is not None and change.started.at == order.at:
            await storage.audit.add(
                change.id, "mode_change_started", **order.who, at=order.at, detail={"why": order.why}
            )
        await _schedule(client, change.id)
    return _accepted(await _counted(storage, change))


@bp.route(route="fleet/mode-changes/{changeId}/stop", methods=["POST"])
@described(
    Answer(202, ModeChange, headers=(LOCATION,)),
    body=ORDER,
    refuses=INVALID_BODY | NO_CHANGE | {409: "It has ended."},
)
@answered
async def stop_mode_change(req: func.HttpRequest) -> func.HttpResponse:
    """Ask Azure for nothing more. What it has taken is followed to its end."""
    storage = open_storage()
    order = read_order(req, datetime.now(UTC))
    change = await storage.patch_mode_changes.stop((await _find(storage, req)).id, order)
    await storage.audit.add(change.id, "mode_change_stopped", **order.who, at=order.at, detail={"why": order.why})
    return _accepted(await _counted(storage, change))


def _read(body: object) -> tuple[ChangeRequest, WantedSettings]:
    try:
        request = ChangeRequest.from_wire(body)
    except ValidationError as error:
        raise invalid_body(*explain(error, ChangeRequest)) from None
    if not request.scope.has_selector:
        message = (
            "selects nothing; name at least one of subscriptions, resourceGroups, locations, osTypes, tags, machineIds"
        )
        raise invalid_body(Problem(path="scope", message=message))
    if problems := scope_problems(request.scope):
        raise invalid_body(*problems)
    return request, WantedSettings.model_validate(request.model_dump(include=set(WantedSettings.model_fields)))


async def _find(storage: Storage, request: func.HttpRequest) -> ModeChange:
    """The change of the route.

    Raises:
        Refusal: 404 when there is none.
    """
    try:
        found = await storage.patch_mode_changes.get(route_of(request, "changeId"))
    except ValueError:
        # It has not the form of an id, or is of a day that there is not.
        found = None
    if found is None:
        raise no_such(_WHAT)
    return found


async def _counted(storage: Storage, change: ModeChange) -> ModeChange:
    """The change with its ends as they are now."""
    if change.state.is_final and change.started is not None:
        return change
    _, ends = await storage.patch_mode_changes.list_pending(change.id, 0)
    return change.model_copy(update={"counts_by_end": ends})


async def _schedule(client: DurableClient, change: str) -> None:
    """Start the orchestration of a change; one that runs already is as good.

    Raises:
        Refusal: 503, the durable engine did not take it.
    """
    try:
        await client.schedule_new_orchestration(
            contracts.CHANGE_PATCH_MODES.name,
            input=ChangeRef(change_id=change).to_wire(),
            instance_id=change,
            version=contracts.VERSION,
        )
    except grpc.RpcError as error:
        # Engines word this refusal differently, so its being there decides.
        if await client.get_orchestration_state(change) is None:
            raise Refusal(
                503, "The change could not be scheduled; repeat the request.", headers={"Retry-After": "15"}
            ) from error


def _accepted(change: ModeChange) -> func.HttpResponse:
    return answer(change.to_wire(), status=202, headers={"Location": f"/api/fleet/mode-changes/{change.id}"})
