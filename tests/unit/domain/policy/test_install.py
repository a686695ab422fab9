"""The install section of a policy: its defaults and its bounds."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from patchwave.domain.policy.install import Install


def test_what_is_installed_by_default() -> None:
    wire = Install().to_wire()
    assert wire["windows"]["classificationsToInclude"] == ["Critical", "Security"]
    assert wire["linux"]["classificationsToInclude"] == ["Critical", "Security"]
    assert wire["rebootSetting"] == "IfRequired"
    assert wire["maximumDuration"] == "PT2H"
    assert wire["minimumDuration"] == "PT1H"
    assert wire["approvalDelayDays"] == 0
    assert wire["windows"] == {
        "classificationsToInclude": ["Critical", "Security"],
        "kbNumbersToInclude": [],
        "kbNumbersToExclude": [],
        "excludeKbsRequiringReboot": False,
        "maxPatchPublishDate": None,
        "patchNameMasksToInclude": [],
        "patchNameMasksToExclude": [],
    }
    assert wire["linux"] == {
        "classificationsToInclude": ["Critical", "Security"],
        "packageNameMasksToInclude": [],
        "packageNameMasksToExclude": [],
        "maintenanceRunId": None,
    }
    assert Install.model_validate(wire) == Install()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("maximumDuration", "PT30M"),
        ("maximumDuration", "PT23H59M"),
        ("minimumDuration", "PT20M"),
        ("minimumDuration", "PT23H59M"),
        ("approvalDelayDays", 0),
        ("approvalDelayDays", 60),
    ],
)
def test_the_bounds_themselves_are_taken(field: str, value: Any) -> None:
    assert Install.model_validate({field: value}).to_wire()[field] == value


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("maximumDuration", "PT29M", "at least PT30M and under PT24H: shorter cannot start, the Linux agent reads no"),
        ("maximumDuration", "PT29M59S", "at least PT30M"),
        ("maximumDuration", "PT24H", "under PT24H"),
        ("minimumDuration", "PT19M59S", "at least PT20M and under PT24H: no agent starts anything in less"),
        ("minimumDuration", "PT24H", "under PT24H"),
        ("approvalDelayDays", -1, "greater than or equal to 0"),
        ("approvalDelayDays", 61, "less than or equal to 60"),
        ("approvalDelayDays", True, "valid integer"),
        ("approvalDelayDays", "7", "valid integer"),
    ],
)
def test_what_is_beyond_them_is_refused(field: str, value: Any, says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        Install.model_validate({field: value})
    (error,) = caught.value.errors()
    assert error["loc"] == (field,)
    assert says in error["msg"]


def test_seconds_are_kept_in_the_policy() -> None:
    wire = Install.model_validate({"maximumDuration": "PT45M30S", "minimumDuration": "PT20M59S"}).to_wire()
    assert (wire["maximumDuration"], wire["minimumDuration"]) == ("PT45M30S", "PT20M59S")


def test_the_schema_has_the_form_of_a_duration_for_editors() -> None:
    properties = Install.model_json_schema(by_alias=True)["properties"]
    for name in ("maximumDuration", "minimumDuration"):
        assert properties[name]["pattern"] == r"^[Pp][Tt](?=[0-9])([0-9]{1,4}[Hh])?([0-9]{1,5}[Mm])?([0-9]{1,6}[Ss])?$"
