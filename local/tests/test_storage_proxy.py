"""The proxy in front of Azurite counts transactions and rows, and changes nothing."""

import asyncio
import os
from pathlib import Path

import pytest
from azure.data.tables import TableServiceClient
from hypothesis import given
from hypothesis import strategies as st

from local.azurite import Azurite
from local.storage_proxy import StorageProxy


@pytest.fixture
def storage(tmp_path: Path):
    with Azurite(tmp_path / "data", log_directory=tmp_path, environment=os.environ) as azurite:
        yield azurite


def test_transactions_batches_and_rows(storage: Azurite) -> None:
    with (
        StorageProxy(storage.table_port, window=60) as proxy,
        TableServiceClient.from_connection_string(storage.connection_string_for(proxy.port)) as service,
        service.create_table("sample") as table,
    ):
        rows = [{"PartitionKey": "p", "RowKey": f"{number:03d}", "text": "x" * 1000} for number in range(60)]
        proxy.reset()
        table.create_entity({"PartitionKey": "q", "RowKey": "1"})
        table.submit_transaction([("create", row) for row in rows])
        table.submit_transaction([("delete", row) for row in rows[:10]])
        assert table.get_entity("p", "030")["text"] == "x" * 1000
        assert len(list(table.query_entities("PartitionKey eq 'p'"))) == 50
        document = proxy.document()
    assert document["transactions"] == 5
    assert (document["batches"], document["batchedRows"]) == (2, 70)
    assert document["kinds"] == {"POST $batch": 2, "POST sample": 1, "GET sample": 2}
    assert document["peakRows"] == 72


@given(st.lists(st.integers(1, 40), min_size=1))
def test_it_counts_the_same_however_the_bytes_arrive(sizes: list[int]) -> None:
    text = (
        b"POST /account/$batch HTTP/1.1\r\nHost: x\r\n\r\n--b\r\n"
        b"PUT http://x/account/sample(PartitionKey='p',RowKey='1') HTTP/1.1\r\n\r\n{}\r\n"
        b'POST http://x/account/sample HTTP/1.1\r\n\r\n{"a": "b"}GET /account/sample()?$filter=x HTTP/1.1\r\n'
    )
    proxy, line, rest = StorageProxy(1), b"", text
    try:
        while rest:
            for size in sizes:
                line = proxy.read(line + rest[:size])
                rest = rest[size:]
        document = proxy.document()
    finally:
        proxy._loop.close()
    assert document["kinds"] == {"POST $batch": 1, "GET sample": 1}
    assert (document["batchedRows"], document["peakRows"]) == (2, 2)


def test_without_a_storage_behind_it_a_client_is_let_go() -> None:
    async def ask(port: int) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET / HTTP/1.1\r\n\r\n")
        answer = await asyncio.wait_for(reader.read(), 10)
        writer.close()
        return answer

    with StorageProxy(1) as proxy:
        assert asyncio.run(ask(proxy.port)) == b""
