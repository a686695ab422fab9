"""run_webhook: other systems start a stored policy, once per delivery, with a signed body when a secret is set."""

from __future__ import annotations

import hashlib
import hmac
import re
from datetime import UTC, datetime

import azure.durable_functions as df
import azure.functions as func
from pydantic import Field

from adapters.tables import open_records
from domain.base import Tolerant, as_object
from domain.run import Mode, StartableMode, Trigger, TriggerKind
from settings import Authorization, load_settings
from triggers.described import LOCATION, NO_POLICY, RETRY_AFTER, Answer, Body, Parameter, described
from triggers.http import Refusal, answered, caller_of, header_of, parse_json, read_body, route_of
from triggers.runs import ListedRun, accepted
from triggers.start import KEY_REUSED, LONGEST_KEY, claimed_run_id, find_policy, new_run_id, start_run

SIGNATURE_HEADER = "x-patchwave-signature"
DELIVERY_HEADER = "x-patchwave-delivery"
TOLERANCE_SECONDS = 300
"""How far the time stamp of a signature may be from now, in either direction."""
_SIGNATURE = re.compile(r"t=([0-9]{1,12}),\s*v1=([0-9a-fA-F]{64})")

bp = df.Blueprint()


class Delivery(Tolerant):
    """What may be said with a call; other keys are passed over."""

    mode: StartableMode = Mode.PATCH
    delivery_id: str | None = Field(default=None, min_length=1, max_length=LONGEST_KEY)


_SIGNATURE_GIVEN = Parameter(
    "X-Patchwave-Signature",
    {"type": "string", "pattern": r"^t=[0-9]{1,12},v1=[0-9a-f]{64}$"},
    'Needed with a secret: the hex of HMAC-SHA256(secret, "<t>." + body).',
)
_DELIVERY_GIVEN = Parameter(
    "X-Patchwave-Delivery",
    {"type": "string", "minLength": 1, "maxLength": LONGEST_KEY},
    "The same delivery of the same policy and mode gives the first run; of another one it is refused.",
)
_UNSIGNED = "The function key or the signature is missing or not valid."


@bp.route(route="webhooks/{policy}", methods=["POST"])
@bp.durable_client_input(client_name="client")
@described(
    Answer(202, ListedRun, headers=(LOCATION, RETRY_AFTER)),
    body=Body(Delivery, {"assess": {"mode": "assess", "deliveryId": "build-4711"}}, required=False),
    headers=[_SIGNATURE_GIVEN, _DELIVERY_GIVEN],
    refuses={400: "The body is no JSON object, or says something else than a start.", 401: _UNSIGNED}
    | NO_POLICY
    | KEY_REUSED,
)
@answered
async def run_webhook(req: func.HttpRequest, client: df.DurableFunctionsClient) -> func.HttpResponse:
    """Start a run of a stored policy: 202. The same delivery gives the first run; the same signature is refused."""
    body = read_body(req)
    signature = _check_signature(header_of(req, SIGNATURE_HEADER), body, datetime.now(UTC))
    fields = _fields(body)
    records = open_records()
    policy = await find_policy(records, route_of(req, "policy"))
    mode = fields.get("mode", Mode.PATCH.value)
    if mode not in (Mode.PATCH.value, Mode.ASSESS.value):
        raise Refusal(400, "mode must be patch or assess.")
    run_id = new_run_id(policy)
    delivery = header_of(req, DELIVERY_HEADER) or fields.get("deliveryId")
    if delivery is not None:
        if not isinstance(delivery, str):
            raise Refusal(400, "deliveryId must be a text.")
        run_id = await claimed_run_id(records, "delivery", delivery, run_id, {"policy": policy.name, "mode": mode})
    if signature:
        # A sender that repeats a delivery after a lost answer is welcome; the same bytes for another run are not.
        bound, _ = await records.claim("signature", signature, run_id.text, datetime.now(UTC))
        if bound != run_id.text:
            raise Refusal(401, "This signature has been used before.")
    trigger = Trigger(kind=TriggerKind.WEBHOOK, by=caller_of(req), detail=delivery or "")
    run = await start_run(records, client, policy, run_id, trigger, mode=Mode(mode), repeatable=delivery is not None)
    return accepted(run)


def _check_signature(header: str | None, body: bytes, now: datetime) -> str:
    """The signature, when one is asked for: HMAC-SHA256 over the time stamp, a dot, and the body.

    Raises:
        Refusal: 401 without saying what exactly is wrong, so that nobody learns from trying.
    """
    settings = load_settings()
    secret = settings.webhook_secret.get_secret_value()
    if not secret:
        if settings.authorization is Authorization.ROLES:
            # Every caller has a function key; whoever lacks the role to start a run would come in here.
            raise Refusal(401, "Callers need roles, so webhooks need a signature: set PATCHWAVE_WEBHOOK_SECRET.")
        return ""
    found = _SIGNATURE.fullmatch(header or "")
    if found is None:
        raise Refusal(401, "The signature is missing or not valid.")
    stamp, given = found.groups()
    wanted = hmac.new(secret.encode(), f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    is_fresh = abs(now.timestamp() - int(stamp)) <= TOLERANCE_SECONDS
    if not hmac.compare_digest(wanted, given.lower()) or not is_fresh:
        raise Refusal(401, "The signature is missing or not valid.")
    return f"{stamp}.{wanted}"


def _fields(body: bytes) -> dict[str, object]:
    """The body, which may be empty, as an object; keys of other systems are passed over."""
    if not body.strip():
        return {}
    fields = as_object(parse_json(body))
    if fields is None:
        raise Refusal(400, "The body is not a JSON object.")
    return fields
