"""The policy: what to patch, when, how, and how carefully.

People write it as YAML, the API speaks it as JSON, and `policy_schema` describes it. A document is either a
`Policy` or a `PolicyError` that lists everything that is wrong with it; nothing is guessed and no key is ignored.
"""

import hashlib
import json
import re
from collections.abc import Mapping, Sequence, Set
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Any, cast

from pydantic import AfterValidator, Field, StrictBool, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from patchwave.domain.azure.install_request import LinuxParameters
from patchwave.domain.calendar.schedule import Schedule
from patchwave.domain.core.documents import Document, list_or_empty, object_or_none
from patchwave.domain.core.duration import Duration, between
from patchwave.domain.core.ids import ADHOC_POLICY, POLICY_NAME_PATTERN, adhoc_name, check_policy_name
from patchwave.domain.core.quantity import Limit
from patchwave.domain.core.validation import InvalidDocument, Problem, explain
from patchwave.domain.policy.arc_rules import arc_problems, type_problems
from patchwave.domain.policy.gates import Approval, ErrorBudget
from patchwave.domain.policy.health import Health
from patchwave.domain.policy.hooks import Hooks
from patchwave.domain.policy.install import Install, too_short
from patchwave.domain.policy.maintenance_section import MaintenanceHooks
from patchwave.domain.policy.notifications import Notifications
from patchwave.domain.policy.rollout import (
    MAX_RINGS,
    AvailabilitySets,
    Bake,
    Limits,
    PhaseOrder,
    RebootMode,
    Ring,
    ScaleSets,
    order_rings,
)
from patchwave.domain.policy.rollout_validation import rollout_problems
from patchwave.domain.policy.scope import MAX_LOCATIONS, Location, OsType, Scope

MAX_CONCURRENCY = 1000
MAX_EVENT_DELAY = timedelta(hours=24)

_WORD_START = re.compile(r"[A-Z]")

_SECTION = re.compile(r"[.\[]")
_STAND_IN = {"name": ADHOC_POLICY, "scope": {"osTypes": [os_type.value for os_type in OsType]}}
"""For a name or a scope that is wrong itself."""
_RING = re.compile(r"rings\[([0-9]+)\]")
_RING_STAND_IN = re.compile(r"patchwave-ring-([0-9]+)")
_DAILY = {"recurrence": "RRULE:FREQ=DAILY", "time": "00:00", "timeZone": "UTC"}
"""Stands in for a schedule of which only the window can be judged."""
_JUDGED_BY = {"pinRings": ("rings",), "schedule": ("install", "scope"), "events": ("schedule",)}
"""Sections that cannot be judged while these are wrong."""

type JsonObject = dict[str, Any]


class PolicyError(InvalidDocument):
    """A document is no valid policy."""


def _check_scope(scope: Scope) -> Scope:
    if not scope.has_selector:
        raise ValueError(
            "selects nothing; give at least one of subscriptions, resourceGroups, locations, osTypes, tags, machineIds"
        )
    if name := scope.emptied_by:
        raise ValueError(f"selects nothing: scope.exclude.{name} leaves out all of scope.{name}")
    return scope


def _check_concurrency(value: int | str) -> int | str:
    if isinstance(value, int) and value > MAX_CONCURRENCY:
        raise ValueError(f"must be at most {MAX_CONCURRENCY}")
    return value


class WithoutPin(StrEnum):
    """What is done on machines for which no pin can exist."""

    SKIP = "skip"
    WAIT = "wait"
    INSTALL = "install"


class PolicyMode(StrEnum):
    """What the runs of a policy do."""

    PATCH = "patch"
    ASSESS = "assess"


