"""What the page of settings and the sample settings say is what the app reads."""

import json
import re

import pytest

from local import ROOT
from patchwave.settings import Settings

PREFIX = "PATCHWAVE_"
SETTINGS = {PREFIX + name.upper() for name in Settings.model_fields}


def sample() -> dict[str, str]:
    return json.loads((ROOT / "local.settings.sample.json").read_text("utf-8"))["Values"]


def test_the_table_of_settings_has_every_setting_and_its_default():
    rows = re.findall(
        r"^\| `(PATCHWAVE_\w+)` \| (.*?) \|", (ROOT / "docs/reference/settings.md").read_text("utf-8"), re.MULTILINE
    )
    assert {name for name, _ in rows} == SETTINGS
    for name, default in rows:
        actual = Settings.model_fields[name.removeprefix(PREFIX).lower()].default
        if default.startswith("`"):
            assert str(actual) == default.strip("`"), name


def test_the_sample_settings_are_valid(monkeypatch: pytest.MonkeyPatch):
    assert {name for name in sample() if name.startswith(PREFIX)} <= SETTINGS
    for name in SETTINGS:
        monkeypatch.delenv(name, raising=False)
    for name, value in sample().items():
        monkeypatch.setenv(name, value)
    settings = Settings()
    assert settings.poll_seconds == 30
    assert settings.tables_connection.get_secret_value() == "UseDevelopmentStorage=true"


def test_the_sample_settings_have_what_host_json_needs():
    wanted = set(re.findall(r"%(\w+)%", (ROOT / "host.json").read_text("utf-8")))
    assert wanted <= sample().keys()


def test_the_links_of_the_readme_lead_somewhere():
    links = re.findall(r"\]\((?!https?:)([^)#]+)", (ROOT / "README.md").read_text("utf-8"))
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []
