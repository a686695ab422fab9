"""Names in every script go the whole way: fleet, Resource Graph, storage, Resource Manager, and every view."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from patchwave.cli.app import run
from tests.support.product import PLAIN, Product

SUBSCRIPTION = "3f2b9a64-71c8-4d05-9e1a-8c6d5f0b7e42"
# unicode-machine-fleet.json and its likes: each pair is one name to str.casefold or str.lower, and two to Azure.
NAMES = ["vm-größe", "ascii-01", "патч-01", "サーバー", "vm-straße", "vm-strasse", "vm-ılk", "vm-ilk"]
ODD = "vm..odd"
"""Not a name that Azure gives; Resource Graph lists it all the same."""
POLICY: dict[str, Any] = {
    "scope": {"subscriptions": [SUBSCRIPTION], "tags": {"values": {"größe": ["Süd"]}}},
    "health": {"enabled": False},
}


def arm_id(name: str, group: str = "rg-läden") -> str:
    return f"/subscriptions/{SUBSCRIPTION}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{name}"


@pytest.fixture(scope="module")
def product(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    folder = tmp_path_factory.mktemp("names")
    machines = [
        {
            "id": arm_id(name),
            "name": name,
            "resourceGroup": "rg-läden",
            "location": "westeurope",
            # Azure compares names of tags without case, and so do we their values.
            "tags": {"GRÖßE": "süd"},
            "storageProfile": {"osDisk": {"osType": "Linux"}},
            "simulation": PLAIN,
        }
        for name in [*NAMES, ODD]
    ]
    fleet = folder / "fleet.json"
    fleet.write_text(json.dumps(machines, ensure_ascii=False), encoding="utf-8")
    opened = Product.open(folder / "state", fleet)
    try:
        yield opened
    finally:
        opened.close()


@pytest.fixture
def command(product: Product, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHWAVE_URL", product.stack.url)
    monkeypatch.delenv("PATCHWAVE_KEY", raising=False)


def start(product: Product, policy: dict[str, Any]) -> str:
    reply = product.api.post("/api/runs", json={"policy": policy})
    assert reply.status_code == 202, reply.text
    return str(reply.json()["id"])


@pytest.mark.usefixtures("command")
def test_the_live_plan_has_every_machine(product: Product, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "policy.yaml"
    file.write_text(json.dumps(POLICY, ensure_ascii=False), encoding="utf-8")
    assert run(["plan", "--live", "--policy", str(file), "-o", "json"]) == 0
    plan = json.loads(capsys.readouterr().out)
    assert {machine["id"] for machine in plan["machines"]} == {arm_id(name) for name in NAMES}
    assert [(machine["id"], machine["reason"]) for machine in plan["excluded"]] == [(arm_id(ODD), "unreadable_id")]
    assert ODD in plan["excluded"][0]["detail"]


def test_every_view_counts_every_machine(product: Product) -> None:
    ids = {arm_id(name) for name in [*NAMES, ODD]}
    modes = product.api.get("/api/fleet/modes").json()
    assert {machine["id"] for machine in modes["machines"]} == ids
    assert modes["counts"]["machines"] == 9
    odd = next(machine for machine in modes["machines"] if machine["id"] == arm_id(ODD))
    assert ODD in odd["sentence"]

    eligibility = product.api.get("/api/fleet/eligibility").json()
    assert eligibility["machines"] == 9
    assert eligibility["byCause"]["unreadable_id"] == 1

    doctor = product.api.get("/api/fleet/doctor").json()
    assert doctor["machines"] == 9
    assert doctor["findingsByKind"]["unmanageable"] == 1
    findings = [finding for finding in doctor["findings"] if finding["kind"] == "unmanageable"]
    assert [finding["subject"] for finding in findings] == [arm_id(ODD)]


def test_a_run_patches_every_machine_and_reports_what_it_cannot(product: Product) -> None:
    run_id = start(product, POLICY)
    ended = product.wait(run_id)
    assert ended["countsByOutcome"] == {"patched": 8, "skipped": 1}
    rows = {row["id"]: row for row in product.api.get(f"/api/runs/{run_id}/machines").json()["machines"]}
    assert {rows[arm_id(name)]["outcome"] for name in NAMES} == {"patched"}
    odd = rows[arm_id(ODD)]
    assert (odd["outcome"], odd["reason"]) == ("skipped", "unreadable_id")
    assert ODD in odd["message"]
    for name in NAMES:
        assert product.accepted(arm_id(name)) == {"assess": 1, "install": 1}
    again = product.api.post(f"/api/runs/{run_id}/machines/{odd['key']}/retry")
    assert again.status_code == 409


@pytest.mark.parametrize("name", ["VM-GRÖßE", "ПАТЧ-01"])
def test_a_machine_is_named_in_whatever_case(product: Product, name: str) -> None:
    run_id = start(product, {"scope": {"machineIds": [arm_id(name, "RG-LÄDEN")]}, "health": {"enabled": False}})
    ended = product.wait(run_id)
    assert ended["machines"] == 1
    [row] = product.api.get(f"/api/runs/{run_id}/machines").json()["machines"]
    assert row["id"] == arm_id(name.lower())
    assert row["outcome"] in ("patched", "nothing_to_install")


@pytest.mark.parametrize(
    ("out", "left_out"),
    [
        ({"machineIds": [arm_id("VM-STRAßE"), arm_id("vm-ılk")]}, {"vm-straße", "vm-ılk"}),
        ({"resourceGroups": ["RG-LÄDEN"]}, {*NAMES, ODD}),
        ({"resourceGroups": ["rg-laden"]}, set()),
    ],
)
def test_an_exclusion_leaves_out_what_it_names_and_no_other(
    product: Product, out: dict[str, Any], left_out: set[str]
) -> None:
    policy = POLICY | {"scope": POLICY["scope"] | {"exclude": out}}
    plan = product.api.post("/api/plans", json={"policy": policy}).json()
    considered = {machine["id"] for machine in [*plan["machines"], *plan["excluded"]]}
    assert considered == {arm_id(name) for name in {*NAMES, ODD} - left_out}
