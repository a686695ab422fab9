"""Azurite, the storage emulator: blobs, queues and tables on loopback, with its data in a given folder."""

import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Self

from local import ROOT
from local.processes import Child, ChildFailed

_NODE = ROOT / ".venv" / "bin" / "node"
_SCRIPT = ROOT / "node_modules" / "azurite" / "dist" / "src" / "azurite.js"

# The well-known account and key of the emulator; they protect nothing.
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="  # gitleaks:allow
_SERVICES = ("blob", "queue", "table")
_START_SECONDS = 30.0


class Azurite:
    """A running emulator; use it in a ``with`` statement, or call ``stop``.

    Args:
        data: folder for its data, created when missing; existing data is loaded.
        log_directory: folder of ``azurite.log``.
        environment: the whole environment of the process.
        keep: whether to persist the data, which is slow with large tables.

    Raises:
        ChildFailed: it did not start; the message has the end of its log.
    """

    def __init__(self, data: Path, *, log_directory: Path, environment: Mapping[str, str], keep: bool = True) -> None:
        if not _SCRIPT.exists() or not _NODE.exists():
            raise ChildFailed("Azurite is not installed: run make setup.")
        data.mkdir(parents=True, exist_ok=True)
        self._ports = dict(zip(_SERVICES, _free_ports(len(_SERVICES)), strict=True))
        command = [str(_NODE), str(_SCRIPT), "--silent", "--disableTelemetry", "--skipApiVersionCheck"]
        command += ["--location", str(data.resolve())] if keep else ["--inMemoryPersistence"]
        for service, port in self._ports.items():
            command += [f"--{service}Host", "127.0.0.1", f"--{service}Port", str(port)]
        self._child = Child("azurite", command, log_directory=log_directory, environment=environment, foreign=True)
        try:
            self._child.wait_ready(_START_SECONDS, self._answers)
        except ChildFailed:
            self._child.stop()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def connection_string(self) -> str:
        """For ``AzureWebJobsStorage`` and ``PATCHWAVE_TABLES_CONNECTION``."""
        return self.connection_string_for(self.table_port)

    @property
    def table_port(self) -> int:
        return self._ports["table"]

    def connection_string_for(self, table_port: int) -> str:
        """The same with another table port."""
        endpoints = "".join(
            f"{service.capitalize()}Endpoint=http://127.0.0.1:{port}/{_ACCOUNT};"
            for service, port in (self._ports | {"table": table_port}).items()
        )
        return f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={_KEY};{endpoints}"

    @property
    def pid(self) -> int:
        return self._child.pid

    def stop(self) -> None:
        """Persisted data stays."""
        self._child.stop()

    def _answers(self) -> bool:
        return self._child.running and all(map(_accepts, self._ports.values()))


def _accepts(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def _free_ports(count: int) -> list[int]:
    """Free ports; all are held until the last one is found, so that they differ."""
    held = [socket.socket() for _ in range(count)]
    try:
        for each in held:
            each.bind(("127.0.0.1", 0))
        return [int(each.getsockname()[1]) for each in held]
    finally:
        for each in held:
            each.close()
