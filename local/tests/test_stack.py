"""The stack starts storage, simulator and host, and leaves nothing behind."""

import os
import urllib.request
from pathlib import Path

import pytest

from local.functions_host.tests.running import SAMPLE_APP, alive
from local.processes import ChildFailed
from local.stack import Stack, StackOptions


def _options(folder: Path, **more: object) -> StackOptions:
    settings = {"SAMPLE_NOTES": str(folder / "notes"), "SAMPLE_SCHEDULE": "0 0 3 1 1 *"}
    options: dict[str, object] = {"state": folder, "app": SAMPLE_APP, "port": 0, "machines": 3, "settings": settings}
    return StackOptions(**(options | more))  # pyright: ignore[reportArgumentType]


def _answers(stack: Stack) -> bool:
    with urllib.request.urlopen(f"{stack.url}/api/health", timeout=5) as answer:
        return answer.status == 200


def test_everything_starts_and_ends(tmp_path: Path) -> None:
    said: list[str] = []
    with Stack(_options(tmp_path), say=said.append) as stack:
        assert _answers(stack)
        assert stack.arm.startswith("https://localhost:")
        assert stack.ca is not None
        assert stack.ca.exists()
        assert "TableEndpoint=http://127.0.0.1:" in stack.storage
        assert stack.keys == {}
        pids = [*stack.workers, stack.simulator["pid"]]
        dead = stack.kill_worker()
        assert dead not in stack.workers
        pids += stack.workers
        stack.restart_host()
        assert _answers(stack)
        pids += stack.workers
    assert said == ["storage (Azurite)", "Resource Manager simulator", "function host"]
    assert not [pid for pid in pids if alive(pid)]
    stack.stop()


def test_another_resource_manager_needs_no_simulator(tmp_path: Path) -> None:
    bundle = tmp_path / "ca.pem"
    bundle.write_text("")
    with Stack(_options(tmp_path, arm="https://management.example", ca=bundle, require_keys=True)) as stack:
        assert (stack.arm, stack.ca, stack.simulator) == ("https://management.example", bundle, {})
        assert set(stack.keys) == {"master", "default", "eventgrid"}
        assert not (tmp_path / "simulator.json").exists()
        assert "PATCHWAVE_RESOURCE_MANAGER" not in os.environ


def test_a_part_that_fails_ends_the_others_and_says_why(tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "function_app.py").write_text("raise RuntimeError('this is why')\n")
    stack = Stack(_options(tmp_path / "state", app=broken, arm="https://management.example"))
    with pytest.raises(ChildFailed, match="this is why"):
        stack.start()
    with pytest.raises(ChildFailed):
        stack.kill_worker(timeout=0.1)
