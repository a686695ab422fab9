"""``patchwave demo``, ``demo-stop`` and ``demo-maintenance``: on this machine, all by themselves."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

import typer
from rich.console import Console, Group

from patchwave.cli.client import ApiClient
from patchwave.cli.errors import CommandError, Detail, ExitCode
from patchwave.cli.json_fields import Json
from patchwave.cli.local.serve_command import running_stack
from patchwave.cli.output import open_console
from patchwave.cli.plans.commands import PlanOutput, show_plan
from patchwave.cli.runs.machine_views import reasons_table
from patchwave.cli.runs.views import took
from patchwave.cli.runs.watch import watch

if TYPE_CHECKING:
    from local.demo.scenario import Demonstration

rollout, stop, maintenance = (typer.Typer(add_completion=False) for _ in range(3))
_BY = "the demonstration"


@rollout.command("demo")
def demo() -> None:
    """Plan and patch the sample fleet on this machine, and write .local/demo/report.json."""
    from local.demo.scenario import ROLLOUT

    _demonstrate(ROLLOUT)


@stop.command("demo-stop")
def demo_stop() -> None:
    """The same with a bad update in one region: an error budget stops the run."""
    from local.demo.scenario import STOP

    _demonstrate(STOP)


@maintenance.command("demo-maintenance")
def demo_maintenance() -> None:
    """Schedule, prepare, patch and copy the results on this machine; then find and mend what silently goes wrong."""
    from local.demo.maintenance_play import play

    play()


def _demonstrate(scene: Demonstration) -> None:
    from local.demo.scenario import ROOT, Report

    console = open_console()
    # What an earlier demonstration recorded, its machine locks above all, is not this one's.
    shutil.rmtree(scene.folder, ignore_errors=True)
    with running_stack(scene.stack_options(), console) as stack, ApiClient(stack.url) as client:
        scene.prepare(stack)
        client.apply_policy(scene.policy["name"], scene.policy)
        console.print("\nThe plan, before anything runs:\n")
        show_plan(client.post("plans", json={"policy": scene.policy["name"]}, slow=True), stack.url, PlanOutput.TABLE)
        console.print("\nThe run:\n")
        run_id = client.start_run({"policy": scene.policy["name"], "mode": "patch"})["id"]
        run = watch(client, run_id, console, 0.5, _approver(client, console))
        plan = client.get("runs", run_id, "plan", slow=True)
        report = Report(run, list(client.machines(run_id)), plan, scene.installs(stack))
        report.write(scene.report)
    console.print(Group("", reasons_table(report.machines), ""))
    broken = scene.violations(report)
    if broken:
        details = tuple(Detail("", sentence) for sentence in broken)
        raise CommandError("The demonstration violated Patchwave's guarantees", ExitCode.NEEDS_PERSON, details)
    console.print(
        f"{run['machines']} machines in {took(run)}, {len(report.accepted)} installs and none twice."
        f" {scene.kept(report)} Report: {scene.report.relative_to(ROOT)}",
        soft_wrap=True,
    )


def _approver(client: ApiClient, console: Console) -> Callable[[Json], None]:
    """Says yes to each ring that waits for a person, once."""
    approved: set[str] = set()

    def answer(run: Json) -> None:
        ring = str(run.get("waitingFor", ""))
        if run.get("state") == "awaiting_approval" and ring not in approved:
            approved.add(ring)
            client.send_run_command(run["id"], "approve", "The ring before it looks well.", _BY, ring)
            console.print(f"Approved by {_BY}: the ring {ring}.")

    return answer
