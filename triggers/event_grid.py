"""Event Grid trigger: Azure events start runs."""

from __future__ import annotations

import azure.durable_functions as df

from patchwave.services.azure_events import handle_event
from patchwave.wiring import current_services

bp = df.Blueprint()


# As text: the worker's own event type only parses one of the two schemas.
@bp.event_grid_trigger(arg_name="event")  # pyright: ignore[reportUnknownMemberType] - the library leaves its keywords untyped
@bp.durable_client_input(client_name="client")
async def maintenance_event(event: str, client: df.DurableFunctionsClient) -> None:
    """Start the runs of policies that react to the event. Returns at once: a run does the work."""
    await handle_event(current_services(), client, event)
