"""The ``patchwave`` command against the real service: the documents that its other tests make up are these."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from patchwave.cli.app import run
from tests.support.product import Product


class Command:
    """Runs the command in this process with PATCHWAVE_URL naming the stack."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str, code: int = 0) -> str:
        """What the command wrote on standard output; on standard error when it is to fail."""
        ended = run(list(arguments))
        captured = self._capsys.readouterr()
        assert ended == code, captured.err
        return captured.out if code in (0, 1) else captured.err

    def document(self, *arguments: str, code: int = 0) -> Any:
        """The JSON that the command wrote."""
        return json.loads(self(*arguments, "-o", "json", code=code))


@pytest.fixture
def command(product: Product, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Command:
    monkeypatch.setenv("PATCHWAVE_URL", product.stack.url)
    monkeypatch.delenv("PATCHWAVE_KEY", raising=False)
    return Command(capsys)


def write_policy(folder: Path, ids: list[str], **more: Any) -> str:
    path = folder / "policy.yaml"
    path.write_text(json.dumps({"name": "by-command", "scope": {"machineIds": ids}, "maxConcurrent": 5, **more}))
    return str(path)


def test_a_policy_from_file_to_deletion(command: Command, tmp_path: Path, product: Product):
    file = write_policy(tmp_path, product.take())
    assert "is valid" in command("policy", "validate", "-f", file)
    assert command("policy", "apply", "-f", file) == "policy by-command created\n"
    assert command("policy", "apply", "-f", file) == "policy by-command changed\n"
    assert "by-command" in command("policy", "list")
    shown = tmp_path / "shown.yaml"
    shown.write_text(command("policy", "show", "by-command"))
    assert command("policy", "apply", "-f", str(shown)) == "policy by-command changed\n"
    command("policy", "delete", "by-command")
    assert "404" in command("policy", "show", "by-command", code=2)


def test_a_run_without_problems_and_one_that_needs_a_person(command: Command, tmp_path: Path, product: Product):
    good, bad = product.take(2)
    product.simulate(bad, installFails=2)
    file = write_policy(tmp_path, [good, bad])
    only_good = ["--set", f"scope.machineIds=[{good}]"]
    first = command.document("run", "start", "-f", file, *only_good, "--wait", "--interval", "0.1")
    assert (first["state"], first["countsByOutcome"]) == ("completed", {"patched": 1})
    second = command("run", "start", "-f", file, "--wait", "--interval", "0.1", code=1)
    assert "needs a person" in second
    assert "patches_failed" in second
    run_id = str(command.document("run", "list", "--limit", "1")[0]["id"])
    assert run_id != first["id"]
    assert [row["id"] for row in command.document("run", "machines", run_id, "--attention")] == [bad]
    name = bad.rpartition("/")[2]
    patches = command.document("run", "machines", run_id, name)["patches"]
    assert sum(patch["state"] == "Failed" for patch in patches) == 2
    assert name in command("run", "machines", run_id, name)
    assert run_id in command("run", "show", run_id)


def test_cancel_and_watch(command: Command, tmp_path: Path, product: Product):
    file = write_policy(tmp_path, product.take(3, installMinutes=60), maxConcurrent=1)
    run_id = str(command.document("run", "start", "-f", file)["id"])
    assert command.document("run", "cancel", run_id)["cancelRequestedAt"]
    command("run", "watch", run_id, "--interval", "0.1", code=1)
    final = command.document("run", "show", run_id)
    assert final["state"] == "canceled"
    assert sum(final["countsByOutcome"].values()) == 3


def test_every_error_of_an_invalid_policy_is_shown(command: Command, tmp_path: Path):
    file = write_policy(tmp_path, ["/subscriptions/not-a-guid"], maxConcurrent=0, installs={})
    said = command("run", "start", "-f", file, code=2)
    assert "(400)" in said
    for path in ("scope.machineIds", "maxConcurrent", "installs"):
        assert f"\n  {path}" in said
