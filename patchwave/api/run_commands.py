"""Commands to a run: pause, resume, cancel, approve, reject; and to one of its machines: skip, retry.

The row is written first, and is read before anything starts. The signal only makes the orchestration read it at once.
Commands are idempotent; actor and reason of the first one are kept.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime
from typing import Annotated

import azure.durable_functions as df
import azure.functions as func
from pydantic import StringConstraints

from patchwave.api.auth import may_author, principal_of
from patchwave.api.endpoint import (
    INVALID_BODY,
    LOCATION,
    NO_MACHINE,
    NO_RUN,
    RETRY_AFTER,
    RequestBody,
    ResponseSpec,
    route,
)
from patchwave.api.http import caller_of, json_response, route_of, run_id_of
from patchwave.api.problems import ApiProblem, no_such
from patchwave.api.runs import ListedRun, accepted, find_run
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.command import Command, SelfApproval
from patchwave.domain.core.documents import Document
from patchwave.domain.core.ids import is_machine_key
from patchwave.domain.core.outcome import Reason
from patchwave.domain.core.principal import Role
from patchwave.domain.core.validation import Problem
from patchwave.domain.machine.patch_pinning import Pin
from patchwave.domain.planning.rings import keep_in_ring
from patchwave.domain.policy.narrowing import widened
from patchwave.domain.policy.policy import Policy
from patchwave.domain.policy.rollout import order_rings
from patchwave.domain.runs.commands import ring_in_question, starter_ids, wants_other
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.provenance import WrittenPolicy, rules_in_short, written
from patchwave.domain.runs.run import Mode, Run, Trigger, TriggerKind
from patchwave.domain.workflow.contracts import Signal
from patchwave.services.start_run import DurableClient, claimed_run_id, new_run_id, read_stored, schedule_run, start_run
from patchwave.storage import Storage, open_storage

MAX_TEXT = 1_000
MAX_RETRIES = 20
"""Chained retries that an operator may start; further ones are refused."""

_LOG = logging.getLogger("patchwave.commands")

_Text = Annotated[str, StringConstraints(strip_whitespace=True, max_length=MAX_TEXT)]


class RunCommandBody(Document):
    """What a command to a run or one of its machines may have."""

    reason: _Text = ""
    actor: _Text = ""


class RingCommandBody(RunCommandBody):
    """The same about a ring; without one it is the ring that the run waits for."""

    ring: _Text = ""


_SAID = {"reason": "The database team asked for it.", "actor": "ana@example.org"}
_COMMAND = RequestBody(RunCommandBody, {"said": _SAID}, required=False)
_RING_COMMAND = RequestBody(RingCommandBody, {"said": _SAID}, required=False)
_ACCEPTED = ResponseSpec(202, ListedRun, headers=(LOCATION, RETRY_AFTER))
_LATE = {409: "The run has ended or is about to, or the command contradicts an earlier one."}


# --- the run ------------------------------------------------------------------------------------------------


@route(
    "POST", "runs/{runId}/pause", _ACCEPTED, role=Role.OPERATOR, body=_COMMAND, problems=INVALID_BODY | NO_RUN | _LATE
)
async def pause_run(
    req: func.HttpRequest, client: df.DurableFunctionsClient, body: RunCommandBody
) -> func.HttpResponse:
    """Start nothing more until the run is resumed: 202; 409 when it has ended or is about to."""
    command = _command(req, body)
    storage = open_storage()
    run = await find_run(storage, run_id_of(req))
    run = await storage.runs.pause(run.id, command)
    await _audit(storage, run, "pause", "run_paused")
    return await _signalled(client, run)


@route(
    "POST", "runs/{runId}/resume", _ACCEPTED, role=Role.OPERATOR, body=_COMMAND, problems=INVALID_BODY | NO_RUN | _LATE
)
async def resume_run(
    req: func.HttpRequest, client: df.DurableFunctionsClient, body: RunCommandBody
) -> func.HttpResponse:
    """Go on after a pause, and after error budgets that hold: 202; 409 when the run has ended or is about to."""
    command = _command(req, body)
    storage = open_storage()
    run = await find_run(storage, run_id_of(req))
    run = await storage.runs.resume(run.id, command)
    await _audit(storage, run, "resume", "run_resumed")
    return await _signalled(client, run)


@route(
    "POST", "runs/{runId}/cancel", _ACCEPTED, role=Role.OPERATOR, body=_COMMAND, problems=INVALID_BODY | NO_RUN | _LATE
)
async def cancel_run(
    req: func.HttpRequest, client: df.DurableFunctionsClient, body: RunCommandBody
) -> func.HttpResponse:
    """Start nothing more, for good: 202. A run that has ended by itself cannot be cancelled: 409."""
    command = _command(req, body)
    storage = open_storage()
    run = await find_run(storage, run_id_of(req))
    run = await storage.runs.cancel(run.id, command)
    await _audit(storage, run, "cancel", "cancel_requested")
    # The row alone blocks every start, whether or not the engine gets the signal.
    await _signal(client, run, Signal.CANCEL)
    return accepted(run)


@route(
    "POST",
    "runs/{runId}/approve",
    _ACCEPTED,
    role=Role.APPROVER,
    body=_RING_COMMAND,
    problems=INVALID_BODY | NO_RUN | _LATE,
)
async def approve_ring(
    req: func.HttpRequest, client: df.DurableFunctionsClient, body: RingCommandBody
) -> func.HttpResponse:
    """Let a ring start: 202. Without ``ring`` it is the one that the run waits for; 409 when it was rejected."""
    return await _decide(req, client, body, approved=True)


@route(
    "POST",
    "runs/{runId}/reject",
    _ACCEPTED,
    role=Role.APPROVER,
    body=_RING_COMMAND,
    problems=INVALID_BODY | NO_RUN | _LATE,
)
async def reject_ring(
    req: func.HttpRequest, client: df.DurableFunctionsClient, body: RingCommandBody
) -> func.HttpResponse:
    """Keep a ring from starting, which ends the run before it: 202; 409 when it was approved."""
    return await _decide(req, client, body, approved=False)


async def _decide(
    req: func.HttpRequest, client: DurableClient, body: RingCommandBody, *, approved: bool
) -> func.HttpResponse:
    storage = open_storage()
    run = await find_run(storage, run_id_of(req))
    ring = body.ring or ring_in_question(run)
    if approved and wants_other(run, ring) and principal_of(req.headers) is None:
        # The platform may sign users in all the same, but from any tenant.
        raise SelfApproval(
            "A second person has to approve this ring, and keys alone do not tell people apart:"
            " turn roles on, then write the policy and start it again."
        )
    run = await storage.runs.decide_ring(run.id, ring, _command(req, body), approved=approved)
    decision = run.decisions[ring]
    action = "ring_approved" if approved else "ring_rejected"
    rules = rules_in_short(Policy.model_validate(run.policy_snapshot), run.policy_origin)
    detail = {"ring": ring, "reason": decision.reason} | rules
    await storage.audit.add(run.id, action, **decision.who, at=decision.at, detail=detail)
    return await _signalled(client, run)


async def _audit(storage: Storage, run: Run, name: str, action: str) -> None:
    """Audit the command in force with its own time: repetitions write the same entry."""
    command = run.last_commands.get(name)
    if command is not None:
        detail = {"reason": command.reason, "before": command.before.value, "after": command.after.value}
        await storage.audit.add(run.id, action, **command.who, at=command.at, detail=detail)


async def _signalled(client: DurableClient, run: Run) -> func.HttpResponse:
    """Signal the run; 503 when that fails, because the caller expects an effect."""
    if not await _signal(client, run, Signal.CONTROL):
        raise ApiProblem(
            503,
            "The command is stored and holds, but the run could not be signalled; repeat the request.",
            headers={"Retry-After": "15"},
        )
    return accepted(run)


async def _signal(client: DurableClient, run: Run, event: str) -> bool:
    if run.state.is_final:
        return True
    try:
        if run.started_at is None:
            # The process that created the run may have died before its orchestration existed: nothing else ends it.
            await schedule_run(client, run)
        await client.raise_orchestration_event(run.id, event)
    except Exception:
        # A repeated command sends the signal again, and the row keeps the first command.
        _LOG.warning("Run %s could not be signalled (%s).", run.id, event, exc_info=True)
        return False
    return True


# --- one machine --------------------------------------------------------------------------------------------


@route(
    "POST",
    "runs/{runId}/machines/{machineKey}/skip",
    ResponseSpec(202, MachineRecord, headers=(LOCATION,)),
    role=Role.OPERATOR,
    body=_COMMAND,
    problems=INVALID_BODY | NO_MACHINE | {409: "The machine has ended, or its operation has begun."},
)
async def skip_machine(req: func.HttpRequest, body: RunCommandBody) -> func.HttpResponse:
    """Leave a machine out of its run: 202; 409 when it has ended, or its operation has begun.

    No signal is needed: the machine's row is read before anything is sent.
    """
    command = _command(req, body)
    storage = open_storage()
    run, machine = await _find_machine(storage, req)
    kind = OperationKind.ASSESS if run.mode is Mode.ASSESS else OperationKind.INSTALL
    machine = await storage.machines.skip(run.id, machine.key, command, kind)
    command = machine.skip_command or command
    detail = {"machine": machine.id, "reason": command.reason}
    await storage.audit.add(run.id, "machine_skipped", **command.who, at=command.at, detail=detail)
    return json_response(
        machine.to_wire(), status=202, headers={"Location": f"/api/runs/{run.id}/machines/{machine.key}"}
    )


@route(
    "POST",
    "runs/{runId}/machines/{machineKey}/retry",
    _ACCEPTED,
    role=Role.OPERATOR,
    body=_COMMAND,
    problems=INVALID_BODY | NO_MACHINE | {409: "The machine has not ended, or its ring has nothing to be held to."},
)
async def retry_machine(
    req: func.HttpRequest, client: df.DurableFunctionsClient, body: RunCommandBody
) -> func.HttpResponse:
    """Take a machine that has ended once more, in a run of its own by the same policy: 202 with that run.

    409 while the machine is open. One retry per machine and run: a repetition gives the same run.
    """
    command = _command(req, body)
    storage = open_storage()
    run, machine = await _find_machine(storage, req)
    if machine.outcome is None:
        raise ApiProblem(409, f"The machine is {machine.stage.value} in this run; it can be retried once it has ended.")
    if run.mode is Mode.MAINTENANCE:
        raise ApiProblem(409, "Update Manager patched it, in a scheduled run; start a run of the policy instead.")
    if machine.reason == Reason.UNREADABLE_ID:
        raise ApiProblem(409, f"Nothing can be done with the machine. {machine.message}")
    if not may_author(req.headers):
        await _check_rules_are_stored(storage, run)
    policy = Policy.model_validate(run.policy_snapshot)
    pin = await _pin_of(storage, run, machine, policy)
    alone = {
        "scope": policy.scope.model_copy(update={"machine_ids": (machine.id,)}),
        "rings": keep_in_ring(policy.rings, machine.ring, machine.id),
    }
    origin = run.policy_origin
    snapshot = WrittenPolicy(policy, origin) if origin else written(policy, author="", author_id="")
    policy = policy.model_copy(update=alone)
    retry_id = await claimed_run_id(storage, "retry", f"{run.id}/{machine.key}", new_run_id(policy))
    if pin is not None:
        await storage.patch_pins.save(retry_id.text, pin)
    why = f"retry of {machine.name} in {run.id}" + (f": {command.reason}" if command.reason else "")
    trigger = Trigger(
        kind=TriggerKind.HTTP,
        **command.who,
        detail=why,
        retry_of=run.id,
        earlier_ids=starter_ids(run.trigger),
    )
    retry = await start_run(storage, client, snapshot.changed(policy), retry_id, trigger, mode=run.mode)
    detail = {"machine": machine.id, "of": run.id, "retry": retry.id, "reason": retry.trigger.detail}
    for subject in (run.id, retry.id):
        await storage.audit.add(subject, "machine_retried", **retry.trigger.who, at=retry.created_at, detail=detail)
    return accepted(retry)


async def _check_rules_are_stored(storage: Storage, run: Run) -> None:
    """Allow an operator to retry only within the stored policy's current rules, or narrower ones.

    A retry has one machine in its rings, so the rules of the first retried run count.

    Raises:
        ApiProblem: 403, with the fields in which the run exceeds the stored policy.
    """
    first: Run | None = run
    for _ in range(MAX_RETRIES):
        if first is None or not first.trigger.retry_of:
            break
        first = await storage.runs.get(first.trigger.retry_of)
    stored = await storage.policies.get(run.policy)
    if first is None or first.trigger.retry_of or stored is None:
        raise ApiProblem(403, "Only an author may retry it: no stored policy has the rules of its run any more.")
    ran = Policy.model_validate(first.policy_snapshot)
    reasons = widened(read_stored(stored).policy, ran, installs=first.mode is Mode.PATCH)
    if reasons:
        problems = [Problem(path=path, message=why) for path, why in reasons.items()]
        raise ApiProblem(403, "Only an author may retry it: the stored policy is stricter now.", errors=problems)


async def _pin_of(storage: Storage, run: Run, machine: MachineRecord, policy: Policy) -> Pin | None:
    """The pin that limits the machine to the first ring's patches, also in a retry.

    Raises:
        ApiProblem: 409, the run ended before its first ring was pinned.
    """
    first = order_rings(policy.rings)[0].name if policy.pin_rings else machine.ring
    if machine.ring == first:
        return None
    pin = await storage.patch_pins.get(run.id)
    if pin is None and run.mode is Mode.PATCH:
        raise ApiProblem(409, f"The policy pins rings to {first}, which this run did not finish; start a new run.")
    return pin


async def _find_machine(storage: Storage, req: func.HttpRequest) -> tuple[Run, MachineRecord]:
    run = await find_run(storage, run_id_of(req))
    key = route_of(req, "machineKey")
    machine = await storage.machines.get(run.id, key) if is_machine_key(key) else None
    if machine is None:
        raise no_such("machine in this run")
    return run, machine


def _command(req: func.HttpRequest, body: RunCommandBody) -> Command:
    return Command(**caller_of(req, claimed=body.actor).who, reason=body.reason, at=datetime.now(UTC))
