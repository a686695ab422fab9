"""What holds after every fault, whatever it was: `hold_invariants` checks a run from all sides once it has ended."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import grpc
import httpx
from azure.core.exceptions import ResourceNotFoundError
from azure.data.tables import TableServiceClient
from durabletask.internal import orchestrator_service_pb2 as pb
from durabletask.internal import orchestrator_service_pb2_grpc as stubs
from google.protobuf import wrappers_pb2
from pydantic import SecretStr

from patchwave.domain.core.ids import MachineId
from patchwave.settings import Settings
from patchwave.storage import Storage
from patchwave.storage.engine.store import Store
from tests.conftest import HEALTH_KEY, WEBHOOK_SECRET
from tests.support.product import Product, wait_until

type Json = dict[str, Any]

_MAX_LEASE = timedelta(hours=30)
"""A lock that is kept runs out: the longest installation, what the guest may add to it, and the polls around it."""
_KEEPS_ITS_LOCK = ("left_running", "timed_out", "unknown", "failed")
"""Outcomes behind which something may still run in the guest."""
_SIGNED_ROWS = ("i~", "g~")
"""Intents and guards hold operation URLs, which are signed: they may be there and nowhere else."""


def hold_invariants(product: Product, run_id: str, ids: list[str], *, timeout: float = 100) -> dict[str, Json]:
    """Wait for the end of a run, and check what no fault may break; the machines by id in lower case.

    The run ends in bounded time. Every machine has exactly one final row, and they add up. Azure has accepted at most
    one installation of each while the run lasted. Locks are free or run out. Nothing secret is in rows, answers, logs
    or durable histories.
    """
    run = product.wait(run_id, timeout=timeout)
    rows = _rows(product, run_id)
    _one_final_row_each(run, rows, ids)
    _at_most_one_installation_each(product, run, ids)
    _locks_are_free_or_run_out(product, run_id, rows)
    _nothing_secret(product, run_id, rows)
    return {row["id"].lower(): row for row in rows}


def ends_patched_once(product: Product, one: str, run_id: str, *, timeout: float = 100) -> Json:
    """The run survived its fault: its only machine is patched by exactly one installation. Its row."""
    row = hold_invariants(product, run_id, [one], timeout=timeout)[one.lower()]
    assert (row["outcome"], row["reason"]) == ("patched", "ok"), row["message"]
    assert product.run(run_id)["state"] == "completed"
    assert product.accepted(one)["install"] == 1
    return row


def histories(product: Product, prefix: str) -> dict[str, str]:
    """What the durable engine keeps of instances whose id begins so: state, payloads and history, as text by id."""
    with grpc.insecure_channel(product.stack.engine, options=[("grpc.max_receive_message_length", -1)]) as channel:
        engine: Any = stubs.TaskHubSidecarServiceStub(channel)
        query = pb.InstanceQuery(
            instanceIdPrefix=wrappers_pb2.StringValue(value=prefix), maxInstanceCount=10_000, fetchInputsAndOutputs=True
        )
        found = engine.QueryInstances(pb.QueryInstancesRequest(query=query)).orchestrationState
        return {
            state.instanceId: str(state)
            + "".join(
                str(part)
                for part in engine.StreamInstanceHistory(pb.StreamInstanceHistoryRequest(instanceId=state.instanceId))
            )
            for state in found
        }


def locks_of(product: Product, run_id: str) -> dict[str, datetime]:
    """The locks that a run holds, and until when, by machine key; asked of the tables, wherever their rows are."""
    keys: dict[str, datetime] = {}
    # A table is made when it is first written to.
    with TableServiceClient.from_connection_string(product.stack.storage) as service, suppress(ResourceNotFoundError):
        rows = service.get_table_client("patchwavemachines").query_entities(f"owner eq '{run_id}'")
        keys = {f"{row['PartitionKey']} {row['RowKey']}": datetime.fromisoformat(row["until"]) for row in rows}
    return {re.findall(r"[0-9a-f]{24}", key)[0]: until for key, until in keys.items()}


@asynccontextmanager
async def storage_of(product: Product) -> AsyncGenerator[Storage]:
    """The product's own storage, for what has to be changed behind its back."""
    found = Storage(Store.open(Settings(tables_connection=SecretStr(product.stack.storage))))
    try:
        yield found
    finally:
        await found.close()


