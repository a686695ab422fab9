"""The demonstrations: fleets, policies, and reports.

Driven through the HTTP API (``patchwave.cli.local.demo_commands``). Facts about installations come from the simulator's
log, not from the app under test.
"""

from __future__ import annotations

import json
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple, cast

import httpx

from local import ROOT
from local.stack import Stack, StackOptions

type Json = dict[str, Any]

FLEET = ROOT / "examples" / "fleets" / "demo.json"

SPEED = 60.0
"""Simulated seconds per second: installs that take a quarter of an hour are over in a quarter of a minute."""
PAIRS = (("westeurope", "northeurope"), ("eastus2", "centralus"))
BAD_REGION = "eastus2"
STOP_SECONDS = 2.0
"""A call may have been sent at the moment when the gate closed."""


class Install(NamedTuple):
    """An installation in the log of the simulator: from and to in simulated seconds, and its beginning on the clock."""

    machine: str
    at: str
    start: float
    end: float


@dataclass(frozen=True)
class Report:
    """The result of a demonstration; ``plan`` is the run's plan."""

    run: Json
    machines: list[Json]
    plan: Json
    installs: Sequence[Install]

    @property
    def accepted(self) -> dict[str, int]:
        """How many installs were accepted, by machine id."""
        return dict(sorted(Counter(install.machine for install in self.installs).items()))

    def write(self, path: Path) -> None:
        document = {
            "run": self.run,
            "countsByOutcome": self.run["countsByOutcome"],
            "machines": [
                {
                    key: machine[key]
                    for key in ("id", "name", "ring", "lane", "wave", "placementReasons", "outcome", "reason")
                }
                for machine in self.machines
            ],
            "makespan": self.plan["makespan"],
            "simulator": {"acceptedInstalls": self.accepted},
        }
        write_report(path, document)

    def of(self, key: str) -> dict[str, list[Install]]:
        """The installations by a field of their machines' rows, such as ``ring``."""
        values = {str(machine["id"]).lower(): str(machine[key]) for machine in self.machines}
        found: dict[str, list[Install]] = {}
        for install in self.installs:
            found.setdefault(values.get(install.machine.lower(), ""), []).append(install)
        return found


@dataclass(frozen=True)
class Demonstration:
    """A fleet, a policy, and the expected results.

    ``bad`` overrides the behaviour of machines in the fleet file; ``check`` adds expectations, ``kept`` describes what
    was shown.
    """

    name: str
    policy: Json
    state: str
    check: Callable[[Report], Iterable[str]]
    kept: Callable[[Report], str]
    bad: Mapping[str, Json] = field(default_factory=dict[str, Json])

    @property
    def folder(self) -> Path:
        return ROOT / ".local" / self.name

    @property
    def report(self) -> Path:
        return self.folder / "report.json"

    def stack_options(self) -> StackOptions:
        """A stack with the sample fleet, on a free port."""
        return StackOptions(state=self.folder / "stack", port=0, fleet=FLEET, speed=SPEED, poll_seconds=0.5)

    def prepare(self, stack: Stack) -> None:
        for machine, simulation in self.bad.items():
            ask_simulator(stack, "POST", "/_sim/machines", {"id": machine, "simulation": simulation})

    def installs(self, stack: Stack) -> list[Install]:
        """The installations that the simulator accepted."""
        operations = cast("list[Json]", ask_simulator(stack, "GET", "/_sim/operations?kind=install")["operations"])
        # A running one has no end: any later one overlaps with it.
        return [
            Install(each["machine"], each["startedAt"], each["start"], each["end"] or float("inf"))
            for each in operations
        ]

    def violations(self, report: Report) -> list[str]:
        """Violated expectations, a sentence each; empty on success."""
        return [*_broken_always(report, self.state), *self.check(report)]


def write_report(path: Path, document: Json) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")


def ask_simulator(stack: Stack, method: str, path: str, body: Json | None = None) -> Json:
    """The response of the simulator's own controls, below ``/_sim``."""
    verify = ssl.create_default_context(cafile=str(stack.ca))
    answer = httpx.request(method, f"{stack.arm}{path}", json=body, verify=verify, timeout=10, trust_env=False)
    return cast("Json", answer.raise_for_status().json())


