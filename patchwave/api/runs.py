"""Runs over HTTP: start, list, get. `patchwave.api.run_commands` has the commands to live runs.

Durable's own management URLs are never returned.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from azure.durable_functions import DurableFunctionsClient
from azure.functions import HttpRequest, HttpResponse
from pydantic import Field

from patchwave.api.audit import audit_route
from patchwave.api.auth import may_author
from patchwave.api.endpoint import (
    LOCATION,
    NO_MACHINE,
    NO_RUN,
    RETRY_AFTER,
    PageSpec,
    RequestBody,
    ResponseSpec,
    SchemaTweaks,
    route,
)
from patchwave.api.http import Headers, PageQuery, json_response, route_of, run_id_of
from patchwave.api.problems import ApiProblem, no_such
from patchwave.api.requests import ReasonQuery, StartRequest, command_of
from patchwave.domain.core.documents import Json
from patchwave.domain.core.ids import is_machine_key
from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.core.patches import PatchRecord
from patchwave.domain.core.principal import Role
from patchwave.domain.planning.plan import Plan
from patchwave.domain.runs.intent import OperationAttempt
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Mode, Run, Trigger, TriggerKind
from patchwave.domain.runs.waiting import waiting_for
from patchwave.services.start_run import (
    MAX_KEY,
    claimed_run_id,
    name_for_keys,
    new_run_id,
    requested_mode,
    requested_policy,
)
from patchwave.services.start_run import start_run as start
from patchwave.storage import Storage
from patchwave.wiring import Services

POLL_SECONDS = 5
"""When a caller should poll the run again."""

type ListedRun = Annotated[Run, SchemaTweaks(without=("policySnapshot",))]


class MachineInRun(MachineRecord):
    """A machine of a run. ``waiting_for`` is computed for each response."""

    waiting_for: str = ""
    """What blocks the machine; empty when it has ended, or is in progress."""


type ListedMachine = Annotated[MachineInRun, SchemaTweaks(without=("tags",))]

_RUNS = PageSpec("RunPage", "runs", ListedRun, "Runs, newest ids first.")
_MACHINES = PageSpec("MachinePage", "machines", ListedMachine, "Machines of a run.")


class MachineDetail(MachineInRun):
    """A machine with every patch, and the requests that were sent to Azure for it, by operation and number."""

    patches: list[PatchRecord]
    attempts: list[OperationAttempt]


class RunMachinesQuery(PageQuery):
    """A page of machines, perhaps of one outcome only."""

    outcome: OutcomeKind | None = Field(default=None, description="Only machines that ended like this.")


class StartHeaders(Headers):
    """The header that makes a start repeatable."""

    idempotency_key: str = Field(
        default="",
        max_length=MAX_KEY,
        json_schema_extra={"minLength": 1},
        description="A repetition by the same caller with the same key and body gives the first run; with another body"
        " of the same policy it is refused.",
    )


_INLINE: Json = {
    "policy": {
        "scope": {"subscriptions": ["11111111-2222-4333-8444-555555555555"], "tags": {"values": {"env": ["test"]}}},
        "maxConcurrent": "10%",
    },
    "mode": "patch",
    "overrides": {"install": {"rebootSetting": "Never"}},
}


@route(
    "POST",
    "runs",
    ResponseSpec(202, ListedRun, headers=(LOCATION, RETRY_AFTER)),
    role=Role.OPERATOR,
    body=RequestBody(StartRequest, {"stored": {"policy": "monthly", "mode": "assess"}, "inline": _INLINE}),
    problems={
        403: "Roles count, and the caller is no operator, or asks for what only an author may start.",
        404: "There is no policy of this name.",
        422: "The key was used for another request.",
    },
)
async def start_run(
    req: HttpRequest,
    client: DurableFunctionsClient,
    services: Services,
    query: ReasonQuery,
    headers: StartHeaders,
    body: StartRequest,
) -> HttpResponse:
    """Start a run of a stored or an inline policy: 202. A repeated ``Idempotency-Key`` gives the first run.

    An operator may start stored policies, with overrides that only narrow them; the rest takes an author.
    """
    command = command_of(req, query.actor, query.reason, datetime.now(UTC))
    chosen = await requested_policy(
        services,
        body.policy,
        body.overrides,
        actor=command.actor,
        actor_id=command.actor_id,
        may_author=may_author(req.headers),
        installs=body.mode is not Mode.ASSESS,
    )
    mode = requested_mode(chosen.policy, body.mode)
    run_id, storage = new_run_id(chosen.policy), services.storage
    key = headers.idempotency_key
    if key:
        # The platform's identity if present. Function keys do not identify callers, so the request's name counts.
        caller = ("id", command.actor_id) if command.actor_id else ("name", command.actor)
        scope = (*caller, name_for_keys(body.policy))
        run_id = await claimed_run_id(storage, "idempotency-key", key, run_id, body.as_sent(), scope=scope)
    trigger = Trigger(kind=TriggerKind.HTTP, **command.who, detail=command.reason)
    return accepted(await start(storage, client, chosen, run_id, trigger, mode=mode, repeatable=bool(key)))


@route("GET", "runs", _RUNS.response, role=Role.READER)
async def list_runs(req: HttpRequest, storage: Storage, query: PageQuery) -> HttpResponse:
    """Runs, newest ids first, a page at a time."""
    del req
    page = await storage.runs.list_page(query.limit, query.cursor)
    return _RUNS.respond([listed_run(run) for run in page.items], page)


@route("GET", "runs/{runId}", ResponseSpec(200, Run), role=Role.READER, problems=NO_RUN)
async def get_run(req: HttpRequest, storage: Storage) -> HttpResponse:
    """One run with its counts and its policy; ``countedAt`` says when those of a run that goes on were counted."""
    run = await storage.runs.get_counted(run_id_of(req), datetime.now(UTC))
    if run is None:
        raise no_such("run")
    return json_response(run.to_wire(), headers={} if run.state.is_final else {"Retry-After": str(POLL_SECONDS)})


@route("GET", "runs/{runId}/machines", _MACHINES.response, role=Role.READER, problems=NO_RUN)
async def list_run_machines(req: HttpRequest, storage: Storage, query: RunMachinesQuery) -> HttpResponse:
    """The machines of a run, a page at a time, of one outcome or of all."""
    run = await find_run(storage, run_id_of(req))
    page = await storage.machines.list_page(run.id, **dict(query))
    waits = await _waits(storage, run)
    # Lists omit tags, of which there may be 50; an empty object would mean that there are none.
    rows = [
        machine.model_dump(mode="json", by_alias=True, exclude={"tags"}) | {"waitingFor": waits(machine)}
        for machine in page.items
    ]
    return _MACHINES.respond(rows, page)


@route("GET", "runs/{runId}/machines/{machineKey}", role=Role.READER, problems=NO_MACHINE)
async def get_run_machine(req: HttpRequest, storage: Storage) -> MachineDetail:
    """One machine of a run with every patch, and which attempts were made with which parameters."""
    run, machine = await find_machine(storage, req)
    patches = await storage.results.list_patches(run.id, machine.key)
    intents = await storage.intents.list_of_machine(run.id, machine.key)
    attempts = [attempt for intent in intents for attempt in intent.attempts]
    waits = (await _waits(storage, run))(machine)
    return MachineDetail(**dict(machine), waiting_for=waits, patches=patches, attempts=attempts)


@route("GET", "runs/{runId}/plan", role=Role.READER, problems={404: "There is no such run, or it has no plan."})
async def get_run_plan(req: HttpRequest, storage: Storage) -> Plan:
    """The plan that a run follows: 404 while there is none, and for runs that only assess."""
    run = await find_run(storage, run_id_of(req))
    plan = await storage.plans.get(run.id)
    if plan is None:
        raise ApiProblem(404, "The run has no plan: it has not planned yet, or only assesses.")
    return plan


@audit_route("runs/{runId}/audit", problems=NO_RUN)
async def list_run_audit(storage: Storage, req: HttpRequest) -> str:
    """Who ordered what in a run and what its gates did, oldest first, a page at a time."""
    return (await find_run(storage, run_id_of(req))).id


async def _waits(storage: Storage, run: Run) -> Callable[[MachineRecord], str]:
    """What a machine of the run waits for now."""
    if run.state.is_final or run.mode is not Mode.PATCH:
        return lambda machine: waiting_for(run, machine, [], None)
    plan = await storage.plans.get_summary(run.id)
    rings = [ring.name for ring in plan.rings] if plan is not None else []
    phase = await storage.reservations.get_phase(run.id)
    return lambda machine: waiting_for(run, machine, rings, phase)


def accepted(run: Run) -> HttpResponse:
    """202 with the run and its URL."""
    headers = {"Location": f"/api/runs/{run.id}", "Retry-After": str(POLL_SECONDS)}
    return json_response(listed_run(run), status=202, headers=headers)


async def find_run(storage: Storage, run_id: str) -> Run:
    """The run.

    Raises:
        ApiProblem: 404 when it does not exist.
    """
    run = await storage.runs.get(run_id)
    if run is None:
        raise no_such("run")
    return run


async def find_machine(storage: Storage, req: HttpRequest) -> tuple[Run, MachineRecord]:
    """The run and the machine of the path.

    Raises:
        ApiProblem: 404 when one does not exist.
    """
    run = await find_run(storage, run_id_of(req))
    key = route_of(req, "machineKey")
    machine = await storage.machines.get(run.id, key) if is_machine_key(key) else None
    if machine is None:
        raise no_such("machine in this run")
    return run, machine


def listed_run(run: Run) -> dict[str, Any]:
    """The run without its policy."""
    return run.model_dump(mode="json", by_alias=True, exclude={"policy_snapshot"})
