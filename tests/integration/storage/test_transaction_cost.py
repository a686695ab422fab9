"""What a run costs in transactions, and that rows which are remembered never lead to a wrong answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from datetime import timedelta
from itertools import count

import pytest
from pydantic import SecretStr

from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary, PatchRecord
from patchwave.domain.runs.intent import Intent, IntentState
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.workflow.machine import MachineEnded
from patchwave.settings import Settings
from patchwave.storage import Storage, completion_change
from patchwave.storage.engine.batching import batching
from patchwave.storage.engine.client import TableRequests
from patchwave.storage.engine.row_cache import RowCache
from patchwave.storage.engine.rows import Change, Row
from patchwave.storage.engine.singleflight import SingleFlight
from patchwave.storage.engine.store import Store
from tests.support.factories import NOW, command, intent, machine, run

RUN = run().id
KEY = machine(1).key
LATER = NOW + timedelta(hours=5)
PATCHED = Outcome(outcome=OutcomeKind.PATCHED, reason=Reason.OK, message="done")
INSTALLED = InstallationSummary(status="Succeeded", installed=20)
PATCHES = [PatchRecord(patch_id=f"kb{number}", name=f"patch {number}") for number in range(20)]


class Counter:
    """Requests to the service, and the rows of those that write."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.reads: list[str] = []
        self.writes: list[int] = []
        commit, get = TableRequests.commit, TableRequests.get

        async def counted_commit(table: TableRequests, partition: str, changes: Sequence[Change]) -> list[str]:
            self.writes.append(len(changes))
            return await commit(table, partition, changes)

        async def counted_get(
            table: TableRequests, partition: str, key: str, select: Sequence[str] | None
        ) -> Row | None:
            self.reads.append(key)
            return await get(table, partition, key, select)

        scan = TableRequests.scan

        async def counted_scan(
            table: TableRequests, terms: Sequence[str], values: dict[str, str], select: Sequence[str] | None, page: int
        ) -> AsyncIterator[Row]:
            # A scan of more rows than a page would be more; there are none here.
            self.reads.append(values["partition"])
            async for row in scan(table, terms, values, select, page):
                yield row

        monkeypatch.setattr(TableRequests, "commit", counted_commit)
        monkeypatch.setattr(TableRequests, "get", counted_get)
        monkeypatch.setattr(TableRequests, "scan", counted_scan)

    def count_from_here(self) -> None:
        self.reads.clear()
        self.writes.clear()

    @property
    def transactions(self) -> int:
        return len(self.reads) + len(self.writes)


@pytest.fixture
def counter(monkeypatch: pytest.MonkeyPatch) -> Counter:
    return Counter(monkeypatch)


@pytest.fixture
async def batched(azurite: str, counter: Counter) -> AsyncIterator[Storage]:
    """Records whose writes are batched as in production."""
    assert counter.transactions == 0
    settings = Settings(
        tables_connection=SecretStr(azurite), table_prefix=f"e{time.time_ns()}", storage_batch_delay_seconds=0.25
    )
    found = Storage(Store.open(settings))
    yield found
    await found.close()


@pytest.fixture
async def worker(storage: Storage) -> Storage:
    return _worker_beside(storage)


def _worker_beside(storage: Storage) -> Storage:
    """Another worker, on the same tables."""
    store = storage._store  # pyright: ignore[reportPrivateUsage]: there is no other way to the same tables
    return Storage(Store(store._client, _prefix_of(store)))  # pyright: ignore[reportPrivateUsage]: likewise


def _prefix_of(store: Store) -> str:
    requests = store.runs._requests  # pyright: ignore[reportPrivateUsage]: likewise
    return requests._client.table_name.removesuffix("runs")  # pyright: ignore[reportPrivateUsage]: likewise


