"""App settings: read from the environment, checked once, and silent about secrets."""

from __future__ import annotations

from datetime import date

import pytest
from pydantic import SecretStr, ValidationError

from patchwave.domain.fleet.supported_images import Image
from patchwave.settings import JUDGED_BY_LENGTH, Settings

CONNECTION = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=c2VjcmV0;TableEndpoint=http://127.0.0.1:10002/a"


@pytest.fixture(autouse=True)
def _no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in Settings.model_fields:
        monkeypatch.delenv(f"PATCHWAVE_{name.upper()}", raising=False)


def read(monkeypatch: pytest.MonkeyPatch, **values: str) -> Settings:
    for name, value in ({"TABLES_CONNECTION": CONNECTION} | values).items():
        monkeypatch.setenv(f"PATCHWAVE_{name}", value)
    return Settings()


def test_the_defaults_are_the_public_cloud(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch)
    assert settings.manager_url == "https://management.azure.com"
    assert settings.manager_scope == "https://management.azure.com/.default"
    assert (settings.poll_seconds, settings.assess_concurrency, settings.table_prefix) == (30, 600, "patchwave")


def test_another_resource_manager_gets_a_token_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch, RESOURCE_MANAGER="https://localhost:8443/")
    assert settings.manager_url == "https://localhost:8443"
    assert settings.manager_scope == "https://localhost:8443/.default"
    audience = read(monkeypatch, RESOURCE_MANAGER_AUDIENCE="https://management.core.usgovcloudapi.net/")
    assert audience.manager_scope == "https://management.core.usgovcloudapi.net/.default"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RESOURCE_MANAGER", "http://management.azure.com"),
        ("RESOURCE_MANAGER", "management.azure.com"),
        ("RESOURCE_MANAGER", ""),
        ("RESOURCE_MANAGER", "https://"),
        ("RESOURCE_MANAGER", "https://user@management.azure.com"),
        ("RESOURCE_MANAGER", "https://management.azure.com/subscriptions"),
        ("TABLES_ENDPOINT", "http://account.table.core.windows.net"),
        ("TABLES_ENDPOINT", "account.table.core.windows.net"),
        ("TABLE_PREFIX", "1table"),
        ("TABLE_PREFIX", "patch-wave"),
        ("TABLE_PREFIX", ""),
        ("POLL_SECONDS", "0"),
        ("POLL_SECONDS", "-1"),
        ("POLL_SECONDS", "3600"),
        ("POLL_SECONDS", "nan"),
        ("POLL_SECONDS", "soon"),
        ("ASSESS_CONCURRENCY", "0"),
        ("ASSESS_CONCURRENCY", "1001"),
        ("PROBE_HOSTS", "*"),
        ("PROBE_HOSTS", "good.example.org, https://example.org"),
        ("PROBE_HOSTS", "*example.org"),
        ("PROBE_ALLOW_PRIVATE", "perhaps"),
        ("WEBHOOK_ROTATIONS", "monthly"),
        ("WEBHOOK_ROTATIONS", "monthly=0"),
        ("WEBHOOK_ROTATIONS", "monthly=1+2+3"),
        ("WEBHOOK_ROTATIONS", "Monthly=1"),
        ("WEBHOOK_ROTATIONS", "monthly=1,monthly=2"),
        ("EVENT_TOPICS", "weekly"),
        ("EVENT_TOPICS", "/subscriptions"),
        ("EVENT_TOPICS", "/subscriptions/production"),
        ("SNAPSHOT_GROUPS", "/subscriptions/11111111-2222-4333-8444-555555555555/resourceGroups/rg-keep"),
        ("SNAPSHOT_GROUPS", "rg-keep, rg/other"),
        ("SUBSCRIPTIONS", "production"),
        ("SUBSCRIPTIONS", "11111111-2222-4333-8444-555555555555 99999999-2222-4333-8444-555555555555"),
        ("SUBSCRIPTIONS", " , "),
        ("SUPPORTED_IMAGES", "Canonical:ubuntu-26_04-lts"),
        ("SUPPORTED_IMAGES", "a:b:c, a:b:c=2027-01-01"),
        ("IMAGE_END_OF_LIFE", "a:b:c"),
        ("IMAGE_END_OF_LIFE", "a:b:c=2027-13-01"),
    ],
)
def test_wrong_values_are_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(ValidationError):
        read(monkeypatch, **{name: value})