class Events(Document):
    """Which events of Azure start a run, what the run does, and when."""

    new_machine: StrictBool = Field(
        default=False, title="New machine", description="A run of a machine of the scope when it first appears."
    )
    machine_started: StrictBool = Field(
        default=False,
        title="Machine started",
        description="A run of a machine of the scope when it was started, unless a run of Patchwave has started it.",
    )
    before_maintenance: StrictBool = Field(
        default=False,
        title="Before maintenance",
        description="A run of the scope before a maintenance configuration of Azure begins.",
    )
    after_maintenance: StrictBool = Field(
        default=False,
        title="After maintenance",
        description="A run of the scope after a maintenance configuration of Azure has ended.",
    )
    mode: PolicyMode = Field(
        default=PolicyMode.ASSESS,
        title="Mode",
        description="What the runs do: assess, or patch by all rules of the policy. Those of a policy whose mode is"
        " assess only assess.",
    )
    delay: Annotated[
        Duration, between(timedelta(0), MAX_EVENT_DELAY, "must be at most PT24H: the schedule comes anyway")
    ] = Field(
        default=timedelta(0),
        title="Delay",
        description="How long to wait after an event, PTnHnM up to PT24H: a new machine may need time to be set up.",
        examples=["PT30M"],
    )
    only_in_window: StrictBool = Field(
        default=True,
        title="Only in a window",
        description="With mode patch: true, a run only starts in an open window of the schedule, in which an"
        " installation can still begin; false, at any time, in a window as long as the schedule's.",
    )

    @property
    def are_wanted(self) -> bool:
        return self.new_machine or self.machine_started or self.before_maintenance or self.after_maintenance


