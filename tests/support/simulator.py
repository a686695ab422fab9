"""A simulator process for the tests of a session, over HTTPS; tests take machines of their own."""

from __future__ import annotations

import json
import os
import ssl
import subprocess
import sys
import time
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from local import ROOT

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-sim"
API = {"api-version": "2025-04-01"}
SPEED = 1200.0
MACHINES = 400
"""Enough for the tests of one process, each of which takes machines of its own."""
ARC_GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-arc"
ARC_MACHINES = 100

type Json = dict[str, Any]


def machine_id(number: int) -> str:
    return f"{GROUP}/providers/Microsoft.Compute/virtualMachines/vm-{number:03d}"


def arc_id(number: int) -> str:
    return f"{ARC_GROUP}/providers/Microsoft.HybridCompute/machines/srv-{number:03d}"


@dataclass
class Simulator:
    """The simulator as a client sees it, with a token."""

    ready: Json
    http: httpx.Client
    _next: Iterator[int] = field(default_factory=lambda: iter(range(MACHINES)))
    _next_arc: Iterator[int] = field(default_factory=lambda: iter(range(ARC_MACHINES)))

    def take(self, **simulation: object) -> str:
        """A machine that no other test uses; even numbers run Linux."""
        one = machine_id(next(self._next))
        reply = self.http.post("/_sim/machines", json={"id": one, "simulation": simulation})
        assert reply.status_code == 200, reply.text
        return one

    def take_arc(self, **simulation: object) -> str:
        """An Arc machine that no other test uses; even numbers run Linux."""
        one = arc_id(next(self._next_arc))
        reply = self.http.post("/_sim/machines", json={"id": one, "simulation": simulation})
        assert reply.status_code == 200, reply.text
        return one

    def take_arc_system(self, os_type: str, **simulation: object) -> str:
        """The same, with this operating system."""
        one = self.take_arc(**simulation)
        is_linux = int(one[-3:]) % 2 == 0
        return one if is_linux == (os_type == "Linux") else self.take_arc(**simulation)

    def take_system(self, os_type: str, **simulation: object) -> str:
        """The same, with this operating system."""
        one = self.take(**simulation)
        is_linux = int(one[-3:]) % 2 == 0
        return one if is_linux == (os_type == "Linux") else self.take(**simulation)

    def post(self, one: str, action: str, body: Json | None = None) -> httpx.Response:
        return self.http.post(f"{one}/{action}", params=API, json=body)

    def get(self, url: str) -> httpx.Response:
        return self.http.get(url)

    def machine(self, one: str) -> Json:
        return self.http.get(one, params=API | {"$expand": "instanceView"}).json()

    def follow(self, reply: httpx.Response) -> Json:
        """Poll the operation of a 202 to its end; the last body."""
        assert reply.status_code == 202, reply.text
        deadline = time.monotonic() + 15
        while True:
            body = self.http.get(reply.headers["azure-asyncoperation"]).json()
            if body["status"] != "InProgress":
                return body
            assert time.monotonic() < deadline, body
            time.sleep(0.05)

    def follow_arc(self, reply: httpx.Response) -> Json:
        """Poll the Location of an Arc machine's 202 to its end; the result."""
        deadline = time.monotonic() + 15
        while reply.status_code == 202:
            assert time.monotonic() < deadline, reply.headers
            time.sleep(0.05)
            reply = self.http.get(reply.headers["location"])
        assert reply.status_code == 200, reply.text
        return reply.json()

    def install(self, one: str, **parameters: Any) -> Json:
        """Install to the end; the result."""
        body = {"maximumDuration": "PT2H", "rebootSetting": "IfRequired"} | parameters
        return self.follow(self.post(one, "installPatches", body))["properties"]["output"]


@pytest.fixture(scope="session")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Simulator]:
    folder = tmp_path_factory.mktemp("simulator")
    fleet = [
        {
            "id": machine_id(number),
            "name": f"vm-{number:03d}",
            "location": "westeurope",
            "tags": {"number": str(number)},
            "storageProfile": {"osDisk": {"osType": "Windows" if number % 2 else "Linux"}},
        }
        for number in range(MACHINES)
    ]
    fleet += [
        {
            "id": arc_id(number),
            "name": f"srv-{number:03d}",
            "location": "westeurope",
            "kind": "VMware",
            "tags": {"number": str(number)},
            "properties": {"osType": "windows" if number % 2 else "linux"},
        }
        for number in range(ARC_MACHINES)
    ]
    with running(folder, fleet, "--speed", str(SPEED)) as document, httpx.Client(**as_client(document)) as http:
        http.post("/_sim/limits", json={"enabled": False})
        yield Simulator(document, http)


@contextmanager
def running(folder: Path, fleet: object, *arguments: str) -> Generator[Json]:
    """A simulator process with its state in a folder and the machines of a fleet file; its ready document."""
    (folder / "fleet.json").write_text(json.dumps(fleet))
    command = [sys.executable, "-m", "local.azure_simulator", "--state", str(folder / "state"), *arguments]
    process = subprocess.Popen(
        [
            *[*command, "--fleet", str(folder / "fleet.json")],
            *["--ready", str(folder / "ready.json"), "--parent", str(os.getpid())],
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    try:
        yield _wait_ready(folder / "ready.json", process)
    finally:
        process.terminate()
        process.wait(10)


def as_client(document: Json) -> Json:
    """What an httpx client is made with that reaches the simulator as Azure's clients do, with a token."""
    return {
        "base_url": document["arm"],
        "verify": ssl.create_default_context(cafile=document["ca"]),
        "headers": {"Authorization": f"Bearer {token(document)}"},
        "timeout": 20,
        "trust_env": False,
    }


def _wait_ready(path: Path, process: subprocess.Popen[bytes]) -> Json:
    """The ready document."""
    deadline = time.monotonic() + 30
    while not path.exists():
        assert process.poll() is None, "the simulator ended"
        assert time.monotonic() < deadline, "the simulator did not start"
        time.sleep(0.05)
    return json.loads(path.read_text())


def token(document: Json) -> str:
    """A token, as a managed identity gets it."""
    environment = document["environment"]
    reply = httpx.get(
        environment["IDENTITY_ENDPOINT"],
        params={"resource": document["arm"], "api-version": "2019-08-01"},
        headers={"X-IDENTITY-HEADER": environment["IDENTITY_HEADER"]},
        trust_env=False,
    )
    return str(reply.json()["access_token"])
