"""Activities of a run, called one by one: for faults that take hours in the whole product."""

from __future__ import annotations

from activities.machine import record_outcome
from activities.poll_operation import poll_operation
from activities.submit_operation import submit
from orchestrators.operation import unfinished
from patchwave.domain.azure.operation import OperationKind
from patchwave.domain.core.outcome import Outcome
from patchwave.domain.workflow.machine import RecordOutcome
from patchwave.domain.workflow.operation import (
    OperationRef,
    OperationReport,
    OperationState,
    StartOperation,
    StartResult,
    StartState,
)
from patchwave.storage import Storage
from patchwave.wiring import Services
from tests.support.simulated_run import RUN_ID, create_run
from tests.support.simulator import Simulator


async def prepare(storage: Storage, one: str, *, location: str = "westeurope") -> str:
    """A patch run that has this machine as well; the machine's key."""
    (key,) = await create_run(storage, one, location=location)
    return key


async def install(services: Services, key: str) -> StartResult:
    """One execution of ``submit``."""
    request = StartOperation(run_id=RUN_ID, machine_key=key, kind=OperationKind.INSTALL)
    return await submit(services, request)


async def accepted_installation(services: Services, storage: Storage, one: str) -> str:
    """An installation that Azure has accepted; the machine's key."""
    key = await prepare(storage, one)
    assert (await install(services, key)).state is StartState.ACCEPTED
    return key


async def poll(services: Services, key: str) -> OperationReport:
    """One execution of ``poll_operation``."""
    request = OperationRef(run_id=RUN_ID, machine_key=key, kind=OperationKind.INSTALL)
    return await poll_operation(services, request)


async def poll_to_the_end(services: Services, key: str, *, most: int = 5_000) -> tuple[OperationReport, int]:
    """Poll without the waits between, until there is an end; what it is, and after how many polls."""
    for polls in range(1, most + 1):
        report = await poll(services, key)
        if report.state is not OperationState.RUNNING:
            return report, polls
    raise AssertionError(f"no end after {most} polls")


def outcome_of(report: OperationReport) -> Outcome:
    """How the machine ends when its installation brings no result."""
    return unfinished(OperationKind.INSTALL, report).outcome


async def record(services: Services, key: str, outcome: Outcome, *, keep_lease: bool = False) -> None:
    """One execution of ``record_outcome``."""
    request = RecordOutcome(run_id=RUN_ID, machine_key=key, phase="patch", outcome=outcome, keep_lease=keep_lease)
    await record_outcome(services, request)


def sent(azure: Simulator, one: str) -> int:
    """How many installation calls about the machine the simulator has answered."""
    requests = azure.http.get("/_sim/requests", params={"operation": "install"}).json()["requests"]
    return sum(str(request["machine"]).lower() == one.lower() for request in requests)


def fault(azure: Simulator, one: str, operation: str, *, times: int | None = None, **effect: object) -> None:
    """Make requests about a machine go wrong."""
    rule = {"match": {"machine": one, "operation": operation}, "effect": effect}
    if times is not None:
        rule |= {"times": times}
    reply = azure.http.post("/_sim/faults", json=rule)
    assert reply.status_code == 201, reply.text
