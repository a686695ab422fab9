"""Polls of a phase, and what it waits at most."""

from __future__ import annotations

from datetime import timedelta

from activities.phase import poll_phase
from patchwave.domain.workflow.phase import PhasePoll, PhasePollRequest
from patchwave.domain.workflow.run import PhaseSummary, PlanSummary, RingSummary
from patchwave.wiring import Services

SHORT = PlanSummary(
    machines=5,
    rings=[
        RingSummary(name="canary", machines=2, phases=[PhaseSummary(lanes={"westeurope": 2}), PhaseSummary(lanes={})]),
        RingSummary(name="broad", machines=3, phases=[PhaseSummary(lanes={"westeurope": 3})]),
    ],
)


RUN = "20261110T190000Z-monthly"
PHASE = "patch:0.0.1"

HOUR = timedelta(hours=1)


async def poll(services: Services, since: str = "") -> PhasePoll:
    return await poll_phase(services, PhasePollRequest(run_id=RUN, phase=PHASE, since=since))
