"""The ``simulation`` overrides of an Arc machine."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from local.azure_simulator.compute.behavior import PatchSimulation

ConnectionStatus = Literal["Connected", "Disconnected", "Expired", "Error", "AwaitingConnection"]


class ArcSimulation(PatchSimulation):
    """Overrides of one Arc machine. Minutes are simulated minutes. An unknown key is an error."""

    status: ConnectionStatus | None = None
    """Status of the connection from when this is set; none keeps that of the fleet file, or Connected."""
    agent: Literal["ready", "old"] = "ready"
    disconnects_after_minutes: float | None = Field(default=None, ge=0)
    """The machine loses contact so many minutes after it has accepted an installation."""
    reconnects_after_minutes: float | None = Field(default=None, ge=0)
    """Contact returns so many minutes after such a loss; none: it does not."""
    operation_timeout_minutes: float = Field(default=360, gt=0)
    """How long an operation waits for a machine without contact; by default the documented six hours."""
