"""pin_ring, and which patches a machine may install under ring pinning and approval delay.

The rules are in `patchwave.domain.machine.patch_pinning`.
"""

from __future__ import annotations

from collections.abc import Sequence

from activities.context import MachineContext, frozen_policy, now
from patchwave.domain.azure.install_request import LinuxParameters, WindowsParameters
from patchwave.domain.core.outcome import Outcome
from patchwave.domain.core.patches import AssessmentSummary, PatchRecord
from patchwave.domain.machine.patch_pinning import (
    Assessed,
    Delay,
    Installed,
    Pin,
    PinSize,
    as_seen,
    cannot_be_pinned,
    choose_linux,
    choose_packages,
    choose_windows,
    ended_well,
    package_list_unknown,
    pin_missing,
)
from patchwave.domain.machine.patch_selection import product_name, select, wanted_on
from patchwave.domain.planning.canary import can_be_pinned, canary_kinds, kind_of
from patchwave.domain.planning.topology import PlannerMachine
from patchwave.domain.policy.policy import Policy, WithoutPin
from patchwave.domain.policy.rollout import order_rings
from patchwave.domain.policy.scope import OsType
from patchwave.domain.runs.commands import is_approved, ring_not_approved
from patchwave.domain.runs.intent import Intent
from patchwave.domain.runs.machine_record import MachineRecord
from patchwave.domain.runs.run import Mode
from patchwave.domain.workflow.run import RingRef
from patchwave.storage import RecordMissing, Storage, in_parallel
from patchwave.wiring import Services

_PAGE = 500
_PARALLEL = 16


async def pin_ring(services: Services, request: RingRef) -> PinSize:
    """Store what a ring installed; the first pin of a run counts."""
    storage = services.storage
    pin = await storage.patch_pins.get(request.run_id)
    if pin is None:
        _, policy = await frozen_policy(storage, request.run_id)
        pin = await storage.patch_pins.save(request.run_id, await _read_ring(storage, request, policy))
    return pin.size


async def _read_ring(storage: Storage, request: RingRef, policy: Policy) -> Pin:
    """The pin of the ring: the patches that its successful machines installed."""
    installed = Installed()

    async def read(machine: MachineRecord) -> list[PatchRecord]:
        return await storage.results.list_patches(request.run_id, machine.key)

    machines = [machine async for machine in storage.machines.scan(request.run_id)]
    for start in range(0, len(machines), _PAGE):
        page = [each for each in machines[start : start + _PAGE] if each.ring == request.ring and ended_well(each)]
        for machine, patches in zip(page, await in_parallel(read, page, most=_PARALLEL), strict=True):
            os_type = OsType.read(machine.os_type)
            if os_type is not None:
                installed.add(os_type, patches)
    return installed.to_pin(request.ring, now(), canary_kinds([_in_scope(each) for each in machines], policy.rings))


def _in_scope(machine: MachineRecord) -> PlannerMachine:
    """The machine's fields that decide its ring."""
    return PlannerMachine(
        id=machine.id,
        key=machine.key,
        location=machine.location,
        os_type=machine.os_type,
        image=machine.image,
        tags=machine.tags,
    )


async def note_packages(storage: Storage, patches: Sequence[PatchRecord]) -> None:
    """Store the first-seen date of the Linux packages of an assessment, for any policy.

    The first policy with a delay then finds a history. A version that this worker has stored costs no request.
    """
    packages = [(product_name(patch.name), patch.version) for patch in patches if patch.version and not patch.kb_id]
    await storage.patch_pins.record_first_seen(OsType.LINUX, packages, now())


async def note_selection(
    storage: Storage, intent: Intent, found: AssessmentSummary, patches: Sequence[PatchRecord]
) -> AssessmentSummary:
    """The assessment with the patches that the run's policy selects; unchanged where that is unknown."""
    os_type = OsType.read(intent.os_type)
    if os_type is None:
        return found
    try:
        mode, policy = await frozen_policy(storage, intent.run_id)
    except RecordMissing:
        return found
    if mode is Mode.MAINTENANCE:
        # Update Manager's configuration decides what is installed.
        return found
    wanted = wanted_on(policy.install, os_type)
    return found.model_copy(update={"selection": select(wanted, found, patches)})


async def what_to_install(context: MachineContext, os_type: OsType) -> WindowsParameters | LinuxParameters | Outcome:
    """The install request's patch selection: the policy's, narrowed by pin and delay; else the machine's outcome.

    A machine after the first ring installs unpinned only where no pin can exist for it and the policy allows that.
    """
    wanted = wanted_on(context.policy.install, os_type)
    delay = _delay(context)
    storage = context.storage
    # In the first ring too: when a later ring's machine is retried there, its run still has a pin.
    pin = await storage.patch_pins.get(context.run.id) if context.policy.pin_rings else None
    if _is_pinned(context):
        if pin is None:
            return pin_missing(_first_ring(context))
        kind = kind_of(context.machine.os_type, context.machine.image)
        if pin.kinds is not None and not can_be_pinned(kind, pin.kinds):
            if context.policy.without_pin is WithoutPin.SKIP:
                return cannot_be_pinned(kind, pin)
            if context.policy.without_pin is WithoutPin.WAIT and not is_approved(context.run, context.machine.ring):
                return ring_not_approved(context.machine.ring)
            pin = None
    if pin is None and delay is None:
        return wanted
    summary = context.machine.assessment
    assessed = Assessed(
        patches=await storage.results.list_patches(context.run.id, context.machine.key),
        is_partial=summary is None or summary.list_is_partial,
    )
    if isinstance(wanted, WindowsParameters):
        return choose_windows(wanted, assessed, pin=pin, delay=delay)
    if pin is None and assessed.is_partial and not assessed.patches:
        return package_list_unknown()
    packages = choose_packages(wanted, assessed, pin=pin)
    if isinstance(packages, Outcome):
        return packages
    first_seen = await storage.patch_pins.first_seen(os_type, map(as_seen, packages)) if delay is not None else {}
    return choose_linux(wanted, packages, delay=delay, first_seen=first_seen)


def _is_pinned(context: MachineContext) -> bool:
    return context.policy.pin_rings and context.machine.ring != _first_ring(context)


def _first_ring(context: MachineContext) -> str:
    """The policy's first ring, even when it has no machines this time: no other ring acts as the canary."""
    return order_rings(context.policy.rings)[0].name


def _delay(context: MachineContext) -> Delay | None:
    days = context.policy.install.approval_delay_days
    return Delay(days, context.run.started_at or context.run.created_at) if days else None
