"""A policy document is valid, or every error in it is reported with its path and the fix."""

from __future__ import annotations

import contextlib
import json
import re
from copy import deepcopy
from typing import Any

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from local import ROOT
from patchwave.domain.core.validation import Problem
from patchwave.domain.policy.policy import (
    Policy,
    PolicyError,
    apply_overrides,
    merge_patch,
    parse_inline_policy,
    parse_policy,
    policy_schema,
)
from tests.support.processor_time import least_seconds

SUBSCRIPTION = "11111111-1111-1111-1111-111111111111"
MONTHLY = ROOT / "examples" / "policies" / "monthly.yaml"
SMALLEST: dict[str, Any] = {"name": "monthly", "scope": {"subscriptions": [SUBSCRIPTION]}}


def errors_of(document: object, *, name: str = "") -> dict[str, str]:
    with pytest.raises(PolicyError) as refused:
        parse_policy(document, name=name)
    return {problem.path: problem.message for problem in refused.value.errors}


def monthly() -> dict[str, Any]:
    return yaml.safe_load(MONTHLY.read_text(encoding="utf-8"))


def test_defaults() -> None:
    policy = parse_policy(SMALLEST)
    assert policy.enabled
    assert policy.max_concurrent == 20
    assert not policy.start_stopped
    assert policy.schedule is None
    wire = policy.to_wire()
    assert wire["install"]["windows"]["classificationsToInclude"] == ["Critical", "Security"]
    assert wire["install"]["linux"]["classificationsToInclude"] == ["Critical", "Security"]
    assert wire["install"]["rebootSetting"] == "IfRequired"
    assert wire["install"]["maximumDuration"] == "PT2H"
    assert wire["events"] == {
        "newMachine": False,
        "machineStarted": False,
        "beforeMaintenance": False,
        "afterMaintenance": False,
        "mode": "assess",
        "delay": "PT0M",
        "onlyInWindow": True,
    }


def test_the_example_is_valid_and_has_its_documented_meaning() -> None:
    policy = parse_policy(monthly())
    assert policy.name == "monthly"
    assert policy.schedule is not None
    assert policy.schedule.recurrence == "second Tuesday + 3 days"
    assert policy.events.new_machine
    jsonschema.Draft202012Validator(policy_schema()).validate(monthly())


def test_the_example_of_assessments_only_looks() -> None:
    policy = parse_policy(yaml.safe_load((ROOT / "examples" / "policies" / "assess.yaml").read_text("utf-8")))
    assert (policy.mode, policy.assess) == ("assess", None)
    assert policy.schedule is not None
    assert parse_policy(monthly()).assess is not None


def test_a_policy_survives_the_wire_and_reading_its_own_output() -> None:
    policy = parse_policy(monthly())
    wire = json.loads(json.dumps(policy.to_wire()))
    assert Policy.model_validate(wire) == policy
    assert parse_policy(wire) == policy
    jsonschema.Draft202012Validator(policy_schema()).validate(wire)


@pytest.mark.parametrize("written", ["PT0M", "PT30S", "PT1M30S", "PT1H", "PT25H1M1S"])
def test_a_duration_is_stored_to_the_second(written: str) -> None:
    policy = parse_policy(SMALLEST | {"bake": {"rings": written}})
    assert policy.to_wire()["bake"]["rings"] == written
    assert parse_policy(policy.to_wire()) == policy


def test_all_errors_are_reported_at_once() -> None:
    found = errors_of(
        {
            "name": "Bad Name",
            "enabled": "yes",
            "maxConcurrent": 0,
            "scope": {"subscription": ["x"], "machineIds": ["a' or 'b"], "tags": {"values": {"k.x": [False]}}},
            "install": {
                "rebootSetting": "NeverReboot",
                "maximumDuration": "PT10M",
                "windows": {"kbNumbersToInclude": ["x"], "classificationsToInclude": ["Securty"]},
                "linux": {"packageNameMasksToInclude": ["a b"]},
            },
            "schedule": {"recurrence": "fifth Tuesday", "time": 120, "timeZone": "Berlin", "window": "PT1M"},
            "events": {"newMachines": True},
            "rebootSetting": "Never",
        }
    )
    assert set(found) == {
        "name",
        "enabled",
        "maxConcurrent",
        "scope.subscription",
        "scope.machineIds[0]",
        "scope.tags.values['k.x'][0]",
        "install.rebootSetting",
        "install.maximumDuration",
        "install.windows.kbNumbersToInclude[0]",
        "install.windows.classificationsToInclude[0]",
        "install.linux.packageNameMasksToInclude[0]",
        "schedule.recurrence",
        "schedule.time",
        "schedule.timeZone",
        "schedule.window",
        "events.newMachines",
        "rebootSetting",
    }
    assert found["scope.subscription"].endswith('did you mean "subscriptions"?')
    assert found["install.rebootSetting"].endswith('did you mean "Never"?')
    assert found["events.newMachines"].endswith('did you mean "newMachine"?')
    assert found["rebootSetting"].endswith('did you mean "install.rebootSetting"?')
    assert "quotes" in found["schedule.time"]


