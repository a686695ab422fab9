"""Frames between the host and a worker: a JSON object and a blob, over a socket pair.

A frame is two big-endian 32-bit lengths, the UTF-8 JSON, and the blob (an HTTP body; empty otherwise).
"""

import asyncio
import json
import struct
from dataclasses import dataclass
from typing import Any

_LENGTHS = struct.Struct(">II")


@dataclass(frozen=True, slots=True)
class Frame:
    """One message; ``kind`` is in ``head``."""

    head: dict[str, Any]
    blob: bytes = b""

    @property
    def kind(self) -> str:
        return str(self.head["kind"])


async def read_frame(reader: asyncio.StreamReader) -> Frame | None:
    """The next frame, or None when the other side has closed."""
    try:
        head_length, blob_length = _LENGTHS.unpack(await reader.readexactly(_LENGTHS.size))
        head: dict[str, Any] = json.loads(await reader.readexactly(head_length))
        blob = await reader.readexactly(blob_length) if blob_length else b""
    except (asyncio.IncompleteReadError, ConnectionError):
        return None
    return Frame(head, blob)


def write_frame(writer: asyncio.StreamWriter, frame: Frame) -> None:
    """Queues a frame; await ``writer.drain()`` where large ones are written."""
    head = json.dumps(frame.head, separators=(",", ":"), ensure_ascii=False).encode()
    writer.write(_LENGTHS.pack(len(head), len(frame.blob)) + head)
    if frame.blob:
        writer.write(frame.blob)
