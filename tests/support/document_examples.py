"""Sends the examples of Microsoft's documents to the simulator."""

from __future__ import annotations

from dataclasses import dataclass

import httpx
import pytest

from tests.support.azure_cli import translate as translate_cli
from tests.support.simulator import SUBSCRIPTION, Json, Simulator

NEWEST = "2025-04-01"


@dataclass
class Examples:
    """Sends examples as they stand, but for ids and names, which become those of a machine of the simulator."""

    simulator: Simulator

    def machine(self, system: str, **simulation: object) -> str:
        return self.simulator.take_system(system, **simulation)

    def send(self, method: str, path: str, version: str, body: Json | None = None, **query: str) -> httpx.Response:
        return self.simulator.http.request(method, path, params={"api-version": version} | query, json=body)

    def az(self, command: str, machine: str = "") -> httpx.Response:
        """Send what the command sends; names of the document's machine become those of ``machine``."""
        for name in ("myVM", "MyVm"):
            command = command.replace(name, machine.rpartition("/")[2])
        for name in ("myResourceGroup", "MyResourceGroup"):
            command = command.replace(name, "rg-sim")
        wanted = translate_cli(command, SUBSCRIPTION)
        body = wanted.body
        if wanted.changes is not None:
            body = _merged(self.send("GET", wanted.path, NEWEST).json(), wanted.changes)
        version = "2023-04-01" if "Microsoft.Maintenance" in wanted.path else NEWEST
        return self.send(wanted.method, wanted.path, version, body, **wanted.query)

    def follow(self, reply: httpx.Response) -> Json:
        """Poll the operation of a response to its end; its result."""
        if reply.status_code == 200:
            reply.status_code = 202
        last = self.simulator.follow(reply)
        assert last["status"] == "Succeeded", last
        return last.get("properties", {}).get("output", {})

    def profile(self, machine: str) -> Json:
        """The ``osProfile`` as Azure has it now."""
        return self.simulator.machine(machine)["properties"]["osProfile"]


def _merged(document: Json, changes: Json) -> Json:
    both = {key: _merged(document.get(key) or {}, value) for key, value in changes.items() if isinstance(value, dict)}
    return document | {key: value for key, value in changes.items() if not isinstance(value, dict)} | both


@pytest.fixture
def examples(simulator: Simulator) -> Examples:
    return Examples(simulator)
