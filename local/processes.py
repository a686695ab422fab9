"""Child processes that never outlive their parent: started in their own group, with a log file, ended by pid.

Run as a program (``python -m local.processes PARENT_PID COMMAND...``) it asks the kernel for SIGTERM when its parent
ends, and then becomes COMMAND: ``Child`` starts other programs in this way (Azurite).
"""

import contextlib
import ctypes
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self, cast

from local import ROOT

_PR_SET_PDEATHSIG = 1

# A child gets this long to end by itself after SIGTERM.
_GRACE_SECONDS = 5.0


class ChildFailed(RuntimeError):
    """A child process ended or did not become ready; the message has the end of its log."""


def die_with_parent(signal_number: int = signal.SIGTERM, *, parent: int | None = None) -> None:
    """Ends this process when its parent does: by the kernel on Linux, by a poll twice a second elsewhere.

    ``parent`` is the pid that the parent passed on, in case it ended before this call. Linux counts the thread that
    started the child as the parent.
    """
    expected = parent if parent is not None else os.getppid()
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal_number), 0, 0, 0)
        if os.getppid() != expected:
            os.kill(os.getpid(), signal_number)
        return
    threading.Thread(
        target=_watch, args=(lambda: os.getppid() == expected, signal_number), name="parent-watch", daemon=True
    ).start()


def _watch(alive: Callable[[], bool], signal_number: int) -> None:
    while alive():
        time.sleep(0.5)
    os.kill(os.getpid(), signal_number)


def replace_file(path: Path, content: bytes, mode: int = 0o600) -> None:
    """Replaces a file in one step: it never exists in part, or with other rights than these."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with os.fdopen(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode), "wb") as file:
        file.write(content)
    draft.replace(path)


def write_atomically(path: Path, document: Mapping[str, Any]) -> None:
    """Writes a JSON document that only the owner can read."""
    replace_file(path, json.dumps(document, indent=2).encode() + b"\n")


def loopback_without_proxy(environment: Mapping[str, str]) -> dict[str, str]:
    """The environment without a proxy for loopback addresses: gRPC and HTTP clients read these variables."""
    made = dict(environment)
    for name in ("no_proxy", "NO_PROXY"):
        made[name] = ",".join(filter(None, [made.get(name), "localhost,127.0.0.1,::1"]))
    return made


class Child:
    """A child process in its own process group.

    Args:
        name: for messages and the log file ``{log_directory}/{name}.log``.
        command: program and arguments.
        environment: the whole environment of the child.
        ready: a file that the child writes when it is ready, or None when starting is enough.
        foreign: whether the program is one that does not call ``die_with_parent``.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        *,
        log_directory: Path,
        environment: Mapping[str, str],
        ready: Path | None = None,
        foreign: bool = False,
    ) -> None:
        self.name = name
        self.log = log_directory / f"{name}.log"
        self._ready = ready
        log_directory.mkdir(parents=True, exist_ok=True)
        if ready is not None:
            ready.unlink(missing_ok=True)
        if foreign:
            command = [sys.executable, "-m", "local.processes", str(os.getpid()), *command]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=dict(environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process.poll() is None

    def wait_ready(self, timeout: float, probe: Callable[[], bool] | None = None) -> dict[str, Any]:
        """Waits for the ready file (or for ``probe``) and returns its document; ``ChildFailed`` otherwise."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            if probe is not None and probe():
                return {}
            if self._ready is not None and self._ready.exists():
                return self.document()
            if not self.running:
                raise ChildFailed(f"{self.name} ended with code {self._process.returncode}:\n{self.log_end()}")
            time.sleep(0.02)
        raise ChildFailed(f"{self.name} was not ready after {timeout:.0f} s:\n{self.log_end()}")

    def document(self) -> dict[str, Any]:
        """The ready file as it is now; ``ChildFailed`` when there is none."""
        if self._ready is None:
            return {}
        try:
            return cast(dict[str, Any], json.loads(self._ready.read_text(encoding="utf-8")))
        except FileNotFoundError:
            raise ChildFailed(f"{self.name} is not ready:\n{self.log_end()}") from None

    def log_end(self, lines: int = 20) -> str:
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:])

    def stop(self, grace: float = _GRACE_SECONDS) -> None:
        """Ends the child: SIGTERM, then SIGKILL for it and the rest of its group."""
        if self.running:
            self._process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(grace)
        # The group has the child's pid, which is free for others only when the group is empty.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        if self._ready is not None:
            self._ready.unlink(missing_ok=True)


def _become() -> None:
    parent, *command = sys.argv[1:]
    if sys.platform == "linux":
        die_with_parent(parent=int(parent))
        os.execvp(command[0], command)
    # Elsewhere nothing survives exec, so this process stays and looks after the command.
    process = subprocess.Popen(command)

    def end(*_: object) -> None:
        process.terminate()

    signal.signal(signal.SIGTERM, end)
    while process.poll() is None:
        if os.getppid() != int(parent):
            end()
        time.sleep(0.5)
    sys.exit(process.returncode)


if __name__ == "__main__":
    _become()
