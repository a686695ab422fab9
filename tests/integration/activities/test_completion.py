"""How a machine ends its step, on real tables: what is kept of it, what its phase reads, and its lock."""

from __future__ import annotations

import pytest

from activities.machine import record_outcome, release_machine
from patchwave.domain.core.outcome import Outcome, OutcomeKind, Reason
from patchwave.domain.core.patches import InstallationSummary
from patchwave.domain.runs.machine_record import MachineRecord, Stage
from patchwave.domain.workflow.machine import MachineEnded, RecordOutcome, ReleaseMachine
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.factories import NOW, machine, run
from tests.support.phase_calls import HOUR, PHASE, RUN, poll

DONE = InstallationSummary(status="Succeeded", installed=3, pending=1, reboot_status="Required", adopted=True)
PATCHED = Outcome(outcome=OutcomeKind.PATCHED, reason=Reason.OK, message="3 patches are installed.")
FAILED = Outcome(outcome=OutcomeKind.FAILED, reason=Reason.PATCHES_FAILED, message="1 patch failed.")


@pytest.fixture
async def locked(storage: Storage) -> MachineRecord:
    """A machine of a run that works on it."""
    await storage.runs.create(run())
    await storage.runs.start(RUN, NOW)
    one = machine(1, stage=Stage.VERIFYING)
    await storage.machines.add(RUN, [one])
    assert await storage.leases.acquire(one.key, RUN, NOW, NOW + HOUR) in ("", RUN)
    return one


async def kept(storage: Storage, one: MachineRecord) -> MachineRecord:
    found = await storage.machines.get(RUN, one.key)
    assert found is not None
    return found


@pytest.mark.parametrize(("outcome", "failed"), [(PATCHED, False), (FAILED, True)])
async def test_an_end_keeps_what_was_installed_and_completes_its_machine(
    services: Services, storage: Storage, locked: MachineRecord, outcome: Outcome, failed: bool
) -> None:
    request = RecordOutcome(
        run_id=RUN, machine_key=locked.key, outcome=outcome, phase=PHASE, attempt=2, installation=DONE
    )
    stored = await record_outcome(services, request)
    found = await kept(storage, locked)
    assert (found.outcome, found.reason, found.message) == (outcome.outcome, outcome.reason, outcome.message)
    assert found.installation == DONE
    assert stored.failed is failed
    assert (await poll(services)).ended == [MachineEnded(key=locked.key, attempt=2, failed=failed)]
    assert await storage.leases.held([locked.key], RUN, NOW) == set()


async def test_an_end_may_keep_its_lock(services: Services, storage: Storage, locked: MachineRecord) -> None:
    request = RecordOutcome(run_id=RUN, machine_key=locked.key, outcome=FAILED, phase=PHASE, attempt=1, keep_lease=True)
    await record_outcome(services, request)
    assert await storage.leases.held([locked.key], RUN, NOW) == {locked.key}


@pytest.mark.parametrize("keep_lease", [False, True])
async def test_a_machine_that_waits_for_its_next_step_keeps_what_was_installed(
    services: Services, storage: Storage, locked: MachineRecord, keep_lease: bool
) -> None:
    request = ReleaseMachine(
        run_id=RUN,
        machine_key=locked.key,
        stage=Stage.INSTALLED,
        phase=PHASE,
        attempt=3,
        installation=DONE,
        requeued=True,
        keep_lease=keep_lease,
    )
    await release_machine(services, request)
    found = await kept(storage, locked)
    assert (found.stage, found.installation, found.outcome) == (Stage.INSTALLED, DONE, None)
    assert (await poll(services)).ended == [MachineEnded(key=locked.key, attempt=3, requeued=True)]
    assert await storage.leases.held([locked.key], RUN, NOW) == ({locked.key} if keep_lease else set())
