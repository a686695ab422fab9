"""Runs the embedded host on the sample app, as a process of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from local.processes import Child


def alive(pid: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for does not."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True, check=False)
    return bool(state.stdout.strip()) and not state.stdout.strip().startswith("Z")


SAMPLE_APP = Path(__file__).parent / "sample_app"


class RunningHost:
    """A host process, its address, and what the sample app noted."""

    def __init__(self, folder: Path, *arguments: str, schedule: str = "0 0 3 1 1 *", app: Path = SAMPLE_APP) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self._notes = folder / "notes"
        ready = folder / "ready.json"
        environment = {
            **os.environ,
            "SAMPLE_NOTES": str(self._notes),
            "SAMPLE_SCHEDULE": schedule,
            "no_proxy": "localhost,127.0.0.1",
        }
        command = [
            *(sys.executable, "-m", "local.functions_host", "--app", str(app), "--port", "0"),
            *("--ready", str(ready), "--state", str(folder / "state"), "--parent", str(os.getpid())),
            *arguments,
        ]
        self.child = Child("host", command, log_directory=folder, environment=environment, ready=ready)
        try:
            self._document = self.child.wait_ready(30)
        except BaseException:
            self.child.stop()
            raise
        self.client = httpx.Client(base_url=self._document["url"], timeout=20)

    def __enter__(self) -> "RunningHost":
        return self

    def __exit__(self, *_: object) -> None:
        self.client.close()
        self.child.stop()

    @property
    def keys(self) -> dict[str, str]:
        return self._document["keys"]

    @property
    def workers(self) -> list[int]:
        return self.child.document()["workers"]

    def notes(self, kind: str) -> list[dict[str, Any]]:
        """What functions noted, in order."""
        if not self._notes.exists():
            return []
        lines = [json.loads(line) for line in self._notes.read_text(encoding="utf-8").splitlines()]
        return [line for line in lines if line["kind"] == kind]

    def wait_for(self, what: Callable[[], Any], seconds: float = 10.0) -> Any:
        """The first true value of ``what``; fails with the end of the host's log."""
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if found := what():
                return found
            time.sleep(0.02)
        raise AssertionError(f"nothing came within {seconds:.0f} s:\n{self.child.log_end(40)}")

    def kill_worker(self, pid: int | None = None) -> None:
        """Kills a worker and waits for the one in its place."""
        before = self.workers
        dead = pid or before[0]
        os.kill(dead, signal.SIGKILL)
        self.wait_for(lambda: dead not in self.workers and len(self.workers) == len(before))

    def start(self, orchestrator: str, value: Any, instance_id: str) -> None:
        answer = self.client.post(f"/api/start/{orchestrator}", params={"id": instance_id}, json=value)
        assert answer.status_code == 202, answer.text

    def ended(self, instance_id: str, seconds: float = 15.0) -> dict[str, Any]:
        """The state of an instance once it has ended."""

        def state() -> dict[str, Any] | None:
            found = self.client.get(f"/api/instances/{instance_id}").json()
            return found if found.get("status") in ("COMPLETED", "FAILED", "TERMINATED") else None

        return self.wait_for(state, seconds)
