"""Wire format of a transaction: an OData batch of one change set.

The library builds and parses it with its e-mail classes, which are too slow (docs/adr/0015-batched-table-writes.md).

Format: https://learn.microsoft.com/rest/api/storageservices/performing-entity-group-transactions
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote
from uuid import uuid4

from patchwave.domain.core.documents import object_or_none, parse_object
from patchwave.storage.engine.rows import Change

_METHODS = {"insert": "POST", "merge": "PATCH", "replace": "PUT", "delete": "DELETE"}
_PART = "Content-Type: application/http\r\nContent-Transfer-Encoding: binary\r\n\r\n"
_ROW = (
    "Accept: application/json;odata=minimalmetadata\r\nContent-Type: application/json;odata=nometadata\r\n"
    "DataServiceVersion: 3.0\r\nPrefer: return-no-content\r\n"
)
_STATUS = re.compile(rb"^HTTP/1\.1 ([0-9]{3})[^\r\n]*\r?\n", re.MULTILINE)
_ETAG = re.compile(rb"^ETag:[ \t]*([^\r\n]+?)[ \t]*\r?$", re.IGNORECASE | re.MULTILINE)
_HEADER_END = re.compile(rb"\r?\n\r?\n")
_INDEX = re.compile(r"([0-9]{1,3}):")
_INTEGERS = range(-(2**31), 2**31)


@dataclass(frozen=True, slots=True)
class BatchError:
    """Nothing was stored: the service's status and error code, and the index of the change that it names."""

    status: int
    code: str
    index: int


def write_transaction(endpoint: str, table: str, partition: str, changes: Sequence[Change]) -> tuple[str, bytes]:
    """The content type and body of the request.

    Raises:
        TypeError: a column is not a string, boolean, 32-bit integer or number.
    """
    batch, changeset = f"batch_{uuid4()}", f"changeset_{uuid4()}"
    lines = [f"--{batch}\r\nContent-Type: multipart/mixed; boundary={changeset}\r\n\r\n"]
    for change in changes:
        lines.append(f"--{changeset}\r\n{_PART}{_request(f'{endpoint}/{table}', partition, change)}\r\n")
    lines.append(f"--{changeset}--\r\n--{batch}--\r\n")
    return f"multipart/mixed; boundary={batch}", "".join(lines).encode("ascii")


def read_transaction(body: bytes) -> list[str] | BatchError:
    """The ETags in the order of the changes, empty for deleted rows; or the error."""
    etags: list[str] = []
    starts = list(_STATUS.finditer(body))
    ends = [*(one.start() for one in starts), len(body)][1:]
    for start, end in zip(starts, ends, strict=True):
        part = body[start.end() : end]
        status = int(start[1])
        if not 200 <= status < 300:
            return _refusal(status, part)
        header = part[: found.start()] if (found := _HEADER_END.search(part)) else part
        etag = _ETAG.search(header)
        etags.append(etag[1].decode("ascii", "replace") if etag else "")
    return etags


def _request(address: str, partition: str, change: Change) -> str:
    guard = f"If-Match: {change.etag}\r\n" if change.etag else ""
    if change.verb == "delete":
        guard = guard or "If-Match: *\r\n"
    if change.verb != "insert":
        address += f"(PartitionKey='{_key(partition)}',RowKey='{_key(change.key)}')"
    entity = "" if change.verb == "delete" else _entity(partition, change)
    head = f"{_METHODS[change.verb]} {address} HTTP/1.1\r\n{_ROW}{guard}"
    return f"{head}Content-Length: {len(entity)}\r\n\r\n{entity}"


def _entity(partition: str, change: Change) -> str:
    columns: dict[str, Any] = {"PartitionKey": partition, "RowKey": change.key}
    for name, value in change.columns.items():
        match value:
            case str() | bool():
                columns[name] = value
            case int() if value in _INTEGERS:
                columns[name] = value
            case float():
                columns[name] = value
                columns[f"{name}@odata.type"] = "Edm.Double"
            case _:
                raise TypeError(f"the column {name} cannot be stored")
    return json.dumps(columns, separators=(",", ":"))


def _key(text: str) -> str:
    return quote(text.replace("'", "''"), safe="~")


def _refusal(status: int, part: bytes) -> BatchError:
    text = part.decode("utf-8", "replace")
    document = parse_object(text[text.find("{") : text.rfind("}") + 1]) or {}
    error = object_or_none(document.get("odata.error")) or {}
    message = object_or_none(error.get("message")) or {}
    index = _INDEX.match(str(message.get("value", "")))
    return BatchError(status, str(error.get("code", "")), int(index[1]) if index else 0)