def test_what_could_never_be_done_is_reported_beside_wrong_fields() -> None:
    window = {"recurrence": "last Friday", "time": "22:00", "timeZone": "UTC", "window": "PT45M"}
    rings = [{"name": "a", "after": "b"}, {"name": "b", "after": "a"}]
    found = errors_of(SMALLEST | {"maxConcurrent": 0, "rings": rings, "schedule": window})
    assert set(found) == {"maxConcurrent", "rings[0].after", "schedule.window"}
    assert set(errors_of({"name": "No", "rings": rings})) == {"name", "scope", "rings[0].after"}


def test_what_depends_on_a_wrong_section_is_not_judged() -> None:
    window = {"recurrence": "last Friday", "time": "22:00", "timeZone": "UTC", "window": "PT45M"}
    found = errors_of(SMALLEST | {"pinRings": True, "rings": [{"name": "A"}, {"name": "b"}]})
    assert set(found) == {"rings[0].name", "rings[1]"}
    found = errors_of(SMALLEST | {"install": {"minimumDuration": 30}, "schedule": window})
    assert set(found) == {"install.minimumDuration"}


@pytest.mark.parametrize("document", [None, [], "monthly", 7, True])
def test_a_document_that_is_no_object(document: object) -> None:
    assert set(errors_of(document)) == {"$"}


def test_name_and_scope_are_needed() -> None:
    assert set(errors_of({})) == {"name", "scope"}


@pytest.mark.parametrize(
    "scope",
    [
        {},
        {"subscriptions": []},
        {"tags": None},
        {"exclude": {"resourceGroups": ["rg"]}},
        {"machineIds": [], "exclude": {}},
    ],
)
def test_a_scope_without_any_selector_is_refused(scope: dict[str, object]) -> None:
    found = errors_of(SMALLEST | {"scope": scope})
    assert set(found) == {"scope"}
    assert "machineIds" in found["scope"]


@pytest.mark.parametrize(
    ("scope", "name"),
    [
        ({"locations": ["westeurope", "eastus"], "exclude": {"locations": ["East US", "West Europe"]}}, "locations"),
        ({"resourceGroups": ["rg-a"], "exclude": {"resourceGroups": ["RG-A", "rg-b"]}}, "resourceGroups"),
        ({"subscriptions": [SUBSCRIPTION], "exclude": {"subscriptions": [SUBSCRIPTION.upper()]}}, "subscriptions"),
    ],
)
def test_a_scope_that_excludes_all_that_it_selects_is_refused(scope: dict[str, object], name: str) -> None:
    found = errors_of(SMALLEST | {"scope": scope})
    assert found == {"scope": f"selects nothing: scope.exclude.{name} leaves out all of scope.{name}"}


def test_a_scope_that_excludes_a_part_of_what_it_selects_is_taken() -> None:
    scope = {"locations": ["westeurope", "eastus"], "exclude": {"locations": ["eastus"]}}
    assert parse_policy(SMALLEST | {"scope": scope}).scope.locations == ("westeurope", "eastus")


