"""The API against its own document: a few hundred requests in process here, ten thousand to the whole product by
`make fuzz`.
"""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import pytest
import requests

from patchwave.storage import Storage
from tests.fuzz.api import Campaign, Send
from tests.fuzz.in_process import SECONDS, SEED, InProcess, known_of_everything
from tests.support.product import Product, machine_id, write_fleet

QUICK_REQUESTS = 200
ALL_REQUESTS = 10_000
PARTS = 2
"""Side by side, each with a product of its own: making the requests takes longer than answering them."""


@pytest.mark.usefixtures("no_identity")
async def test_the_api_is_as_documented(storage: Storage, monthly: str) -> None:
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
