"""Activities on a real Azurite, with tables of their own for every test."""

from __future__ import annotations

from tests.integration.conftest import records
from tests.storage import azurite
from tests.support.simulator import simulator

__all__ = ["azurite", "records", "simulator"]