def test_a_wrong_image_is_named_with_its_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match=r"PATCHWAVE_SUPPORTED_IMAGES: 'ubuntu' is no publisher:offer:sku"):
        read(monkeypatch, SUPPORTED_IMAGES="ubuntu")
    monkeypatch.delenv("PATCHWAVE_SUPPORTED_IMAGES")
    with pytest.raises(ValidationError, match="PATCHWAVE_IMAGE_END_OF_LIFE: 'soon' of a:b:c is no date as YYYY-MM-DD"):
        read(monkeypatch, IMAGE_END_OF_LIFE="a:b:c=soon")


def test_images_are_added_to_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = Image("Canonical", "ubuntu-26_04-lts", "server"), Image("contoso", "hardened", "9")
    assert not read(monkeypatch).image_table.has(one)
    table = read(
        monkeypatch,
        SUPPORTED_IMAGES="canonical:ubuntu-26_04-lts:*, contoso:hardened:9,",
        IMAGE_END_OF_LIFE=" contoso:hardened:*=2027-01-31",
    ).image_table
    assert (table.has(one), table.has(two)) == (True, True)
    assert table.end_of_life("Contoso:hardened:9:1.0.0") == date(2027, 1, 31)


def test_probe_hosts_are_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch).listed_probe_hosts == ()
    listed = read(monkeypatch, PROBE_HOSTS="web.example.org, *.inner.test,10.0.0.4,").listed_probe_hosts
    assert listed == ("web.example.org", "*.inner.test", "10.0.0.4")


def test_the_boundary_is_a_list(monkeypatch: pytest.MonkeyPatch) -> None:
    one, two = "11111111-2222-4333-8444-555555555555", "99999999-2222-4333-8444-555555555555"
    assert read(monkeypatch).listed_subscriptions == read(monkeypatch).listed_snapshot_groups == ()
    drawn = read(monkeypatch, SUBSCRIPTIONS=f"{one}, {two},", SNAPSHOT_GROUPS="rg-keep")
    assert (drawn.listed_subscriptions, drawn.listed_snapshot_groups) == ((one, two), ("rg-keep",))


def test_topics_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    one = "/subscriptions/11111111-2222-4333-8444-555555555555"
    listed = read(monkeypatch, EVENT_TOPICS=f"{one}, {one}/resourceGroups/rg/providers/Microsoft.X/t/y/")
    assert listed.listed_event_topics == (one, f"{one}/resourceGroups/rg/providers/Microsoft.X/t/y/")


def test_rotations_are_by_policy(monkeypatch: pytest.MonkeyPatch) -> None:
    assert read(monkeypatch).listed_rotations == {}
    listed = read(monkeypatch, WEBHOOK_ROTATIONS=" monthly=2 , weekly=3+4").listed_rotations
    assert listed == {"monthly": (2,), "weekly": (3, 4)}


def test_storage_must_be_named_one_way_or_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValidationError, match="PATCHWAVE_TABLES_ENDPOINT"):
        read(monkeypatch, TABLES_CONNECTION="")
    endpoint = "https://account.table.core.windows.net"
    assert read(monkeypatch, TABLES_CONNECTION="", TABLES_ENDPOINT=endpoint).tables_endpoint == endpoint


SECRETS = [name for name, field in Settings.model_fields.items() if field.annotation is SecretStr]


def test_which_settings_are_secret() -> None:
    assert SECRETS == ["tables_connection", "webhook_secret", "channels", "health_key"]


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize("around", ["{}\n", "{}\r\n", " \t{} "])
def test_white_space_around_a_secret_is_no_part_of_it(monkeypatch: pytest.MonkeyPatch, name: str, around: str) -> None:
    value = "of at least 32 characters; white space within stays"
    settings = read(monkeypatch, **{name.upper(): around.format(value)})
    assert getattr(settings, name).get_secret_value() == value


