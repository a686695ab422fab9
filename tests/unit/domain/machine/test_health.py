"""Health before and after: which signs count, and that only a change for the worse closes the gate."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.hybrid_machine import HybridMachineView
from patchwave.domain.azure.instance_view import MachineView
from patchwave.domain.core.outcome import OutcomeKind, Reason
from patchwave.domain.machine.health import evaluate_change, is_settled, next_look, read_signals, summarize
from patchwave.domain.machine.resource_health import Availability, evaluate_availability
from patchwave.domain.policy.health import Health
from patchwave.domain.policy.policy import PolicyError, parse_policy
from patchwave.domain.runs.machine_record import HealthSummary, Signal, SignalState

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
SMALLEST: dict[str, Any] = {
    "name": "monthly",
    "scope": {"subscriptions": ["11111111-1111-1111-1111-111111111111"]},
}


def view(
    power: str = "running", agent: str = "succeeded", vm_health: str = "", silent: timedelta = timedelta(0)
) -> MachineView:
    instance: dict[str, Any] = {
        "statuses": [{"code": f"PowerState/{power}"}],
        "vmAgent": {
            "statuses": [
                {
                    "code": f"ProvisioningState/{agent}",
                    "message": "Guest Agent is running" if agent == "succeeded" else "VM Agent is unresponsive.",
                    "time": (NOW - silent).isoformat(),
                }
            ]
        },
    }
    if vm_health:
        instance["vmHealth"] = {"status": {"code": f"HealthState/{vm_health}"}}
    return MachineView.model_validate({"properties": {"instanceView": instance}})


def summary(*states: SignalState) -> HealthSummary:
    signals = {f"sign{number}": Signal(state=state, detail=f"{state}.") for number, state in enumerate(states)}
    return summarize(signals, NOW)


HEALTHY, UNHEALTHY, UNKNOWN, ABSENT = (
    SignalState.HEALTHY,
    SignalState.UNHEALTHY,
    SignalState.UNKNOWN,
    SignalState.ABSENT,
)


@pytest.mark.parametrize(
    ("machine", "sign", "state"),
    [
        (view(), "power", HEALTHY),
        (view(power="stopped"), "power", UNHEALTHY),
        (view(power="starting"), "power", UNHEALTHY),
        (MachineView.model_validate({}), "power", UNKNOWN),
        (view(), "agent", HEALTHY),
        (view(agent="Unavailable"), "agent", UNHEALTHY),
        (MachineView.model_validate({}), "agent", UNHEALTHY),
        (view(silent=timedelta(minutes=14)), "agent", HEALTHY),
        (view(silent=timedelta(minutes=16)), "agent", UNHEALTHY),
        (view(), "vmHealth", ABSENT),
        (view(vm_health="healthy"), "vmHealth", HEALTHY),
        (view(vm_health="unhealthy"), "vmHealth", UNHEALTHY),
        (view(vm_health="initializing"), "vmHealth", UNKNOWN),
    ],
)
def test_health_of_the_machine(machine: MachineView, sign: str, state: SignalState) -> None:
    signal = read_signals(machine, NOW)[sign]
    assert signal.state is state
    assert bool(signal.detail) is (state in (UNHEALTHY, UNKNOWN)), "a sentence unless all is well"


@pytest.mark.parametrize(
    ("status", "state"),
    [
        ("Connected", SignalState.HEALTHY),
        ("Disconnected", SignalState.UNHEALTHY),
        ("Expired", SignalState.UNHEALTHY),
        ("", SignalState.UNKNOWN),
    ],
)
def test_the_health_of_an_arc_machine_is_that_of_its_agent(status: str, state: SignalState) -> None:
    signals = read_signals(HybridMachineView.model_validate({"properties": {"status": status}}), NOW)
    assert {name: signal.state for name, signal in signals.items()} == {"agent": state}
    assert status in signals["agent"].detail or state is SignalState.HEALTHY


def test_the_agents_own_words_are_kept() -> None:
    assert "VM Agent is unresponsive." in read_signals(view(agent="Unavailable"), NOW)["agent"].detail


@pytest.mark.parametrize(
    ("properties", "state"),
    [
        ({"availabilityState": "Available"}, HEALTHY),
        ({"availabilityState": "Unavailable", "summary": "Disk problems", "reasonType": "Unplanned"}, UNHEALTHY),
        ({"availabilityState": "Degraded", "title": "Degraded"}, UNHEALTHY),
        ({"availabilityState": "Unknown"}, UNKNOWN),
        ({"availabilityState": "Unavailable", "reasonType": "UserInitiated"}, UNKNOWN),
        ({"availabilityState": "Unavailable", "context": "Customer Initiated"}, UNKNOWN),
        ({"availabilityState": "SomethingNew"}, UNKNOWN),
        ({"availabilityState": None}, UNKNOWN),
        (None, UNKNOWN),
    ],
)
def test_answers_of_resource_health(properties: dict[str, Any] | None, state: SignalState) -> None:
    signal = evaluate_availability(Availability.model_validate({"properties": properties}))
    assert signal.state is state
    assert signal.detail.endswith(".") is (state is not HEALTHY)


def test_unavailable_resource_health_is_no_finding() -> None:
    signal = evaluate_availability(ArmFailure(status=403, code="AuthorizationFailed", message="no right"))
    assert signal.state is UNKNOWN
    assert "AuthorizationFailed" in signal.detail


@pytest.mark.parametrize(
    ("states", "healthy"),
    [
        ([HEALTHY, HEALTHY], True),
        ([HEALTHY, UNKNOWN, ABSENT], True),
        ([HEALTHY, UNHEALTHY, UNKNOWN], False),
        ([UNKNOWN, ABSENT], None),
        ([], None),
    ],
)
def test_signs_together(states: list[SignalState], healthy: bool | None) -> None:
    assert summary(*states).healthy is healthy


def test_the_reason_names_what_decided() -> None:
    assert summary(HEALTHY, UNHEALTHY, UNKNOWN).reason == "unhealthy."
    assert summary(HEALTHY, UNKNOWN).reason == "unknown."


@pytest.mark.parametrize(
    ("before", "after", "fails"),
    [
        (summary(HEALTHY), summary(HEALTHY), False),
        (summary(HEALTHY), summary(UNHEALTHY), True),
        (summary(HEALTHY, UNHEALTHY), summary(UNHEALTHY, UNHEALTHY), False),
        (summary(UNKNOWN), summary(UNHEALTHY), True),
        (None, summary(UNHEALTHY), True),
        (summary(HEALTHY), summary(UNKNOWN), False),
        (None, summary(UNKNOWN), False),
    ],
)
def test_only_what_became_unhealthy_fails(before: HealthSummary | None, after: HealthSummary, fails: bool) -> None:
    outcome = evaluate_change(before, after)
    assert (outcome is not None) is fails
    if outcome is not None:
        assert (outcome.outcome, outcome.reason) == (OutcomeKind.FAILED, Reason.UNHEALTHY)
        assert outcome.message.endswith(after.reason)


def test_a_sign_that_was_there_and_is_lost_gets_time() -> None:
    assert not is_settled(summary(HEALTHY, HEALTHY), summary(HEALTHY, UNKNOWN))
    assert is_settled(summary(HEALTHY, UNKNOWN), summary(HEALTHY, UNKNOWN))
    assert is_settled(summary(HEALTHY, UNHEALTHY), summary(UNHEALTHY, UNHEALTHY)), "it cannot fail the gate"
    assert not is_settled(summary(HEALTHY), summary(UNHEALTHY))


signal_states = st.lists(st.sampled_from(SignalState), max_size=5)


@given(signal_states, signal_states)
def test_every_pair_has_one_judgement(before: list[SignalState], after: list[SignalState]) -> None:
    was, now = summary(*before), summary(*after)
    fails = evaluate_change(was, now) is not None
    assert fails == (UNHEALTHY in after and UNHEALTHY not in before)
    assert not (fails and is_settled(was, now))


@given(st.floats(0.05, 600), st.integers(1, 120))
def test_looks_end_with_the_settle_time_and_are_few(shortest: float, minutes: int) -> None:
    timeout, looked_for, looks = minutes * 60.0, 0.0, 0
    while looked_for < timeout:
        looked_for += next_look(looked_for, shortest, timeout)
        looks += 1
    assert looked_for <= timeout + 0.1
    assert looks <= 80


def test_the_section_of_the_policy() -> None:
    policy = parse_policy(SMALLEST)
    assert policy.health.is_wanted, "health is checked unless the policy says otherwise"
    assert policy.health == Health.model_validate(policy.health.to_wire())
    assert policy.health.settle == timedelta(minutes=15)
    assert policy.health.alerts is None
    off = parse_policy(SMALLEST | {"health": {"enabled": False}})
    assert not off.health.is_wanted
    veto = parse_policy(SMALLEST | {"health": {"enabled": False, "alerts": {}}})
    assert veto.health.is_wanted, "a veto is a veto"
    given_alerts = parse_policy(SMALLEST | {"health": {"alerts": {}}}).health.alerts
    assert given_alerts is not None
    assert given_alerts.severities == ["Sev0", "Sev1"]
    at_once = parse_policy(SMALLEST | {"health": {"settle": "PT0M"}})
    assert at_once.health.settle == timedelta(0)


@pytest.mark.parametrize(
    ("section", "path"),
    [
        ({"settle": "PT3H"}, "health.settle"),
        ({"settle": "P1D"}, "health.settle"),
        ({"enabled": "yes"}, "health.enabled"),
        ({"alerts": {"severities": []}}, "health.alerts.severities"),
        ({"alerts": {"severities": ["Sev9"]}}, "health.alerts.severities[0]"),
        ({"alerts": {"firedWithin": "PT1000H"}}, "health.alerts.firedWithin"),
        ({"probe": {}}, "health.probe.url"),
        ({"probe": {"url": "ftp://example.org"}}, "health.probe.url"),
        ({"probe": {"url": "https://example.org", "status": [99]}}, "health.probe.status[0]"),
        ({"probe": {"url": "https://example.org", "timeoutSeconds": 31}}, "health.probe.timeoutSeconds"),
        ({"prob": {}}, "health.prob"),
    ],
)
def test_a_wrong_section_is_refused_with_its_path(section: dict[str, Any], path: str) -> None:
    with pytest.raises(PolicyError) as refused:
        parse_policy(SMALLEST | {"health": section})
    assert path in [problem.path for problem in refused.value.errors]
