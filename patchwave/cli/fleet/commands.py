"""``patchwave fleet``: what machines are set to, who patches them, and changing that.

``set-mode`` plans first, shows what it would do, and carries it out when it is told so: by ``--yes``, by an answer at a
terminal, or later by ``mode-change start``.
"""

from __future__ import annotations

import sys
import time
from typing import Annotated

import typer

from patchwave.cli.client import ApiClient
from patchwave.cli.errors import ExitCode
from patchwave.cli.fleet.views import change_view, changes_table, eligibility_view, modes_view
from patchwave.cli.json_fields import Json, counts
from patchwave.cli.output import (
    DEFAULT_URL,
    SAID_NOTHING,
    ByOption,
    KeyOption,
    LimitOption,
    OutputFormat,
    OutputOption,
    ReasonOption,
    UrlOption,
    open_client,
    show,
)
from patchwave.cli.policies.schedule_commands import tag_values
from patchwave.cli.rendering import audit_table

fleet = typer.Typer(name="fleet", no_args_is_help=True, help="See and change what patches the machines of a fleet.")
changes = typer.Typer(name="mode-change", no_args_is_help=True, help="Follow and steer changes of patch modes.")
fleet.add_typer(changes)

SubscriptionOption = Annotated[list[str] | None, typer.Option("--subscription", help="Only of these; repeatable.")]
GroupOption = Annotated[list[str] | None, typer.Option("--resource-group", "-g", help="Only of these; repeatable.")]
LocationOption = Annotated[list[str] | None, typer.Option("--location", help="Only of these regions; repeatable.")]
SystemOption = Annotated[list[str] | None, typer.Option("--os", help="Windows or Linux.")]
MachineOption = Annotated[list[str] | None, typer.Option("--machine", help="ARM id of a machine; repeatable.")]
ChangeArgument = Annotated[str, typer.Argument(metavar="CHANGE", help="Id of the change.")]
_LOOK_SECONDS = 2.0
_NEEDS_PERSON = ("refused", "failed", "unknown")


