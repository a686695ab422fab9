"""Every kind of machine ends with the outcome, the reason and the records that it should."""

from __future__ import annotations

import httpx

from tests.support.product import Product

CASES = [
    ({}, "patched", "ok"),
    ({"pendingPatches": 0}, "nothing_to_install", "no_pending_patches"),
    ({"power": "stopped"}, "skipped", "not_running"),
    ({"power": "deallocated"}, "skipped", "not_running"),
    ({"agent": "notReady"}, "skipped", "agent_not_ready"),
    ({"agent": "missing"}, "skipped", "agent_not_ready"),
    ({"architecture": "Arm64"}, "failed", "operation_failed"),
    ({"imageUnsupported": True}, "skipped", "unsupported"),
    ({"pendingPatches": 3, "needsUbuntuPro": 5}, "patched_with_warnings", "subscription_required"),
    ({"pendingPatches": 3, "rebootRequired": True, "rebootBehavior": "required"}, "reboot_required", "reboot_pending"),
    ({"pendingPatches": 3, "rebootRequired": True, "rebootBehavior": "fails"}, "reboot_required", "reboot_failed"),
    ({"pendingPatches": 3, "rebootRequired": True}, "patched", "ok"),
    ({"pendingPatches": 5, "windowTooShort": True}, "timed_out", "window_exceeded"),
    ({"busy": True}, "skipped", "operation_conflict"),
    ({"pendingPatches": 4, "installFails": 2}, "failed", "patches_failed"),
    ({"pendingPatches": 4, "installWarns": True}, "patched_with_warnings", "completed_with_warnings"),
    ({"superseded": True}, "failed", "superseded"),
    ({"forbidden": True}, "skipped", "forbidden"),
    ({"gone": True}, "skipped", "not_found"),
]


async def test_each_kind_of_machine_ends_as_it_should(product: Product) -> None:
    # One of each pair is Linux, where Ubuntu Pro belongs, the other Windows.
    ids = {number: product.take(2, **simulation) for number, (simulation, _, _) in enumerate(CASES)}
    run_id = product.start([one for pair in ids.values() for one in pair])
    run = product.wait(run_id, timeout=90)
    assert run["state"] == "completed"
    assert run["machines"] == 2 * len(CASES)
    machines = product.machines(run_id)
    wrong: list[str] = []
    for number, (simulation, outcome, reason) in enumerate(CASES):
        pair = ids[number][:1] if "needsUbuntuPro" in simulation else ids[number]
        for one in pair:
            row = machines[one.lower()]
            if (row["outcome"], row["reason"]) != (outcome, reason):
                wrong.append(f"{simulation}: {row['outcome']}/{row['reason']}: {row['message']}")
            assert row["stage"] == "done"
            assert row["message"]
            assert row["endedAt"]
            assert product.accepted(one).get("install", 0) <= 1
    assert not wrong, "\n".join(wrong)


def test_patched_machines_have_nothing_pending_in_azure(product: Product) -> None:
    ids = product.take(2)
    machines = product.patch(ids)
    for one in ids:
        row = machines[one.lower()]
        assert row["assessment"]["criticalAndSecurity"] == 3
        assert row["installation"]["installed"] == 3
        assert row["installation"]["failed"] == 0
    again = product.patch(ids)
    assert {row["outcome"] for row in again.values()} == {"nothing_to_install"}


def test_a_stopped_machine_is_started_patched_and_stopped_again(product: Product) -> None:
    stopped, deallocated = product.take(1, power="stopped") + product.take(1, power="deallocated")
    machines = product.patch([stopped, deallocated], startStopped=True)
    assert {row["outcome"] for row in machines.values()} == {"patched"}
    assert product.state(stopped)["power"] in ("stopped", "stopping")
    assert product.state(deallocated)["power"] in ("deallocated", "deallocating")


def test_an_assess_run_installs_nothing(product: Product) -> None:
    pending, clean = product.take(1, pendingPatches=3) + product.take(1, pendingPatches=0)
    run_id = product.start([pending, clean], mode="assess")
    product.wait(run_id)
    machines = product.machines(run_id)
    assert (machines[pending.lower()]["outcome"], machines[pending.lower()]["reason"]) == (
        "assessed",
        "patches_pending",
    )
    assert machines[clean.lower()]["reason"] == "no_pending_patches"
    assert product.accepted(pending) == {"assess": 1, "install": 0}


def test_a_machine_on_hold_is_left_alone(product: Product) -> None:
    (one,) = product.take(1)
    path = f"{one}?api-version=2025-04-01"
    tags = {"env": "test", "PatchWave-Hold": "audit until Friday"}
    reply = product.azure.patch(path, json={"tags": tags}, headers=_token(product))
    assert reply.status_code == 200, reply.text
    row = product.patch_one(one)
    assert (row["outcome"], row["reason"]) == ("skipped", "hold_tag")
    assert "audit until Friday" in row["message"]


def _token(product: Product) -> dict[str, str]:
    environment = product.stack.simulator["environment"]
    reply = httpx.get(
        environment["IDENTITY_ENDPOINT"],
        params={"resource": product.stack.arm, "api-version": "2019-08-01"},
        headers={"X-IDENTITY-HEADER": environment["IDENTITY_HEADER"]},
    )
    return {"Authorization": f"Bearer {reply.json()['access_token']}"}