@pytest.mark.parametrize(
    ("change", "path", "hint"),
    [
        ({"name": "a" * 33}, "name", "32"),
        ({"name": "-a"}, "name", "letter or digit"),
        ({"name": "a\n"}, "name", "lower-case"),
        ({"name": 7}, "name", "text"),
        ({"description": None}, "description", "null"),
        ({"description": "x" * 1001}, "description", "1000"),
        ({"maxConcurrent": 1001}, "maxConcurrent", "at most 1000"),
        ({"maxConcurrent": True}, "maxConcurrent", "whole number"),
        ({"maxConcurrent": "20"}, "maxConcurrent", "whole number"),
        ({"maxConcurrent": 2.5}, "maxConcurrent", "whole number"),
        ({"max_concurrent": 5}, "max_concurrent", "maxConcurrent"),
        ({"startStopped": 1}, "startStopped", "true or false"),
        ({"scope": ["x"]}, "scope", "an object"),
        ({"scope": {"subscriptions": SUBSCRIPTION}}, "scope.subscriptions", "a list"),
        ({"scope": {"subscriptions": [7]}}, "scope.subscriptions[0]", "text"),
        ({"install": {"reboot_setting": "Never"}}, "install.reboot_setting", "rebootSetting"),
        ({"install": {"maximumDuration": 7200}}, "install.maximumDuration", "PT2H"),
        ({"install": {"maximumDuration": "PT24H"}}, "install.maximumDuration", "under PT24H"),
        ({"install": {"maximumDuration": "P1D"}}, "install.maximumDuration", "PT2H"),
        ({"install": {"minimumDuration": "PT19M"}}, "install.minimumDuration", "at least PT20M"),
        ({"install": {"minimumDuration": 60}}, "install.minimumDuration", "not the number 60"),
        ({"bake": {"waves": 10}}, "bake.waves", "not the number 10"),
        ({"rings": [{"name": "a", "approval": {"within": 3600}}]}, "rings[0].approval.within", "not the number 3600"),
        ({"hooks": {"snapshot": {"keep": 7200.0}}}, "hooks.snapshot.keep", "not the number 7200.0"),
        ({"maxConcurrent": 0}, "maxConcurrent", "at least 1"),
        ({"maxConcurrent": -1}, "maxConcurrent", "at least 1"),
        ({"maxConcurrent": "0%"}, "maxConcurrent", 'or "1%"'),
        ({"install": {"windows": {}}}, "install.windows", "kbNumbersToInclude"),
        ({"install": {"linux": {"classificationsToInclude": []}}}, "install.linux", "selects nothing"),
        ({"install": {"linux": {"classificationsToInclude": ["Other", "Critical"]}}}, "install.linux", "Other"),
        ({"schedule": {"recurrence": "second Tuesday"}}, "schedule.timeZone", "IANA"),
        ({"rungs": {}, "x9": 1}, "x9", "use name, description"),
    ],
)
def test_each_wrong_value_names_its_path_and_the_fix(change: dict[str, object], path: str, hint: str) -> None:
    found = errors_of(SMALLEST | change)
    matching = [message for where, message in found.items() if where.startswith(path)]
    assert matching, found
    assert hint in matching[0]


@pytest.mark.parametrize(
    ("change", "needs"),
    [
        ({}, "PT1H"),
        ({"install": {"minimumDuration": "PT46M"}}, "PT46M"),
        ({"install": {"minimumDuration": "PT45M"}}, None),
        ({"install": {"maximumDuration": "PT45M"}}, None),
    ],
)
def test_a_window_shorter_than_one_installation_is_refused(change: dict[str, object], needs: str | None) -> None:
    schedule = {"recurrence": "last Friday", "time": "22:00", "timeZone": "UTC", "window": "PT45M"}
    document = SMALLEST | {"schedule": schedule} | change
    if needs is None:
        parse_policy(document)
        return
    found = errors_of(document)
    assert set(found) == {"schedule.window"}
    assert f"needs {needs};" in found["schedule.window"]


def test_a_policy_that_only_assesses_needs_no_window_for_an_installation() -> None:
    schedule = {"recurrence": "last Friday", "time": "22:00", "timeZone": "UTC", "window": "PT30M"}
    short = monthly() | {"schedule": schedule | {"continueInNextWindow": True}}
    assert list(errors_of(short)) == ["schedule.window"]
    policy = parse_policy(short | {"mode": "assess"})
    assert (policy.mode, policy.continues) == ("assess", False)