async def _operate(storage: Storage, key: str, kind: OperationKind, stage: Stage) -> None:
    """Lock, look, declare, send, follow: what the activities of one operation ask of the records."""
    await storage.runs.get(RUN)
    await storage.machines.get_validated(RUN, key)
    assert await storage.leases.acquire(key, RUN, NOW, LATER) == RUN
    await storage.runs.get(RUN)
    await storage.machines.get_validated(RUN, key)
    assert await storage.intents.find(RUN, key, kind) is None
    assert await storage.leases.acquire(key, RUN, NOW, LATER, lasting=LATER - timedelta(minutes=30)) == RUN
    await storage.freezes.list_all()
    declared = intent(RUN).model_copy(update={"machine_key": key, "kind": kind})
    assert await storage.intents.declare(declared) == (declared, True)
    assert await storage.machines.begin_operation(RUN, key, stage, NOW) is None
    await storage.runs.get(RUN)
    accepted = declared.model_copy(update={"state": IntentState.ACCEPTED, "async_url": f"https://a/{key}?s=1"})
    await storage.intents.save(accepted)
    for _ in range(3):
        assert await storage.intents.get(RUN, key, kind) == accepted
        assert not await storage.runs.is_canceled(RUN)


async def _patch(storage: Storage, key: str) -> None:
    """One machine through both of its steps."""
    await _operate(storage, key, OperationKind.ASSESS, Stage.ASSESSING)
    summary = AssessmentSummary(status="Succeeded", critical_and_security=3, other=17)
    await storage.results.record_assessment(RUN, key, summary, PATCHES, NOW)
    completion = completion_change("assess", MachineEnded(key=key))
    await storage.machines.update(RUN, key, Stage.ASSESSED, completion=completion)
    await storage.leases.release(key, RUN)
    await _operate(storage, key, OperationKind.INSTALL, Stage.INSTALLING)
    done = [patch.model_copy(update={"state": "Installed"}) for patch in PATCHES]
    await storage.results.record_installation(RUN, key, INSTALLED, done)
    await storage.machines.get_validated(RUN, key)
    stored = await storage.results.record_outcome(
        RUN,
        key,
        PATCHED,
        at=NOW,
        installation=None,
        patches=[],
        completion=lambda _: completion_change("patch", MachineEnded(key=key)),
        release=True,
    )
    assert stored == PATCHED


async def test_a_machine_costs_three_transactions_at_most(batched: Storage, counter: Counter) -> None:
    machines = [machine(number) for number in range(100)]
    await batched.runs.create(run())
    counter.count_from_here()
    await batched.machines.add(RUN, machines)
    await batched.machines.list_stages(RUN, limit=100, cursor=None)
    with batching():
        await asyncio.gather(*(_patch(batched, one.key) for one in machines))
    assert counter.transactions <= 3 * len(machines)
    assert sum(counter.writes) >= 50 * len([rows for rows in counter.writes if rows > 1])
    assert await batched.runs.progress(RUN) == ({"patched": 100}, {"done": 100})
    assert len((await batched.history.list_fleet(200, None)).items) == 100
    assert len(await batched.results.list_patches(RUN, KEY)) == len(PATCHES)
    assert await batched.leases.held([one.key for one in machines], RUN, NOW) == set()
    assert len((await batched.completions.since(RUN, "patch", ""))[0]) == 100


# --- remembered rows, and a worker that changes them


async def test_a_machine_that_another_worker_changed_is_seen_as_it_is(storage: Storage, worker: Storage) -> None:
    await storage.machines.add(RUN, [machine(1)])
    await storage.machines.get_validated(RUN, KEY)
    await worker.machines.update(RUN, KEY, Stage.INSTALLING)
    found = await storage.machines.get_validated(RUN, KEY)
    assert found is not None
    assert found.stage is Stage.INSTALLING


async def test_a_skip_through_another_worker_is_obeyed(storage: Storage, worker: Storage) -> None:
    await storage.machines.add(RUN, [machine(1)])
    await storage.machines.get_validated(RUN, KEY)
    await worker.machines.skip(RUN, KEY, command(), OperationKind.INSTALL)
    await storage.intents.declare(intent(RUN))
    assert await storage.machines.begin_operation(RUN, KEY, Stage.INSTALLING, NOW) == command()


