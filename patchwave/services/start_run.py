"""Starts a run by one atomic create under its run id. An existing run is a valid result, never checked beforehand."""

from __future__ import annotations

import asyncio
import hashlib
import json
import logging
import secrets
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Protocol

import grpc

from patchwave.azure.pipeline import boundary_of
from patchwave.domain.calendar.schedule import Occurrence
from patchwave.domain.core.documents import Json
from patchwave.domain.core.ids import ADHOC_POLICY, RunId, adhoc_name, is_policy_name
from patchwave.domain.core.validation import Problem
from patchwave.domain.maintenance.occurrence import MaintenanceOccurrence
from patchwave.domain.policy.boundary import needs_boundary
from patchwave.domain.policy.narrowing import widened
from patchwave.domain.policy.policy import Policy, PolicyError, PolicyMode, apply_overrides, parse_inline_policy
from patchwave.domain.policy.stored_policies import parse_stored_policy
from patchwave.domain.runs.provenance import WrittenPolicy, rules_in_short, written
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger
from patchwave.domain.workflow import contracts
from patchwave.domain.workflow.contracts import Orchestration, Signal
from patchwave.domain.workflow.run import RunInput
from patchwave.services.errors import EngineUnavailable, InvalidRequest, KeyReused, NotFound, NotPermitted
from patchwave.services.policy_guardrails import check_permitted
from patchwave.settings import Settings
from patchwave.storage import Storage, StoredPolicy
from patchwave.wiring import Services

MAX_KEY = 255
_LOG = logging.getLogger("patchwave.start")


class DurableClient(Protocol):
    """The used methods of the durable client."""

    async def schedule_new_orchestration(
        self, orchestrator: str, /, *, input: object, instance_id: str, version: str
    ) -> str: ...

    async def raise_orchestration_event(self, instance_id: str, event_name: str, *, data: object = None) -> None: ...

    async def get_orchestration_state(self, instance_id: str) -> object: ...


async def start_run(
    storage: Storage,
    client: DurableClient,
    chosen: WrittenPolicy,
    run_id: RunId,
    trigger: Trigger,
    *,
    mode: Mode | None = None,
    occurrence: Occurrence | None = None,
    maintenance: MaintenanceOccurrence | None = None,
    repeatable: bool = True,
) -> Run:
    """Create the run and schedule its orchestration; returns the stored run, perhaps an earlier one of the same id.

    ``mode`` is the policy's unless given.

    If the process dies between row and scheduling, the next start of the same id schedules the run. ``repeatable``:
    such a start may come. Otherwise a run that the engine does not accept is closed as failed, because nothing else
    would end it. ``maintenance`` is the scheduled run of a maintenance run.

    Raises:
        EngineUnavailable: the durable engine did not accept the run.
    """
    at = datetime.now(UTC)
    policy, origin = chosen
    wanted = Run(
        id=run_id.text,
        policy=policy.name,
        mode=mode or Mode(policy.mode.value),
        state=RunState.QUEUED,
        trigger=trigger,
        created_at=at,
        occurrence=occurrence.at_utc if occurrence else None,
        window_end=occurrence.window_end_utc if occurrence else None,
        local_window=occurrence.local if occurrence else None,
        policy_snapshot=policy.to_wire(),
        policy_origin=origin,
        version=contracts.VERSION,
        maintenance=maintenance,
    )
    run, _ = await storage.runs.create(wanted)
    if run.state is RunState.QUEUED:
        # Also after a crash of another caller: an equal entry with the same time is written once.
        rules = rules_in_short(Policy.model_validate(run.policy_snapshot), run.policy_origin)
        detail = {"policy": run.policy, "mode": run.mode.value, "trigger": run.trigger.to_wire()} | rules
        await storage.audit.add(run.id, "run_started", **run.trigger.who, at=run.created_at, detail=detail)
        try:
            await schedule_run(client, run)
        except EngineUnavailable:
            if not repeatable:
                why = "The durable engine did not answer; start again."
                await storage.runs.settle(await storage.runs.close(run.id, RunState.FAILED, why, at))
            raise
    return run


