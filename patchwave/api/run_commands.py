"""Commands to a run: pause, resume, cancel, approve, reject; and to one of its machines: skip, retry.

The row is written first, and is read before anything starts. The signal only makes the orchestration read it at once.
Commands are idempotent; actor and reason of the first one are kept.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated, Any

from azure.durable_functions import DurableFunctionsClient
from azure.functions import HttpRequest, HttpResponse
from pydantic import StringConstraints

from patchwave.api.auth import may_author, principal_of
from patchwave.api.endpoint import LOCATION, NO_MACHINE, NO_RUN, RETRY_AFTER, RequestBody, ResponseSpec, route
from patchwave.api.http import json_response, run_id_of
from patchwave.api.problems import ApiProblem
from patchwave.api.requests import command_of
from patchwave.api.runs import ListedRun, accepted, find_machine, find_run
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.command import Command, SelfApproval
from patchwave.domain.core.documents import Document
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
from patchwave.storage import Storage
from patchwave.storage.runs import RunRepository

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


_EXAMPLE = {"reason": "The database team asked for it.", "actor": "ana@example.org"}
_COMMAND = RequestBody(RunCommandBody, {"said": _EXAMPLE}, required=False)
_RING_COMMAND = RequestBody(RingCommandBody, {"said": _EXAMPLE}, required=False)
_ACCEPTED = ResponseSpec(202, ListedRun, headers=(LOCATION, RETRY_AFTER))
_PROBLEMS = NO_RUN | {409: "The run has ended or is about to, or the command contradicts an earlier one."}


# --- the run ------------------------------------------------------------------------------------------------


def _command_route(
    name: str, change: Callable[[RunRepository, str, Command], Awaitable[Run]], action: str, *, text: str
) -> Any:
    """Register the route of a command to a run; ``action`` is its audit action, ``text`` its description."""
    verb = name.partition("_")[0]

    async def give(
        req: HttpRequest, client: DurableFunctionsClient, storage: Storage, body: RunCommandBody
    ) -> HttpResponse:
        command = _command(req, body)
        run = await find_run(storage, run_id_of(req))
        run = await change(storage.runs, run.id, command)
        # With the time of the command in force: repetitions write the same entry.
        if kept := run.last_commands.get(verb):
            detail = {"reason": kept.reason, "before": kept.before.value, "after": kept.after.value}
            await storage.audit.add(run.id, action, **kept.who, at=kept.at, detail=detail)
        # The row alone blocks every start of a cancelled run, whether or not the engine gets the signal.
        return await _signalled(client, run, Signal.CANCEL if verb == "cancel" else Signal.CONTROL)

    give.__name__, give.__doc__ = name, text
    return route("POST", f"runs/{{runId}}/{verb}", _ACCEPTED, role=Role.OPERATOR, body=_COMMAND, problems=_PROBLEMS)(
        give
    )


pause_run = _command_route(
    "pause_run",
    RunRepository.pause,
    "run_paused",
    text="Start nothing more until the run is resumed: 202; 409 when it has ended or is about to.",
)
resume_run = _command_route(
    "resume_run",
    RunRepository.resume,
    "run_resumed",
    text="Go on after a pause, and after error budgets that hold: 202; 409 when the run has ended or is about to.",
)
cancel_run = _command_route(
    "cancel_run",
    RunRepository.cancel,
    "cancel_requested",
    text="Start nothing more, for good: 202. A run that has ended by itself cannot be cancelled: 409.",
)


def _decision_route(name: str, action: str, *, approved: bool, text: str) -> Any:
    """Register the route of a decision on a ring; ``action`` is its audit action, ``text`` its description."""

    async def decide(
        req: HttpRequest, client: DurableFunctionsClient, storage: Storage, body: RingCommandBody
    ) -> HttpResponse:
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
        rules = rules_in_short(Policy.model_validate(run.policy_snapshot), run.policy_origin)
        detail = {"ring": ring, "reason": decision.reason} | rules
        await storage.audit.add(run.id, action, **decision.who, at=decision.at, detail=detail)
        return await _signalled(client, run, Signal.CONTROL)

    decide.__name__, decide.__doc__ = name, text
    path = f"runs/{{runId}}/{name.partition('_')[0]}"
    return route("POST", path, _ACCEPTED, role=Role.APPROVER, body=_RING_COMMAND, problems=_PROBLEMS)(decide)


approve_ring = _decision_route(
    "approve_ring",
    "ring_approved",
    approved=True,
    text="Let a ring start: 202. Without ``ring`` it is the one that the run waits for; 409 when it was rejected.",
)
reject_ring = _decision_route(
    "reject_ring",
    "ring_rejected",
    approved=False,
    text="Keep a ring from starting, which ends the run before it: 202; 409 when it was approved.",
)


async def _signalled(client: DurableClient, run: Run, event: Signal) -> HttpResponse:
    """Signal the run. When that fails: 503, as the caller expects an effect; a cancelled run needs no signal."""
    if not run.state.is_final:
        try:
            if run.started_at is None:
                # The process that created the run may have died before its orchestration existed: nothing else ends it.
                await schedule_run(client, run)
            await client.raise_orchestration_event(run.id, event)
        except Exception as error:
            # A repeated command sends the signal again, and the row keeps the first command.
            _LOG.warning("Run %s could not be signalled (%s).", run.id, event, exc_info=True)
            if event != Signal.CANCEL:
                raise ApiProblem(
                    503,
                    "The command is stored and holds, but the run could not be signalled; repeat the request.",
                    headers={"Retry-After": "15"},
                ) from error
    return accepted(run)


# --- one machine --------------------------------------------------------------------------------------------


@route(
    "POST",
    "runs/{runId}/machines/{machineKey}/skip",
    ResponseSpec(202, MachineRecord, headers=(LOCATION,)),
    role=Role.OPERATOR,
    body=_COMMAND,
    problems=NO_MACHINE | {409: "The machine has ended, or its operation has begun."},
)
async def skip_machine(req: HttpRequest, storage: Storage, body: RunCommandBody) -> HttpResponse:
    """Leave a machine out of its run: 202; 409 when it has ended, or its operation has begun.

    No signal is needed: the machine's row is read before anything is sent.
    """
    command = _command(req, body)
    run, machine = await find_machine(storage, req)
    kind = OperationKind.ASSESS if run.mode is Mode.ASSESS else OperationKind.INSTALL
    machine = await storage.machines.skip(run.id, machine.key, command, kind)
    command = machine.skip_command or command
    detail = {"machine": machine.id, "reason": command.reason}
    await storage.audit.add(run.id, "machine_skipped", **command.who, at=command.at, detail=detail)
    location = f"/api/runs/{run.id}/machines/{machine.key}"
    return json_response(machine.to_wire(), status=202, headers={"Location": location})


@route(
    "POST",
    "runs/{runId}/machines/{machineKey}/retry",
    _ACCEPTED,
    role=Role.OPERATOR,
    body=_COMMAND,
    problems=NO_MACHINE | {409: "The machine has not ended, or its ring has nothing to be held to."},
)
async def retry_machine(
    req: HttpRequest, client: DurableFunctionsClient, storage: Storage, body: RunCommandBody
) -> HttpResponse:
    """Take a machine that has ended once more, in a run of its own by the same policy: 202 with that run.

    409 while the machine is open. One retry per machine and run: a repetition gives the same run.
    """
    command = _command(req, body)
    run, machine = await find_machine(storage, req)
    if machine.outcome is None:
        raise ApiProblem(409, f"The machine is {machine.stage.value} in this run; it can be retried once it has ended.")
    if run.mode is Mode.MAINTENANCE:
        raise ApiProblem(409, "Update Manager patched it, in a scheduled run; start a run of the policy instead.")
    if machine.reason in (Reason.UNREADABLE_ID, Reason.UNIFORM_SCALE_SET):
        raise ApiProblem(409, f"Nothing can be done with the machine. {machine.message}")
    if not may_author(req.headers):
        await _check_rules_are_stored(storage, run)
    policy = Policy.model_validate(run.policy_snapshot)
    pin = await _pin_of(storage, run, machine, policy)
    origin = run.policy_origin
    snapshot = WrittenPolicy(policy, origin) if origin else written(policy, author="", author_id="")
    scope = policy.scope.model_copy(update={"machine_ids": (machine.id,)})
    rings = keep_in_ring(policy.rings, machine.ring, machine.id)
    policy = policy.model_copy(update={"scope": scope, "rings": rings})
    retry_id = await claimed_run_id(storage, "retry", f"{run.id}/{machine.key}", new_run_id(policy))
    if pin is not None:
        await storage.patch_pins.save(retry_id.text, pin)
    why = f"retry of {machine.name} in {run.id}" + (f": {command.reason}" if command.reason else "")
    earlier = starter_ids(run.trigger)
    trigger = Trigger(kind=TriggerKind.HTTP, **command.who, detail=why, retry_of=run.id, earlier_ids=earlier)
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


def _command(req: HttpRequest, body: RunCommandBody) -> Command:
    return command_of(req, body.actor, body.reason, datetime.now(UTC))
