"""Health: shallow for all callers, deep for holders of the key, and never a detail too much."""

from __future__ import annotations

import pytest

from patchwave.api import health
from patchwave.settings import load_settings
from patchwave.storage import Storage, StorageUnreachable
from patchwave.wiring import Services
from tests.support.http_calls import Answer, call

KEY = "a-health-key-for-tests-and-no-other"


class Manager:
    """A Resource Manager that answers, or not."""

    def __init__(self, failure: object = None) -> None:
        self.failure = failure

    async def check(self) -> object:
        return self.failure


@pytest.fixture
async def keyed(services: Services, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHWAVE_HEALTH_KEY", KEY)
    vars(services).update(resource_manager=Manager())
    load_settings.cache_clear()


async def deep(key: str | None = KEY) -> Answer:
    headers = {} if key is None else {health.HEALTH_KEY_HEADER.lower(): key}
    return await call(health.health, query={"deep": "1"}, headers=headers)


async def test_the_shallow_answer_reads_nothing(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[object] = []

    async def check(of: object, *_: object) -> None:
        asked.append(of)

    monkeypatch.setattr(Storage, "check", check)
    answer = await call(health.health)
    assert (answer.status, answer.json) == (200, {"status": "healthy"})
    assert asked == []


@pytest.mark.usefixtures("keyed")
async def test_the_deep_answer_names_every_part(storage: Storage) -> None:
    answer = await deep()
    assert answer.status == 200
    assert answer.json == {
        "status": "healthy",
        "storage": "ok",
        "identity": "ok",
        "resourceManager": "ok",
        "channels": "ok",
    }


@pytest.mark.usefixtures("keyed")
async def test_a_mistake_in_the_channels_is_named_before_a_notice_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATCHWAVE_CHANNELS", '[{"name": "ops", "kind": "teams", "url": "http://SECRET"}]')
    load_settings.cache_clear()
    answer = await deep()
    assert answer.status == 503
    assert answer.json["channels"].startswith("PATCHWAVE_CHANNELS is not valid: [0]")
    assert answer.json["storage"] == "ok"
    assert "SECRET" not in answer.text


@pytest.mark.usefixtures("keyed")
@pytest.mark.parametrize("key", [None, "", "wrong", KEY + "x", KEY[:-1], "é"])
async def test_the_deep_answer_needs_the_key(storage: Storage, key: str | None) -> None:
    answer = await deep(key)
    assert answer.problem["status"] == 401
    assert "storage" not in answer.json


@pytest.mark.usefixtures("keyed")
async def test_the_health_key_counts_in_its_header_alone() -> None:
    """An address is logged on its way, by proxies and by the platform."""
    answer = await call(health.health, query={"deep": "1", "key": KEY})
    assert answer.problem["status"] == 401
    assert "storage" not in answer.json
    assert (await deep()).status == 200


@pytest.mark.parametrize("key", [None, "", "x"])
async def test_without_a_configured_key_there_is_no_deep_answer(
    storage: Storage, monkeypatch: pytest.MonkeyPatch, key: str | None
) -> None:
    monkeypatch.delenv("PATCHWAVE_HEALTH_KEY", raising=False)
    load_settings.cache_clear()
    assert (await deep(key)).status in (401, 403)


@pytest.mark.usefixtures("keyed")
async def test_a_failing_storage_is_named_without_details(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    async def fail(*_: object) -> None:
        raise StorageUnreachable("https://account.table.core.windows.net/ SECRET")

    monkeypatch.setattr(Storage, "check", fail)
    answer = await deep()
    assert answer.status == 503
    assert answer.json["storage"] != "ok"
    assert answer.json["resourceManager"] == "ok"
    assert "SECRET" not in answer.text


@pytest.fixture
def wrong(keyed: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two settings that are not valid, beside a health key that is."""
    monkeypatch.setenv("PATCHWAVE_WEBHOOK_SECRET", "SECRET")
    monkeypatch.setenv("PATCHWAVE_POLL_SECONDS", "SECRET")
    load_settings.cache_clear()
    health._note_wrong.cache_clear()


@pytest.mark.usefixtures("wrong")
async def test_wrong_settings_are_named_to_holders_of_the_key_alone(caplog: pytest.LogCaptureFixture) -> None:
    for _ in range(3):
        answer = await call(health.health)
        assert (answer.status, answer.json) == (503, {"status": "unhealthy", "settings": "not valid"})
    for key in (None, "", "SECRET", KEY + "x"):
        refused = await deep(key)
        assert refused.status == 401
        assert "poll_seconds" not in refused.text
    told = [line.getMessage() for line in caplog.records if line.name == "patchwave.health"]
    assert told == ["Settings that are not valid: poll_seconds, webhook_secret"]
    assert "SECRET" not in caplog.text.replace("_SECRET", "")


@pytest.mark.usefixtures("wrong")
async def test_wrong_settings_are_named_with_the_key_and_without_their_values() -> None:
    answer = await deep()
    assert answer.status == 503
    assert answer.json == {"status": "unhealthy", "settings": "not valid: poll_seconds, webhook_secret"}


@pytest.mark.usefixtures("wrong")
@pytest.mark.parametrize(
    "key", ["", " ", "short", "@Microsoft.KeyVault(SecretUri=https://vault.example.net/secrets/key)"]
)
async def test_a_health_key_that_is_wrong_itself_opens_nothing(monkeypatch: pytest.MonkeyPatch, key: str) -> None:
    monkeypatch.setenv("PATCHWAVE_HEALTH_KEY", key)
    load_settings.cache_clear()
    for given in (key, ""):
        assert (await deep(given)).status == 401