def test_events_patch_in_windows_unless_the_policy_says_otherwise() -> None:
    by_hand = {"scope": {"locations": ["westeurope"]}, "name": "by-hand"}
    patching = {"newMachine": True, "mode": "patch"}
    assert errors_of(by_hand | {"events": patching}) == {
        "events.onlyInWindow": "leaves no time to patch, as the policy has no window: give schedule, or set it to false"
    }
    for events in ({"mode": "patch"}, patching | {"onlyInWindow": False}, patching | {"mode": "assess"}):
        assert parse_policy(by_hand | {"events": events})
    assert parse_policy(by_hand | {"events": patching, "mode": "assess"}).event_mode == "assess"
    assert parse_policy(monthly() | {"events": patching}).event_mode == "patch"
    rings = {"rings": [{"name": "canary", "percent": 5}, {"name": "broad"}], "errorBudget": {"run": 1}}
    early = errors_of(monthly() | rings | {"events": patching | {"onlyInWindow": False}})
    assert early["events.onlyInWindow"].startswith("is false, and a run of single machines would patch them before")
    whole = {"afterMaintenance": True, "mode": "patch", "onlyInWindow": False}
    assert parse_policy(monthly() | rings | {"events": whole})
    assert parse_policy(monthly() | rings | {"events": patching})
    wrong = monthly()["schedule"] | {"window": "x"}
    assert list(errors_of(by_hand | {"events": patching, "schedule": wrong})) == ["schedule.window"]
    assert list(errors_of(monthly() | {"events": patching | {"delay": "PT25H"}})) == ["events.delay"]


def test_an_assess_schedule_does_not_continue_in_the_next_window() -> None:
    schedule = {"recurrence": "last Friday", "time": "22:00", "timeZone": "UTC", "window": "PT30M"}
    assert parse_policy(monthly() | {"assess": schedule}).assess is not None
    errors = errors_of(monthly() | {"assess": schedule | {"continueInNextWindow": True}, "pinRings": True})
    assert errors["assess.continueInNextWindow"].startswith("counts for installations only")
    assert "pinRings" in errors


def test_a_rule_that_counts_needs_a_first_date_even_beside_other_errors() -> None:
    schedule = {"recurrence": "RRULE:FREQ=DAILY;COUNT=3", "time": "22:00", "timeZone": "Nowhere", "window": "PT4H"}
    found = errors_of(SMALLEST | {"schedule": schedule})
    assert set(found) == {"schedule.recurrence", "schedule.timeZone"}
    assert "startDate" in found["schedule.recurrence"]


@pytest.mark.parametrize(
    ("linux", "paths"),
    [
        (
            {"classificationsToInclude": ["Other", "Critical"], "packageNameMasksToInclude": ["a b"]},
            {"install.linux", "install.linux.packageNameMasksToInclude[0]"},
        ),
        (
            {"classificationsToInclude": ["Othr", "Critical"], "packageNameMasksToInclude": ["a b"]},
            {"install.linux.classificationsToInclude[0]", "install.linux.packageNameMasksToInclude[0]"},
        ),
        (
            {"classificationsToInclude": "Other", "packageNameMasksToInclude": ["a b"]},
            {"install.linux.classificationsToInclude", "install.linux.packageNameMasksToInclude[0]"},
        ),
        ({"classificationsToInclude": ["Other", "Critical"]}, {"install.linux"}),
    ],
)
def test_a_rule_between_fields_is_reported_beside_a_wrong_field(linux: dict[str, object], paths: set[str]) -> None:
    assert set(errors_of(SMALLEST | {"install": {"linux": linux}})) == paths


def test_the_name_in_the_address_rules() -> None:
    assert parse_policy({"scope": SMALLEST["scope"]}, name="weekly").name == "weekly"
    assert set(errors_of(SMALLEST, name="weekly")) == {"name"}
    assert set(errors_of(SMALLEST | {"maxConcurrent": 0}, name="weekly")) == {"name", "maxConcurrent"}
    assert set(errors_of({"scope": SMALLEST["scope"]}, name="Bad/Name")) == {"name"}


def test_an_inline_policy_needs_no_name() -> None:
    assert re.fullmatch(r"adhoc-[0-9a-f]{8}", parse_inline_policy({"scope": SMALLEST["scope"]}).name)
    assert parse_inline_policy(SMALLEST).name == "adhoc-monthly"
    assert parse_inline_policy(SMALLEST | {"name": "adhoc-once"}).name == "adhoc-once"
    assert parse_inline_policy(SMALLEST | {"name": "a" * 25 + "-" + "b" * 6}).name == f"adhoc-{'a' * 25}"
    with pytest.raises(PolicyError):
        parse_inline_policy([])


