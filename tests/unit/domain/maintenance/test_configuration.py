"""Maintenance configurations: read as Azure writes them, written as Azure takes them, and when they run."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from itertools import islice
from typing import Any

import pytest

from local import ROOT
from patchwave.domain.core.ids import ConfigurationId
from patchwave.domain.maintenance.configuration import NEVER_EXPIRES, MaintenanceConfiguration, read_configuration
from tests.support.maintenance_samples import CONFIGURATION, EXAMPLE, THEN, changed, configuration

CASES = ROOT / "tests" / "cases"
WINDOW = "properties.maintenanceWindow"


def without_null(body: dict[str, Any]) -> dict[str, Any]:
    cleaned = {key: without_null(value) if isinstance(value, dict) else value for key, value in body.items()}
    return {key: value for key, value in cleaned.items() if value is not None}


def test_the_documented_body_is_sent_as_it_is() -> None:
    sent = configuration().to_azure()
    sent["properties"]["installPatches"]["windowsParameters"].pop("excludeKbsRequiringReboot")
    assert sent == without_null(EXAMPLE)


# Every row of the document's table of request properties.
@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("location", "westeurope"),
        ("tags", {"owner": "ana"}),
        ("properties.namespace", "Microsoft.Maintenance"),
        ("properties.extensionProperties", {"InGuestPatchMode": "User", "other": "kept"}),
        ("properties.maintenanceScope", "InGuestPatch"),
        ("properties.visibility", "Public"),
        (f"{WINDOW}.duration", "03:55"),
        (f"{WINDOW}.expirationDateTime", "2030-01-01 00:00"),
        (f"{WINDOW}.recurEvery", "Month Third Sunday Offset6"),
        (f"{WINDOW}.startDateTime", "2021-09-01 22:00"),
        (f"{WINDOW}.timeZone", "Pacific Standard Time"),
        ("properties.installPatches.rebootSetting", "Never"),
        ("properties.installPatches.windowsParameters.kbNumbersToInclude", ["KB4512508"]),
        ("properties.installPatches.windowsParameters.kbNumbersToExclude", ["KB4512509"]),
        ("properties.installPatches.windowsParameters.excludeKbsRequiringReboot", True),
        ("properties.installPatches.linuxParameters.packageNameMasksToInclude", ["apt", "kernel*"]),
        ("properties.installPatches.linuxParameters.packageNameMasksToExclude", ["ppt"]),
    ],
)
def test_every_property_of_the_table_is_read_and_sent(path: str, value: object) -> None:
    body = changed(path, value)
    read = read_configuration({**body, "id": CONFIGURATION})
    assert read is not None
    sent: Any = read.to_azure()
    for step in path.split("."):
        sent = sent[step]
    assert sent == value
    assert MaintenanceConfiguration.model_validate(read.to_wire()) == read


def test_what_azure_gives_is_read_and_not_sent() -> None:
    """The rows ``id``, ``name``, ``type`` and ``systemData``, and what servers add, in recorded spellings."""
    answer = EXAMPLE | {
        "id": CONFIGURATION.replace("resourceGroups", "resourcegroups").replace(
            "Microsoft.Maintenance/maintenanceConfigurations", "microsoft.maintenance/maintenanceconfigurations"
        ),
        "name": "TestAzureInGuestAdv2",
        "type": "Microsoft.Maintenance/maintenanceConfigurations",
        "systemData": {"createdBy": "ana@example.org"},
        "tags": None,
    }
    answer["properties"] = EXAMPLE["properties"] | {"configurationType": "Regular", "later": {"things": 1}}
    read = read_configuration(answer)
    assert read is not None
    assert (read.id, read.name) == (CONFIGURATION, "TestAzureInGuestAdv2")
    assert read.type == "Microsoft.Maintenance/maintenanceConfigurations"
    assert read.system_data == {"createdBy": "ana@example.org"}
    assert read.configuration_id == ConfigurationId.parse(
        CONFIGURATION.upper().replace("/SUBSCRIPTIONS", "/subscriptions")
    )
    assert set(read.to_azure()) == {"location", "properties"}
    assert "configurationType" not in read.to_azure()["properties"]


def test_odd_bodies_are_read_as_far_as_they_go() -> None:
    upper = {"Id": CONFIGURATION, "Properties": {"MaintenanceWindow": {"RecurEvery": "Day", "Duration": 90}}}
    read = read_configuration(upper)
    assert read is not None
    assert read.window is not None
    assert (read.window.recur_every, read.window.duration) == ("Day", "")
    assert read.unreadable
    assert read.next_occurrence(THEN) is None
    assert not read.has_ended(THEN)
    assert read_configuration({"id": "/subscriptions/x"}) is None
    assert read_configuration({}) is None
    bare = read_configuration({"id": CONFIGURATION, "properties": None})
    assert bare is not None
    assert (bare.unreadable, bare.patches_guests) == ("it has no maintenance window", False)


def test_the_first_run_is_the_first_recurrence_at_or_after_the_start() -> None:
    found = configuration()
    first, second = islice(found.occurrences(THEN), 2)
    # 01:18 in India.
    assert first.at_utc == datetime(2021, 8, 20, 19, 48, tzinfo=UTC)
    assert first.window_end_utc - first.at_utc == timedelta(hours=1, minutes=30)
    assert second.at_utc - first.at_utc == timedelta(days=1)


def test_a_schedule_ends_with_its_expiration_and_not_without() -> None:
    limited = configuration(f"{WINDOW}.expirationDateTime", "2021-08-22 01:18")
    assert len(list(limited.occurrences(THEN))) == 2
    assert limited.has_ended(datetime(2021, 8, 22, tzinfo=UTC))
    for text in (NEVER_EXPIRES, None):
        endless = configuration(f"{WINDOW}.expirationDateTime", text)
        assert endless.next_occurrence(datetime(2500, 1, 1, tzinfo=UTC)) is not None
        assert not endless.has_ended(datetime(2500, 1, 1, tzinfo=UTC))


@pytest.mark.parametrize(
    "text",
    [
        "",
        CONFIGURATION + "/more",
        CONFIGURATION.replace("maintenanceConfigurations", "things"),
        CONFIGURATION.replace("aaaa0a0a", "zzzz0a0a"),
        CONFIGURATION.replace("atscalepatching", ".."),
        CONFIGURATION + "\n",
        CONFIGURATION.replace("TestAzureInGuestAdv2", "a'b"),
    ],
)
def test_what_is_no_configuration_id(text: str) -> None:
    with pytest.raises(ValueError, match="not a maintenance configuration id"):
        ConfigurationId.parse(text)


# --- the words that Azure answers with -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("answered", "written"),
    [
        ("AlwaysReboot", "Always"),
        ("NeverReboot", "Never"),
        ("neverreboot", "Never"),
        ("RebootIfRequired", "IfRequired"),
        ("Always", "Always"),
        ("Sometimes", "Sometimes"),
    ],
)
def test_reboot_settings_are_read_in_azure_s_words_and_written_in_the_documented_ones(
    answered: str, written: str
) -> None:
    found = configuration("properties.installPatches.rebootSetting", answered)
    assert found.to_azure()["properties"]["installPatches"]["rebootSetting"] == written
    again = MaintenanceConfiguration.model_validate(found.to_wire())
    assert again == found


def test_words_count_without_case_and_are_written_as_documented() -> None:
    body = changed("properties.extensionProperties", {"inguestpatchmode": "user", "other": "Kept"})
    body["properties"] |= {"visibility": "CUSTOM", "maintenanceScope": "inguestpatch"}
    found = read_configuration(body | {"id": CONFIGURATION})
    assert found is not None
    assert found.patches_guests
    assert found.in_guest_patch_mode == "User"
    sent = found.to_azure()["properties"]
    assert sent["visibility"] == "Custom"
    assert sent["maintenanceScope"] == "InGuestPatch"
    assert sent["extensionProperties"] == {"InGuestPatchMode": "User", "other": "Kept"}


def test_a_stored_body_in_azure_s_words_is_read_and_written_without_loss() -> None:
    stored = json.loads((CASES / "reboot-word-neverreboot.json").read_text())
    found = read_configuration(stored | {"id": CONFIGURATION})
    assert found is not None
    sent = found.to_azure()["properties"]
    assert sent["installPatches"] == {
        "rebootSetting": "Never",
        "linuxParameters": {"classificationsToInclude": ["Critical", "Security"]},
        "windowsParameters": {
            "classificationsToInclude": ["Critical", "Security", "UpdateRollup", "Definition", "Updates"],
            "excludeKbsRequiringReboot": False,
        },
    }
    assert sent["maintenanceWindow"] == stored["properties"]["maintenanceWindow"]
