"""The command of the benchmark: what it keeps when a size is measured again."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks import run as command
from benchmarks.lanes import Step
from benchmarks.report import render
from tests.benchmarks.samples import results


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """What stands in for a measurement is not known in other processes."""

    def measured(steps: Sequence[Step], lanes: int) -> Iterator[Step]:
        for step in reversed(steps):
            step.keep(step.measure())
            yield step

    monkeypatch.setattr(command, "measured", measured)


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


def test_other_measurements_can_be_repeated_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = results()
    output = tmp_path / "results.json"
    output.write_text(json.dumps(before))
    stopped = before["stop"] | {"mostAtOnce": 7}
    monkeypatch.setattr(command, "stop_under_a_cap", lambda *_, **__: stopped)
    places = ["--state", str(tmp_path / "state"), "--output", str(output)]
    command.main(["--again", "--sizes", "--rest", "--crash-step", "0", "--fleet", "0", "--peers", *places])
    after = json.loads(output.read_text())
    assert after["runs"] == before["runs"]
    assert after["stop"] == stopped
    assert after["restAgainAt"]
    assert "stop, kills and peers at" in render(after)


def test_peers_are_listed_behind_the_product_in_any_order_of_their_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    output = tmp_path / "results.json"
    output.write_text(json.dumps(results()))
    monkeypatch.setattr(command, "stop_under_a_cap", lambda *_, **__: results()["stop"])
    made = {run["machines"]: run for run in results()["runs"]}[250]
    peers = [("thread pool", lambda *_: made, ("worker",)), ("flat fan-out", lambda *_: made, ("worker",))]
    monkeypatch.setattr(command, "_PEERS", [peers[1], peers[0]])
    places = ["--state", str(tmp_path / "state"), "--output", str(output)]
    command.main(["--again", "--sizes", "--rest", "--crash-step", "0", "--fleet", "0", "--peers", "250", *places])
    names = [each["name"] for each in json.loads(output.read_text())["peers"]]
    assert names == ["Patchwave", "flat fan-out", "thread pool"]


def test_the_reads_of_a_fleet_can_be_repeated_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = results()
    output = tmp_path / "results.json"
    output.write_text(json.dumps(before))
    reads = {"machines": 10_000, "queries": 26, "cpuSeconds": 2.5, "bytes": 1}
    monkeypatch.setattr(command.fleet_reads, "measure", lambda *_: reads)
    places = ["--state", str(tmp_path / "state"), "--output", str(output)]
    assert command.main(["--again", "--sizes", "--reads", *places]) == 1
    after = json.loads(output.read_text())
    assert (after["fleetReads"], after["stop"], after["runs"]) == (reads, before["stop"], before["runs"])
