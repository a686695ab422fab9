"""``patchwave serve``: the whole product on this machine, out of a checkout.

What a command needs of ``local`` is imported when it runs: the rest of the command works without those packages.
"""

from __future__ import annotations

import os
import shlex
import signal
import socket
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from patchwave.cli.errors import CommandError, ExitCode, RefusedError
from patchwave.cli.output import open_console, plain

if TYPE_CHECKING:
    from local.stack import Stack, StackOptions

local = typer.Typer(add_completion=False)

DEFAULT_PORT = 7071


@local.command("serve")
def serve(
    arm: Annotated[
        str,
        typer.Option("--arm", help="Resource Manager to use instead of the simulator; a real one patches for real."),
    ] = "",
    ca: Annotated[Path | None, typer.Option("--ca", exists=True, help="CA bundle of that Resource Manager.")] = None,
    fleet: Annotated[
        Path | None, typer.Option(exists=True, help="The simulator's fleet: JSON of az vm list, Resource Graph or ARM.")
    ] = None,
    machines: Annotated[int | None, typer.Option(min=1, help="Make up a fleet of so many machines instead.")] = None,
    seed: Annotated[int, typer.Option(help="Seed of what the simulator makes up.")] = 1,
    speed: Annotated[float, typer.Option(min=0.1, help="Simulated seconds per second.")] = 60.0,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port of the function app; 0 takes a free one.")
    ] = DEFAULT_PORT,
    workers: Annotated[int, typer.Option(min=1, max=16, help="Worker processes of the function host.")] = 1,
    poll_seconds: Annotated[
        float | None, typer.Option(help="Seconds between polls of an operation; suits the speed when not given.")
    ] = None,
    require_keys: Annotated[bool, typer.Option("--require-keys", help="Ask for function keys, as Azure does.")] = False,
    scripts: Annotated[
        bool,
        typer.Option("--scripts", help="Let policies run scripts in the simulated guests; you then have every role."),
    ] = False,
) -> None:
    """Keep the local stack running until Ctrl-C: storage, the function app, and a simulator of Azure."""
    from local.demo.scenario import FLEET, ROOT
    from local.stack import StackOptions

    if arm and (fleet or machines):
        raise RefusedError("--fleet and --machines describe the simulator, which --arm replaces")
    if fleet and machines:
        raise RefusedError("Give --fleet or --machines, not both")
    if arm and scripts:
        raise RefusedError("--scripts is for the simulator, which --arm replaces: there is no sign-in here")
    if ca and not arm:
        raise RefusedError("--ca belongs to --arm; the simulator has its own CA")
    if poll_seconds is None and not arm:
        poll_seconds = max(0.2, 30 / speed)
    _refuse_used_port(port)
    # Two stacks must not share a folder: each writes its data and its ready files there.
    folder = ROOT / ".local" / ("serve" if port == DEFAULT_PORT else f"serve-{port}")
    options = StackOptions(
        state=folder,
        port=port,
        workers=workers,
        require_keys=require_keys,
        fleet=None if machines else fleet or FLEET,
        machines=machines or 0,
        seed=seed,
        speed=speed,
        arm=arm or None,
        ca=ca,
        poll_seconds=poll_seconds,
        # What a policy lets a run wait for is as long on the simulator's clock as what the machines take.
        settings={} if arm else {"PATCHWAVE_CLOCK_SPEED": f"{speed:g}", **_scripts(scripts)},
        signs_in=scripts,
    )
    console = open_console()
    environment = folder / "env.sh"
    try:
        with running_stack(options, console) as stack:
            write_environment(environment, _environment(stack))
            for line in (
                f"Function app: {stack.url}",
                f"Resource Manager: {stack.arm}",
                f"Logs: {stack.logs}",
                f"In another terminal: source {shlex.quote(str(environment))}",
                "Ctrl-C ends everything.",
            ):
                console.print(line, soft_wrap=True)
            for note in stack.simulator.get("notes", []):
                open_console(errors=True).print(plain(note), soft_wrap=True)
            _keep(stack)
    except KeyboardInterrupt:
        console.print("Ended.")
    finally:
        # Addresses and keys of a stack that is gone would mislead a shell that sources them.
        environment.unlink(missing_ok=True)


def _scripts(wanted: bool) -> dict[str, str]:
    return {"PATCHWAVE_SCRIPTS": "true"} if wanted else {}


@contextmanager
def running_stack(options: StackOptions, console: Console) -> Generator[Stack]:
    """The stack, ended however the block ends: SIGTERM and SIGHUP are taken as Ctrl-C."""
    from local.processes import ChildFailed
    from local.stack import Stack

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with Stack(options, say=lambda what: console.print(f"Starting: {what}")) as stack:
            yield stack
    except ChildFailed as error:
        raise CommandError(f"The local stack failed: {error}", ExitCode.UNREACHABLE) from error
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _refuse_used_port(port: int) -> None:
    """Say at once what the host would only find out after everything else has started."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise RefusedError(f"Port {port} is in use, perhaps by another stack; choose one with --port") from error


def _keep(stack: Stack) -> None:
    """Wait for Ctrl-C, or for a part of the stack to end by itself."""
    while not stack.ended:
        time.sleep(0.5)
    raise CommandError(f"Ended by itself: {', '.join(stack.ended)}; see {stack.logs}", ExitCode.UNREACHABLE)


def _environment(stack: Stack) -> dict[str, str]:
    """What lets this command, the Azure CLI and an SDK find the stack."""
    environment = {"PATCHWAVE_URL": stack.url}
    if "default" in stack.keys:
        environment["PATCHWAVE_KEY"] = stack.keys["default"]
    simulator: dict[str, str] = stack.simulator.get("environment", {})
    return environment | simulator


def write_environment(path: Path, environment: dict[str, str]) -> None:
    """A file for ``source``, readable by its owner alone: it holds keys."""
    text = "".join(f"export {name}={shlex.quote(plain(value))}\n" for name, value in sorted(environment.items()))
    path.unlink(missing_ok=True)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
