"""The Resource Graph client against a TLS server on loopback: pages, quota, refusals, no answer."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from azure.core.credentials import AccessToken
from azure.core.pipeline.transport import AioHttpTransport

from patchwave.azure.pipeline import ArmPipeline
from patchwave.azure.rate_limiter import open_rate_limits
from patchwave.azure.resource_graph import DEFAULT_WAIT_SECONDS, ResourceGraph
from patchwave.domain.fleet.discovery import build_queries
from patchwave.domain.policy.scope import Scope
from patchwave.settings import Settings
from tests.support.arm_server import Credential
from tests.support.loopback_server import AUTHORITY, serving

SUBSCRIPTION = "11111111-1111-1111-1111-111111111111"


class Server:
    """Answers with what a test queues up; keeps the requests."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        self.answers: list[web.Response] = []
        self.url = ""

    async def handle(self, request: web.Request) -> web.Response:
        self.requests.append(
            {
                "path": request.path_qs,
                "authorization": request.headers.get("Authorization"),
                "body": await request.json(),
            }
        )
        return self.answers.pop(0)

    def queue(
        self,
        body: object,
        *,
        status: int = 200,
        remaining: str | None = "14",
        resets_after: str | None = "00:00:05",
        **headers: str,
    ) -> None:
        if remaining is not None:
            headers["x-ms-user-quota-remaining"] = remaining
        if resets_after is not None:
            headers["x-ms-user-quota-resets-after"] = resets_after
        text = body if isinstance(body, str) else json.dumps(body)
        self.answers.append(
            web.Response(
                text=text,
                status=status,
                content_type="application/json",
                headers={name.replace("_", "-"): value for name, value in headers.items()},
            )
        )


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    server = Server()
    async with serving(server.handle) as server.url:
        yield server


def settings_for(url: str) -> Settings:
    return Settings(resource_manager=url, tables_endpoint="https://account.table.core.windows.net")


@pytest.fixture
async def credential() -> Credential:
    return Credential()


@pytest.fixture
async def connect(credential: Credential, tmp_path: Path) -> AsyncIterator[Callable[[str], ResourceGraph]]:
    opened: list[ResourceGraph] = []
    roots = tmp_path / "ca.pem"
    AUTHORITY.cert_pem.write_to_path(str(roots))

    def open_one(url: str) -> ResourceGraph:
        transport = AioHttpTransport(connection_verify=str(roots))
        graph = ResourceGraph(settings_for(url), ArmPipeline(settings_for(url), credential, transport))
        opened.append(graph)
        return graph

    yield open_one
    for graph in opened:
        await graph.close()


def answer(*names: str, token: str = "", truncated: object = "false") -> dict[str, Any]:
    body: dict[str, Any] = {
        "totalRecords": 2995,
        "count": len(names),
        "data": [{"id": name} for name in names],
        "facets": [],
        "resultTruncated": truncated,
    }
    return body | ({"$skipToken": token} if token else {})


async def test_pages_follow_the_token(
    server: Server, connect: Callable[[str], ResourceGraph], credential: Credential
) -> None:
    server.queue(answer("a", "b", token="ew0K==", truncated="true"))
    server.queue(answer("c"))
    [query] = build_queries(Scope.model_validate({"subscriptions": [SUBSCRIPTION]}))
    graph = connect(server.url)

    first = await graph.page(query.text, query.subscriptions)
    second = await graph.page(query.text, query.subscriptions, first.skip_token)

    assert [row["id"] for row in first.rows + second.rows] == ["a", "b", "c"]
    assert (first.skip_token, second.skip_token) == ("ew0K==", "")
    assert (first.wait_seconds, first.failure) == (0, None)
    sent = server.requests[0]
    assert sent["path"] == "/providers/Microsoft.ResourceGraph/resources?api-version=2021-03-01"
    assert sent["authorization"] == "Bearer secret-token"
    assert credential.scopes == [f"{server.url}/.default"]
    assert sent["body"] == {
        "query": query.text,
        "subscriptions": [SUBSCRIPTION],
        "options": {"$top": 1000, "resultFormat": "objectArray"},
    }
    assert server.requests[1]["body"]["options"]["$skipToken"] == "ew0K=="
    assert server.requests[1]["body"]["query"] == query.text


async def test_no_subscriptions_are_not_sent_as_an_empty_list(
    server: Server, connect: Callable[[str], ResourceGraph]
) -> None:
    server.queue(answer())
    assert (await connect(server.url).page("resources")).rows == []
    assert "subscriptions" not in server.requests[0]["body"]


@pytest.mark.parametrize(
    ("remaining", "resets_after", "wait"),
    [
        ("1", "00:00:05", 0),
        ("0", "00:00:05", 5),
        ("0", "00:00:02.5000000", 2.5),
        ("0", "00:01:00", 60),
        ("0", None, DEFAULT_WAIT_SECONDS),
        ("0", "soon", DEFAULT_WAIT_SECONDS),
        ("0", "99:00:00", 300),
        (None, None, 0),
        ("many", "00:00:05", 0),
    ],
)
async def test_the_quota_is_obeyed(
    server: Server,
    connect: Callable[[str], ResourceGraph],
    remaining: str | None,
    resets_after: str | None,
    wait: float,
) -> None:
    server.queue(answer("a"), remaining=remaining, resets_after=resets_after)
    page = await connect(server.url).page("resources")
    assert (len(page.rows), page.wait_seconds, page.failure) == (1, wait, None)


