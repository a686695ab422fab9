"""The entry point of the ``patchwave`` command.

Exit codes: 0 done; 1 the run failed, was cancelled, or left machines that need a person; 2 the service refused the
request, a file is wrong, or the usage is; 3 the service cannot be reached or is broken; 130 Ctrl-C.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import typer
from typer.core import TyperCommand, TyperGroup
from typer.exceptions import TyperException

from patchwave.cli.errors import CommandError, ExitCode, RefusedError

_PLAN, _RUN, _FLEET, _HERE = "Policies and plans", "Runs", "Fleet and Azure Update Manager", "On this machine"


class _Command(NamedTuple):
    """A command of the first level: its line in the list, and where its code is."""

    panel: str
    help: str
    target: str
    """Module (below ``patchwave.cli``) and name of its `typer.Typer`."""
    modules: tuple[str, ...] = ()
    """Modules that add commands to it."""


_COMMANDS = {
    "plan": _Command(
        _PLAN, "Show what a run of a policy would do, from files or on the live fleet.", "plans.commands:plans"
    ),
    "policy": _Command(
        _PLAN,
        "Keep and check policies: what is patched, when, and how carefully.",
        "policies.commands:policies",
        ("policies.schedule_commands", "policies.conversion_commands"),
    ),
    "schedule": _Command(
        _PLAN, "See what a policy will do next, and what keeps it from running.", "policies.schedule_commands:schedules"
    ),
    "freeze": _Command(_PLAN, "Keep times in which nothing is patched.", "policies.schedule_commands:freezes"),
    "run": _Command(_RUN, "Start, watch and control runs.", "runs.commands:runs", ("runs.control_commands",)),
    "audit": _Command(_RUN, "See which calls the service refused.", "audit_commands:audits"),
    "doctor": _Command(
        _FLEET,
        "Find machines that are not patched, or patched twice, and the command that mends each.",
        "fleet.drift_command:drift",
    ),
    "fleet": _Command(_FLEET, "See and change what patches the machines of a fleet.", "fleet.commands:fleet"),
    "maintenance": _Command(
        _FLEET,
        "Keep the schedules of Azure Update Manager and their assignments.",
        "maintenance.configuration_commands:maintenance",
        ("maintenance.assignment_commands", "maintenance.run_commands"),
    ),
    "demo": _Command(
        _HERE, "Plan and patch a sample fleet on this machine, without Azure.", "local.demo_commands:rollout"
    ),
    "demo-stop": _Command(
        _HERE, "The same with a bad update: an error budget stops the run.", "local.demo_commands:stop"
    ),
    "demo-maintenance": _Command(
        _HERE,
        "A schedule of Update Manager with Patchwave around it, and the doctor.",
        "local.demo_commands:maintenance",
    ),
    "serve": _Command(
        _HERE, "Keep the whole product running on this machine, with a simulator of Azure.", "local.serve_command:local"
    ),
}


class _CommandLine(TyperGroup):
    """Imports the code of a command when it is called: help, version and completion of names need none of it."""

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands = {
            name: TyperCommand(name, help=each.help, rich_help_panel=each.panel) for name, each in _COMMANDS.items()
        }

    def resolve_command(self, ctx: Any, args: list[str]) -> tuple[str | None, Any, list[str]]:
        name, _, rest = super().resolve_command(ctx, args)
        return name, name and _load(name), rest


def _load(name: str) -> Any:
    """The command of the first level with this name, its code imported."""
    command = _COMMANDS[name]
    module, _, attribute = command.target.partition(":")
    group = getattr(importlib.import_module(f"patchwave.cli.{module}"), attribute)
    for module in command.modules:
        importlib.import_module(f"patchwave.cli.{module}")
    # A group, or the only command of one without a name, which has a help of its own.
    loaded = typer.main.get_group(group) if group.info.name else typer.main.get_command(group)
    loaded.name, loaded.help = name, command.help if group.info.name else loaded.help
    return loaded


def _print_version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"patchwave {version('patchwave')}")
        raise typer.Exit


app = typer.Typer(
    name="patchwave",
    cls=_CommandLine,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Assess and patch fleets of Azure virtual machines.\n\n"
    "A policy says what is patched and when. A plan shows what a run of it would do. A run does it, machine by machine."
    " The service is named by --url or PATCHWAVE_URL; `plan --fleet` and `policy validate` need none.",
    epilog="Exit codes: 0 done; 1 machines need a person; 2 refused or wrong usage; 3 service cannot be reached.",
)


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None: ...


def whole() -> TyperGroup:
    """The command with the code of every command imported, for what describes or checks all of them."""
    root = typer.main.get_group(app)
    root.commands = {name: _load(name) for name in _COMMANDS}
    return root


def run(arguments: Sequence[str] | None = None) -> int:
    """Run the command with these arguments (those of the process by default) and return its exit code."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    as_json = _asks_for_json(words)
    try:
        # What is not caught here is printed by typer, for people.
        ended = app(words, prog_name="patchwave", standalone_mode=not as_json)
        return ended if isinstance(ended, int) else ExitCode.OK
    except CommandError as error:
        return _fail(error, as_json=as_json)
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "local":
            raise
        checkout = "This command works in a checkout of Patchwave: clone the repository, and call `make serve` there"
        return _fail(RefusedError(checkout), as_json=as_json)
    except TyperException as error:
        return _fail(RefusedError(error.format_message()), as_json=as_json)
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else ExitCode.REFUSED


def _fail(error: CommandError, *, as_json: bool) -> int:
    from patchwave.cli.output import show_error

    show_error(error, as_json=as_json)
    return error.exit_code


def _asks_for_json(words: Sequence[str]) -> bool:
    """Whether JSON is asked for, looked up before anything is parsed: wrong usage is an error too."""
    joined = " ".join(words)
    return any(f"{option}json" in joined.split(" -- ")[0] for option in ("-o ", "-o", "--output ", "--output="))


def main() -> None:
    """The console script."""
    sys.exit(run())


if __name__ == "__main__":
    main()
