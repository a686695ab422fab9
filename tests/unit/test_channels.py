"""PATCHWAVE_CHANNELS: read strictly, explained without a value, and never a reason for the app not to start."""

from __future__ import annotations

import json
from typing import Any

import pytest

from patchwave.settings import ChannelKind, ChannelsError, Settings, parse_channels

TEAMS = {"name": "ops", "kind": "teams", "url": "https://prod-1.westeurope.logic.azure.com:443/workflows/x?sig=SECRET"}
SLACK = {"name": "chat", "kind": "slack", "url": "https://hooks.slack.com/services/T0/B0/SECRET"}
WEBHOOK = {
    "name": "hook",
    "kind": "webhook",
    "url": "https://hooks.example.com/in",
    "secret": "SECRET-of-the-hook-and-no-others",
}
MAIL: dict[str, Any] = {
    "name": "post",
    "kind": "mail",
    "connection": "endpoint=https://acs.europe.communication.azure.com/;accesskey=U0VDUkVU",
    "from": "patchwave@example.com",
    "to": ["ops@example.com", "boss@example.com"],
}


def test_every_kind() -> None:
    channels = parse_channels(json.dumps([TEAMS, SLACK, WEBHOOK, MAIL]))
    assert {name: channel.kind for name, channel in channels.items()} == {
        "ops": ChannelKind.TEAMS,
        "chat": ChannelKind.SLACK,
        "hook": ChannelKind.WEBHOOK,
        "post": ChannelKind.MAIL,
    }
    assert channels["ops"].url.get_secret_value() == TEAMS["url"]
    assert channels["post"].mail_resource() == ("https://acs.europe.communication.azure.com", b"SECRET")
    assert channels["post"].to == ("ops@example.com", "boss@example.com")


def test_the_endpoint_of_mail_is_as_the_host_header_has_it() -> None:
    connection = "Endpoint=https://ACS.europe.communication.azure.com:443/;AccessKey=U0VDUkVU"
    (mail,) = parse_channels(json.dumps([{**MAIL, "connection": connection}])).values()
    assert mail.mail_resource() == ("https://acs.europe.communication.azure.com", b"SECRET")


def test_private_networks_are_for_webhooks() -> None:
    channels = parse_channels(json.dumps([{**WEBHOOK, "private": True}, SLACK]))
    assert [channel.private for channel in channels.values()] == [True, False]


@pytest.mark.parametrize("text", ["", "  ", "[]"])
def test_no_channels(text: str) -> None:
    assert parse_channels(text) == {}


@pytest.mark.parametrize(
    "channel",
    [
        {**SLACK, "url": "http://hooks.slack.com/services/SECRET"},
        {**SLACK, "url": "https://user:SECRET@hooks.slack.com/"},
        {**SLACK, "url": "https:///SECRET"},
        {**SLACK, "url": "https://hooks.slack.com:SECRET/"},
        {**SLACK, "url": "https://hooks.slack.com/\r\nSECRET"},
        {**SLACK, "url": "https://hooks.slack.com/#SECRET"},
        {**SLACK, "url": "https://hooks.slack.com/" + "SECRET" * 1000},
        {**SLACK, "url": ""},
        {**SLACK, "url": None},
        {**SLACK, "secret": "SECRET"},
        {**SLACK, "private": True},
        {**WEBHOOK, "private": "SECRET"},
        {**SLACK, "name": "SECRET name"},
        {**SLACK, "kind": "SECRET"},
        {**SLACK, "https://hooks.slack.com/SECRET": 1},
        {**WEBHOOK, "secret": ""},
        {**WEBHOOK, "secret": "SECRET-" + "s" * 24},
        {**WEBHOOK, "secret": "@Microsoft.KeyVault(SecretUri=https://vault.example.net/secrets/SECRET)"},
        {**WEBHOOK, "secret": "\u200b'@Microsoft.KeyVault (SecretUri=https://vault.example.net/secrets/SECRET)'"},
        {**SLACK, "url": "https://hooks.slack.com/@Microsoft.KeyVault(SecretUri=https://vault.net/secrets/SECRET)"},
        {**MAIL, "connection": "endpoint=https://a.azure.com;accesskey=@Microsoft.KeyVault(VaultName=SECRET)"},
        {**MAIL, "connection": "endpoint=https://acs.communication.azure.com;accesskey=SECRET!"},
        {**MAIL, "connection": "endpoint=http://acs.communication.azure.com;accesskey=U0VDUkVU"},
        {**MAIL, "connection": "endpoint=https://acs.communication.azure.com/SECRET;accesskey=U0VDUkVU"},
        {**MAIL, "connection": "SECRET"},
        {**MAIL, "to": []},
        {**MAIL, "to": ["SECRET"]},
        {**MAIL, "to": ["a@example.com\nBcc: SECRET@example.com"]},
        {**MAIL, "from": ""},
        "SECRET",
    ],
)
def test_a_mistake_is_listed_without_the_values(channel: object) -> None:
    with pytest.raises(ChannelsError) as caught:
        parse_channels(json.dumps([TEAMS, channel]))
    assert "[1]" in str(caught.value)
    assert "SECRET" not in str(caught.value)
    assert "U0VDUkVU" not in str(caught.value)


@pytest.mark.parametrize("text", ["SECRET", '{"name": "SECRET"}', '[{"url": "SECRET"', "null", "[" * 10_000])
def test_what_is_no_list_of_channels(text: str) -> None:
    with pytest.raises(ChannelsError) as caught:
        parse_channels(text)
    assert "SECRET" not in str(caught.value)


def test_two_channels_of_one_name() -> None:
    with pytest.raises(ChannelsError, match="same name"):
        parse_channels(json.dumps([TEAMS, {**SLACK, "name": "ops"}]))


@pytest.mark.parametrize("text", ["{}", '"{}"', "'{}'", "\ufeff{}", "\u200b {}", "channels={}"])
def test_a_reference_that_key_vault_did_not_resolve_is_called_so(text: str) -> None:
    reference = "@Microsoft.KeyVault(SecretUri=https://vault.azure.net/secrets/channels)"
    with pytest.raises(ChannelsError, match="Key Vault"):
        parse_channels(text.format(reference))


def test_a_channel_whose_value_is_a_reference_is_named() -> None:
    channel = {**SLACK, "url": "https://hooks.slack.com/@Microsoft.KeyVault(VaultName=vault;SecretName=x)"}
    with pytest.raises(ChannelsError, match=r"\[1\].*a reference which the app could not resolve"):
        parse_channels(json.dumps([TEAMS, channel]))


def test_a_mistake_does_not_keep_the_app_from_starting(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHWAVE_TABLES_CONNECTION", "UseDevelopmentStorage=true")
    monkeypatch.setenv("PATCHWAVE_CHANNELS", "[{SECRET")
    settings = Settings()
    assert settings.channels.get_secret_value() == "[{SECRET"
    assert "SECRET" not in repr(settings)


def test_secrets_do_not_show() -> None:
    shown = repr(parse_channels(json.dumps([TEAMS, SLACK, WEBHOOK, MAIL])))
    assert "SECRET" not in shown
    assert "U0VDUkVU" not in shown
