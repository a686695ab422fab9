"""``patchwave maintenance runs``: pre and post maintenance of Update Manager's scheduled runs."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Annotated, cast

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from patchwave.cli.errors import NotFoundError
from patchwave.cli.json_fields import Json, by_name, part
from patchwave.cli.maintenance.configuration_commands import maintenance
from patchwave.cli.options import LimitOption
from patchwave.cli.output import plain
from patchwave.cli.rendering import Cell, Listing, facts_grid, last_of, moment, moment_of
from patchwave.cli.runs.commands import NEWEST
from patchwave.cli.service import Service, command

_PATH = ("maintenance", "runs")
_NAMED = 5
"""Ids that one line names."""

runs = typer.Typer(name="runs", no_args_is_help=True, help="Maintenance runs of policies, and their results.")
maintenance.add_typer(runs)


@command(runs, "list")
def list_runs(service: Service, limit: LimitOption = None) -> None:
    """List maintenance runs, newest first."""
    service.show(list(service.client.pages(*_PATH, key="runs", limit=limit)), runs_table)


@command(runs, "show")
def show_run(
    service: Service,
    run: Annotated[str, typer.Argument(metavar="RUN", help=f"Id of the run, or '{NEWEST}' for the newest one.")],
    status_mismatch: Annotated[
        bool, typer.Option("--status-mismatch", help="Only machines that Update Manager called done and that are not.")
    ] = False,
    limit: LimitOption = None,
) -> None:
    """Show one maintenance run with its machines: pre maintenance, Update Manager's status, and the outcome."""
    if run == NEWEST:
        newest = next(service.client.pages(*_PATH, key="runs", limit=1), None)
        if newest is None:
            raise NotFoundError("There is no maintenance run yet")
        run = str(newest["runId"])
    found = service.client.get(*_PATH, run)
    only = "true" if status_mismatch else ""
    rows = service.client.pages(*_PATH, run, "machines", key="machines", statusMismatch=only)
    machines = sorted(islice(rows, limit), key=by_name)
    document = {"run": found, "machines": machines}
    service.show(document, lambda _: Group(run_facts(found), machines_table(machines)))


def runs_table(found: Iterable[Json]) -> RenderableType:
    """One line per scheduled run."""
    columns: dict[str, Cell] = {
        "run": "runId",
        "configuration": last_of("configurationId"),
        "starts (UTC)": moment_of("startsAt"),
        "state": "state",
        "machines": "machines",
        "outcomes": "countsByOutcome",
        "status mismatch": _status_mismatches,
    }
    rows = ({**part(each, "occurrence"), **each} for each in found)
    return Listing(rows, columns, right=["machines", "status mismatch"])


def run_facts(found: Json) -> RenderableType:
    """One scheduled run: its events, and the work before and after it."""
    occurrence = part(found, "occurrence")
    facts = {
        "scheduled run": occurrence.get("id"),
        "policy": found.get("policy"),
        "state": found.get("state"),
        "reason": found.get("reason"),
        "waiting for": found.get("waitingFor"),
        "pre event": moment(occurrence.get("preEventAt")) or "none came",
        "prepared": moment(occurrence.get("preparedAt")),
        "not ready": occurrence.get("preFailures") or "",
        "starts": moment(occurrence.get("startsAt")),
        "ends": moment(occurrence.get("endsAt")),
        "cancelled by us": moment(occurrence.get("canceledAt")),
        "not cancelled": occurrence.get("cancelFailure"),
        "post event": moment(occurrence.get("postEventAt")),
        "status in Azure": occurrence.get("status"),
        "results copied": moment(occurrence.get("resultsAt")),
        "outcomes": found.get("countsByOutcome"),
        "status mismatches": occurrence.get("statusMismatches") or "",
        "passed over": _passed_over(occurrence),
    }
    return Group(Text(plain(found.get("runId", "")), style="bold"), facts_grid(facts))


def machines_table(machines: Iterable[Json]) -> RenderableType:
    """One line per machine."""
    columns: dict[str, Cell] = {
        "machine": "name",
        "before": _before,
        "Update Manager": "updateManagerStatus",
        "installed": lambda machine: part(machine, "installation").get("installed"),
        "outcome": _outcome,
        "message": "message",
    }
    return Listing(machines, columns, right=["installed"], title=["machine", "outcome"], prose=["message"])


def _outcome(machine: Json) -> Text:
    return Text(plain(machine.get("outcome") or ""), style="bold red" if machine.get("statusMismatch") else "")


def _before(machine: Json) -> Text:
    if machine.get("preTasksError"):
        return Text("failed", style="red")
    done = ["started"] if machine.get("poweredOn") else []
    done += ["snapshot"] if machine.get("snapshotId") else []
    return Text(", ".join(done) or ("ready" if machine.get("preTasksDone") else ""))


def _passed_over(occurrence: Json) -> str:
    """The rows of Update Manager that are about no virtual machine, in words."""
    ids = [str(each) for each in cast("list[object]", occurrence.get("passedOver") or [])]
    more = ", ..." if len(ids) > _NAMED else ""
    return f"{len(ids)} rows about no virtual machine: {', '.join(ids[:_NAMED])}{more}" if ids else ""


def _status_mismatches(occurrence: Json) -> Text:
    number = occurrence.get("statusMismatches", 0)
    return Text(str(number), style="bold red" if number else "bright_black")