async def test_machines_that_have_ended_otherwise_are_not_written_again(storage: Storage, counter: Counter) -> None:
    await storage.machines.add(RUN, [machine(1)])
    await storage.results.record_outcome(RUN, KEY, PATCHED, at=NOW, installation=None, patches=[])
    counter.count_from_here()
    assert await storage.results.record_outcomes(RUN, [KEY], Outcome.canceled(), NOW) == 0
    assert counter.writes == []


async def test_an_end_through_another_worker_stays(storage: Storage, worker: Storage) -> None:
    await storage.machines.add(RUN, [machine(1)])
    await storage.machines.get_validated(RUN, KEY)
    await worker.results.record_outcomes(RUN, [KEY], Outcome.canceled(), NOW)
    stored = await storage.results.record_outcome(RUN, KEY, PATCHED, at=NOW, installation=None, patches=[])
    assert stored == Outcome.canceled()


async def test_an_intent_of_another_worker_is_found_by_the_insert(storage: Storage, worker: Storage) -> None:
    """A machine's row says that nothing has begun, and yet another worker has declared it: only one may send."""
    await storage.machines.add(RUN, [MachineRecord.model_validate({**machine(1).to_wire(), "stage": "ready"})])
    await storage.machines.get_validated(RUN, KEY)
    theirs = intent(RUN).model_copy(update={"machine_key": KEY, "kind": OperationKind.INSTALL})
    await worker.intents.declare(theirs)
    ours = theirs.model_copy(update={"sent_at": LATER})
    assert await storage.intents.find(RUN, KEY, OperationKind.INSTALL) is None
    assert await storage.intents.declare(ours) == (theirs, False)
    assert await storage.intents.find(RUN, KEY, OperationKind.INSTALL) == theirs


async def test_an_intent_is_followed_as_it_is(storage: Storage, worker: Storage) -> None:
    first = intent(RUN)
    await storage.intents.declare(first)
    await worker.intents.save(first.model_copy(update={"async_url": "https://a/2?s=2"}))
    found = await storage.intents.get(RUN, first.machine_key, first.kind)
    assert isinstance(found, Intent)
    assert found.async_url == "https://a/2?s=2"


async def test_a_lease_that_lasts_costs_nothing_and_one_that_does_not_is_extended(
    batched: Storage, counter: Counter
) -> None:
    storage = batched
    await storage.leases.acquire(KEY, "run-a", NOW, LATER)
    counter.count_from_here()
    assert await storage.leases.acquire(KEY, "run-a", NOW, LATER, lasting=LATER) == "run-a"
    assert counter.transactions == 0
    longer = LATER + timedelta(hours=1)
    assert await storage.leases.acquire(KEY, "run-a", NOW, longer, lasting=longer) == "run-a"
    assert (counter.reads, counter.writes) == ([], [1])


async def test_a_released_lease_of_another_worker_is_not_taken_twice(storage: Storage, worker: Storage) -> None:
    await storage.leases.acquire(KEY, "run-a", NOW, LATER)
    await worker.leases.release(KEY, "run-a")
    assert await worker.leases.acquire(KEY, "run-b", NOW, LATER) == "run-b"
    # A step that begins asks, whatever it remembers.
    assert await storage.leases.acquire(KEY, "run-a", NOW, LATER) == "run-b"
    await storage.leases.release(KEY, "run-a")
    assert await storage.leases.held([KEY], "run-b", NOW) == {KEY}


async def test_a_lease_that_another_worker_took_meanwhile_is_given_back(storage: Storage, worker: Storage) -> None:
    assert await storage.leases.acquire(KEY, "run-b", NOW, LATER) == "run-b"
    await worker.leases.release(KEY, "run-b")
    assert await worker.leases.acquire(KEY, "run-a", NOW, LATER) == "run-a"
    await storage.leases.release(KEY, "run-a")
    assert await worker.leases.acquire(KEY, "run-c", NOW, LATER) == "run-c"


