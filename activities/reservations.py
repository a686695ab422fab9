"""reserve_groups and release_groups: concurrency groups that a phase reserves against other runs."""

from __future__ import annotations

from activities.context import now, wait_seconds
from patchwave.domain.planning.reservation import Reservation, ahead_of, behind, waits_for
from patchwave.domain.runs.commands import PATCHWAVE
from patchwave.domain.runs.run import RunState
from patchwave.domain.workflow.run import GroupsReleased, GroupsReserved, ReleaseGroups, ReserveGroups
from patchwave.storage import Storage
from patchwave.wiring import Services


async def reserve_groups(services: Services, request: ReserveGroups) -> GroupsReserved:
    """Reserve the groups of a phase, and return which run holds them.

    Reservations of runs that have ended do not count.
    """
    storage = services.storage
    groups = await storage.reservations.get_groups(request.run_id, request.ring_number, request.phase_number)
    wanted = Reservation(
        run_id=request.run_id,
        sequence=request.sequence,
        phase=f"{request.ring_number}.{request.phase_number}",
        since=now(),
        groups=groups,
    )
    own, others = await storage.reservations.reserve(wanted)
    # The previous phase is over: runs that wait for its groups can be woken.
    before = next((each for each in others if each.run_id == own.run_id and each.number != own.number), None)
    freed = [each.run_id for each in behind(before, others)] if before is not None else []
    own = own if own.groups is None else own.model_copy(update={"groups": groups})
    ahead = [each for each in ahead_of(own, others) if await _is_live(storage, each.run_id)]
    if not ahead:
        return GroupsReserved(freed=freed)
    waiting = waits_for(own, ahead[0], len(ahead) - 1)
    await storage.runs.set_state(request.run_id, RunState.AWAITING_RUN, waiting)
    if own.sequence == request.sequence and own.since == wanted.since:
        detail = {"for": [each.run_id for each in ahead], "reason": waiting}
        await storage.audit.add(request.run_id, "run_waits", actor=PATCHWAVE, at=own.since, detail=detail)
    return GroupsReserved(waits_for=waiting, wait_seconds=wait_seconds(services.settings), freed=freed)


async def release_groups(services: Services, request: ReleaseGroups) -> GroupsReleased:
    """Release the run's reservations; returns the runs that may wait for them."""
    storage = services.storage
    given = await storage.reservations.release(request.run_id, request.sequence)
    run = await storage.runs.get(request.run_id)
    if run is None or run.state.is_final:
        await storage.reservations.remove(request.run_id)
    if given is None:
        return GroupsReleased()
    waiting = behind(given, await storage.reservations.list_all())
    return GroupsReleased(waiting=[each.run_id for each in waiting])


async def _is_live(storage: Storage, run_id: str) -> bool:
    run = await storage.runs.get(run_id)
    if run is not None and not run.state.is_final:
        return True
    await storage.reservations.remove(run_id)
    return False
