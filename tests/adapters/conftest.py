"""Records on a real Azurite, with tables of their own for every test."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from pydantic import SecretStr

from adapters.tables import Records
from adapters.tables.store import Store
from settings import Settings

_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    script = Path(__file__).parents[2] / "node_modules" / "azurite" / "dist" / "src" / "table" / "main.js"
    process = subprocess.Popen(
        [
            shutil.which("node") or "node",
            str(script),
            "--disableTelemetry",
            "--skipApiVersionCheck",
            "--silent",
            "--location",
            str(tmp_path_factory.mktemp("azurite")),
            "--tablePort",
            str(port),
        ],
        stdout=subprocess.DEVNULL,
        env={**os.environ, "NODE_OPTIONS": ""},
    )
    try:
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), 1).close()
                break
            except OSError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)
        yield (
            f"DefaultEndpointsProtocol=http;AccountName=devstoreaccount1;AccountKey={_KEY};"
            f"TableEndpoint=http://127.0.0.1:{port}/devstoreaccount1;"
        )
    finally:
        process.terminate()
        process.wait(10)


@pytest.fixture
async def records(azurite: str) -> AsyncIterator[Records]:
    settings = Settings(tables_connection=SecretStr(azurite), table_prefix=f"t{uuid.uuid4().hex[:12]}")
    found = Records(Store.open(settings))
    yield found
    await found.close()
