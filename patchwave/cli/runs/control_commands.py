"""The orders of ``patchwave run``: to a run that is under way, and to one of its machines; and what was ordered."""

from __future__ import annotations

from typing import Annotated

import typer

from patchwave.cli.json_fields import Json
from patchwave.cli.output import (
    DEFAULT_URL,
    ByOption,
    KeyOption,
    LimitOption,
    OutputFormat,
    OutputOption,
    UrlOption,
    open_client,
    show,
)
from patchwave.cli.plans.commands import AllOption, PlanOutput, show_plan
from patchwave.cli.rendering import audit_table
from patchwave.cli.runs.commands import (
    IntervalOption,
    PolicyOption,
    RunArgument,
    Wanted,
    follow,
    machine_key,
    resolve,
)
from patchwave.cli.runs.machine_views import machine_facts
from patchwave.cli.runs.views import run_facts

CommentOption = Annotated[
    str, typer.Option("--comment", "-c", "--reason", "-r", help="Why, for people and the audit log.")
]
RingOption = Annotated[str, typer.Option("--ring", help="Name of the ring; the one that the run waits for by default.")]
MachineArgument = Annotated[str, typer.Argument(metavar="MACHINE", help="Name, ARM id or key of the machine.")]


def add_steering(runs: typer.Typer) -> None:
    """Add the orders to ``patchwave run``."""
    for command in (pause, resume, cancel, approve, reject, skip, retry, audit, plan):
        runs.command(command.__name__)(command)


def pause(
    run: RunArgument,
    by: ByOption,
    comment: CommentOption = "",
    output: OutputOption = OutputFormat.TABLE,
    policy: PolicyOption = "",
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Start nothing more in a run until it is resumed; what runs inside a machine goes on."""
    _steer("pause", run, policy, comment, by, output, url, key)


def resume(
    run: RunArgument,
    by: ByOption,
    comment: CommentOption = "",
    output: OutputOption = OutputFormat.TABLE,
    policy: PolicyOption = "",
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Go on after a pause, and after error budgets that hold: the failures until now are accepted."""
    _steer("resume", run, policy, comment, by, output, url, key)


def cancel(
    run: RunArgument,
    by: ByOption,
    comment: CommentOption = "",
    output: OutputOption = OutputFormat.TABLE,
    policy: PolicyOption = "",
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Start nothing more in a run, at once; what runs inside a machine cannot be stopped and ends by itself."""
    _steer("cancel", run, policy, comment, by, output, url, key)


def approve(
    run: RunArgument,
    by: ByOption,
    ring: RingOption = "",
    comment: CommentOption = "",
    output: OutputOption = OutputFormat.TABLE,
    policy: PolicyOption = "",
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Let a ring start; the first decision about a ring stands."""
    _steer("approve", run, policy, comment, by, output, url, key, ring)


def reject(
    run: RunArgument,
    by: ByOption,
    ring: RingOption = "",
    comment: CommentOption = "",
    output: OutputOption = OutputFormat.TABLE,
    policy: PolicyOption = "",
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Keep a ring from starting, which ends the run before it; the first decision about a ring stands."""
    _steer("reject", run, policy, comment, by, output, url, key, ring)


def skip(
    run: RunArgument,
    machine: MachineArgument,
    by: ByOption,
    comment: CommentOption = "",
    output: OutputOption = OutputFormat.TABLE,
    policy: PolicyOption = "",
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Leave a machine out of a run; too late once its installation has begun."""
    with open_client(url, key) as client:
        run_id = resolve(client, run, policy, Wanted.LIVE)
        found = client.steer_machine(run_id, machine_key(client, run_id, machine), "skip", comment, by)
    show(output, found, lambda: machine_facts(found))


def retry(
    run: RunArgument,
    machine: MachineArgument,
    by: ByOption,
    comment: CommentOption = "",
    wait: Annotated[bool, typer.Option("--wait", help="Follow the new run until it ends.")] = False,
    interval: IntervalOption = 2.0,
    output: OutputOption = OutputFormat.TABLE,
    policy: PolicyOption = "",
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Take a machine that has ended once more, in a run of its own by the same policy; ordered twice it is one."""
    with open_client(url, key) as client:
        run_id = resolve(client, run, policy, Wanted.ENDED)
        found = client.steer_machine(run_id, machine_key(client, run_id, machine), "retry", comment, by)
        if wait:
            follow(client, found["id"], output, interval)
        # The answer is without the policy, of which a person is shown scope and scripts.
        found = client.run(found["id"])
    show(output, found, lambda: run_facts(found))


def audit(
    run: RunArgument,
    limit: LimitOption = None,
    output: OutputOption = OutputFormat.TABLE,
    policy: PolicyOption = "",
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """List who ordered what in a run and what its gates did, oldest first."""
    with open_client(url, key) as client:
        found = list(client.run_audit(resolve(client, run, policy), limit))
    show(output, found, lambda: audit_table(found))


def plan(
    run: RunArgument,
    output: Annotated[PlanOutput, typer.Option("--output", "-o", help="What to print.")] = PlanOutput.TABLE,
    whole: AllOption = False,
    policy: PolicyOption = "",
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Show the plan that a run follows: who, in which order, why, and when."""
    with open_client(url, key) as client:
        found = client.run_plan(resolve(client, run, policy))
    show_plan(found, url, output, whole=whole)


def _steer(
    order: str,
    run: str,
    policy: str,
    comment: str,
    by: str,
    output: OutputFormat,
    url: str,
    key: str,
    ring: str = "",
) -> None:
    with open_client(url, key) as client:
        run_id = resolve(client, run, policy, Wanted.LIVE)
        rules: Json = {}
        if order in ("approve", "reject"):
            asked = client.run(run_id)
            # Named, so that a repetition of the request cannot decide the ring after it.
            ring = ring or _awaited_ring(asked)
            rules = {"policySnapshot": asked.get("policySnapshot")}
        found = client.steer_run(run_id, order, comment, by, ring) | rules
    show(output, found, lambda: run_facts(found))


def _awaited_ring(run: Json) -> str:
    is_asked = "awaiting_approval" in (run.get("state"), run.get("resumesAs"))
    return str(run.get("waitingFor", "")) if is_asked else ""
