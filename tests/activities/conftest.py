"""Activities on a real Azurite, with tables of their own for every test."""

from __future__ import annotations

from tests.integration.conftest import records
from tests.simulator.conftest import simulator
from tests.storage import azurite

__all__ = ["azurite", "records", "simulator"]
