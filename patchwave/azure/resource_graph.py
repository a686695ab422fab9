"""Azure Resource Graph: one page of a query per call, rate-limited by the quota that the service reports.

The endpoint is a single POST of plain JSON, for which azure-core's pipeline is enough. azure-mgmt-resourcegraph would
add a dependency, a second set of models, and retries that sleep inside the call, and it hides the quota headers.
Source of the wire format: recordings of 2021-03-01 (page size, ``$skipToken``, ``resultTruncated`` as text, quota
headers) and Microsoft's guidance for throttled requests (15 queries per 5 seconds and user).

A page says how long to wait before the next query, and the orchestrator waits with a timer. Only `pages` and
`page_in_turn` sleep, for HTTP callers. These share a part of the quota, so that they do not delay runs.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from patchwave.azure.pipeline import ArmPipeline, ArmResponse
from patchwave.azure.rate_limiter import open_rate_limits
from patchwave.domain.azure.errors import ArmFailure, classify
from patchwave.domain.core.documents import object_or_none, parse_object
from patchwave.domain.fleet.discovery import DiscoveryQuery
from patchwave.settings import Settings

API_VERSION = "2021-03-01"
ROWS_PER_PAGE = 1000
"""The service's maximum."""
_TOO_LARGE = "responsepayloadtoolarge"
"""A page of more than 16 MiB is refused, with the advice to ask for fewer rows; known from reports, not recorded."""
_SMALLER_PAGE = 4
DEFAULT_WAIT_SECONDS = 5.0
"""The length of the quota's interval; the wait when the response has none."""

type Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class QueryPage:
    """One page of rows, or the failure to read it.

    ``skip_token`` is empty after the last page. ``wait_seconds``: time before the next query, 0 when it may be sent at
    once. With a ``failure``: time before the retry of this page, 0 when a retry is of no use.
    """

    rows: list[Row] = field(default_factory=list[Row])
    skip_token: str = ""
    wait_seconds: float = 0
    failure: ArmFailure | None = None


class QueryRefused(Exception):
    """Resource Graph fails permanently; the text is for users."""


class ResourceGraph:
    """Queries with the app's identity."""

    def __init__(self, settings: Settings, pipeline: ArmPipeline) -> None:
        self._settings = settings
        self._url = f"{settings.manager_url}/providers/Microsoft.ResourceGraph/resources"
        self._pipeline = pipeline

    async def page(self, query: str, subscriptions: Sequence[str] = (), skip_token: str = "") -> QueryPage:
        """Read one page. Query and subscriptions are the same for every ``skip_token``; none means all."""
        reply = await self._ask(_body(query, subscriptions, skip_token))
        open_rate_limits(self._settings).of_queries().noticed(reply.headers)
        return _page(reply)

    async def page_in_turn(
        self, query: str, subscriptions: Sequence[str] = (), skip_token: str = "", rows: int = ROWS_PER_PAGE
    ) -> QueryPage:
        """`page` for an HTTP caller: waits for a share of the quota."""
        rate_limit = open_rate_limits(self._settings).of_queries()
        await rate_limit.wait()
        rate_limit.sent()
        reply = ArmResponse(0, "")
        try:
            reply = await self._ask(_body(query, subscriptions, skip_token, rows))
        finally:
            # Also for a cancelled caller: a request without a recorded response would count as sent for ever.
            rate_limit.answered(reply.status, reply.headers, _wait_of(reply) or None)
        return _page(reply)

    async def pages(self, queries: Iterable[DiscoveryQuery]) -> AsyncIterator[QueryPage]:
        """Every page of every query; while the caller waits, throttled ones are repeated and too large ones divided.

        Raises:
            QueryRefused: the query is refused, or there is no response: neither identity nor network recovers while a
                caller waits.
        """
        for query in queries:
            token, rows = "", ROWS_PER_PAGE
            while True:
                page = await self.page_in_turn(query.text, query.subscriptions, token, rows)
                if page.failure is not None:
                    if rows > 1 and _is_too_large(page.failure):
                        rows = max(1, rows // _SMALLER_PAGE)
                        continue
                    if not page.wait_seconds or not page.failure.status:
                        raise QueryRefused(f"{classify(page.failure).sentence} ({page.failure.text})")
                else:
                    yield page
                    token = page.skip_token
                    if not token:
                        break
                # The quota's wait, or the wait before the retry of this page.
                await asyncio.sleep(page.wait_seconds)

    async def close(self) -> None:
        """Close the connections."""
        await self._pipeline.close()

    async def _ask(self, body: dict[str, Any]) -> ArmResponse:
        from azure.core.rest import HttpRequest

        return await self._pipeline.send(HttpRequest("POST", self._url, params={"api-version": API_VERSION}, json=body))


def _body(query: str, subscriptions: Sequence[str], skip_token: str, rows: int = ROWS_PER_PAGE) -> dict[str, Any]:
    options: dict[str, Any] = {"$top": rows, "resultFormat": "objectArray"}
    if skip_token:
        options["$skipToken"] = skip_token
    body: dict[str, Any] = {"query": query, "options": options}
    if subscriptions:
        body["subscriptions"] = list(subscriptions)
    return body


def _page(reply: ArmResponse) -> QueryPage:
    if reply.status == 200:
        return _read(reply.body, _quota_wait(reply.headers))
    failure = reply.to_failure()
    if not classify(failure).kind.is_transient:
        return QueryPage(failure=failure)
    return QueryPage(wait_seconds=_wait_of(reply) or DEFAULT_WAIT_SECONDS, failure=failure)


def _wait_of(reply: ArmResponse) -> float:
    """Seconds to wait by the response, 0 without any.

    The quota's own header comes first: a 429 of Resource Graph may lack Retry-After.
    """
    return max(reply.retry_after or 0, _quota_wait(reply.headers))


def _read(text: str, wait_seconds: float) -> QueryPage:
    answer = parse_object(text)
    data: object = answer.get("data") if answer else None
    if answer is None or not isinstance(data, list):
        return QueryPage(failure=ArmFailure(status=200, message="Resource Graph answered in no known form"))
    rows = [row for row in map(object_or_none, cast("list[object]", data)) if row is not None]
    token = answer.get("$skipToken")
    if not token and str(answer.get("resultTruncated", "")).lower() == "true":
        # Continuing would patch a part of the fleet and report it as the whole.
        return QueryPage(
            failure=ArmFailure(status=200, message="Resource Graph cut the list and gave no way to the rest")
        )
    return QueryPage(rows, token if isinstance(token, str) else "", wait_seconds)


def _is_too_large(failure: ArmFailure) -> bool:
    return any(code.casefold() == _TOO_LARGE for code in (failure.code, *(each.code for each in failure.details)))


def _quota_wait(headers: Mapping[str, str]) -> float:
    """Seconds until the quota is refilled when it is used up, else 0."""
    try:
        remaining = int(headers.get("x-ms-user-quota-remaining", "1"))
    except ValueError:
        return 0
    if remaining > 0:
        return 0
    return _clock_seconds(headers.get("x-ms-user-quota-resets-after", ""))


def _clock_seconds(text: str) -> float:
    """``hh:mm:ss``, with or without a fraction."""
    try:
        hours, minutes, seconds = (float(part) for part in text.split(":"))
    except ValueError:
        return DEFAULT_WAIT_SECONDS
    # Bounded: a header must not suspend a run for hours.
    return min(max(hours * 3600 + minutes * 60 + seconds, 0.0), 300.0) or DEFAULT_WAIT_SECONDS
