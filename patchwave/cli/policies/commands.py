"""``patchwave policy``: keep the policies of a service, and check policy files without one."""

from __future__ import annotations

import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from patchwave.cli.errors import Detail, RefusedError
from patchwave.cli.options import ActorOption, ReasonOption, read_input
from patchwave.cli.output import OutputFormat, OutputOption, open_console, plain, print_json, show
from patchwave.cli.policies.views import policies_table
from patchwave.cli.policy_files import policy_text, read_policy
from patchwave.cli.service import Service, command
from patchwave.domain.core.ids import check_policy_name

policies = typer.Typer(name="policy", no_args_is_help=True)

FileOption = Annotated[
    Path, typer.Option("--file", "-f", help="Policy file (YAML or JSON; - is standard input).", show_default=False)
]
NameArgument = Annotated[str, typer.Argument(metavar="POLICY", help="Name of the policy.")]


@command(policies, "apply")
def apply(service: Service, file: FileOption, actor: ActorOption, reason: ReasonOption = "") -> None:
    """Create or change the policy in a file, under the name that it holds."""
    document = read_policy(file, read_input(file))
    name = document.get("name")
    if not isinstance(name, str) or not name:
        raise RefusedError(f"{file} is no valid policy", (Detail("name", "is missing"),))
    stored, created = service.client.apply_policy(name, document, reason=reason, actor=actor)
    service.show(stored, lambda _: f"policy {name} {'created' if created else 'changed'}")


@command(policies, "list")
def list_policies(service: Service) -> None:
    """List the policies."""
    service.show(list(service.client.pages("policies", key="policies")), policies_table)


@command(policies, "show")
def show_policy(service: Service, name: NameArgument) -> None:
    """Show a policy; the table form is YAML, ready to be edited and applied again."""
    found, _ = service.client.policy(name)
    if service.prints_json:
        print_json(found)
    else:
        typer.echo(policy_text(found).rstrip())


@command(policies, "delete", has_output=False)
def delete(service: Service, name: NameArgument, actor: ActorOption, reason: ReasonOption = "") -> None:
    """Delete a policy; runs that it started go on."""
    _, etag = service.client.policy(name)
    service.client.delete("policies", name, etag=etag, reason=reason, actor=actor)
    typer.echo(f"policy {name} deleted")


@policies.command("validate")
def validate(file: FileOption, output: OutputOption = OutputFormat.TABLE) -> None:
    """Check a policy file on this machine, by the rules that hold for every service.

    Only the service judges by the app's settings: the boundary of its subscriptions, the groups of snapshots, the hosts
    of probes, and whether scripts are allowed.
    """
    from patchwave.domain.planning.canary import certain_notes
    from patchwave.domain.policy.approval_delay import delay_notes
    from patchwave.domain.policy.policy import PolicyError, parse_policy

    try:
        policy = parse_policy(read_policy(file, read_input(file)))
    except PolicyError as error:
        details = tuple(Detail(problem.path, problem.message) for problem in error.errors)
        raise RefusedError(f"{file} is no valid policy", details) from error
    errors = open_console(errors=True)
    for note in [*certain_notes(policy), *delay_notes(policy, datetime.now(UTC))]:
        errors.print(plain(f"note: {note}"), soft_wrap=True)
    show(output, policy.to_wire(), lambda _: f"{file}: policy {policy.name} is valid")


@policies.command("webhook-secret")
def webhook_secret(
    name: NameArgument,
    rotation: Annotated[
        int, typer.Option("--rotation", min=1, help="The number in PATCHWAVE_WEBHOOK_ROTATIONS; a higher one is new.")
    ] = 1,
) -> None:
    """Print the secret that senders of a policy's webhook sign with, made of the app's in PATCHWAVE_WEBHOOK_SECRET."""
    from patchwave.domain.core.webhook_signature import policy_secret
    from patchwave.settings import secret_fault

    try:
        check_policy_name(name)
    except ValueError as error:
        raise RefusedError(f"{name!r} is no name of a policy: it {error}") from error
    master = os.environ.get("PATCHWAVE_WEBHOOK_SECRET", "").strip()
    if not master:
        raise RefusedError("Put the app's own secret into the environment: PATCHWAVE_WEBHOOK_SECRET is empty.")
    if fault := secret_fault(master):
        raise RefusedError(f"The app does not take this PATCHWAVE_WEBHOOK_SECRET: it {fault}")
    typer.echo(policy_secret(master, name, rotation))
