"""Flexible scale sets: the queries, asked of the simulator's Resource Graph, and what their rows tell."""

from __future__ import annotations

from typing import Any

import pytest

from local.azure_simulator.resource_graph.query import Query
from patchwave.domain.fleet.scale_sets import ScaleSet, all_scale_sets, read_scale_set, scale_set_queries

SUBSCRIPTION = "11111111-1111-1111-1111-111111111111"
SETS = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg/providers/Microsoft.Compute/virtualMachineScaleSets"
COLUMNS = {"id", "type", "properties"}


def resource(name: str, mode: str = "Flexible", **properties: Any) -> dict[str, Any]:
    kind = "microsoft.compute/virtualmachinescalesets"
    return {"id": f"{SETS}/{name}", "type": kind, "properties": {"orchestrationMode": mode} | properties}


def model(*kinds: str) -> dict[str, Any]:
    extensions = [{"name": kind, "properties": {"type": kind}} for kind in kinds]
    disk = {"osDisk": {"osType": "Linux"}}
    profile = {"storageProfile": disk} | ({"extensionProfile": {"extensions": extensions}} if kinds else {})
    return {"virtualMachineProfile": profile, "platformFaultDomainCount": 1}


def read(text: str, *resources: dict[str, Any]) -> list[ScaleSet | None]:
    return [read_scale_set(row) for row in Query(text, {"resources": COLUMNS}).run(list(resources))]


@pytest.mark.parametrize(
    ("shown", "monitors_health"),
    [
        (model("CustomScript", "ApplicationHealthLinux"), True),
        (model("applicationHealthWindows"), True),
        (model("CustomScript"), False),
        (model(), False),
        ({}, None),
    ],
)
def test_the_model_tells_whether_members_are_watched(shown: dict[str, Any], monitors_health: bool | None) -> None:
    [found] = read(all_scale_sets(), resource("web", **shown), resource("old", "Uniform", **model()))
    assert found is not None
    assert (found.name, found.monitors_health, found.fault_domains) == ("web", monitors_health, 1 if shown else None)


def test_sets_are_asked_for_by_their_ids() -> None:
    named = [f"{SETS}/web", f"{SETS}/WEB", "nothing", *(f"{SETS}/set-{number:03}" for number in range(200))]
    first, second = scale_set_queries(named)
    assert (first.subscriptions, second.subscriptions) == ((SUBSCRIPTION,), (SUBSCRIPTION,))
    found = read(second.text, resource("Web", **model()), resource("set-000", **model()))
    assert [each.name for each in found if each] == ["Web"]
    assert scale_set_queries(["nothing"]) == []


@pytest.mark.parametrize("domains", [0, -1, True, "1", None, [1]])
def test_odd_rows_tell_nothing(domains: object) -> None:
    assert read_scale_set({"id": f"{SETS}/web", "faultDomains": domains, "extensions": ["x", None]}) == ScaleSet(
        id=f"{SETS}/web", monitors_health=False
    )
    assert read_scale_set({"id": "/subscriptions/x", "faultDomains": domains}) is None
