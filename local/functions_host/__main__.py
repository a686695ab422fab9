"""``python -m local.functions_host --app DIR --port 7071 --workers 1 --ready FILE [--require-keys] [--sign-in]``.

App settings are environment variables. The ready file is written when the host serves requests, and again when a worker
was replaced: ``{"pid", "url", "engine", "workers": [pids], "keys": {"master", "default", "eventgrid"}}``. ``engine`` is
the address for durable clients; ``keys`` is empty without --require-keys.
"""

import argparse
import asyncio
import contextlib
import json
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Generator
from pathlib import Path
from typing import Any

import uvicorn

from local.functions_host.bindings import Inputs
from local.functions_host.durable.dispatcher import Dispatcher
from local.functions_host.durable.engine import ANY_STATUS, FINISHED, MAX_HISTORY, Engine
from local.functions_host.functions import ENTITY, Function
from local.functions_host.host_json import HostJson, HostJsonError, load_host_json
from local.functions_host.http import sign_in
from local.functions_host.http.keys import Keys
from local.functions_host.http.server import HttpServer
from local.functions_host.timers import Timers
from local.functions_host.worker.pool import WorkerPool
from local.functions_host.worker.process import AppNotLoaded, Input, WorkerLost
from local.processes import die_with_parent, loopback_without_proxy, write_atomically

log = logging.getLogger("host")


class _Server(uvicorn.Server):
    """Leaves the signals to the host."""

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None]:
        yield


