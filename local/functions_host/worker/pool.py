"""The workers of one host: started, chosen by load, and started again when they die."""

import asyncio
import logging
from collections.abc import Callable
from pathlib import Path

from local.functions_host.functions import Function, Functions
from local.functions_host.worker.process import AppNotLoaded, Input, Result, WorkerLost, WorkerProcess

log = logging.getLogger(__name__)

# A worker that dies before it has answered anything counts as failing, and the next one waits longer.
_FIRST_PAUSE, _MAX_PAUSE = 0.1, 10.0


class WorkerPool:
    """Keeps ``size`` workers running.

    ``on_lost`` is called with the name of a worker that ended, before any of its invocations fails, and ``on_change``
    when a worker starts or ends.
    """

    def __init__(
        self,
        app: Path,
        size: int,
        environment: dict[str, str],
        *,
        on_lost: Callable[[str], object],
        on_change: Callable[[], None],
        preload: str = "",
    ) -> None:
        self._app = app
        self._size = size
        self._preload = preload
        self._environment = environment
        self._on_lost = on_lost
        self._on_change = on_change
        self._workers: list[WorkerProcess] = []
        self._changed = asyncio.Condition()
        self._keepers: list[asyncio.Task[None]] = []
        self.functions = Functions([])

    async def start(self) -> Functions:
        """Starts all workers and returns the app's functions; ``AppNotLoaded`` when there are none to run."""
        first = await self._start_one()
        self.functions = first.functions
        starts = [self._start_one() for _ in range(self._size - 1)]
        self._workers = [first, *await asyncio.gather(*starts)]
        self._keepers = [asyncio.create_task(self._keep(worker)) for worker in self._workers]
        return self.functions

    async def stop(self) -> None:
        for keeper in self._keepers:
            keeper.cancel()
        workers, self._workers = self._workers, []
        await asyncio.gather(*(worker.stop() for worker in workers))

    @property
    def pids(self) -> list[int]:
        return [worker.pid for worker in self._workers]

    def least_busy(self) -> WorkerProcess | None:
        """The live worker with the fewest invocations, or None when all are being restarted."""
        return min(self._workers, key=lambda worker: worker.busy, default=None)

    async def invoke(
        self, function: Function, inputs: list[Input], *, blob: bytes = b"", timeout: float | None = None
    ) -> Result:
        """Runs a function on some worker; waits for one when all are being restarted. Raises as ``WorkerProcess``."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._workers))
        worker = self.least_busy()
        if worker is None:
            raise WorkerLost("no worker")
        return await worker.invoke(function.id, inputs, blob=blob, timeout=timeout)

    async def _keep(self, worker: WorkerProcess) -> None:
        pause = _FIRST_PAUSE
        while True:
            await worker.serve(self._gone)
            pause = _FIRST_PAUSE if worker.has_answered else min(pause * 2, _MAX_PAUSE)
            while True:
                await asyncio.sleep(pause)
                try:
                    worker = await self._start_one()
                    break
                except (WorkerLost, AppNotLoaded) as error:
                    pause = min(pause * 2, _MAX_PAUSE)
                    log.error("a worker could not be started, next try in %.1f s: %s", pause, error)
            log.info("%s (pid %d) started in place of a worker that ended", worker.name, worker.pid)
            self._workers.append(worker)
            async with self._changed:
                self._changed.notify_all()
            self._on_change()

    async def _start_one(self) -> WorkerProcess:
        return await WorkerProcess.start(self._app, self._environment, self._preload)

    def _gone(self, worker: WorkerProcess) -> None:
        if worker in self._workers:
            self._workers.remove(worker)
        self._on_lost(worker.name)
        self._on_change()
