"""``patchwave schedule``, ``patchwave freeze``, and the orders of ``patchwave policy``: the calendar of a service.

Every order says why, since whoever wonders later why nothing ran reads it in ``schedule show`` and in the audit log.
"""

from __future__ import annotations

from typing import Annotated

import typer

from patchwave.cli.errors import RefusedError
from patchwave.cli.json_fields import Json
from patchwave.cli.output import (
    DEFAULT_URL,
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
from patchwave.cli.policies.commands import NameArgument, policies
from patchwave.cli.policies.views import freezes_table, occurrences_view, orders_line
from patchwave.cli.rendering import audit_table
from patchwave.cli.runs.views import run_facts

schedules = typer.Typer(name="schedule", no_args_is_help=True, help="See what will happen next, and why not.")
freezes = typer.Typer(name="freeze", no_args_is_help=True, help="Keep and see times in which nothing is patched.")

FreezeArgument = Annotated[str, typer.Argument(metavar="FREEZE", help="Name of the freeze.")]


@schedules.command("show")
def show_schedule(
    name: NameArgument,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=100, help="How many occurrences.")] = 12,
    output: OutputOption = OutputFormat.TABLE,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """List what a policy will do next, and why an occurrence will not run."""
    with open_client(url, key) as client:
        found = client.occurrences(name, count)
    show(output, found, lambda: occurrences_view(found))


@policies.command("pause")
def pause(
    name: NameArgument,
    reason: ReasonOption,
    by: ByOption,
    output: OutputOption = OutputFormat.TABLE,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Start nothing by the schedule until the policy is resumed; runs that are under way go on."""
    with open_client(url, key) as client:
        found = client.order(name, "pause", reason, by)
    show(output, found, lambda: orders_line(found))


@policies.command("resume")
def resume(
    name: NameArgument,
    reason: ReasonOption,
    by: ByOption,
    output: OutputOption = OutputFormat.TABLE,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """End a pause; an occurrence whose window is still open starts within minutes."""
    with open_client(url, key) as client:
        found = client.order(name, "resume", reason, by)
    show(output, found, lambda: orders_line(found))


@policies.command("skip-next")
def skip_next(
    name: NameArgument,
    reason: ReasonOption,
    by: ByOption,
    undo: Annotated[bool, typer.Option("--undo", help="Take it back.")] = False,
    output: OutputOption = OutputFormat.TABLE,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Leave out the next occurrence; giving the order twice leaves out one."""
    with open_client(url, key) as client:
        found = client.unskip_next(name, reason, by) if undo else client.order(name, "skip-next", reason, by)
    show(output, found, lambda: orders_line(found))


@policies.command("run-now")
def run_now(
    name: NameArgument,
    reason: ReasonOption,
    by: ByOption,
    output: OutputOption = OutputFormat.TABLE,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Run the policy now, in a window as long as its schedule's; while that run lasts, the order means that run."""
    with open_client(url, key) as client:
        found = client.run(client.order(name, "run-now", reason, by)["id"])
    show(output, found, lambda: run_facts(found))


@policies.command("audit")
def audit_policy(
    name: NameArgument,
    limit: LimitOption = None,
    output: OutputOption = OutputFormat.TABLE,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """List who changed and ordered what about a policy, and why it was not started, oldest first."""
    with open_client(url, key) as client:
        found = list(client.policy_audit(name, limit))
    show(output, found, lambda: audit_table(found))


@freezes.command("list")
def list_freezes(output: OutputOption = OutputFormat.TABLE, url: UrlOption = DEFAULT_URL, key: KeyOption = "") -> None:
    """List the freezes, past and coming."""
    with open_client(url, key) as client:
        found = client.freezes()
    show(output, found, lambda: freezes_table(found))


@freezes.command("put")
def put_freeze(
    name: FreezeArgument,
    start: Annotated[str, typer.Option("--from", help="First frozen day, or a time such as 2026-12-20T18:00:00Z.")],
    end: Annotated[str, typer.Option("--to", help="Last frozen day, or the time at which it ends.")],
    reason: ReasonOption,
    by: ByOption,
    zone: Annotated[str, typer.Option("--zone", help="Time zone of days, such as Europe/Berlin.")] = "",
    policy: Annotated[
        list[str] | None, typer.Option("--policy", help="Only this policy; repeatable. All of them by default.")
    ] = None,
    tag: Annotated[
        list[str] | None,
        typer.Option("--tag", metavar="NAME=VALUE", help="Only machines with this tag; repeatable."),
    ] = None,
    match_any: Annotated[bool, typer.Option("--any", help="One of the tags is enough; otherwise all count.")] = False,
    output: OutputOption = OutputFormat.TABLE,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Create or replace a freeze. It counts from the next start of a machine on, also in runs that are under way."""
    document: Json = {"from": start, "to": end, "reason": reason, "timeZone": zone, "policies": policy or []}
    if tag:
        document["tags"] = {"match": "any" if match_any else "all", "values": tag_values(tag)}
    with open_client(url, key) as client:
        stored, is_new = client.put_freeze(name, document, by)
    show(output, stored, lambda: f"freeze {name} {'created' if is_new else 'stored'}")


@freezes.command("delete")
def delete_freeze(
    name: FreezeArgument, reason: ReasonOption, by: ByOption, url: UrlOption = DEFAULT_URL, key: KeyOption = ""
) -> None:
    """Delete a freeze; machines that it kept out of a run stay out of that run."""
    with open_client(url, key) as client:
        client.delete_freeze(name, reason, by)
    typer.echo(f"freeze {name} deleted")


@freezes.command("audit")
def audit_freeze(
    name: FreezeArgument,
    limit: LimitOption = None,
    output: OutputOption = OutputFormat.TABLE,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """List who changed a freeze and why, oldest first."""
    with open_client(url, key) as client:
        found = list(client.freeze_audit(name, limit))
    show(output, found, lambda: audit_table(found))


def tag_values(options: list[str]) -> dict[str, list[str]]:
    """Values by tag name; a name that is given twice has two values that count."""
    values: dict[str, list[str]] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name:
            raise RefusedError(f"--tag {option!r} is not of the form NAME=VALUE")
        values.setdefault(name, []).append(value)
    return values
