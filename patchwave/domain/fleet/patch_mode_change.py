"""A change of patch modes over a part of the fleet: first a plan that changes nothing, then, when a person starts it, a
durable run in waves. Each machine ends exactly once.

Machines that need nothing, or that Azure would refuse, end with the plan; so what is left open is what will be asked of
Azure. Right before each request the machine is read again, and judged by the same rules.
"""

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

from pydantic import AliasPath, Field

from patchwave.domain.azure.errors import ArmFailure, ErrorClass, classify, is_throttling
from patchwave.domain.azure.patch_results import Text
from patchwave.domain.core.command import Command, InvalidTransition
from patchwave.domain.core.documents import (
    Document,
    ExternalDocument,
    Json,
    UtcDatetime,
    objects_or_empty,
    str_or_empty,
)
from patchwave.domain.core.ids import MachineId, RunId
from patchwave.domain.core.outcome import Reason
from patchwave.domain.fleet.exclusions import hold_reason
from patchwave.domain.fleet.machine import FleetMachine
from patchwave.domain.fleet.patch_mode import PatchSettings, WantedSettings, refusal_of
from patchwave.domain.policy.scope import Scope

PLAN_HOLDS = timedelta(hours=24)
"""How long a plan may be started; the fleet moves on."""
MAX_CHANGE = timedelta(minutes=30)
"""How long one machine is waited for, when Azure is busy with it or does not carry the change out."""
MAX_THROTTLING = timedelta(days=1)
"""How long Azure may throttle the calls of one machine before that is its end."""
MAX_WAVE = 100
_PERMANENT = (Reason.OUTSIDE_BOUNDARY, Reason.SCOPE_LOCKED, Reason.DISALLOWED_BY_POLICY)
"""Refusals that stand until a person changes a lock, an assignment or a setting; other machines may do better."""


class ChangeState(StrEnum):
    """Where a change stands. The last two are final."""

    PLANNED = "planned"
    RUNNING = "running"
    COMPLETED = "completed"
    STOPPED = "stopped"
    """By a person, or because too many machines failed."""

    @property
    def is_final(self) -> bool:
        return self in (ChangeState.COMPLETED, ChangeState.STOPPED)


class ChangeEnd(StrEnum):
    """How a machine of a change ended; the counts add up to its machines."""

    CHANGED = "changed"
    """Azure shows it as it was wanted."""
    UNCHANGED = "unchanged"
    """It was so already."""
    REFUSED = "refused"
    """Azure does not allow it; the sentence says what to do instead."""
    SKIPPED = "skipped"
    """Held by its tag."""
    FAILED = "failed"
    CANCELED = "canceled"
    """The change was stopped before it was this machine's turn."""
    UNKNOWN = "unknown"
    """Azure took it, and does not show how it went."""


class ModeChange(Document):
    """A change as a whole. ``counts_by_end`` counts the machines that have ended."""

    id: str
    state: ChangeState
    wanted: WantedSettings
    scope: Scope
    max_concurrent: int
    max_failures: int
    planned: Command
    machines: int = 0
    to_change: int = 0
    """Machines that the plan leaves to change."""
    counts_by_end: dict[str, int] = Field(default_factory=dict[str, int])
    started: Command | None = None
    stopped: Command | None = None
    ended_at: UtcDatetime | None = None
    message: str = ""
    """Why it ended before its time."""

    @property
    def is_stopping(self) -> bool:
        """Whether nothing more may be sent."""
        return self.stopped is not None or self.state.is_final


class MachineChange(Document):
    """One machine of a change. It has an ``end`` once nothing more will be done."""

    id: str
    key: str
    name: str
    subscription_id: str
    resource_group: str
    location: str
    os_type: str = ""
    before: PatchSettings | None = None
    note: str = ""
    """What the change will not bring about, such as automatic patching of a custom image."""
    end: ChangeEnd | None = None
    message: str = ""
    begun_at: UtcDatetime | None = None
    """When it was first looked at."""
    throttled_seconds: float = 0
    """How long Azure has throttled what was asked of it: no part of the time that it has."""
    asked_at: UtcDatetime | None = None
    """When Azure was last asked for the change."""
    is_accepted: bool = False
    """Whether Azure took it."""
    refused_at: UtcDatetime | None = None
    """When Azure last surely refused it."""
    ended_at: UtcDatetime | None = None


def change_id(at: datetime, suffix: str) -> str:
    """The id of a change: readable and sortable, like that of a run."""
    return RunId.of(at, "modes", suffix).text


