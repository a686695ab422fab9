"""``patchwave serve``: what needs no running stack. The end-to-end tests have the rest."""

from __future__ import annotations

import socket
import stat
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace

import pytest

from local.demo.scenario import FLEET
from patchwave.cli.local.serve_command import write_environment
from tests.cli.conftest import Patchwave


@pytest.mark.parametrize(
    "arguments",
    [
        ["--arm", "https://management.azure.com", "--machines", "5"],
        ["--arm", "https://management.azure.com", "--fleet", str(FLEET)],
        ["--fleet", str(FLEET), "--machines", "5"],
        ["--arm", "https://management.azure.com", "--scripts"],
        ["--ca", __file__],
        ["--fleet", "not-there.json"],
        ["--speed", "0"],
        ["--workers", "0"],
    ],
)
def test_options_that_contradict_each_other_start_nothing(patchwave: Patchwave, arguments: list[str]):
    result = patchwave("serve", *arguments)
    assert (result.code, result.output) == (2, "")


def test_a_port_in_use_is_refused_before_anything_starts(patchwave: Patchwave):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = patchwave("serve", "--port", str(taken.getsockname()[1]))
    assert (result.code, result.output) == (2, "")
    assert "is in use" in result.errors


def test_serve_lists_what_it_left_out_of_a_fleet(patchwave: Patchwave, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    @contextmanager
    def running_stack(*_: object) -> Generator[SimpleNamespace]:
        simulator = {"notes": ["value[3] is left out: it has no location"]}
        yield SimpleNamespace(url="http://x", arm="", logs="", keys={}, simulator=simulator, ended=["host"])

    (tmp_path / ".local" / "serve-0").mkdir(parents=True)
    monkeypatch.setattr("local.demo.scenario.ROOT", tmp_path)
    monkeypatch.setattr("patchwave.cli.local.serve_command.running_stack", running_stack)
    result = patchwave("serve", "--port", "0")
    assert "value[3] is left out: it has no location" in result.errors.splitlines()


def test_the_environment_file_is_for_its_owner_and_for_any_shell(tmp_path: Path):
    path = tmp_path / "env.sh"
    path.write_text("older")
    path.chmod(0o644)
    write_environment(path, {"B": "it's $HOME", "A": "plain"})
    assert path.read_text() == "export A=plain\nexport B='it'\"'\"'s $HOME'\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
