"""Leaving a machine out of a run, against the run that is about to work on it: who asks first wins.

The machine's row decides. Whoever skips a machine and whoever sends its operation both change that row under its ETag:
the one after it has found no intent that may have been accepted, the other after it has declared one.
"""

from __future__ import annotations

from datetime import datetime

from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.command import Order
from patchwave.domain.runs import commands
from patchwave.domain.runs.intent import Intent
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.storage.engine.entity_codec import get_json, pack, unpack
from patchwave.storage.engine.store import OptimisticRetry
from patchwave.storage.errors import RecordMissing
from patchwave.storage.intents import IntentRecords
from patchwave.storage.run_machines import MachineRecords
from patchwave.storage.run_patches import MACHINES
from patchwave.storage.runs import clean_order

_SKIP = "skipCommand"
_BEFORE = {OperationKind.ASSESS: Stage.WAITING, OperationKind.INSTALL: Stage.ASSESSED}
"""The stage of a machine on which no operation of that kind has begun."""


class SkipRecords(MachineRecords, IntentRecords):
    """Skipping a machine, and beginning its operation."""

    async def skip_machine(self, run_id: str, machine_key: str, order: Order, kind: OperationKind) -> MachineRecord:
        """Leave the machine out of its run. ``kind`` is the operation that the run does to its machines.

        Raises:
            RecordMissing: the run has no such machine.
            NotPossible: it has ended, or its operation has begun.
        """
        async for _ in OptimisticRetry(f"machine {machine_key}"):
            row = await self._open_row(run_id, machine_key)
            machine = unpack(MachineRecord, row.columns)
            # Read after the machine: whoever declares an intent changes the machine next, and this write then fails.
            intent = await self.get_intent(run_id, machine_key, kind)
            wanted = commands.skip(machine, intent, clean_order(order))
            if wanted == machine:
                return machine
            if await self._store.results.merge(run_id, row.key, pack({_SKIP: wanted.skip_command}), row.etag):
                return wanted
        raise RecordMissing(f"run {run_id} has no machine {machine_key}")

    async def find_intent(self, run_id: str, machine_key: str, kind: OperationKind) -> Intent | None:
        """The intent of an operation, for whoever declares one otherwise.

        ``None`` is a guess when the machine's row says that none has begun: somebody may have declared one and died
        before he changed the row. `declare_intent` finds that out, and remembers it for the next call.
        """
        row = self._store.results.remembered(run_id, MACHINES + machine_key)
        is_untouched = row is not None and row.columns.get("stage") == _BEFORE[kind].value
        if is_untouched and not self.is_intent_known(run_id, machine_key, kind):
            return None
        return await self.get_intent(run_id, machine_key, kind)

    async def begin_operation(self, run_id: str, machine_key: str, stage: Stage, at: datetime) -> Order | None:
        """Move a machine to a stage right before its operation is sent, once the intent is declared.

        Returns the order to skip the machine when there is one: it then stays as it is, and nothing may be sent.
        Nothing happens either once it has an outcome.
        """
        async for _ in OptimisticRetry(f"machine {machine_key}"):
            row = await self._open_row(run_id, machine_key)
            if _SKIP in row.columns:
                return Order.from_wire(get_json(row.columns, _SKIP))
            started = {} if "startedAt" in row.columns else {"startedAt": at}
            changes = pack({"stage": stage, **started})
            if "outcome" in row.columns or await self._store.results.merge(run_id, row.key, changes, row.etag):
                break
        return None
