"""``patchwave maintenance configuration``: the schedules of Update Manager, and the cancelling of one coming run."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Group

from patchwave.cli.json_fields import Json, part
from patchwave.cli.maintenance.views import canceled_line, configuration_view, configurations_table, runs_view
from patchwave.cli.options import (
    NO_REASON,
    ActorOption,
    ConfigurationArgument,
    LimitOption,
    ReasonOption,
    configuration_path,
    given,
    read_input,
    tag_values,
)
from patchwave.cli.output import plain
from patchwave.cli.policy_files import merge_patch, read_object
from patchwave.cli.rendering import audit_table
from patchwave.cli.service import Service, command

maintenance = typer.Typer(name="maintenance", no_args_is_help=True)
configurations = typer.Typer(name="configuration", no_args_is_help=True, help="Keep maintenance configurations.")
maintenance.add_typer(configurations)


@dataclass(frozen=True, kw_only=True)
class ConfigurationOptions:
    """The options that a configuration is made of, and its body in Azure's words."""

    location: Annotated[str, typer.Option("--location", help="Region of the schedule, such as westeurope.")]
    start: Annotated[
        str, typer.Option("--start", help="First possible start, 'YYYY-MM-DD hh:mm' by the clock of the zone.")
    ]
    time_zone: Annotated[str, typer.Option("--time-zone", help="Windows name, such as 'W. Europe Standard Time'.")]
    recur_every: Annotated[
        str, typer.Option("--recur-every", help="Day, 3Days, 'Week Saturday,Sunday', 'Month Second Tuesday Offset4'.")
    ]
    duration: Annotated[str, typer.Option("--duration", help="Length of the window, 01:30 to 03:55.")] = "03:55"
    expiration: Annotated[str, typer.Option("--expiration", help="No run starts after it, 'YYYY-MM-DD hh:mm'.")] = ""
    visibility: Annotated[str, typer.Option("--visibility", help="Custom or Public.")] = "Custom"
    namespace: Annotated[str, typer.Option("--namespace", help="Namespace of the resource.")] = ""
    reboot: Annotated[str, typer.Option("--reboot-setting", help="IfRequired, Never or Always.")] = "IfRequired"
    windows: Annotated[
        list[str] | None, typer.Option("--windows", metavar="CLASSIFICATION", help="Installed on Windows; repeatable.")
    ] = None
    linux: Annotated[
        list[str] | None, typer.Option("--linux", metavar="CLASSIFICATION", help="Installed on Linux; repeatable.")
    ] = None
    include_kb: Annotated[
        list[str] | None, typer.Option("--include-kb", metavar="KB", help="Installed in any case; repeatable.")
    ] = None
    exclude_kb: Annotated[
        list[str] | None, typer.Option("--exclude-kb", metavar="KB", help="Never installed; repeatable.")
    ] = None
    no_reboots: Annotated[
        bool, typer.Option("--exclude-kbs-requiring-reboot", help="Leave out updates of Windows that need a restart.")
    ] = False
    include_package: Annotated[
        list[str] | None, typer.Option("--include-package", metavar="MASK", help="Installed in any case; repeatable.")
    ] = None
    exclude_package: Annotated[
        list[str] | None, typer.Option("--exclude-package", metavar="MASK", help="Never installed; repeatable.")
    ] = None
    tag: Annotated[
        list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="Tag of the resource; repeatable.")
    ] = None

    def body(self) -> Json:
        """The configuration as Azure takes it."""
        window = given(
            startDateTime=self.start,
            expirationDateTime=self.expiration,
            duration=self.duration,
            timeZone=self.time_zone,
            recurEvery=self.recur_every,
        )
        windows = given(
            classificationsToInclude=self.windows,
            kbNumbersToInclude=self.include_kb,
            kbNumbersToExclude=self.exclude_kb,
            excludeKbsRequiringReboot=self.no_reboots,
        )
        linux = given(
            classificationsToInclude=self.linux,
            packageNameMasksToInclude=self.include_package,
            packageNameMasksToExclude=self.exclude_package,
        )
        properties = given(
            namespace=self.namespace,
            maintenanceScope="InGuestPatch",
            extensionProperties={"InGuestPatchMode": "User"},
            visibility=self.visibility,
            maintenanceWindow=window,
            installPatches=given(rebootSetting=self.reboot, windowsParameters=windows, linuxParameters=linux),
        )
        tags = {name: values[-1] for name, values in tag_values(self.tag or []).items()}
        return {"location": self.location, "tags": tags, "properties": properties}


