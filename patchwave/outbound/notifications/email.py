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
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from patchwave.domain.notifications.messages import Message
from patchwave.outbound.notifications.sender import Outgoing
from patchwave.settings import Channel

if TYPE_CHECKING:
    from jinja2 import Environment

_TEMPLATES = Path(__file__).parent / "templates"
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
    signed = _signed(urlsplit(endpoint).netloc, key, body, now)
    headers = {"Content-Type": "application/json", "Operation-Id": operation_id, **signed}
    return Outgoing(endpoint + _TARGET, body, headers)


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


# --- templates, in which an undefined name is an error


def render_html(template: str, message: Message) -> str:
    """Render an HTML template; every text of the message is escaped."""
    return _environment(escaped=True).get_template(template).render(message=message)


def render_text(template: str, message: Message) -> str:
    """Render a plain text template. Nothing needs escaping: every text of the message is on one line."""
    return _environment(escaped=False).get_template(template).render(message=message)


@cache
def _environment(*, escaped: bool) -> Environment:
    from jinja2 import FileSystemLoader, StrictUndefined
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    return ImmutableSandboxedEnvironment(
        loader=FileSystemLoader(_TEMPLATES),
        autoescape=escaped,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
