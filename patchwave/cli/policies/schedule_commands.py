"""``patchwave schedule``, ``patchwave freeze``, and the calendar commands of ``patchwave policy``.

Every command has a reason, which explains later why nothing ran, in ``schedule show`` and in the audit log.
"""

from __future__ import annotations

from typing import Annotated

import typer

from patchwave.cli.json_fields import Json, items
from patchwave.cli.options import ActorOption, LimitOption, MatchAnyOption, ReasonOption, TagOption, tag_values
from patchwave.cli.policies.commands import NameArgument, policies
from patchwave.cli.policies.views import freezes_table, occurrences_view, overrides_line
from patchwave.cli.rendering import audit_table
from patchwave.cli.runs.views import run_facts
from patchwave.cli.service import Service, command

schedules = typer.Typer(name="schedule", no_args_is_help=True)
freezes = typer.Typer(name="freeze", no_args_is_help=True)

FreezeArgument = Annotated[str, typer.Argument(metavar="FREEZE", help="Name of the freeze.")]


@command(schedules, "show")
def show_schedule(
    service: Service,
    name: NameArgument,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=100, help="How many occurrences.")] = 12,
) -> None:
    """List what a policy will do next, and why an occurrence will not run."""
    service.show(service.client.get("policies", name, "occurrences", count=str(count)), occurrences_view)


@command(policies, "pause")
def pause(service: Service, name: NameArgument, reason: ReasonOption, actor: ActorOption) -> None:
    """Start nothing by the schedule until the policy is resumed; runs in progress go on."""
    service.show(_send(service, name, "pause", reason, actor), overrides_line)


@command(policies, "resume")
def resume(service: Service, name: NameArgument, reason: ReasonOption, actor: ActorOption) -> None:
    """End a pause; an occurrence whose window is still open starts within minutes."""
    service.show(_send(service, name, "resume", reason, actor), overrides_line)


@command(policies, "skip-next")
def skip_next(
    service: Service,
    name: NameArgument,
    reason: ReasonOption,
    actor: ActorOption,
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
) -> None:
    """Leave out the next occurrence; the same command twice leaves out one."""
    if undo:
        overrides = service.client.delete("policies", name, "skip-next", reason=reason, actor=actor)
    else:
        overrides = _send(service, name, "skip-next", reason, actor)
    service.show(overrides, overrides_line)


@command(policies, "run-now")
def run_now(service: Service, name: NameArgument, reason: ReasonOption, actor: ActorOption) -> None:
    """Run the policy now, in a window as long as its schedule's; while that run lasts, the command means it."""
    service.show(service.client.run(_send(service, name, "run-now", reason, actor)["id"]), run_facts)


@command(policies, "audit")
def audit_policy(service: Service, name: NameArgument, limit: LimitOption = None) -> None:
    """List who changed and ordered what about a policy, and why it was not started, oldest first."""
    service.show(service.client.audit("policies", name, limit=limit), audit_table)


@command(freezes, "list")
def list_freezes(service: Service) -> None:
    """List the freezes, past and coming."""
    service.show(items(service.client.get("freezes"), "freezes"), freezes_table)


@command(freezes, "put")
def put_freeze(
    service: Service,
    name: FreezeArgument,
    start: Annotated[str, typer.Option("--from", help="First frozen day, or a time such as 2026-12-20T18:00:00Z.")],
    end: Annotated[str, typer.Option("--to", help="Last frozen day, or the time at which it ends.")],
    reason: ReasonOption,
    actor: ActorOption,
    zone: Annotated[str, typer.Option("--zone", help="Time zone of days, such as Europe/Berlin.")] = "",
    policy: Annotated[
        list[str] | None, typer.Option("--policy", help="Only this policy; repeatable. All of them by default.")
    ] = None,
    tag: TagOption = None,
    match_any: MatchAnyOption = False,
) -> None:
    """Create or replace a freeze. It counts from the next start of a machine on, also in runs in progress."""
    document: Json = {"from": start, "to": end, "reason": reason, "timeZone": zone, "policies": policy or []}
    if tag:
        document["tags"] = {"match": "any" if match_any else "all", "values": tag_values(tag)}
    stored, is_new = service.client.put("freezes", name, json=document, actor=actor)
    service.show(stored, lambda _: f"freeze {name} {'created' if is_new else 'stored'}")


@command(freezes, "delete", has_output=False)
def delete_freeze(service: Service, name: FreezeArgument, reason: ReasonOption, actor: ActorOption) -> None:
    """Delete a freeze; machines that it kept out of a run stay out of that run."""
    service.client.delete("freezes", name, reason=reason, actor=actor)
    typer.echo(f"freeze {name} deleted")


@command(freezes, "audit")
def audit_freeze(service: Service, name: FreezeArgument, limit: LimitOption = None) -> None:
    """List who changed a freeze and why, oldest first."""
    service.show(service.client.audit("freezes", name, limit=limit), audit_table)


def _send(service: Service, name: str, command: str, reason: str, actor: str) -> Json:
    """Send a policy a command; its overrides, or the run, afterwards."""
    return service.client.post("policies", name, command, json={"reason": reason, "actor": actor})
