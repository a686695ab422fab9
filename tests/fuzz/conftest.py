"""The records and the stored policy of the tests of triggers."""

from __future__ import annotations

from tests.storage import azurite
from tests.triggers.conftest import monthly, no_identity, records

__all__ = ["azurite", "monthly", "no_identity", "records"]
