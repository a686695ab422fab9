"""The run as a whole: open it, page through its machines, close it."""

from __future__ import annotations

from activities.context import load_run, now
from adapters.tables import RecordMissing, open_records
from domain.base import Json
from domain.run import Mode, RunState, Stage
from domain.share import capacity
from domain.work import (
    CloseOpenMachines,
    CloseRun,
    MachinePage,
    MachinePageRequest,
    OpenedRun,
    RunRef,
    Step,
    StillOpen,
    StillOpenRequest,
)
from settings import load_settings

_CLOSE_PAGE = 500


async def open_run(data: Json) -> Json:
    """Mark the run as running. ``RunRef`` to ``OpenedRun``."""
    run_id = RunRef.from_wire(data).run_id
    records = open_records()
    try:
        await records.start_run(run_id, now())
        run, policy = await load_run(run_id)
    except RecordMissing:
        # Nothing can be recorded for a run without a row: whoever started it did not create it.
        return OpenedRun(
            mode=Mode.ASSESS, max_concurrent=1, assess_concurrency=1, start_stopped=False, is_final=True
        ).to_wire()
    return OpenedRun(
        mode=run.mode,
        max_concurrent=capacity(policy.max_concurrent, run.machines),
        assess_concurrency=load_settings().assess_concurrency,
        start_stopped=policy.start_stopped,
        is_final=run.state.is_final,
    ).to_wire()


async def next_machines(data: Json) -> Json:
    """The next machines that have no outcome. ``MachinePageRequest`` to ``MachinePage``."""
    request = MachinePageRequest.from_wire(data)
    records = open_records()
    page = await records.machine_keys(request.run_id, limit=request.limit, cursor=request.cursor, stage=None)
    stages = await records.machine_stages(request.run_id, page.items)
    keys = [key for key in page.items if stages[key] is not Stage.DONE]
    return MachinePage(keys=keys, cursor=page.cursor).to_wire()


async def still_open_machines(data: Json) -> Json:
    """Which of the machines are still worked on in this step. ``StillOpenRequest`` to ``StillOpen``."""
    request = StillOpenRequest.from_wire(data)
    records = open_records()
    ended = {Stage.DONE, Stage.ASSESSED} if request.step is Step.ASSESS else {Stage.DONE}
    stages = await records.machine_stages(request.run_id, request.keys)
    return StillOpen(keys=[key for key in request.keys if stages.get(key, Stage.DONE) not in ended]).to_wire()


async def close_open_machines(data: Json) -> Json:
    """Give every machine without an outcome the same one. ``CloseOpenMachines`` to ``{"closed": n}``."""
    request = CloseOpenMachines.from_wire(data)
    records = open_records()
    at = now()
    closed, cursor = 0, None
    while True:
        page = await records.machine_keys(request.run_id, limit=_CLOSE_PAGE, cursor=cursor, stage=None)
        closed += await records.record_outcomes(request.run_id, page.items, request.outcome, at)
        cursor = page.cursor
        if cursor is None:
            return {"closed": closed}


async def close_run(data: Json) -> Json:
    """Count the outcomes and end the run. ``CloseRun`` to the counts by outcome."""
    request = CloseRun.from_wire(data)
    records = open_records()
    at = now()
    state = request.state
    try:
        if state is RunState.COMPLETED and await records.is_canceled(request.run_id):
            # The cancel event is only a hint; the row is the truth.
            state = RunState.CANCELED
        run = await records.close_run(request.run_id, state, request.reason, at)
    except RecordMissing:
        return {}
    await records.audit(
        request.run_id,
        "run_ended",
        by="patchwave",
        at=run.ended_at or at,
        detail={"state": run.state.value, "reason": run.reason, "countsByOutcome": run.counts_by_outcome},
    )
    return dict(run.counts_by_outcome)