@pytest.mark.parametrize(
    ("status", "body", "headers", "wait"),
    [
        (429, {"error": {"code": "RateLimiting", "message": "slow"}}, {"Retry_After": "7"}, 7),
        (429, {"code": "RateLimiting"}, {"remaining": "0", "resets_after": "00:00:03"}, 3),
        (429, "", {"remaining": "0", "resets_after": "00:00:09", "Retry_After": "2"}, 9),
        (429, "", {}, DEFAULT_WAIT_SECONDS),
        (503, "<html>down</html>", {"Retry_After": "20"}, 20),
        (500, "", {}, DEFAULT_WAIT_SECONDS),
        (401, {"error": {"code": "ExpiredAuthenticationToken"}}, {}, DEFAULT_WAIT_SECONDS),
        (400, {"error": {"code": "BadRequest", "details": [{"code": "ParserFailure"}]}}, {}, 0),
        (403, {"error": {"code": "AuthorizationFailed"}}, {}, 0),
    ],
)
async def test_a_refusal_is_a_value_with_the_time_to_wait(
    server: Server,
    connect: Callable[[str], ResourceGraph],
    status: int,
    body: object,
    headers: dict[str, Any],
    wait: float,
) -> None:
    server.queue(body, status=status, **headers)
    page = await connect(server.url).page("resources")
    assert page.failure is not None
    assert page.failure.status == status
    assert page.wait_seconds == wait
    assert len(server.requests) == 1


@pytest.mark.parametrize("body", ["", "[]", "{}", '{"data": {"rows": []}}', "not json", "[" * 100_000])
async def test_an_answer_in_no_known_form(server: Server, connect: Callable[[str], ResourceGraph], body: str) -> None:
    server.queue(body)
    page = await connect(server.url).page("resources")
    assert page.failure is not None
    assert page.wait_seconds == 0


@pytest.mark.parametrize("truncated", ["true", True])
async def test_a_list_that_is_cut_without_a_token_is_a_failure(
    server: Server, connect: Callable[[str], ResourceGraph], truncated: object
) -> None:
    server.queue(answer("a", truncated=truncated))
    page = await connect(server.url).page("resources")
    assert page.failure is not None
    assert page.rows == []


async def test_a_caller_waits_for_the_share_of_callers_and_a_run_does_not(
    server: Server, connect: Callable[[str], ResourceGraph]
) -> None:
    """Otherwise a view of the fleet takes the whole quota, and a run that queries then is refused."""
    graph = connect(server.url)
    [limiter] = open_rate_limits(settings_for(server.url)).of_queries().limiters.values()
    for remaining in ("3", "2", "1"):
        server.queue(answer("a"), remaining=remaining)
    # Three are left, of which callers take none at once: the next one's turn is later, and what a run asks leaves now.
    assert (await graph.page_in_turn("resources")).rows
    now = time.time()
    assert limiter.next_reservation(now) > now + 0.5
    asked = [await graph.page("resources"), await graph.page("resources")]
    assert [len(page.rows) for page in asked] == [1, 1]
    # What answers to runs tell counts for callers.
    assert limiter.level(time.time()) < 2


async def test_a_refusal_keeps_callers_waiting(server: Server, connect: Callable[[str], ResourceGraph]) -> None:
    graph = connect(server.url)
    [limiter] = open_rate_limits(settings_for(server.url)).of_queries().limiters.values()
    server.queue({"error": {"code": "RateLimiting"}}, status=429, remaining="0", resets_after="00:00:30")
    page = await graph.page_in_turn("resources")
    assert (page.wait_seconds, page.failure is not None) == (30, True)
    assert limiter.throttled_until > time.time() + 29


async def test_a_cancelled_caller_does_not_count_as_unanswered(
    connect: Callable[[str], ResourceGraph], monkeypatch: pytest.MonkeyPatch
) -> None:
    graph = connect("https://localhost:1")
    began = asyncio.Event()

    async def hang(*_: object) -> object:
        began.set()
        return await asyncio.Event().wait()

    monkeypatch.setattr(graph, "_ask", hang)
    asking = asyncio.ensure_future(graph.page_in_turn("resources"))
    await began.wait()
    asking.cancel()
    await asyncio.gather(asking, return_exceptions=True)
    [limiter] = open_rate_limits(settings_for("https://localhost:1")).of_queries().limiters.values()
    limiter.noticed(time.time(), 15)
    assert limiter.level(time.time()) == 15


async def test_a_refused_connection(server: Server, connect: Callable[[str], ResourceGraph]) -> None:
    graph = connect("https://localhost:1")
    page = await graph.page("resources")
    assert page.failure is not None
    assert page.failure.status == 0
    assert page.wait_seconds > 0
    assert "secret-token" not in page.failure.text


async def test_a_credential_that_fails_is_a_failure_too(
    server: Server, connect: Callable[[str], ResourceGraph], credential: Credential, monkeypatch: pytest.MonkeyPatch
) -> None:
    from azure.core.exceptions import ClientAuthenticationError

    async def refuse(*_: str, **__: Any) -> AccessToken:
        raise ClientAuthenticationError("no identity here")

    monkeypatch.setattr(credential, "get_token", refuse)
    page = await connect(server.url).page("resources")
    assert page.failure is not None
    assert "no identity here" in page.failure.text
    assert server.requests == []


async def test_a_page_that_is_too_large_is_read_in_smaller_ones(
    server: Server, connect: Callable[[str], ResourceGraph]
) -> None:
    details = [{"code": "ResponsePayloadTooLarge", "message": "Response payload size is 17000000"}]
    server.queue({"error": {"code": "BadRequest", "message": "m", "details": details}}, status=400)
    server.queue({"data": [{"id": "a"}], "$skipToken": "t"})
    server.queue({"data": [{"id": "b"}]})
    graph = connect(server.url)
    pages = [page async for page in graph.pages(build_queries(Scope()))]
    assert [row["id"] for page in pages for row in page.rows] == ["a", "b"]
    assert [each["body"]["options"]["$top"] for each in server.requests] == [1000, 250, 250]
