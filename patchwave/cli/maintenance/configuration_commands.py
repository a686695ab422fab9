"""``patchwave maintenance configuration``: the schedules of Update Manager, and the cancelling of one coming run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Group

from patchwave.cli.json_fields import Json, part
from patchwave.cli.maintenance.views import canceled_line, configuration_view, configurations_table, runs_view
from patchwave.cli.output import NO_REASON, ActorOption, LimitOption, ReasonOption, plain
from patchwave.cli.policies.schedule_commands import tag_values
from patchwave.cli.policy_files import merge_patch, read_object
from patchwave.cli.rendering import audit_table
from patchwave.cli.service import Service, command

maintenance = typer.Typer(
    name="maintenance", no_args_is_help=True, help="Keep the schedules of Azure Update Manager, and who has them."
)
configurations = typer.Typer(name="configuration", no_args_is_help=True, help="Keep maintenance configurations.")
maintenance.add_typer(configurations)

ConfigurationArgument = Annotated[
    str,
    typer.Argument(metavar="CONFIGURATION", help="ARM id of the configuration, or SUBSCRIPTION/GROUP/NAME."),
]

LocationOption = Annotated[str, typer.Option("--location", help="Region of the schedule, such as westeurope.")]
StartOption = Annotated[
    str, typer.Option("--start", help="First possible start, 'YYYY-MM-DD hh:mm' by the clock of the zone.")
]
ZoneOption = Annotated[str, typer.Option("--time-zone", help="Windows name, such as 'W. Europe Standard Time'.")]
EveryOption = Annotated[
    str, typer.Option("--recur-every", help="Day, 3Days, 'Week Saturday,Sunday', 'Month Second Tuesday Offset4'.")
]
DurationOption = Annotated[str, typer.Option("--duration", help="Length of the window, 01:30 to 03:55.")]
ExpirationOption = Annotated[str, typer.Option("--expiration", help="No run starts after it, 'YYYY-MM-DD hh:mm'.")]
VisibilityOption = Annotated[str, typer.Option("--visibility", help="Custom or Public.")]
NamespaceOption = Annotated[str, typer.Option("--namespace", help="Namespace of the resource.")]
RebootOption = Annotated[str, typer.Option("--reboot-setting", help="IfRequired, Never or Always.")]
WindowsOption = Annotated[
    list[str] | None, typer.Option("--windows", metavar="CLASSIFICATION", help="Installed on Windows; repeatable.")
]
LinuxOption = Annotated[
    list[str] | None, typer.Option("--linux", metavar="CLASSIFICATION", help="Installed on Linux; repeatable.")
]
IncludeKbOption = Annotated[
    list[str] | None, typer.Option("--include-kb", metavar="KB", help="Installed in any case; repeatable.")
]
ExcludeKbOption = Annotated[
    list[str] | None, typer.Option("--exclude-kb", metavar="KB", help="Never installed; repeatable.")
]
NoRebootsOption = Annotated[
    bool, typer.Option("--exclude-kbs-requiring-reboot", help="Leave out updates of Windows that need a restart.")
]
IncludePackageOption = Annotated[
    list[str] | None, typer.Option("--include-package", metavar="MASK", help="Installed in any case; repeatable.")
]
ExcludePackageOption = Annotated[
    list[str] | None, typer.Option("--exclude-package", metavar="MASK", help="Never installed; repeatable.")
]
TagOption = Annotated[
    list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="Tag of the resource; repeatable.")
]


@command(configurations, "list")
def list_configurations(
    service: Service,
    subscription: Annotated[str, typer.Option("--subscription", help="Only of this one, as they are now.")] = "",
    group: Annotated[str, typer.Option("--resource-group", "-g", help="Only of this group of it.")] = "",
) -> None:
    """List the configurations that patch inside machines, each with its next run."""
    found = list(service.client.configurations(subscription, group))
    service.show(found, configurations_table)


@command(configurations, "show")
def show_configuration(service: Service, name: ConfigurationArgument) -> None:
    """Show a configuration, and when it runs next."""
    found = service.client.configuration(name)
    service.show(found, configuration_view)


@command(configurations, "apply")
def apply(
    service: Service,
    name: ConfigurationArgument,
    file: Annotated[Path, typer.Option("--file", "-f", help="Azure's own body (JSON or YAML; - is standard input).")],
    actor: ActorOption,
) -> None:
    """Create a configuration from a file, or replace the one that is there; the output says which."""
    given = sys.stdin.read() if str(file) == "-" else None
    document = read_object(file, given, "a maintenance configuration: an object with location and properties")
    _store(service, name, document, actor, only_create=False)


@command(configurations, "create")
def create(
    service: Service,
    name: ConfigurationArgument,
    location: LocationOption,
    start: StartOption,
    time_zone: ZoneOption,
    recur_every: EveryOption,
    actor: ActorOption,
    duration: DurationOption = "03:55",
    expiration: ExpirationOption = "",
    visibility: VisibilityOption = "Custom",
    namespace: NamespaceOption = "",
    reboot: RebootOption = "IfRequired",
    windows: WindowsOption = None,
    linux: LinuxOption = None,
    include_kb: IncludeKbOption = None,
    exclude_kb: ExcludeKbOption = None,
    no_reboots: NoRebootsOption = False,
    include_package: IncludePackageOption = None,
    exclude_package: ExcludePackageOption = None,
    tag: TagOption = None,
) -> None:
    """Create a configuration from options; one that is there is never replaced (`apply` does that)."""
    window = _given(
        startDateTime=start,
        expirationDateTime=expiration,
        duration=duration,
        timeZone=time_zone,
        recurEvery=recur_every,
    )
    windows_parameters = _given(
        classificationsToInclude=windows,
        kbNumbersToInclude=include_kb,
        kbNumbersToExclude=exclude_kb,
        excludeKbsRequiringReboot=no_reboots,
    )
    linux_parameters = _given(
        classificationsToInclude=linux,
        packageNameMasksToInclude=include_package,
        packageNameMasksToExclude=exclude_package,
    )
    document: Json = {
        "location": location,
        "tags": {name: values[-1] for name, values in tag_values(tag or []).items()},
        "properties": _given(
            namespace=namespace,
            maintenanceScope="InGuestPatch",
            extensionProperties={"InGuestPatchMode": "User"},
            visibility=visibility,
            maintenanceWindow=window,
            installPatches=_given(
                rebootSetting=reboot, windowsParameters=windows_parameters, linuxParameters=linux_parameters
            ),
        ),
    }
    _store(service, name, document, actor, only_create=True)


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
    found = service.client.change_configuration(name, merge_patch(changes), actor)
    service.show(found, configuration_view)


@command(configurations, "delete", has_output=False)
def delete(service: Service, name: ConfigurationArgument, actor: ActorOption, reason: ReasonOption = NO_REASON) -> None:
    """Delete a configuration; its machines are not patched by schedule any more."""
    service.client.delete_configuration(name, reason, actor)
    typer.echo(f"configuration {name} deleted")


@command(configurations, "runs")
def runs(
    service: Service,
    name: ConfigurationArgument,
    count: Annotated[int, typer.Option("--count", "-n", min=1, max=100, help="How many.")] = 12,
) -> None:
    """List the coming runs of a configuration, until when each can be cancelled, and which are."""
    found = service.client.coming_runs(name, count)
    service.show(found, runs_view)


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
    found = service.client.cancel_scheduled_run(name, run, reason, actor)
    service.show(found, lambda _: canceled_line(name, found))


@command(configurations, "audit")
def audit(service: Service, name: ConfigurationArgument, limit: LimitOption = None) -> None:
    """List who changed a configuration and its assignments through this service, and why, oldest first."""
    found = list(service.client.configuration_audit(name, limit))
    service.show(found, audit_table)


def _store(service: Service, name: str, document: Json, actor: str, *, only_create: bool) -> None:
    found, is_new = service.client.put_configuration(name, document, actor, only_create=only_create)
    stored = f"configuration {plain(part(found, 'configuration').get('name', name))}"
    service.show(found, lambda _: Group(f"{stored} {'created' if is_new else 'replaced'}", configuration_view(found)))


def _given(**values: Any) -> Json:
    return {name: value for name, value in values.items() if value}