def _rows(product: Product, run_id: str) -> list[Json]:
    """The machines of a run as the API lists them: one that was listed twice would be here twice."""
    rows: list[Json] = []
    cursor: str | None = None
    while True:
        query = {"limit": "100"} | ({"cursor": cursor} if cursor else {})
        page = product.api.get(f"/api/runs/{run_id}/machines", params=query).json()
        rows += page["machines"]
        cursor = page["cursor"]
        if cursor is None:
            return rows


def _one_final_row_each(run: Json, rows: list[Json], ids: list[str]) -> None:
    assert sorted(row["id"].lower() for row in rows) == sorted({one.lower() for one in ids})
    assert len({row["key"] for row in rows}) == len(rows)
    for row in rows:
        assert row["stage"] == "done", row
        assert row["outcome"], row
        assert row["reason"], row
        assert row["message"], row
        assert row["endedAt"], row
    assert run["machines"] == len(rows)
    assert dict(Counter(row["outcome"] for row in rows)) == run["countsByOutcome"]


def _at_most_one_installation_each(product: Product, run: Json, ids: list[str]) -> None:
    wanted = {one.lower() for one in ids}
    accepted: Counter[str] = Counter()
    for operation in product.intervals("install"):
        began = _instant(operation["startedAt"])
        if operation["machine"].lower() in wanted and run["createdAt"] <= began <= run["endedAt"]:
            accepted[operation["machine"].lower()] += 1
    assert all(count == 1 for count in accepted.values()), accepted


def _locks_are_free_or_run_out(product: Product, run_id: str, rows: list[Json]) -> None:
    names = {MachineId.parse(row["id"]).key: row["name"] for row in rows if row["outcome"] not in _KEEPS_ITS_LOCK}
    # The run may end before an activity that failed behind the result is executed again.
    wait_until(
        lambda: not any(key in names and until > datetime.now(UTC) for key, until in locks_of(product, run_id).items()),
        what=lambda: f"locks are left: {locks_of(product, run_id)} of {names}",
    )
    assert all(until < datetime.now(UTC) + _MAX_LEASE for until in locks_of(product, run_id).values())


def _nothing_secret(product: Product, run_id: str, rows: list[Json]) -> None:
    secrets = _secrets(product)
    texts = {f"history of {name}": text for name, text in histories(product, run_id).items()}
    assert texts, "the engine knows the run"
    texts["host.log"] = (product.stack.logs / "host.log").read_text(errors="replace")
    for path in (f"/api/runs/{run_id}", f"/api/runs/{run_id}/machines", f"/api/runs/{run_id}/audit"):
        texts[path] = product.api.get(path).text
    for row in rows[:3]:
        path = f"/api/runs/{run_id}/machines/{row['key']}"
        texts[path] = product.api.get(path).text
    with TableServiceClient.from_connection_string(product.stack.storage) as service:
        for table in ("patchwaveresults", "patchwaveaudit"):
            # A table is made when it is first written to.
            with suppress(ResourceNotFoundError):
                for entity in service.get_table_client(table).query_entities(f"PartitionKey eq '{run_id}'"):
                    if not str(entity["RowKey"]).startswith(_SIGNED_ROWS):
                        texts[f"{table} {entity['RowKey']}"] = str(dict(entity))
    told = [(where, found[0][:80]) for where, text in texts.items() if (found := secrets.search(text))]
    assert not told, told


def _secrets(product: Product) -> re.Pattern[str]:
    """Finds parts of whatever opens something: operation URLs, tokens, keys."""
    environment = product.stack.simulator["environment"]
    reply = httpx.get(
        environment["IDENTITY_ENDPOINT"],
        params={"resource": product.stack.arm, "api-version": "2019-08-01"},
        headers={"X-IDENTITY-HEADER": environment["IDENTITY_HEADER"]},
    )
    token_head = str(reply.json()["access_token"]).partition(".")[0]
    storage_key = product.stack.storage.partition("AccountKey=")[2].partition(";")[0]
    keys = [storage_key, token_head, environment["IDENTITY_HEADER"], WEBHOOK_SECRET, HEALTH_KEY]
    return re.compile("|".join([r"/locations/\w+/operations/", "Bearer ", "AccountKey=", *map(re.escape, keys)]))


def _instant(stamp: str) -> str:
    """A stamp of the simulator (seven digits of a second) in the form of ours, so that both compare as texts."""
    moment = datetime.fromisoformat(stamp).astimezone(UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{moment.microsecond // 1000:03d}Z"
