"""Event Grid: events of Azure start runs."""

from __future__ import annotations

import azure.durable_functions as df

from patchwave.services.azure_events import handle_event

bp = df.Blueprint()


# The event comes as text: the worker's own event type reads only one of the two schemas.
@bp.event_grid_trigger(arg_name="event")  # pyright: ignore[reportUnknownMemberType] - the library leaves its keywords untyped
@bp.durable_client_input(client_name="client")
async def maintenance_event(event: str, client: df.DurableFunctionsClient) -> None:
    """Start what policies ask for. The work is a run, so that the response is immediate."""
    await handle_event(event, client)
