"""Every limit of a schedule is found before the call, at its path, and named."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from local import ROOT
from patchwave.domain.core.validation import Problem
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration
from patchwave.domain.maintenance.validation import MAX_CONFIGURATIONS, advice, check_configuration, check_number
from tests.support.maintenance_samples import CONFIGURATION, THEN, configuration

CASES = ROOT / "tests" / "cases"
WINDOW = "properties.maintenanceWindow"
WINDOWS = "properties.installPatches.windowsParameters"
LINUX = "properties.installPatches.linuxParameters"


def test_the_documented_example_is_valid() -> None:
    assert check_configuration(configuration(), THEN) == []


def test_the_documented_command_is_valid() -> None:
    """``az maintenance configuration create``: it includes and excludes the same KB number."""
    kb = {
        "classificationsToInclude": ["FeaturePack"],
        "kbNumbersToInclude": ["KB123456"],
        "kbNumbersToExclude": ["KB123456"],
    }
    found = configuration("properties.installPatches.windowsParameters", kb)
    assert check_configuration(found, THEN) == []


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (f"{WINDOW}.duration", "01:29", "01:30 to 03:55"),
        (f"{WINDOW}.duration", "03:56", "01:30 to 03:55"),
        (f"{WINDOW}.duration", "90", "HH:MM"),
        (f"{WINDOW}.recurEvery", "5Hours", "at least 6 hours apart"),
        (f"{WINDOW}.recurEvery", "Month Third Sunday Offset7", "from -6 to 6 days"),
        (f"{WINDOW}.recurEvery", "sometimes", "is no rate"),
        (f"{WINDOW}.recurEvery", "Month", "does not say on which day of the month"),
        (f"{WINDOW}.recurEvery", "3months", "write for example 3Months day17 or 3Months Third Saturday"),
        (f"{WINDOW}.startDateTime", "2021-08-20 17:44", "14 minutes ahead; a schedule starts at least 15 minutes"),
        (f"{WINDOW}.startDateTime", "2021-08-19 01:18", "in the past"),
        (f"{WINDOW}.startDateTime", "21.08.2021", "YYYY-MM-DD hh:mm"),
        (f"{WINDOW}.expirationDateTime", "2021-08-20 01:18", "after the start and in the future"),
        (f"{WINDOW}.expirationDateTime", "never", "YYYY-MM-DD hh:mm"),
        (f"{WINDOW}.timeZone", "Europe/Berlin", "W. Europe Standard Time"),
        (f"{WINDOW}.timeZone", "India Standard Tine", 'did you mean "India Standard Time"'),
        (WINDOW, None, "is missing"),
        ("location", None, "is missing"),
        ("properties.maintenanceScope", "Host", "must be InGuestPatch"),
        ("properties.visibility", "Private", "not one of Custom, Public"),
        ("properties.extensionProperties.InGuestPatchMode", None, "must be User"),
        ("properties.extensionProperties.InGuestPatchMode", "Platform", "must be User, not 'Platform'"),
        ("properties.installPatches.rebootSetting", "Sometimes", "IfRequired, Never, Always"),
        ("properties.installPatches", None, "selects nothing"),
        (f"{WINDOWS}.classificationsToInclude[0]", ["Securty"], 'did you mean "Security"'),
        (f"{WINDOWS}.kbNumbersToInclude[0]", ["4512508"], "has no prefix, which Azure refuses; write KB4512508"),
        (f"{WINDOWS}.kbNumbersToExclude[0]", ["KBx"], "is not a KB number"),
        (f"{LINUX}.classificationsToInclude[1]", ["Critical", "UpdateRollup"], "not one of Critical, Security, Other"),
        (f"{LINUX}.classificationsToInclude", ["Other", "Security"], "exactly one of Critical and Security"),
        (f"{LINUX}.packageNameMasksToInclude[0]", ["a b"], "not a package mask"),
        (f"{LINUX}.packageNameMasksToExclude[0]", ["-x"], "not a package mask"),
        (f"{WINDOWS}.classificationsToInclude", ["Securty"] * 1_001, "is too long; at most 1,000"),
    ],
)
def test_each_limit_is_named_at_its_path(path: str, value: Any, said: str) -> None:
    found = configuration(path.partition("[")[0], value)
    [problem] = check_configuration(found, THEN)
    assert problem.path == path
    assert said in problem.message


@pytest.mark.parametrize("duration", ["01:30", "03:55"])
@pytest.mark.parametrize("rate", ["6Hours", "Month Third Sunday Offset6", "Month Third Sunday Offset-6"])
def test_the_limits_themselves_are_allowed(duration: str, rate: str) -> None:
    assert check_configuration(configuration(f"{WINDOW}.duration", duration), THEN) == []
    assert check_configuration(configuration(f"{WINDOW}.recurEvery", rate), THEN) == []


@pytest.mark.parametrize("name", ["dst-gap-start", "month-only"])
def test_a_body_that_azure_refuses_is_refused(name: str) -> None:
    body = json.loads((CASES / f"{name}.json").read_text())
    found = MaintenanceConfiguration.model_validate(body | {"id": CONFIGURATION})
    [problem] = check_configuration(found, datetime(2026, 11, 21, tzinfo=UTC))
    assert (problem.path, problem.message) == {
        "dst-gap-start": (
            f"{WINDOW}.startDateTime",
            "2027-03-28 02:30 is skipped in W. Europe Standard Time, where daylight saving begins; Azure refuses such a"
            " start: give another day or time",
        ),
        "month-only": (
            f"{WINDOW}.recurEvery",
            "'Month' does not say on which day of the month, which Azure refuses; write for example Month day17 or"
            " Month Third Saturday",
        ),
    }[name]


@pytest.mark.parametrize(
    ("start", "zone", "is_taken"),
    [
        ("2027-03-28 01:59", "W. Europe Standard Time", True),
        ("2027-03-28 02:00", "W. Europe Standard Time", False),
        ("2027-03-28 02:59", "w. europe standard time", False),
        ("2027-03-28 03:00", "W. Europe Standard Time", True),
        ("2027-10-31 02:30", "W. Europe Standard Time", True),
        ("2027-03-28 02:30", "UTC", True),
        ("2026-12-06 02:15", "Lord Howe Standard Time", True),
        ("2027-10-03 02:15", "Lord Howe Standard Time", False),
        ("2027-03-28 02:30", "Kamchatka Standard Time", True),
        ("2027-03-28 02:30", "mid-atlantic standard time", True),
    ],
)
def test_a_start_that_the_clock_skips_is_refused(start: str, zone: str, is_taken: bool) -> None:
    window = configuration().window
    assert window is not None
    update = {"start_date_time": start, "time_zone": zone, "expiration_date_time": ""}
    body = configuration()
    properties = body.properties.model_copy(update={"maintenance_window": window.model_copy(update=update)})
    problems = check_configuration(body.model_copy(update={"properties": properties}), THEN)
    assert [problem.path for problem in problems] == ([] if is_taken else [f"{WINDOW}.startDateTime"])


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (f"{WINDOW}.recurEvery", "Month"),
        (f"{WINDOW}.duration", "05:00"),
        ("properties.visibility", "Private"),
        ("properties.installPatches.rebootSetting", "Sometimes"),
        (f"{WINDOWS}.classificationsToInclude", ["Securty"]),
    ],
)
def test_a_change_never_fails_on_a_value_that_azure_holds(path: str, value: Any) -> None:
    """Azure has taken it: another key may be changed beside it, and the value itself not to something else wrong."""
    held = configuration(path, value)
    assert len(check_configuration(held, THEN)) == 1
    assert check_configuration(held.model_copy(update={"tags": {"a": "b"}}), THEN, held) == []
    other = configuration("properties.installPatches.linuxParameters.classificationsToInclude", ["Wrong"])
    assert len(check_configuration(other, THEN, held)) == 1


def test_required_fields_of_a_schedule_are_required_in_a_change_too() -> None:
    held = configuration("properties.extensionProperties.InGuestPatchMode", None)
    [problem] = check_configuration(held, THEN, held)
    assert problem.path == "properties.extensionProperties.InGuestPatchMode"


def test_names_of_group_and_configuration_are_under_128_characters_together() -> None:
    group, _, name = CONFIGURATION.partition("/providers/")[0].rpartition("/")[2], "", "n"
    for length, allowed in ((127, True), (128, False)):
        identity = CONFIGURATION.rpartition("/")[0] + "/" + name * (length - len(group))
        problems = check_configuration(configuration(identity=identity), THEN)
        assert [problem.path for problem in problems] == ([] if allowed else ["name"])
        assert allowed or "fewer than 128" in problems[0].message


def test_a_schedule_that_is_there_may_have_begun_and_may_not_be_changed_shortly_before_a_run() -> None:
    there, later = configuration(), datetime(2022, 1, 1, 12, 0, tzinfo=UTC)
    shorter = configuration(f"{WINDOW}.duration", "02:00")
    assert check_configuration(shorter, later, there) == []
    [problem] = check_configuration(shorter, later)
    assert problem.path == f"{WINDOW}.startDateTime"
    run = there.next_occurrence(later)
    assert run is not None
    [problem] = check_configuration(shorter, run.at_utc - timedelta(minutes=14), there)
    assert "the next run is 14 minutes ahead; a change needs at least 15 minutes" in problem.message
    assert check_configuration(shorter, run.at_utc - timedelta(minutes=15), there) == []


def test_a_schedule_that_never_runs() -> None:
    body = configuration(f"{WINDOW}.recurEvery", "Month Last Sunday")
    assert body.window is not None
    window = body.window.model_copy(update={"expiration_date_time": "2021-08-25 00:00"})
    never = body.model_copy(update={"properties": body.properties.model_copy(update={"maintenance_window": window})})
    [problem] = check_configuration(never, THEN)
    assert problem == Problem(
        path=f"{WINDOW}.recurEvery", message="has no run before expirationDateTime; make it later"
    )


def test_a_region_of_a_subscription_has_250_schedules() -> None:
    others = [configuration()] * (MAX_CONFIGURATIONS - 1)
    assert check_number(configuration(), others) == []
    elsewhere = configuration("location", "westeurope")
    assert check_number(configuration(), [*others, elsewhere]) == []
    [problem] = check_number(configuration("location", "East US 2 EUAP"), [*others, configuration()])
    assert problem.path == "location"
    assert "at most 250" in problem.message


def test_advice_about_runs_that_are_near_and_about_midnight() -> None:
    run = configuration().next_occurrence(THEN)
    assert run is not None
    assert any("40 minutes" in note for note in advice(configuration(), run.at_utc - timedelta(minutes=30)))
    assert any("under an hour" in note for note in advice(configuration(), run.at_utc - timedelta(minutes=50)))
    assert any("23:45" in note for note in advice(configuration(), datetime(2021, 8, 20, 18, 20, tzinfo=UTC)))


@pytest.mark.parametrize(
    ("zone", "starts_at"),
    [
        ("Kamchatka Standard Time", datetime(2021, 8, 20, 13, 18, tzinfo=UTC)),
        ("mid-atlantic standard time", datetime(2021, 8, 21, 3, 18, tzinfo=UTC)),
    ],
)
def test_old_zones_are_known_and_have_a_warning(zone: str, starts_at: datetime) -> None:
    found = configuration(f"{WINDOW}.timeZone", zone)
    assert check_configuration(found, THEN) == []
    run = found.next_occurrence(THEN)
    assert run is not None
    assert run.at_utc == starts_at
    [note] = advice(found, THEN - timedelta(hours=2))
    assert "an hour earlier in summer" in note
    assert advice(configuration(), THEN) == []
    assert advice(configuration(), THEN) == []


def test_advice_about_masks_that_the_linux_agent_takes_for_names() -> None:
    masks: dict[str, list[str]] = {
        "packageNameMasksToInclude": ["curl_8.1", "openssl=3.0", "mod_ssl"],
        "packageNameMasksToExclude": ["libopenssl1_1"],
    }
    first, second = advice(configuration(LINUX, {"classificationsToInclude": ["Other"], **masks}), THEN)
    assert first == "The Linux agent takes all of curl_8.1 for a name, and no package has it: write curl=8.1."
    assert "libopenssl1_1 for a name" in second
    assert "write libopenssl1=1 for the version, or libopenssl1_1=* when" in second
