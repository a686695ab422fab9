"""Hooks and restarts apart, in the whole product."""

from __future__ import annotations

import pytest

from tests.support.product import Product

REBOOT = {
    "pendingPatches": [{"name": "kernel", "classification": "Security", "needsReboot": True}],
    "rebootRequired": True,
}
SCRIPTS = {"linux": "echo hello", "windows": "Write-Output hello"}


def test_a_machine_gets_its_snapshot_and_its_scripts(product: Product) -> None:
    (one,) = product.take()
    row = product.patch_one(one, hooks={"snapshot": {}, "before": SCRIPTS, "after": SCRIPTS})
    assert (row["outcome"], row["reason"]) == ("patched", "ok"), row["message"]
    assert row["snapshotId"].lower() in row["rollbackInstructions"].lower()
    assert "az vm update" in row["rollbackInstructions"]
    puts = product.azure.get("/_sim/requests", params={"operation": "snapshot", "method": "PUT"}).json()["requests"]
    assert [each["path"] for each in puts].count(row["snapshotId"]) == 1
    order = [each["operation"] for each in product.requests(one, "")]
    assert [each for each in order if each in ("script", "install")] == ["script", "install", "script"]


@pytest.mark.parametrize("hooks", [{"snapshot": {}}, {"before": SCRIPTS}], ids=["snapshot", "script"])
def test_a_failed_hook_skips_the_machine_and_only_it(product: Product, hooks: dict[str, object]) -> None:
    bad, good = product.take(2)
    product.simulate(bad, snapshotFails=True, scriptExit=3)
    rows = product.patch([bad, good], hooks=hooks)
    assert (rows[bad.lower()]["outcome"], rows[bad.lower()]["reason"]) == ("skipped", "hook_failed")
    assert rows[good.lower()]["outcome"] == "patched"
    assert product.accepted(bad).get("install", 0) == 0


def test_a_failed_script_after_the_installation_is_reported(product: Product) -> None:
    (one,) = product.take(scriptExit=7)
    row = product.patch_one(one, hooks={"after": SCRIPTS})
    assert (row["outcome"], row["reason"]) == ("patched", "ok")
    assert "exit code 7" in row["message"]


def test_machines_restart_apart_from_their_installation(product: Product) -> None:
    ids = product.take(2, **REBOOT)
    rows = product.patch(ids, rebootMode="separate")
    for one in ids:
        row = rows[one.lower()]
        assert (row["outcome"], row["reason"]) == ("patched", "ok"), row["message"]
        assert "was restarted" in row["message"]
        assert len([each for each in product.requests(one, "power") if each["path"].endswith("/restart")]) == 1
        assert product.state(one)["rebootPending"] is False
        [install] = product.requests(one, "install")
        assert install["body"]["rebootSetting"] == "Never"
