"""The worker process: runs the functions of an app through Azure's own Python worker library.

``python -m local.functions_host.worker.main --socket FD --app DIR``: the socket is one end of a pair. The worker
indexes ``function_app.py``, sends the host its functions, and then runs invocations concurrently on its event loop. It
ends when the host does. Log lines have the function's name and never the payload.
"""

import argparse
import asyncio
import contextlib
import importlib
import json
import logging
import os
import signal
import socket
import sys
import time
import traceback
from contextvars import ContextVar
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from local.functions_host.host_json import HostJson, load_host_json
from local.functions_host.worker import messages
from local.functions_host.worker.framing import Frame, read_frame, write_frame
from local.processes import die_with_parent

log = logging.getLogger("worker")

_function: ContextVar[str] = ContextVar("function", default="")

# These log requests, headers or one line per replay; an app can only make them quieter.
_QUIET_LOGGERS = ("azure", "aiohttp", "asyncio", "durabletask", "msal", "urllib3", "httpx")


class _Runtime:
    """The typed surface of ``azure_functions_runtime``, which has no types of its own."""

    def __init__(self) -> None:
        self._library: Any = importlib.import_module("azure_functions_runtime")
        self._library.start_threadpool_executor()

    async def initialize(self, app: Path) -> messages.StatusResult:
        response = await self._call("worker_init_request", function_app_directory=str(app), capabilities={})
        return response.result

    async def functions(self, app: Path) -> list[Any]:
        """``RpcFunctionMetadata`` of each function."""
        response = await self._call("functions_metadata_request", function_app_directory=str(app))
        functions: list[Any] = response.function_metadata_results or []
        for function in functions:
            await self._call("function_load_request", function_id=function.function_id)
        return functions

    async def invoke(
        self, invocation: str, function: str, inputs: list[messages.ParameterBinding]
    ) -> messages.InvocationResponse:
        return await self._call(
            "invocation_request",
            invocation_id=invocation,
            function_id=function,
            input_data=inputs,
            trigger_metadata={},
            trace_context=SimpleNamespace(trace_parent="", trace_state="", attributes={}),
            retry_context=SimpleNamespace(retry_count=0, max_retry_count=0, exception=None),
        )

    async def _call(self, entry_point: str, **fields: Any) -> Any:
        """The library names the entry point and the field of the envelope alike."""
        request = SimpleNamespace(**{entry_point: SimpleNamespace(**fields)})
        properties = {"host": "127.0.0.1", "protos": messages}
        return await getattr(self._library, entry_point)(SimpleNamespace(request=request, properties=properties))