def plan_machine(machine: FleetMachine, wanted: WantedSettings, at: datetime) -> MachineChange:
    """What the change will do to a machine: it has its end already when that is nothing."""
    found, settings = machine.found, machine.settings
    identity = found.machine_id
    planned = MachineChange(
        id=identity.text,
        key=identity.key,
        name=found.name,
        subscription_id=found.subscription_id,
        resource_group=found.resource_group,
        location=found.location,
        os_type=found.os_type,
        before=settings,
        note=(machine.unsupported or machine.eligibility.image_note) if wanted.hands_to_azure else "",
    )
    if found.problem:
        return _ended(planned, ChangeEnd.REFUSED, found.problem, at)
    hold = hold_reason(found.tags)
    if hold is not None:
        return _ended(planned, ChangeEnd.SKIPPED, hold, at)
    end = _end_without_request(settings, wanted)
    return planned if end is None else _ended(planned, *end, at)


def missing_machine(identity: MachineId, at: datetime) -> MachineChange:
    """A machine that was named and not found."""
    planned = MachineChange(
        id=identity.text,
        key=identity.key,
        name=identity.name,
        subscription_id=identity.subscription_id,
        resource_group=identity.resource_group,
        location="",
    )
    sentence = "No such machine: it does not exist, the identity may not read it, or another selector leaves it out."
    return _ended(planned, ChangeEnd.FAILED, sentence, at)


def _ended(machine: MachineChange, end: ChangeEnd, message: str, at: datetime) -> MachineChange:
    return machine.model_copy(update={"end": end, "message": message, "ended_at": at})


def _end_without_request(settings: PatchSettings | None, wanted: WantedSettings) -> tuple[ChangeEnd, str] | None:
    if settings is None:
        return ChangeEnd.REFUSED, "Azure names neither Windows nor Linux as its system."
    if wanted.is_met_by(settings):
        return ChangeEnd.UNCHANGED, "It is set so already."
    refusal = refusal_of(settings, wanted)
    return None if refusal is None else (ChangeEnd.REFUSED, refusal.sentence)


# --- commands --------------------------------------------------------------------------------------------------


def start(change: ModeChange, command: Command) -> ModeChange:
    """Let a plan be carried out; a second command changes nothing.

    Raises:
        InvalidTransition: it was stopped, or the plan is too old.
    """
    if change.started is not None and change.stopped is None:
        return change
    if change.is_stopping:
        raise InvalidTransition("The change has been stopped or has ended: plan a new one.")
    if command.at - change.planned.at > PLAN_HOLDS:
        raise InvalidTransition("The plan is older than 24 hours, and the fleet has moved on: plan a new one.")
    return change.model_copy(update={"state": ChangeState.RUNNING, "started": command})


def stop(change: ModeChange, command: Command) -> ModeChange:
    """Send nothing more; what Azure has taken is followed to its end. A second command changes nothing.

    Raises:
        InvalidTransition: it has ended.
    """
    if change.stopped is not None:
        return change
    if change.state.is_final:
        raise InvalidTransition("The change has ended.")
    # A plan that was never started has no orchestration.
    is_over = change.started is None
    return change.model_copy(
        update={"stopped": command} | ({"state": ChangeState.STOPPED, "ended_at": command.at} if is_over else {})
    )


def why_to_end(change: ModeChange, failed: int) -> str | None:
    """Why no further machine may be begun: a sentence; ``None`` when the next wave may."""
    if change.stopped is not None:
        why = f": {change.stopped.reason}" if change.stopped.reason else ""
        return f"Stopped by {change.stopped.actor}{why}."
    if failed >= change.max_failures:
        return f"{failed} machines failed, and the change was to end at {change.max_failures}."
    return None


# --- one machine -----------------------------------------------------------------------------------------------


class _Profile(ExternalDocument):
    os_type: Text = Field(default="", validation_alias=AliasPath("properties", "storageProfile", "osDisk", "osType"))
    windows: Any = Field(default=None, validation_alias=AliasPath("properties", "osProfile", "windowsConfiguration"))
    linux: Any = Field(default=None, validation_alias=AliasPath("properties", "osProfile", "linuxConfiguration"))
    provisioning: Text = Field(default="", validation_alias=AliasPath("properties", "provisioningState"))
    statuses: Any = Field(default=None, validation_alias=AliasPath("properties", "instanceView", "statuses"))


class MachineState(NamedTuple):
    """What a machine is set to now, and whether Azure is changing it. ``trouble``: why its last change failed."""

    settings: PatchSettings | None
    is_updating: bool = False
    trouble: str = ""


def read_state(body: Mapping[str, Any]) -> MachineState:
    """Read ``GET virtualMachines/{name}?$expand=instanceView``."""
    profile = _Profile.model_validate(dict(body))
    configuration = profile.windows if profile.os_type.casefold() == "windows" else profile.linux
    word = profile.provisioning.casefold()
    return MachineState(
        settings=PatchSettings.read(profile.os_type, configuration),
        is_updating=word in ("updating", "creating"),
        trouble=_trouble(profile.statuses) if word == "failed" else "",
    )


