"""The records and the stored policy of the tests of triggers."""

from __future__ import annotations

from tests.storage import azurite
from tests.triggers.conftest import monthly, records

__all__ = ["azurite", "monthly", "records"]
