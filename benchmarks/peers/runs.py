"""Runs the peers on a stack of their own, measured as the product is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks import estate
from benchmarks.processes import Watch
from benchmarks.scenario import POLL_SECONDS, Scene, Stage, wait_until
from local.processes import loopback_without_proxy

ROOT = Path(__file__).resolve().parents[2]
FLAT_APP = Path(__file__).resolve().parent / "flat_app"
_NO_LIMIT = 10_000_000

type Json = dict[str, Any]


def run_script(scene: Scene, timeout: float) -> Json:
    """The thread pool around the SDK. The stack's own app idles meanwhile."""
    with Stage(scene) as stage:
        stage.reset()
        command = [
            *(sys.executable, "-m", "benchmarks.peers.script", "--endpoint", stage.stack.arm),
            *("--subscription", estate.SUBSCRIPTION, "--threads", str(scene.machines)),
            *("--polling-interval", str(POLL_SECONDS / scene.speed)),
        ]
        environment = loopback_without_proxy(os.environ) | stage.stack.simulator["environment"]
        with (
            (scene.folder / "script.log").open("wb") as log,
            subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=log) as process,
        ):
            try:
                with Watch(lambda: {"script": process.pid}) as watch:
                    said, _ = process.communicate(timeout=timeout)
            finally:
                process.kill()
        if process.returncode:
            raise RuntimeError(f"The script ended with {process.returncode}: see {scene.folder / 'script.log'}.")
        return _figures(stage, json.loads(said)["patched"], watch) | {"azure": stage.counts()["azure"]}


def run_flat_app(scene: Scene, timeout: float) -> Json:
    """The flat fan-out on the embedded host, whose limit of histories is lifted for it."""
    settings = {"FLAT_SPEED": str(scene.speed), "FLAT_SUBSCRIPTION": estate.SUBSCRIPTION}
    with Stage(scene, app=FLAT_APP, max_history=_NO_LIMIT, settings=settings) as stage, stage.watch() as watch:
        stage.reset()
        instance = stage.app.post("/api/start").raise_for_status().text
        said = wait_until(lambda: _result(stage, instance), timeout, "the flat app has not ended")
        counts = stage.counts()
        return _figures(stage, int(said), watch) | counts


def _result(stage: Stage, instance: str) -> str | None:
    reply = stage.app.get(f"/api/instances/{instance}")
    if reply.status_code == 202 and reply.text in ("FAILED", "TERMINATED"):
        return "0"
    return reply.text if reply.status_code == 200 else None


def _figures(stage: Stage, patched: int, watch: Watch) -> Json:
    """A peer's clock begins with its first accepted call: how long it takes to load is not counted against it."""
    operations = stage.operations()
    return {
        "machines": stage.scene.machines,
        "speed": round(stage.scene.speed, 3),
        "outcomes": {"patched": patched},
        "makespanMinutes": round(stage.minutes() - operations["assess"]["firstMinute"], 3),
        "operations": operations,
        "processes": watch.document(),
    }
