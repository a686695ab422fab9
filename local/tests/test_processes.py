"""Children end when they are told to, when they will not listen, and when their parent is killed."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from local import ROOT
from local.functions_host.tests.running import alive
from local.processes import Child, ChildFailed, write_atomically


def _gone(pid: int, seconds: float = 5.0) -> bool:
    end = time.monotonic() + seconds
    while alive(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return not alive(pid)


def _child(folder: Path, code: str, *, foreign: bool = False) -> Child:
    return Child(
        "sample",
        [sys.executable, "-c", code],
        log_directory=folder,
        environment=os.environ,
        ready=folder / "ready.json",
        foreign=foreign,
    )


def test_a_ready_file_is_waited_for(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    code = (
        "import time; from pathlib import Path; from local.processes import write_atomically as w; "
        f"w(Path({str(ready)!r}), {{'n': 1}}); time.sleep(30)"
    )
    with _child(tmp_path, code) as child:
        assert child.wait_ready(10) == {"n": 1}
        assert child.running
    assert _gone(child.pid)
    assert not ready.exists()


def test_a_child_that_ends_early_says_why(tmp_path: Path) -> None:
    with (
        _child(tmp_path, "print('the reason'); raise SystemExit(3)") as child,
        pytest.raises(ChildFailed, match=r"(?s)code 3.*the reason"),
    ):
        child.wait_ready(10)


def test_a_child_that_is_never_ready_fails(tmp_path: Path) -> None:
    with _child(tmp_path, "import time; time.sleep(30)") as child, pytest.raises(ChildFailed, match="not ready"):
        child.wait_ready(0.05)


def test_a_child_that_ignores_sigterm_is_killed_with_its_children(tmp_path: Path) -> None:
    ready = tmp_path / "ready.json"
    code = (
        "import signal, subprocess, sys, time; from pathlib import Path; "
        "signal.signal(signal.SIGTERM, signal.SIG_IGN); "
        "from local.processes import write_atomically as w; "
        "p = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(30)']); "
        f"w(Path({str(ready)!r}), {{'grandchild': p.pid}}); time.sleep(30)"
    )
    child = _child(tmp_path, code)
    grandchild = child.wait_ready(10)["grandchild"]
    child.stop(grace=0.1)
    assert not child.running
    assert _gone(grandchild)


def test_a_foreign_child_dies_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    code = (
        "import os, time; from pathlib import Path; from local.processes import Child; "
        f"c = Child('sleeper', ['sleep', '30'], log_directory=Path({str(tmp_path)!r}), "
        "environment=os.environ, foreign=True); "
        "print(c.pid, flush=True); time.sleep(30)"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        assert alive(pid)
    finally:
        parent.send_signal(signal.SIGKILL)
        parent.wait()
        if parent.stdout is not None:
            parent.stdout.close()
    assert _gone(pid)


def test_a_document_is_written_whole_and_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "document.json"
    write_atomically(path, {"a": 1})
    write_atomically(path, {"a": 2})
    assert json.loads(path.read_text()) == {"a": 2}
    assert path.stat().st_mode & 0o077 == 0
    assert [each.name for each in path.parent.iterdir()] == ["document.json"]
