"""``patchwave fleet``: how patching stands, what machines are set to, what patches them, and changing that.

``set-mode`` plans first, shows what it would do, and carries it out after a confirmation: ``--yes``, an answer at a
terminal, or a later ``mode-change start``.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer

from patchwave.cli.errors import ExitCode, NotFoundError, RefusedError
from patchwave.cli.fleet.status_view import status_view
from patchwave.cli.fleet.views import (
    change_view,
    changes_table,
    eligibility_view,
    modes_view,
    reset_view,
    stuck_view,
)
from patchwave.cli.json_fields import Json, by_name, counts
from patchwave.cli.options import NO_REASON, ActorOption, LimitOption, ReasonOption, tag_values
from patchwave.cli.rendering import audit_table
from patchwave.cli.service import Service, command
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import is_machine_key

if TYPE_CHECKING:
    from patchwave.cli.client import ApiClient

fleet = typer.Typer(name="fleet", no_args_is_help=True)
changes = typer.Typer(name="mode-change", no_args_is_help=True, help="Follow and control changes of patch modes.")
fleet.add_typer(changes)

_PATH = ("fleet", "mode-changes")
_STUCK = ("fleet", "needs-person")
_POLL_SECONDS = 2.0
_NEEDS_PERSON = ("refused", "failed", "unknown")

ChangeArgument = Annotated[str, typer.Argument(metavar="CHANGE", help="Id of the change.")]


@dataclass(frozen=True)
class Selection:
    """The options that select machines of the fleet."""

    subscription: Annotated[list[str] | None, typer.Option("--subscription", help="Only of these; repeatable.")] = None
    group: Annotated[list[str] | None, typer.Option("--resource-group", "-g", help="Only of these; repeatable.")] = None
    location: Annotated[list[str] | None, typer.Option("--location", help="Only of these regions; repeatable.")] = None
    system: Annotated[list[str] | None, typer.Option("--os", help="Windows or Linux.")] = None
    machine: Annotated[list[str] | None, typer.Option("--machine", help="ARM id of a machine; repeatable.")] = None
    scale_set: Annotated[
        list[str] | None, typer.Option("--scale-set", help="ARM id of a scale set, for its members; repeatable.")
    ] = None

    def query(self, limit: int | None) -> dict[str, str]:
        """The selection, and how many machines at most, as a query."""
        asked = {
            "subscription": self.subscription,
            "resourceGroup": self.group,
            "location": self.location,
            "osType": self.system,
            "machine": self.machine,
            "scaleSet": self.scale_set,
        }
        return {name: ",".join(values or []) for name, values in asked.items()} | {"limit": str(limit or "")}

    def scope(self, tag: list[str] | None) -> Json:
        """The selection as the scope of a change."""
        scope: Json = {
            "subscriptions": self.subscription or [],
            "resourceGroups": self.group or [],
            "locations": self.location or [],
            "osTypes": self.system or [],
            "machineIds": self.machine or [],
            "scaleSets": self.scale_set or [],
        }
        return scope | ({"tags": {"values": tag_values(tag)}} if tag else {})


@dataclass(frozen=True)
class ModeOptions:
    """The options that say what a change sets, and how carefully."""

    mode: Annotated[str, typer.Option("--mode", help="AutomaticByPlatform, AutomaticByOS, Manual or ImageDefault.")] = (
        ""
    )
    assessment_mode: Annotated[str, typer.Option("--assessment-mode", help="AutomaticByPlatform or ImageDefault.")] = ""
    bypass: Annotated[
        bool | None,
        typer.Option(
            "--bypass/--no-bypass",
            help="Leave the machines to schedules and to Patchwave, or to Azure's automatic patching.",
            show_default=False,
        ),
    ] = None
    max_concurrent: Annotated[int, typer.Option("--max-concurrent", min=1, max=100, help="Machines at a time.")] = 20
    max_failures: Annotated[int, typer.Option("--max-failures", min=1, max=100_000, help="End after so many.")] = 10

    def request(self) -> Json:
        """The part of the request that says so."""
        settings = {"patchMode": self.mode or None, "assessmentMode": self.assessment_mode or None}
        limits = {"maxConcurrent": self.max_concurrent, "maxFailures": self.max_failures}
        return {**settings, "bypass": self.bypass, **limits}


@command(fleet, "modes")
def show_modes(
    service: Service,
    machines: Selection,
    patched_by: Annotated[
        list[str] | None,
        typer.Option("--patched-by", help="schedule, platform, operating_system, policy, none or unknown; repeatable."),
    ] = None,
    limit: LimitOption = None,
) -> None:
    """List what each machine is set to, what will patch it and when, and whether nothing will."""
    asked = machines.query(limit) | {"patchedBy": ",".join(patched_by or [])}
    service.show(service.client.get("fleet", "modes", slow=True, **asked), modes_view)


@command(fleet, "eligibility")
def show_eligibility(service: Service, machines: Selection, limit: LimitOption = None) -> None:
    """List the machines that Azure's guest patching does not take, and why not."""
    service.show(service.client.get("fleet", "eligibility", slow=True, **machines.query(limit)), eligibility_view)


