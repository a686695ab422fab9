"""run_webhook: other systems start a stored policy, once per delivery, with a signature when a secret is set.

Refusals come before the idempotency key is reserved, so that a later call can use the same delivery.
"""

from __future__ import annotations

import logging
from datetime import UTC, datetime

import azure.durable_functions as df
import azure.functions as func
from pydantic import Field

from patchwave.api.endpoint import LOCATION, NO_POLICY, RETRY_AFTER, RequestBody, ResponseSpec, route
from patchwave.api.http import Headers, caller_of, read_body, route_of
from patchwave.api.problems import ApiProblem
from patchwave.api.runs import ListedRun, accepted
from patchwave.domain.core.documents import ExternalDocument, object_or_none
from patchwave.domain.core.webhook_signature import FIRST_ROTATION, Call, SignatureRefused, policy_secret, verify
from patchwave.domain.runs.run import Mode, StartableMode, Trigger, TriggerKind
from patchwave.services.start_run import (
    MAX_KEY,
    check_key,
    claimed_run_id,
    find_written_policy,
    new_run_id,
    requested_mode,
    start_run,
)
from patchwave.services.strict_json import parse_json
from patchwave.settings import Authorization, Settings
from patchwave.wiring import Services

_LOG = logging.getLogger("patchwave.webhook")


class Delivery(ExternalDocument):
    """What may be said with a call; other keys are passed over."""

    mode: StartableMode | None = Field(default=None, description="What the policy says, unless given.")
    delivery_id: str | None = Field(default=None, min_length=1, max_length=MAX_KEY)


class DeliveryHeaders(Headers):
    """Signature and delivery of a call. A wrong signature is 401, whatever its form."""

    x_patchwave_signature: str = Field(
        default="",
        description="Needed with a secret: hex of HMAC-SHA256 over time, method, path, delivery and body, with the"
        " policy's secret.",
        json_schema_extra={"pattern": r"^t=[0-9]{1,12},v2=[0-9a-f]{64}$"},
    )
    x_patchwave_delivery: str | None = Field(
        default=None,
        description="The same delivery of the same policy and mode gives the first run; in another mode it is refused.",
        json_schema_extra={"minLength": 1, "maxLength": MAX_KEY},
    )


_UNSIGNED = "The function key or the signature is missing or not valid."


@route(
    "POST",
    "webhooks/{policy}",
    ResponseSpec(202, ListedRun, headers=(LOCATION, RETRY_AFTER)),
    role=None,
    body=RequestBody(Delivery, {"assess": {"mode": "assess", "deliveryId": "build-4711"}}),
    problems={400: "The body is no JSON object, or says something else than a start.", 401: _UNSIGNED}
    | NO_POLICY
    | {422: "The delivery was used in another mode."},
)
async def run_webhook(
    req: func.HttpRequest, client: df.DurableFunctionsClient, services: Services, headers: DeliveryHeaders
) -> func.HttpResponse:
    """Start a run of a stored policy: 202. The same delivery, or the same signed call, gives the first run."""
    body, name = read_body(req), route_of(req, "policy")
    given = headers.x_patchwave_delivery
    call = Call(name, given or "", body, req.method)
    signature = _check_signature(services.settings, headers.x_patchwave_signature, call, datetime.now(UTC))
    fields = _fields(body)
    named_mode = fields.get("mode")
    if named_mode not in (None, Mode.PATCH.value, Mode.ASSESS.value):
        raise ApiProblem(400, "mode must be patch or assess.")
    named = fields.get("deliveryId")
    if named is not None and not isinstance(named, str):
        raise ApiProblem(400, "deliveryId must be a text.")
    delivery = given or named
    if delivery is not None:
        check_key(delivery)
    storage = services.storage
    chosen = await find_written_policy(storage, name)
    policy = chosen.policy
    mode = requested_mode(policy, None if named_mode is None else Mode(str(named_mode)))
    run_id = new_run_id(policy)
    # A repeated signature is the same delivery, with or without a delivery id.
    key = delivery or signature
    if key:
        request = {"policy": policy.name, "mode": mode.value}
        run_id = await claimed_run_id(storage, "delivery", key, run_id, request, scope=(policy.name,), noun="delivery")
    trigger = Trigger(kind=TriggerKind.WEBHOOK, **caller_of(req).who, detail=delivery or "")
    run = await start_run(storage, client, chosen, run_id, trigger, mode=mode, repeatable=bool(key))
    return accepted(run)


def _check_signature(settings: Settings, header: str, call: Call, now: datetime) -> str:
    """Verify the signature if the settings require one; returns its idempotency key.

    Raises:
        ApiProblem: 401. The exact reason is only logged, so that attempts reveal nothing.
    """
    master = settings.webhook_secret.get_secret_value()
    if not master and settings.authorization is Authorization.KEYS:
        return ""
    if not master:
        # Every caller has a function key, with which a caller without the role to start a run could bypass the roles.
        why = "callers need roles, and PATCHWAVE_WEBHOOK_SECRET is not set"
        _LOG.warning("A webhook was refused: %s.", why)
        raise ApiProblem(401, _UNSIGNED, why=why)
    rotations = settings.listed_rotations.get(call.policy, (FIRST_ROTATION,))
    secrets = [policy_secret(master, call.policy, rotation) for rotation in rotations]
    try:
        return verify(header, call, secrets, now.timestamp())
    except SignatureRefused as refused:
        raise ApiProblem(401, _UNSIGNED, why=str(refused)) from None


def _fields(body: bytes) -> dict[str, object]:
    """The body as an object; keys of other systems are ignored.

    Raises:
        ApiProblem: 400 when it is not an object. A lost body must not start a run.
    """
    if not body.strip():
        raise ApiProblem(400, "The body is empty: send an object, {} at least.")
    fields = object_or_none(parse_json(body))
    if fields is None:
        raise ApiProblem(400, "The body is not a JSON object.")
    return fields
