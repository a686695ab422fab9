"""What an operator may override in a stored policy: what only narrows it. Everything else takes an author.

Two policies are compared with all their defaults: the stored one, and what the overrides make of it. A field narrows
when the run can do less by it: fewer machines, less at a time, fewer patches, a shorter window, a stricter gate. A
field without a rule, and a value that cannot be compared, does not narrow.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from patchwave.domain.azure.install_request import LinuxParameters, RebootSetting, WindowsParameters
from patchwave.domain.calendar.schedule import Schedule
from patchwave.domain.core.documents import int_or_none
from patchwave.domain.core.folding import fold
from patchwave.domain.policy.gates import Approval, ErrorBudget, OnExceeded
from patchwave.domain.policy.health import AlertVeto, Health
from patchwave.domain.policy.install import Install
from patchwave.domain.policy.policy import Events, Policy, PolicyMode, WithoutPin
from patchwave.domain.policy.rollout import AvailabilitySets, Bake, Limits, Ring, ScaleSets, TagLimit
from patchwave.domain.policy.scope import Exclusions, Scope, TagFilter

type Rule = Callable[[Any, Any], bool]
"""Whether the second value narrows the first; asked only about values that differ."""
_NOT_NARROWER = "does not narrow the policy"
_PERCENT = re.compile(r"[0-9]+%")
_RINGS_WAIT = (
    "a scope of a policy with rings that wait for each other is changed by an author: another scope may leave out the"
    " machines for which the others wait"
)


def narrows(before: Policy, after: Policy) -> bool:
    """Whether a run of ``after`` can do nothing that a run of ``before`` could not."""
    return not widened(before, after)


def widened(before: Policy, after: Policy, *, installs: bool = True) -> dict[str, str]:
    """The fields in which ``after`` may do more than ``before``, or that cannot be compared: why, by their paths.

    Args:
        before: the stored policy.
        after: what the overrides make of it.
        installs: whether the run installs anything; a run that only assesses has no rings.
    """
    reasons = dict(_widened(before, after))
    if installs and before.scope != after.scope and before.rings_depend_on_scope:
        reasons["scope"] = _RINGS_WAIT
    if after.install.maximum_duration < min(before.install.maximum_duration, before.install.minimum_duration):
        # The shorter of the two is what has to be left of the window: an installation could start later than before.
        reasons["install.maximumDuration"] = _NOT_NARROWER
    if before.rings != after.rings and not _rings_narrow(before, after):
        reasons["rings"] = _NOT_NARROWER
    return reasons


# --- rules for one field --------------------------------------------------------------------------------------


def _never(_before: object, _after: object) -> bool:
    return False


def _elsewhere(_before: object, _after: object) -> bool:
    # The rule needs the whole policy: `widened` asks it.
    return True


def _turned_on(_before: bool, after: bool) -> bool:
    return after


def _turned_off(_before: bool, after: bool) -> bool:
    return not after


def _less(before: Any, after: Any) -> bool:
    return after < before


def _more(before: Any, after: Any) -> bool:
    return after > before


def _or_added(rule: Rule) -> Rule:
    """A bound that was not there may be added, and one that was may not be taken away."""
    return lambda before, after: before is None or (after is not None and rule(before, after))


def _smaller_share(before: int | str, after: int | str) -> bool:
    """A number and a per cent cannot be compared without the number of machines."""
    if isinstance(before, int) and isinstance(after, int):
        return after < before
    if isinstance(before, str) and isinstance(after, str):
        return int(after.removesuffix("%")) < int(before.removesuffix("%"))
    return False


def _fewer(before: Sequence[object], after: Sequence[object]) -> bool:
    """Some of the entries, and not none: an empty list may mean everything."""
    return bool(after) and set(after) <= set(before)


def _as_many_left_out(before: Sequence[object], after: Sequence[object]) -> bool:
    return set(before) <= set(after)


def _in_order(*words: object) -> Rule:
    """From a word to one behind it."""
    return lambda before, after: words.index(after) > words.index(before)


def _selected_fewer(before: Sequence[str], after: Sequence[str]) -> bool:
    """A selector of a scope: an empty one selects everything."""
    return not before or (bool(after) and _folded(after) <= _folded(before))


def _excluded_more(before: Sequence[str], after: Sequence[str]) -> bool:
    return _folded(before) <= _folded(after)


def _tags_selected_fewer(before: TagFilter | None, after: TagFilter | None) -> bool:
    return before is None or (after is not None and after.implies(before))


def _tags_excluded_more(before: TagFilter | None, after: TagFilter | None) -> bool:
    return before is None or (after is not None and before.implies(after))


def _folded(values: Iterable[str]) -> frozenset[str]:
    return frozenset(fold(value) for value in values)


def _tag_limits(before: Sequence[TagLimit], after: Sequence[TagLimit]) -> bool:
    """Each limit that there was is there still, and no higher."""
    return all(
        any(
            fold(new.tag) == fold(old.tag)
            and (new.max_concurrent == old.max_concurrent or _smaller_share(old.max_concurrent, new.max_concurrent))
            for new in after
        )
        for old in before
    )


def _alert_rules(before: Sequence[str], after: Sequence[str]) -> bool:
    """No names stand for all rules."""
    return not after or (bool(before) and _as_many_left_out(before, after))


# --- why a field does not narrow ------------------------------------------------------------------------------


def _why(rule: Rule, before: object, after: object) -> str:
    """Why the rule refuses the second value: of two amounts what is wrong, of others that they do not narrow."""
    old, new = _amount(before), _amount(after)
    if rule is _never or old is None or new is None:
        return _NOT_NARROWER
    if type(before) is not type(after):
        return "a number and a per cent are not compared"
    return f"{after} is {'more' if new > old else 'less'} than {before}"


def _amount(value: object) -> int | None:
    if isinstance(value, str) and _PERCENT.fullmatch(value):
        return int(value.removesuffix("%"))
    return int_or_none(value)


# --- rules over the whole policy ------------------------------------------------------------------------------


def _rings_narrow(before: Policy, after: Policy) -> bool:
    """The same rings with the same machines; approvals may be added or be stricter, and bake times longer."""
    return len(before.rings) == len(after.rings) and all(
        not list(_widened(old, new)) and after.bake_after(new) >= before.bake_after(old)
        for old, new in zip(before.rings, after.rings, strict=True)
    )


# --- the table ------------------------------------------------------------------------------------------------

RULES: Mapping[type[BaseModel], Mapping[str, Rule | type[BaseModel]]] = {
    Policy: {
        "name": _never,
        "description": _never,
        "enabled": _turned_off,
        "mode": _in_order(PolicyMode.PATCH, PolicyMode.ASSESS),
        "scope": Scope,
        "install": Install,
        "max_concurrent": _smaller_share,
        "limits": Limits,
        "mutually_exclusive_tag": _or_added(_never),
        "rings": _elsewhere,
        "phases": _never,
        "phase_order": _never,
        "separate_zones": _turned_on,
        "availability_sets": AvailabilitySets,
        "scale_sets": ScaleSets,
        "ramp": _turned_on,
        "bake": Bake,
        "error_budget": ErrorBudget,
        # Whether machines restart together or apart changes what they do, and neither is less.
        "reboot_mode": _never,
        "pin_rings": _turned_on,
        # To skip instead of to wait would also drop the approval of the ring's other machines.
        "without_pin": lambda before, after: before is WithoutPin.INSTALL and after is not WithoutPin.INSTALL,
        "start_stopped": _turned_off,
        # A snapshot and a script before the installation are safety, and a new one is power: neither may change.
        "hooks": _never,
        "health": Health,
        "schedule": Schedule,
        "assess": Schedule,
        "retry_in_next_window": _turned_off,
        "events": Events,
        "maintenance": _never,
        "notifications": _never,
    },
    Scope: {
        "subscriptions": _selected_fewer,
        "resource_groups": _selected_fewer,
        "locations": _selected_fewer,
        "os_types": _selected_fewer,
        "machine_types": _fewer,
        "tags": _tags_selected_fewer,
        "machine_ids": _selected_fewer,
        "scale_sets": _selected_fewer,
        "exclude": Exclusions,
    },
    Exclusions: {
        "machine_ids": _excluded_more,
        "subscriptions": _excluded_more,
        "resource_groups": _excluded_more,
        "locations": _excluded_more,
        "tags": _tags_excluded_more,
    },
    Install: {
        "windows": WindowsParameters,
        "linux": LinuxParameters,
        "reboot_setting": _in_order(RebootSetting.ALWAYS, RebootSetting.IF_REQUIRED, RebootSetting.NEVER),
        "maximum_duration": _less,
        "minimum_duration": _more,
        "approval_delay_days": _more,
    },
    WindowsParameters: {
        "classifications_to_include": _fewer,
        "kb_numbers_to_include": _fewer,
        "kb_numbers_to_exclude": _as_many_left_out,
        "exclude_kbs_requiring_reboot": _turned_on,
        "max_patch_publish_date": _or_added(_less),
        "patch_name_masks_to_include": _fewer,
        "patch_name_masks_to_exclude": _as_many_left_out,
    },
    LinuxParameters: {
        "classifications_to_include": _fewer,
        "package_name_masks_to_include": _fewer,
        "package_name_masks_to_exclude": _as_many_left_out,
        "maintenance_run_id": _never,
    },
    Limits: {"region": _or_added(_smaller_share), "tags": _tag_limits},
    AvailabilitySets: {"percent": _less},
    ScaleSets: {"percent": _less},
    Bake: {"waves": _or_added(_more), "rings": _or_added(_more)},
    ErrorBudget: {
        "wave": _or_added(_smaller_share),
        "lane": _or_added(_smaller_share),
        "ring": _or_added(_smaller_share),
        "run": _or_added(_smaller_share),
        "on_exceeded": _in_order(OnExceeded.HOLD, OnExceeded.END),
    },
    Ring: {
        "name": _never,
        "tags": _never,
        "percent": _never,
        "machine_ids": _never,
        "after": _never,
        "approval": Approval,
        "bake": _elsewhere,
    },
    Approval: {"within": _less, "require_second_person": _turned_on},
    Health: {
        "enabled": _turned_on,
        "resource_health": _turned_on,
        # A probe is a request that the app sends.
        "probe": _never,
        "alerts": AlertVeto,
        "settle": _less,
    },
    AlertVeto: {"severities": _as_many_left_out, "rules": _alert_rules, "fired_within": _more},
    Schedule: {
        "start_date": _never,
        "recurrence": _never,
        "time": _never,
        "time_zone": _never,
        "window": _less,
        "continue_in_next_window": _turned_off,
    },
    Events: {
        "new_machine": _turned_off,
        "machine_started": _turned_off,
        "before_maintenance": _turned_off,
        "after_maintenance": _turned_off,
        "mode": _in_order(PolicyMode.PATCH, PolicyMode.ASSESS),
        "delay": _more,
        "only_in_window": _turned_on,
    },
}
"""For each field how it narrows: a rule, or the section whose own fields are compared."""

_MAY_BE_ADDED = frozenset({Approval, AlertVeto})
"""Sections that only hold machines back: where there was none, there may be one."""


def _widened(before: BaseModel, after: BaseModel, path: str = "") -> Iterator[tuple[str, str]]:
    rules = RULES[type(before)]
    for name in type(before).model_fields:
        old, new = getattr(before, name), getattr(after, name)
        if old == new:
            continue
        rule, where = rules.get(name, _never), path + to_camel(name)
        if not isinstance(rule, type):
            if not rule(old, new):
                yield where, _why(rule, old, new)
        elif old is not None and new is not None:
            yield from _widened(old, new, f"{where}.")
        elif old is not None or rule not in _MAY_BE_ADDED:
            yield where, _NOT_NARROWER
