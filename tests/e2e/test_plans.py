"""Drafts from the real service: the route, Azure over HTTPS behind it, and nothing left behind."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from patchwave.cli.app import run
from patchwave.domain.planning.plan import Plan
from tests.support.product import Product


def test_a_draft_of_the_live_fleet(
    product: Product, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    ids = product.take(8)
    file = tmp_path / "policy.json"
    file.write_text(json.dumps({"scope": {"machineIds": [*ids, ids[0].replace("/vm-", "/gone-")]}, "maxConcurrent": 3}))
    monkeypatch.setenv("PATCHWAVE_URL", product.stack.url)
    monkeypatch.delenv("PATCHWAVE_KEY", raising=False)
    runs_before = product.api.get("/api/runs").json()["runs"]
    assert run(["plan", "--live", "--policy", str(file), "-o", "json"]) == 0
    plan = Plan.model_validate(json.loads(capsys.readouterr().out))
    assert {machine.id for machine in plan.machines} == set(ids)
    assert [machine.reason for machine in plan.excluded] == ["not_found"]
    # Both regions of the test fleet are a pair.
    assert all(len(phase) == 1 for phase in plan.rings[0].phases)
    assert product.api.get("/api/runs").json()["runs"] == runs_before
    books = product.azure.get("/_sim/accepted").json()
    assert not set(ids) & set(books)