class Policy(Document):
    """What to patch, when, how, and how carefully."""

    name: Annotated[str, AfterValidator(check_policy_name)] = Field(
        title="Name",
        description="Lower-case letters, digits and inner hyphens, at most 32; part of the id of every run.",
        json_schema_extra={"pattern": POLICY_NAME_PATTERN, "maxLength": 32},
        examples=["monthly"],
    )
    description: str = Field(
        default="", max_length=1000, title="Description", description="What the policy is for, for people."
    )
    enabled: StrictBool = Field(
        default=True,
        title="Enabled",
        description="Whether schedule and events start runs. A disabled policy can still be started by hand.",
    )
    mode: PolicyMode = Field(
        default=PolicyMode.PATCH,
        title="Mode",
        description="What its runs do. patch: they assess, then install. assess: they look for patches and install"
        " nothing; a request to patch is refused, and what only matters to an installation has no effect.",
    )
    scope: Annotated[Scope, AfterValidator(_check_scope)] = Field(
        title="Scope", description="Which machines; at least one selector."
    )
    install: Install = Field(default=Install(), title="Install", description="How patches are installed.")
    max_concurrent: Annotated[Limit, AfterValidator(_check_concurrency)] = Field(
        default=20,
        title="Machines at a time",
        description='How many machines of the run install at the same time: 1 to 1000, or a per cent such as "10%".',
    )
    limits: Limits = Field(
        default=Limits(), title="Limits", description="Further limits: per region, and per value of a tag."
    )
    mutually_exclusive_tag: Annotated[str, Field(min_length=1, max_length=512)] | None = Field(
        default=None,
        title="Mutually exclusive tag",
        description="Machines with the same value of this tag, such as the nodes of a cluster, go one at a time.",
        examples=["cluster"],
    )
    rings: list[Ring] = Field(
        default_factory=list[Ring],
        max_length=MAX_RINGS,
        title="Rings",
        description="Slices of the fleet, in order; a machine belongs to the first that selects it. One ring of"
        " everything unless given.",
    )
    phases: list[Annotated[list[Location], Field(max_length=MAX_LOCATIONS)]] | None = Field(
        default=None,
        max_length=MAX_LOCATIONS,
        title="Phases",
        description="Regions in the order in which they are patched; those of one list go side by side. Regions that"
        " are not named follow, as phaseOrder says. Paired regions are never patched side by side. arc stands for all"
        " Arc machines, wherever they are.",
        examples=[[["westeurope", "eastus"], ["northeurope"]]],
    )
    phase_order: PhaseOrder = Field(
        default=PhaseOrder.SHORTEST,
        title="Phase order",
        description="How regions that phases does not name are parted into phases. shortest: in the least time as"
        " predicted. fewestMachines: the regions with the fewest machines first, whatever that takes.",
    )
    separate_zones: StrictBool = Field(
        default=True,
        title="Separate zones",
        description="Machines of different zones of one region are never patched at the same time.",
    )
    availability_sets: AvailabilitySets = Field(
        default=AvailabilitySets(),
        title="Availability sets",
        description="One update domain at a time, and only a part of the set.",
    )
    scale_sets: ScaleSets = Field(
        default=ScaleSets(),
        title="Scale sets",
        description="Flexible scale sets: one fault domain at a time, and only a part of the set.",
    )
    ramp: StrictBool = Field(
        default=False,
        title="Ramp",
        description="Each ring begins with 1, then 2, then 4 machines at a time, and so on up to the limit.",
    )
    bake: Bake = Field(default=Bake(), title="Bake time", description="How long to wait before going on.")
    error_budget: ErrorBudget = Field(
        default=ErrorBudget(),
        title="Error budget",
        description="How many machines may fail before nothing more is started.",
    )
    reboot_mode: RebootMode = Field(
        default=RebootMode.TOGETHER,
        title="Reboot mode",
        description="together: machines restart while they install, as rebootSetting says. separate: they install"
        " without a restart, and then restart ring by ring by the same rules.",
    )
    pin_rings: StrictBool = Field(
        default=False,
        title="Pin rings",
        description="Later rings install only what the first ring installed: the same KB numbers, the same versions.",
    )
    without_pin: WithoutPin = Field(
        default=WithoutPin.SKIP,
        title="Without a pin",
        description="What is done, with pinRings, on machines of later rings when the first ring has no machine of"
        " their system or package manager. skip: they are left out. wait: their ring waits for an approval, and they"
        " then install what the policy selects. install: they install that at once.",
    )
    start_stopped: StrictBool = Field(
        default=False,
        title="Start stopped machines",
        description="Start a stopped machine, patch it, and put it back as it was; otherwise it is skipped."
        " A hibernated machine is skipped in any case: a start would end its session.",
    )
    hooks: Hooks = Field(
        default=Hooks(),
        title="Hooks",
        description="What is done to each machine before and after its installation: a snapshot, scripts.",
    )
    health: Health = Field(
        default=Health(),
        title="Health",
        description="How the health of each machine is checked; one that became unhealthy has failed.",
    )
    schedule: Schedule | None = Field(
        default=None, title="Schedule", description="When the policy runs by itself; never unless given."
    )
    assess: Schedule | None = Field(
        default=None,
        title="Assessment schedule",
        description="When the policy assesses by itself, beside its schedule; never unless given. Linux packages are"
        " first seen then, from when install.approvalDelayDays counts. The window says how late a run may start; it"
        " then takes every machine.",
    )
    retry_in_next_window: StrictBool = Field(
        default=True,
        title="Retry in the next window",
        description="Try machines again without a person: those whose patches failed or are pending in the next window,"
        " in at most 3 windows in a row; those that were off or not ready inside the window, when they come back. With"
        " false a machine that has failed waits for a person.",
    )
    events: Events = Field(default=Events(), title="Events", description="Which events of Azure start a run.")
    maintenance: MaintenanceHooks | None = Field(
        default=None,
        title="Pre and post maintenance",
        description="Schedules of Update Manager with pre and post maintenance tasks: before their runs the policy"
        " starts stopped machines and runs its hooks, afterwards it restores their power state and keeps the results."
        " None unless given.",
    )
    notifications: Notifications = Field(
        default=Notifications(), title="Notifications", description="The channels and events of its notifications."
    )

    def approval_of(self, ring: Ring) -> Approval | None:
        """The approval that the ring may need in a run: its own, or that of machines without a pin."""
        if ring.approval is not None or not self.pin_rings or self.without_pin is not WithoutPin.WAIT:
            return ring.approval
        return None if ring == order_rings(self.rings)[0] else Approval()

    def bake_after(self, ring: Ring) -> timedelta:
        """How long to wait after a ring: its own bake time, else that of all rings."""
        bake = ring.bake if ring.bake is not None else self.bake.rings
        return bake if bake is not None else timedelta(0)

    @property
    def rings_depend_on_scope(self) -> bool:
        """Whether another scope could patch a machine before what it waits for, or one that no ring takes now.

        A scope without the canary leaves its bake time and its budget nothing to judge. A ring in per cent takes a part
        of the machines in scope: of a scope of one machine it takes that machine.
        """
        ordered = order_rings(self.rings)
        leaves_machines_out = bool(ordered[-1].selectors)
        has_share = any(ring.percent is not None for ring in ordered)
        return (
            (has_share and leaves_machines_out)
            or (len(ordered) > 1 and self._rings_wait(ordered))
            or (bool(self.phases) and self._has_error_budget)
        )

    def _rings_wait(self, ordered: Sequence[Ring]) -> bool:
        """Whether anything but their order can hold the later rings; the budget of a lane or a wave holds them, too."""
        return (
            self.pin_rings
            or any(self.approval_of(ring) for ring in ordered)
            or any(self.bake_after(ring) for ring in ordered[:-1])
            or self._has_error_budget
        )

    @property
    def _has_error_budget(self) -> bool:
        budget = self.error_budget
        return any(share is not None for share in (budget.wave, budget.lane, budget.ring, budget.run))

    @property
    def event_mode(self) -> PolicyMode:
        """What runs do that events start."""
        return self.events.mode if self.mode is PolicyMode.PATCH else self.mode

    @property
    def continues(self) -> bool:
        is_patch = self.mode is PolicyMode.PATCH
        return is_patch and self.schedule is not None and self.schedule.continue_in_next_window


