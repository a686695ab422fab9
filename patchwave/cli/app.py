"""The entry point of the ``patchwave`` command.

Exit codes: 0 done; 1 the run failed, was cancelled, or left machines that need a person; 2 the service refused the
request, a file is wrong, or the usage is; 3 the service cannot be reached or is broken; 130 Ctrl-C.
"""

from __future__ import annotations

import sys

import typer

from patchwave.cli.audit_commands import audits
from patchwave.cli.errors import CommandError, ExitCode
from patchwave.cli.fleet.commands import fleet
from patchwave.cli.fleet.drift_command import doctor
from patchwave.cli.local.demo_commands import demo, demo_stop
from patchwave.cli.local.demo_maintenance import demo_maintenance
from patchwave.cli.local.serve_command import serve
from patchwave.cli.maintenance.assignment_commands import add_assignments
from patchwave.cli.maintenance.configuration_commands import maintenance
from patchwave.cli.maintenance.run_commands import occurrences
from patchwave.cli.output import show_error
from patchwave.cli.plans.commands import plan
from patchwave.cli.policies.commands import policies
from patchwave.cli.policies.conversion_commands import add_moving
from patchwave.cli.policies.schedule_commands import freezes, schedules
from patchwave.cli.runs.commands import runs
from patchwave.cli.runs.control_commands import add_steering

app = typer.Typer(
    name="patchwave",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Assess and patch fleets of Azure virtual machines.",
    epilog="Exit codes: 0 done; 1 machines need a person; 2 refused or wrong usage; 3 service cannot be reached.",
)
app.command("demo")(demo)
app.command("demo-stop")(demo_stop)
app.command("demo-maintenance")(demo_maintenance)
app.command("serve")(serve)
app.command("plan")(plan)
app.command("doctor")(doctor)
add_steering(runs)
add_moving(policies)
app.add_typer(runs)
app.add_typer(policies)
app.add_typer(schedules)
app.add_typer(freezes)
add_assignments(maintenance)
maintenance.add_typer(occurrences)
app.add_typer(maintenance)
app.add_typer(fleet)
app.add_typer(audits)


def run(arguments: list[str] | None = None) -> int:
    """Run the command with these arguments (those of the process by default) and return its exit code."""
    try:
        app(arguments, prog_name="patchwave")
    except CommandError as error:
        show_error(error)
        return error.exit_code
    except KeyboardInterrupt:
        return ExitCode.INTERRUPTED
    except SystemExit as ended:
        return ended.code if isinstance(ended.code, int) else ExitCode.REFUSED
    return ExitCode.OK


def main() -> None:
    """The console script."""
    sys.exit(run())


if __name__ == "__main__":
    main()
