"""One POST to an address that an operator configured: https, one try, ten seconds, no redirect, no secret place.

Where it may go is decided by `patchwave.outbound.egress_guard`.
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
from patchwave.domain.core.documents import object_or_none
from patchwave.outbound.egress_guard import EgressGuard

if TYPE_CHECKING:
    import ssl

TOTAL_SECONDS = 10.0
MAX_ANSWER = 4096
"""Bytes of an answer that are looked at; the rest is left unread."""

_TRANSIENT = frozenset({408, 425, 429})
_CODE = re.compile(r"[A-Za-z_]{3,60}")
"""An error code as Slack and Azure write them. Other text of an answer may repeat the address, which is a secret."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """A request that is ready to be sent. Its parts hold secrets and do not show.

    ``private_allowed``: its receiver may be in a private network.
    """

    url: str = field(repr=False)
    body: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    private_allowed: bool = False


@dataclass(frozen=True, slots=True)
class Delivery:
    """What became of a request. ``may_pass``: another try may help, after ``retry_after`` seconds when told.

    ``is_throttled``: the answer says no more than to come later.
    """

    sent: bool
    failure: str = ""
    may_pass: bool = False
    retry_after: float | None = None
    is_throttled: bool = False


class ChannelSender:
    """Sends requests.

    Args:
        loopback_allowed: for tests, whose receivers are on this machine.
        tls: whom to trust; the certificate authorities of the system unless given.
    """

    def __init__(self, *, loopback_allowed: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self._loopback_allowed = loopback_allowed
        self._tls = tls

    async def post(self, outgoing: Outgoing) -> Delivery:
        """Send once. Any 2xx counts as delivered."""
        # The library costs a quarter of a second at start-up, which most workers of a run would pay for nothing.
        import aiohttp
        from yarl import URL

        if urlsplit(outgoing.url).scheme != "https":
            return Delivery(sent=False, failure="The address is not https.")
        gate = EgressGuard(private_allowed=outgoing.private_allowed, loopback_allowed=self._loopback_allowed)
        try:
            async with (
                aiohttp.ClientSession(
                    connector=aiohttp.TCPConnector(socket_factory=gate.open, ssl=self._tls or True),
                    timeout=aiohttp.ClientTimeout(total=TOTAL_SECONDS),
                    auto_decompress=False,
                ) as session,
                session.post(
                    # Byte for byte: the query of a Teams address is signed.
                    URL(outgoing.url, encoded=True),
                    data=outgoing.body,
                    headers={"User-Agent": "patchwave", "Accept-Encoding": "identity", **outgoing.headers},
                    allow_redirects=False,
                ) as answer,
            ):
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
            # Such as a label of a name that is too long. Its text holds the address.
            return Delivery(sent=False, failure="The address cannot be used.")
        except (aiohttp.ClientError, OSError) as error:
            # Only the kind of error: its text may hold the address.
            return Delivery(sent=False, failure=f"The request broke off ({type(error).__name__}).", may_pass=True)


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
    """The error code in an answer: all of it (Slack), or ``error.code`` of a JSON object (Azure)."""
    text = head.decode("utf-8", "replace").strip()
    try:
        error = object_or_none((object_or_none(json.loads(text)) or {}).get("error")) or {}
        text = str(error.get("code", ""))
    except (ValueError, RecursionError):
        # Not JSON, and so perhaps a bare word.
        pass
    return text if _CODE.fullmatch(text) else ""
