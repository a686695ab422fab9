"""The host's side of one worker process."""

import asyncio
import contextlib
import itertools
import logging
import os
import signal
import socket
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from local import ROOT
from local.functions_host.functions import Functions
from local.functions_host.worker.framing import Frame, read_frame, write_frame

log = logging.getLogger(__name__)

_START_SECONDS = 60.0
_numbers = itertools.count(1)


class WorkerLost(Exception):
    """The worker process ended while it had the invocation."""


class AppNotLoaded(Exception):
    """``function_app.py`` could not be imported or indexed; the message is the worker's."""


@dataclass(frozen=True, slots=True)
class Input:
    """One input of an invocation: the parameter, the kind of ``TypedData`` and its value."""

    parameter: str
    kind: str
    value: Any


@dataclass(frozen=True, slots=True)
class Result:
    """``kind`` of ``TypedData`` (``none`` for nothing), its value and a body; or ``error``, as ``Type: message``."""

    ok: bool
    kind: str = "none"
    value: Any = None
    blob: bytes = b""
    error: str = ""


@dataclass(slots=True)
class WorkerProcess:
    """A running worker, from ``start`` until ``on_lost`` is called."""

    name: str
    functions: Functions
    _process: asyncio.subprocess.Process
    _reader: asyncio.StreamReader
    _writer: asyncio.StreamWriter
    _waiting: dict[str, asyncio.Future[Result]] = field(default_factory=dict[str, asyncio.Future[Result]])
    _lost: bool = False
    has_answered: bool = False

    @classmethod
    async def start(cls, app: Path, environment: dict[str, str], preload: str = "") -> "WorkerProcess":
        """Starts a worker and waits until it has indexed the app; ``preload`` names a module to import before that.

        Raises:
            AppNotLoaded: the app cannot be loaded.
            WorkerLost: the process ended, or was not ready within a minute.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "local.functions_host.worker.main"),
                *("--socket", str(theirs.fileno())),
                *("--app", str(app)),
                *("--parent", str(os.getpid())),
                *(("--preload", preload) if preload else ()),
                cwd=ROOT,
                env=environment,
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        frame: Frame | None = None
        with contextlib.suppress(TimeoutError):
            frame = await asyncio.wait_for(read_frame(reader), _START_SECONDS)
        if frame is None or frame.kind != "ready":
            writer.close()
            with contextlib.suppress(ProcessLookupError):
                process.kill()
            await process.wait()
            if frame is None:
                raise WorkerLost("The worker process ended before it was ready.")
            log.error("%s", frame.head["trace"])
            raise AppNotLoaded(str(frame.head["message"]))
        return cls(f"worker-{next(_numbers)}", Functions.from_frame(frame), process, reader, writer)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def busy(self) -> int:
        """Number of running invocations."""
        return len(self._waiting)

    async def invoke(
        self, function: str, inputs: list[Input], *, blob: bytes = b"", timeout: float | None = None
    ) -> Result:
        """Runs one function.

        Args:
            function: its id.
            inputs: its bindings' values; the one of kind ``http`` has ``blob`` as body.
            timeout: seconds; after it the invocation is cancelled in the worker, if possible.

        Raises:
            WorkerLost: the process ended first.
            TimeoutError: past the timeout.
        """
        if self._lost:
            raise WorkerLost(self.name)
        invocation = uuid.uuid4().hex
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting[invocation] = future
        try:
            head: dict[str, Any] = {
                "kind": "invoke",
                "id": invocation,
                "function": function,
                "inputs": [(given.parameter, given.kind, given.value) for given in inputs],
            }
            write_frame(self._writer, Frame(head, blob))
            async with asyncio.timeout(timeout):
                return await future
        except TimeoutError:
            write_frame(self._writer, Frame({"kind": "cancel", "id": invocation}))
            raise
        finally:
            self._waiting.pop(invocation, None)

    async def serve(self, on_lost: Callable[["WorkerProcess"], None]) -> None:
        """Receives results until the process ends, then fails its open invocations with ``WorkerLost``."""
        while (frame := await read_frame(self._reader)) is not None:
            self.has_answered = True
            future = self._waiting.get(str(frame.head["id"]))
            if future is None or future.done():
                continue
            head = frame.head
            if head["ok"]:
                future.set_result(Result(True, head["type"], head["value"], frame.blob))
            else:
                future.set_result(Result(False, error=head["message"]))
        self._lost = True
        # No result is received any more when the work items are dispatched again, so none of this worker counts.
        on_lost(self)
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(WorkerLost(self.name))
        self._writer.close()
        code = await self._process.wait()
        log.info("%s (pid %d) ended with code %d", self.name, self.pid, code)

    async def stop(self, grace: float = 1.0) -> None:
        """Asks the process to end, then sends SIGKILL."""
        with contextlib.suppress(ConnectionError, RuntimeError):
            write_frame(self._writer, Frame({"kind": "stop"}))
        try:
            await asyncio.wait_for(self._process.wait(), grace)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGKILL)
            await self._process.wait()
