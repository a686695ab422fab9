"""F22 and F23: results that cannot be written at once, and results that come late or twice."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import PatchRecord
from patchwave.domain.workflow.operation import OperationState, StartState
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.resilience.faults.activities import (
    accepted_installation,
    install,
    poll,
    poll_to_the_end,
    prepare,
    record,
    sent,
)
from tests.resilience.faults.invariants import ends_patched_once, hold_invariants
from tests.resilience.faults.storage_line import Fate, StorageLine, product_on_a_line
from tests.support.product import Product
from tests.support.simulated_run import RUN_ID
from tests.support.simulator import Simulator

WRITES = ("POST", "PUT", "PATCH", "MERGE")
DONE = Outcome(outcome=OutcomeKind.PATCHED, reason=Reason.OK, message="3 patches are installed.")
ELSE = Outcome(outcome=OutcomeKind.FAILED, reason=Reason.INTERNAL, message="A late word of an earlier attempt.")

# --- F22: the result cannot be written


@pytest.fixture(scope="module")
def shaky_stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Product, StorageLine]]:
    with product_on_a_line(tmp_path_factory.mktemp("shaky")) as found:
        yield found


@pytest.fixture
def shaky(shaky_stack: tuple[Product, StorageLine]) -> Iterator[tuple[Product, StorageLine]]:
    yield shaky_stack
    shaky_stack[1].heal()


def is_result(method: str, body: bytes) -> bool:
    """Whether a request writes how a machine ended."""
    return method in WRITES and b'"outcome"' in body and b'"endedAt"' in body


@pytest.mark.chaos
@pytest.mark.parametrize("status", [503, 500])
def test_f22_a_result_is_written_once_storage_takes_it_again(shaky: tuple[Product, StorageLine], status: int) -> None:
    """Eight refusals are more than one execution of the activity bears: it is executed again."""
    product, line = shaky

    def fate(method: str, path: str, body: bytes) -> Fate:
        return status if is_result(method, body) and len(line.hits) < 8 else "pass"

    line.fate = fate
    (one,) = product.take()
    ends_patched_once(product, one, product.start([one]))
    assert len(line.hits) == 8


@pytest.mark.chaos
@pytest.mark.parametrize("lost", [1, 3])
def test_f22_a_result_that_is_there_already_is_the_success_of_an_earlier_attempt(
    shaky: tuple[Product, StorageLine], lost: int
) -> None:
    """The answer to the write is lost: what repeats it meets its own row, as 409 or 412."""
    product, line = shaky

    def fate(method: str, path: str, body: bytes) -> Fate:
        return "lose" if is_result(method, body) and len(line.hits) < lost else "pass"

    line.fate = fate
    (one,) = product.take()
    ends_patched_once(product, one, product.start([one]))
    assert len(line.hits) == lost


@pytest.mark.chaos
@pytest.mark.parametrize("status", [409, 412])
def test_f22_a_row_that_was_changed_meanwhile_is_read_and_written_again(
    shaky: tuple[Product, StorageLine], status: int
) -> None:
    product, line = shaky

    def fate(method: str, path: str, body: bytes) -> Fate:
        return status if is_result(method, body) and len(line.hits) < 2 else "pass"

    line.fate = fate
    (one,) = product.take()
    ends_patched_once(product, one, product.start([one]))
    assert len(line.hits) == 2


def test_f22_what_is_too_large_is_cut_with_a_mark_and_no_row_is_lost(product: Product) -> None:
    """A property holds 64 KiB, a row 1 MiB: neither a text nor a list of Azure's may cost a machine its row."""
    names = [f"patch-{number:04d}-{'x' * 200}" for number in range(600)]
    patches = [{"name": name, "classification": "Security"} for name in names]
    many, wordy = product.take(1, pendingPatches=patches) + product.take(
        1, operationFails={"code": "Verbose", "message": "y" * 300_000, "kind": "install"}
    )
    rows = hold_invariants(product, product.start([many, wordy]), [many, wordy])
    assert rows[many.lower()]["outcome"] == "patched"
    assert rows[many.lower()]["installation"]["installed"] == 600
    assert rows[wordy.lower()]["outcome"] == "failed"
    assert "… [cut]" in rows[wordy.lower()]["message"]


async def test_f22_a_text_over_the_limit_of_a_property_is_cut_with_its_length(
    storage: Storage, azure: Simulator
) -> None:
    key = await prepare(storage, azure.take())
    long = ELSE.model_copy(update={"message": "z" * 100_000})
    patches = [PatchRecord(name=f"p{number}", state="Installed") for number in range(300)]
    stored = await storage.results.record_outcome(
        RUN_ID, key, long, at=datetime.now(UTC), installation=None, patches=patches
    )
    assert stored.outcome is OutcomeKind.FAILED
    found = await storage.machines.get(RUN_ID, key)
    assert found
    assert found.message.endswith("… [cut: 100000 characters in all]")
    assert len(await storage.results.list_patches(RUN_ID, key)) == 300


# --- F23: late and repeated results


async def test_f23_a_late_word_of_an_abandoned_attempt_changes_nothing(
    services: Services, storage: Storage, azure: Simulator
) -> None:
    """The activity was given up on, and executed again elsewhere; then the first execution goes on after all."""
    one = azure.take(installMinutes=0, rebootRequired=False)
    key = await accepted_installation(services, storage, one)
    report, _ = await poll_to_the_end(services, key)
    assert report.state is OperationState.ENDED
    await record(services, key, DONE)
    before = await storage.machines.get(RUN_ID, key)
    patches = await storage.results.list_patches(RUN_ID, key)
    # Everything that may still arrive: the installation, a poll with its result, another outcome.
    assert (await install(services, key)).state is StartState.ACCEPTED
    assert (await poll(services, key)).state is OperationState.ENDED
    await record(services, key, ELSE, keep_lease=True)
    after = await storage.machines.get(RUN_ID, key)
    assert before
    assert after
    assert (after.outcome, after.reason, after.message) == (before.outcome, before.reason, before.message)
    assert (after.stage, after.ended_at) == (before.stage, before.ended_at)
    assert await storage.results.list_patches(RUN_ID, key) == patches
    assert sent(azure, one) == 1
    assert len((await storage.history.list_page(key, 10, None)).items) == 1


async def test_f23_a_result_that_is_recorded_twice_counts_once(
    services: Services, storage: Storage, azure: Simulator
) -> None:
    key = await prepare(storage, azure.take())
    for outcome in (DONE, DONE, ELSE):
        await record(services, key, outcome)
    found = await storage.machines.get(RUN_ID, key)
    assert found
    assert found.outcome is OutcomeKind.PATCHED
    by_outcome, _ = await storage.runs.progress(RUN_ID)
    assert by_outcome == {"patched": 1}


def test_f23_a_failed_attempt_is_not_taken_for_the_next_one(product: Product) -> None:
    failing = {"code": "VMGuestPatchInternalError", "kind": "assess", "times": 1}
    (one,) = product.take(operationFails=failing)
    product.fault(one, "assess", after=1, drop="before")
    ends_patched_once(product, one, product.start([one]))
    assert product.accepted(one)["assess"] == 2
