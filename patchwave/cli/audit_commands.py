"""``patchwave audit``: what the audit log has that is of no run, policy or freeze."""

from __future__ import annotations

import typer

from patchwave.cli.options import LimitOption
from patchwave.cli.rendering import audit_table
from patchwave.cli.service import Service, command

audits = typer.Typer(name="audit", no_args_is_help=True)


@audits.callback()
def _group() -> None:
    """Without it, the only command would take the place of the group."""


@command(audits, "refused")
def list_refused_calls(service: Service, limit: LimitOption = None) -> None:
    """List who was refused what and why, oldest first: one line for each hour, function, caller and reason."""
    service.show(list(service.client.pages("audit", "refused", key="audit", limit=limit)), audit_table)
