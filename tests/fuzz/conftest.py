"""The records and the stored policy of the tests of the API."""

from __future__ import annotations

from tests.integration.conftest import monthly, no_identity, storage
from tests.support.azurite import azurite

__all__ = ["azurite", "monthly", "no_identity", "storage"]
