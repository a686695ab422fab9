"""The worker process: runs the functions of an app through Azure's own Python worker library.

``python -m local.functions_host.worker.main --socket FD --app DIR``: the host hands over one end of a socket pair. The
worker indexes ``function_app.py``, tells the host its functions, and then runs invocations side by side on its event
loop. It ends when the host does. Log lines carry the function's name and never the payload.
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
from typing import Any, cast

from local.functions_host.host_json import HostJson, load_host_json
from local.functions_host.worker import messages
from local.functions_host.worker.framing import Frame, read_frame, write_frame
from local.processes import die_with_parent

log = logging.getLogger("worker")

_function: ContextVar[str] = ContextVar("function", default="")

# These write requests, headers or one line per replay; an app can only make them quieter.
_QUIET_LOGGERS = ("azure", "aiohttp", "asyncio", "durabletask", "msal", "urllib3", "httpx")


class _Runtime:
    """The typed surface of ``azure_functions_runtime``, which has no types of its own."""

    def __init__(self) -> None:
        self._library: Any = importlib.import_module("azure_functions_runtime")
        self._library.start_threadpool_executor()
        self.invocation_id: ContextVar[str | None] = self._library.invocation_id_cv

    async def initialize(self, app: Path) -> messages.WorkerInitResponse:
        request = messages.StreamingMessage(
            worker_init_request=messages.WorkerInitRequest(function_app_directory=str(app))
        )
        properties = {"host": "127.0.0.1", "protos": messages}
        return await self._library.worker_init_request(messages.WorkerRequest(request, properties))

    async def functions(self, app: Path) -> list[messages.RpcFunctionMetadata]:
        request = messages.StreamingMessage(
            functions_metadata_request=messages.FunctionsMetadataRequest(function_app_directory=str(app))
        )
        response = await self._library.functions_metadata_request(messages.WorkerRequest(request, {}))
        metadata: list[messages.RpcFunctionMetadata] = response.function_metadata_results or []
        for function in metadata:
            load = messages.StreamingMessage(
                function_load_request=messages.FunctionLoadRequest(function_id=function.function_id)
            )
            await self._library.function_load_request(messages.WorkerRequest(load, {}))
        return metadata

    async def invoke(self, request: messages.InvocationRequest) -> messages.InvocationResponse:
        envelope = messages.StreamingMessage(invocation_request=request)
        return await self._library.invocation_request(messages.WorkerRequest(envelope, {}))


class Worker:
    """Serves one host over one socket."""

    def __init__(self, runtime: _Runtime, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._runtime = runtime
        self._reader = reader
        self._writer = writer
        self._names: dict[str, str] = {}
        self._running: dict[str, asyncio.Task[None]] = {}

    async def announce(self, app: Path) -> bool:
        """Indexes the app and tells the host its functions; False when the app cannot be loaded."""
        response = await self._runtime.initialize(app)
        if response.result.status == messages.StatusResult.Failure:
            error = response.result.exception or messages.RpcException("The app could not be loaded.")
            self._send(Frame({"kind": "failed", "message": error.message, "trace": error.stack_trace}))
            await self._writer.drain()
            return False
        functions = await self._runtime.functions(app)
        self._names = {function.function_id: function.name for function in functions}
        listed = [
            {"id": f.function_id, "name": f.name, "bindings": [json.loads(text) for text in f.raw_bindings]}
            for f in functions
        ]
        self._send(Frame({"kind": "ready", "pid": os.getpid(), "functions": listed}))
        await self._writer.drain()
        return True

    async def serve(self) -> None:
        """Runs invocations until the host is gone or says stop."""
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
        response = await self._runtime.invoke(
            messages.InvocationRequest(
                invocation_id=head["id"],
                function_id=head["function"],
                input_data=[
                    messages.ParameterBinding(parameter, _to_typed_data(kind, value, frame.blob))
                    for parameter, kind, value in head["inputs"]
                ],
                trigger_metadata={
                    key: messages.TypedData(json=value) for key, value in head.get("metadata", {}).items()
                },
            )
        )
        error = response.result.exception
        if response.result.status == messages.StatusResult.Failure or error is not None:
            error = error or messages.RpcException("The function failed.")
            log.error("failed after %.0f ms\n%s", (time.monotonic() - started) * 1000, error.stack_trace.rstrip())
            self._send(Frame({"kind": "result", "id": head["id"], "ok": False, "message": error.message}))
        else:
            log.debug("ended after %.0f ms", (time.monotonic() - started) * 1000)
            kind, value, blob = _from_typed_data(response.return_value)
            self._send(Frame({"kind": "result", "id": head["id"], "ok": True, "type": kind, "value": value}, blob))
        await self._writer.drain()

    def _send(self, frame: Frame) -> None:
        write_frame(self._writer, frame)


def _to_typed_data(kind: str, value: Any, blob: bytes) -> messages.TypedData:
    if kind == "http":
        request = messages.RpcHttp(
            method=value["method"],
            url=value["url"],
            headers=value["headers"],
            params=value["params"],
            query=value["query"],
            body=messages.TypedData(bytes=blob),
        )
        return messages.TypedData(http=request)
    return messages.TypedData(**{kind: value})


def _from_typed_data(data: messages.TypedData | None) -> tuple[str, Any, bytes]:
    kind = data.WhichOneof("data") if data is not None else None
    if data is None or kind is None:
        return "none", None, b""
    if kind == "http":
        response = cast(messages.RpcHttp, data.http)
        _, body, blob = _from_typed_data(response.body)
        return (
            "http",
            {
                "status": int(response.status_code or 200),
                "headers": dict(response.headers),
                "cookies": [_cookie(cookie) for cookie in response.cookies or []],
            },
            blob or (body or "").encode(),
        )
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

    def __init__(self, runtime: _Runtime) -> None:
        super().__init__("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(where)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
        self._runtime = runtime

    def format(self, record: logging.LogRecord) -> str:
        function = _function.get()
        record.where = f"{function} {record.name}" if function else record.name
        return super().format(record)


def _set_up_logging(runtime: _Runtime, settings: HostJson) -> None:
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_LineFormatter(runtime))
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
        _set_up_logging(runtime, load_host_json(app))
        worker = Worker(runtime, reader, writer)
        if not await worker.announce(app):
            return 1
    except Exception as error:
        write_frame(
            writer,
            Frame(
                {
                    "kind": "failed",
                    "message": f"{type(error).__name__}: {error}",
                    "trace": traceback.format_exc(),
                }
            ),
        )
        await writer.drain()
        return 1
    await worker.serve()
    return 0


def main() -> None:
    """Entry point of ``python -m local.functions_host.worker.main``."""
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
