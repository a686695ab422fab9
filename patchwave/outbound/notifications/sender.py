"""One POST to a configured URL: https, one attempt, ten seconds, no redirect, no internal address.

`patchwave.outbound.egress_guard` checks the address.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from patchwave.domain.azure.errors import parse_retry_after
from patchwave.domain.core.documents import Json, object_or_none
from patchwave.outbound.egress_guard import EgressGuard

if TYPE_CHECKING:
    import ssl

TOTAL_SECONDS = 10.0
MAX_ANSWER = 4096
"""Bytes of a response that are read."""

JSON_HEADERS = {"Content-Type": "application/json; charset=utf-8"}
_TRANSIENT = frozenset({408, 425, 429})
_CODE = re.compile(r"[A-Za-z_]{3,60}")
"""An error code of Slack or Azure. Other text of a response may contain the URL, which is a secret."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request ready to be sent. Its parts are secret, so its ``repr`` hides them.

    ``private_allowed``: whether its receiver may be in a private network.
    """

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    private_allowed: bool = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """The result of a delivery. ``may_pass``: a retry may help, after ``retry_after`` seconds if set.

    ``is_throttled``: the channel only asked to retry later.
    """

    sent: bool
    failure: str = ""
    may_pass: bool = False
    retry_after: float | None = None
    is_throttled: bool = False


class ChannelSender:
    """Sends requests.

    Args:
        loopback_allowed: for tests with local servers.
        tls: trusted certificate authorities; the system's by default.
    """

    def __init__(self, *, loopback_allowed: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self._loopback_allowed = loopback_allowed
        self._tls = tls

    async def post(self, outgoing: Outgoing) -> Delivery:
        """Send once. Any 2xx counts as delivered."""
        import aiohttp

        if urlsplit(outgoing.url).scheme != "https":
            return Delivery(sent=False, failure="The address is not https.")
        gate = EgressGuard(private_allowed=outgoing.private_allowed, loopback_allowed=self._loopback_allowed)
        try:
            async with gate.send(
                "POST", outgoing.url, seconds=TOTAL_SECONDS, headers=outgoing.headers, body=outgoing.body, tls=self._tls
            ) as answer:
                head = await answer.content.read(MAX_ANSWER)
                return _read(answer.status, answer.headers.get("Retry-After"), head)
        except TimeoutError:
            return Delivery(sent=False, failure=f"No answer within {TOTAL_SECONDS:.0f} seconds.", may_pass=True)
        except aiohttp.ClientConnectorCertificateError:
            return Delivery(sent=False, failure="The certificate is not trusted.")
        except aiohttp.ClientConnectorDNSError:
            return Delivery(sent=False, failure="The name could not be resolved.", may_pass=True)
        except aiohttp.ClientConnectorError:
            if gate.refusal:
                return Delivery(sent=False, failure=f"The address must not be called: it {gate.refusal}.")
            return Delivery(sent=False, failure="No connection could be made.", may_pass=True)
        except ValueError:
            # Such as a host name with a label that is too long. The error's text contains the URL.
            return Delivery(sent=False, failure="The address cannot be used.")
        except (aiohttp.ClientError, OSError) as error:
            # Only the kind of error: its text may contain the URL.
            return Delivery(sent=False, failure=f"The request broke off ({type(error).__name__}).", may_pass=True)


def json_body(payload: Json) -> bytes:
    """The body of a JSON document."""
    return json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode()


def _read(status: int, retry_after: str | None, head: bytes) -> Delivery:
    if 200 <= status < 300:
        return Delivery(sent=True)
    if 300 <= status < 400:
        return Delivery(sent=False, failure=f"HTTP {status}: redirects are not followed.")
    code = _code(head)
    asked = parse_retry_after(retry_after, datetime.now(UTC))
    return Delivery(
        sent=False,
        failure=f"HTTP {status} ({code})." if code else f"HTTP {status}.",
        may_pass=status in _TRANSIENT or status >= 500,
        retry_after=asked,
        is_throttled=status == 429 or (status == 503 and asked is not None),
    )


def _code(head: bytes) -> str:
    """The error code in a response: all of it (Slack), or ``error.code`` of a JSON object (Azure)."""
    text = head.decode("utf-8", "replace").strip()
    try:
        error = object_or_none((object_or_none(json.loads(text)) or {}).get("error")) or {}
        text = str(error.get("code", ""))
    except (ValueError, RecursionError):
        # Not JSON, so perhaps a plain word.
        pass
    return text if _CODE.fullmatch(text) else ""
