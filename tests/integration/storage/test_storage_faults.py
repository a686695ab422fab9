"""The records when storage misbehaves: answers that get lost, outages, refusals, and rows that do not fit."""

from __future__ import annotations

import logging
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Literal

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr
from yarl import URL

from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.ids import RunId
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import PatchRecord
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.settings import Settings
from patchwave.storage import RecordTooLarge, Storage, StorageError, StorageUnreachable
from patchwave.storage.engine import store
from patchwave.storage.engine.store import Store
from tests.support.factories import NOW, RUN, command, intent, machine, run
from tests.support.loopback_server import serving

OTHER = "20261111T190000Z-weekly"
MINUTE = timedelta(minutes=1)
KEY = machine(1).key
PATCHED = Outcome(outcome=OutcomeKind.PATCHED, reason=Reason.OK, message="done")

type Fate = Literal["pass", "lose", "cut", "no-etags"] | int


@dataclass
class Line:
    """A line to Azurite that can be cut. ``fate`` decides per request: pass it, lose its answer, cut it, refuse it."""

    url: str = ""
    seen: list[str] = field(default_factory=list[str])
    fate: Callable[[int, str], Fate] = lambda number, what: "pass"

    def count_from_here(self, fate: Callable[[int, str], Fate]) -> None:
        self.seen.clear()
        self.fate = fate


def _abort(request: web.Request) -> None:
    """Reset the connection; one that is gone already needs no reset."""
    if request.transport is not None:
        request.transport.abort()


@pytest.fixture
async def line(azurite: str) -> AsyncIterator[Line]:
    """A proxy in front of Azurite."""
    found = Line()
    target = re.search(r"TableEndpoint=(http://[^/]+)", azurite)
    assert target

    async def handle(request: web.Request) -> web.StreamResponse:
        found.seen.append(f"{request.method} {request.path}")
        fate = found.fate(len(found.seen), found.seen[-1])
        if isinstance(fate, int):
            return web.Response(status=fate, headers={"x-ms-error-code": "Injected"})
        if fate == "cut":
            _abort(request)
            return web.Response()
        async with client.request(
            request.method,
            URL(target[1] + request.raw_path, encoded=True),
            headers=request.headers,
            data=await request.read(),
        ) as answer:
            body = await answer.read()
            if fate == "lose":
                _abort(request)
            if fate == "no-etags":
                body = re.sub(rb'"odata.etag":"(?:[^"\\]|\\.)*",?', b"", body)
            headers = {
                k: v for k, v in answer.headers.items() if k.lower() not in ("transfer-encoding", "content-length")
            }
            return web.Response(status=answer.status, headers=headers, body=body)

    async with (
        aiohttp.ClientSession(auto_decompress=False, skip_auto_headers=["Content-Type"]) as client,
        serving(handle, "127.0.0.1", tls=False) as found.url,
    ):
        yield found


@pytest.fixture
async def shaky(azurite: str, line: Line, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Storage]:
    """Records over that line, with the library's retries but hardly any pause between them."""
    monkeypatch.setitem(store._RETRY_POLICY, "retry_backoff_factor", 0.01)
    connection = re.sub(r"TableEndpoint=http://[^/]+/", f"TableEndpoint={line.url}/", azurite)
    found = Storage(Store.open(Settings(tables_connection=SecretStr(connection), table_prefix=f"f{time.time_ns()}")))
    await found.prepare()
    yield found
    await found.close()


async def test_a_short_outage_is_ridden_out(shaky: Storage, line: Line) -> None:
    line.count_from_here(lambda number, _: 503 if number <= 2 else "pass")
    assert (await shaky.runs.create(run()))[1]
    assert len(line.seen) == 4


async def test_a_run_exists_once_after_a_lost_answer(shaky: Storage, line: Line) -> None:
    line.count_from_here(lambda number, _: "lose" if number == 1 else "pass")
    stored, _ = await shaky.runs.create(run())
    assert stored == run()
    assert (await shaky.runs.list_page(10, None)).items == [run(policy_snapshot=None)]


