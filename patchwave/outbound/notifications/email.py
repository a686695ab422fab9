"""Mail through Azure Communication Services: one signed POST, which the service queues.

202 means queued, not delivered; the service reports the delivery under the operation id, which is ours and the same for
every attempt. Its repeatability headers are not used: they work for five minutes, attempts may be an hour apart.
Source: learn.microsoft.com, "Email - Send" (2023-03-31), "Sign an HTTP request" and "Repeatability of requests" of
Communication Services.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import format_datetime
from urllib.parse import urlsplit

from patchwave.domain.notifications.messages import Message
from patchwave.outbound.notifications.sender import Outgoing
from patchwave.outbound.notifications.templates import render_html, render_text
from patchwave.settings import Channel

_TARGET = "/emails:send?api-version=2023-03-31"
_SIGNED = "x-ms-date;host;x-ms-content-sha256"


def mail_request(channel: Channel, message: Message, *, operation_id: str, now: datetime) -> Outgoing:
    """The message as a mail with an HTML and a plain text body.

    Raises:
        ValueError: the channel has no connection string, which the settings prevent.
    """
    endpoint, key = channel.mail_resource()
    mail = {
        "senderAddress": channel.sender,
        "recipients": {"to": [{"address": address} for address in channel.to]},
        "content": {
            "subject": message.title,
            "plainText": render_text("mail.txt.j2", message),
            "html": render_html("mail.html.j2", message),
        },
        "userEngagementTrackingDisabled": True,
    }
    body = json.dumps(mail, ensure_ascii=False).encode()
    return Outgoing(
        url=endpoint + _TARGET,
        body=body,
        headers={
            "Content-Type": "application/json",
            "Operation-Id": operation_id,
            **_signed(urlsplit(endpoint).netloc, key, body, now),
        },
    )


def _signed(host: str, key: bytes, body: bytes, now: datetime) -> Mapping[str, str]:
    """Headers that prove possession of the access key."""
    date = format_datetime(now.astimezone(UTC), usegmt=True)
    digest = base64.b64encode(hashlib.sha256(body).digest()).decode()
    text = f"POST\n{_TARGET}\n{date};{host};{digest}"
    signature = base64.b64encode(hmac.new(key, text.encode(), hashlib.sha256).digest()).decode()
    return {
        "x-ms-date": date,
        "x-ms-content-sha256": digest,
        "Authorization": f"HMAC-SHA256 SignedHeaders={_SIGNED}&Signature={signature}",
    }
