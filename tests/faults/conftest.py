"""For faults that can only be made below the whole product: activities and triggers, with Azurite and the simulator."""

from __future__ import annotations

from tests.activities.azure import azure
from tests.simulator.conftest import simulator
from tests.storage import azurite
from tests.triggers.conftest import engine, records

__all__ = ["azure", "azurite", "engine", "records", "simulator"]
