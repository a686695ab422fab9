"""What a scope accepts at the door, and which machines it holds."""

from __future__ import annotations

import pytest
from pydantic import ValidationError

from patchwave.domain.core.ids import MachineId
from patchwave.domain.policy.scope import Scope

SUBSCRIPTION = "11111111-1111-1111-1111-111111111111"
OTHER_SUBSCRIPTION = "22222222-2222-2222-2222-222222222222"


def machine_id(name: str = "web-01", group: str = "rg-web", subscription: str = SUBSCRIPTION) -> str:
    return f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/virtualMachines/{name}"


def holds(scope: Scope, text: str, **facts: object) -> bool:
    given: dict[str, object] = {"location": "westeurope", "os_type": "Linux", "tags": {}} | facts
    return scope.holds(MachineId.parse(text), **given)  # type: ignore[arg-type]  # facts are spelled per test


@pytest.mark.parametrize(
    ("selector", "value"),
    [
        ("machineIds", machine_id() + "'"),
        ("machineIds", machine_id() + "\n"),
        ("machineIds", machine_id() + '" or 1 == 1'),
        ("machineIds", machine_id() + " | take 1"),
        ("machineIds", machine_id("../web-01")),
        ("machineIds", machine_id(group="..")),
        ("machineIds", machine_id(group="rg/../rg")),
        ("machineIds", "web-01"),
        ("machineIds", ""),
        ("resourceGroups", "rg') or ('1' =~ '1"),
        ("resourceGroups", "rg\n| take 1"),
        ("resourceGroups", "rg-web\n"),
        ("resourceGroups", "../rg"),
        ("resourceGroups", "rg..web"),
        ("resourceGroups", "rg."),
        ("resourceGroups", ""),
        ("resourceGroups", "r" * 91),
        ("subscriptions", "production"),
        ("subscriptions", SUBSCRIPTION + "\n"),
        ("subscriptions", f"/subscriptions/{SUBSCRIPTION}"),
        ("locations", "westeurope'"),
        ("locations", "west-europe | take 1"),
        ("locations", ""),
        ("osTypes", "Solaris"),
    ],
)
def test_bad_selectors_are_refused_at_the_door(selector: str, value: str) -> None:
    for document in ({selector: [value]}, {"subscriptions": [SUBSCRIPTION], "exclude": {selector: [value]}}):
        with pytest.raises(ValidationError):
            Scope.model_validate(document)


@pytest.mark.parametrize("tags", [{}, {"values": {}}, {"values": {"env": []}}, {"values": {" ": ["x"]}}])
def test_an_empty_tag_filter_is_refused(tags: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        Scope.model_validate({"tags": tags})


def test_values_that_differ_by_case_are_one() -> None:
    scope = Scope.model_validate(
        {
            "machineIds": [machine_id(), machine_id().upper(), machine_id("web-02")],
            "resourceGroups": ["RG-Web", "rg-web"],
            "locations": ["West Europe", "westeurope"],
            "osTypes": ["linux", "Linux", "WINDOWS"],
        }
    )
    assert scope.machine_ids == (machine_id(), machine_id("web-02"))
    assert scope.resource_groups == ("RG-Web",)
    assert scope.locations == ("westeurope",)
    assert [os_type.value for os_type in scope.os_types] == ["Linux", "Windows"]


def test_one_tag_name_in_two_cases_is_refused_instead_of_guessed() -> None:
    with pytest.raises(ValidationError, match="twice"):
        Scope.model_validate({"tags": {"values": {"Env": ["prod"], "env": ["test"]}}})


def test_only_selectors_select() -> None:
    assert not Scope().has_selector
    assert not Scope.model_validate({"exclude": {"resourceGroups": ["rg"]}}).has_selector
    assert Scope.model_validate({"osTypes": ["Linux"]}).has_selector


def test_every_selector_given_must_match() -> None:
    scope = Scope.model_validate(
        {
            "subscriptions": [SUBSCRIPTION],
            "resourceGroups": ["rg-web"],
            "locations": ["West Europe"],
            "osTypes": ["Linux"],
            "machineIds": [machine_id()],
        }
    )
    assert holds(scope, machine_id().upper().replace("/SUBSCRIPTIONS", "/subscriptions"), location="WestEurope")
    assert not holds(scope, machine_id("web-02"))
    assert not holds(scope, machine_id(), location="northeurope")
    assert not holds(scope, machine_id(), os_type="Windows")
    assert not holds(scope, machine_id(), os_type="")


@pytest.mark.parametrize(
    ("match", "tags", "expected"),
    [
        ("all", {"ENV": "Prod", "tier": "web"}, True),
        ("all", {"env": "prod"}, False),
        ("all", {"env": "prod", "tier": "db"}, False),
        ("any", {"env": "prod"}, True),
        ("any", {"tier": "app"}, True),
        ("any", {"env": "dev", "tier": "db"}, False),
        ("any", {}, False),
    ],
)
def test_tags_match_all_or_any_without_case(match: str, tags: dict[str, str], expected: bool) -> None:
    scope = Scope.model_validate(
        {"tags": {"match": match, "values": {"env": ["prod", "test"], "tier": ["web", "app"]}}}
    )
    assert holds(scope, machine_id(), tags=tags) is expected


@pytest.mark.parametrize(
    "exclude",
    [
        {"machineIds": [machine_id("WEB-01")]},
        {"subscriptions": [SUBSCRIPTION]},
        {"resourceGroups": ["RG-WEB"]},
        {"locations": ["West Europe"]},
        {"tags": {"values": {"patching": ["hold"], "other": ["x"]}}},
    ],
)
def test_exclusions_win_over_every_selector(exclude: dict[str, object]) -> None:
    scope = Scope.model_validate({"machineIds": [machine_id()], "exclude": exclude})
    assert not holds(scope, machine_id(), tags={"Patching": "HOLD"})
    assert holds(Scope.model_validate({"machineIds": [machine_id()]}), machine_id(), tags={"Patching": "HOLD"})


def test_an_id_alone_can_only_rule_a_machine_out() -> None:
    scope = Scope.model_validate({"subscriptions": [SUBSCRIPTION], "tags": {"values": {"env": ["prod"]}}})
    assert scope.may_hold(MachineId.parse(machine_id()))
    assert not scope.may_hold(MachineId.parse(machine_id(subscription=OTHER_SUBSCRIPTION)))


def test_the_description_names_every_selector() -> None:
    scope = Scope.model_validate(
        {
            "subscriptions": [SUBSCRIPTION],
            "locations": ["westeurope"],
            "osTypes": ["Linux"],
            "tags": {"values": {"env": ["prod", "test"]}},
            "exclude": {"resourceGroups": ["rg-lab"], "machineIds": [machine_id()]},
        }
    )
    text = scope.describe()
    for part in (
        SUBSCRIPTION,
        "westeurope",
        "Linux",
        "env=prod|test",
        "without resource groups rg-lab",
        "1 machine",
    ):
        assert part in text


def test_a_scope_survives_the_wire() -> None:
    scope = Scope.model_validate({"machineIds": [machine_id()], "tags": {"values": {"env": ["prod"]}}})
    assert Scope.model_validate(scope.to_wire()) == scope