@fleet.command("modes")
def show_modes(
    subscription: SubscriptionOption = None,
    group: GroupOption = None,
    location: LocationOption = None,
    system: SystemOption = None,
    machine: MachineOption = None,
    patched_by: Annotated[
        list[str] | None,
        typer.Option(
            "--patched-by", help="schedule, platform, operating_system, policy, nobody or unknown; repeatable."
        ),
    ] = None,
    limit: LimitOption = None,
    output: OutputOption = OutputFormat.TABLE,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """List what each machine is set to, what will patch it and when, and whether nothing will."""
    asked = _query(subscription, group, location, system, machine, limit) | _listed(patchedBy=patched_by)
    with open_client(url, key) as client:
        found = client.fleet_modes(asked)
    show(output, found, lambda: modes_view(found))


@fleet.command("eligibility")
def show_eligibility(
    subscription: SubscriptionOption = None,
    group: GroupOption = None,
    location: LocationOption = None,
    system: SystemOption = None,
    machine: MachineOption = None,
    limit: LimitOption = None,
    output: OutputOption = OutputFormat.TABLE,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """List the machines that Azure's guest patching does not take, and why not."""
    with open_client(url, key) as client:
        found = client.fleet_eligibility(_query(subscription, group, location, system, machine, limit))
    show(output, found, lambda: eligibility_view(found))


@fleet.command("set-mode")
def set_mode(
    by: ByOption,
    mode: Annotated[
        str, typer.Option("--mode", help="AutomaticByPlatform, AutomaticByOS, Manual or ImageDefault.")
    ] = "",
    assessment_mode: Annotated[
        str, typer.Option("--assessment-mode", help="AutomaticByPlatform or ImageDefault.")
    ] = "",
    bypass: Annotated[
        bool | None,
        typer.Option(
            "--bypass/--no-bypass",
            help="Leave the machines to schedules and to Patchwave, or to Azure's automatic patching.",
            show_default=False,
        ),
    ] = None,
    subscription: SubscriptionOption = None,
    group: GroupOption = None,
    location: LocationOption = None,
    system: SystemOption = None,
    machine: MachineOption = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="NAME=VALUE", help="Only machines with all of these tags; repeatable."),
    ] = None,
    max_concurrent: Annotated[int, typer.Option("--max-concurrent", min=1, max=100, help="Machines at a time.")] = 20,
    max_failures: Annotated[int, typer.Option("--max-failures", min=1, max=100_000, help="End after so many.")] = 10,
    reason: ReasonOption = SAID_NOTHING,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Carry it out without asking.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended.")] = True,
    output: OutputOption = OutputFormat.TABLE,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Set patch and assessment modes: first as a dry run, which is shown, then in waves.

    Exits with 1 when a machine was refused, failed, or ended unclearly.
    """
    scope: Json = {
        "subscriptions": subscription or [],
        "resourceGroups": group or [],
        "locations": location or [],
        "osTypes": system or [],
        "machineIds": machine or [],
    }
    if tag:
        scope["tags"] = {"values": tag_values(tag)}
    settings: Json = {"patchMode": mode or None, "assessmentMode": assessment_mode or None, "bypass": bypass}
    limits: Json = {"maxConcurrent": max_concurrent, "maxFailures": max_failures, "reason": reason, "by": by}
    with open_client(url, key) as client:
        change = client.plan_mode_change({"scope": scope, **settings, **limits})
        name = str(change.get("id", ""))
        is_asked = output is OutputFormat.TABLE and not yes and bool(change.get("toChange")) and sys.stdin.isatty()
        if is_asked:
            show(output, change, lambda: change_view(change, client.mode_change_machines(name)))
        if change.get("toChange") and (yes or (is_asked and typer.confirm("Carry it out?"))):
            change = client.order_mode_change(name, "start", reason, by)
            change = _wait(client, name) if wait else change
        shown = list(client.mode_change_machines(name)) if output is OutputFormat.TABLE else []
    show(output, change, lambda: change_view(change, shown))
    if change.get("state") == "planned" and change.get("toChange"):
        typer.echo(f"nothing is changed yet; carry it out with: patchwave fleet mode-change start {name}", err=True)
    _exit(change)


@changes.command("list")
def list_changes(
    limit: LimitOption = None,
    output: OutputOption = OutputFormat.TABLE,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """List changes, newest first."""
    with open_client(url, key) as client:
        found = list(client.mode_changes(limit))
    show(output, found, lambda: changes_table(found))


@changes.command("show")
def show_change(
    name: ChangeArgument,
    end: Annotated[str, typer.Option("--end", help="Only machines that ended so, such as refused.")] = "",
    limit: LimitOption = None,
    output: OutputOption = OutputFormat.TABLE,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Show a change with its machines."""
    with open_client(url, key) as client:
        change = client.mode_change(name)
        machines = list(client.mode_change_machines(name, end, limit))
    show(output, {**change, "machineChanges": machines}, lambda: change_view(change, machines))


@changes.command("start")
def start_change(
    name: ChangeArgument,
    by: ByOption,
    reason: ReasonOption = SAID_NOTHING,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
    output: OutputOption = OutputFormat.TABLE,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Carry out a change that was planned; given again, take up one whose worker was lost."""
    with open_client(url, key) as client:
        change = client.order_mode_change(name, "start", reason, by)
        change = _wait(client, name) if wait else change
    show(output, change, lambda: change_view(change))
    _exit(change)


@changes.command("stop")
def stop_change(
    name: ChangeArgument,
    by: ByOption,
    reason: ReasonOption = SAID_NOTHING,
    output: OutputOption = OutputFormat.TABLE,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Ask Azure for nothing more; what it has taken is followed to its end."""
    with open_client(url, key) as client:
        change = client.order_mode_change(name, "stop", reason, by)
    show(output, change, lambda: change_view(change))


@changes.command("audit")
def audit_change(
    name: ChangeArgument,
    limit: LimitOption = None,
    output: OutputOption = OutputFormat.TABLE,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """List who planned, started and stopped a change, oldest first."""
    with open_client(url, key) as client:
        found = list(client.mode_change_audit(name, limit))
    show(output, found, lambda: audit_table(found))


def _wait(client: ApiClient, name: str) -> Json:
    while True:
        change = client.mode_change(name)
        if change.get("endedAt"):
            return change
        time.sleep(_LOOK_SECONDS)


def _exit(change: Json) -> None:
    """Tell a script whether machines need a person."""
    ends = counts(change, "countsByEnd")
    if any(ends.get(end) for end in _NEEDS_PERSON):
        raise typer.Exit(ExitCode.NEEDS_PERSON)


def _query(
    subscription: list[str] | None,
    group: list[str] | None,
    location: list[str] | None,
    system: list[str] | None,
    machine: list[str] | None,
    limit: int | None,
) -> dict[str, str]:
    found = _listed(subscription=subscription, resourceGroup=group, location=location, osType=system, machine=machine)
    return found | ({"limit": str(limit)} if limit else {})


def _listed(**lists: list[str] | None) -> dict[str, str]:
    return {name: ",".join(values) for name, values in lists.items() if values}