async def test_a_row_that_another_worker_changed_makes_no_other_row_doubtful(
    batched: Storage, counter: Counter
) -> None:
    """Looks at twenty machines share a transaction, and one of them is in the wrong."""
    machines = [machine(number) for number in range(20)]
    await batched.machines.add(RUN, machines)

    async def read_all() -> None:
        await asyncio.gather(*(batched.machines.get_validated(RUN, each.key) for each in machines))

    await read_all()
    await _worker_beside(batched).machines.update(RUN, machines[0].key, Stage.ASSESSING)
    await read_all()
    counter.count_from_here()
    await read_all()
    assert (counter.reads, counter.writes) == ([], [20])


async def test_patches_of_another_worker_are_not_lost(storage: Storage, worker: Storage) -> None:
    await storage.machines.add(RUN, [machine(1)])
    summary = AssessmentSummary(status="Succeeded", critical_and_security=1)
    await storage.results.record_assessment(RUN, KEY, summary, PATCHES[:2], NOW)
    await worker.results.record_assessment(RUN, KEY, summary, PATCHES[:3], LATER)
    await storage.results.record_installation(RUN, KEY, INSTALLED, [PATCHES[3]])
    assert [patch.patch_id for patch in await worker.results.list_patches(RUN, KEY)] == ["kb0", "kb1", "kb2", "kb3"]


# --- the parts


def test_rows_that_others_change_are_read_for_a_while() -> None:
    now = 0.0
    cache = RowCache(10, clock=lambda: now)
    for number in range(5):
        cache.put("p", Row(f"r{number}", {}, "e1"))
        assert cache.get("p", f"r{number}") is not None
        cache.refused("p", Change("merge", f"r{number}", {}, "e1"))
    cache.put("p", Row("other", {}, "e1"))
    assert cache.get("p", "other") is None
    now = 61.0
    assert cache.get("p", "other") is not None


def test_rows_that_were_not_used_make_room() -> None:
    cache = RowCache(2)
    for key in ("a", "b"):
        cache.put("p", Row(key, {}, "e1"))
    cache.get("p", "a")
    cache.put("p", Row("c", {}, "e1"))
    assert [key for key in "abc" if cache.get("p", key) is not None] == ["a", "c"]


async def test_a_read_after_the_request_was_sent_gets_another_answer() -> None:
    reads = SingleFlight()
    answers = count(1)
    arrived, sent = asyncio.Event(), asyncio.Event()

    async def send() -> int:
        number = next(answers)
        sent.set()
        await arrived.wait()
        return number

    early = [asyncio.create_task(reads.read("q", send)) for _ in range(3)]
    await sent.wait()
    late = asyncio.create_task(reads.read("q", send))
    await asyncio.sleep(0)
    early[0].cancel()
    arrived.set()
    found = await asyncio.gather(*early, late, return_exceptions=True)
    assert isinstance(found[0], asyncio.CancelledError)
    assert found[1:] == [1, 1, 2]


async def test_a_read_is_batched_and_sent_at_once_for_a_caller_without_batching() -> None:
    reads = SingleFlight(batch_delay=60)
    sent = count(1)

    async def send() -> int:
        return next(sent)

    with batching():
        assert await reads.read("q", send) == 1
        waiting = [asyncio.create_task(reads.read("q", send)) for _ in range(3)]
    await asyncio.sleep(0.01)
    assert not any(each.done() for each in waiting)
    assert await reads.read("q", send) == 2
    assert await asyncio.gather(*waiting) == [2, 2, 2]


async def test_a_lease_that_another_worker_extended_meanwhile_is_given_back(storage: Storage, worker: Storage) -> None:
    assert await storage.leases.acquire(KEY, "run-a", NOW, LATER) == "run-a"
    longer = LATER + timedelta(hours=1)
    assert await worker.leases.acquire(KEY, "run-a", NOW, longer) == "run-a"
    await storage.leases.release(KEY, "run-a")
    assert await storage.leases.acquire(KEY, "run-c", NOW, LATER) == "run-c"
