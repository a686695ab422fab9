"""What Azure sends, and what an impostor could: read without an exception, into what can be stored."""

from __future__ import annotations

import json
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import hypothesis.strategies as st
import pytest
from hypothesis import example, given

from patchwave.domain.azure.errors import ArmFailure, classify, parse_retry_after, read_failure
from patchwave.domain.azure.instance_view import MachineView
from patchwave.domain.azure.operation import (
    PollReading,
    UnsafeUrl,
    check_operation_url,
    operation_id,
    read_location,
    read_operation,
)
from patchwave.domain.azure.patch_results import AssessResult, InstallResult, PatchSummary
from patchwave.domain.azure.rate_limit import is_of_one_machine, read_levels
from patchwave.domain.core.documents import object_or_none, parse_instant, parse_object
from patchwave.domain.core.ids import MachineId
from patchwave.domain.fleet.discovery import select_machines
from patchwave.domain.fleet.exclusions import hold_reason
from patchwave.domain.machine.alerts import Alert, evaluate_alerts
from patchwave.domain.machine.health import read_signals, summarize
from patchwave.domain.machine.preflight import evaluate
from patchwave.domain.machine.resource_health import Availability, evaluate_availability
from patchwave.domain.machine.script import read_script_end, shorten_output
from patchwave.domain.machine.snapshot import OsDisk, SnapshotView, expired_run, snapshot_of
from patchwave.domain.maintenance.event_sources import EventSources
from patchwave.domain.maintenance.events import read_event
from patchwave.domain.policy.boundary import Boundary
from patchwave.domain.policy.health import AlertVeto
from patchwave.domain.policy.scope import Scope
from tests.fuzz.corpus import HOSTILE, anything, bodies, budget, changed, crosses, objects, spoiled, storable, texts
from tests.support import azure_bodies as wire

NOW = datetime(2026, 11, 10, 19, 0, tzinfo=UTC)
MACHINE = wire.machine(
    patchStatus={
        "availablePatchSummary": json.loads(wire.DOCUMENTED_ASSESSMENT),
        "lastPatchInstallationSummary": json.loads(wire.DOCUMENTED_INSTALLATION),
    },
    vmAgent=wire.READY_AGENT,
    vmHealth={"status": {"code": "HealthState/healthy"}},
    platformUpdateDomain=1,
)
OPERATIONS = (
    json.loads(wire.IN_PROGRESS),
    json.loads(wire.ended(wire.installation(patches=[wire.linux_patch(), wire.esm_patch()], error=wire.ESM_ERROR))),
    json.loads(wire.ended(wire.assessment(availablePatches=[wire.linux_patch()]))),
    json.loads(wire.failed("VMGuestPatchInternalError", "it failed", details=[{"code": "A", "message": "b"}])),
    json.loads(wire.refusal("OperationNotAllowed", "busy", innererror={"exceptiontype": "x"})),
    wire.installation(),
)
STATUSES = st.sampled_from([200, 201, 202, 204, 301, 400, 401, 403, 404, 409, 410, 429, 500, 503, 0, 999])


@budget()
@given(STATUSES, bodies(*OPERATIONS))
def test_polls_of_operations(status: int, body: str) -> None:
    for read in (read_operation, read_location):
        reading = read(status, body)
        failure = reading.failure
        if failure is not None:
            crosses(failure.to_wire())
            assert PollReading.model_validate(reading.to_wire()) == reading
        for kind in (AssessResult, InstallResult):
            _summarize(kind.model_validate(reading.result))


def _summarize(result: AssessResult | InstallResult) -> None:
    crosses(result.summarize().to_wire())
    for patch in result.available_patches if isinstance(result, AssessResult) else result.patches:
        crosses(patch.to_record().to_wire())


@budget()
@given(STATUSES, bodies(*OPERATIONS), texts)
def test_refusals(status: int, body: str, header: str) -> None:
    failure = read_failure(status, body, retry_after=parse_retry_after(header, NOW))
    storable(failure.text)
    crosses(failure.to_wire())
    assert ArmFailure.model_validate(failure.to_wire()) == failure
    crosses(classify(failure).to_outcome(failure).to_wire())


@budget(40)
@given(st.one_of(texts, st.datetimes().map(lambda at: at.strftime("%a, %d %b %Y %H:%M:%S GMT")), st.floats().map(str)))
@example("Sun, 31 Dec 9999 23:59:59 -2359")
@example("Mon, 01 Jan 0001 00:00:00 +2359")
@example("1_0")
def test_how_long_to_wait(header: str) -> None:
    seconds = parse_retry_after(header, NOW)
    assert seconds is None or 0 <= seconds <= 3_600


@budget()
@given(st.one_of(changed(MACHINE), objects))
def test_views_of_machines(body: object) -> None:
    document = object_or_none(body) or {}
    view = MachineView.model_validate(document)
    crosses(evaluate(view, start_stopped=True).to_wire())
    storable(hold_reason(view.tags or {}) or "")
    for text in (view.agent_message, view.vm_health, view.update_domain, view.location, view.os_type):
        storable(text)
    crosses(summarize(read_signals(view, NOW), NOW).to_wire())
    for summary in (view.last_assessment, view.last_installation):
        if summary is not None:
            _summarize(summary.to_install_result())
            _summarize(summary.to_assess_result())
    disk = OsDisk.read(document)
    if disk is not None:
        crosses(disk.to_wire())


@budget()
@given(st.one_of(objects, changed(json.loads(wire.DOCUMENTED_INSTALLATION))))
def test_summaries_of_patches(body: object) -> None:
    if isinstance(body, dict):
        storable(PatchSummary.model_validate(body).activity_id)