@pytest.mark.parametrize(
    ("target", "patch", "expected"),
    [
        # The examples of RFC 7396, appendix A.
        ({"a": "b"}, {"a": "c"}, {"a": "c"}),
        ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
        ({"a": "b"}, {"a": None}, {}),
        ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
        ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
        ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
        ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
        ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
        (["a", "b"], ["c", "d"], ["c", "d"]),
        ({"a": "b"}, ["c"], ["c"]),
        ({"a": "foo"}, None, None),
        ({"a": "foo"}, "bar", "bar"),
        ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
        ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
        ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
    ],
)
def test_merge_patch(target: object, patch: object, expected: object) -> None:
    before = deepcopy((target, patch))
    assert merge_patch(target, patch) == expected
    assert (target, patch) == before


def test_overrides_are_merged_and_validated_as_a_whole() -> None:
    document = parse_policy(monthly()).to_wire()
    policy = apply_overrides(document, {"maxConcurrent": 3, "scope": {"tags": None, "locations": ["West Europe"]}})
    assert policy.max_concurrent == 3
    assert policy.scope.tags is None
    assert policy.scope.locations == ("westeurope",)
    assert policy.scope.subscriptions == parse_policy(monthly()).scope.subscriptions


@pytest.mark.parametrize(
    ("overrides", "path"),
    [
        ([], "overrides"),
        (None, "overrides"),
        ({"name": "other"}, "overrides.name"),
        ({"scope": {"subscriptions": None}}, "scope"),
        ({"maxConcurent": 3}, "maxConcurent"),
    ],
)
def test_wrong_overrides(overrides: object, path: str) -> None:
    with pytest.raises(PolicyError) as refused:
        apply_overrides(SMALLEST, overrides)
    assert [problem.path for problem in refused.value.errors] == [path]


def test_overrides_nested_too_deeply() -> None:
    deep: dict[str, Any] = {}
    for _ in range(100_000):
        deep = {"a": deep}
    with pytest.raises(PolicyError):
        apply_overrides(SMALLEST, {"scope": deep})


def test_the_schema_is_complete() -> None:
    schema = policy_schema()
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    jsonschema.Draft202012Validator.check_schema(schema)
    for part in (schema, *schema["$defs"].values()):
        assert part["title"]
        assert part["description"]
        for key, member in part.get("properties", {}).items():
            assert member["title"], key
            assert member["description"], key
        if part.get("type") == "object":
            assert part["additionalProperties"] is False


@pytest.mark.parametrize(
    "change",
    [
        {"name": "Bad Name"},
        {"enabled": "yes"},
        {"maxConcurrent": 0},
        {"maxConcurrent": "20"},
        {"scope": {"machineIds": ["web-01"]}},
        {"scope": {"machineIds": [f"/subscriptions/{SUBSCRIPTION}/resourceGroups/a'b/providers/x"]}},
        {"scope": {"subscriptions": ["production"]}},
        {"scope": {"tags": {"values": {}}}},
        {"scope": {"osTypes": ["Solaris"]}},
        {"install": {"rebootSetting": "NeverReboot"}},
        {"install": {"maximumDuration": "2 hours"}},
        {"schedule": {"recurrence": "second Tuesday"}},
        {"rungs": []},
    ],
)
def test_the_schema_refuses_what_it_can_see(change: dict[str, Any]) -> None:
    validator = jsonschema.Draft202012Validator(policy_schema())
    assert validator.is_valid(SMALLEST)
    assert not validator.is_valid(SMALLEST | change)
    errors_of(SMALLEST | change)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.sampled_from(["", "x", "PT2H", "'", "22:00", SUBSCRIPTION]),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from(["values", "match", "é"]), inner),
    max_leaves=4,
)
KEYS = st.sampled_from(
    ["name", "description", "enabled", "scope", "install", "maxConcurrent", "startStopped", "schedule", "events"]
)
SECTIONS = st.dictionaries(
    st.sampled_from(
        [
            "subscriptions",
            "tags",
            "machineIds",
            "exclude",
            "windows",
            "linux",
            "recurrence",
            "time",
            "window",
            "timeZone",
            "startDate",
            "newMachine",
            "rebootSetting",
            "maximumDuration",
            "osTypes",
            "x",
        ]
    ),
    JSON,
    max_size=4,
)


