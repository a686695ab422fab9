"""Lists on a terminal of 80 columns: no line is wider, and no name is broken."""

from __future__ import annotations

from typing import Any

import pytest
from starlette.responses import JSONResponse

from tests.cli.conftest import Patchwave
from tests.cli.service import SUBSCRIPTION, Service, machine_document, run_document

RUN = "20261110T190000Z-a-policy-with-the-longest-name00-0123abcd"
NAME = "batch-reports-of-the-whole-northern-region-02"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-of-the-north"
MACHINE = f"{GROUP}/providers/Microsoft.Compute/virtualMachines/{NAME}"
CONFIGURATION = f"{GROUP}/providers/Microsoft.Maintenance/maintenanceConfigurations/{NAME}"
AT = "2027-01-12T21:00:00.000Z"
SENTENCE = "It is a sentence of the service, which is longer than what is left of a line beside the other columns."
SIGNED = {"at": AT, "actor": "ben@example.org", "actorId": "", "reason": SENTENCE}
WINDOW = {"duration": "03:55", "timeZone": "W. Europe Standard Time", "recurEvery": "Month Second Tuesday Offset4"}
SETTINGS = {"patchMode": "AutomaticByPlatform", "assessmentMode": "AutomaticByPlatform", "bypass": True}
IMAGE = "Canonical:0001-com-ubuntu-server-jammy:22_04-lts-gen2:latest"
VIEW = {"configuration": {"id": CONFIGURATION, "name": NAME, "properties": {"maintenanceWindow": WINDOW}}}
ASSIGNMENT = {"maintenanceConfigurationId": CONFIGURATION, "resourceId": MACHINE, "name": "a-1"}

LISTS: dict[str, tuple[dict[str, Any], str]] = {
    "run list": ({"runs": [run_document(RUN, countsByOutcome={"patched": 3, "failed": 1})]}, RUN),
    f"run machines {RUN}": ({"machines": [machine_document(NAME, "patched_with_warnings", "reboot_required")]}, NAME),
    f"run audit {RUN}": ({"audit": [SIGNED | {"action": "run_paused", "detail": {"reason": SENTENCE}}]}, "run_paused"),
    "policy list": (
        {"policies": [{"name": NAME, "maxConcurrent": 5, "schedule": None, "description": SENTENCE}]},
        NAME,
    ),
    "schedule show monthly": (
        {"occurrences": [{"localTime": AT, "windowEnd": AT, "willRun": True, "runId": RUN, "why": SENTENCE}]},
        RUN,
    ),
    "freeze list": (
        {"freezes": [{"name": NAME, "from": "2026-12-20", "to": "2027-01-02", "reason": SENTENCE}]},
        NAME,
    ),
    "maintenance configuration list": (
        {"configurations": [VIEW | {"nextRun": {"startsAt": AT}, "notes": [SENTENCE]}]},
        NAME,
    ),
    f"maintenance configuration runs {CONFIGURATION}": (
        {"runs": [{"run": "20270112210000", "startsAt": AT, "endsAt": AT, "cancelDeadline": AT}], "notes": [SENTENCE]},
        "20270112210000",
    ),
    f"maintenance assignment list --machine {MACHINE}": (
        {"assignments": [{"assignment": ASSIGNMENT, "nextRun": AT, "notes": [SENTENCE]}]},
        NAME,
    ),
    "maintenance runs list": (
        {"runs": [{"runId": RUN, "state": "completed", "occurrence": {"configurationId": CONFIGURATION}}]},
        RUN,
    ),
    "fleet modes": (
        {"machines": [{"name": NAME, "image": IMAGE, "settings": SETTINGS, "sentence": SENTENCE}]},
        NAME,
    ),
    "fleet eligibility": ({"ineligible": [{"name": NAME, "osType": "Linux", "image": IMAGE}]}, NAME),
    "fleet mode-change list": ({"changes": [{"id": RUN, "state": "stopped", "planned": SIGNED}]}, RUN),
}


@pytest.mark.parametrize("words", LISTS)
def test_lists_fit_80_columns_and_break_no_name(
    patchwave: Patchwave, service: Service, monkeypatch: pytest.MonkeyPatch, words: str
) -> None:
    answer, name = LISTS[words]
    monkeypatch.setenv("COLUMNS", "80")
    service.answers = [JSONResponse(answer)]
    result = patchwave(*words.split())
    assert result.code == 0, result.errors
    lines = [line.rstrip() for line in result.output.splitlines()]
    assert max(map(len, lines)) <= 80
    assert any(name in line for line in lines)
