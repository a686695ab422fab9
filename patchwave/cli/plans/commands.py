"""``patchwave plan``: what a run of a policy would do, before anything runs.

From a fleet file on this machine, without Azure or a service; or on the live fleet, by the service.
"""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from patchwave.cli.errors import Detail, RefusedError
from patchwave.cli.json_fields import Json
from patchwave.cli.options import OverridesOption, read_input
from patchwave.cli.output import open_console, plain, print_json
from patchwave.cli.service import DEFAULT_URL, KeyOption, UrlOption, open_client

if TYPE_CHECKING:
    from patchwave.domain.planning.plan import Plan
    from patchwave.domain.policy.policy import Policy

_POLICY_SUFFIXES = (".yaml", ".yml", ".json")


plans = typer.Typer(add_completion=False)


class PlanOutput(StrEnum):
    """``table`` and ``timeline`` are for people; ``json`` is described in docs/explanation/rollout-planning.md."""

    TABLE = "table"
    TIMELINE = "timeline"
    JSON = "json"


AllOption = Annotated[bool, typer.Option("--all", help="Show every row of every table, however many there are.")]


@plans.command("plan")
def plan(
    policy: Annotated[
        str,
        typer.Option(
            "--policy", "-p", help="Policy file (YAML or JSON; - is standard input); with --live a policy's name too."
        ),
    ],
    fleet: Annotated[
        Path | None,
        typer.Option("--fleet", help="Fleet file: JSON of az vm list, Resource Graph or ARM (- is standard input)."),
    ] = None,
    live: Annotated[bool, typer.Option("--live", help="Let the service plan for the fleet as it is now.")] = False,
    overrides: OverridesOption = None,
    output: Annotated[PlanOutput, typer.Option("--output", "-o", help="What to print.")] = PlanOutput.TABLE,
    svg: Annotated[Path | None, typer.Option("--svg", help="Also draw the timeline into this file.")] = None,
    against: Annotated[
        Path | None, typer.Option("--against", help="An earlier plan (-o json): also show what has changed since.")
    ] = None,
    whole: AllOption = False,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Show what a run of a policy would do: who, in which order, why, and when. Nothing is started or stored."""
    if live == (fleet is not None):
        raise RefusedError("Give --fleet FILE to plan on this machine, or --live to let the service plan; not both")
    if str(fleet) == "-" and policy == "-":
        raise RefusedError("Only one of --fleet and --policy can be standard input")
    from patchwave.cli.policy_files import merge_patch

    changes = merge_patch(overrides or [])
    earlier = _read_plan(against) if against is not None else None
    if fleet is None:
        made = _plan_live(policy, changes, url, key)
    else:
        made = _plan_offline(fleet, policy, changes)
    if svg is not None:
        _draw(made, svg)
    _show(made, earlier, output, whole=whole)


def _plan_offline(fleet_file: Path, policy_file: str, changes: Json) -> Plan:
    from patchwave.cli.plans.fleet_files import read_fleet
    from patchwave.domain.planning.dry_run import plan_dry_run

    policy = _policy(Path(policy_file), changes)
    fleet = read_fleet(fleet_file, sys.stdin.buffer.read() if str(fleet_file) == "-" else None)
    draft = plan_dry_run(fleet.machines, policy, fleet.topology, datetime.now(UTC))
    errors = open_console(errors=True)
    for note in fleet.notes:
        errors.print(plain(note), soft_wrap=True)
    if draft.outside:
        errors.print(
            f"{draft.outside} of {len(fleet.machines)} machines are outside of the policy's scope", soft_wrap=True
        )
    return draft.plan


def _plan_live(policy: str, changes: Json, url: str, key: str) -> Plan:
    is_file = policy == "-" or policy.endswith(_POLICY_SUFFIXES)
    request: Json = {"policy": _read_policy(Path(policy)) if is_file else policy}
    if changes:
        request["overrides"] = changes
    with open_client(url, key) as client:
        return _understand_response(client.post("plans", json=request, slow=True), url)


def show_plan(document: Json, url: str, output: PlanOutput, *, whole: bool = False) -> None:
    """Print a plan that the service at this address made or keeps."""
    _show(_understand_response(document, url), None, output, whole=whole)


def _understand(document: object, failure: str) -> Plan:
    from patchwave.domain.planning.plan import Plan

    try:
        return Plan.model_validate(document)
    except ValueError as error:
        raise RefusedError(failure) from error


def _understand_response(document: Json, url: str) -> Plan:
    return _understand(document, f"{url} answered with a plan that this command cannot read: is it of another version?")


def _policy(file: Path, changes: Json) -> Policy:
    from patchwave.domain.policy.policy import ADHOC_POLICY, PolicyError, apply_overrides, parse_policy

    try:
        policy = parse_policy({"name": ADHOC_POLICY} | _read_policy(file))
        return apply_overrides(policy.to_wire(), changes) if changes else policy
    except PolicyError as error:
        details = tuple(Detail(problem.path, problem.message) for problem in error.errors)
        raise RefusedError(f"{file} is no valid policy", details) from error


def _read_policy(file: Path) -> Json:
    # `run plan` needs this module, and no YAML.
    from patchwave.cli.policy_files import read_policy

    return read_policy(file, read_input(file))


def _read_plan(file: Path) -> Plan:
    """An earlier plan; one that was printed with its own diff is as good.

    Raises:
        RefusedError: the file cannot be read, or holds no plan of this format.
    """
    from patchwave.domain.planning.plan import PLAN_VERSION

    try:
        document: object = json.loads(file.read_bytes())
    except OSError as error:
        raise RefusedError(f"{file} cannot be read: {error}") from error
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{file} is not JSON: {error}") from error
    if isinstance(document, dict):
        document = {key: value for key, value in cast("Json", document).items() if key != "diff"}
    return _understand(
        document, f"{file} holds no plan of version {PLAN_VERSION}, as `patchwave plan -o json` prints it"
    )


def _draw(made: Plan, file: Path) -> None:
    from patchwave.cli.plans.timeline_svg import draw

    try:
        file.write_text(draw(made), encoding="utf-8")
    except OSError as error:
        raise RefusedError(f"{file} cannot be written: {error}") from error


def _show(made: Plan, earlier: Plan | None, output: PlanOutput, *, whole: bool) -> None:
    from patchwave.domain.planning.plan_diff import compare

    diff = None if earlier is None else compare(earlier, made)
    if output is PlanOutput.JSON:
        print_json(made.to_wire() | ({} if diff is None else {"diff": diff.to_wire()}))
        return
    from patchwave.cli.plans.timeline_text import timeline
    from patchwave.cli.plans.views import MAX_ROWS, diff_table, plan_tables

    console = open_console()
    most = None if whole else MAX_ROWS
    if output is PlanOutput.TABLE:
        console.print(*plan_tables(made, diff, most), sep="\n")
        return
    console.print(timeline(made))
    if diff is not None:
        console.print("", diff_table(diff, most), sep="\n")
