"""Every document that crosses a durable boundary passes the codec of Azure Functions unchanged, and stays small."""

from __future__ import annotations

import inspect
import json
from datetime import UTC, datetime, timedelta
from types import ModuleType
from typing import Any, cast

import pytest
from azure.durable_functions.internal.serialization import FunctionsDataConverter
from azure.functions._durable_functions import df_dumps, df_loads
from hypothesis import given, settings
from hypothesis import strategies as st

from patchwave.domain.azure import errors
from patchwave.domain.azure.errors import MAX_TEXT, ArmFailure, ErrorDetail
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.azure.patch_results import InstallResult
from patchwave.domain.core import outcome, patches
from patchwave.domain.core.documents import Document
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import AssessmentSummary, InstallationSummary
from patchwave.domain.machine import health, hooks, preflight
from patchwave.domain.machine.preflight import Preflight, Readiness
from patchwave.domain.maintenance import occurrence
from patchwave.domain.notifications import events
from patchwave.domain.planning import placement_codec
from patchwave.domain.planning.placement_codec import PlacedMachine
from patchwave.domain.policy.gates import ErrorBudget, OnExceeded
from patchwave.domain.runs import error_budget, intent, machine_record, run, window_results
from patchwave.domain.runs.run import Mode, Step
from patchwave.domain.workflow import machine, maintenance_run, operation, phase
from patchwave.domain.workflow import run as run_messages
from patchwave.domain.workflow.machine import (
    MachineRef,
    MachineWork,
    PreflightRequest,
    PreflightResult,
    RecordOutcome,
    Verified,
    VerifyRequest,
)
from patchwave.domain.workflow.operation import (
    AwaitOperation,
    OperationRef,
    OperationReport,
    OperationState,
    StartOperation,
    StartResult,
    StartState,
)
from patchwave.domain.workflow.phase import PendingMachines, Phase, ReconcileRequest
from patchwave.domain.workflow.run import MachineOptions
from tests.support.azure_bodies import ESM_ERROR, installation, linux_patch

# A machine in the function's history costs what these messages weigh; queue messages over 64 KB leave the queue.
MAX_MESSAGE = 8 * 1024
MAX_PHASE = 192 * 1024
MAX_KEYS = 48 * 1024

CONVERTER = FunctionsDataConverter()


def documents_of(module: ModuleType) -> list[type[Document]]:
    found = [
        each
        for _, each in inspect.getmembers(module, inspect.isclass)
        if issubclass(each, Document) and each.__module__ == module.__name__
    ]
    assert found, module
    return found


# Beside them these modules have sections of the policy, whose rules random values do not keep.
ASIDE: list[type[Document]] = [
    health.HealthRequest,
    health.HealthResult,
    hooks.ScriptRequest,
    hooks.HookResult,
    events.NoticeChannels,
    events.SendResult,
    events.NoticeReport,
]
DOCUMENTS = [
    *(
        each
        for module in (
            run_messages,
            phase,
            machine,
            operation,
            placement_codec,
            run,
            machine_record,
            intent,
            window_results,
            error_budget,
            patches,
            outcome,
            preflight,
            errors,
            occurrence,
            maintenance_run,
        )
        for each in documents_of(module)
    ),
    *ASIDE,
]
MESSAGES = [
    *(
        each
        for module in (run_messages, phase, machine, operation, placement_codec, maintenance_run, error_budget)
        for each in documents_of(module)
    ),
    *ASIDE,
]

