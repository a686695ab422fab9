"""Rollouts that could never be done are refused with the field and the reason; the others are not."""

from __future__ import annotations

from typing import Any

import pytest

from patchwave.domain.policy.policy import PolicyError, apply_overrides, parse_policy
from tests.support.fleet_strategies import SUBSCRIPTIONS, machine_id

SCOPE = {"subscriptions": [SUBSCRIPTIONS[0]]}
CANARY = {"name": "canary", "tags": {"values": {"ring": ["canary"]}}}
REST = {"name": "rest"}
OUTSIDE = {"name": "outside", "machineIds": [machine_id(1, SUBSCRIPTIONS[1])]}


def problems(scope: dict[str, Any] | None = None, **fields: Any) -> dict[str, str]:
    """What is wrong with a policy of these fields: message by path."""
    try:
        parse_policy({"name": "test", "scope": SCOPE | (scope or {})} | fields)
    except PolicyError as refused:
        return {problem.path: problem.message for problem in refused.errors}
    return {}


def tags(match: str = "all", **values: list[str]) -> dict[str, Any]:
    return {"match": match, "values": values}


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"rings": [CANARY, REST]},
        {"rings": [REST]},
        {"rings": [{"name": "a", "percent": 40}, {"name": "b", "percent": 60}]},
        {"rings": [REST | {"after": "canary"}, CANARY]},
        {"rings": [{"name": "named", "machineIds": [machine_id(1), machine_id(2, SUBSCRIPTIONS[1])]}, CANARY]},
        {"rings": [CANARY, {"name": "early", "tags": tags("any", ring=["canary"], app=["web"])}]},
        {"phases": [["West Europe", "eastus"], ["northeurope", "westus"]]},
        {"limits": {"tags": [{"tag": "app", "maxConcurrent": 2}]}, "mutuallyExclusiveTag": "cluster"},
    ],
)
def test_what_can_be_done_is_taken(fields: dict[str, Any]) -> None:
    assert problems(**fields) == {}


@pytest.mark.parametrize(
    ("rings", "path", "words"),
    [
        ([CANARY, CANARY], "rings[1].name", "is the name of rings[0] as well"),
        ([REST, CANARY], "rings[1]", "matches nothing: rest comes before it"),
        ([REST, {"name": "all"}], "rings[1]", "matches nothing: rest comes before it"),
        ([REST, CANARY | {"after": "rst"}], "rings[1].after", 'no ring is named rst; did you mean "rest"?'),
        ([REST, CANARY | {"after": "xyz"}], "rings[1].after", "no ring is named xyz; the rings are rest, canary"),
        ([REST | {"after": "rest"}], "rings[0].after", "has a cycle: rest after rest"),
        (
            [REST | {"after": "canary"}, CANARY | {"after": "rest"}],
            "rings[0].after",
            "has a cycle: rest after canary after rest",
        ),
        (
            [{"name": "b", "percent": 1, "after": "canary"}, {"name": "c", "after": "canary"}, CANARY],
            "rings[1].after",
            "b comes after canary as well",
        ),
        ([CANARY, {"name": "b", "percent": 1}, REST | {"after": "b"}], "rings[1].after", "is missing: canary has none"),
        (
            [{"name": "a", "percent": 60}, {"name": "b", "percent": 50}],
            "rings[1].percent",
            "take 110 % of the machines",
        ),
        (
            [{"name": "a", "machineIds": [machine_id(1, SUBSCRIPTIONS[1])]}],
            "rings[0].machineIds",
            "can be in the scope",
        ),
        (
            [{"name": "a", "machineIds": [machine_id(1)]}, {"name": "b", "machineIds": [machine_id(1).upper()]}],
            "rings[1].machineIds",
            "every machine of it is in a ring before it (a)",
        ),
        ([{"name": "a", "machineIds": ["vm1"]}], "rings[0].machineIds[0]", "not a machine id"),
        (
            [CANARY, {"name": "b", "tags": tags(ring=["Canary"], app=["web"])}],
            "rings[1].tags",
            "canary comes before it and takes all machines with these tags",
        ),
        ([{"name": "a", "tags": tags(env=["test"])}], "rings[0].tags", "scope.tags wants other values"),
        ([{"name": "a", "tags": tags(HOLD=["yes"])}], "rings[0].tags", "scope.exclude.tags leaves out all"),
    ],
)
def test_rings_that_could_never_run(rings: list[dict[str, Any]], path: str, words: str) -> None:
    scope = {"tags": tags(env=["prod"]), "exclude": {"tags": {"values": {"hold": ["yes", "no"]}}}}
    found = problems(scope, rings=rings)
    assert list(found) == [path]
    assert words in found[path]