async def schedule_run(client: DurableClient, run: Run) -> None:
    """Start the orchestration of the run's generation; an existing one counts as success.

    Raises:
        EngineUnavailable: the durable engine did not accept it.
    """
    orchestration = contracts.RUN_MAINTENANCE if run.mode is Mode.MAINTENANCE else contracts.PATCH_RUN
    request = RunInput(run_id=run.id, generation=run.generation)
    await schedule_once(client, orchestration, request, run.id, "The run is stored, but could not be scheduled")


async def schedule_once[Request](
    client: DurableClient, orchestration: Orchestration[Request, Any], request: Request, instance_id: str, failed: str
) -> None:
    """Start an orchestration; an existing instance counts as success.

    Raises:
        EngineUnavailable: the durable engine did not accept it; the text is ``failed``.
    """
    try:
        await schedule(client, orchestration, request, instance_id)
    except grpc.RpcError as error:
        # Engines word this refusal differently, so the instance's existence decides.
        if await client.get_orchestration_state(instance_id) is None:
            raise EngineUnavailable(f"{failed}; repeat the request.", retry_after=15) from error


async def schedule[Request](
    client: DurableClient, orchestration: Orchestration[Request, Any], request: Request, instance_id: str
) -> None:
    """Start an orchestration of the current version."""
    await client.schedule_new_orchestration(
        orchestration.name,
        input=orchestration.request.encode(request),
        instance_id=instance_id,
        version=contracts.VERSION,
    )


async def tell_waiting_run(client: DurableClient, run_id: str) -> None:
    """Let a run that waits for a window read the schedule again. Best effort: the timer repeats it."""
    try:
        await client.raise_orchestration_event(run_id, Signal.CONTROL)
    except Exception:
        _LOG.warning("Run %s could not be signalled to find its window.", run_id, exc_info=True)


def requested_mode(policy: Policy, mode: Mode | None) -> Mode:
    """What a requested run does: what the policy says, unless the request asks for less.

    Raises:
        PolicyError: it asks to patch by a policy that only assesses.
    """
    if mode is Mode.PATCH and policy.mode is PolicyMode.ASSESS:
        raise PolicyError([Problem(path="mode", message="is patch, and the policy only assesses (its mode is assess)")])
    return mode or Mode(policy.mode.value)


def new_run_id(policy: Policy) -> RunId:
    """The id of an ad-hoc run."""
    return RunId.of(datetime.now(UTC), policy.name, secrets.token_hex(4))


def check_key(key: str) -> None:
    """Validate an idempotency key.

    Raises:
        InvalidRequest: it is empty, too long, or not printable.
    """
    if not key or len(key) > MAX_KEY or not key.isprintable():
        raise InvalidRequest(f"The key of the request must have 1 to {MAX_KEY} printable characters.")


async def claimed_run_id(
    storage: Storage,
    kind: str,
    key: str,
    run_id: RunId,
    request: object = None,
    *,
    scope: Sequence[str] = (),
    noun: str = "key",
) -> RunId:
    """The run id of an idempotency key: this one, when the key is new.

    ``request`` is the request's JSON: the key is only valid for this request. ``scope``, such as caller and policy,
    separates equal keys. ``noun`` is what the sender calls the key.

    Raises:
        InvalidRequest: the key is empty, too long, or not printable.
        KeyReused: it was used for another request.
    """
    check_key(key)
    if scope:
        # A JSON list keeps different scopes and keys distinct.
        key = json.dumps([*scope, key])
    # Order and white space of a body do not count; a key of an older version has the run id alone.
    canonical = json.dumps(request, sort_keys=True, separators=(",", ":"))
    digest = hashlib.sha256(canonical.encode()).hexdigest()
    value = run_id.text if request is None else f"{run_id.text} {digest}"
    claimed, _ = await storage.idempotency.reserve(kind, key, value, datetime.now(UTC))
    first, _, first_digest = claimed.partition(" ")
    if request is not None and first_digest not in ("", digest):
        raise KeyReused(
            f"The {noun} was used for another request, which started the run {first}:"
            f" send a new {noun} with a new request."
        )
    return RunId.parse(first)


