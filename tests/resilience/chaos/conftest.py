"""A stack whose workers can be broken, one for each test process."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.resilience.chaos.systematic import Rig


@pytest.fixture(scope="session")
def rig(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Rig]:
    with Rig.open(tmp_path_factory.mktemp("rig") / "stack") as opened:
        yield opened