@pytest.mark.parametrize("name", ["webhook_secret", "health_key"])
def test_white_space_is_no_secret_and_not_the_lack_of_one(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    with pytest.raises(ValidationError, match="at least 32 characters"):
        read(monkeypatch, **{name.upper(): " \n"})


def test_secrets_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch, WEBHOOK_SECRET="hush-hush-hush-hush-hush-hush-hush")
    for shown in (repr(settings), str(settings), settings.model_dump_json()):
        assert "hush-hush-hush-hush-hush-hush-hush" not in shown
        assert "c2VjcmV0" not in shown


@pytest.mark.parametrize(("name", "value"), [("POLL_SECONDS", "0"), ("RESOURCE_MANAGER", "http://x")])
def test_a_refusal_does_not_show_the_other_values(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        read(monkeypatch, TABLES_CONNECTION="AccountKey=c2VjcmV0", **{name: value})
    assert "c2VjcmV0" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WEBHOOK_SECRET", "@Microsoft.KeyVault(SecretUri=https://vault.example.net/secrets/webhook)"),
        ("WEBHOOK_SECRET", " @microsoft.keyvault(VaultName=vault;SecretName=webhook-secret-of-the-app)"),
        ("HEALTH_KEY", "@Microsoft.KeyVault(SecretUri=https://vault.example.net/secrets/health-key)"),
        ("HEALTH_KEY", "@Microsoft.AppConfiguration(Endpoint=https://config.example.net; Key=health)"),
        ("TABLES_CONNECTION", "@Microsoft.KeyVault(SecretUri=https://vault.example.net/secrets/tables)"),
        ("PROBE_HOSTS", "@Microsoft.KeyVault(SecretUri=https://vault.example.net/secrets/hosts)"),
        ("WEBHOOK_SECRET", '"@Microsoft.KeyVault(SecretUri=https://vault.example.net/secrets/webhook)"'),
        ("WEBHOOK_SECRET", "\ufeff@Microsoft.KeyVault(SecretUri=https://vault.example.net/secrets/webhook)"),
        ("HEALTH_KEY", "\u200b@Microsoft.KeyVault(SecretUri=https://vault.example.net/secrets/health-key)"),
        ("HEALTH_KEY", "@Microsoft.KeyVault\u00a0(SecretUri=https://vault.example.net/secrets/health-key)"),
        ("HEALTH_KEY", "@MICROSOFT.KEY\u00adVAULT (SecretUri=https://vault.example.net/secrets/health-key)"),
        ("TABLES_CONNECTION", "AccountName=a;AccountKey=@Microsoft.KeyVault(SecretUri=https://vault.example.net/s/t)"),
        ("WEBHOOK_SECRET", "s" * 31),
        ("WEBHOOK_SECRET", "s" * 31 + " "),
        ("HEALTH_KEY", "s" * 31),
    ],
)
def test_a_known_or_guessable_secret_is_refused(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    with pytest.raises(ValidationError) as caught:
        read(monkeypatch, **{name: value})
    assert [error["loc"] for error in caught.value.errors()] == [(name.lower(),)]
    assert value.strip() not in str(caught.value)


def test_secrets_are_long_enough_or_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch, WEBHOOK_SECRET="s" * 32, HEALTH_KEY="")
    assert (settings.webhook_secret.get_secret_value(), settings.health_key.get_secret_value()) == ("s" * 32, "")


def test_every_secret_setting_is_judged() -> None:
    """A new one is refused like the others, or says here why it cannot be."""
    secrets = {name for name, field in Settings.model_fields.items() if field.annotation is SecretStr}
    # The storage account makes the keys of a connection string; channels are judged when they are read.
    assert secrets - {"tables_connection", "channels"} == set(JUDGED_BY_LENGTH)


def test_settings_do_not_change(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = read(monkeypatch)
    with pytest.raises(ValidationError):
        settings.poll_seconds = 5
