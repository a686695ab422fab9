"""The command of the benchmark: what it keeps when a size is measured again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks import run as command
from benchmarks.report import render
from tests.benchmarks.test_metrics import results


def test_a_size_that_is_measured_again_leaves_the_others_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = results()
    kept, replaced = before["runs"][0], before["runs"][-1]
    output = tmp_path / "results.json"
    output.write_text(json.dumps(before))
    monkeypatch.setattr(command, "patch_fleet", lambda *_: replaced | {"makespanMinutes": 1.0})
    size = str(replaced["machines"])
    command.main(["--again", "--sizes", size, "--state", str(tmp_path / "state"), "--output", str(output)])
    after = json.loads(output.read_text())
    assert after["runs"][0] == kept
    assert after["runs"][-1]["makespanMinutes"] == 1.0
    assert after["runs"][-1]["againAt"]
    assert [run["machines"] for run in after["runs"]] == [run["machines"] for run in before["runs"]]
    assert after["stop"] == before["stop"]


def test_what_stands_beside_the_sizes_can_be_measured_again_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = results()
    output = tmp_path / "results.json"
    output.write_text(json.dumps(before))
    stopped = before["stop"] | {"mostAtOnce": 7}
    monkeypatch.setattr(command, "stop_under_a_cap", lambda *_: stopped)
    places = ["--state", str(tmp_path / "state"), "--output", str(output)]
    command.main(["--again", "--sizes", "--rest", "--crash-step", "0", "--peers", *places])
    after = json.loads(output.read_text())
    assert after["runs"] == before["runs"]
    assert after["stop"] == stopped
    assert after["restAgainAt"]
    assert "stop, kills and peers at" in render(after)
