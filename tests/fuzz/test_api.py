"""The API against its own document: a few hundred requests in process here, ten thousand to the whole product by
`make fuzz`.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from urllib.parse import parse_qsl, unquote, urlsplit

import azure.functions as func
import pytest
import requests
import urllib3
from requests.adapters import HTTPAdapter

from patchwave.api import openapi
from patchwave.domain.runs.run import RunState
from patchwave.storage import Storage
from tests.fuzz.api import Campaign, Send
from tests.support.factories import NOW, machine
from tests.support.factories import run as a_run
from tests.support.http_calls import POLICY, Engine
from tests.support.product import Product, machine_id, write_fleet

SECONDS = 20.0
"""No answer takes longer; on an idle machine the slowest takes a tenth of one."""
QUICK_REQUESTS = 200
ALL_REQUESTS = 10_000
PARTS = 2
"""Side by side, each with a product of its own: making the requests takes longer than answering them."""
SEED = 20261110
SNAPSHOT = {"name": "monthly", **POLICY}


class InProcess:
    """Sends requests to the functions themselves, with an engine that only records."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._engine = Engine()
        self._routes = {each.operation_id: each for each in openapi.routes()}

    def __call__(self, request: requests.PreparedRequest, operation: str) -> requests.Response:
        route = self._routes[operation]
        url = urlsplit(str(request.url))
        # The route is known, so that its parts need no matching: they stand where the template has them.
        parts = zip(route.path.split("/"), url.path.split("/"), strict=True)
        # What requests calls them is wider than what they are once prepared.
        body = cast("bytes | str", request.body or b"")
        asked = func.HttpRequest(
            str(request.method),
            str(request.url),
            headers=cast("dict[str, str]", dict(request.headers)),
            params=_joined(parse_qsl(url.query, keep_blank_values=True)),
            route_params={name[1:-1]: unquote(value) for name, value in parts if name.startswith("{")},
            body=body.encode() if isinstance(body, str) else body,
        )
        work = asyncio.run_coroutine_threadsafe(self._answer(route.handler, asked), self._loop)
        return _response(request, work.result(SECONDS))

    async def _answer(self, handler: Any, request: func.HttpRequest) -> func.HttpResponse:
        inner = getattr(handler, "client_function", None)
        return await (handler(req=request) if inner is None else inner(req=request, client=self._engine))


def _joined(pairs: list[tuple[str, str]]) -> dict[str, str]:
    """Repeated names become one value with commas, as the host does it."""
    joined: dict[str, str] = {}
    for name, value in pairs:
        joined[name] = f"{joined[name]},{value}" if name in joined else value
    return joined


def _response(request: requests.PreparedRequest, answer: func.HttpResponse) -> requests.Response:
    raw = urllib3.HTTPResponse(
        io.BytesIO(answer.get_body()),
        {"Content-Type": str(answer.mimetype), **dict(answer.headers)},
        answer.status_code,
        preload_content=False,
    )
    return HTTPAdapter().build_response(request, raw)


async def known_of_everything(storage: Storage, policy: str) -> dict[str, list[str]]:
    """Names and ids of what exists: the policy, and a run in each state, which are stored for that."""
    known = {"policies.name": [policy], "webhooks.policy": [policy], "freezes.name": ["year-end"]}
    for number, state in enumerate(RunState):
        run = a_run(NOW + timedelta(seconds=number), state=state, policy_snapshot=SNAPSHOT)
        await storage.runs.create(run)
        await storage.machines.add(run.id, [machine(1)])
        known.setdefault("runs.runId", []).append(run.id)
    known["runs.machineKey"] = [machine(1).key]
    return known


@pytest.mark.usefixtures("no_identity")
async def test_the_api_keeps_its_promises(storage: Storage, monthly: str) -> None:
    known = await known_of_everything(storage, monthly)
    campaign = Campaign(InProcess(asyncio.get_running_loop()), SEED, known, is_without_azure=True)
    await asyncio.to_thread(campaign.run, QUICK_REQUESTS)
    check(campaign)


@pytest.mark.fuzz
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize("part", range(PARTS))
def test_ten_thousand_requests_to_the_whole_product(
    part: int, tmp_path: Path, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    seed = request.config.getoption("--seed")
    product = Product.open(tmp_path, write_small_fleet(tmp_path / "fleet.json"))
    try:
        run_id = product.start([machine_id(0)])
        product.wait(run_id)
        [done] = product.machines(run_id).values()
        known = {"runs.runId": [run_id], "runs.machineKey": [done["key"]]}
        names = {"policies.name": ["monthly"], "webhooks.policy": ["monthly"], "freezes.name": ["year-end"]}
        first = SEED if seed is None else seed
        campaign = Campaign(over_http(), first * PARTS + part, known | names, base_url=product.stack.url)
        campaign.run(ALL_REQUESTS // PARTS)
        with capsys.disabled():
            sys.stdout.write(f"\n{campaign.table()}\n")
        check(campaign)
        assert product.stack.ended == []
    finally:
        product.close()


def check(campaign: Campaign) -> None:
    """Fail with every failure; an assertion would shorten them."""
    if campaign.report:
        pytest.fail(campaign.report, pytrace=False)


def over_http() -> Send:
    """Sends requests over one connection to the host."""
    session = requests.Session()
    return lambda request, _: session.send(request, timeout=SECONDS, allow_redirects=False)


def write_small_fleet(path: Path) -> Path:
    """Few machines: hundreds of runs over them would else be the whole work."""
    machines = json.loads(write_fleet(path).read_text())
    path.write_text(json.dumps(machines[:6]))
    return path