@settings(deadline=None)
@given(st.dictionaries(KEYS, JSON | SECTIONS, max_size=6))
def test_every_document_is_a_policy_or_a_list_of_errors(document: dict[str, Any]) -> None:
    policy: Policy | None = None
    problems: list[Problem] = []
    try:
        policy = parse_policy(document)
    except PolicyError as refused:
        problems = refused.errors
    assert (policy is None) == bool(problems)
    assert all(problem.path and problem.message for problem in problems)
    assert policy is None or parse_policy(policy.to_wire()) == policy


TIMED: dict[str, Any] = {
    "recurrence": "second Tuesday",
    "startDate": "2026-11-10",
    "time": "22:00",
    "timeZone": "Europe/Berlin",
    "window": "PT4H30M",
}
WITH_NUMBERS = [
    ("schedule.recurrence", "RRULE:FREQ=WEEKLY;INTERVAL=2;BYDAY=TU"),
    ("schedule.recurrence", "RRULE:FREQ=MONTHLY;BYDAY=2TU"),
    ("schedule.recurrence", "RRULE:FREQ=MONTHLY;UNTIL=20301231T000000Z"),
    ("schedule.recurrence", "second Tuesday + 3 days"),
    ("schedule.recurrence", "2026-12-10, 2027-01-14"),
    ("schedule.startDate", "2026-11-10"),
    ("schedule.time", "22:00"),
    ("schedule.window", "PT4H30M"),
    ("install.maximumDuration", "PT2H"),
    ("bake.rings", "PT2H"),
    ("maxConcurrent", "10%"),
]


@settings(max_examples=20)
@given(st.data())
@pytest.mark.parametrize(("path", "text"), WITH_NUMBERS)
def test_a_digit_of_another_script_is_refused_with_its_path(path: str, text: str, data: st.DataObject) -> None:
    """time-digits-policy.yaml: such a policy was stored, and its time then ended the timer of every policy."""
    at = data.draw(st.sampled_from([at for at, character in enumerate(text) if character.isdigit()]))
    digit = data.draw(st.sampled_from("٠१๓᠔５²⓺𝟗"))
    section, _, key = path.rpartition(".")
    broken = text[:at] + digit + text[at + 1 :]
    change: dict[str, Any] = {section: {key: broken}} if section else {key: broken}
    if section == "schedule":
        change = {section: TIMED | {key: broken}}
    assert list(errors_of(SMALLEST | change)) == [path]


def test_errors_of_rings_window_and_fields_are_listed_together() -> None:
    found = errors_of(
        SMALLEST
        | {
            "maxConcurrent": 0,
            "rings": [
                {"name": "canary", "percent": 500},
                {"name": "canary", "after": "missing"},
                {"name": "rest", "after": "canary"},
            ],
            "schedule": TIMED | {"time": "25:00", "window": "PT30M"},
            "install": {"maximumDuration": "PT2H"},
        }
    )
    assert list(found) == [
        "maxConcurrent",
        "rings[0].percent",
        "schedule.time",
        "rings[1].name",
        "rings[1].after",
        "schedule.window",
    ]


@pytest.mark.parametrize("wrong", [{"name": "Canary!"}, {"after": 5}, {"after": "missing"}, {"name": "rest"}])
def test_a_wrong_name_or_place_of_a_ring_hides_nothing_of_the_others(wrong: dict[str, Any]) -> None:
    """Whether a ring can take machines of the scope does not depend on the order."""
    outside = "/subscriptions/99999999-2222-4333-8444-555555555555/resourceGroups/rg/providers/Microsoft.Compute"
    rings = [
        {"name": "canary", "tags": {"values": {"ring": ["canary"]}}} | wrong,
        {"name": "named", "machineIds": [f"{outside}/virtualMachines/vm"]},
        {"name": "rest"},
    ]
    found = errors_of(SMALLEST | {"scope": {"subscriptions": [SUBSCRIPTION]}, "rings": rings})
    assert found["rings[1].machineIds"] == "matches nothing: none of these machines can be in the scope of the policy"
    assert len(found) == (3 if "after" in wrong else 2)
    assert "patchwave-ring" not in str(found)


def test_a_ring_of_a_wrong_name_is_known_by_its_place() -> None:
    found = errors_of(SMALLEST | {"rings": [{"name": "The Rest"}, {"name": "late", "percent": 5}]})
    assert found["rings[1]"].startswith("matches nothing: rings[0] comes before it and takes everything that is left")
    chained = [{"name": "The Rest", "after": "late"}, {"name": "late", "percent": 5}]
    assert list(errors_of(SMALLEST | {"rings": chained})) == ["rings[0].name"]


