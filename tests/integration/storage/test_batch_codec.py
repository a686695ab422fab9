"""A transaction on the wire: what is written arrives as it was, and answers are read as the service gives them."""

from __future__ import annotations

import pytest

from patchwave.storage import RecordTooLarge, Storage
from patchwave.storage.engine.batch_codec import BatchError, read_transaction, write_transaction
from patchwave.storage.engine.rows import Change

ODD = {
    "text": "quotes \" and ' and \\ and {braces}\r\n--batch_\r\nHTTP/1.1 500 No\r\n\r\n",
    "unicode": "Grüße 漢字 🚀\u2028\ufffd",
    "empty": "",
    "yes": True,
    "no": False,
    "large": 2**31 - 1,
    "small": -(2**31),
    "half": 0.5,
    "whole": 3.0,
    "long": "x" * 32_000,
}
ETAG = "W/\"datetime'2026-11-21T02%3A03%3A04.5678901Z'\""
ACCEPTED = (
    b"--batchresponse_1\r\nContent-Type: multipart/mixed; boundary=changesetresponse_2\r\n\r\n"
    b"--changesetresponse_2\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    b"HTTP/1.1 204 No Content\r\nDataServiceVersion: 3.0;\r\nETag: " + ETAG.encode() + b"\r\n\r\n\r\n"
    b"--changesetresponse_2\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    b"HTTP/1.1 204 No Content\r\nX-Content-Type-Options: nosniff\r\n\r\n\r\n"
    b"--changesetresponse_2--\r\n--batchresponse_1--\r\n"
)
REFUSED = (
    b"--batchresponse_1\r\nContent-Type: multipart/mixed; boundary=changesetresponse_2\r\n\r\n"
    b"--changesetresponse_2\r\nContent-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
    b"HTTP/1.1 412 Precondition Failed\r\nContent-Type: application/json;odata=minimalmetadata\r\n\r\n"
    b'{"odata.error":{"code":"UpdateConditionNotSatisfied","message":{"lang":"en-US","value":'
    b'"17:The update condition specified in the request was not satisfied.\\nRequestId:1"}}}\r\n'
    b"--changesetresponse_2--\r\n--batchresponse_1--\r\n"
)


async def test_columns_arrive_as_they_were(storage: Storage) -> None:
    table = storage._store.results  # pyright: ignore[reportPrivateUsage]: what is tested is below the storage
    partition = "20261110T190000Z-it's"
    await table.apply(partition, [Change("insert", "a~'1:2", ODD), Change("replace", "b.-", {"n": 1})])
    found = await table.get(partition, "a~'1:2")
    assert found is not None
    assert found.columns == ODD
    assert await table.merge(partition, "a~'1:2", {"yes": False}, found.etag)
    assert await table.delete(partition, "b.-", (await table.apply(partition, [Change("merge", "b.-", {"n": 2})]))[0])
    assert {row.key: row.columns["yes"] async for row in table.scan(partition)} == {"a~'1:2": False}


async def test_a_text_that_the_service_does_not_take_has_an_error_of_its_own(storage: Storage) -> None:
    table = storage._store.results  # pyright: ignore[reportPrivateUsage]: likewise
    with pytest.raises(RecordTooLarge):
        await table.insert("p", "k", {"text": "x" * 40_000})


@pytest.mark.parametrize("value", [2**31, b"bytes", None, [1]])
def test_what_no_column_holds_is_refused(value: object) -> None:
    with pytest.raises(TypeError):
        write_transaction("https://a", "t", "p", [Change("insert", "k", {"c": value})])


def test_answers_are_read_in_order() -> None:
    assert read_transaction(ACCEPTED) == [ETAG, ""]


def test_a_refusal_names_status_reason_and_change() -> None:
    assert read_transaction(REFUSED) == BatchError(412, "UpdateConditionNotSatisfied", 17)
    assert read_transaction(b"HTTP/1.1 500 Oops\r\n\r\nnot JSON") == BatchError(500, "", 0)
    assert read_transaction(b"") == []
