"""Activities on a real Azurite, with tables of their own for every test."""

from __future__ import annotations

from tests.simulator.conftest import simulator
from tests.storage import azurite
from tests.triggers.conftest import records

__all__ = ["azurite", "records", "simulator"]
