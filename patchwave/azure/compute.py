"""Changing calls of the compute SDK: sent once; every response of Azure is a value.

The SDK's retries are off: azure-core would repeat a POST after a 503 or any error with Retry-After, and a repeated
install kills the first one in the guest (safety rule 2). Nothing here waits for an operation.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from patchwave.azure.pipeline import ArmPipeline, ArmResponse, sdk_options
from patchwave.azure.rate_limiter import RateLimit, locally_throttled, open_rate_limits
from patchwave.domain.azure.errors import ArmFailure, cannot_follow_acceptance, parse_retry_after, read_failure
from patchwave.domain.azure.operation import PollReading, PollState, read_location
from patchwave.domain.azure.rate_limit import LOCALLY_THROTTLED, is_of_one_machine
from patchwave.domain.core.documents import Json, parse_object
from patchwave.settings import Settings

if TYPE_CHECKING:
    from azure.core.credentials_async import AsyncTokenCredential
    from azure.core.pipeline import PipelineResponse
    from azure.core.rest import AsyncHttpResponse
    from azure.mgmt.compute.aio import ComputeManagementClient


type _Call = Callable[..., Awaitable[object]]

_ENDS = ("succeeded", "completedwithwarnings", "failed")
"""Result states of an operation that has ended."""


@dataclass(frozen=True, slots=True)
class Submission:
    """The result of a call.

    ``accepted`` comes with both operation URLs, unchanged, and with ``reading`` when the body of a 200 has the
    operation's result. Otherwise there is a ``failure``; ``is_uncertain`` means a lost connection or a 5xx. `is_open`
    tells whether Azure may have accepted the call all the same.
    """

    accepted: bool
    async_url: str = ""
    location_url: str = ""
    reading: PollReading | None = None
    failure: ArmFailure | None = None
    is_uncertain: bool = False
    throttles_one_machine: bool = False
    """Whether a refusal is of a limit of the machine alone."""

    @property
    def is_open(self) -> bool:
        """Whether Azure may have accepted a call without confirming it: only the machine can tell.

        Never for a call that was throttled locally or not sent.
        """
        if self.accepted or self.failure is None:
            return self.is_uncertain
        if self.failure.status == 0 or self.failure.code == LOCALLY_THROTTLED:
            return self.is_uncertain
        return not cannot_follow_acceptance(self.failure)


class ComputeClients:
    """Base class of the clients of machines and disks: the SDK's clients for changes, and a pipeline for reads.

    One instance serves all subscriptions of the identity, in one process and event loop.
    """

    def __init__(self, settings: Settings, credential: AsyncTokenCredential) -> None:
        self._settings = settings
        self._credential = credential
        self._clients: dict[str, ComputeManagementClient] = {}
        self._pipeline = ArmPipeline(settings, credential)

    async def close(self) -> None:
        """Close the connections."""
        for client in self._clients.values():
            await client.close()
        self._clients.clear()
        await self._pipeline.close()

    def _compute(self, subscription_id: str) -> ComputeManagementClient:
        client = self._clients.get(subscription_id)
        if client is None:
            from azure.mgmt.compute.aio import ComputeManagementClient

            client = ComputeManagementClient(self._credential, subscription_id, **sdk_options(self._settings))
            self._clients[subscription_id] = client
        return client

    async def _write(self, subscription_id: str, request: str, call: _Call) -> Submission:
        """`submit` under the rate limit of other changes than patch operations."""
        return await submit(call, open_rate_limits(self._settings).of_writes(subscription_id, request))

    async def _get(self, url: str) -> ArmResponse:
        from azure.core.rest import HttpRequest

        return await self._pipeline.send(HttpRequest("GET", url))

    async def _read(self, path: str) -> Json | ArmFailure:
        """The resource at a path with its query."""
        reply = await self._get(f"{self._settings.manager_url}{path}")
        if reply.status != 200:
            return reply.to_failure()
        found = parse_object(reply.body)
        return ArmFailure(status=0, message="Resource Manager answered in no known form") if found is None else found


async def submit(
    call: _Call,
    rate_limit: RateLimit,
    request_id: str | None = None,
    *,
    has_reservation: bool = False,
) -> Submission:
    """Make a ``begin_...`` call of the SDK without polling, and return Azure's response.

    Args:
        call: takes pipeline options and passes them to the SDK, with ``polling=False``.
        rate_limit: of the buckets that the call uses.
        request_id: the ``x-ms-client-request-id``, which identifies the call in Azure's log.
        has_reservation: whether the caller has waited for its reservation already.
    """
    if not has_reservation and (wait := await rate_limit.wait()):
        return Submission(accepted=False, failure=locally_throttled(wait))
    rate_limit.sent()
    submission, headers = await _send(call, request_id)
    status = submission.failure.status if submission.failure else 202
    rate_limit.answered(status, headers, submission.failure.retry_after if submission.failure else None)
    return submission


async def _send(call: _Call, request_id: str | None) -> tuple[Submission, Mapping[str, str]]:
    """Azure's response, and its headers."""
    from azure.core.exceptions import AzureError, HttpResponseError

    answers: list[AsyncHttpResponse] = []

    def keep(reply: PipelineResponse[Any, AsyncHttpResponse]) -> None:
        answers.append(reply.http_response)

    options: dict[str, Any] = {"retry_total": 0, "raw_response_hook": keep}
    if request_id is not None:
        options["request_id"] = request_id
    try:
        await call(**options)
    except HttpResponseError as error:
        if not answers:
            return _unsent(error), {}
    except AzureError as error:
        # The SDK may fail on an unexpected body after Azure has responded.
        if not answers:
            lost = Submission(accepted=False, failure=_failure_of(error), is_uncertain=not _was_never_sent(error))
            return lost, {}
    return _read_submission(answers[-1]), answers[-1].headers


