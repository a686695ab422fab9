"""``patchwave policy import`` and ``export``: schedules of Update Manager as policies, and policies as schedules."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from patchwave.cli.errors import Detail, ExitCode, RefusedError
from patchwave.cli.json_fields import Json, items, part
from patchwave.cli.options import ActorOption, configuration_id, configuration_path, given
from patchwave.cli.output import open_console, plain, print_json
from patchwave.cli.policies.commands import policies
from patchwave.cli.policy_files import policy_text
from patchwave.cli.rendering import Cell, Listing
from patchwave.cli.service import Service, command
from patchwave.domain.core.documents import without_empty

if TYPE_CHECKING:
    from patchwave.cli.client import ApiClient

FromOption = Annotated[
    str, typer.Option("--from-configuration", metavar="ID", help="ARM id of the maintenance configuration.")
]
ToOption = Annotated[
    str, typer.Option("--as-configuration", metavar="ID", help="ARM id that the maintenance configuration is to have.")
]
LocationOption = Annotated[str, typer.Option("--location", help="Region of the configuration, such as westeurope.")]
AllowLossOption = Annotated[
    list[str] | None,
    typer.Option("--allow-loss", metavar="KEY", help="Key of the policy that may be lost, as rings; repeatable."),
]


@command(policies, "import")
def import_policy(
    service: Service,
    configuration: FromOption,
    name: Annotated[str, typer.Option("--name", help="Name of the policy; the configuration's own by default.")] = "",
    apply: Annotated[bool, typer.Option("--apply", help="Store the policies as they are shown without it.")] = False,
    enabled: Annotated[bool, typer.Option("--enabled", help="Enabled policies; disabled ones by default.")] = False,
) -> None:
    """Make policies of a maintenance configuration and its assignments, and tell what becomes of each field.

    Exit code 1 when they would not mean the same, or the service would not take them; then nothing is stored.
    """
    body = given(configurationId=configuration_id(configuration), name=name)
    moved = service.client.post("policies", "import", json=body, slow=True)
    made, problems = [policy | {"enabled": enabled} for policy in items(moved, "policies")], items(moved, "problems")
    moved |= {"policies": made}
    if apply and problems:
        details = tuple(Detail(str(each["path"]), str(each["message"])) for each in problems)
        raise RefusedError("nothing is stored: the policies would not do what the schedule does", details)
    if apply:
        _store(service.client, made)
    if service.prints_json:
        print_json(moved)
    elif apply:
        for policy in made:
            typer.echo(f"policy {policy['name']} created, {'enabled' if enabled else 'disabled'}")
    else:
        typer.echo("---\n".join(policy_text(policy) for policy in made).rstrip())
    notes = open_console(errors=True)
    notes.print(_fields(moved))
    for each in problems:
        notes.print(f"not carried: {plain(each['path'])}: {plain(each['message'])}", soft_wrap=True)
    if apply:
        notes.print(
            "The schedule still patches these machines: remove its assignments, then enable the policies.",
            soft_wrap=True,
        )
    if problems:
        raise typer.Exit(ExitCode.NEEDS_PERSON)


@command(policies, "export")
def export_policy(
    service: Service,
    name: Annotated[str, typer.Argument(metavar="POLICY", help="Name of the policy.")],
    configuration: ToOption,
    location: LocationOption,
    actor: ActorOption,
    allow_loss: AllowLossOption = None,
    apply: Annotated[bool, typer.Option("--apply", help="Create the configuration and its assignments.")] = False,
) -> None:
    """Make a maintenance configuration of a policy, or tell every reason why a schedule cannot carry it.

    Prints the body that ``patchwave maintenance configuration apply`` takes.
    """
    identity = configuration_id(configuration)
    request: Json = {"configurationId": identity, "location": location, "allowLoss": allow_loss or []}
    moved = service.client.post("policies", name, "export", json=request)
    body, assignments = _body(part(moved, "configuration")), items(moved, "assignments")
    if apply:
        path = configuration_path(configuration)
        if service.client.exists(*path):
            taken = f"nothing is changed: there is a configuration {configuration}; give another id, or delete it"
            raise RefusedError(taken)
        service.client.put(*path, json=body, only_create=True, actor=actor)
        for each in assignments:
            request = _assignment(each, all_machines=moved.get("allMachines") is True) | {"configurationId": identity}
            service.client.put("maintenance", "assignments", json=request, slow=True, actor=actor)
    if service.prints_json:
        print_json(moved)
    elif apply:
        typer.echo(f"configuration {configuration} created with {len(assignments)} assignments")
    else:
        typer.echo(policy_text(body).rstrip())
    notes = open_console(errors=True)
    notes.print(_fields(moved))
    if apply:
        notes.print(f"Both patch these machines now: disable the policy {name}.", soft_wrap=True)
    else:
        notes.print(_assignments(assignments))


def _store(client: ApiClient, made: list[Json]) -> None:
    for policy in made:
        if client.exists("policies", str(policy["name"])):
            raise RefusedError(f"nothing is stored: there is a policy {policy['name']}; give another --name")
    for policy in made:
        client.put("policies", str(policy["name"]), json=policy, only_create=True)


def _body(configuration: Json) -> Json:
    """The configuration as people write it: without what is empty, and what Azure gives."""
    return without_empty({key: configuration.get(key) for key in ("location", "tags", "properties")})


def _assignment(made: Json, *, all_machines: bool) -> Json:
    """The request that makes an assignment."""
    given = ("resourceId", "name", "location") if all_machines else ("resourceId", "name", "location", "filter")
    return {key: made[key] for key in given if made.get(key)} | ({"allMachines": True} if all_machines else {})


def _fields(moved: Json) -> RenderableType:
    columns: dict[str, Cell] = {"Field": "path", "Becomes": "becomes", "Note": "message"}
    return Listing(items(moved, "fields"), columns, prose=["Becomes", "Note"], labelled=False)


def _assignments(made: list[Json]) -> RenderableType:
    columns: dict[str, Cell] = {"Assigned to": "resourceId", "Filter": lambda each: without_empty(part(each, "filter"))}
    return Listing(made, columns, prose=["Filter"])
