"""HTTP probe: one GET to a policy's address; permitted hosts and addresses only, no retry, no redirect, bounded body.

The settings list the permitted hosts; `patchwave.outbound.egress_guard` checks the address.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from patchwave.domain.machine.http_probe import ProbeAnswer, ProbeFailure, fill_url
from patchwave.domain.policy.http_probe import Probe, ProbeImpossible, host_of, is_listed
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.outbound.egress_guard import EgressGuard
from patchwave.settings import Settings

if TYPE_CHECKING:
    import ssl

    from aiohttp import ClientResponse

MAX_BODY = 64 * 1024
"""Bytes of a response that are searched for a text; the rest stays unread."""


class HttpProbe:
    """Sends probes.

    Args:
        settings: permitted hosts, and whether private addresses are permitted.
        loopback_allowed: for tests with local servers.
        tls: trusted certificate authorities; the system's by default.
    """

    def __init__(
        self, settings: Settings, *, loopback_allowed: bool = False, tls: ssl.SSLContext | None = None
    ) -> None:
        self._settings = settings
        self._loopback_allowed = loopback_allowed
        self._tls = tls

    async def send(self, probe: Probe, machine: MachineRecord) -> ProbeAnswer | ProbeFailure:
        """Probe the machine once."""
        try:
            url = fill_url(probe.url, machine)
        except ProbeImpossible as error:
            return _unsent(str(error))
        host = host_of(url)
        if not is_listed(host, self._settings.listed_probe_hosts):
            return _unsent(f"{host} is not in PATCHWAVE_PROBE_HOSTS")
        return await self._get(url, probe)

    async def _get(self, url: str, probe: Probe) -> ProbeAnswer | ProbeFailure:
        import aiohttp

        gate = EgressGuard(private_allowed=self._settings.probe_allow_private, loopback_allowed=self._loopback_allowed)
        try:
            async with gate.send("GET", url, seconds=probe.timeout_seconds, tls=self._tls) as answer:
                body = "" if probe.contains is None else await _head(answer)
                return ProbeAnswer(answer.status, body)
        except TimeoutError:
            return _tried(f"got no answer within {probe.timeout_seconds} s")
        except aiohttp.InvalidURL:
            return _unsent("its address is none that can be called")
        except aiohttp.ClientConnectorDNSError:
            return _unsent("its host could not be resolved")
        except aiohttp.ClientConnectorCertificateError:
            return _tried("met a certificate that is not trusted")
        except (aiohttp.ClientError, OSError, ValueError) as error:
            if gate.refusal:
                return _unsent(f"its host leads to an address that {gate.refusal}")
            # Only the kind of error: its text may contain the URL, whose query may hold a key.
            return _tried(f"got no answer ({type(error).__name__})")


async def _head(answer: ClientResponse) -> str:
    """The beginning of the body as text."""
    read = bytearray()
    while len(read) < MAX_BODY and (chunk := await answer.content.read(MAX_BODY - len(read))):
        read += chunk
    return read.decode("utf-8", "replace")


def _tried(detail: str) -> ProbeFailure:
    return ProbeFailure(detail, was_tried=True)


def _unsent(why: str) -> ProbeFailure:
    return ProbeFailure(f"was not sent: {why}", was_tried=False)