async def test_a_batch_is_complete_after_a_lost_answer(shaky: Storage, line: Line) -> None:
    machines = [machine(number) for number in range(120)]
    line.count_from_here(lambda number, what: "lose" if number == 1 else "pass")
    await shaky.machines.add(RUN, machines)
    assert await shaky.runs.count_machines(RUN) == 120


async def test_an_outcome_is_still_ours_after_a_lost_answer(shaky: Storage, line: Line) -> None:
    await shaky.machines.add(RUN, [machine(1)])
    line.count_from_here(lambda number, _: "lose" if number == 1 else "pass")
    assert await shaky.results.record_outcome(RUN, KEY, PATCHED, at=NOW, installation=None, patches=[]) == PATCHED
    assert line.seen[0].endswith("$batch")
    assert len((await shaky.history.list_page(KEY, 10, None)).items) == 1


async def test_a_lease_is_still_ours_after_a_lost_answer(shaky: Storage, line: Line) -> None:
    line.count_from_here(lambda number, _: "lose" if number == 1 else "pass")
    assert await shaky.leases.acquire(KEY, "run-a", NOW, NOW) == "run-a"


async def test_an_idempotency_key_is_still_ours_after_a_lost_answer(shaky: Storage, line: Line) -> None:
    line.count_from_here(lambda number, _: "lose" if number == 1 else "pass")
    assert (await shaky.idempotency.reserve("idempotency-key", "k", "run-1", NOW))[0] == "run-1"


async def test_an_intent_is_reported_as_existing_after_a_lost_answer(shaky: Storage, line: Line) -> None:
    """Not created is the safe answer: the caller asks Azure before it posts."""
    line.count_from_here(lambda number, _: "lose" if number == 1 else "pass")
    assert await shaky.intents.declare(intent(RUN)) == (intent(RUN), False)


async def test_a_command_counts_once_after_a_lost_answer(shaky: Storage, line: Line) -> None:
    await shaky.runs.create(run())
    await shaky.runs.start(RUN, NOW)
    paused = await shaky.runs.pause(RUN, command())
    line.count_from_here(lambda number, _: "lose" if number == 2 else "pass")
    resumed = await shaky.runs.resume(RUN, command("ben"))
    assert line.seen[1].endswith("$batch")
    assert (paused.state, resumed.state, resumed.resume_count) == ("paused", "running", 1)
    assert await shaky.runs.get(RUN) == resumed


@pytest.mark.parametrize("lost", [1, 2, 3])
async def test_a_skip_and_a_start_agree_after_lost_answers(shaky: Storage, line: Line, lost: int) -> None:
    await shaky.machines.add(RUN, [machine(1)])
    line.count_from_here(lambda number, _: "lose" if number == lost else "pass")
    assert (await shaky.machines.skip(RUN, KEY, command(), OperationKind.INSTALL)).skip_command == command()
    await shaky.intents.declare(intent(RUN))
    assert await shaky.machines.begin_operation(RUN, KEY, Stage.INSTALLING, NOW) == command()


async def test_a_service_that_leaves_etags_out_of_bodies_is_understood(shaky: Storage, line: Line) -> None:
    """The service does so for minimal metadata; the ETag then comes from the time stamp of the row."""
    await shaky.machines.add(RUN, [machine(1), machine(2)])
    line.count_from_here(lambda number, _: "no-etags")
    await shaky.machines.update(RUN, KEY, Stage.INSTALLING)
    assert await shaky.results.record_outcomes(RUN, [machine(2).key], Outcome.canceled(), NOW) == 1
    assert await shaky.results.record_outcome(RUN, KEY, PATCHED, at=NOW, installation=None, patches=[]) == PATCHED
    assert await shaky.leases.acquire(KEY, "run-a", NOW, NOW) == "run-a"
    assert await shaky.leases.acquire(KEY, "run-b", NOW, NOW) == "run-b"


