"""Which alerts of Azure Monitor keep a machine from being patched."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.outcome import OutcomeKind, Reason
from patchwave.domain.machine.alerts import Alert, alerts_unknown, evaluate_alerts
from patchwave.domain.policy.health import AlertVeto

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
MACHINE = (
    "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg-shop"
    "/providers/Microsoft.Compute/virtualMachines/web-1"
)
RULE = "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg/providers/microsoft.insights/metricalerts"


def alert(**essentials: Any) -> Alert:
    fields = {
        "severity": "Sev1",
        "alertState": "New",
        "monitorCondition": "Fired",
        "targetResource": MACHINE.lower(),
        "alertRule": f"{RULE}/Cpu-High",
        "startDateTime": (NOW - timedelta(hours=1)).isoformat(),
    }
    return Alert.model_validate({"name": "Cpu-High", "properties": {"essentials": fields | essentials}})


@pytest.mark.parametrize(
    ("essentials", "fires"),
    [
        ({}, True),
        ({"alertState": "Acknowledged"}, True),
        ({"alertState": "Closed"}, False),
        ({"monitorCondition": "Resolved"}, False),
        ({"severity": "Sev0"}, True),
        ({"severity": "Sev2"}, False),
        ({"targetResource": f"{MACHINE}0"}, False),
        ({"startDateTime": (NOW - timedelta(hours=25)).isoformat()}, False),
        ({"startDateTime": None, "severity": None, "monitorCondition": None, "alertState": None}, True),
    ],
)
def test_which_alerts_count(essentials: dict[str, Any], fires: bool) -> None:
    outcome = evaluate_alerts([alert(**essentials)], MACHINE, AlertVeto(), NOW)
    assert (outcome is not None) is fires


@pytest.mark.parametrize(("rules", "fires"), [(["cpu-high"], True), (["CPU-HIGH", "disk"], True), (["disk"], False)])
def test_named_rules(rules: list[str], fires: bool) -> None:
    assert (evaluate_alerts([alert()], MACHINE, AlertVeto(rules=rules), NOW) is not None) is fires


def test_the_outcome_names_the_rules() -> None:
    outcome = evaluate_alerts([alert()] * 5, MACHINE, AlertVeto(), NOW)
    assert outcome is not None
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.SKIPPED, Reason.ALERT_FIRING)
    assert "Cpu-High (Sev1)" in outcome.message
    assert "2 more" in outcome.message


def test_an_alert_without_a_severity_is_named_without_one() -> None:
    outcome = evaluate_alerts([alert(severity=None)], MACHINE, AlertVeto(), NOW)
    assert outcome is not None
    assert "fire on it: Cpu-High (severity unknown)." in outcome.message


@pytest.mark.parametrize("body", [{}, {"properties": None}, {"properties": {"essentials": []}}, {"name": 7}])
def test_an_alert_in_an_unknown_form_counts(body: dict[str, Any]) -> None:
    assert evaluate_alerts([Alert.model_validate(body)], MACHINE, AlertVeto(), NOW) is not None


def test_unreadable_alerts_are_no_permission() -> None:
    outcome = alerts_unknown(ArmFailure(status=403, code="AuthorizationFailed", message="no right"))
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.SKIPPED, Reason.FORBIDDEN)
    assert "AlertsManagement/alerts/read" in outcome.message
