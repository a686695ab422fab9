"""The boundary: which writes may leave the app, decided by method and address alone."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from patchwave.azure.boundary import OutsideBoundary
from patchwave.domain.azure.errors import OUTSIDE_BOUNDARY, ArmFailure, ErrorClass, classify
from patchwave.domain.core.outcome import Reason
from patchwave.domain.fleet.discovery import evaluate_boundary, select_machines
from patchwave.domain.policy.boundary import Boundary
from patchwave.domain.policy.scope import Scope

OURS = "11111111-2222-4333-8444-555555555555"
THEIRS = "99999999-2222-4333-8444-555555555555"
HOST = "https://management.azure.com"
VM = "resourceGroups/rg/providers/Microsoft.Compute/virtualMachines/vm"
SNAPSHOT = "providers/Microsoft.Compute/snapshots/patchwave-1"
DRAWN = Boundary.of([OURS])
ANYWHERE = Boundary()


def made_of(disk: str) -> str:
    return json.dumps({"properties": {"creationData": {"createOption": "Copy", "sourceResourceId": disk}}})


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", f"/subscriptions/{THEIRS}/{VM}/installPatches"),
        ("POST", f"/SUBSCRIPTIONS/{THEIRS.upper()}/{VM}/installPatches"),
        ("PATCH", f"/subscriptions/{THEIRS}/{VM}"),
        ("DELETE", f"/subscriptions/{THEIRS}/resourceGroups/rg/{SNAPSHOT}"),
        ("PUT", f"/subscriptions/{THEIRS}/providers/Microsoft.Maintenance/configurationAssignments/a"),
        ("post", f"/subscriptions/{THEIRS}/{VM}/start"),
        ("BREW", f"/subscriptions/{THEIRS}/{VM}"),
        ("POST", f"/subscriptions/{OURS}/../{THEIRS}/{VM}/start"),
        ("POST", f"/subscriptions/{OURS}/%2e%2e/{THEIRS}/{VM}/start"),
        ("POST", f"//subscriptions/{OURS}/{VM}/start"),
        ("POST", f"/x/subscriptions/{OURS}/{VM}/start"),
        ("POST", f"/subscriptions/{OURS}0/{VM}/start"),
        ("POST", "/providers/Microsoft.Management/managementGroups/all"),
        ("PUT", "/subscriptions/"),
        ("PUT", "/"),
    ],
)
def test_no_write_leaves_the_boundary(method: str, path: str) -> None:
    assert "PATCHWAVE_SUBSCRIPTIONS" in DRAWN.reason_not_to_send(method, HOST + path + "?api-version=1")
    assert ANYWHERE.reason_not_to_send(method, HOST + path) == ""


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", f"/subscriptions/{THEIRS}/{VM}"),
        ("HEAD", "/"),
        ("POST", "/providers/Microsoft.ResourceGraph/resources"),
        ("POST", f"/subscriptions/{OURS.upper()}/{VM}/installPatches"),
        ("PUT", f"/subscriptions/{OURS}/providers/Microsoft.Maintenance/configurationAssignments/a"),
        ("DELETE", f"/subscriptions/{OURS}/resourceGroups/anything/{SNAPSHOT}"),
        ("POST", f"/subscriptions/{OURS}/resourceGroups/rg-l%C3%A4den/providers/Microsoft.Compute/virtualMachines/a"),
    ],
)
def test_what_reads_or_stays_inside_is_sent(method: str, path: str) -> None:
    assert DRAWN.reason_not_to_send(method, HOST + path + "?api-version=1") == ""


@given(st.sampled_from(["POST", "PUT", "PATCH", "DELETE"]), st.uuids(), st.text(max_size=40))
def test_a_write_names_a_subscription_of_the_boundary_or_stays(method: str, subscription: object, rest: str) -> None:
    told = DRAWN.reason_not_to_send(method, f"{HOST}/subscriptions/{subscription}/{rest}")
    assert bool(told) == (str(subscription) != OURS)


@pytest.mark.parametrize(
    ("group", "body", "is_sent"),
    [
        ("rg", made_of(f"/subscriptions/{OURS}/resourceGroups/RG/providers/Microsoft.Compute/disks/d"), True),
        ("rg-Keep", made_of(f"/subscriptions/{OURS}/resourceGroups/rg/providers/Microsoft.Compute/disks/d"), True),
        ("loot", made_of(f"/subscriptions/{OURS}/resourceGroups/rg/providers/Microsoft.Compute/disks/d"), False),
        ("rg", made_of(f"/subscriptions/{THEIRS}/resourceGroups/rg/providers/Microsoft.Compute/disks/d"), False),
        ("rg", made_of(f"/subscriptions/{OURS}/resourceGroups/rg/providers/Microsoft.Compute/snapshots/d"), False),
        ("rg", "{}", False),
        ("rg", "", False),
        ("rg", "[" * 10_000, False),
    ],
)
def test_a_snapshot_goes_to_the_group_of_its_disk_or_to_a_listed_one(group: str, body: str, is_sent: bool) -> None:
    url = f"{HOST}/subscriptions/{OURS}/resourceGroups/{group}/{SNAPSHOT}?api-version=1"
    for boundary in (Boundary.of([OURS], ["RG-keep"]), Boundary.of(snapshot_groups=["rg-keep"])):
        told = boundary.reason_not_to_send("PUT", url, body.encode())
        assert (told == "") is is_sent
        assert is_sent or "PATCHWAVE_SNAPSHOT_GROUPS" in told


@pytest.mark.parametrize(
    ("scope", "is_needed"),
    [
        ({"osTypes": ["Linux"]}, True),
        ({"osTypes": ["Linux"], "exclude": {"subscriptions": [THEIRS]}}, True),
        ({"subscriptions": [OURS]}, False),
        ({"osTypes": ["Linux"], "tags": {"values": {"env": ["test"]}}}, False),
    ],
)
def test_a_scope_of_nothing_but_systems_needs_one(scope: object, is_needed: bool) -> None:
    assert ANYWHERE.is_needed_by(Scope.model_validate(scope)) is is_needed
    assert not DRAWN.is_needed_by(Scope.model_validate(scope))


def test_a_machine_outside_stays_in_the_list_with_the_reason() -> None:
    rows = [{"id": f"/subscriptions/{each}/{VM}"} for each in (OURS, THEIRS)]
    inside, beyond = evaluate_boundary(select_machines(Scope(), rows), DRAWN)
    assert (inside.problem, beyond.problem_reason) == ("", Reason.OUTSIDE_BOUNDARY)
    assert THEIRS in beyond.problem
    assert evaluate_boundary([inside, beyond], ANYWHERE) == [inside, beyond]
    [odd] = evaluate_boundary(select_machines(Scope(), [{"id": f"/subscriptions/{THEIRS}/odd"}]), DRAWN)
    assert odd.problem_reason is Reason.UNREADABLE_ID


def test_a_request_outside_of_the_boundary_is_forbidden() -> None:
    assert OutsideBoundary.__name__ == OUTSIDE_BOUNDARY
    verdict = classify(ArmFailure(status=0, code=OUTSIDE_BOUNDARY, message="no"))
    assert (verdict.kind, verdict.reason) == (ErrorClass.FORBIDDEN, Reason.OUTSIDE_BOUNDARY)
    # A word of ours in an answer of Azure's is only a word.
    assert classify(ArmFailure(status=409, code=OUTSIDE_BOUNDARY)).reason is not Reason.OUTSIDE_BOUNDARY