class Host:
    """One embedded host: engine, workers, timers and HTTP, with the options of ``main``."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._app: Path = options.app.resolve()
        self._keys = Keys.generate() if options.require_keys else None
        self._settings = load_host_json(self._app)
        self._sockets = _listen(options.port)
        self._port = int(self._sockets[0].getsockname()[1])
        replaceable = ANY_STATUS if self._settings.replace_live_instances else FINISHED
        self._engine = Engine(max_history_size=options.max_history, replaceable=replaceable)
        self._pool: WorkerPool | None = None
        self._dispatcher: Dispatcher | None = None

    @property
    def url(self) -> str:
        return f"http://localhost:{self._port}"

    async def run(self, stop: asyncio.Event) -> None:
        """Serves until ``stop`` is set."""
        address = self._engine.start()
        pool = self._pool = WorkerPool(
            self._app,
            self._options.workers,
            self._environment(),
            on_lost=self._engine.release_worker,
            on_change=self._changed,
            preload=self._options.preload,
        )
        try:
            functions = await pool.start()
            for entity in functions.of_kind(ENTITY):
                raise HostJsonError(f"{entity.name}: this host has no durable entities")
            inputs = Inputs(self._settings, engine_address=address, url=self.url)

            async def run_timer(function: Function, data: dict[str, Any]) -> bool:
                given = Input(function.trigger["name"], "json", json.dumps(data))
                return (await front.invoke(function, [given])).ok

            timers = Timers(functions, run_timer, self._options.state / "timers.json")
            front = HttpServer(
                pool,
                self._settings,
                inputs,
                keys=self._keys,
                run_timer=timers.run_now,
                engine=self._engine,
                signs_in=self._options.sign_in,
            )
            dispatcher = self._dispatcher = Dispatcher(self._engine, pool, self._settings, inputs)
            server = _Server(
                uvicorn.Config(
                    front.app,
                    access_log=False,
                    log_config=None,
                    lifespan="off",
                    server_header=False,
                    timeout_graceful_shutdown=2,
                    ws="none",
                )
            )
            tasks = [asyncio.create_task(dispatcher.run()), asyncio.create_task(timers.run())]
            serving = asyncio.create_task(server.serve(self._sockets))
            try:
                while not server.started and not serving.done():  # noqa: ASYNC110 - uvicorn has no event for it
                    await asyncio.sleep(0.005)
                log.info("%d functions at %s, workers %s", len(functions.all), self.url, pool.pids)
                self._changed()
                stopping = asyncio.create_task(stop.wait())
                done, _ = await asyncio.wait([stopping, serving, *tasks], return_when=asyncio.FIRST_COMPLETED)
                stopping.cancel()
                for task in done - {stopping}:
                    task.result()
            finally:
                for task in tasks:
                    task.cancel()
                server.should_exit = True
                await asyncio.wait([serving])
        finally:
            await pool.stop()
            self._engine.stop(0)
            for listening in self._sockets:
                listening.close()
            if self._options.ready is not None:
                self._options.ready.unlink(missing_ok=True)

    def _changed(self) -> None:
        if self._dispatcher is not None:
            self._dispatcher.wake()
        if self._options.ready is None or self._pool is None:
            return
        document = {
            "pid": os.getpid(),
            "url": self.url,
            "engine": self._engine.address,
            "workers": self._pool.pids,
            "keys": self._keys.as_dict() if self._keys is not None else {},
        }
        write_atomically(self._options.ready, document)

    def _environment(self) -> dict[str, str]:
        """The variables that Core Tools sets for a worker; no proxy for loopback addresses."""
        environment = loopback_without_proxy(os.environ)
        environment.setdefault("AZURE_FUNCTIONS_ENVIRONMENT", "Development")
        environment.setdefault("FUNCTIONS_WORKER_RUNTIME", "python")
        environment.setdefault("WEBSITE_HOSTNAME", f"localhost:{self._port}")
        if self._options.sign_in:
            environment |= sign_in.SETTINGS
        return environment


def _listen(port: int) -> list[socket.socket]:
    """Loopback sockets on one port: IPv4, and IPv6 where available.

    They name their protocol: asyncio turns off Nagle's algorithm, which delays responses, only on sockets that do.
    """
    first = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    first.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        first.bind(("127.0.0.1", port))
    except OSError as error:
        first.close()
        raise HostJsonError(f"Port {port} cannot be used ({error.strerror}); choose another with --port.") from error
    sockets = [first]
    if socket.has_ipv6:
        second = socket.socket(socket.AF_INET6, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        try:
            second.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            second.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            second.bind(("::1", first.getsockname()[1]))
            sockets.append(second)
        except OSError:
            second.close()
    return sockets


def _set_up_logging(settings: HostJson) -> None:
    handler = logging.StreamHandler(sys.stderr)
    formatter = logging.Formatter("%(asctime)s.%(msecs)03dZ %(levelname)-7s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S")
    formatter.converter = time.gmtime
    handler.setFormatter(formatter)
    logging.basicConfig(level=settings.log_levels.get("", "INFO"), handlers=[handler], force=True)
    for name in ("durabletask", "uvicorn", "asyncio"):
        logging.getLogger(name).setLevel(logging.WARNING)


async def _main(arguments: argparse.Namespace) -> None:
    host = Host(arguments)
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await host.run(stop)


def main() -> int:
    parser = argparse.ArgumentParser("python -m local.functions_host", description="An embedded Azure Functions host.")
    parser.add_argument("--app", type=Path, required=True, help="folder with function_app.py and host.json")
    parser.add_argument("--port", type=int, default=7071, help="loopback port; 0 takes a free one")
    parser.add_argument("--workers", type=int, default=1, help="number of worker processes")
    parser.add_argument("--ready", type=Path, help="file to write when the host answers")
    parser.add_argument("--require-keys", action="store_true", help="ask for function keys, as Azure does")
    parser.add_argument("--sign-in", action="store_true", help="sign every caller in, as App Service authentication")
    parser.add_argument("--state", type=Path, default=Path(".local/host"), help="folder for the timers' status")
    parser.add_argument("--preload", default="", help="a module that workers import before the app")
    parser.add_argument("--max-history", type=int, default=MAX_HISTORY, help="events at which an instance fails")
    parser.add_argument("--parent", type=int, help="pid of the process that this one must not outlive")
    arguments = parser.parse_args()
    if arguments.parent is not None:
        die_with_parent(parent=arguments.parent)
    try:
        _set_up_logging(load_host_json(arguments.app))
        asyncio.run(_main(arguments))
    except (HostJsonError, AppNotLoaded, WorkerLost) as error:
        sys.stderr.write(f"error: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
