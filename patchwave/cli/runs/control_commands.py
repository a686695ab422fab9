"""The commands of ``patchwave run`` that control a run and its machines, and its audit log and plan."""

from __future__ import annotations

from typing import Annotated

import typer

from patchwave.cli.json_fields import Json
from patchwave.cli.options import ActorOption, LimitOption, ReasonOption, given
from patchwave.cli.plans.commands import AllOption, PlanOutput, show_plan
from patchwave.cli.rendering import audit_table
from patchwave.cli.runs.commands import IntervalOption, RunChoice, Wanted, follow, machine_key, runs
from patchwave.cli.runs.machine_views import machine_facts
from patchwave.cli.runs.views import run_facts
from patchwave.cli.service import Service, command

RingOption = Annotated[str, typer.Option("--ring", help="Name of the ring; the one that the run waits for by default.")]
MachineArgument = Annotated[str, typer.Argument(metavar="MACHINE", help="Name, ARM id or key of the machine.")]

_CONTROLS = {
    "pause": "Start nothing more in a run until it is resumed; what runs inside a machine goes on.",
    "resume": "Go on after a pause, and after error budgets that hold: the failures until now are accepted.",
    "cancel": "Start nothing more in a run, at once; what runs inside a machine cannot be stopped and ends by itself.",
}
_DECISIONS = {
    "approve": "Let a ring start; the first decision about a ring stands.",
    "reject": "Keep a ring from starting, which ends the run before it; the first decision about a ring stands.",
}


def _add_control(name: str, text: str) -> None:
    def control(service: Service, choice: RunChoice, actor: ActorOption, reason: ReasonOption = "") -> None:
        run_id = choice.find(service.client, Wanted.LIVE)
        service.show(service.client.send_run_command(run_id, name, reason, actor), run_facts)

    command(runs, name, text)(control)


def _add_decision(name: str, text: str) -> None:
    def decide(
        service: Service, choice: RunChoice, actor: ActorOption, ring: RingOption = "", reason: ReasonOption = ""
    ) -> None:
        run_id = choice.find(service.client, Wanted.LIVE)
        asked = service.client.run(run_id)
        # Named, so that a repetition of the request cannot decide the ring after it.
        decided = service.client.send_run_command(run_id, name, reason, actor, ring or _awaited_ring(asked))
        service.show(decided | {"policySnapshot": asked.get("policySnapshot")}, run_facts)

    command(runs, name, text)(decide)


for _name, _text in _CONTROLS.items():
    _add_control(_name, _text)
for _name, _text in _DECISIONS.items():
    _add_decision(_name, _text)


@command(runs, "skip")
def skip(
    service: Service, choice: RunChoice, machine: MachineArgument, actor: ActorOption, reason: ReasonOption = ""
) -> None:
    """Leave a machine out of a run; too late once its installation has begun."""
    run_id = choice.find(service.client, Wanted.LIVE)
    service.show(_send(service, run_id, machine, "skip", reason, actor), machine_facts)


@command(runs, "retry")
def retry(
    service: Service,
    choice: RunChoice,
    machine: MachineArgument,
    actor: ActorOption,
    reason: ReasonOption = "",
    wait: Annotated[bool, typer.Option("--wait", help="Follow the new run until it ends.")] = False,
    interval: IntervalOption = 2.0,
) -> None:
    """Patch a machine that has ended once more, in a run of its own by the same policy; given twice it is one run."""
    run_id = choice.find(service.client, Wanted.ENDED)
    new_run = _send(service, run_id, machine, "retry", reason, actor)["id"]
    if wait:
        follow(service, new_run, interval)
    # The response is without the policy, of which a person is shown scope and scripts.
    service.show(service.client.run(new_run), run_facts)


@command(runs, "audit")
def audit(service: Service, choice: RunChoice, limit: LimitOption = None) -> None:
    """List who controlled a run and what its gates did, oldest first."""
    service.show(service.client.audit("runs", choice.find(service.client), limit=limit), audit_table)


@command(runs, "plan", has_output=False)
def plan(
    service: Service,
    choice: RunChoice,
    output: Annotated[PlanOutput, typer.Option("--output", "-o", help="What to print.")] = PlanOutput.TABLE,
    whole: AllOption = False,
) -> None:
    """Show the plan that a run follows: which machines, in which order, why, and when."""
    found = service.client.get("runs", choice.find(service.client), "plan", slow=True)
    show_plan(found, service.client.url, output, whole=whole)


def _send(service: Service, run_id: str, machine: str, command: str, reason: str, actor: str) -> Json:
    """Send a command for a machine: its row, or the new run."""
    key = machine_key(service.client, run_id, machine)
    body = given(reason=reason, actor=actor)
    return service.client.post("runs", run_id, "machines", key, command, json=body)


def _awaited_ring(run: Json) -> str:
    is_asked = "awaiting_approval" in (run.get("state"), run.get("pausedFromState"))
    return str(run.get("waitingFor", "")) if is_asked else ""