def _broken_always(report: Report, state: str) -> Iterable[str]:
    if report.run["state"] != state:
        yield f"The run ended as {report.run['state']}: {report.run.get('reason', '')}"
    for machine, count in report.accepted.items():
        if count > 1:
            yield f"{machine} was told to install {count} times in one run"
    if without := [machine["name"] for machine in report.machines if not machine["outcome"]]:
        yield f"No outcome: {', '.join(without)}"
    ids = {str(machine["id"]).lower() for machine in report.machines}
    total = sum(report.run["countsByOutcome"].values())
    if not len(ids) == len(report.machines) == total == report.run["machines"] > 0:
        yield f"{len(report.machines)} rows, {total} outcomes and {report.run['machines']} machines do not agree"


def _broken_order(report: Report) -> Iterable[str]:
    """Violated order rules; the end-to-end tests check all other constraints."""
    rings = report.of("ring")
    if rings.keys() != {"canary", "broad"}:
        yield f"Installations in the rings {sorted(rings)}, where canary and broad were expected"
    elif min(each.start for each in rings["broad"]) < max(each.end for each in rings["canary"]):
        yield "The broad ring began before the canaries had ended"
    regions = report.of("lane")
    for one, other in PAIRS:
        if any(_overlap(a, b) for a in regions.get(one, []) for b in regions.get(other, [])):
            yield f"Machines of {one} and of its pair {other} were patched at the same time"


def _broken_stop(report: Report) -> Iterable[str]:
    skipped = _kept_by_budget(report)
    if not skipped:
        yield "The error budget kept no machine from being patched"
    stopped_at = report.run["stoppedAt"]
    if late := [each.machine for each in report.installs if _seconds_between(stopped_at, each.at) > STOP_SECONDS]:
        yield f"Installations began after the run was stopped: {', '.join(late)}"
    patched = {each.machine.lower() for each in report.installs}
    if any(str(machine["id"]).lower() in patched for machine in skipped):
        yield "A machine is called skipped although it was patched"


def _kept_by_budget(report: Report) -> list[Json]:
    return [machine for machine in report.machines if machine["reason"] == "error_budget"]


def _overlap(one: Install, other: Install) -> bool:
    return one.start < other.end and other.start < one.end


def _seconds_between(one: str, other: str) -> float:
    return (datetime.fromisoformat(other) - datetime.fromisoformat(one)).total_seconds()


def _fleet() -> list[Json]:
    return cast("list[Json]", json.loads(FLEET.read_text(encoding="utf-8")))


def _policy(name: str, description: str, **changes: Any) -> Json:
    """Test machines first; after approval all others, a third of the fleet at a time."""
    return {
        "name": name,
        "description": description,
        "scope": {
            "subscriptions": list(dict.fromkeys(str(machine["id"]).split("/")[2] for machine in _fleet())),
            "machineTypes": ["azure", "arc"],
        },
        "install": {
            "windows": {"classificationsToInclude": ["Critical", "Security", "UpdateRollUp"]},
            "linux": {"classificationsToInclude": ["Critical", "Security"]},
            "rebootSetting": "IfRequired",
            "maximumDuration": "PT2H",
        },
        "maxConcurrent": 20,
        "rings": [
            {"name": "canary", "tags": {"values": {"env": ["test"]}}},
            {"name": "broad", "approval": {"within": "PT1H"}},
        ],
        **changes,
    }


def _of_bad_update(machine: Json) -> bool:
    return machine["location"] == BAD_REGION and machine["tags"].get("env") != "test"


ROLLOUT = Demonstration(
    name="demo",
    policy=_policy("demo", "Critical and security updates for the sample fleet, the test machines first."),
    state="completed",
    check=_broken_order,
    kept=lambda _: "The canaries ended before the broad ring began, and paired regions were never patched together.",
)
STOP = Demonstration(
    name="demo-stop",
    policy=_policy(
        "demo-stop",
        f"The same, on a day on which an update fails everywhere in {BAD_REGION}.",
        errorBudget={"lane": 3, "run": "20%", "onExceeded": "end"},
    ),
    state="stopped",
    check=lambda report: [*_broken_order(report), *_broken_stop(report)],
    kept=lambda report: (
        f"{report.run['stopReason']} {len(_kept_by_budget(report))} machines were left alone because of it."
    ),
    bad={machine["id"]: {"installFails": True, "pendingPatches": 6} for machine in _fleet() if _of_bad_update(machine)},
)
