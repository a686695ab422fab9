"""``patchwave policy`` against a service over HTTP, and offline."""

from pathlib import Path

import pytest
from starlette.responses import JSONResponse

from local import ROOT
from patchwave.cli.policy_files import parse_value
from patchwave.domain.core.webhook_signature import policy_secret
from tests.cli.conftest import Patchwave
from tests.cli.service import Service

POLICY = """\
name: weekly
description: Web servers, Tuesday night
scope:
  osTypes: [Linux]
  tags:
    values: {role: [web], country: [NO]}
maxConcurrent: 10
schedule: {recurrence: "RRULE:FREQ=WEEKLY;BYDAY=TU", time: 22:30, timeZone: Europe/Oslo, window: PT4H}
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "weekly.yaml"
    path.write_text(POLICY)
    return path


class TestApply:
    def test_creates_then_changes(self, patchwave: Patchwave, service: Service, file: Path):
        first = patchwave("policy", "apply", "-f", str(file))
        assert (first.code, first.output) == (0, "policy weekly created\n")
        file.write_text(POLICY.replace("10", "11"))
        second = patchwave("policy", "apply", "-f", str(file))
        assert (second.code, second.output) == (0, "policy weekly changed\n")
        assert service.policies["weekly"][0]["maxConcurrent"] == 11
        conditions = [
            (each["headers"].get("if-match"), each["headers"].get("if-none-match"))
            for each in service.asked("PUT", "/api/policies/weekly")
        ]
        assert conditions == [(None, "*"), ('"1"', None)]

    def test_a_change_in_between_is_not_overwritten(self, patchwave: Patchwave, service: Service, file: Path):
        patchwave("policy", "apply", "-f", str(file))
        stored, _ = service.policies["weekly"]
        service.policies["weekly"] = (stored, 7)
        service.answers = [JSONResponse(stored, headers={"ETag": '"6"'})]
        result = patchwave("policy", "apply", "-f", str(file))
        assert (result.code, "changed by another user" in result.errors) == (2, True)
        assert service.policies["weekly"] == (stored, 7)

    def test_sends_actor_and_reason_of_a_change(self, patchwave: Patchwave, service: Service, file: Path):
        assert patchwave("policy", "apply", "-f", str(file), "--reason", "fewer at a time", "--actor", "ana").code == 0
        assert patchwave("policy", "delete", "weekly", "--reason", "no longer used", "--actor", "ana").code == 0
        [put] = service.asked("PUT", "/api/policies/weekly")
        [delete] = service.asked("DELETE", "/api/policies/weekly")
        assert put["query"] == {"reason": "fewer at a time", "actor": "ana"}
        assert delete["query"] == {"reason": "no longer used", "actor": "ana"}

    def test_words_times_and_countries_arrive_as_written(self, patchwave: Patchwave, service: Service, file: Path):
        patchwave("policy", "apply", "-f", str(file))
        sent = service.asked("PUT", "/api/policies/weekly")[0]["body"]
        assert sent["schedule"]["time"] == "22:30"
        assert sent["scope"]["tags"]["values"]["country"] == ["NO"]

    def test_a_file_without_a_name(self, patchwave: Patchwave, service: Service, tmp_path: Path):
        path = tmp_path / "nameless.yaml"
        path.write_text("scope: {}\n")
        result = patchwave("policy", "apply", "-f", str(path))
        assert (result.code, "name: is missing" in result.errors) == (2, True)
        assert service.requests == []


class TestShow:
    def test_list(self, patchwave: Patchwave, file: Path):
        patchwave("policy", "apply", "-f", str(file))
        output = patchwave("policy", "list").output
        assert "weekly" in output
        assert "RRULE:FREQ=WEEKLY;BYDAY=TU at 22:30 Europe/Oslo, window PT4H" in output

    def test_what_show_prints_can_be_applied_again(self, patchwave: Patchwave, service: Service, file: Path):
        patchwave("policy", "apply", "-f", str(file))
        shown = patchwave("policy", "show", "weekly").output
        assert parse_value(shown) == service.policies["weekly"][0]

    def test_show_as_json(self, patchwave: Patchwave, service: Service, file: Path):
        patchwave("policy", "apply", "-f", str(file))
        assert patchwave("policy", "show", "weekly", "-o", "json").document == service.policies["weekly"][0]

    def test_unknown(self, patchwave: Patchwave):
        assert patchwave("policy", "show", "none").code == 2


class TestDelete:
    def test_deletes_the_version_that_it_saw(self, patchwave: Patchwave, service: Service, file: Path):
        patchwave("policy", "apply", "-f", str(file))
        assert patchwave("policy", "delete", "weekly").code == 0
        assert service.policies == {}
        assert service.asked("DELETE", "/api/policies/weekly")[0]["headers"]["if-match"] == '"1"'

    def test_unknown(self, patchwave: Patchwave):
        result = patchwave("policy", "delete", "none")
        assert (result.code, "There is no policy none" in result.errors) == (2, True)


class TestValidate:
    def test_a_valid_file(self, patchwave: Patchwave, service: Service, file: Path):
        result = patchwave("policy", "validate", "-f", str(file))
        assert result.code == 0, result.errors
        assert "policy weekly is valid" in result.output
        assert service.requests == []

    def test_every_error_is_shown_with_its_path(self, patchwave: Patchwave, tmp_path: Path):
        path = tmp_path / "bad.yaml"
        path.write_text("name: Bad Name\nscope: {}\nmaxConcurrent: 0\nmaxConcurent: 3\n")
        result = patchwave("policy", "validate", "-f", str(path))
        assert result.code == 2
        for place in ("name:", "scope:", "maxConcurrent:", "maxConcurent:"):
            assert f"\n  {place}" in result.errors

    @pytest.mark.parametrize(
        ("text", "complaint"),
        [
            ("name: [unclosed", "is not YAML"),
            ("name: a\nname: b\n", "'name' is there twice"),
            ("- just\n- a list\n", "must be one object"),
            ("", "must be one object"),
            ("!!python/object/apply:os.system ['true']", "is not YAML"),
        ],
    )
    def test_a_file_that_is_no_policy(self, patchwave: Patchwave, tmp_path: Path, text: str, complaint: str):
        path = tmp_path / "odd.yaml"
        path.write_text(text)
        result = patchwave("policy", "validate", "-f", str(path))
        assert result.code == 2
        assert complaint in result.errors

    def test_a_window_that_is_always_missed_is_a_warning(self, patchwave: Patchwave, tmp_path: Path):
        path = tmp_path / "pinned.yaml"
        group = "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/rg"
        machine = f"{group}/providers/Microsoft.Compute/virtualMachines/vm"
        path.write_text(
            "name: pinned\nscope: {osTypes: [Windows, Linux]}\npinRings: true\n"
            f"rings: [{{name: canary, machineIds: ['{machine}']}}, {{name: broad}}]\n"
        )
        result = patchwave("policy", "validate", "-f", str(path))
        assert result.code == 0
        assert "policy pinned is valid" in result.output
        assert "note: Ring canary holds 1 machine, and the scope is for Windows and Linux" in result.errors
        assert patchwave("policy", "validate", "-f", str(path), "-o", "json").document["pinRings"] is True

    def test_a_delay_that_cannot_work_on_linux_is_a_warning(self, patchwave: Patchwave, tmp_path: Path):
        path = tmp_path / "delay.yaml"
        path.write_text("name: delay\nscope: {osTypes: [Linux]}\ninstall: {approvalDelayDays: 7}\n")
        result = patchwave("policy", "validate", "-f", str(path))
        assert (result.code, "policy delay is valid" in result.output) == (0, True)
        assert "note: install.approvalDelayDays: on Linux the 7 days count from" in result.errors
        nightly = '{recurrence: "RRULE:FREQ=DAILY", time: "04:00", timeZone: UTC, window: PT2H}'
        path.write_text(path.read_text() + f"assess: {nightly}\n")
        assert patchwave("policy", "validate", "-f", str(path)).errors == ""

    def test_the_form_of_microsofts_text_is_shown_as_it_is_read(self, patchwave: Patchwave, tmp_path: Path):
        path = tmp_path / "mask.yaml"
        path.write_text(
            "name: mask\nscope: {osTypes: [Linux]}\ninstall:\n  linux:\n"
            "    classificationsToInclude: [Critical, Security]\n"
            '    packageNameMasksToExclude: ["azure-cli_2.78.0-1.el9"]\n'
        )
        found = patchwave("policy", "validate", "-f", str(path), "-o", "json").document
        assert found["install"]["linux"]["packageNameMasksToExclude"] == ["azure-cli=2.78.0-1.el9"]

    def test_help_names_what_only_the_service_checks(self, patchwave: Patchwave, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("COLUMNS", "200")
        said = " ".join(patchwave("policy", "validate", "--help").output.split())
        assert "Only the service judges by the app's settings: the boundary of its subscriptions" in said

    def test_a_file_that_is_not_there(self, patchwave: Patchwave, tmp_path: Path):
        result = patchwave("policy", "validate", "-f", str(tmp_path / "none.yaml"))
        assert (result.code, "cannot be read" in result.errors) == (2, True)

    def test_the_policies_of_the_repository(self, patchwave: Patchwave):
        for path in sorted((ROOT / "examples" / "policies").glob("*.yaml")):
            assert patchwave("policy", "validate", "-f", str(path)).code == 0


class TestWebhookSecret:
    def test_prints_what_the_senders_of_one_policy_sign_with(
        self, patchwave: Patchwave, monkeypatch: pytest.MonkeyPatch
    ):
        master = "an-app-secret-of-forty-characters-123456"
        monkeypatch.setenv("PATCHWAVE_WEBHOOK_SECRET", master)
        first = patchwave("policy", "webhook-secret", "monthly")
        assert (first.code, first.output) == (0, policy_secret(master, "monthly") + "\n")
        others = [
            patchwave("policy", "webhook-secret", *arguments)
            for arguments in (("monthly", "--rotation", "2"), ("weekly",))
        ]
        assert len({first.output, *(each.output for each in others)}) == 3

    def test_needs_the_secret_of_the_app(self, patchwave: Patchwave, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.delenv("PATCHWAVE_WEBHOOK_SECRET", raising=False)
        refused = patchwave("policy", "webhook-secret", "monthly")
        assert refused.code != 0
        assert "PATCHWAVE_WEBHOOK_SECRET" in refused.errors

    @pytest.mark.parametrize("name", ["Monthly", "monthly\n", "", "a" * 33, "monthly-"])
    def test_only_of_what_can_be_a_policy(self, patchwave: Patchwave, monkeypatch: pytest.MonkeyPatch, name: str):
        monkeypatch.setenv("PATCHWAVE_WEBHOOK_SECRET", "an-app-secret-of-forty-characters-123456")
        refused = patchwave("policy", "webhook-secret", name)
        assert (refused.code, refused.output) == (2, "")
        assert f"{name!r} is no name of a policy: it must be 1 to 32" in refused.errors

    @pytest.mark.parametrize(
        ("master", "fault"),
        [
            ("a" * 31, "must have at least 32 characters"),
            ("@Microsoft.KeyVault(SecretUri=https://vault.example/secrets/webhook)", "is a reference to a Key Vault"),
        ],
    )
    def test_only_of_a_secret_that_the_app_takes(
        self, patchwave: Patchwave, monkeypatch: pytest.MonkeyPatch, master: str, fault: str
    ):
        monkeypatch.setenv("PATCHWAVE_WEBHOOK_SECRET", master)
        refused = patchwave("policy", "webhook-secret", "monthly")
        assert (refused.code, refused.output) == (2, "")
        assert f"The app does not take this PATCHWAVE_WEBHOOK_SECRET: it {fault}" in refused.errors
        assert master not in refused.errors
