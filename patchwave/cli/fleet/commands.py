"""``patchwave fleet``: what machines are set to, what patches them, and changing that.

``set-mode`` plans first, shows what it would do, and carries it out when it is told so: by ``--yes``, by an answer at a
terminal, or later by ``mode-change start``.
"""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Annotated

import typer

from patchwave.cli.errors import ExitCode
from patchwave.cli.fleet.views import change_view, changes_table, eligibility_view, modes_view
from patchwave.cli.json_fields import Json, counts
from patchwave.cli.output import NO_REASON, ActorOption, LimitOption, ReasonOption
from patchwave.cli.policies.schedule_commands import tag_values
from patchwave.cli.rendering import audit_table
from patchwave.cli.service import Service, command

if TYPE_CHECKING:
    from patchwave.cli.client import ApiClient

fleet = typer.Typer(name="fleet", no_args_is_help=True, help="See and change what patches the machines of a fleet.")
changes = typer.Typer(name="mode-change", no_args_is_help=True, help="Follow and control changes of patch modes.")
fleet.add_typer(changes)

SubscriptionOption = Annotated[list[str] | None, typer.Option("--subscription", help="Only of these; repeatable.")]
GroupOption = Annotated[list[str] | None, typer.Option("--resource-group", "-g", help="Only of these; repeatable.")]
LocationOption = Annotated[list[str] | None, typer.Option("--location", help="Only of these regions; repeatable.")]
SystemOption = Annotated[list[str] | None, typer.Option("--os", help="Windows or Linux.")]
MachineOption = Annotated[list[str] | None, typer.Option("--machine", help="ARM id of a machine; repeatable.")]
ChangeArgument = Annotated[str, typer.Argument(metavar="CHANGE", help="Id of the change.")]
_POLL_SECONDS = 2.0
_NEEDS_PERSON = ("refused", "failed", "unknown")


@command(fleet, "modes")
def show_modes(
    service: Service,
    subscription: SubscriptionOption = None,
    group: GroupOption = None,
    location: LocationOption = None,
    system: SystemOption = None,
    machine: MachineOption = None,
    patched_by: Annotated[
        list[str] | None,
        typer.Option("--patched-by", help="schedule, platform, operating_system, policy, none or unknown; repeatable."),
    ] = None,
    limit: LimitOption = None,
) -> None:
    """List what each machine is set to, what will patch it and when, and whether nothing will."""
    asked = _query(subscription, group, location, system, machine, limit) | _listed(patchedBy=patched_by)
    found = service.client.fleet_modes(asked)
    service.show(found, modes_view)


@command(fleet, "eligibility")
def show_eligibility(
    service: Service,
    subscription: SubscriptionOption = None,
    group: GroupOption = None,
    location: LocationOption = None,
    system: SystemOption = None,
    machine: MachineOption = None,
    limit: LimitOption = None,
) -> None:
    """List the machines that Azure's guest patching does not take, and why not."""
    found = service.client.fleet_eligibility(_query(subscription, group, location, system, machine, limit))
    service.show(found, eligibility_view)


@command(fleet, "set-mode")
def set_mode(
    service: Service,
    actor: ActorOption,
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
    reason: ReasonOption = NO_REASON,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Carry it out without asking.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended.")] = True,
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
    limits: Json = {"maxConcurrent": max_concurrent, "maxFailures": max_failures, "reason": reason, "actor": actor}
    change = service.client.plan_mode_change({"scope": scope, **settings, **limits})
    name = str(change.get("id", ""))
    is_asked = not (service.prints_json or yes) and bool(change.get("toChange")) and sys.stdin.isatty()
    if is_asked:
        service.show(change, lambda _: change_view(change, service.client.mode_change_machines(name)))
    if change.get("toChange") and (yes or (is_asked and typer.confirm("Carry it out?"))):
        change = service.client.send_mode_change_command(name, "start", reason, actor)
        change = _wait(service.client, name) if wait else change
    shown = [] if service.prints_json else list(service.client.mode_change_machines(name))
    service.show(change, lambda _: change_view(change, shown))
    if change.get("state") == "planned" and change.get("toChange"):
        typer.echo(f"nothing is changed yet; carry it out with: patchwave fleet mode-change start {name}", err=True)
    _exit(change)


@command(changes, "list")
def list_changes(service: Service, limit: LimitOption = None) -> None:
    """List changes, newest first."""
    found = list(service.client.mode_changes(limit))
    service.show(found, changes_table)


@command(changes, "show")
def show_change(
    service: Service,
    name: ChangeArgument,
    end: Annotated[str, typer.Option("--end", help="Only machines that ended so, such as refused.")] = "",
    limit: LimitOption = None,
) -> None:
    """Show a change with its machines."""
    change = service.client.mode_change(name)
    machines = list(service.client.mode_change_machines(name, end, limit))
    service.show({**change, "machineChanges": machines}, lambda _: change_view(change, machines))


@command(changes, "start")
def start_change(
    service: Service,
    name: ChangeArgument,
    actor: ActorOption,
    reason: ReasonOption = NO_REASON,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
) -> None:
    """Carry out a change that was planned; a repeated call resumes one whose worker was lost."""
    change = service.client.send_mode_change_command(name, "start", reason, actor)
    change = _wait(service.client, name) if wait else change
    service.show(change, change_view)
    _exit(change)


@command(changes, "stop")
def stop_change(service: Service, name: ChangeArgument, actor: ActorOption, reason: ReasonOption = NO_REASON) -> None:
    """Ask Azure for nothing more; what it has taken is followed to its end."""
    change = service.client.send_mode_change_command(name, "stop", reason, actor)
    service.show(change, change_view)


@command(changes, "audit")
def audit_change(service: Service, name: ChangeArgument, limit: LimitOption = None) -> None:
    """List who planned, started and stopped a change, oldest first."""
    found = list(service.client.mode_change_audit(name, limit))
    service.show(found, audit_table)


def _wait(client: ApiClient, name: str) -> Json:
    while True:
        change = client.mode_change(name)
        if change.get("endedAt"):
            return change
        time.sleep(_POLL_SECONDS)


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
