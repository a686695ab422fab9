"""Roles in the whole product: the headers of App Service through the host and the worker to the records."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.http_calls import TENANT, signed_in
from tests.support.product import Product

ANA = "aaaaaaaa-2222-4333-8444-555555555555"
CLEO = "cccccccc-2222-4333-8444-555555555555"
BEN = "bbbbbbbb-2222-4333-8444-555555555555"
RINGS: list[dict[str, Any]] = [{"name": "all", "approval": {"within": "PT4H", "requireSecondPerson": True}}]


@pytest.fixture
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Product]:
    """A product behind App Service authentication."""
    product = Product.open(
        tmp_path_factory.mktemp("guarded"),
        PATCHWAVE_AUTHORIZATION="roles",
        PATCHWAVE_TENANT_ID=TENANT,
        WEBSITE_AUTH_ENABLED="True",
    )
    yield product
    product.close()


def test_cleo_writes_a_policy_ana_starts_it_and_ben_approves(guarded: Product) -> None:
    api = guarded.api
    ana = signed_in(ANA, "operator", "approver", name="ana@example.org")
    cleo = signed_in(CLEO, "author", "approver", name="cleo@example.org")
    ben = signed_in(BEN, "approver", name="ben@example.org")
    policy = {"scope": {"machineIds": guarded.take()}, "maxConcurrent": 1, "rings": RINGS}
    assert api.post("/api/runs", json={"policy": policy}).status_code == 401
    assert api.put("/api/policies/guarded", json=policy, headers=ana).status_code == 403
    assert api.put("/api/policies/guarded", json=policy, headers=cleo).status_code == 201
    for body in (
        {"policy": "guarded"},
        {"policy": policy},
        {"policy": "guarded", "overrides": {"rings": None}},
        {"policy": "guarded", "overrides": {"maxConcurrent": 2}},
    ):
        who = ben if len(body) == 1 and body["policy"] == "guarded" else ana
        assert api.post("/api/runs", json=body, headers=who).status_code == 403, body
    narrowed = {"policy": "guarded", "overrides": {"install": {"rebootSetting": "Never"}}}
    started = api.post("/api/runs", json=narrowed, headers=ana)
    assert started.status_code == 202, started.text
    assert (started.json()["trigger"]["actor"], started.json()["trigger"]["actorId"]) == ("ana@example.org", ANA)
    path = f"/api/runs/{started.json()['id']}"
    assert [api.post(f"{path}/pause", headers=who).status_code for who in (ben, ana)] == [403, 202]
    wrote = api.post(f"{path}/approve", json={"ring": "all"}, headers=cleo)
    assert (wrote.status_code, "another person" in wrote.json()["detail"]) == (403, True)
    own = api.post(f"{path}/approve", json={"ring": "all"}, headers=ana)
    assert (own.status_code, "another person" in own.json()["detail"]) == (403, True)
    assert api.post(f"{path}/approve", json={"ring": "all"}, headers=ben).status_code == 202
    assert api.get(path, headers=ben).json()["decisions"]["all"]["actorId"] == BEN
    assert api.get("/api/health").status_code == 200
    started_by, *_ = api.get(f"{path}/audit", headers=ben).json()["audit"]
    assert (started_by["actor"], started_by["actorId"], started_by["proven"]) == ("ana@example.org", ANA, True)
    refused = api.get("/api/audit/refused?limit=100", headers=ben).json()["audit"]
    traced = {(line["actorId"], line["detail"]["function"], line["detail"]["status"]) for line in refused}
    assert traced == {
        ("", "start_run", 401),
        (ANA, "put_policy", 403),
        (BEN, "start_run", 403),
        (ANA, "start_run", 403),
        (BEN, "pause_run", 403),
        (CLEO, "approve_ring", 403),
        (ANA, "approve_ring", 403),
    }
