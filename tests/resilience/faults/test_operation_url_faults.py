"""F25: hostile URLs from Azure's answers and from people. No socket is opened, and no token leaves."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace

import pytest

from patchwave.outbound.notifications import ChannelSender, Delivery, Outgoing, sender
from tests.resilience.faults.invariants import hold_invariants
from tests.support.product import Product
from tests.support.webhook_receiver import Receiver, Reply, receiving


@dataclass
class Trap:
    """A port of this machine that must never be called."""

    port: int
    calls: int = 0


@pytest.fixture
def trap() -> Iterator[Trap]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(0.1)
        found = Trap(listening.getsockname()[1])
        ended = threading.Event()

        def count() -> None:
            while not ended.is_set():
                with suppress(TimeoutError):
                    connection, _ = listening.accept()
                    found.calls += 1
                    connection.close()

        thread = threading.Thread(target=count, name="trap")
        thread.start()
        yield found
        ended.set()
        thread.join()


def hostile(product: Product, one: str, trap: Trap) -> list[str]:
    """What an operation URL may be turned into; each has the path of a good one."""
    subscription = one.split("/")[2]
    path = f"/subscriptions/{subscription}/providers/Microsoft.Compute/locations/westeurope/operations/1?t=1"
    host = product.stack.arm.removeprefix("https://")
    return [
        f"http://169.254.169.254{path}",
        f"https://localhost:{trap.port}{path}",
        f"http://127.0.0.1:{trap.port}{path}",
        f"https://{host}@localhost:{trap.port}{path}",
        f"https://localhost:{trap.port}\\@{host}{path}",
        f"https://{host}{path}&c={'A' * 9_000}",
        f"https://{host}{path.replace(subscription, '99999999-2222-4333-8444-555555555555')}",
        f"http://{host}{path}",
    ]


def test_f25_operation_urls_that_lead_elsewhere_are_not_followed(product: Product, trap: Trap) -> None:
    """The machine is asked instead, so that even then its patches are counted."""
    urls = hostile(product, product.take()[0], trap)
    ids = product.take(len(urls), installMinutes=3)
    for one, url in zip(ids, urls, strict=True):
        product.fault(one, "install", headers={"Azure-AsyncOperation": url, "Location": url})
    rows = hold_invariants(product, product.start(ids), ids)
    assert trap.calls == 0
    assert Counter(row["outcome"] for row in rows.values()) == {"patched": len(ids)}
    assert not [poll for one in ids for poll in product.requests(one, "poll") if poll["path"].endswith("/operations/1")]
    assert all(product.accepted(one)["install"] == 1 for one in ids)


@pytest.mark.parametrize("status", [302, pytest.param(307, marks=pytest.mark.chaos)])
def test_f25_a_redirect_of_a_poll_is_not_followed(product: Product, trap: Trap, status: int) -> None:
    (one,) = product.take(installMinutes=5)
    elsewhere = {"Location": f"https://localhost:{trap.port}/", "Retry-After": "0"}
    product.fault(one, "poll", times=4, after=2, status=status, headers=elsewhere)
    row = hold_invariants(product, product.start([one]), [one])[one.lower()]
    assert row["outcome"] == "patched"
    assert trap.calls == 0


@pytest.mark.parametrize("status", [307, pytest.param(302, marks=pytest.mark.chaos)])
def test_f25_a_redirect_of_the_post_takes_neither_token_nor_order_elsewhere(
    product: Product, trap: Trap, status: int
) -> None:
    (one,) = product.take()
    elsewhere = {"Location": f"https://localhost:{trap.port}/"}
    product.fault(one, "install", times=None, status=status, headers=elsewhere)
    row = hold_invariants(product, product.start([one]), [one])[one.lower()]
    assert (row["outcome"], row["reason"]) == ("failed", "operation_failed")
    assert trap.calls == 0
    assert product.accepted(one)["install"] == 0


def test_f25_a_channel_on_this_machine_is_not_called_and_fails_no_run(product: Product) -> None:
    """The channel ``hub`` of the test settings is at 127.0.0.1."""
    (one,) = product.take()
    run_id = product.start([one], notifications={"channels": ["hub"]})
    assert hold_invariants(product, run_id, [one])[one.lower()]["outcome"] == "patched"
    assert product.run(run_id)["state"] == "completed"


@pytest.mark.chaos
@pytest.mark.parametrize("status", [200, 400, 500])
async def test_f25_a_receiver_that_answers_drop_by_drop_is_left(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Slow-loris: each drop comes in time, and the answer never ends. What was taken counts as told."""
    assert sender.TOTAL_SECONDS <= 30
    monkeypatch.setattr(sender, "TOTAL_SECONDS", 1.0)
    with receiving() as receiver:
        receiver.replies.append(Reply(status, body=b"." * 400, seconds_a_byte=0.1))
        began = time.monotonic()
        delivery = await post(receiver)
        assert time.monotonic() - began < 20, "the whole answer would take 40 seconds"
    assert delivery.sent is (status == 200)


@pytest.mark.chaos
@pytest.mark.parametrize("status", [500, 502, 503])
async def test_f25_a_failing_receiver_is_a_temporary_failure(status: int) -> None:
    with receiving() as receiver:
        receiver.replies.append(Reply(status, headers={"Retry-After": "7"}))
        delivery = await post(receiver)
        assert len(receiver.received) == 1, "how often is decided by the orchestration, which is bounded"
    expected = Delivery(sent=False, failure=f"HTTP {status}.", may_pass=True, retry_after=7)
    # A 503 that names a time limits requests, and uses up no attempt.
    assert delivery == replace(expected, is_throttled=status == 503)


async def post(receiver: Receiver) -> Delivery:
    """One attempt to tell a receiver."""
    message = Outgoing(url=f"{receiver.url}/in", body=b"{}", headers={}, private_allowed=False)
    return await ChannelSender(loopback_allowed=True, tls=receiver.tls).post(message)