def parse_policy(document: object, *, name: str = "", is_narrowed: bool = False) -> Policy:
    """Validate a policy document, as it comes from JSON or YAML.

    ``name`` is the name in the address: the document may leave its own out, or must repeat it. ``is_narrowed``: a
    request has put another scope in, so that rings may well be empty.

    Raises:
        PolicyError: with every error of the document.
    """
    if not isinstance(document, Mapping):
        raise PolicyError([Problem(path="$", message="must be an object with at least name and scope")])
    given = dict(cast(Mapping[str, Any], document))
    problems: list[Problem] = []
    if name and given.setdefault("name", name) != name:
        problems.append(Problem(path="name", message=f"must be {name!r}, the name in the address, or left out"))
        given["name"] = name
    try:
        policy = Policy.model_validate(given, by_alias=True, by_name=False)
    except ValidationError as error:
        problems += explain(error, Policy)
        problems += [*_unseen_problems(given, problems), *_unsatisfiable_rest(given, problems, is_narrowed=is_narrowed)]
        raise PolicyError(problems) from None
    problems += _unsatisfiable(policy, None if is_narrowed else policy.scope)
    if problems:
        raise PolicyError(problems)
    return policy


def _unseen_problems(given: Mapping[str, Any], seen: Sequence[Problem]) -> list[Problem]:
    """The rule between Linux classifications, which is not looked at while another field beside them is wrong."""
    path = "install.linux"
    linux = object_or_none((object_or_none(given.get("install")) or {}).get("linux")) or {}
    classifications = list_or_empty(linux.get("classificationsToInclude"))
    if not classifications or any(problem.path == path for problem in seen):
        return []
    try:
        LinuxParameters.model_validate({"classificationsToInclude": classifications})
    except ValidationError as error:
        found = [problem for problem in explain(error, LinuxParameters) if problem.path == "$"]
        return [Problem(path=path, message=problem.message) for problem in found]
    return []


def _unsatisfiable_rest(given: Mapping[str, Any], seen: Sequence[Problem], *, is_narrowed: bool) -> list[Problem]:
    """What could never be done among the sections in which no field is wrong, so that one look finds everything."""
    mended = _mend(given, [problem.path for problem in seen])
    wrong = {_SECTION.split(problem.path, maxsplit=1)[0] for problem in seen} - mended.keys()
    sections = dict(given) | mended
    whole = {name: each for name, each in sections.items() if wrong.isdisjoint({name, *_JUDGED_BY.get(name, ())})}
    try:
        policy = Policy.model_validate(_STAND_IN | whole, by_alias=True, by_name=False)
    except ValidationError:
        return []
    told = {problem.path for problem in seen}
    return [
        Problem(path=problem.path, message=_RING_STAND_IN.sub(r"rings[\1]", problem.message))
        for problem in _unsatisfiable(policy, None if is_narrowed or "scope" in wrong else policy.scope)
        if told.isdisjoint({problem.path, problem.path.rpartition(".")[0]})
    ]