def _trouble(statuses: object) -> str:
    for status in objects_or_empty(statuses):
        code = str_or_empty(status.get("code"))
        if code.casefold().startswith("provisioningstate/failed"):
            return f"{code.rpartition('/')[2]}: {str_or_empty(status.get('message'))}".strip(": ")
    return "its provisioning state is Failed"


class ChangeStep(NamedTuple):
    """What to do with a machine now: end it, ask Azure, or (neither) check it again later."""

    end: ChangeEnd | None = None
    message: str = ""
    ask: bool = False


def decide(
    machine: MachineChange, wanted: WantedSettings, state: MachineState, now: datetime, settles_in: timedelta
) -> ChangeStep:
    """What to do with a machine that is in this state.

    Args:
        machine: its row.
        wanted: what it shall be set to.
        state: what Azure shows of it.
        now: this moment.
        settles_in: how long after a request Azure may still show the old settings.
    """
    asked = machine.asked_at
    if state.is_updating:
        if is_overdue(machine, now):
            return ChangeStep(ChangeEnd.UNKNOWN, "Azure has been changing the machine for half an hour: look at it.")
        return ChangeStep()
    if state.settings is not None and wanted.is_met_by(state.settings) and asked is not None:
        return ChangeStep(ChangeEnd.CHANGED, "Azure shows the machine as it was wanted.")
    was_refused = machine.refused_at is not None and asked is not None and machine.refused_at >= asked
    if asked is not None and not was_refused and now - asked < settles_in:
        # Whatever the answer was, Azure may have taken the change: nothing is sent again before it would show.
        return ChangeStep()
    if machine.is_accepted and asked is not None:
        why = f" ({state.trouble})" if state.trouble else ""
        return ChangeStep(ChangeEnd.FAILED, f"Azure took the change and did not carry it out.{why}")
    end = _end_without_request(state.settings, wanted)
    if end is not None:
        return ChangeStep(*end)
    if is_overdue(machine, now):
        return ChangeStep(ChangeEnd.FAILED, "Azure did not take the change for half an hour.")
    return ChangeStep(ask=True)


def after_failure(machine: MachineChange, failure: ArmFailure, now: datetime, *, is_open: bool = False) -> ChangeStep:
    """What to do after Azure refused to show a machine, or to take its change. ``is_open``: it may have been taken."""
    verdict = classify(failure)
    if is_open or verdict.kind.may_pass:
        waits = is_throttling(failure) and machine.throttled_seconds < MAX_THROTTLING.total_seconds()
        if waits or not is_overdue(machine, now):
            return ChangeStep()
        is_unknown = machine.is_accepted or is_open
        return ChangeStep(ChangeEnd.UNKNOWN if is_unknown else ChangeEnd.FAILED, _said(verdict.sentence, failure))
    kinds = (ErrorClass.UNSUPPORTED, ErrorClass.NOT_RUNNING)
    is_refusal = failure.status == 400 or verdict.kind in kinds or verdict.reason in _PERMANENT
    end = ChangeEnd.REFUSED if is_refusal else ChangeEnd.FAILED
    return ChangeStep(end, _said("Azure refuses the change." if failure.status == 400 else verdict.sentence, failure))


def is_overdue(machine: MachineChange, now: datetime) -> bool:
    """Whether the machine has had its time. What Azure throttled is no part of it."""
    given = MAX_CHANGE + timedelta(seconds=machine.throttled_seconds)
    return machine.begun_at is not None and now - machine.begun_at >= given


def _said(sentence: str, failure: ArmFailure) -> str:
    return f"{sentence} ({failure.text})"


# --- what crosses the durable boundary -------------------------------------------------------------------------


class ChangeRef(Document):
    """Which change. ``wave`` counts those before, ``lost_waves`` those in which storage or the worker failed."""

    change_id: str
    wave: int = 0
    lost_waves: int = 0


class NextChanges(Document):
    """The machines whose turn it is; none when the change is over."""

    machine_keys: list[str] = Field(default_factory=list[str])


class MachineChangeRef(Document):
    """Which machine of which change."""

    change_id: str
    machine_key: str


class ChangeProgress(Document):
    """Where a machine stands: it has ended, or is to be looked at again."""

    has_ended: bool
    wait_seconds: float = 0


def count_ends(rows: Mapping[str, int]) -> Json:
    """The counts in the order of `ChangeEnd`, without zeros."""
    return {end.value: rows[end] for end in ChangeEnd if rows.get(end)}