def test_filters_are_compared_by_what_they_take() -> None:
    either = {"name": "either", "tags": tags("any", ring=["canary"], app=["web"])}
    both = {"name": "both", "tags": tags("all", ring=["canary"], app=["web"])}
    assert set(problems(rings=[either, both])) == {"rings[1].tags"}
    assert problems(rings=[both, either]) == {}
    assert problems({"tags": tags("any", env=["prod"], app=["sql"])}, rings=[both]) == {}
    assert set(problems({"tags": tags(app=["sql"])}, rings=[both])) == {"rings[0].tags"}
    assert problems({"tags": tags(app=["sql"])}, rings=[either]) == {}


@pytest.mark.parametrize(
    ("phases", "path", "words"),
    [
        ([["westeurope"], []], "phases[1]", "names no region"),
        ([["westeurope"], ["West Europe"]], "phases[1][0]", "is named in phases[0][0] already"),
        ([["westeurope", "northeurope"]], "phases[0][1]", "northeurope and westeurope are a pair"),
        # Pairs are not symmetric: only West US 3 names East US.
        ([["eastus", "West US 3"]], "phases[0][1]", "westus3 and eastus are a pair"),
        ([["uksouth"]], "phases[0][0]", "uksouth is not in the scope"),
        ([["west_europe"]], "phases[0][0]", "is not a location"),
    ],
)
def test_phases_that_could_never_run(phases: list[list[str]], path: str, words: str) -> None:
    scope = {"exclude": {"locations": ["uksouth"]}}
    found = problems(scope, phases=phases)
    assert list(found) == [path]
    assert words in found[path]


def test_two_limits_for_one_tag() -> None:
    app = {"tag": "app", "maxConcurrent": 2}
    assert set(problems(limits={"tags": [app, app | {"tag": "APP"}]})) == {"limits.tags[1].tag"}
    assert set(problems(limits={"tags": [app]}, mutuallyExclusiveTag="App")) == {"limits.tags[0].tag"}
    assert set(problems(limits={"region": 0, "tags": [app | {"maxConcurrent": "0%"}]})) == {
        "limits.region",
        "limits.tags[0].maxConcurrent",
    }


def test_every_mistake_is_listed_at_once() -> None:
    found = problems(rings=[REST, CANARY, CANARY], phases=[[]], limits={"tags": [{"tag": "a", "maxConcurrent": 1}] * 2})
    assert set(found) == {"rings[1]", "rings[2].name", "phases[0]", "limits.tags[1].tag"}


def test_rings_of_one_name_in_a_chain_have_no_order() -> None:
    """The chain can be walked by its names, and yet ends nowhere."""
    rings = [{"name": "a", "percent": 1, "after": "b"}, {"name": "a", "percent": 1}, {"name": "b", "after": "a"}]
    assert set(problems(rings=rings)) == {"rings[1].name"}


def test_a_request_may_narrow_the_scope_to_less_than_the_rings() -> None:
    """Patching one machine now must not fail because the canary ring has another one."""
    policy = parse_policy(
        {
            "name": "test",
            "scope": SCOPE,
            "rings": [{"name": "canary", "machineIds": [machine_id(1)]}, REST],
            "phases": [["westeurope"]],
        }
    )
    narrowed = apply_overrides(policy.to_wire(), {"scope": {"machineIds": [machine_id(2)], "locations": ["eastus"]}})
    assert narrowed.scope.machine_ids == (machine_id(2),)
    with pytest.raises(PolicyError):
        apply_overrides(
            policy.to_wire(), {"rings": [{"name": "canary", "machineIds": [machine_id(1, SUBSCRIPTIONS[1])]}]}
        )
