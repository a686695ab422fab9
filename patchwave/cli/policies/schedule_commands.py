"""``patchwave schedule``, ``patchwave freeze``, and the calendar commands of ``patchwave policy``.

Every command has a reason, which explains later why nothing ran, in ``schedule show`` and in the audit log.
"""

from __future__ import annotations

from typing import Annotated

import typer

from patchwave.cli.errors import RefusedError
from patchwave.cli.json_fields import Json
from patchwave.cli.output import ActorOption, LimitOption, ReasonOption
from patchwave.cli.policies.commands import NameArgument, policies
from patchwave.cli.policies.views import freezes_table, occurrences_view, orders_line
from patchwave.cli.rendering import audit_table
from patchwave.cli.runs.views import run_facts
from patchwave.cli.service import Service, command

schedules = typer.Typer(name="schedule", no_args_is_help=True, help="See what will happen next, and why not.")
freezes = typer.Typer(name="freeze", no_args_is_help=True, help="Keep and see times in which nothing is patched.")

FreezeArgument = Annotated[str, typer.Argument(metavar="FREEZE", help="Name of the freeze.")]


@command(schedules, "show")
def show_schedule(
    service: Service,
    name: NameArgument,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=100, help="How many occurrences.")] = 12,
) -> None:
    """List what a policy will do next, and why an occurrence will not run."""
    found = service.client.occurrences(name, count)
    service.show(found, occurrences_view)


@command(policies, "pause")
def pause(service: Service, name: NameArgument, reason: ReasonOption, actor: ActorOption) -> None:
    """Start nothing by the schedule until the policy is resumed; runs in progress go on."""
    found = service.client.send_policy_command(name, "pause", reason, actor)
    service.show(found, orders_line)


@command(policies, "resume")
def resume(service: Service, name: NameArgument, reason: ReasonOption, actor: ActorOption) -> None:
    """End a pause; an occurrence whose window is still open starts within minutes."""
    found = service.client.send_policy_command(name, "resume", reason, actor)
    service.show(found, orders_line)


@command(policies, "skip-next")
def skip_next(
    service: Service,
    name: NameArgument,
    reason: ReasonOption,
    actor: ActorOption,
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
) -> None:
    """Leave out the next occurrence; the same command twice leaves out one."""
    found = (
        service.client.unskip_next(name, reason, actor)
        if undo
        else service.client.send_policy_command(name, "skip-next", reason, actor)
    )
    service.show(found, orders_line)


@command(policies, "run-now")
def run_now(service: Service, name: NameArgument, reason: ReasonOption, actor: ActorOption) -> None:
    """Run the policy now, in a window as long as its schedule's; while that run lasts, the command means it."""
    found = service.client.run(service.client.send_policy_command(name, "run-now", reason, actor)["id"])
    service.show(found, run_facts)


@command(policies, "audit")
def audit_policy(service: Service, name: NameArgument, limit: LimitOption = None) -> None:
    """List who changed and ordered what about a policy, and why it was not started, oldest first."""
    found = list(service.client.policy_audit(name, limit))
    service.show(found, audit_table)


@command(freezes, "list")
def list_freezes(
    service: Service,
) -> None:
    """List the freezes, past and coming."""
    found = service.client.freezes()
    service.show(found, freezes_table)


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
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="NAME=VALUE", help="Only machines with this tag; repeatable."),
    ] = None,
    match_any: Annotated[bool, typer.Option("--any", help="One of the tags is enough; otherwise all count.")] = False,
) -> None:
    """Create or replace a freeze. It counts from the next start of a machine on, also in runs in progress."""
    document: Json = {"from": start, "to": end, "reason": reason, "timeZone": zone, "policies": policy or []}
    if tag:
        document["tags"] = {"match": "any" if match_any else "all", "values": tag_values(tag)}
    stored, is_new = service.client.put_freeze(name, document, actor)
    service.show(stored, lambda _: f"freeze {name} {'created' if is_new else 'stored'}")


@command(freezes, "delete", has_output=False)
def delete_freeze(service: Service, name: FreezeArgument, reason: ReasonOption, actor: ActorOption) -> None:
    """Delete a freeze; machines that it kept out of a run stay out of that run."""
    service.client.delete_freeze(name, reason, actor)
    typer.echo(f"freeze {name} deleted")


@command(freezes, "audit")
def audit_freeze(service: Service, name: FreezeArgument, limit: LimitOption = None) -> None:
    """List who changed a freeze and why, oldest first."""
    found = list(service.client.freeze_audit(name, limit))
    service.show(found, audit_table)


def tag_values(options: list[str]) -> dict[str, list[str]]:
    """Values by tag name; a name that is given twice has two values that count."""
    values: dict[str, list[str]] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name:
            raise RefusedError(f"--tag {option!r} is not of the form NAME=VALUE")
        values.setdefault(name, []).append(value)
    return values
