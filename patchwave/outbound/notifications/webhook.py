"""Customer webhook: the announcement as JSON, signed like the calls that Patchwave's own webhook accepts.

``X-Patchwave-Signature: t=<unix seconds>,v1=<hex of HMAC-SHA256(secret, "<t>." + body)>``. The delivery id is the same
for every attempt at one notification.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from datetime import datetime

from patchwave.domain.notifications.messages import Announcement
from patchwave.outbound.notifications.sender import Outgoing
from patchwave.settings import Channel


def webhook_request(channel: Channel, announcement: Announcement, *, delivery_id: str, now: datetime) -> Outgoing:
    """The announcement as JSON, with its signature."""
    body = json.dumps(announcement.to_json(), ensure_ascii=False, separators=(",", ":")).encode()
    stamp = int(now.timestamp())
    secret = channel.secret.get_secret_value().encode()
    signature = hmac.new(secret, f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    return Outgoing(
        url=channel.url.get_secret_value(),
        body=body,
        headers={
            "Content-Type": "application/json; charset=utf-8",
            "X-Patchwave-Signature": f"t={stamp},v1={signature}",
            "X-Patchwave-Delivery": delivery_id,
        },
        private_allowed=channel.private,
    )