COSTLY: list[dict[str, Any]] = [
    {"phases": [[f"region{number}" for number in range(8_000)]]},
    {"phases": [[f"region{number}"] for number in range(8_000)]},
    {"phases": [[f"region{number}x{place}" for place in range(200)] for number in range(80)]},
    {"scope": {"locations": [f"region{number}" for number in range(15_000)]}},
    {"scope": {"resourceGroups": [f"g{number}" for number in range(20_000)]}},
    {"scope": {"tags": {"values": {"t": [f"v{number}" for number in range(20_000)]}}}},
    {
        "scope": {"tags": {"match": "any", "values": {f"t{number}": ["a"] for number in range(8_000)}}},
        "rings": [
            {"name": "a", "tags": {"match": "any", "values": {f"t{number}": ["b"] for number in range(8_000)}}},
            {"name": "b"},
        ],
    },
    {
        "rings": [
            {"name": f"r{ring}", "tags": {"match": "any", "values": {f"t{number}": ["b"] for number in range(50)}}}
            for ring in range(20)
        ]
    },
    {f"unknown{number}": 1 for number in range(15_000)},
    {"x" * 200_000: 1},
    {"scope": {"machineIds": ["nonsense"] * 20_000}},
    {"scope": {"osTypes": ["Linu"] * 20_000}},
    {"limits": {"tags": [{"tag": f"t{number}", "maxConcurrent": 1} for number in range(5_000)]}},
    {"rings": [{"name": f"r{number}", "after": f"r{number - 1}"} for number in range(5_000)]},
]


def seconds_to_parse(document: dict[str, Any]) -> float:
    """Processor seconds to read a policy, well or not."""

    def read() -> None:
        with contextlib.suppress(PolicyError):
            parse_policy(document)

    return least_seconds(read)


@pytest.mark.parametrize("change", COSTLY, ids=lambda change: next(iter(change))[:20])
def test_no_document_of_a_request_costs_half_a_second(change: dict[str, Any]) -> None:
    """8,000 regions of one phase took 23 seconds, in which the service answered nothing."""
    document = SMALLEST | change
    assert len(json.dumps(document)) < 300_000
    assert seconds_to_parse(document) < 0.5


def test_a_list_longer_than_any_real_one_is_refused_by_its_length_alone() -> None:
    found = errors_of(SMALLEST | {"phases": [[f"region{number}" for number in range(201)]]})
    assert found == {"phases[0]": "is too long; at most 200"}
    found = errors_of(SMALLEST | {"scope": {"tags": {"values": {f"t{number}": ["a"] for number in range(51)}}}})
    assert found == {"scope.tags.values": "is too long; at most 50"}
    found = errors_of(SMALLEST | {"scope": {"tags": {"values": {"t": [f"v{number}" for number in range(501)]}}}})
    assert found == {"scope.tags.values.t": "is too long; at most 500"}


@pytest.mark.parametrize(
    ("system", "key"),
    [
        ("windows", "patchNameMasksToInclude"),
        ("windows", "patchNameMasksToExclude"),
        ("linux", "packageNameMasksToInclude"),
        ("linux", "packageNameMasksToExclude"),
    ],
)
def test_a_policy_has_no_more_masks_than_a_person_keeps(system: str, key: str) -> None:
    """Each is compared with every patch of every machine, while a draft is made and while a run goes on."""
    masks = [f"name{number}*" for number in range(201)]

    def having(masks: list[str]) -> dict[str, Any]:
        return SMALLEST | {"install": {system: {"classificationsToInclude": ["Critical"], key: masks}}}

    assert errors_of(having(masks)) == {f"install.{system}": f"has 201 {key}; at most 200"}
    assert parse_policy(having(masks[:200]))


def test_of_very_many_errors_the_first_fifty_are_explained() -> None:
    found = errors_of(SMALLEST | {f"unknown{number}": 1 for number in range(250)})
    assert len(found) == 51
    assert found["$"] == "200 more errors are not listed; mend these first"
    found = errors_of(SMALLEST | {"phases": [["westeurope"]] * 180, f"unknown{0}": 1})
    assert len(found) == 51
    assert found["$"] == "130 more errors are not listed; mend these first"
