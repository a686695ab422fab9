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

    help: str
    panel: str
    target: str
    """Module and name of its `typer.Typer`."""
    modules: tuple[str, ...] = ()
    """Modules that add commands to it."""
    is_group: bool = True


_COMMANDS = {
    "plan": _Command(
        "Show what a run of a policy would do, from files or on the live fleet.",
        _PLAN,
        "patchwave.cli.plans.commands:plans",
        is_group=False,
    ),
    "policy": _Command(
        "Keep and check policies: what is patched, when, and how carefully.",
        _PLAN,
        "patchwave.cli.policies.commands:policies",
        ("patchwave.cli.policies.schedule_commands", "patchwave.cli.policies.conversion_commands"),
    ),
    "schedule": _Command(
        "See what a policy will do next, and what keeps it from running.",
        _PLAN,
        "patchwave.cli.policies.schedule_commands:schedules",
    ),
    "freeze": _Command(
        "Keep times in which nothing is patched.", _PLAN, "patchwave.cli.policies.schedule_commands:freezes"
    ),
    "run": _Command(
        "Start, watch and control runs.",
        _RUN,
        "patchwave.cli.runs.commands:runs",
        ("patchwave.cli.runs.control_commands",),
    ),
    "audit": _Command("See which calls the service refused.", _RUN, "patchwave.cli.audit_commands:audits"),
    "doctor": _Command(
        "Find machines that are not patched, or patched twice, and the command that mends each.",
        _FLEET,
        "patchwave.cli.fleet.drift_command:drift",
        is_group=False,
    ),
    "fleet": _Command(
        "See and change what patches the machines of a fleet.", _FLEET, "patchwave.cli.fleet.commands:fleet"
    ),
    "maintenance": _Command(
        "Keep the schedules of Azure Update Manager and their assignments.",
        _FLEET,
        "patchwave.cli.maintenance.configuration_commands:maintenance",
        ("patchwave.cli.maintenance.assignment_commands", "patchwave.cli.maintenance.run_commands"),
    ),
    "demo": _Command(
        "Plan and patch a sample fleet on this machine, without Azure.",
        _HERE,
        "patchwave.cli.local.demo_commands:rollout",
        is_group=False,
    ),
    "demo-stop": _Command(
        "The same with a bad update: an error budget stops the run.",
        _HERE,
        "patchwave.cli.local.demo_commands:stop",
        is_group=False,
    ),
    "demo-maintenance": _Command(
        "A schedule of Update Manager with Patchwave around it, and the doctor.",
        _HERE,
        "patchwave.cli.local.demo_maintenance:scenario",
        is_group=False,
    ),
    "serve": _Command(
        "Keep the whole product running on this machine, with a simulator of Azure.",
        _HERE,
        "patchwave.cli.local.serve_command:local",
        is_group=False,
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
    group = getattr(importlib.import_module(module), attribute)
    for module in command.modules:
        importlib.import_module(module)
    loaded = typer.main.get_group(group) if command.is_group else typer.main.get_command(group)
    loaded.name = name
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
