"""The whole product on one machine: Azurite, the simulator (or another Resource Manager), and the host.

    with Stack(StackOptions(state=Path(".local/demo"), fleet=Path("examples/fleets/demo.json"))) as stack:
        httpx.get(f"{stack.url}/api/health")

All processes are ended in reverse order, also after Ctrl-C, and end by themselves when this process is killed. Start
the stack on a thread that lives as long: Linux ties a child's life to the thread that started it.
"""

import contextlib
import os
import signal
import ssl
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self

import httpx

from local import ROOT
from local.azurite import Azurite
from local.processes import Child, ChildFailed, loopback_without_proxy
from local.storage_proxy import StorageProxy

_START_SECONDS = 60.0
_LIMITS = {
    "patchOperations": (200, 600),
    "arcRequests": (1_000, 1_000),
    "reads": (1_500, 250),
    "writes": (600, 200),
    "queries": (180, 15),
}
"""The simulator's buckets: refill in a simulated minute, and burst."""
_MAINTENANCE_SECONDS = {
    "PATCHWAVE_MAINTENANCE_CANCEL_CUTOFF_SECONDS": 600,
    "PATCHWAVE_MAINTENANCE_PRE_TIMEOUT_SECONDS": 1200,
    "PATCHWAVE_MAINTENANCE_POST_TIMEOUT_SECONDS": 3600,
}
"""The app's times before and after scheduled runs; here they are simulated seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StackOptions:
    """What to start.

    Attributes:
        state: folder for logs, data and ready files; a fleet's state is not kept over restarts.
        app: folder of ``function_app.py``.
        port: loopback port of the host; 0 takes a free one.
        workers: worker processes of the host.
        require_keys: ask for function keys.
        signs_in: roles count, and every caller is a developer with all of them (`local.functions_host.http.sign_in`).
        fleet, machines, seed, speed: the simulator's fleet (a file, or a number of generated machines) and its clock.
        simulator_arguments: further arguments of ``python -m local.azure_simulator``.
        arm: a Resource Manager to use instead of the simulator, with the identity of this environment.
        ca: CA bundle for ``arm``, when its certificate is not signed by a public CA.
        keep_storage: write the tables to the folder, for the next start, which is slower.
        count_storage: count transactions of the app's tables (`local.storage_proxy`), per simulated second.
        poll_seconds: ``PATCHWAVE_POLL_SECONDS``; None leaves it as it is. ``PATCHWAVE_LIMITS`` follows the speed.
        preload: a module that the host's workers import before the app, such as one that injects faults.
        max_history: events at which an instance of the engine fails; None leaves the host's limit.
        settings: further app settings; they win over everything else.
    """

    state: Path
    app: Path = ROOT
    port: int = 7071
    workers: int = 1
    require_keys: bool = False
    signs_in: bool = False
    fleet: Path | None = None
    machines: int = 60
    seed: int = 1
    speed: float = 60.0
    simulator_arguments: tuple[str, ...] = ()
    arm: str | None = None
    ca: Path | None = None
    keep_storage: bool = True
    count_storage: bool = False
    poll_seconds: float | None = None
    preload: str = ""
    max_history: int | None = None
    settings: Mapping[str, str] = field(default_factory=dict[str, str])


class Stack:
    """Starts everything on ``start`` (or in a ``with`` statement) and ends it on ``stop``.

    ``say`` gets the name of each part before its start.
    """

    def __init__(self, options: StackOptions, *, say: Callable[[str], object] = lambda _: None) -> None:
        self._options = options
        self._say = say
        self._exit = contextlib.ExitStack()
        self._simulator: Child | None = None
        self._host: Child | None = None
        self._storage: Azurite | None = None
        self._proxy: StorageProxy | None = None
        self._found: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Starts Azurite, the simulator and the host; when one fails, ends the others and raises ``ChildFailed``."""
        try:
            environment = loopback_without_proxy(os.environ)
            self._say("storage (Azurite)")
            data, keep = self._options.state / "azurite", self._options.keep_storage
            self._storage = self._exit.enter_context(
                Azurite(data, log_directory=self.logs, environment=environment, keep=keep)
            )
            if self._options.count_storage:
                proxy = StorageProxy(self._storage.table_port, window=1 / self._options.speed)
                self._proxy = self._exit.enter_context(proxy)
            settings = self._resource_manager(environment)
            self._say("function host")
            self._start_host(environment | settings)
            if self._simulator is not None and self._options.app == ROOT:
                self._subscribe()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Ends everything, the last first. A second call does nothing."""
        self._exit.close()

    # Addresses

    @property
    def logs(self) -> Path:
        """Folder of ``azurite.log``, ``simulator.log`` and ``host.log``."""
        return self._options.state / "logs"

    @property
    def url(self) -> str:
        """The host's address, ``http://localhost:PORT``."""
        return str(self._host_document["url"])

    @property
    def engine(self) -> str:
        """The engine's address for durable clients, ``127.0.0.1:PORT``: to inspect instances and their histories."""
        return str(self._host_document["engine"])

    @property
    def keys(self) -> dict[str, str]:
        """Function keys by name (``default``, ``eventgrid``, ``master``); empty without ``require_keys``."""
        return dict(self._host_document["keys"])

    @property
    def arm(self) -> str:
        return self._options.arm or str(self._found["arm"])

    @property
    def ca(self) -> Path | None:
        """CA bundle for ``arm``; None when public roots are enough."""
        return self._options.ca if self._options.arm else Path(self._found["ca"])

    @property
    def simulator(self) -> dict[str, Any]:
        """The simulator's ready document; empty with another Resource Manager."""
        return self._found

    @property
    def storage(self) -> str:
        """The connection string of the tables."""
        if self._storage is None:
            raise RuntimeError("The stack is not running.")
        return self._storage.connection_string

    @property
    def _tables(self) -> str:
        if self._storage is None or self._proxy is None:
            return self.storage
        return self._storage.connection_string_for(self._proxy.port)

    @property
    def storage_proxy(self) -> StorageProxy:
        """The counter of transactions; RuntimeError without ``count_storage``."""
        if self._proxy is None:
            raise RuntimeError("The storage has no proxy: see StackOptions.count_storage.")
        return self._proxy

    @property
    def ended(self) -> list[str]:
        """Names of the parts that ended by themselves."""
        return [child.name for child in (self._simulator, self._host) if child is not None and not child.running]

    @property
    def pids(self) -> dict[str, int]:
        """Process ids by name: ``azurite``, ``simulator`` unless another Resource Manager is used, ``host``."""
        parts = (("azurite", self._storage), ("simulator", self._simulator), ("host", self._host))
        return {name: part.pid for name, part in parts if part is not None}

    # Faults

    @property
    def workers(self) -> list[int]:
        """Process ids of the host's workers now."""
        return list(self._host_document["workers"])

    def kill_worker(self, *, timeout: float = 20.0) -> int:
        """Kills one worker with SIGKILL, waits until the host has replaced it, and returns its pid."""
        before = self.workers
        deadline = time.monotonic() + timeout
        while not before and time.monotonic() < deadline:
            time.sleep(0.02)
            before = self.workers
        if not before:
            raise ChildFailed(f"There is no worker to kill:\n{self._running_host.log_end()}")
        os.kill(before[0], signal.SIGKILL)
        while time.monotonic() < deadline:
            now = self.workers
            if before[0] not in now and len(now) >= self._options.workers:
                return before[0]
            time.sleep(0.02)
        raise ChildFailed(f"The host did not replace the worker:\n{self._running_host.log_end()}")

    def restart_host(self) -> None:
        """Kills the host with SIGKILL and starts it again on the same port; the engine's instances are lost."""
        host, url = self._running_host, self.url
        os.kill(host.pid, signal.SIGKILL)
        host.stop()
        self._start_host(self._host_environment, port=int(url.rsplit(":", 1)[1]))

    # Starting

    def _resource_manager(self, environment: dict[str, str]) -> dict[str, str]:
        options = self._options
        if options.arm is not None:
            settings = {"PATCHWAVE_RESOURCE_MANAGER": options.arm}
            if options.ca is not None:
                bundle = str(options.ca.resolve())
                settings |= {"SSL_CERT_FILE": bundle, "REQUESTS_CA_BUNDLE": bundle}
            return settings
        self._say("Resource Manager simulator")
        generated = ["--machines", str(options.machines)]
        fleet = generated if options.fleet is None else ["--fleet", str(options.fleet.resolve())]
        ready = options.state.resolve() / "simulator.json"
        command = [
            *(sys.executable, "-m", "local.azure_simulator", "--port", "0", "--identity-port", "0"),
            *("--state", str(options.state.resolve() / "simulator")),
            *fleet,
            *("--seed", str(options.seed), "--speed", str(options.speed)),
            *("--ready", str(ready), "--parent", str(os.getpid())),
            *options.simulator_arguments,
        ]
        self._simulator = self._exit.enter_context(
            Child("simulator", command, log_directory=self.logs, environment=environment, ready=ready)
        )
        self._found = self._simulator.wait_ready(_START_SECONDS)
        topics = ",".join(f"/subscriptions/{each}" for each in self._found["subscriptions"])
        events = {"PATCHWAVE_EVENT_TOPICS": topics, "PATCHWAVE_MAINTENANCE_SPEED": f"{options.speed:g}"}
        times = {name: f"{seconds / options.speed:g}" for name, seconds in _MAINTENANCE_SECONDS.items()}
        return dict(self._found["environment"]) | times | events | {"PATCHWAVE_LIMITS": limits_at(options.speed)}

    def _subscribe(self) -> None:
        """Subscribes the host to the pre and post events of schedules from the simulator's Event Grid."""
        url = f"{self.url}/runtime/webhooks/EventGrid?functionName=maintenance_event"
        reply = httpx.post(
            f"{self.arm}/_sim/event-grid",
            json={"url": url, "key": self.keys.get("eventgrid", "")},
            verify=ssl.create_default_context(cafile=str(self.ca)),
            trust_env=False,
            timeout=_START_SECONDS,
        )
        if not reply.is_success:
            raise ChildFailed(f"The host was not subscribed to events: {reply.text}\n{self._running_host.log_end()}")

    def _start_host(self, environment: dict[str, str], *, port: int | None = None) -> None:
        options = self._options
        environment |= {
            "AzureWebJobsStorage": self.storage,
            "PATCHWAVE_TABLES_CONNECTION": self._tables,
            "FUNCTIONS_WORKER_RUNTIME": "python",
        }
        if options.poll_seconds is not None:
            environment["PATCHWAVE_POLL_SECONDS"] = f"{options.poll_seconds:g}"
            # A tenth of the time between two polls, like the defaults.
            environment.setdefault("PATCHWAVE_STORAGE_BATCH_DELAY_SECONDS", f"{min(3, options.poll_seconds / 10):g}")
        environment |= options.settings
        self._host_environment = environment
        ready = options.state.resolve() / "host.json"
        command = [
            *(sys.executable, "-m", "local.functions_host", "--app", str(options.app.resolve())),
            *("--port", str(options.port if port is None else port), "--workers", str(options.workers)),
            *("--ready", str(ready), "--state", str(options.state.resolve() / "host")),
            *("--parent", str(os.getpid())),
            *(["--require-keys"] if options.require_keys else []),
            *(["--sign-in"] if options.signs_in else []),
            *(["--preload", options.preload] if options.preload else []),
            *(["--max-history", str(options.max_history)] if options.max_history is not None else []),
        ]
        self._host = self._exit.enter_context(
            Child("host", command, log_directory=self.logs, environment=environment, ready=ready)
        )
        self._host.wait_ready(_START_SECONDS)

    @property
    def _running_host(self) -> Child:
        if self._host is None:
            raise RuntimeError("The stack is not running.")
        return self._host

    @property
    def _host_document(self) -> dict[str, Any]:
        return self._running_host.document()


def limits_at(speed: float) -> str:
    """``PATCHWAVE_LIMITS`` for a simulator of that speed: its buckets refill on the simulated clock, bursts stay."""
    return ",".join(f"{bucket}={refill * speed:.3f}/{burst}" for bucket, (refill, burst) in _LIMITS.items())
