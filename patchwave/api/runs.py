"""The API of runs: start, list, look at; `patchwave.api.run_commands` has the orders to a run that is under way.

Durable's own management addresses are never handed out.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any

import azure.durable_functions as df
import azure.functions as func

from patchwave.api.auth import may_author
from patchwave.api.endpoint import (
    INVALID_BODY,
    INVALID_QUERY,
    LOCATION,
    NO_MACHINE,
    NO_RUN,
    PAGED,
    RETRY_AFTER,
    Answer,
    AuditPage,
    Body,
    Keys,
    ListPage,
    Parameter,
    described,
)
from patchwave.api.http import (
    Refusal,
    answer,
    answered,
    header_of,
    no_such,
    page_of,
    paged,
    read_json,
    route_of,
    run_id_of,
    word_of,
)
from patchwave.api.requests import SAID_QUERY, read_said
from patchwave.domain.core.documents import Json
from patchwave.domain.core.ids import is_machine_key
from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.core.patches import PatchRecord
from patchwave.domain.planning.plan import Plan
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Mode, Run, Trigger, TriggerKind
from patchwave.domain.runs.waiting import waiting_for
from patchwave.services.start_run import (
    IDEMPOTENCY_KEY,
    KEY_REUSED,
    StartRequest,
    claimed_run_id,
    new_run_id,
    policy_named_in,
    read_request,
)
from patchwave.services.start_run import start_run as start
from patchwave.storage import Storage, open_storage

POLL_SECONDS = 5
"""How soon a caller should look at a run again."""

bp = df.Blueprint()

type ListedRun = Annotated[Run, Keys(without=("policySnapshot",))]


class MachineInRun(MachineRecord):
    """A machine of a run. ``waiting_for`` is made when it is asked for."""

    waiting_for: str = ""
    """What keeps the machine from being worked on; empty when it has ended, or is worked on."""


type ListedMachine = Annotated[MachineInRun, Keys(without=("tags",))]


class RunPage(ListPage):
    """Runs, newest ids first."""

    runs: list[ListedRun]


class MachinePage(ListPage):
    """Machines of a run."""

    machines: list[ListedMachine]


class MachineDetail(MachineInRun):
    """A machine with every patch."""

    patches: list[PatchRecord]


_OUTCOME = Parameter("outcome", {"type": "string", "enum": list(OutcomeKind)}, "Only machines that ended like this.")
_INLINE: Json = {
    "policy": {
        "scope": {"subscriptions": ["11111111-2222-4333-8444-555555555555"], "tags": {"values": {"env": ["test"]}}},
        "maxConcurrent": "10%",
    },
    "mode": "patch",
    "overrides": {"install": {"rebootSetting": "Never"}},
}


@bp.route(route="runs", methods=["POST"])
@bp.durable_client_input(client_name="client")
@described(
    Answer(202, ListedRun, headers=(LOCATION, RETRY_AFTER)),
    body=Body(StartRequest, {"stored": {"policy": "monthly", "mode": "assess"}, "inline": _INLINE}),
    query=SAID_QUERY,
    headers=[IDEMPOTENCY_KEY],
    refuses=INVALID_BODY
    | {403: "Roles count, and the caller is no operator, or asks for what only an author may start."}
    | {404: "There is no policy of this name."}
    | KEY_REUSED,
)
@answered
async def start_run(req: func.HttpRequest, client: df.DurableFunctionsClient) -> func.HttpResponse:
    """Start a run of a stored or an inline policy: 202. A repeated ``Idempotency-Key`` gives the first run.

    An operator may start stored policies, with overrides that only narrow them; the rest takes an author.
    """
    said = read_said(req, datetime.now(UTC))
    storage = open_storage()
    body = read_json(req)
    chosen, mode = await read_request(storage, body, by=said.by, by_id=said.by_id, may_author=may_author(req.headers))
    run_id = new_run_id(chosen.policy)
    key = header_of(req, "idempotency-key")
    if key:
        # The platform's word where there is one; keys alone do not tell callers apart, so that they say who they are.
        caller = ("id", said.by_id) if said.by_id else ("name", said.by)
        scope = (*caller, policy_named_in(body))
        run_id = await claimed_run_id(storage, "idempotency-key", key, run_id, body, scope=scope)
    trigger = Trigger(kind=TriggerKind.HTTP, **said.who, detail=said.why)
    return accepted(await start(storage, client, chosen, run_id, trigger, mode=mode, repeatable=bool(key)))


@bp.route(route="runs", methods=["GET"])
@described(Answer(200, RunPage), query=PAGED, refuses=INVALID_QUERY)
@answered
async def list_runs(req: func.HttpRequest) -> func.HttpResponse:
    """Runs, newest ids first, a page at a time."""
    limit, cursor = page_of(req)
    page = await open_storage().runs.list_page(limit, cursor)
    return answer(paged("runs", [listed_run(run) for run in page.items], page))


@bp.route(route="runs/{runId}", methods=["GET"])
@described(Answer(200, Run), refuses=NO_RUN)
@answered
async def get_run(req: func.HttpRequest) -> func.HttpResponse:
    """One run with its counts and its policy; ``countedAt`` says when those of a run that goes on were counted."""
    run = await open_storage().runs.get_counted(run_id_of(req), datetime.now(UTC))
    if run is None:
        raise no_such("run")
    return answer(run.to_wire(), headers={} if run.state.is_final else {"Retry-After": str(POLL_SECONDS)})


@bp.route(route="runs/{runId}/machines", methods=["GET"])
@described(Answer(200, MachinePage), query=[_OUTCOME, *PAGED], refuses=INVALID_QUERY | NO_RUN)
@answered
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
        # Tags may be 50 texts; lists leave them out, and an empty object would say that there are none.
        del row["tags"]
        rows.append(row)
    return answer(paged("machines", rows, page))


@bp.route(route="runs/{runId}/machines/{machineKey}", methods=["GET"])
@described(Answer(200, MachineDetail), refuses=NO_MACHINE)
@answered
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
    return answer({**machine.to_wire(), "waitingFor": waits, "patches": [patch.to_wire() for patch in patches]})


@bp.route(route="runs/{runId}/plan", methods=["GET"])
@described(Answer(200, Plan), refuses={404: "There is no such run, or it has no plan."})
@answered
async def get_run_plan(req: func.HttpRequest) -> func.HttpResponse:
    """The plan that a run follows: 404 while there is none, and for runs that only assess."""
    storage = open_storage()
    run = await find_run(storage, run_id_of(req))
    plan = await storage.plans.get(run.id)
    if plan is None:
        raise Refusal(404, "The run has no plan: it has not planned yet, or only assesses.")
    return answer(plan.to_wire())


@bp.route(route="runs/{runId}/audit", methods=["GET"])
@described(Answer(200, AuditPage), query=PAGED, refuses=INVALID_QUERY | NO_RUN)
@answered
async def list_run_audit(req: func.HttpRequest) -> func.HttpResponse:
    """Who ordered what in a run and what its gates did, oldest first, a page at a time."""
    limit, cursor = page_of(req)
    storage = open_storage()
    run = await find_run(storage, run_id_of(req))
    page = await storage.audit.list_page(run.id, limit, cursor)
    return answer(paged("audit", page.items, page))


async def _waits(storage: Storage, run: Run) -> Callable[[MachineRecord], str]:
    """What a machine of the run waits for now."""
    if run.state.is_final or run.mode is not Mode.PATCH:
        return lambda machine: waiting_for(run, machine, [], None)
    plan = await storage.plans.get_summary(run.id)
    rings = [ring.name for ring in plan.rings] if plan is not None else []
    phase = await storage.reservations.get_phase(run.id)
    return lambda machine: waiting_for(run, machine, rings, phase)


def accepted(run: Run) -> func.HttpResponse:
    """202 with the run and where to look at it."""
    headers = {"Location": f"/api/runs/{run.id}", "Retry-After": str(POLL_SECONDS)}
    return answer(listed_run(run), status=202, headers=headers)


async def find_run(storage: Storage, run_id: str) -> Run:
    """The run.

    Raises:
        Refusal: 404 when there is none of this id.
    """
    run = await storage.runs.get(run_id)
    if run is None:
        raise no_such("run")
    return run


def listed_run(run: Run) -> dict[str, Any]:
    document = run.to_wire()
    del document["policySnapshot"]
    return document
