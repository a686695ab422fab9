"""No document of a request costs more than half a second of processor time, accepted or not.

While a document is judged, the service answers nothing else. Policies have the same rule in `test_policy`.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import pytest
from pydantic import BaseModel, ValidationError

from patchwave.api.maintenance_assignments import AssignmentRequest
from patchwave.api.patch_mode_changes import ChangeRequest
from patchwave.api.problems import ApiProblem, invalid_body
from patchwave.domain.core.ids import ConfigurationId
from patchwave.domain.core.validation import explain
from patchwave.domain.maintenance.assignment import Assignment, ScopeFilter, assignment_name, check_assignment
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration
from patchwave.domain.maintenance.events import read_event
from patchwave.domain.maintenance.validation import advice, check_configuration
from patchwave.domain.policy.policy import PolicyError, apply_overrides, merge_patch, parse_inline_policy
from patchwave.domain.scheduling.freeze import FreezeError, parse_freeze
from patchwave.services.errors import InvalidRequest
from patchwave.services.strict_json import parse_json
from tests.support.processor_time import least_seconds

NOW = datetime(2026, 12, 1, tzinfo=UTC)
SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg"
CONFIGURATION = ConfigurationId.parse(f"{GROUP}/providers/Microsoft.Maintenance/maintenanceConfigurations/weekly")
FREEZE = {"from": "2026-12-20", "to": "2027-01-03", "timeZone": "Europe/Berlin", "reason": "Year end"}
POLICY = {"name": "monthly", "scope": {"subscriptions": [SUBSCRIPTION]}}
SCHEDULED = {"time": "22:00", "timeZone": "UTC", "window": "PT4H", "startDate": "2026-12-01"}
WINDOW = {"startDateTime": "2027-01-12 22:00", "duration": "03:55", "timeZone": "UTC", "recurEvery": "Week Monday"}
PATCHES = {"windowsParameters": {"classificationsToInclude": ["Critical"]}}
LONG = "x" * 200_000


def configuration(
    window: dict[str, Any] | None = None, patches: dict[str, Any] | None = None, **more: Any
) -> dict[str, Any]:
    properties = {
        "maintenanceScope": "InGuestPatch",
        "extensionProperties": {"InGuestPatchMode": "User"},
        "maintenanceWindow": WINDOW | (window or {}),
        "installPatches": PATCHES | (patches or {}),
    }
    return {"location": "westeurope", "properties": properties | more}


def deep(levels: int) -> object:
    found: object = 1
    for _ in range(levels):
        found = {"a": found}
    return found


FREEZES: list[Any] = [
    FREEZE | {"policies": [f"p{number}" for number in range(30_000)]},
    FREEZE | {"timeZone": "Europe/Berlim" * 15_000},
    FREEZE | {"from": "1" * 200_000, "timeZone": LONG},
    FREEZE | {"reason": LONG},
    FREEZE | {f"unknown{number}": 1 for number in range(15_000)},
    FREEZE | {LONG: 1},
    FREEZE | {"tags": {"values": {f"t{number}": ["a"] for number in range(15_000)}}},
    FREEZE | {"tags": {"values": {"t": [f"v{number}" for number in range(20_000)]}}},
    FREEZE | {"tags": {f"k{number}": 1 for number in range(15_000)}},
    [FREEZE] * 2_000,
]
POLICIES: list[Any] = [
    {f"fleet{number}": 1 for number in range(15_000)},
    {"schedule": SCHEDULED | {"recurrence": "RRULE:FREQ=DAILY;INTERVAL=7;BYDAY=MO"}},
    {"schedule": SCHEDULED | {"recurrence": "RRULE:FREQ=WEEKLY;BYDAY=MO;BYSETPOS=2"}},
    {"schedule": SCHEDULED | {"recurrence": "RRULE:FREQ=WEEKLY;BYDAY=MO,TU,WE,TH,FR,SA,SU;BYSETPOS=8;INTERVAL=1"}},
    {"schedule": SCHEDULED | {"recurrence": "RRULE:FREQ=MONTHLY;BYDAY=MO,TU,WE,TH,FR,SA,SU;BYSETPOS=32"}},
    {"schedule": SCHEDULED | {"recurrence": "2026-12-01," * 15_000}},
    {"schedule": SCHEDULED | {"recurrence": "second Tuesday", "timeZone": "Europe/Berlim" * 15_000}},
    {"schedule": SCHEDULED | {"recurrence": "second Tuesday", "window": "PT" + "1" * 200_000 + "H"}},
    {"rings": [{"name": f"ring{number}", "after": f"ring{number + 1}"} for number in range(20)] * 200},
    {"rings": [{"name": "same", "percent": 5} for _ in range(5_000)]},
    {"phases": [["westeurope"] * 200] * 80},
    {"phases": [["westeurope"]] * 8_000},
    {"install": {"windows": {"kbNumbersToExclude": [f"KB{number}" for number in range(15_000)]}}},
    {"install": {"linux": {"packageNameMasksToExclude": [f"p{number}*" for number in range(15_000)]}}},
    {"install": {"linux": {"packageNameMasksToExclude": ["*" * 200_000]}}},
    {"install": {"windows": {"classificationsToInclude": ["Criticl"] * 15_000}}},
    {"hooks": [{"name": f"h{number}"} for number in range(8_000)]},
    {"notifications": [{"name": f"n{number}"} for number in range(8_000)]},
    {"notify": {"channels": [f"c{number}" for number in range(8_000)]}},
    {"health": {"probes": [{"url": f"https://a/{number}"} for number in range(5_000)]}},
    {"maintenance": {"configurations": [f"{GROUP}/x{number}" for number in range(2_000)]}},
    {"a": deep(900)},
]
CHANGES: list[Any] = [
    {"scope": {"machineIds": ["nonsense"] * 20_000}, "patchMode": "AutomaticByPlatform"},
    {"scope": {"machineIds": [f"{GROUP}/providers/Microsoft.Compute/virtualMachines/v{n}" for n in range(2_000)]}},
    {"scope": {"resourceGroups": [f"g{number}" for number in range(20_000)]}, "patchMode": "Manual"},
    {"scope": {"locations": [f"l{number}" for number in range(20_000)]}, "patchMode": "Manual"},
    {f"patchMod{number}": 1 for number in range(15_000)},
    {"scope": {f"machineId{number}": 1 for number in range(15_000)}},
    {"patchMode": LONG, "reason": LONG},
    {LONG: 1},
]
CONFIGURATIONS: list[Any] = [
    configuration({"recurEvery": "Month " + "Monday," * 30_000}),
    configuration({"recurEvery": "Week " + ",".join(["Monday"] * 30_000)}),
    configuration({"recurEvery": LONG}),
    configuration({"recurEvery": "1" * 200_000 + "Days"}),
    configuration({"recurEvery": "Month day" + ",day".join(str(n % 31) for n in range(40_000))}),
    configuration({"timeZone": "W. Europe Standard Tim" * 9_000}),
    configuration({"startDateTime": "2" * 200_000}),
    configuration({"duration": "0" * 200_000 + ":30"}),
    configuration({f"unknown{number}": 1 for number in range(15_000)}),
    configuration(patches={"windowsParameters": {"classificationsToInclude": ["Criticl"] * 20_000}}),
    configuration(patches={"windowsParameters": {"kbNumbersToExclude": [f"KB{n}" for n in range(20_000)]}}),
    configuration(patches={"linuxParameters": {"packageNameMasksToExclude": [f"p{n}*" for n in range(20_000)]}}),
    configuration(patches={"linuxParameters": {"packageNameMasksToInclude": ["*a" * 100_000]}}),
    configuration(patches={"linuxParameters": {"packageNameMasksToExclude": ["x"] * 20_000}}),
    configuration(visibility=LONG),
    configuration() | {"tags": {f"t{number}": "a" for number in range(15_000)}},
    configuration() | {"tags": {LONG: LONG[:1000]}},
    configuration() | {f"unknown{number}": 1 for number in range(15_000)},
    deep(900),
]
ASSIGNMENTS: list[Any] = [
    {"filter": {"tagSettings": {"tags": {f"t{number}": ["a"] for number in range(15_000)}}}},
    {"filter": {"tagSettings": {"tags": {"t": [f"v{number}" for number in range(20_000)]}}}},
    {"filter": {"tagSettings": {"tags": {"t": ["v"] * 20_000}}}},
    {"filter": {"locations": [f"l{number}" for number in range(20_000)]}},
    {"filter": {"locations": ["westeurope"] * 15_000}},
    {"filter": {"resourceGroups": [f"g{number}" for number in range(20_000)]}},
    {"filter": {"resourceGroups": ["g"] * 30_000}},
    {"filter": {"osTypes": ["Linu"] * 20_000}},
    {"filter": {"resourceTypes": ["x"] * 30_000}},
    {"filter": {f"x{number}": 1 for number in range(15_000)}},
    {"resourceId": "/subscriptions/" + LONG},
    {"resourceId": "/" * 200_000},
    {"configurationId": "/subscriptions" * 15_000},
    {"name": LONG},
    {f"unknown{number}": 1 for number in range(15_000)},
]
EVENTS: list[Any] = [
    {"eventType": LONG, "id": "1"},
    {"type": "Microsoft.Maintenance.PreMaintenanceEvent", "id": "/subscriptions/" * 15_000, "data": {}},
    {"type": "Microsoft.Maintenance.PreMaintenanceEvent", "id": "1", "data": {f"k{n}": n for n in range(15_000)}},
    {
        "type": "Microsoft.Maintenance.PreMaintenanceEvent",
        "id": f"{GROUP}/providers/Microsoft.Maintenance/applyUpdates/1",
        "data": {"ResourceSubscriptionIds": [SUBSCRIPTION] * 6_000, "StartDateTime": "1" * 1_000},
    },
    {"type": "Microsoft.Resources.ResourceWriteSuccess", "id": "1", "subject": "/" * 200_000},
    {"type": "Microsoft.Resources.ResourceWriteSuccess", "id": "1", "subject": f"{GROUP}/" + "a/" * 90_000},
]
BODIES: list[bytes] = [
    b"[" * 200_000,
    b'{"a":' * 40_000,
    b"1" * 260_000,
    b'{"a":' + b"9" * 260_000 + b"}",
    b'"' + b"\\u00e9" * 40_000 + b'"',
    b"{" + b",".join(b'"k%d":1' % n for n in range(20_000)) + b"}",
    b"[" + b"1e400," * 40_000 + b"1]",
]


def read[T: BaseModel](kind: type[T], body: object) -> T:
    """What a route does with a body of this form."""
    try:
        return kind.model_validate(body)
    except ValidationError as error:
        raise invalid_body(*explain(error, kind)) from error


def judge_configuration(body: dict[str, Any]) -> object:
    wanted = read(MaintenanceConfiguration, {**body, "id": str(CONFIGURATION)})
    return [*check_configuration(wanted, NOW), *advice(wanted, NOW)]


def judge_change(body: dict[str, Any]) -> object:
    before = read(MaintenanceConfiguration, {**configuration(), "id": str(CONFIGURATION)})
    wanted = read(MaintenanceConfiguration, merge_patch(before.to_wire(), body))
    return check_configuration(wanted, NOW, before) + check_configuration(wanted, NOW, wanted)


def judge_assignment(body: dict[str, Any]) -> object:
    given = read(
        AssignmentRequest,
        {"configurationId": str(CONFIGURATION), "resourceId": f"/subscriptions/{SUBSCRIPTION}"} | body,
    )
    criteria = given.filter or ScopeFilter()
    wanted = Assignment(
        id="",
        name=assignment_name(CONFIGURATION, criteria),
        maintenance_configuration_id=given.configuration_id,
        resource_id=given.resource_id,
        filter=criteria,
    )
    return check_assignment(wanted), wanted.scope, wanted.is_same_as(wanted)


def rings(name: str) -> dict[str, Any]:
    """As many rings and machines as a request has room for."""
    ids = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{name}/providers/Microsoft.Compute/virtualMachines/{name}"
    return {
        "scope": POLICY["scope"],
        "rings": [
            {"name": f"ring{ring}", "machineIds": [f"{ids}{ring * 103 + number}" for number in range(103)]}
            for ring in range(20)
        ],
    }


READERS: dict[str, tuple[Callable[[Any], object], list[Any]]] = {
    "freeze": (lambda body: parse_freeze(body, name="year-end"), FREEZES),
    "plan": (lambda body: parse_inline_policy({"scope": POLICY["scope"]} | body), POLICIES),
    "override": (lambda body: apply_overrides(POLICY, body), POLICIES),
    "change of modes": (lambda body: read(ChangeRequest, body), CHANGES),
    "configuration": (judge_configuration, CONFIGURATIONS),
    "change of a configuration": (judge_change, CONFIGURATIONS),
    "assignment": (judge_assignment, ASSIGNMENTS),
    "delivery": (parse_json, BODIES),
    "event": (read_event, EVENTS),
}
CASES = [
    pytest.param(judge, body, id=f"{what}-{number}")
    for what, (judge, bodies) in READERS.items()
    for number, body in enumerate(bodies)
]


@pytest.mark.parametrize(("judge", "body"), CASES)
def test_no_document_of_a_request_costs_half_a_second(judge: Callable[[Any], object], body: object) -> None:
    sent = body if isinstance(body, bytes) else json.dumps(body).encode()

    def read() -> None:
        with contextlib.suppress(FreezeError, PolicyError, ApiProblem, InvalidRequest):
            judge(sent if isinstance(body, bytes) else parse_json(sent))

    assert least_seconds(read) < 0.5


def test_machine_ids_beyond_ascii_cost_little_more_than_others() -> None:
    # Names of their own for each try: what was folded once is kept.
    plain, foreign = (iter([rings(f"{letter}{number}") for number in range(3)]) for letter in ("e", "é"))
    others = least_seconds(lambda: parse_inline_policy(next(plain)))
    assert least_seconds(lambda: parse_inline_policy(next(foreign))) < 3 * others
