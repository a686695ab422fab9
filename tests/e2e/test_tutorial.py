"""Every command of ``docs/tutorials/first-policy.md``, in its order, against the real service and the simulator."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from local import ROOT
from patchwave.cli.app import run
from tests.support.product import Product

PAGE = (ROOT / "docs/tutorials/first-policy.md").read_text(encoding="utf-8")
_SCOPE = "  tags: {values: {ring: [canary]}}\n"
_MACHINE = "canary-weu"


def test_every_command_of_the_tutorial_works(
    product: Product, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATCHWAVE_URL", product.stack.url)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    # The test's stack has another fleet than the tutorial's.
    machine = product.take(installMinutes=10)[0]
    (policy,) = re.findall(r"^```yaml\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert _SCOPE in policy
    (tmp_path / "first.yaml").write_text(policy.replace(_SCOPE, f"  machineIds: [{machine}]\n"), "utf-8")
    calls = re.findall(r"^patchwave (.*)$", PAGE, re.MULTILINE)
    assert len(calls) > 8
    for call in calls:
        # The reader follows the run in one terminal, and pauses and resumes it from another.
        words = shlex.split(call.replace(" --wait", "").replace(_MACHINE, machine.rpartition("/")[2]))
        code = run(words)
        assert code == 0, f"{call}: {capsys.readouterr().err}"
        if words[:2] == ["run", "resume"]:
            assert run(["run", "watch", "latest", "--interval", "0.1"]) == 0
    written = capsys.readouterr().out
    assert machine.rpartition("/")[2] in written
    assert "patched" in written
