"""Both engines: every defect is shown on the original and its absence on ours."""

from collections.abc import Callable, Iterator

import pytest
from durabletask.testing.in_memory_backend import InMemoryOrchestrationBackend

from local.functions_host.durable.engine import Engine
from local.functions_host.tests.rig import Rig

type MakeRig = Callable[..., Rig]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that takes ``mended`` runs on our engine (True) and on the original (False)."""
    if "mended" in metafunc.fixturenames:
        metafunc.parametrize("mended", [True, False], ids=["engine", "original"])


@pytest.fixture
def make_rig(request: pytest.FixtureRequest) -> Iterator[MakeRig]:
    """Makes a rig on the backend that ``mended`` says, or on ours."""
    mended = request.getfixturevalue("mended") if "mended" in request.fixturenames else True
    made: list[InMemoryOrchestrationBackend] = []

    def make(*, max_history_size: int = 10_000, skip_time: bool = False) -> Rig:
        backend = (
            Engine(max_history_size=max_history_size, skip_time=skip_time)
            if mended
            else InMemoryOrchestrationBackend(max_history_size=max_history_size)
        )
        made.append(backend)
        return Rig(backend)

    yield make
    for backend in made:
        backend.stop()
        backend.reset()


@pytest.fixture
def rig(make_rig: MakeRig) -> Rig:
    """A rig with the defaults."""
    return make_rig()
