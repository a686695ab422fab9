"""Plain requests to Resource Manager through azure-core, with a token.

No retries (the orchestrator decides), no redirects (a token only goes to the configured host), and no logging
(operation URLs are signed).
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote

from patchwave.azure.rate_limiter import locally_throttled, open_rate_limits
from patchwave.azure.transport import transport_options
from patchwave.domain.azure.errors import ArmFailure, parse_retry_after, read_failure
from patchwave.domain.policy.boundary import Boundary
from patchwave.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.core.pipeline.transport import AsyncHttpTransport
    from azure.core.rest import HttpRequest
    from azure.mgmt.core import AsyncARMPipelineClient

CONNECT_SECONDS = 15
READ_SECONDS = 60
_MAX_TEXT = 500
_ASCII = "".join(map(chr, range(128)))


def sdk_options(settings: Settings) -> dict[str, Any]:
    """Options of every management SDK client, beside credential and subscription."""
    from azure.core.pipeline.policies import SansIOHTTPPolicy

    from patchwave.azure.boundary import BoundaryPolicy

    return {
        "base_url": settings.manager_url,
        "credential_scopes": [settings.manager_scope],
        # The SDK's own log policy would write the signed operation URLs of every 202.
        "http_logging_policy": SansIOHTTPPolicy(),
        # The SDK would follow a 307 to any host, with the token.
        "redirect_policy": SansIOHTTPPolicy(),
        # Last before the wire: these see each request as it is sent.
        "per_retry_policies": [BoundaryPolicy(boundary_of(settings))],
        "connection_timeout": CONNECT_SECONDS,
        "read_timeout": READ_SECONDS,
        **transport_options(),
    }


def boundary_of(settings: Settings) -> Boundary:
    """The boundary of the app's changes."""
    return Boundary.of(settings.listed_subscriptions, settings.listed_snapshot_groups)


@dataclass(frozen=True, slots=True)
class ArmResponse:
    """A response; without one, ``status`` is 0 and ``body`` holds the library's error."""

    status: int
    body: str
    headers: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def retry_after(self) -> float | None:
        """Seconds that the service asks to wait."""
        return parse_retry_after(self.headers.get("Retry-After"), datetime.now(UTC))

    def to_failure(self) -> ArmFailure:
        """The response as a failure."""
        return read_failure(self.status, self.body, retry_after=self.retry_after)


async def rate_limited(
    settings: Settings, method: str, url: str, send: Callable[[], Awaitable[ArmResponse]]
) -> ArmResponse:
    """Send at the reserved time; a request with a distant reservation is not sent, and counts as throttled."""
    rate_limit = open_rate_limits(settings).of_request(method, url)
    if wait := await rate_limit.wait():
        throttled = locally_throttled(wait)
        error = {"code": throttled.code, "message": throttled.message}
        return ArmResponse(throttled.status, json.dumps({"error": error}), {"Retry-After": f"{wait:.3f}"})
    rate_limit.sent()
    answer = await send()
    rate_limit.answered(answer.status, answer.headers, answer.retry_after)
    return answer


def encode_url(url: str) -> str:
    """The URL with non-ASCII characters percent-encoded; ASCII, such as a signature, stays unchanged."""
    return url if url.isascii() else quote(url, safe=_ASCII)


def lost(error: Exception) -> ArmResponse:
    """The response for a request that failed in the library: status 0, and its error."""
    return ArmResponse(0, json.dumps({"code": type(error).__name__, "message": str(error)[:_MAX_TEXT]}))


class ArmPipeline:
    """One pipeline per process and event loop; opened by the first request."""

    def __init__(
        self,
        settings: Settings,
        credential: AsyncTokenCredential,
        transport: AsyncHttpTransport[Any, Any] | None = None,
    ) -> None:
        self._settings = settings
        self._credential = credential
        self._transport = transport
        self._client: AsyncARMPipelineClient[Any, Any] | None = None

    async def send(self, request: HttpRequest) -> ArmResponse:
        """Send once, at the reserved time; with a distant reservation the request counts as throttled.

        The URL stays byte for byte, except for non-ASCII characters in names, which are percent-encoded.
        """
        request.url = encode_url(request.url)
        return await rate_limited(self._settings, request.method, request.url, lambda: self._send(request))

    async def submit(
        self, request: HttpRequest, *, raw_response_hook: Callable[..., None], request_id: str, **_: object
    ) -> None:
        """Send a change once, and hand its response to the hook: a call for `patchwave.azure.compute.submit`.

        Raises:
            AzureError: there is no response.
        """
        request.url = encode_url(request.url)
        await self._open().send_request(
            request,
            raw_response_hook=raw_response_hook,
            request_id=request_id,
            connection_timeout=CONNECT_SECONDS,
            read_timeout=READ_SECONDS,
        )

    async def _send(self, request: HttpRequest) -> ArmResponse:
        from azure.core.exceptions import AzureError

        try:
            reply = await self._open().send_request(
                request, connection_timeout=CONNECT_SECONDS, read_timeout=READ_SECONDS
            )
            return ArmResponse(reply.status_code, reply.text(), cast("Mapping[str, str]", reply.headers))
        except (AzureError, UnicodeDecodeError) as error:
            return lost(error)

    async def close(self) -> None:
        """Close the connections."""
        if self._client is not None:
            await self._client.close()
            self._client = None

    def _open(self) -> AsyncARMPipelineClient[Any, Any]:
        if self._client is None:
            from azure.core.pipeline.policies import CustomHookPolicy, RequestIdPolicy, UserAgentPolicy
            from azure.mgmt.core import AsyncARMPipelineClient
            from azure.mgmt.core.policies import AsyncARMChallengeAuthenticationPolicy

            from patchwave.azure.boundary import BoundaryPolicy

            options: dict[str, Any] = transport_options() if self._transport is None else {"transport": self._transport}
            self._client = AsyncARMPipelineClient(
                self._settings.manager_url,
                policies=[
                    RequestIdPolicy(),
                    UserAgentPolicy("patchwave"),
                    CustomHookPolicy(),
                    AsyncARMChallengeAuthenticationPolicy(self._credential, self._settings.manager_scope),
                    BoundaryPolicy(boundary_of(self._settings)),
                ],
                **options,
            )
        return self._client