def name_for_keys(policy: str | Json) -> str:
    """The policy name that scopes idempotency keys; an inline policy never shares those of a stored one."""
    if isinstance(policy, str):
        return policy
    name = policy.get("name")
    # Not the digest that replaces a missing name: a key with another body must be refused.
    return adhoc_name(name) if isinstance(name, str) else ADHOC_POLICY


async def requested_policy(
    services: Services,
    policy: str | Json,
    overrides: Json | None,
    *,
    actor: str = "",
    actor_id: str = "",
    may_author: bool = True,
    installs: bool = True,
) -> WrittenPolicy:
    """The policy of a request, by name or as a document, merged with ``overrides`` (a merge patch).

    ``actor`` and ``actor_id`` are the author of an inline policy. ``may_author``: whether the caller may start an
    inline policy, or overrides that widen a stored one.

    Raises:
        NotFound: there is no policy of this name.
        NotPermitted: it needs the author role.
        PolicyError: the policy, or its merge with the overrides, is not valid.
    """
    settings = services.settings
    if isinstance(policy, str):
        chosen = await find_written_policy(services.storage, policy)
        if boundary_of(settings).is_needed_by(chosen.policy.scope):
            raise PolicyError([Problem(path="scope", message=needs_boundary())])
    elif not may_author:
        raise NotPermitted("You may start stored policies only: give the name of one.")
    else:
        # In a thread, like all validation of requests: it may have 256 KB.
        inline = await asyncio.to_thread(lambda: check_permitted(settings, parse_inline_policy(policy)))
        chosen = written(inline, author=actor, author_id=actor_id)
    if overrides is None:
        return chosen
    return await asyncio.to_thread(_overridden, settings, chosen, overrides, may_author=may_author, installs=installs)


def _overridden(
    settings: Settings, chosen: WrittenPolicy, overrides: object, *, may_author: bool, installs: bool
) -> WrittenPolicy:
    changed = check_permitted(settings, apply_overrides(chosen.policy.to_wire(), overrides))
    if not may_author and (reasons := widened(chosen.policy, changed, installs=installs)):
        problems = [Problem(path=f"overrides.{path}", message=why) for path, why in reasons.items()]
        raise NotPermitted("You may only narrow a stored policy: fewer machines, less, stricter.", errors=problems)
    return chosen.changed(changed)


async def find_policy(storage: Storage, name: str) -> Policy:
    """The stored policy.

    Raises:
        NotFound: there is no policy of this name.
    """
    return (await find_written_policy(storage, name)).policy


async def find_written_policy(storage: Storage, name: str) -> WrittenPolicy:
    """The stored policy with its author.

    Raises:
        NotFound: there is no policy of this name.
    """
    stored = await storage.policies.get(name) if is_policy_name(name) else None
    if stored is None:
        raise NotFound("There is no such policy.")
    return read_stored(stored)


async def list_valid_policies(storage: Storage) -> list[WrittenPolicy]:
    """All stored policies but those that this version of the app does not accept, which are logged."""
    valid: list[WrittenPolicy] = []
    for stored in await storage.policies.list_all():
        try:
            valid.append(read_stored(stored))
        except PolicyError as error:
            _LOG.error("The policy %s is not valid: %s", stored.name, error)
    return valid


def read_stored(stored: StoredPolicy) -> WrittenPolicy:
    """The policy of a row with its author.

    Raises:
        PolicyError: this version of the app does not accept it.
    """
    policy = parse_stored_policy(stored.document, name=stored.name)
    return written(
        policy, author=stored.author, author_id=stored.author_id, version=stored.version, digest=stored.digest
    )