texts = st.text(alphabet=st.characters(exclude_categories=["Cs"]), max_size=20)
# Milliseconds are what our documents keep.
instants = st.datetimes(
    min_value=datetime(2000, 1, 1),  # noqa: DTZ001 - the zone stands below
    max_value=datetime(2100, 1, 1),  # noqa: DTZ001 - the zone stands below
    timezones=st.just(UTC),
).map(lambda moment: moment.replace(microsecond=moment.microsecond // 1000 * 1000))
plain = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
st.register_type_strategy(datetime, instants)
# Whole seconds, as policies write them.
st.register_type_strategy(timedelta, st.integers(0, 999_999).map(lambda seconds: timedelta(seconds=seconds)))
st.register_type_strategy(str, texts)
st.register_type_strategy(float, st.floats(0, 10_000, allow_nan=False))
st.register_type_strategy(
    InstallResult,
    st.builds(lambda count: InstallResult.model_validate(installation(failedPatchCount=count)), st.integers(0, 9)),
)

shares = st.none() | st.integers(0, 1_000) | st.integers(1, 100).map("{}%".format)
st.register_type_strategy(
    ErrorBudget,
    st.builds(
        lambda wave, lane, ring, run, on_exceeded: ErrorBudget(
            wave=wave, lane=lane, ring=ring, run=run, on_exceeded=on_exceeded
        ),
        shares,
        shares,
        shares,
        shares,
        st.sampled_from(OnExceeded),
    ),
)


def built(kind: type[Document]) -> st.SearchStrategy[Document]:
    special: dict[str, st.SearchStrategy[Any]] = {
        name: st.none() | st.dictionaries(texts, plain, max_size=3)
        for name in kind.model_fields
        if name in ("policy_snapshot", "parameters")
    }
    given_fields = {
        name: special.get(name, st.from_type(cast("type[Any]", field.annotation)))
        for name, field in kind.model_fields.items()
    }
    # Not st.builds: it reads the aliases in the signature, and would give every field twice.
    return st.fixed_dictionaries(given_fields).map(lambda fields: kind(**fields))


# A default that is a factory is no value of the field. The function, not its strategy: a document may hold another that
# is registered after it.
for each_kind in DOCUMENTS:
    st.register_type_strategy(each_kind, built)


def through_functions(wire: object) -> object:
    """What arrives on the other side: both ways into the codec that the library has."""
    text = df_dumps(wire)
    assert CONVERTER.serialize(wire) == text
    assert df_loads(text, dict) == CONVERTER.deserialize(text, dict)
    return CONVERTER.deserialize(text, dict)


@pytest.mark.parametrize("kind", DOCUMENTS)
@settings(max_examples=15, deadline=None)
@given(data=st.data())
def test_a_document_crosses_unchanged(kind: type[Document], data: st.DataObject) -> None:
    document = data.draw(built(kind))
    wire = document.to_wire()
    arrived = through_functions(wire)
    assert arrived == wire
    assert kind.model_validate(arrived) == document


def test_the_codec_does_change_what_is_no_plain_json() -> None:
    with pytest.raises((TypeError, AttributeError, ValueError)):
        through_functions(Outcome.canceled())


@pytest.mark.parametrize("kind", DOCUMENTS)
def test_keys_on_the_wire_are_camel_case(kind: type[Document]) -> None:
    aliases = [field.alias or name for name, field in kind.model_fields.items()]
    assert all("_" not in alias and alias[0].islower() for alias in aliases)


RUN_ID = "20261110T190000Z-" + "p" * 48 + "-9f3a2c41"
KEY = "a1b2c3d4e5f6a1b2c3d4e5f6"
ACTIVITY = "68f8b292-dfc2-4646-9781-33cc88631968"
NOW = datetime(2026, 11, 10, 19, 0, tzinfo=UTC)
OUTCOME = Outcome(outcome=OutcomeKind.FAILED, reason=Reason.OPERATION_FAILED, message="x" * 400)
FOUND = AssessmentSummary(
    status="Succeeded", critical_and_security=132, other=8, needs_subscription=131, at=NOW, activity_id=ACTIVITY
)
DONE = InstallationSummary(status="Succeeded", installed=32, activity_id=ACTIVITY, started_at=NOW)
FAILURE = ArmFailure(
    status=200,
    code="VMGuestPatchInternalError",
    message="y" * 500,
    details=[ErrorDetail(code="PACKAGE_MANAGER_FAILURE", message="z" * 128)] * 5,
)
RESULT = InstallResult.model_validate(installation(error=ESM_ERROR))

TYPICAL: list[Document] = [
    MachineWork(
        run_id=RUN_ID,
        machine_key=KEY,
        step=Step.PATCH,
        options=MachineOptions(mode=Mode.PATCH, start_stopped=True, hooks=True, health=True),
        phase="patch:19.99.599",
        attempt=999,
    ),
    MachineRef(run_id=RUN_ID, machine_key=KEY),
    PreflightRequest(run_id=RUN_ID, machine_key=KEY, start_stopped=True),
    PreflightResult(
        preflight=Preflight(readiness=Readiness.WAIT, outcome=OUTCOME),
        assess_activity_id=ACTIVITY,
        install_activity_id=ACTIVITY,
        assessment=FOUND,
    ),
    StartOperation(run_id=RUN_ID, machine_key=KEY, kind=OperationKind.INSTALL, previous_activity_id=ACTIVITY),
    StartResult(state=StartState.ENDED, outcome=OUTCOME),
    OperationRef(run_id=RUN_ID, machine_key=KEY, kind=OperationKind.INSTALL),
    AwaitOperation(run_id=RUN_ID, machine_key=KEY, kind=OperationKind.INSTALL, polls=120),
    OperationReport(state=OperationState.ENDED, assessment=FOUND),
    OperationReport(state=OperationState.ENDED, installation=RESULT),
    OperationReport(state=OperationState.FAILED, failure=FAILURE),
    VerifyRequest(run_id=RUN_ID, machine_key=KEY, installed_at=NOW),
    Verified(is_ready=True, reboot_pending=False),
    RecordOutcome(run_id=RUN_ID, machine_key=KEY, outcome=OUTCOME, phase="patch:19.99.599", installation=DONE),
]


@pytest.mark.parametrize("message", TYPICAL, ids=lambda message: type(message).__name__)
def test_messages_of_a_machine_stay_small(message: Document) -> None:
    wire = message.to_wire()
    assert len(df_dumps(wire).encode()) <= MAX_MESSAGE
    assert type(message).model_validate(through_functions(wire)) == message


def test_the_longest_error_of_azure_still_fits() -> None:
    body = json.dumps({"error": {"code": "C", "message": "m" * 50_000, "details": [{"message": "d" * 50_000}] * 3}})
    report = OperationReport(state=OperationState.FAILED, failure=errors.read_failure(200, body))
    assert len(df_dumps(report.to_wire())) <= 4 * (MAX_TEXT + 100) + 512
    verdict = errors.classify(errors.read_failure(200, body)).to_outcome(errors.read_failure(200, body))
    recorded = RecordOutcome(run_id=RUN_ID, machine_key=KEY, outcome=verdict, phase="patch:19.99.599")
    assert len(df_dumps(recorded.to_wire())) <= MAX_MESSAGE


def test_a_phase_at_its_fullest_stays_below_the_limit_of_a_payload() -> None:
    machines = [
        PlacedMachine(
            key=f"{number:024x}",
            lane=f"region{number % 12}",
            wave=number % 40,
            wave_size=50,
            permits=[f"1||tag:cluster=sql-{number // 2}", f"1|{number % 3}|zones:region{number % 12}", "1000||run"],
        )
        for number in range(1_700)
    ]
    phase = Phase(
        run_id=RUN_ID,
        step=Step.PATCH,
        options=MachineOptions(mode=Mode.PATCH, start_stopped=True),
        cursor="c" * 200,
        waiting=machines[:700],
        running=machines[700:],
        started=10_000,
    )
    assert len(df_dumps(phase.to_wire())) <= MAX_PHASE
    page = PendingMachines(machines=machines[:100], cursor="c" * 200)
    assert len(df_dumps(page.to_wire())) <= MAX_MESSAGE
    keys = [machine.key for machine in machines]
    assert len(df_dumps(ReconcileRequest(run_id=RUN_ID, step=Step.PATCH, keys=keys).to_wire())) <= MAX_KEYS


def test_the_result_of_a_poll_has_no_list_of_patches_and_no_url() -> None:
    result = InstallResult.model_validate(installation(patches=[linux_patch(installationState="Installed")] * 500))
    report = OperationReport(state=OperationState.ENDED, installation=result.model_copy(update={"patches": []}))
    assert len(df_dumps(report.to_wire())) <= MAX_MESSAGE


@pytest.mark.parametrize("kind", MESSAGES)
def test_no_message_has_room_for_a_signed_url(kind: type[Document]) -> None:
    assert not [name for name in kind.model_fields if "url" in name or "token" in name or "secret" in name]
