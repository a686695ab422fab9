"""How activities are registered: which of them wait for company."""

from __future__ import annotations

import pytest

from activities import blueprint
from patchwave.domain.core.documents import Json
from patchwave.storage.engine.batching import batching_enabled


async def _says_whether_it_waits(data: Json) -> Json:
    return {"waits": batching_enabled()}


async def test_the_steps_of_machines_wait_for_company_and_nobody_else_does() -> None:
    step = blueprint.with_batching(_says_whether_it_waits)
    assert await step({}) == {"waits": True}
    assert await _says_whether_it_waits({}) == {"waits": False}


@pytest.mark.parametrize("name", ["install_patches", "poll_operation", "record_outcome"])
def test_what_is_done_for_each_machine_is_among_them(name: str) -> None:
    of_machines = {step.__name__ for step in blueprint.OF_MACHINES}
    assert name in of_machines