def _read_submission(reply: AsyncHttpResponse) -> Submission:
    headers, body = reply.headers, _body(reply)
    if reply.status_code in (200, 201, 202, 204):
        return Submission(
            accepted=True,
            async_url=headers.get("Azure-AsyncOperation") or "",
            location_url=headers.get("Location") or "",
            reading=_end_within(body) if reply.status_code == 200 else None,
        )
    retry_after = parse_retry_after(headers.get("Retry-After"), datetime.now(UTC))
    failure = read_failure(reply.status_code, body, retry_after=retry_after)
    return Submission(
        accepted=False,
        failure=failure,
        is_uncertain=reply.status_code >= 500,
        throttles_one_machine=reply.status_code == 429 and is_of_one_machine(headers),
    )


def _end_within(body: str) -> PollReading | None:
    """The operation's result, when the response to the call contains it, as the patch calls' documentation allows."""
    reading = read_location(200, body)
    has_ended = reading.state is PollState.SUCCEEDED and str(reading.result.get("status")).casefold() in _ENDS
    return reading if has_ended or reading.state is PollState.FAILED else None


def _body(reply: AsyncHttpResponse) -> str:
    try:
        return reply.text()
    except (UnicodeDecodeError, ValueError):
        return ""


def _unsent(error: Exception) -> Submission:
    """No response of Resource Manager, because the identity endpoint refused: nothing was sent."""
    return Submission(accepted=False, failure=_failure_of(error))


def _failure_of(error: Exception) -> ArmFailure:
    return ArmFailure(status=0, code=type(error).__name__, message=str(error)[:500])


def _was_never_sent(error: Exception) -> bool:
    """Whether the request certainly was not sent: azure-core also reports a broken connection as a request error."""
    from aiohttp import ClientConnectorError, ConnectionTimeoutError

    inner: object = getattr(error, "inner_exception", None)
    return isinstance(inner, (ClientConnectorError, ConnectionTimeoutError))
