"""Customer webhook: the announcement as JSON, signed like the calls that Patchwave's own webhook accepts.

``X-Patchwave-Signature: t=<unix seconds>,v1=<hex of HMAC-SHA256(secret, "<t>." + body)>``. The delivery id is the same
for every attempt at one notification.
"""

from __future__ import annotations

import hashlib
import hmac
from datetime import datetime

from patchwave.domain.notifications.messages import Announcement
from patchwave.outbound.notifications.sender import JSON_HEADERS, Outgoing, json_body
from patchwave.settings import Channel


def webhook_request(channel: Channel, announcement: Announcement, *, delivery_id: str, now: datetime) -> Outgoing:
    """The announcement as JSON, with its signature."""
    body = json_body(announcement.to_json())
    stamp = int(now.timestamp())
    secret = channel.secret.get_secret_value().encode()
    signature = hmac.new(secret, f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
    headers = {"X-Patchwave-Signature": f"t={stamp},v1={signature}", "X-Patchwave-Delivery": delivery_id}
    return Outgoing(channel.url.get_secret_value(), body, JSON_HEADERS | headers, private_allowed=channel.private)
