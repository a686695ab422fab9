"""``patchwave maintenance assign`` and its likes: which machines a schedule of Update Manager is for."""

from __future__ import annotations

from typing import Annotated

import typer

from patchwave.cli.json_fields import Json
from patchwave.cli.maintenance.configuration_commands import maintenance
from patchwave.cli.maintenance.views import assigned_line, assignments_table, removed_lines
from patchwave.cli.options import (
    NO_REASON,
    ActorOption,
    ConfigurationArgument,
    MatchAnyOption,
    ReasonOption,
    TagOption,
    configuration_id,
    given,
    tag_values,
)
from patchwave.cli.output import print_json
from patchwave.cli.service import Service, command

assignments = typer.Typer(name="assignment", no_args_is_help=True, help="See and remove single assignments.")
maintenance.add_typer(assignments)

_PATH = ("maintenance", "assignments")

MachineArgument = Annotated[str, typer.Argument(metavar="MACHINE", help="ARM id of the machine.")]


@command(maintenance, "assign")
def assign(
    service: Service,
    configuration: ConfigurationArgument,
    resource: Annotated[
        str, typer.Argument(metavar="RESOURCE", help="ARM id of a machine, or of a subscription or group to look in.")
    ],
    actor: ActorOption,
    name: Annotated[str, typer.Option("--name", help="Name of the assignment; made of the configuration's.")] = "",
    assignment_location: Annotated[str, typer.Option("--assignment-location", help="Region of the assignment.")] = "",
    all_machines: Annotated[
        bool, typer.Option("--all-machines", help="Assign a whole subscription, without a filter.")
    ] = False,
    os_type: Annotated[list[str] | None, typer.Option("--os", help="Windows or Linux; repeatable.")] = None,
    location: Annotated[
        list[str] | None, typer.Option("--location", help="Only machines of this region; repeatable.")
    ] = None,
    group: Annotated[
        list[str] | None, typer.Option("--resource-group", "-g", help="Only machines of this group; repeatable.")
    ] = None,
    tag: TagOption = None,
    match_any: MatchAnyOption = False,
) -> None:
    """Assign a configuration to a machine, or to whatever machines of a subscription or group match."""
    criteria: Json = {}
    if os_type or location or group or tag:
        criteria = {"osTypes": os_type or [], "locations": location or [], "resourceGroups": group or []}
        if tag:
            criteria["tagSettings"] = {"tags": tag_values(tag), "filterOperator": "Any" if match_any else "All"}
    request: Json = {"configurationId": configuration_id(configuration), "resourceId": resource, "name": name}
    request |= {"location": assignment_location} | given(filter=criteria, allMachines=all_machines)
    assigned, _ = service.client.put(*_PATH, json=request, slow=True, actor=actor)
    service.show(assigned, assigned_line)


@command(maintenance, "unassign")
def unassign(
    service: Service,
    configuration: ConfigurationArgument,
    machine: MachineArgument,
    actor: ActorOption,
    reason: ReasonOption = NO_REASON,
) -> None:
    """Remove a machine from a configuration, under whatever names it is assigned to it."""
    asked = {"configuration": configuration_id(configuration), "machine": machine}
    _show_removed(service, service.client.delete(*_PATH, slow=True, **asked, reason=reason, actor=actor))


@command(assignments, "list")
def list_assignments(
    service: Service,
    machine: Annotated[str, typer.Option("--machine", help="What this machine is assigned to; ARM id.")] = "",
    configuration: Annotated[
        str, typer.Option("--configuration", help="What this configuration is assigned to; as for other commands.")
    ] = "",
) -> None:
    """List what a machine is assigned to, directly and by dynamic scopes; or what a configuration is assigned to."""
    identity = configuration and configuration_id(configuration)
    service.show(service.client.get(*_PATH, slow=True, machine=machine, configuration=identity), assignments_table)


@command(assignments, "delete")
def delete_assignment(
    service: Service,
    assignment: Annotated[str, typer.Argument(metavar="ASSIGNMENT", help="ARM id of the assignment.")],
    actor: ActorOption,
    reason: ReasonOption = NO_REASON,
) -> None:
    """Remove one assignment, of a machine (which may be gone) or of a dynamic scope."""
    _show_removed(service, service.client.delete(*_PATH, slow=True, assignment=assignment, reason=reason, actor=actor))


def _show_removed(service: Service, found: Json) -> None:
    if service.prints_json:
        print_json(found)
    else:
        # Ids are for the next command: a console would break them at its width.
        typer.echo(removed_lines(found))
