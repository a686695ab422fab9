"""``patchwave demo`` and ``patchwave serve``: what needs no running stack. The end-to-end tests have the rest."""

from __future__ import annotations

import json
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from cli.local_commands import write_environment
from domain.policy import parse_policy
from local.demo import FLEET, Report, policy
from tests.cli.conftest import Patchwave
from tests.cli.service import machine_document, run_document

RUN = "20261110T190000Z-demo"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--arm", "https://management.azure.com", "--machines", "5"],
        ["--arm", "https://management.azure.com", "--fleet", str(FLEET)],
        ["--fleet", str(FLEET), "--machines", "5"],
        ["--ca", __file__],
        ["--fleet", "not-there.json"],
        ["--speed", "0"],
        ["--workers", "0"],
    ],
)
def test_options_that_contradict_each_other_start_nothing(patchwave: Patchwave, arguments: list[str]):
    result = patchwave("serve", *arguments)
    assert (result.code, result.output) == (2, "")


def test_a_port_in_use_is_refused_before_anything_starts(patchwave: Patchwave):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        result = patchwave("serve", "--port", str(taken.getsockname()[1]))
    assert (result.code, result.output) == (2, "")
    assert "is in use" in result.errors


def test_the_environment_file_is_for_its_owner_and_for_any_shell(tmp_path: Path):
    path = tmp_path / "env.sh"
    path.write_text("older")
    path.chmod(0o644)
    write_environment(path, {"B": "it's $HOME", "A": "plain"})
    assert path.read_text() == "export A=plain\nexport B='it'\"'\"'s $HOME'\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_the_policy_of_the_demonstration_is_valid_and_covers_the_fleet():
    scope = parse_policy(policy()).scope
    fleet = json.loads(FLEET.read_text("utf-8"))
    assert {machine["id"].split("/")[2].lower() for machine in fleet} == set(scope.subscriptions)


def report(accepted: dict[str, int] | None = None, **changes: Any) -> Report:
    machines = [machine_document("web-1", "patched"), machine_document("web-2", "failed", "patches_failed")]
    run = run_document(RUN, machines=2, countsByOutcome={"patched": 1, "failed": 1}, **changes)
    return Report(run, machines, accepted or {machines[0]["id"]: 1})


def test_the_report_on_disk(tmp_path: Path):
    made = report()
    made.write(tmp_path / "new" / "report.json")
    written = json.loads((tmp_path / "new" / "report.json").read_text("utf-8"))
    assert written["run"]["id"] == RUN
    assert written["countsByOutcome"] == {"patched": 1, "failed": 1}
    assert written["machines"][1] == {
        "id": made.machines[1]["id"],
        "name": "web-2",
        "outcome": "failed",
        "reason": "patches_failed",
    }
    assert written["simulator"] == {"acceptedInstalls": {made.machines[0]["id"]: 1}}
    assert made.broken_promises() == []


def test_a_second_install_breaks_a_promise():
    assert "install 2 times" in report({"/subscriptions/x": 2}).broken_promises()[0]


def test_a_run_that_did_not_complete_breaks_a_promise():
    assert "ended as failed" in report(state="failed").broken_promises()[0]


def test_a_machine_without_an_outcome_breaks_a_promise():
    made = report()
    made.machines[1]["outcome"] = None
    assert "No outcome: web-2" in made.broken_promises()


@pytest.mark.parametrize("change", ["lost", "twice"])
def test_rows_that_do_not_add_up_break_a_promise(change: str):
    made = report()
    if change == "lost":
        made.machines.pop()
    else:
        made.machines[1] = {**made.machines[0], "id": made.machines[0]["id"].upper()}
    assert "do not agree" in made.broken_promises()[0]