def _mend(given: Mapping[str, Any], paths: Sequence[str]) -> JsonObject:
    """Rings and schedule with stand-ins for what is wrong in them, so that the rest of both can be judged."""
    mended: JsonObject = {}
    schedule = object_or_none(given.get("schedule")) or {}
    in_schedule = [path for path in paths if path.startswith("schedule")]
    if in_schedule and "window" in schedule and not {"schedule", "schedule.window"} & set(in_schedule):
        mended["schedule"] = _DAILY | {"window": schedule["window"]}
    in_rings = {path for path in paths if path.startswith("rings")}
    if in_rings and "rings" not in in_rings:
        mended["rings"] = _mend_rings(list_or_empty(given.get("rings")), in_rings)
    return mended


def _mend_rings(given: Sequence[object], wrong: Set[str]) -> list[JsonObject]:
    """The rings with stand-ins for what is wrong in them: names that no other ring has, selections of nothing."""
    mended: list[JsonObject] = []
    renamed: dict[object, str] = {}
    is_chained = any((object_or_none(each) or {}).get("after") is not None for each in given)
    for number, each in enumerate(given):
        path, ring = f"rings[{number}]", object_or_none(each) or {}
        made = {key: ring[key] for key in ("name", "after") if key in ring}
        if not ring or f"{path}.name" in wrong:
            made["name"] = f"patchwave-ring-{number}"
            renamed[str(ring.get("name"))] = made["name"]
        if f"{path}.after" in wrong or (not ring and is_chained):
            # Of no ring: what the order is cannot be known.
            made["after"] = f"{made['name']}-before"
        own = {each for each in wrong if (found := _RING.match(each)) and found[0] == path}
        if own <= {f"{path}.name", f"{path}.after"}:
            made |= {key: ring[key] for key in ("tags", "percent", "machineIds") if key in ring}
        else:
            # Of a tag of its own, so that it neither takes nor leaves what another ring is for.
            made["tags"] = {"values": {f"patchwave-ring-{number}": ["x"]}}
        mended.append(made)
    return [
        ring | {"after": renamed.get(ring["after"], ring["after"])} if ring.get("after") else ring for ring in mended
    ]


def _unsatisfiable(policy: Policy, scope: Scope | None) -> list[Problem]:
    """What is valid field by field and yet could never be done."""
    problems = rollout_problems(policy.rings, policy.phases or [], policy.limits, policy.mutually_exclusive_tag, scope)
    problems += type_problems(policy.scope)
    problems += arc_problems(
        policy.scope,
        hooks=policy.hooks,
        install=policy.install,
        reboot_mode=policy.reboot_mode,
        start_stopped=policy.start_stopped,
        maintenance=policy.maintenance is not None,
    )
    if policy.pin_rings and len(policy.rings) < 2:
        problems.append(Problem(path="pinRings", message="pins later rings to the first one: give at least two rings"))
    if policy.without_pin is not WithoutPin.SKIP and not policy.pin_rings:
        problems.append(Problem(path="withoutPin", message="counts with pinRings only: set pinRings, or leave it out"))
    if policy.assess is not None and policy.assess.continue_in_next_window:
        message = "counts for installations only: an assessment takes every machine, however long it lasts"
        problems.append(Problem(path="assess.continueInNextWindow", message=message))
    if message := _event_problem(policy, is_narrowed=scope is None):
        problems.append(Problem(path="events.onlyInWindow", message=message))
    if policy.schedule is None or policy.mode is PolicyMode.ASSESS:
        return problems
    message = too_short(policy.schedule.window, policy.install, policy.scope.systems)
    return [*problems, Problem(path="schedule.window", message=message)] if message else problems


