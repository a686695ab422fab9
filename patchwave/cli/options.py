"""Options that several commands share, and what is made of them."""

from __future__ import annotations

import getpass
import sys
from pathlib import Path
from typing import Annotated

import typer

from patchwave.cli.errors import RefusedError
from patchwave.cli.json_fields import Json

NO_REASON = "requested on the command line"
"""The reason in the audit log of a command that was given none and needs none."""


def _login_name() -> str:
    try:
        return getpass.getuser()
    except OSError:
        # No user is logged in: a container, a pipeline.
        return ""


LimitOption = Annotated[int | None, typer.Option("--limit", min=1, help="At most so many; all by default.")]
ReasonOption = Annotated[str, typer.Option("--reason", "-r", help="Why, for people and the audit log.")]
ActorOption = Annotated[
    str,
    typer.Option(
        "--actor",
        default_factory=_login_name,
        show_default="your login name",
        help="Who asks, where the service does not know it.",
    ),
]
OverridesOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="PATH=VALUE", help="Change a value of the policy; repeatable.")
]
TagOption = Annotated[
    list[str] | None, typer.Option("--tag", metavar="NAME=VALUE", help="Only machines with this tag; repeatable.")
]
MatchAnyOption = Annotated[bool, typer.Option("--any", help="One of the tags is enough; otherwise all count.")]
ConfigurationArgument = Annotated[
    str, typer.Argument(metavar="CONFIGURATION", help="ARM id of the configuration, or SUBSCRIPTION/GROUP/NAME.")
]


def read_input(file: Path) -> str | None:
    """Standard input where it stands for the file."""
    return sys.stdin.read() if str(file) == "-" else None


def given(**values: object) -> Json:
    """The values that are not empty."""
    return {name: value for name, value in values.items() if value}


def tag_values(options: list[str]) -> dict[str, list[str]]:
    """Values by tag name; a name that is given twice has two values that count."""
    values: dict[str, list[str]] = {}
    for option in options:
        name, equals, value = option.partition("=")
        if not equals or not name:
            raise RefusedError(f"--tag {option!r} is not of the form NAME=VALUE")
        values.setdefault(name, []).append(value)
    return values


def configuration_id(name: str) -> str:
    """The ARM id of a maintenance configuration, which people may write as ``SUBSCRIPTION/GROUP/NAME``.

    Raises:
        RefusedError: it is written in neither way.
    """
    parts = name.strip("/").split("/")
    if len(parts) == 8:
        return f"/{name.strip('/')}"
    if len(parts) != 3:
        raise RefusedError(f"{name!r} is no maintenance configuration: write its ARM id, or SUBSCRIPTION/GROUP/NAME")
    subscription, group, last = parts
    return (
        f"/subscriptions/{subscription}/resourceGroups/{group}"
        f"/providers/Microsoft.Maintenance/maintenanceConfigurations/{last}"
    )


def configuration_path(name: str) -> tuple[str, ...]:
    """Where a maintenance configuration is in the API."""
    parts = configuration_id(name).split("/")
    return ("maintenance", "configurations", parts[2], parts[4], parts[8])
