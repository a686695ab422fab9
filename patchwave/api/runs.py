"""Runs over HTTP: start, list, get. `patchwave.api.run_commands` has the commands to live runs.

Durable's own management URLs are never returned.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import azure.durable_functions as df
import azure.functions as func

from patchwave.api.audit import audit_route
from patchwave.api.auth import may_author
from patchwave.api.endpoint import (
    INVALID_BODY,
    INVALID_QUERY,
    LOCATION,
    NO_MACHINE,
    NO_RUN,
    PAGED,
    RETRY_AFTER,
    PageSpec,
    ParameterSpec,
    RequestBody,
    ResponseSpec,
    SchemaTweaks,
    route,
)
from patchwave.api.http import header_of, json_response, page_of, route_of, run_id_of, word_of
from patchwave.api.problems import ApiProblem, no_such
from patchwave.api.requests import IDEMPOTENCY_KEY, KEY_REUSED, REASON_QUERY, StartRequest, read_reason
from patchwave.domain.core.documents import Json
from patchwave.domain.core.ids import is_machine_key
from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.core.patches import PatchRecord
from patchwave.domain.core.principal import Role
from patchwave.domain.planning.plan import Plan
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Mode, Run, Trigger, TriggerKind
from patchwave.domain.runs.waiting import waiting_for
from patchwave.services.start_run import claimed_run_id, name_for_keys, new_run_id, requested_policy
from patchwave.services.start_run import start_run as start
from patchwave.storage import Storage, open_storage

POLL_SECONDS = 5
"""When a caller should poll the run again."""

type ListedRun = Annotated[Run, SchemaTweaks(without=("policySnapshot",))]


class MachineInRun(MachineRecord):
    """A machine of a run. ``waiting_for`` is made when it is asked for."""

    waiting_for: str = ""
    """What blocks the machine; empty when it has ended, or is in progress."""


type ListedMachine = Annotated[MachineInRun, SchemaTweaks(without=("tags",))]


_RUNS = PageSpec("RunPage", "runs", ListedRun, "Runs, newest ids first.")


_MACHINES = PageSpec("MachinePage", "machines", ListedMachine, "Machines of a run.")


class MachineDetail(MachineInRun):
    """A machine with every patch."""

    patches: list[PatchRecord]


_OUTCOME = ParameterSpec(
    "outcome", {"type": "string", "enum": list(OutcomeKind)}, "Only machines that ended like this."
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
    query=REASON_QUERY,
    headers=[IDEMPOTENCY_KEY],
    problems=INVALID_BODY
    | {403: "Roles count, and the caller is no operator, or asks for what only an author may start."}
    | {404: "There is no policy of this name."}
    | KEY_REUSED,
)
async def start_run(req: func.HttpRequest, client: df.DurableFunctionsClient, body: StartRequest) -> func.HttpResponse:
    """Start a run of a stored or an inline policy: 202. A repeated ``Idempotency-Key`` gives the first run.

    An operator may start stored policies, with overrides that only narrow them; the rest takes an author.
    """
    said = read_reason(req, datetime.now(UTC))
    storage = open_storage()
    chosen = await requested_policy(
        storage,
        body.policy,
        body.overrides,
        actor=said.actor,
        actor_id=said.actor_id,
        may_author=may_author(req.headers),
        installs=body.mode is Mode.PATCH,
    )
    run_id = new_run_id(chosen.policy)
    key = header_of(req, "idempotency-key")
    if key:
        # The platform's identity if present. Function keys do not identify callers, so the request's name counts.
        caller = ("id", said.actor_id) if said.actor_id else ("name", said.actor)
        scope = (*caller, name_for_keys(body.policy))
        run_id = await claimed_run_id(storage, "idempotency-key", key, run_id, body.as_sent(), scope=scope)
    trigger = Trigger(kind=TriggerKind.HTTP, **said.who, detail=said.reason)
    return accepted(await start(storage, client, chosen, run_id, trigger, mode=body.mode, repeatable=bool(key)))


@route("GET", "runs", _RUNS.response, role=Role.READER, query=PAGED, problems=INVALID_QUERY)
async def list_runs(req: func.HttpRequest) -> func.HttpResponse:
    """Runs, newest ids first, a page at a time."""
    limit, cursor = page_of(req)
    page = await open_storage().runs.list_page(limit, cursor)
    return _RUNS.respond([listed_run(run) for run in page.items], page)


@route("GET", "runs/{runId}", ResponseSpec(200, Run), role=Role.READER, problems=NO_RUN)
async def get_run(req: func.HttpRequest) -> func.HttpResponse:
    """One run with its counts and its policy; ``countedAt`` says when those of a run that goes on were counted."""
    run = await open_storage().runs.get_counted(run_id_of(req), datetime.now(UTC))
    if run is None:
        raise no_such("run")
    return json_response(run.to_wire(), headers={} if run.state.is_final else {"Retry-After": str(POLL_SECONDS)})


@route(
    "GET",
    "runs/{runId}/machines",
    _MACHINES.response,
    role=Role.READER,
    query=[_OUTCOME, *PAGED],
    problems=INVALID_QUERY | NO_RUN,
)
async def list_run_machines(req: func.HttpRequest) -> func.HttpResponse:
    """The machines of a run, a page at a time, of one outcome or of all."""
    limit, cursor = page_of(req)
    outcome = word_of(req, "outcome", OutcomeKind)
    storage = open_storage()
    run = await find_run(storage, run_id_of(req))
    page = await storage.machines.list_page(run.id, outcome=outcome, limit=limit, cursor=cursor)
    rows: list[dict[str, Any]] = []
    waits = await _waits(storage, run)
    for machine in page.items:
        row = machine.to_wire() | {"waitingFor": waits(machine)}
        # Lists omit tags, of which there may be 50; an empty object would mean that there are none.
        del row["tags"]
        rows.append(row)
    return _MACHINES.respond(rows, page)


@route(
    "GET", "runs/{runId}/machines/{machineKey}", ResponseSpec(200, MachineDetail), role=Role.READER, problems=NO_MACHINE
)
async def get_run_machine(req: func.HttpRequest) -> func.HttpResponse:
    """One machine of a run with every patch."""
    storage = open_storage()
    run_id, key = run_id_of(req), route_of(req, "machineKey")
    run = await find_run(storage, run_id)
    machine = await storage.machines.get(run_id, key) if is_machine_key(key) else None
    if machine is None:
        raise no_such("machine in this run")
    patches = await storage.results.list_patches(run_id, key)
    waits = (await _waits(storage, run))(machine)
    return json_response({**machine.to_wire(), "waitingFor": waits, "patches": [patch.to_wire() for patch in patches]})


@route(
    "GET",
    "runs/{runId}/plan",
    ResponseSpec(200, Plan),
    role=Role.READER,
    problems={404: "There is no such run, or it has no plan."},
)
async def get_run_plan(req: func.HttpRequest) -> func.HttpResponse:
    """The plan that a run follows: 404 while there is none, and for runs that only assess."""
    storage = open_storage()
    run = await find_run(storage, run_id_of(req))
    plan = await storage.plans.get(run.id)
    if plan is None:
        raise ApiProblem(404, "The run has no plan: it has not planned yet, or only assesses.")
    return json_response(plan.to_wire())


async def _audit_subject(storage: Storage, req: func.HttpRequest) -> str:
    return (await find_run(storage, run_id_of(req))).id


list_run_audit = audit_route(
    "list_run_audit",
    "runs/{runId}/audit",
    _audit_subject,
    text="Who ordered what in a run and what its gates did, oldest first, a page at a time.",
    problems=NO_RUN,
)


async def _waits(storage: Storage, run: Run) -> Callable[[MachineRecord], str]:
    """What a machine of the run waits for now."""
    if run.state.is_final or run.mode is not Mode.PATCH:
        return lambda machine: waiting_for(run, machine, [], None)
    plan = await storage.plans.get_summary(run.id)
    rings = [ring.name for ring in plan.rings] if plan is not None else []
    phase = await storage.reservations.get_phase(run.id)
    return lambda machine: waiting_for(run, machine, rings, phase)


def accepted(run: Run) -> func.HttpResponse:
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


def listed_run(run: Run) -> dict[str, Any]:
    document = run.to_wire()
    del document["policySnapshot"]
    return document
