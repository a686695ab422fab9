"""Records on a real Azurite, with tables of their own for every test."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from patchwave.settings import Settings
from patchwave.storage import Storage
from patchwave.storage.engine.store import Store


@pytest.fixture
async def storage(azurite: str) -> AsyncIterator[Storage]:
    settings = Settings(tables_connection=SecretStr(azurite), table_prefix=f"t{uuid.uuid4().hex[:12]}")
    found = Storage(Store.open(settings))
    yield found
    await found.close()
