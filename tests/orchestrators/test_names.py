"""Instance ids fit what Durable Functions takes: at most 100 characters, none of ``/ \\ # ?``, not beginning with @."""

from __future__ import annotations

from datetime import UTC, datetime

from patchwave.domain.core.ids import MAX_RUN_ID, MachineId, RunId
from patchwave.domain.workflow import instance_ids

MACHINE = MachineId.parse(
    "/subscriptions/11111111-1111-1111-1111-111111111111/resourceGroups/rg"
    "/providers/Microsoft.Compute/virtualMachines/vm"
)


def test_the_longest_instance_id_fits() -> None:
    run_id = RunId.of(datetime(2026, 11, 21, tzinfo=UTC), "a" * 32, "0" * 8).text
    assert len(run_id) == MAX_RUN_ID
    assert RunId.parse(run_id).text == run_id
    for step in ("assess", "patch"):
        machine = instance_ids.machine(run_id, step, MACHINE.key)
        for kind in ("assess", "install"):
            instance = instance_ids.operation(machine, kind, 3)
            if (step, kind) != ("assess", "install"):  # the assess step installs nothing
                assert len(instance) <= 100
            assert not set(instance) & set("/\\#?")


def test_a_machine_that_was_requeued_in_every_window_of_a_run_still_fits() -> None:
    run_id = RunId.of(datetime(2026, 11, 21, tzinfo=UTC), "a" * 32, "0" * 8).text
    instances = {instance_ids.machine(run_id, "patch", MACHINE.key, attempt) for attempt in range(1, 36)}
    assert len(instances) == 35
    assert max(len(instance_ids.operation(one, "install", 3)) for one in instances) <= 100
    assert instance_ids.machine(run_id, "patch", "key", 37) == f"{run_id}:patch11:key"
