"""Whether a machine may be touched, for every state that a machine was seen in."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.domain.azure.hybrid_machine import HybridMachineView
from patchwave.domain.azure.instance_view import MachineView, Power
from patchwave.domain.core.outcome import OutcomeKind, Reason
from patchwave.domain.fleet.exclusions import hold_reason
from patchwave.domain.machine.preflight import Readiness, evaluate
from tests.support.azure_bodies import READY_AGENT, UNKNOWN_AGENT, machine


def judge(body: dict[str, Any], *, start_stopped: bool = False) -> tuple[Readiness, Reason | None]:
    found = evaluate(MachineView.model_validate(body), start_stopped=start_stopped)
    assert found.outcome is None or found.outcome.outcome is OutcomeKind.SKIPPED
    assert (found.outcome is None) == (found.readiness in (Readiness.READY, Readiness.NEEDS_START))
    return found.readiness, found.outcome.reason if found.outcome else None


WAIT_AGENT = (Readiness.WAIT, Reason.AGENT_NOT_READY)
WAIT_POWER = (Readiness.WAIT, Reason.NOT_RUNNING)


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        (machine("running"), (Readiness.READY, None)),
        (machine("running", vmAgent=None), WAIT_AGENT),
        (machine("running", vmAgent=UNKNOWN_AGENT), WAIT_AGENT),
        (machine("running", vmAgent={"vmAgentVersion": "Unknown"}), WAIT_AGENT),
        (machine("running", vmAgent={"statuses": None}), WAIT_AGENT),
        (machine("stopped", vmAgent=READY_AGENT), (Readiness.SKIP, Reason.NOT_RUNNING)),
        (machine("deallocated", vmAgent=None), (Readiness.SKIP, Reason.NOT_RUNNING)),
        (machine("", vmAgent=None), WAIT_POWER),
        (machine("starting"), WAIT_POWER),
        (machine("stopping"), WAIT_POWER),
        (machine("deallocating"), WAIT_POWER),
        (machine("restarting"), WAIT_POWER),
        (machine("hibernated"), WAIT_POWER),
        ({}, WAIT_POWER),
        ({"properties": None}, WAIT_POWER),
        ({"properties": {"instanceView": []}}, WAIT_POWER),
    ],
)
def test_point_36_power_and_agent_decide_together(
    body: dict[str, Any], expected: tuple[Readiness, Reason | None]
) -> None:
    assert judge(body) == expected


@pytest.mark.parametrize("power", ["stopped", "deallocated"])
def test_a_stopped_machine_is_started_only_where_the_policy_has_it(power: str) -> None:
    assert judge(machine(power), start_stopped=True) == (Readiness.NEEDS_START, None)
    assert judge(machine(power), start_stopped=False) == (Readiness.SKIP, Reason.NOT_RUNNING)


@pytest.mark.parametrize("power", ["running", "", "starting", "hibernated"])
def test_only_a_stopped_machine_is_started(power: str) -> None:
    assert judge(machine(power), start_stopped=True)[0] is not Readiness.NEEDS_START


def hibernated(power: str, word: str = "HibernationState/Hibernated") -> dict[str, Any]:
    body = machine(power, vmAgent=None)
    body["properties"]["instanceView"]["statuses"].insert(0, {"code": word, "displayStatus": "VM hibernated"})
    return body


@pytest.mark.parametrize("start_stopped", [True, False])
@pytest.mark.parametrize("word", ["HibernationState/Hibernated", "hibernationstate/hibernated"])
def test_a_hibernated_machine_is_left_alone(start_stopped: bool, word: str) -> None:
    body = hibernated("deallocated", word)
    assert judge(body, start_stopped=start_stopped) == (Readiness.SKIP, Reason.HIBERNATED)
    assert MachineView.model_validate(body).power is Power.HIBERNATED


def test_a_machine_that_has_resumed_is_not_hibernated() -> None:
    """Azure may leave the word behind."""
    body = hibernated("running")
    body["properties"]["instanceView"]["vmAgent"] = READY_AGENT
    assert judge(body) == (Readiness.READY, None)
    assert judge(hibernated("deallocating")) == WAIT_POWER
    assert judge(hibernated("deallocated", "HibernationState/Unknown"), start_stopped=True)[0] is Readiness.NEEDS_START


@pytest.mark.parametrize("value", ["ticket 4711", "true", "1", "yes"])
@pytest.mark.parametrize("name", ["patchwave-hold", "PatchWave-Hold"])
def test_a_hold_tag_keeps_the_machine_out_and_its_value_is_the_reason(name: str, value: str) -> None:
    for power in ("running", "stopped"):
        body = machine(power) | {"tags": {"env": "prod", name: value}}
        assert judge(body, start_stopped=True) == (Readiness.SKIP, Reason.HOLD_TAG)
        found = evaluate(MachineView.model_validate(body), start_stopped=True)
        assert found.outcome is not None
        assert value in found.outcome.message


@pytest.mark.parametrize("value", ["", " ", "false", "No", "0", "OFF"])
def test_a_hold_tag_with_a_negative_value_holds_nothing(value: str) -> None:
    assert hold_reason({"patchwave-hold": value}) is None
    assert hold_reason({"hold": "yes"}) is None


def test_the_patch_status_of_the_machine_is_read() -> None:
    status = {
        "availablePatchSummary": {"status": "Succeeded", "assessmentActivityId": "a", "rebootPending": True},
        "lastPatchInstallationSummary": {"status": "InProgress", "installationActivityId": "i"},
        "configurationStatuses": [{"code": "PatchModeConfigurationState/Ready"}],
    }
    view = MachineView.model_validate(machine("running", patchStatus=status))
    assert view.last_assessment is not None
    assert (view.last_assessment.activity_id, view.last_assessment.reboot_pending) == ("a", True)
    assert view.last_installation is not None
    assert view.last_installation.activity_id == "i"
    bare = MachineView.model_validate(machine("running"))
    assert (bare.last_assessment, bare.last_installation) == (None, None)
    assert (bare.location, bare.os_type, bare.power) == ("westeurope", "Linux", Power.RUNNING)


def test_health_agent_and_update_domain_are_read() -> None:
    agent = {
        "vmAgentVersion": "2.11.1.12",
        "statuses": [
            {
                "code": "ProvisioningState/succeeded",
                "message": "Guest Agent is running",
                "time": "2026-11-21T02:00:00+00:00",
            }
        ],
    }
    body = machine("running", vmAgent=agent, vmHealth={"status": {"code": "HealthState/unhealthy"}})
    body["properties"]["instanceView"]["platformUpdateDomain"] = 0
    view = MachineView.model_validate(body)
    assert view.vm_health == "unhealthy"
    assert view.agent_message == "Guest Agent is running"
    assert view.agent_reported_at == datetime(2026, 11, 21, 2, tzinfo=UTC)
    assert view.update_domain == "0"


@pytest.mark.parametrize(("shown", "known"), [(0, "0"), (2, "2"), (-1, ""), (None, ""), ("one", ""), (True, "")])
def test_the_scale_set_and_the_fault_domain_are_read(shown: object, known: str) -> None:
    body = machine("running", platformFaultDomain=shown)
    body["properties"]["virtualMachineScaleSet"] = {"id": "/sets/web"}
    view = MachineView.model_validate(body)
    assert (view.scale_set_id, view.fault_domain) == ("/sets/web", known)
    alone = MachineView.model_validate(machine("running"))
    assert (alone.scale_set_id, alone.fault_domain) == ("", "")


def test_an_agent_without_a_message_is_quoted_with_its_status() -> None:
    statuses = [{"code": "ProvisioningState/failed", "displayStatus": "Not ready"}, {"displayStatus": "other"}]
    assert MachineView.model_validate(machine("running", vmAgent={"statuses": statuses})).agent_message == "Not ready"


@pytest.mark.parametrize("health", [None, {}, {"status": None}, {"status": {}}, [], "healthy"])
def test_a_machine_without_the_health_extension_has_no_word(health: object) -> None:
    view = MachineView.model_validate(machine("running", vmHealth=health, vmAgent=None, platformUpdateDomain="one"))
    assert (view.vm_health, view.agent_message, view.agent_reported_at, view.update_domain) == ("", "", None, "")


@pytest.mark.parametrize(
    "body", [{}, {"properties": {}}, {"properties": {"instanceView": None}}, {"properties": {"instanceView": {}}}]
)
@pytest.mark.parametrize("start_stopped", [True, False])
def test_a_machine_without_an_instance_view_has_no_known_state(body: dict[str, Any], start_stopped: bool) -> None:
    view = MachineView.model_validate(body)
    assert view.power is Power.UNKNOWN
    assert view.is_agent_ready is False
    assert (view.agent_message, view.agent_reported_at) == ("", None)
    assert (view.vm_health, view.update_domain) == ("", "")
    assert (view.last_assessment, view.last_installation) == (None, None)
    assert (view.is_being_changed, view.changed_at) == (False, None)
    found = evaluate(view, start_stopped=start_stopped)
    assert found.readiness is Readiness.WAIT
    assert found.outcome is not None
    assert found.outcome.message == ("Azure does not tell the power state of the machine; is it still created?")


def test_missing_parts_of_an_instance_view_are_unknown() -> None:
    view = MachineView.model_validate({"properties": {"instanceView": {"statuses": [{"code": "PowerState/running"}]}}})
    assert view.power is Power.RUNNING
    assert (view.last_assessment, view.last_installation, view.is_agent_ready) == (None, None, False)
    half = machine("running", patchStatus={"lastPatchInstallationSummary": {"installationActivityId": "i"}})
    assert MachineView.model_validate(half).last_assessment is None


@pytest.mark.parametrize(
    ("codes", "expected"),
    [
        (["ProvisioningState/succeeded", "PowerState/running"], False),
        (["ProvisioningState/updating", "PowerState/running"], True),
        (["provisioningstate/Updating", "PowerState/running"], True),
        (["ProvisioningState/creating"], True),
        (["ProvisioningState/failed/InternalExecutionError", "PowerState/running"], False),
        (["ProvisioningState/Canceled", "PowerState/deallocated"], False),
        (["ProvisioningState/succeeded", "PowerState/starting"], True),
        (["PowerState/running"], False),
    ],
)
def test_whether_azure_changes_the_machine_now(codes: list[str], expected: bool) -> None:
    body = {"properties": {"instanceView": {"statuses": [{"code": code} for code in codes]}}}
    assert MachineView.model_validate(body).is_being_changed is expected


def test_when_the_machine_was_last_changed() -> None:
    times = ["2026-11-30T06:00:09.1192081+00:00", "2026-11-30T07:00:00Z", None, "soon"]
    statuses = [{"code": "ProvisioningState/succeeded", "time": time} for time in times]
    view = MachineView.model_validate({"properties": {"instanceView": {"statuses": statuses}}})
    assert view.changed_at == datetime(2026, 11, 30, 7, tzinfo=UTC)


@pytest.mark.parametrize(
    ("power", "message"),
    [
        ("stopped", "The machine is stopped; start it, or set startStopped in the policy."),
        ("deallocated", "The machine is deallocated; start it, or set startStopped in the policy."),
        ("starting", "The power state of the machine kept changing."),
    ],
)
def test_sentences_name_the_power_state(power: str, message: str) -> None:
    found = evaluate(MachineView.model_validate(machine(power)), start_stopped=False)
    assert found.outcome is not None
    assert found.outcome.message == message


anything: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.just("PowerState/running"),
    lambda inner: (
        st.lists(inner, max_size=2)
        | st.dictionaries(
            st.sampled_from(["code", "statuses", "status", "time", "vmAgent", "patchStatus", "error", "message"]), inner
        )
    ),
    max_leaves=6,
)


@given(
    st.dictionaries(st.sampled_from(["id", "location", "tags", "properties"]), anything),
    st.dictionaries(
        st.sampled_from(["statuses", "vmAgent", "patchStatus", "vmHealth", "platformUpdateDomain"]), anything
    ),
    anything,
    st.booleans(),
)
def test_any_answer_about_a_machine_is_judged(
    body: dict[str, Any], instance_view: dict[str, Any], os_type: Any, deep: bool
) -> None:
    if deep:
        body = body | {"properties": {"instanceView": instance_view, "storageProfile": {"osDisk": {"osType": os_type}}}}
    view = MachineView.model_validate(body)
    found = evaluate(view, start_stopped=True)
    assert isinstance(view.vm_health + view.agent_message + view.update_domain, str)
    assert view.agent_reported_at is None or view.agent_reported_at.tzinfo is not None
    if found.readiness is Readiness.READY:
        assert view.power is Power.RUNNING
        assert view.is_agent_ready


@pytest.mark.parametrize(
    ("status", "readiness", "said"),
    [
        ("Connected", Readiness.READY, ""),
        ("Disconnected", Readiness.SKIP, "Azure cannot start it"),
        ("Expired", Readiness.SKIP, "azcmagent"),
        ("Error", Readiness.SKIP, "reports an error"),
        ("AwaitingConnection", Readiness.SKIP, "azcmagent show"),
        ("", Readiness.SKIP, "of no known status"),
    ],
)
@pytest.mark.parametrize("start_stopped", [True, False])
def test_the_status_of_its_agent_decides_for_an_arc_machine(
    status: str, readiness: Readiness, said: str, start_stopped: bool
) -> None:
    found = evaluate(HybridMachineView.model_validate({"properties": {"status": status}}), start_stopped=start_stopped)
    assert found.readiness is readiness
    if found.outcome is not None:
        assert found.outcome.reason is Reason.NOT_CONNECTED
        assert said in found.outcome.message


def test_a_hold_tag_comes_before_the_status() -> None:
    view = HybridMachineView.model_validate({"tags": {"patchwave-hold": "x"}, "properties": {"status": "Expired"}})
    found = evaluate(view, start_stopped=False)
    assert found.outcome is not None
    assert found.outcome.reason is Reason.HOLD_TAG
