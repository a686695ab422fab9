"""A service on loopback, and the command run against it in this process."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Any

import pytest

from patchwave.cli.app import run
from tests.cli.service import Front, Service


@dataclass(frozen=True)
class Result:
    """How a command ended and what it wrote."""

    code: int
    output: str
    errors: str

    @property
    def document(self) -> Any:
        """The JSON on standard output."""
        return json.loads(self.output)


type Patchwave = Callable[..., Result]


@pytest.fixture(scope="session")
def front() -> Generator[Front]:
    with Front().running() as made:
        yield made


@pytest.fixture
def service(front: Front) -> Service:
    front.service = Service()
    return front.service


@pytest.fixture
def patchwave(
    front: Front, service: Service, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., Result]:
    """Runs the command with PATCHWAVE_URL naming the service."""
    monkeypatch.setenv("PATCHWAVE_URL", front.url)
    monkeypatch.delenv("PATCHWAVE_KEY", raising=False)
    monkeypatch.delenv("PATCHWAVE_TOKEN", raising=False)
    monkeypatch.delenv("COLUMNS", raising=False)

    def invoke(*arguments: str) -> Result:
        code = run(list(arguments))
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return invoke
