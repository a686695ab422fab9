"""How the patching of a fleet stands: for each machine its status with its settings, and what patches it next."""

from collections import Counter
from collections.abc import Iterable, Sequence

from pydantic import Field

from patchwave.domain.azure.instance_view import Power, power_of
from patchwave.domain.drift.fleet_index import PatchCoverage
from patchwave.domain.drift.next_patching import NextPatching
from patchwave.domain.drift.patch_mode_report import MachineModes, PatchModeCounts, count, describe
from patchwave.domain.fleet.patch_status import Enablement, PatchStatus, evaluate_enablement


class MachineStatus(MachineModes):
    """A machine with its settings, its status, and what patches it next."""

    status: PatchStatus
    enablement: Enablement
    next_patching: list[NextPatching] = Field(
        description="All that will patch it, the next one first; what has no known time is last."
    )


class PatchStatusCounts(PatchModeCounts):
    """A fleet in numbers. ``pending`` is of machines with a critical or security update that is not installed."""

    by_enablement: dict[str, int]
    by_result: dict[str, int] = Field(description="Results of the last installations; none for machines without one.")
    pending: int
    reboot_pending: int
    not_assessed: int = Field(description="Machines of which no assessment is known.")


def describe_status(
    coverage: PatchCoverage, status: PatchStatus, next_patching: Sequence[NextPatching], power: Power | None = None
) -> MachineStatus:
    """The row of a machine; ``power`` where something newer than Resource Graph tells it."""
    machine, modes = coverage.machine, dict(describe(coverage))
    shown = power_of(modes["power_state"]) if power is None else power
    if power is not None:
        modes["power_state"] = power.value
    enablement = evaluate_enablement(status, machine.settings, machine.eligibility, shown)
    return MachineStatus(**modes, status=status, enablement=enablement, next_patching=list(next_patching))


def count_status(machines: Iterable[MachineStatus]) -> PatchStatusCounts:
    listed = list(machines)
    results = Counter(each.status.installation.result_status if each.status.installation else "" for each in listed)
    return PatchStatusCounts(
        **dict(count(listed)),
        by_enablement=dict(sorted(Counter(each.enablement.state.value for each in listed).items())),
        by_result={result or "none": results[result] for result in sorted(results)},
        pending=sum(bool(each.status.assessment and each.status.assessment.critical_and_security) for each in listed),
        reboot_pending=sum(each.status.reboot_pending is True for each in listed),
        not_assessed=sum(each.status.assessment is None for each in listed),
    )
