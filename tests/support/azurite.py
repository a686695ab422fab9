"""A real Azurite for tests of the records and of what stands on them; import the fixture into a ``conftest.py``."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from local.azurite import Azurite


@pytest.fixture(scope="session")
def azurite(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The connection string of a storage: an empty one, or the one that the environment names for many sessions."""
    if shared := os.environ.get("PATCHWAVE_TEST_STORAGE"):
        yield shared
        return
    folder = tmp_path_factory.mktemp("azurite")
    with Azurite(folder / "data", log_directory=folder, environment=os.environ, keep=False) as storage:
        yield storage.connection_string


__all__ = ["azurite"]