def _event_problem(policy: Policy, *, is_narrowed: bool) -> str:
    """Why no run that events start could ever patch by the policy, or why one would patch too early."""
    events = policy.events
    if not events.are_wanted or policy.event_mode is PolicyMode.ASSESS:
        return ""
    if events.only_in_window:
        why = "leaves no time to patch, as the policy has no window: give schedule, or set it to false"
        return why if policy.schedule is None else ""
    # A run of events has a scope of its own, and its policy was valid before.
    if (events.new_machine or events.machine_started) and policy.rings_depend_on_scope and not is_narrowed:
        return (
            "is false, and a run of single machines would patch them before those that their rings or phases wait for:"
            " set it to true, or give such machines a policy of their own"
        )
    return ""


def parse_inline_policy(document: object) -> Policy:
    """Validate a policy that came inside a request: its name may be left out.

    It never goes by the name of a stored policy: ``adhoc-`` stands before its own name, or before a digest of it.

    Raises:
        PolicyError: with every error of the document.
    """
    if isinstance(document, Mapping):
        document = {"name": ADHOC_POLICY} | dict(cast(Mapping[str, Any], document))
    policy = parse_policy(document)
    name = policy.name
    if name == ADHOC_POLICY:
        content = json.dumps(policy.to_wire(), sort_keys=True, ensure_ascii=False).encode("utf-8", "surrogatepass")
        name = hashlib.sha256(content).hexdigest()[:8]
    return policy.model_copy(update={"name": adhoc_name(name)})


def merge_patch(target: object, patch: object) -> object:
    """RFC 7396: objects merge, ``null`` removes, anything else (lists too) replaces. Neither argument changes."""
    if not isinstance(patch, Mapping):
        return patch
    changes = cast(Mapping[str, Any], patch)
    merged: JsonObject = dict(cast(Mapping[str, Any], target)) if isinstance(target, Mapping) else {}
    for key, value in changes.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = merge_patch(merged.get(key), value)
    return merged


def apply_overrides(policy_document: Mapping[str, Any], overrides: object) -> Policy:
    """The policy with a request's overrides, an RFC 7396 merge patch, validated as a whole.

    Raises:
        PolicyError: the overrides are no object, name another policy, or the result is not valid.
    """
    if not isinstance(overrides, Mapping):
        raise PolicyError([Problem(path="overrides", message="must be an object: a merge patch over the policy")])
    changes = cast(Mapping[str, Any], overrides)
    if changes.get("name", policy_document.get("name")) != policy_document.get("name"):
        raise PolicyError([Problem(path="overrides.name", message="cannot be changed; leave it out")])
    try:
        merged = merge_patch(policy_document, changes)
    except RecursionError:
        raise PolicyError([Problem(path="overrides", message="are nested too deeply")]) from None
    return parse_policy(merged, is_narrowed="scope" in changes)


def policy_schema() -> JsonObject:
    """The JSON Schema (draft 2020-12) of a policy, for editors and other tools.

    It cannot say everything: rules between fields, dates and zones are checked by `parse_policy` alone.
    """
    schema = Policy.model_json_schema(by_alias=True, mode="validation")
    definitions: dict[str, JsonObject] = schema["$defs"]
    for part in (schema, *definitions.values()):
        for key, member in part.get("properties", {}).items():
            _complete(key, member, definitions)
    return {"$schema": GenerateJsonSchema.schema_dialect} | schema | {"title": "Patchwave policy"}


def _complete(key: str, member: JsonObject, definitions: Mapping[str, JsonObject]) -> None:
    """Give a property its title and description where the library left them out or made them up."""
    referred = definitions.get(str(member.get("$ref", "")).rpartition("/")[2], {})
    member.setdefault("description", referred.get("description", ""))
    if member.get("title", key).lower() == key.lower():
        member["title"] = _WORD_START.sub(lambda found: " " + found[0].lower(), key).capitalize()
