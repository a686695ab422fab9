"""What a machine waits for, in words."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.runs.run import Mode, Run, RunState, Trigger, TriggerKind
from patchwave.domain.runs.waiting import waiting_for

NOW = datetime(2026, 11, 21, tzinfo=UTC)
RINGS = ["canary", "broad"]


def run(**fields: Any) -> Run:
    known: dict[str, Any] = {
        "id": "r",
        "policy": "p",
        "mode": Mode.PATCH,
        "state": RunState.RUNNING,
        "trigger": Trigger(kind=TriggerKind.HTTP),
        "created_at": NOW,
    }
    return Run(**known | fields)


def machine(**fields: Any) -> MachineRecord:
    known: dict[str, Any] = {
        "id": "/m",
        "key": "k",
        "name": "m",
        "subscription_id": "s",
        "resource_group": "g",
        "stage": Stage.ASSESSED,
        "ring": "broad",
        "phase": 2,
        "lane": "westeurope",
        "wave": 3,
        "placement_reasons": ["update domain 1 of av after 0"],
    }
    return MachineRecord(**known | fields)


BUDGET = "the run to be resumed or cancelled: the error budget of "


@pytest.mark.parametrize(
    ("of_run", "of_machine", "phase", "words"),
    [
        ({}, {"stage": Stage.INSTALLING}, (1, 1), ""),
        ({}, {"stage": Stage.ASSESSING}, None, ""),
        ({}, {"stage": Stage.VERIFYING}, (1, 1), ""),
        ({}, {"stage": Stage.RESTARTING}, (1, 1), ""),
        ({}, {"stage": Stage.DONE, "outcome": OutcomeKind.PATCHED}, (1, 1), ""),
        ({"state": RunState.COMPLETED}, {}, None, ""),
        ({"mode": Mode.MAINTENANCE}, {}, None, ""),
        ({"cancel_requested_at": NOW}, {}, (1, 1), "the end of the run: nothing more starts in it"),
        ({"stop_reason": "Enough."}, {}, (1, 1), "the end of the run: nothing more starts in it"),
        ({"state": RunState.PAUSED}, {}, (1, 1), "the run, which is paused, to be resumed"),
        ({"blocked_scopes": ["run"]}, {}, (1, 1), BUDGET + "the run is used up"),
        (
            {"blocked_scopes": ["wave:broad/westeurope/2"]},
            {},
            (1, 1),
            BUDGET + "wave 2 of westeurope in the ring broad is used up",
        ),
        (
            {"blocked_scopes": ["wave:broad/westeurope/4"]},
            {"placement_reasons": []},
            (1, 1),
            "a free slot in westeurope",
        ),
        ({"blocked_scopes": ["ring:canary"]}, {}, (0, 0), BUDGET + "the ring canary is used up"),
        ({"blocked_scopes": ["ring:canary"]}, {}, None, BUDGET + "the ring canary is used up"),
        (
            {"blocked_scopes": ["lane:broad/uksouth"]},
            {"phase": 1, "placement_reasons": []},
            (1, 0),
            "a free slot in westeurope",
        ),
        ({"state": RunState.AWAITING_APPROVAL, "waiting_for": "broad"}, {}, None, "the approval of the ring broad"),
        ({"state": RunState.AWAITING_RUN, "waiting_for": "the run other"}, {}, (1, 1), "the run other"),
        ({"waiting_for": "the bake time of the ring canary"}, {}, None, "the bake time of the ring canary"),
        ({}, {"stage": Stage.WAITING, "ring": ""}, None, "its assessment"),
        ({}, {"ring": ""}, None, "the plan of the run"),
        ({}, {}, (0, 0), "the ring canary before its own"),
        ({}, {}, (1, 0), "phase 1 of its ring before its own, which is phase 2"),
        ({}, {}, (1, 1), "a free slot in westeurope: update domain 1 of av after 0"),
        ({}, {"stage": Stage.INSTALLED}, (1, 1), "a free slot in westeurope: update domain 1 of av after 0"),
    ],
)
def test_what_a_machine_waits_for(
    of_run: dict[str, Any], of_machine: dict[str, Any], phase: tuple[int, int] | None, words: str
) -> None:
    assert waiting_for(run(**of_run), machine(**of_machine), RINGS, phase) == words
