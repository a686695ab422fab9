"""Two rings, the second pinned to the first, while the vendors go on publishing."""

from __future__ import annotations

from typing import Any

from tests.support.product import Product


def linux(version: str, *older: str) -> list[dict[str, Any]]:
    return [
        {"name": "openssl", "version": version, "classification": "Security", "older": list(older)},
        {"name": f"only-beside-{version}", "version": "1", "classification": "Security"},
    ]


def windows(*kbs: str) -> list[dict[str, Any]]:
    return [
        {
            "name": f"Update {kb}",
            "kb": kb,
            "classification": "Security",
            "published": f"2026-11-{10 + number}T18:00:00Z",
        }
        for number, kb in enumerate(kbs)
    ]


def installed(product: Product, run_id: str, one: str) -> set[str]:
    """What the run says it installed on a machine: KB numbers, or ``name=version``."""
    key = product.machines(run_id)[one.lower()]["key"]
    patches = product.api.get(f"/api/runs/{run_id}/machines/{key}").json()["patches"]
    return {
        f"KB{patch['kbId']}" if patch["kbId"] else f"{patch['name']}={patch['version']}"
        for patch in patches
        if patch["state"] == "Installed"
    }


def test_the_second_ring_gets_what_the_first_one_got_and_nothing_newer(product: Product) -> None:
    canary, canary_windows, broad, broad_windows, needless, _ = product.take(6)
    product.simulate(canary, pendingPatches=linux("1.2"))
    product.simulate(canary_windows, pendingPatches=windows("5000001"))
    product.simulate(broad, pendingPatches=linux("1.3", "1.1", "1.2"))
    product.simulate(broad_windows, pendingPatches=windows("5000001", "5000002"))
    product.simulate(needless, pendingPatches=[{"name": "vim", "version": "9", "classification": "Security"}])
    everyone = [canary, canary_windows, broad, broad_windows, needless]
    rings = [{"name": "canary", "machineIds": [canary, canary_windows]}, {"name": "broad"}]
    run_id = product.start(everyone, rings=rings, pinRings=True)
    assert product.wait(run_id)["state"] == "completed"
    assert installed(product, run_id, canary) == {"openssl=1.2", "only-beside-1.2=1"}
    assert installed(product, run_id, canary_windows) == {"KB5000001"}
    assert installed(product, run_id, broad) == {"openssl=1.2"}
    assert installed(product, run_id, broad_windows) == {"KB5000001"}
    machines = product.machines(run_id)
    assert {machines[one.lower()]["outcome"] for one in everyone[:4]} == {"patched"}
    left = machines[needless.lower()]
    assert (left["outcome"], left["reason"]) == ("nothing_to_install", "not_pinned")
    assert [machines[one.lower()]["ring"] for one in everyone] == ["canary", "canary", "broad", "broad", "broad"]
    assert product.accepted(needless).get("install", 0) == 0
