"""``patchwave audit``: what the audit log has that is of no run, policy or freeze."""

from __future__ import annotations

import typer

from patchwave.cli.output import (
    DEFAULT_URL,
    KeyOption,
    LimitOption,
    OutputFormat,
    OutputOption,
    UrlOption,
    open_client,
    show,
)
from patchwave.cli.rendering import audit_table

audits = typer.Typer(name="audit", no_args_is_help=True, help="See who was not let in.")


@audits.callback()
def _group() -> None:
    """Without it, the only command would take the place of the group."""


@audits.command("refused")
def list_refused_calls(
    limit: LimitOption = None,
    output: OutputOption = OutputFormat.TABLE,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """List who was refused what and why, oldest first: one line for each hour, function, caller and reason."""
    with open_client(url, key) as client:
        found = list(client.refused_calls(limit))
    show(output, found, lambda: audit_table(found))
