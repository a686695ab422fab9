"""What the demonstration runs and what it leaves behind: its fleet, its policy, and its report.

The command drives it through the HTTP API (``cli.local_commands``). The report's figures on accepted installs come from
the simulator's own books, not from the app that they check.
"""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import httpx

from local.stack import Stack, StackOptions

type Json = dict[str, Any]

ROOT = Path(__file__).resolve().parent.parent
FLEET = ROOT / "fleets" / "demo.json"
FOLDER = ROOT / ".local" / "demo"
REPORT = FOLDER / "report.json"

SPEED = 60.0
"""Simulated seconds per second: installs that take a quarter of an hour are over in a quarter of a minute."""


def stack_options() -> StackOptions:
    """A stack with the demonstration's fleet, on a free port."""
    return StackOptions(state=FOLDER / "stack", port=0, fleet=FLEET, speed=SPEED, poll_seconds=0.5)


def policy() -> Json:
    """The policy of the demonstration: both subscriptions of the fleet, a third of it at a time."""
    fleet = cast("list[Json]", json.loads(FLEET.read_text(encoding="utf-8")))
    subscriptions = list(dict.fromkeys(str(machine["id"]).split("/")[2] for machine in fleet))
    return {
        "name": "demo",
        "description": "Critical and security updates for every machine of the sample fleet.",
        "scope": {"subscriptions": subscriptions},
        "install": {
            "windows": {"classificationsToInclude": ["Critical", "Security", "UpdateRollUp"]},
            "linux": {"classificationsToInclude": ["Critical", "Security"]},
            "rebootSetting": "IfRequired",
            "maximumDuration": "PT2H",
        },
        "maxConcurrent": 20,
    }


def accepted_installs(stack: Stack) -> dict[str, int]:
    """How many installs the simulator accepted, by machine id, for the machines that it accepted any on."""
    verify = ssl.create_default_context(cafile=str(stack.ca))
    answer = httpx.get(f"{stack.arm}/_sim/accepted", verify=verify, timeout=10, trust_env=False)
    books = cast("dict[str, dict[str, int]]", answer.raise_for_status().json())
    return {machine: counts["install"] for machine, counts in sorted(books.items()) if counts.get("install")}


@dataclass(frozen=True)
class Report:
    """What came of the demonstration."""

    run: Json
    machines: list[Json]
    accepted: Mapping[str, int]

    def document(self) -> Json:
        """The form of ``report.json``."""
        return {
            "run": self.run,
            "countsByOutcome": self.run["countsByOutcome"],
            "machines": [
                {key: machine[key] for key in ("id", "name", "outcome", "reason")} for machine in self.machines
            ],
            "simulator": {"acceptedInstalls": dict(self.accepted)},
        }

    def write(self, path: Path = REPORT) -> None:
        """Write the report as JSON."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(self.document(), indent=2, ensure_ascii=False) + "\n", encoding="utf-8")

    def broken_promises(self) -> list[str]:
        """What the run should have kept and did not, a sentence each; empty when all is well."""
        return list(self._broken())

    def _broken(self) -> Iterable[str]:
        if self.run["state"] != "completed":
            yield f"The run ended as {self.run['state']}: {self.run.get('reason', '')}"
        for machine, count in self.accepted.items():
            if count > 1:
                yield f"{machine} was told to install {count} times in one run"
        without = [machine["name"] for machine in self.machines if not machine["outcome"]]
        if without:
            yield f"No outcome: {', '.join(without)}"
        ids = {str(machine["id"]).lower() for machine in self.machines}
        total = sum(self.run["countsByOutcome"].values())
        if not len(ids) == len(self.machines) == total == self.run["machines"] > 0:
            yield f"{len(self.machines)} rows, {total} outcomes and {self.run['machines']} machines do not agree"