@command(fleet, "status")
def show_status(
    service: Service,
    machines: Selection,
    policy: Annotated[str, typer.Option("--policy", help="Only machines that this policy will patch.")] = "",
    patched_by: Annotated[
        list[str] | None,
        typer.Option("--patched-by", help="schedule, platform, operating_system, policy, none or unknown; repeatable."),
    ] = None,
    enablement: Annotated[
        list[str] | None,
        typer.Option("--enablement", help="off, in_progress, enabled, failed, blocked or unknown; repeatable."),
    ] = None,
    reboot_pending: Annotated[
        bool | None,
        typer.Option(
            "--reboot-pending/--no-reboot-pending",
            help="Only machines with, or without, a pending reboot.",
            show_default=False,
        ),
    ] = None,
    limit: LimitOption = None,
) -> None:
    """List the last assessment and installation of each machine, and what patches it next; of one, all of it.

    With one --machine the machine itself is read, else Resource Graph, which is minutes behind.
    """
    asked = machines.query(limit) | {
        "policy": policy,
        "patchedBy": ",".join(patched_by or []),
        "enablement": ",".join(enablement or []),
        "rebootPending": "" if reboot_pending is None else str(reboot_pending).lower(),
    }
    service.show(service.client.get("fleet", "status", slow=True, **asked), status_view)


@command(fleet, "set-mode")
def set_mode(
    service: Service,
    actor: ActorOption,
    modes: ModeOptions,
    machines: Selection,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="NAME=VALUE", help="Only machines with all of these tags; repeatable."),
    ] = None,
    reason: ReasonOption = NO_REASON,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Carry it out without asking.")] = False,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has ended.")] = True,
) -> None:
    """Set patch and assessment modes: first as a dry run, which is shown, then in waves.

    Exits with 1 when a machine was refused, failed, or ended unclearly.
    """
    request = {"scope": machines.scope(tag), **modes.request(), "reason": reason, "actor": actor}
    planned = service.client.post(*_PATH, json=request, slow=True)
    if planned.get("toChange") and (yes or _is_confirmed(service, planned)):
        _end(service, _start(service.client, str(planned["id"]), reason, actor, wait=wait))
    else:
        _end(service, planned)


@command(changes, "list")
def list_changes(service: Service, limit: LimitOption = None) -> None:
    """List changes, newest first."""
    service.show(list(service.client.pages(*_PATH, key="changes", limit=limit)), changes_table)


@command(changes, "show")
def show_change(
    service: Service,
    name: ChangeArgument,
    end: Annotated[str, typer.Option("--end", help="Only machines that ended so, such as refused.")] = "",
    limit: LimitOption = None,
) -> None:
    """Show a change with its machines."""
    change = service.client.get(*_PATH, name)
    machines = list(_machines(service.client, name, end, limit))
    service.show({**change, "machineChanges": machines}, lambda _: change_view(change, machines))


@command(fleet, "needs-person")
def list_stuck(service: Service, limit: LimitOption = None) -> None:
    """List the machines that failed in too many windows in a row: later windows may leave them out."""
    machines = sorted(service.client.pages(*_STUCK, key="machines", limit=limit), key=by_name)
    service.show({"machines": machines}, stuck_view)