class Worker:
    """Serves one host over one socket."""

    def __init__(self, runtime: _Runtime, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._runtime = runtime
        self._reader = reader
        self._writer = writer
        self._names: dict[str, str] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def announce(self, app: Path) -> bool:
        """Indexes the app and sends the host its functions; False when the app cannot be loaded."""
        result = await self._runtime.initialize(app)
        if result.status == messages.StatusResult.Failure:
            error = result.exception or messages.RpcException(message="The app could not be loaded.")
            await self._send({"kind": "failed", "message": error.message, "trace": error.stack_trace})
            return False
        functions = await self._runtime.functions(app)
        self._names = {function.function_id: function.name for function in functions}
        listed = [
            {"id": f.function_id, "name": f.name, "bindings": [json.loads(text) for text in f.raw_bindings]}
            for f in functions
        ]
        await self._send({"kind": "ready", "pid": os.getpid(), "functions": listed})
        return True

    async def serve(self) -> None:
        """Runs invocations until the host closes the socket or sends ``stop``."""
        while (frame := await read_frame(self._reader)) is not None and frame.kind != "stop":
            invocation = str(frame.head["id"])
            if frame.kind == "cancel":
                if task := self._running.get(invocation):
                    task.cancel()
                continue
            task = asyncio.create_task(self._invoke(frame))
            self._running[invocation] = task
            task.add_done_callback(lambda _, done=invocation: self._running.pop(done, None))

    async def _invoke(self, frame: Frame) -> None:
        head = frame.head
        name = self._names.get(head["function"], "?")
        _function.set(name)
        started = time.monotonic()
        inputs = [
            messages.ParameterBinding(name=parameter, data=_to_typed_data(kind, value, frame.blob))
            for parameter, kind, value in head["inputs"]
        ]
        response = await self._runtime.invoke(head["id"], head["function"], inputs)
        error = response.result.exception
        if response.result.status == messages.StatusResult.Failure or error is not None:
            error = error or messages.RpcException(message="The function failed.")
            log.error("failed after %.0f ms\n%s", (time.monotonic() - started) * 1000, error.stack_trace.rstrip())
            await self._send({"kind": "result", "id": head["id"], "ok": False, "message": error.message})
        else:
            log.debug("ended after %.0f ms", (time.monotonic() - started) * 1000)
            kind, value, blob = _from_typed_data(response.return_value)
            await self._send({"kind": "result", "id": head["id"], "ok": True, "type": kind, "value": value}, blob)

    async def _send(self, head: dict[str, Any], blob: bytes = b"") -> None:
        write_frame(self._writer, Frame(head, blob))
        await self._writer.drain()


def _to_typed_data(kind: str, value: Any, blob: bytes) -> messages.TypedData:
    if kind == "http":
        return messages.TypedData(http=messages.RpcHttp(**value, body=messages.TypedData(bytes=blob)))
    return messages.TypedData(**{kind: value})


def _from_typed_data(data: messages.TypedData | None) -> tuple[str, Any, bytes]:
    kind = data.WhichOneof("data") if data is not None else None
    if data is None or kind is None:
        return "none", None, b""
    if kind == "http":
        response = cast(messages.RpcHttp, data.http)
        _, body, blob = _from_typed_data(response.body)
        given: list[Any] = response.cookies or []
        cookies = [_cookie(cookie) for cookie in given]
        head = {"status": int(response.status_code or 200), "headers": dict(response.headers), "cookies": cookies}
        return "http", head, blob or (body or "").encode()
    if kind == "bytes":
        return "bytes", None, data.bytes or b""
    return kind, getattr(data, kind), b""


def _cookie(cookie: messages.RpcHttpCookie) -> dict[str, Any]:
    return {
        "key": cookie.name,
        "value": cookie.value,
        "domain": cookie.domain.value if cookie.domain else None,
        "path": cookie.path.value if cookie.path else None,
        "expires": int(cookie.expires.value.seconds) if cookie.expires else None,
        "secure": bool(cookie.secure and cookie.secure.value),
        "httponly": bool(cookie.http_only and cookie.http_only.value),
        "samesite": {1: "lax", 2: "strict", 3: "none"}.get(cookie.same_site),
        "max_age": int(cookie.max_age.value) if cookie.max_age else None,
    }


class _LineFormatter(logging.Formatter):
    """One line per record: UTC time, level, function or logger, text."""

    converter = time.gmtime

    def __init__(self) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(where)s: %(message)s", "%Y-%m-%dT%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        function = _function.get()
        record.where = f"{function} {record.name}" if function else record.name
        return super().format(record)


def _set_up_logging(settings: HostJson) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter())
    logging.basicConfig(level=settings.log_levels.get("", "INFO"), handlers=[handler], force=True)
    for name in _QUIET_LOGGERS:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name, level in settings.log_levels.items():
        quiet = name.split(".")[0] in _QUIET_LOGGERS
        if name and not (quiet and logging.getLevelNamesMapping()[level] < logging.WARNING):
            logging.getLogger(name).setLevel(level)


async def _main(app: Path, descriptor: int) -> int:
    channel = socket.socket(fileno=descriptor)
    reader, writer = await asyncio.open_connection(sock=channel)
    try:
        runtime = _Runtime()
        _set_up_logging(load_host_json(app))
        worker = Worker(runtime, reader, writer)
        if not await worker.announce(app):
            return 1
    except Exception as error:
        head = {"kind": "failed", "message": f"{type(error).__name__}: {error}", "trace": traceback.format_exc()}
        write_frame(writer, Frame(head))
        await writer.drain()
        return 1
    await worker.serve()
    return 0


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m local.functions_host.worker.main")
    parser.add_argument("--socket", type=int, required=True)
    parser.add_argument("--app", type=Path, required=True)
    parser.add_argument("--parent", type=int, required=True)
    parser.add_argument("--preload", help="a module to import before the app")
    arguments = parser.parse_args()
    die_with_parent(signal.SIGKILL, parent=arguments.parent)
    # Ctrl-C reaches the whole terminal group; the host decides when its workers end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    app: Path = arguments.app.resolve()
    os.chdir(app)
    sys.path.insert(0, str(app))
    if arguments.preload:
        importlib.import_module(arguments.preload)
    code = 1
    with contextlib.suppress(BrokenPipeError, ConnectionError):
        code = asyncio.run(_main(app, arguments.socket))
    logging.shutdown()
    # Threads of functions that are still running would hold the process.
    os._exit(code)


if __name__ == "__main__":
    main()