ROW: dict[str, Any] = {
    "id": f"/subscriptions/{wire.SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm-1",
    "name": "vm-1",
    "subscriptionId": wire.SUBSCRIPTION,
    "resourceGroup": "rg",
    "location": "westeurope",
    "zones": ["1"],
    "tags": {"env": "test"},
    "osType": "Linux",
    "powerState": "PowerState/running",
    "imageReference": {"publisher": "canonical", "offer": "ubuntu", "sku": "24_04", "version": "latest"},
}


@budget()
@given(st.lists(st.one_of(changed(ROW), objects), max_size=5))
def test_rows_of_resource_graph(rows: list[Any]) -> None:
    scope = Scope.model_validate({"tags": {"values": {"env": ["test"]}}})
    found = select_machines(scope, [row for row in rows if isinstance(row, dict)])
    assert [each.machine_id.folded for each in found] == sorted({each.machine_id.folded for each in found})
    for machine in found:
        crosses(machine.model_dump(mode="json"))


ALERT: dict[str, Any] = {
    "name": "High CPU",
    "properties": {
        "essentials": {
            "severity": "Sev1",
            "alertState": "New",
            "monitorCondition": "Fired",
            "alertRule": "/subscriptions/x/providers/microsoft.insights/metricAlerts/cpu",
            "targetResource": ROW["id"],
            "startDateTime": "2026-11-10T18:00:00Z",
        }
    },
}


@budget()
@given(st.lists(st.one_of(changed(ALERT), objects), max_size=8))
def test_alerts(items: list[Any]) -> None:
    alerts = [Alert.model_validate(item) for item in items if isinstance(item, dict)]
    outcome = evaluate_alerts(alerts, ROW["id"], AlertVeto(), NOW)
    crosses(outcome.to_wire() if outcome else {})


AVAILABILITY = {"properties": {"availabilityState": "Unavailable", "summary": "It is down.", "reasonType": "Planned"}}


@budget()
@given(st.one_of(changed(AVAILABILITY), objects))
def test_answers_of_resource_health(body: object) -> None:
    if isinstance(body, dict):
        crosses(evaluate_availability(Availability.model_validate(body)).to_wire())


SCRIPT = {
    "value": [{"code": "ProvisioningState/succeeded", "message": "ok:\n[stdout]\nhi\npatchwave-exit:0\n[stderr]\n"}]
}


@budget()
@given(st.one_of(changed(SCRIPT), objects))
def test_ends_of_scripts(body: object) -> None:
    if isinstance(body, dict):
        end = read_script_end(body)
        shown = shorten_output(end.output)
        assert len(shown.encode("utf-8", "replace")) <= 2_048


SNAPSHOT = {
    "tags": {"patchwave-expires": "2026-11-11T00:00:00Z"},
    "properties": {"provisioningState": "Succeeded", "completionPercent": 100.0},
}


@budget()
@given(st.one_of(changed(SNAPSHOT), objects))
@example({"properties": {"completionPercent": 10**400}})
def test_snapshots(body: object) -> None:
    if isinstance(body, dict):
        view = SnapshotView.model_validate(body)
        assert not (view.is_ready and view.has_failed)
        expired_run(snapshot_of("20261110T190000Z-monthly", MachineId.parse(ROW["id"]), None), view.tags or {}, NOW)
        view.expires()


EVENT: dict[str, Any] = {
    "id": "1",
    "topic": ROW["id"].partition("/resourceGroups")[0],
    "eventType": "Microsoft.Resources.ResourceWriteSuccess",
    "subject": ROW["id"],
    "data": {"operationName": "Microsoft.Compute/virtualMachines/write", "resourceUri": ROW["id"]},
}


@budget()
@given(st.one_of(changed(EVENT), objects))
def test_events(document: object) -> None:
    if isinstance(document, dict):
        event = read_event(document)
        assert event is None or event.id
        if event is not None:
            assert EventSources.of(["/subscriptions"], Boundary()).reason_to_ignore(event) is not None


@budget(40)
@given(st.one_of(texts, spoiled(wire.ASYNC_URL), spoiled(wire.LOCATION_URL)))
def test_addresses_of_operations(url: str) -> None:
    operation_id(url)
    with suppress(UnsafeUrl):
        assert check_operation_url(url, wire.MANAGER, wire.SUBSCRIPTION) == url
        parts = urlsplit(url)
        assert (parts.scheme, parts.hostname, parts.username) == ("https", "management.azure.com", None)


@budget(20)
@given(st.dictionaries(st.one_of(texts, st.sampled_from(["x-ms-ratelimit-remaining-resource"])), texts, max_size=3))
@example({"x-ms-ratelimit-remaining-resource": "Microsoft.Compute/PutVM;٣,Microsoft.Compute/x;999999999"})
def test_levels_of_buckets(headers: dict[str, str]) -> None:
    assert all(level >= 0 for level in read_levels(headers).values())
    is_of_one_machine(headers)


@budget(40)
@given(anything)
def test_moments(value: object) -> None:
    moment = parse_instant(value)
    assert moment is None or moment.tzinfo is UTC


@budget(20)
@given(bodies(EVENT))
def test_objects_in_texts(text: str) -> None:
    found = parse_object(text)
    assert found is None or isinstance(found, dict)


@pytest.mark.parametrize("text", HOSTILE)
def test_every_status_of_azure(text: str) -> None:
    """Unknown words never mean success."""
    reading = read_operation(200, json.dumps({"status": text}))
    assert reading.state.value != "succeeded" or text.casefold() == "succeeded"