@command(fleet, "reset")
def reset_stuck(
    service: Service,
    machine: Annotated[str, typer.Argument(metavar="MACHINE", help="Name, ARM id or key of the machine.")],
    actor: ActorOption,
    reason: ReasonOption = NO_REASON,
) -> None:
    """Forget the windows in which a machine failed, so that the next one takes it again."""
    key = _stuck_key(service.client, machine)
    body = {"reason": reason, "actor": actor}
    service.show(service.client.post(*_STUCK, key, "reset", json=body), reset_view)


def _stuck_key(client: ApiClient, machine: str) -> str:
    """The key of a machine that needs a person, named by key, by ARM id or by its name alone."""
    if is_machine_key(machine):
        return machine
    by = "id" if machine.startswith("/") else "name"
    found = [row for row in client.pages(*_STUCK, key="machines") if fold(str(row.get(by, ""))) == fold(machine)]
    if not found:
        raise NotFoundError(f"No machine {machine} needs a person")
    if len(found) > 1:
        listed = ", ".join(str(row["id"]) for row in found)
        raise RefusedError(f"{len(found)} machines are named {machine}; give the id of one: {listed}")
    return str(found[0]["key"])


@command(changes, "start")
def start_change(
    service: Service,
    name: ChangeArgument,
    actor: ActorOption,
    reason: ReasonOption = NO_REASON,
    wait: Annotated[bool, typer.Option("--wait", help="Wait until it has ended.")] = False,
) -> None:
    """Carry out a change that was planned; a repeated call resumes one whose worker was lost."""
    change = _start(service.client, name, reason, actor, wait=wait)
    service.show(change, change_view)
    _exit(change)


@command(changes, "stop")
def stop_change(service: Service, name: ChangeArgument, actor: ActorOption, reason: ReasonOption = NO_REASON) -> None:
    """Ask Azure for nothing more; what it has taken is followed to its end."""
    service.show(service.client.post(*_PATH, name, "stop", json={"reason": reason, "actor": actor}), change_view)


@command(changes, "audit")
def audit_change(service: Service, name: ChangeArgument, limit: LimitOption = None) -> None:
    """List who planned, started and stopped a change, oldest first."""
    service.show(service.client.audit(*_PATH, name, limit=limit), audit_table)


def _machines(client: ApiClient, name: str, end: str = "", limit: int | None = None) -> Iterator[Json]:
    return client.pages(*_PATH, name, "machines", key="machines", limit=limit, end=end)


def _is_confirmed(service: Service, planned: Json) -> bool:
    """Show a planned change at a terminal, and ask whether to carry it out."""
    if service.prints_json or not sys.stdin.isatty():
        return False
    service.show(planned, lambda _: change_view(planned, _machines(service.client, str(planned["id"]))))
    return typer.confirm("Carry it out?")


def _start(client: ApiClient, name: str, reason: str, actor: str, *, wait: bool) -> Json:
    """Start a planned change, and wait until it has ended if that is asked for."""
    change = client.post(*_PATH, name, "start", json={"reason": reason, "actor": actor})
    while wait and not (change := client.get(*_PATH, name)).get("endedAt"):
        time.sleep(_POLL_SECONDS)
    return change


def _end(service: Service, change: Json) -> None:
    """Show a change with its machines, and how to carry it out where that is still to be done."""
    name = str(change.get("id", ""))
    machines = [] if service.prints_json else list(_machines(service.client, name))
    service.show(change, lambda _: change_view(change, machines))
    if change.get("state") == "planned" and change.get("toChange"):
        typer.echo(f"nothing is changed yet; carry it out with: patchwave fleet mode-change start {name}", err=True)
    _exit(change)


def _exit(change: Json) -> None:
    """Tell a script whether machines need a person."""
    ends = counts(change, "countsByEnd")
    if any(ends.get(end) for end in _NEEDS_PERSON):
        raise typer.Exit(ExitCode.NEEDS_PERSON)