async def test_missing_tables_are_created_on_first_use(azurite: str) -> None:
    settings = Settings(tables_connection=SecretStr(azurite), table_prefix=f"n{time.time_ns()}")
    storage = Storage(Store.open(settings))
    assert (await storage.runs.list_page(10, None)).items == []
    await storage.check()
    assert (await storage.runs.create(run()))[1]
    await storage.machines.add(RUN, [machine(1)])
    assert await storage.runs.count_machines(RUN) == 1
    await storage.close()


async def test_an_outage_is_one_error_with_a_sentence(shaky: Storage, line: Line) -> None:
    line.count_from_here(lambda number, _: "cut")
    for call in _calls(shaky):
        with pytest.raises(StorageUnreachable, match="Table storage"):
            await call()


@pytest.mark.parametrize(("status", "kind"), [(403, StorageUnreachable), (400, StorageError), (413, RecordTooLarge)])
async def test_refusals_become_our_errors(shaky: Storage, line: Line, status: int, kind: type[Exception]) -> None:
    line.count_from_here(lambda number, _: status)
    with pytest.raises(kind, match=str(status) if status != 413 else "larger") as caught:
        await shaky.runs.create(run())
    assert type(caught.value) is kind


async def test_a_refused_connection_fails_quickly_and_without_secrets(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    key = "c2VjcmV0LWtleS1vZi10aGUtYWNjb3VudA=="
    connection = f"DefaultEndpointsProtocol=http;AccountName=a;AccountKey={key};TableEndpoint=http://127.0.0.1:1/a;"
    storage = Storage(Store.open(Settings(tables_connection=SecretStr(connection))))
    begin = time.monotonic()
    with pytest.raises(StorageUnreachable) as caught:
        await storage.check()
    await storage.close()
    assert time.monotonic() - begin < 5
    assert "127.0.0.1" not in str(caught.value)
    told = " ".join(record.getMessage() for record in caplog.records if record.name.startswith(("azure", "msal")))
    assert key not in told
    assert "http" not in told


async def test_wherever_the_worker_dies_the_second_execution_completes(
    shaky: Storage, line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut the line at the k-th request, for every k, run the step again, and look at what is there."""
    await shaky.runs.create(run())
    patches = [PatchRecord(name=f"p{number}", state="Installed") for number in range(120)]
    for k in range(1, 40):
        one = machine(k)

        async def step(one: MachineRecord = one) -> None:
            await shaky.machines.add(RUN, [one])
            await shaky.results.record_outcome(RUN, one.key, PATCHED, at=NOW, installation=None, patches=patches)
            await shaky.audit.add(RUN, "ended", actor="run", at=NOW, detail={"key": one.key})

        line.count_from_here(lambda number, _, k=k: "cut" if number >= k else "pass")
        completed = True
        try:
            await step()
        except StorageUnreachable:
            completed = False
        line.count_from_here(lambda number, _: "pass")
        await step()
        found = await shaky.machines.get(RUN, one.key)
        assert found
        assert found.outcome is OutcomeKind.PATCHED
        assert len(await shaky.results.list_patches(RUN, one.key)) == 120
        assert len((await shaky.history.list_page(one.key, 10, None)).items) == 1
        if completed:
            break
    else:
        pytest.fail("the step never completed")
    audit = (await shaky.audit.list_page(RUN, 100, None)).items
    assert len(audit) == len({item["detail"]["key"] for item in audit}) == k
    assert len((await shaky.history.list_fleet(100, None)).items) == k


# --- nothing is executed again: what the next reader does


@pytest.mark.parametrize("read_next", ["lease check", "recovery or close"])
async def test_wherever_the_worker_dies_the_next_reader_completes_the_end(
    shaky: Storage, line: Line, read_next: str
) -> None:
    """Cut the line at the k-th request of the last step of a machine, for every k; that step never comes again."""
    for k in range(1, 20):
        run_id = RunId.of(NOW + k * MINUTE, "monthly").text
        one = machine(k)
        await shaky.runs.create(run(id=run_id))
        await shaky.machines.add(run_id, [one])
        assert await shaky.leases.acquire(one.key, run_id, NOW, NOW + 600 * MINUTE) == run_id
        line.count_from_here(lambda number, _, k=k: "cut" if number >= k else "pass")
        completed = True
        try:
            await shaky.results.record_outcome(
                run_id, one.key, PATCHED, at=NOW, installation=None, patches=[], release=True
            )
        except StorageUnreachable:
            completed = False
        line.count_from_here(lambda number, _: "pass")
        stored = await shaky.machines.get(run_id, one.key)
        assert stored is not None
        if stored.outcome is None:
            continue
        if read_next == "lease check":
            assert await shaky.leases.acquire(one.key, OTHER, NOW + MINUTE, NOW + 60 * MINUTE) == OTHER
        else:
            await shaky.finalizers.complete(run_id)
        [line_of_history] = (await shaky.history.list_page(one.key, 10, None)).items
        assert (line_of_history["runId"], line_of_history["outcome"]) == (run_id, "patched")
        assert [
            each["runId"] for each in (await shaky.history.list_fleet(100, None)).items if each["key"] == one.key
        ] == [run_id]
        assert await shaky.leases.held([one.key], run_id, NOW + MINUTE) == set()
        if completed:
            break
    else:
        pytest.fail("the step never completed")
    assert k > 2, "a cut between the row and what follows it was tried"


async def test_wherever_the_end_of_the_rest_dies_the_close_of_the_run_completes_it(shaky: Storage, line: Line) -> None:
    """The first execution is cut at the k-th request; the next one comes at another time, and for another reason."""
    outcome = Outcome.skipped(Reason.NOT_APPROVED, "Not started: the ring was not approved in time.")
    other = Outcome.skipped(Reason.INTERNAL, "Not started: the run failed.")
    for k in range(1, 40):
        run_id = RunId.of(NOW + k * MINUTE, "monthly").text
        machines = [machine(1000 * k + number) for number in range(3)]
        keys = [one.key for one in machines]
        await shaky.machines.add(run_id, machines)
        line.count_from_here(lambda number, _, k=k: "cut" if number >= k else "pass")
        completed = True
        try:
            await shaky.results.record_outcomes(run_id, keys, outcome, NOW)
        except StorageUnreachable:
            completed = False
        line.count_from_here(lambda number, _: "pass")
        await shaky.results.record_outcomes(run_id, keys, other, NOW + MINUTE)
        await shaky.finalizers.complete(run_id)
        for key in keys:
            stored = await shaky.machines.get(run_id, key)
            assert stored is not None
            told = (await shaky.history.list_page(key, 10, None)).items
            assert [(each["runId"], each["reason"]) for each in told] == [(run_id, stored.reason)]
            assert [
                each["reason"] for each in (await shaky.history.list_fleet(500, None)).items if each["key"] == key
            ] == [stored.reason]
        if completed:
            break
    else:
        pytest.fail("the step never completed")


async def test_ends_that_say_nothing_about_the_machine_get_their_history_too(shaky: Storage, line: Line) -> None:
    await shaky.machines.add(RUN, [machine(1), machine(2)])
    line.count_from_here(lambda number, what: "cut" if number > 2 else "pass")
    with pytest.raises(StorageUnreachable):
        await shaky.results.record_outcomes(RUN, [machine(1).key, machine(2).key], Outcome.canceled(), NOW)
    line.count_from_here(lambda number, _: "pass")
    assert await shaky.finalizers.complete(RUN) == 2
    for number in (1, 2):
        [told] = (await shaky.history.list_page(machine(number).key, 10, None)).items
        assert told["outcome"] == "canceled"
    assert (await shaky.history.list_fleet(10, None)).items == []


def _calls(storage: Storage) -> list[Callable[[], Awaitable[object]]]:
    return [
        lambda: storage.check(),
        lambda: storage.runs.create(run()),
        lambda: storage.runs.list_page(1, None),
        lambda: storage.machines.add(RUN, [machine(1)]),
        lambda: storage.machines.update(RUN, KEY, Stage.ASSESSING),
        lambda: storage.idempotency.reserve("event", "b", "c", NOW),
        lambda: storage.policies.list_all(),
    ]