@command(configurations, "list")
def list_configurations(
    service: Service,
    subscription: Annotated[str, typer.Option("--subscription", help="Only of this one, as they are now.")] = "",
    group: Annotated[str, typer.Option("--resource-group", "-g", help="Only of this group of it.")] = "",
) -> None:
    """List the configurations that patch inside machines, each with its next run."""
    path, key = ("maintenance", "configurations"), "configurations"
    found = service.client.pages(*path, key=key, subscription=subscription, resourceGroup=group)
    service.show(list(found), configurations_table)


@command(configurations, "show")
def show_configuration(service: Service, name: ConfigurationArgument) -> None:
    """Show a configuration, and when it runs next."""
    service.show(service.client.get(*configuration_path(name)), configuration_view)


@command(configurations, "apply")
def apply(
    service: Service,
    name: ConfigurationArgument,
    file: Annotated[Path, typer.Option("--file", "-f", help="Azure's own body (JSON or YAML; - is standard input).")],
    actor: ActorOption,
) -> None:
    """Create a configuration from a file, or replace the one that is there; the output says which."""
    what = "a maintenance configuration: an object with location and properties"
    _store(service, name, read_object(file, read_input(file), what), actor, only_create=False)


@command(configurations, "create")
def create(service: Service, name: ConfigurationArgument, options: ConfigurationOptions, actor: ActorOption) -> None:
    """Create a configuration from options; one that is there is never replaced (`apply` does that)."""
    _store(service, name, options.body(), actor, only_create=True)


@command(configurations, "change")
def change(
    service: Service,
    name: ConfigurationArgument,
    changes: Annotated[
        list[str],
        typer.Option(
            "--set",
            metavar="PATH=VALUE",
            help="Such as properties.maintenanceWindow.duration=03:00; null takes away; repeatable.",
        ),
    ],
    actor: ActorOption,
) -> None:
    """Change properties of a configuration; what is not named stays."""
    service.show(
        service.client.patch(*configuration_path(name), json=merge_patch(changes), actor=actor), configuration_view
    )


@command(configurations, "delete", has_output=False)
def delete(service: Service, name: ConfigurationArgument, actor: ActorOption, reason: ReasonOption = NO_REASON) -> None:
    """Delete a configuration; its machines are not patched by schedule any more."""
    service.client.delete(*configuration_path(name), reason=reason, actor=actor)
    typer.echo(f"configuration {name} deleted")


@command(configurations, "runs")
def runs(
    service: Service,
    name: ConfigurationArgument,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=100, help="How many.")] = 12,
) -> None:
    """List the coming runs of a configuration, until when each can be cancelled, and which are."""
    service.show(service.client.get(*configuration_path(name), "runs", count=str(count)), runs_view)


@command(configurations, "cancel")
def cancel(
    service: Service,
    name: ConfigurationArgument,
    reason: ReasonOption,
    actor: ActorOption,
    run: Annotated[
        str, typer.Option("--run", help="Name of the run, of `runs` or an event; the next by default.")
    ] = "",
) -> None:
    """Cancel one coming run for all of its machines; it cannot be taken back, and later runs stay."""
    body: Json = {"reason": reason, "actor": actor}
    canceled = service.client.post(*configuration_path(name), "cancel", json=body, run=run)
    service.show(canceled, lambda _: canceled_line(name, canceled))


@command(configurations, "audit")
def audit(service: Service, name: ConfigurationArgument, limit: LimitOption = None) -> None:
    """List who changed a configuration and its assignments through this service, and why, oldest first."""
    service.show(service.client.audit(*configuration_path(name), limit=limit), audit_table)


def _store(service: Service, name: str, document: Json, actor: str, *, only_create: bool) -> None:
    found, is_new = service.client.put(*configuration_path(name), json=document, only_create=only_create, actor=actor)
    stored = f"configuration {plain(part(found, 'configuration').get('name', name))}"
    service.show(found, lambda _: Group(f"{stored} {'created' if is_new else 'replaced'}", configuration_view(found)))
