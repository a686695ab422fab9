"""``patchwave run``: start runs, look at them, follow them. Pause, cancel and the like are in `control_commands`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO, cast

import typer

from patchwave.cli.errors import ExitCode, NotFoundError, RefusedError
from patchwave.cli.json_fields import Json, by_name, part
from patchwave.cli.options import ActorOption, LimitOption, OverridesOption, ReasonOption, read_input
from patchwave.cli.output import open_console, plain, print_json
from patchwave.cli.rendering import instant, number_of
from patchwave.cli.runs.machine_views import NEEDS_PERSON, machine_facts, machines_table
from patchwave.cli.runs.views import FINAL_STATES, run_facts, runs_table
from patchwave.cli.runs.watch import exit_code_of, watch
from patchwave.cli.service import Service, command
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import RunId

if TYPE_CHECKING:
    from patchwave.cli.client import ApiClient

NEWEST = "latest"
"""Stands for the newest run wherever a run id is asked for: never for a retry, unless there is nothing else."""
LOOKED_THROUGH = 5000
"""Of so many runs, those with the newest ids, one is chosen as the latest."""
_MAX_DELAY = timedelta(days=8)
"""How much later than its id says a run may be created: a window is open for 168 hours at most."""
_STANDARD_OUTPUT = Path("-")
_MAX_RECORD = 4_000_000
"""Characters of a file's first line that are looked at: a run and its policy have fewer."""

_MACHINE_KEY = re.compile(r"[0-9a-f]{24}")

runs = typer.Typer(name="run", no_args_is_help=True)

IntervalOption = Annotated[float, typer.Option("--interval", min=0.1, help="Seconds between two looks at the run.")]


class Wanted(StrEnum):
    """Which run a command is likely to be about, where it is not named: that one comes before newer ones."""

    ANY = "any"
    LIVE = "live"
    ENDED = "ended"

    def fits(self, run: Json) -> bool:
        """Whether a run is such a one."""
        return self is Wanted.ANY or (run.get("state") in FINAL_STATES) == (self is Wanted.ENDED)


@dataclass(frozen=True)
class RunChoice:
    """The run that a command is about: an id, or the latest one, of a policy or of all."""

    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help=f"Run id, or '{NEWEST}': the newest run that is no retry; for a command the newest that can take it.",
        ),
    ]
    policy: Annotated[
        str, typer.Option("--policy", metavar="POLICY", help=f"'{NEWEST}' is the newest run of this policy.")
    ] = ""

    def find(self, client: ApiClient, wanted: Wanted = Wanted.ANY) -> str:
        """The id of the run; of the latest one, standard error says which it is.

        A retry is a run for one machine: it only counts where there is no other run. Of the others, the newest one that
        is ``wanted`` comes first.

        Raises:
            NotFoundError: there is no run yet.
            RefusedError: a policy beside the id of a run.
        """
        if self.run != NEWEST:
            if self.policy:
                raise RefusedError(f"--policy narrows '{NEWEST}'; it says nothing beside the id of a run")
            return self.run
        chosen = _latest(islice(client.pages("runs", key="runs"), LOOKED_THROUGH), self.policy, wanted)
        if chosen is None and self.policy:
            raise NotFoundError(f"There is no run of policy {self.policy} among the {LOOKED_THROUGH:,} newest")
        if chosen is None:
            raise NotFoundError("There is no run yet")
        run_id = str(chosen["id"])
        open_console(errors=True).print(plain(f"{NEWEST} is {run_id}"), soft_wrap=True)
        return run_id


class Mode(StrEnum):
    """What a run does to its machines."""

    ASSESS = "assess"
    PATCH = "patch"


@command(runs, "start")
def start(
    service: Service,
    actor: ActorOption,
    policy: Annotated[str, typer.Argument(metavar="[POLICY]", help="Name of a policy that the service knows.")] = "",
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="Policy file (YAML or JSON; - is standard input), for this run only."),
    ] = None,
    mode: Annotated[
        Mode | None, typer.Option(help="assess looks only; patch installs. The policy's mode unless given.")
    ] = None,
    overrides: OverridesOption = None,
    reason: ReasonOption = "",
    idempotency_key: Annotated[str, typer.Option(help="A second start with this key gives the first run.")] = "",
    wait: Annotated[bool, typer.Option("--wait", help="Follow the run until it ends.")] = False,
    interval: IntervalOption = 2.0,
) -> None:
    """Start a run of a policy, by name or from a file."""
    # Only this command of the group reads YAML.
    from patchwave.cli.policy_files import merge_patch, read_policy

    if bool(policy) == (file is not None):
        raise RefusedError("Name a policy, or give a policy file with -f: one of them")
    request: Json = {"policy": policy} | ({"mode": mode.value} if mode is not None else {})
    if file is not None:
        request["policy"] = read_policy(file, read_input(file))
    if overrides:
        request["overrides"] = merge_patch(overrides)
    run = service.client.start_run(request, idempotency_key, reason=reason, actor=actor)
    if wait:
        follow(service, run["id"], interval)
    service.show(run, run_facts)


@command(runs, "list")
def list_runs(
    service: Service,
    policy: Annotated[str, typer.Option("--policy", metavar="POLICY", help="Only runs of this policy.")] = "",
    limit: Annotated[int, typer.Option(min=1, help="How many runs.")] = 20,
) -> None:
    """List the runs with the newest ids, those that were created last first."""
    runs = service.client.pages("runs", key="runs", limit=None if policy else limit)
    found = list(islice((run for run in runs if _is_of(run, policy)), limit))
    found.sort(key=created, reverse=True)
    service.show(found, runs_table)


@command(runs, "show")
def show_run(service: Service, choice: RunChoice) -> None:
    """Show one run."""
    service.show(service.client.run(choice.find(service.client)), run_facts)


@command(runs, "export", has_output=False)
def export_run(
    service: Service,
    choice: RunChoice,
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="Where the evidence goes, one JSON record a line; - is standard output."),
    ],
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is no export of this run.")] = False,
) -> None:
    """Download everything that is kept of a run; one that has ended may be removed by the service afterwards.

    A file appears under its name only when all of it is there. Only then is the export reported to the service.
    """
    place = "standard output" if file == _STANDARD_OUTPUT else str(file)
    try:
        # Opened before anything is read, which may take a while.
        with _replacing(file) as target:
            run_id = choice.find(service.client)
            if not force and _is_something_else(file, run_id):
                raise RefusedError(f"{file} is there and is no export of {run_id}; --force replaces it")
            export = _write_records(target, service.client, run_id)
    except OSError as error:
        raise RefusedError(f"{place} cannot be written: {error.strerror or error}") from error
    said = f"{number_of(export.records, 'record')} in {place}; "
    if export.has_ended:
        kept: Json = {"records": export.records + len(export.unreadable)}
        service.client.post("runs", run_id, "evidence", "exported", json=kept, slow=True)
        said += "the service was told that they are kept"
    else:
        said += "the run goes on: this is no export yet; export again when it has ended"
    open_console(errors=True).print(plain(said), soft_wrap=True)


@contextmanager
def _replacing(file: Path) -> Generator[TextIO]:
    """A new file that takes the place of this one when the block ends well; otherwise nothing of it is left."""
    if file == _STANDARD_OUTPUT:
        yield sys.stdout
        sys.stdout.flush()
        return
    if file.exists() and not file.is_file():
        raise RefusedError(f"{file} cannot be written: it is no file")
    part = file.with_name(file.name + ".part")
    with part.open("w", encoding="utf-8") as target:
        try:
            yield target
            target.close()
            part.replace(file)
        finally:
            part.unlink(missing_ok=True)


def _is_something_else(file: Path, run_id: str) -> bool:
    """Whether there is a file that does not begin with the record of this run, as its exports do."""
    if file == _STANDARD_OUTPUT or not file.exists():
        return False
    try:
        with file.open(encoding="utf-8") as source:
            first = json.loads(source.readline(_MAX_RECORD))
    except ValueError:
        return True
    return not isinstance(first, dict) or cast("Json", first).get("id") != run_id


@dataclass
class _Export:
    """What was received of a run."""

    records: int = 0
    unreadable: list[str] = field(default_factory=list[str])
    """Keys of rows that the service could not read, and names."""
    has_ended: bool = False


def _write_records(target: TextIO, client: ApiClient, run_id: str) -> _Export:
    """Write a record a line."""
    export = _Export()
    for record in client.pages("runs", run_id, "evidence", key="records", unreadable=export.unreadable):
        target.write(json.dumps(record, ensure_ascii=False) + "\n")
        export.records += 1
        if record.get("record") == "run":
            export.has_ended = record.get("state") in FINAL_STATES
    return export


@command(runs, "watch")
def watch_run(service: Service, choice: RunChoice, interval: IntervalOption = 2.0) -> None:
    """Follow a run until it ends; Ctrl-C stops watching, not the run.

    Exits with 1 when the run failed, was cancelled, or left machines that need a person.
    """
    follow(service, choice.find(service.client), interval)


@command(runs, "machines")
def machines(
    service: Service,
    choice: RunChoice,
    machine: Annotated[
        str, typer.Argument(metavar="[MACHINE]", help="Name, ARM id or key of one machine: shows its patches.")
    ] = "",
    outcome: Annotated[
        list[str] | None, typer.Option("--outcome", help="Only machines with this outcome; repeatable.")
    ] = None,
    attention: Annotated[bool, typer.Option("--attention", help="Only machines that need a person.")] = False,
    limit: LimitOption = None,
) -> None:
    """List the machines of a run, or show one of them with every patch."""
    run_id = choice.find(service.client)
    if machine:
        key = machine_key(service.client, run_id, machine)
        service.show(service.client.get("runs", run_id, "machines", key), machine_facts)
        return
    rows: list[Json] = []
    for wanted in [*(outcome or []), *(NEEDS_PERSON if attention else ())] or [""]:
        rows += service.client.machines(run_id, wanted, None if limit is None else limit - len(rows))
    rows.sort(key=by_name)
    service.show(rows, machines_table)


def follow(service: Service, run_id: str, interval: float) -> None:
    """Watch a run and end the command as the run ended."""
    try:
        final = watch(service.client, run_id, open_console(errors=service.prints_json), interval)
    except KeyboardInterrupt:
        open_console(errors=True).print(f"The run goes on; watch it again with: patchwave run watch {run_id}")
        raise typer.Exit(ExitCode.INTERRUPTED) from None
    if service.prints_json:
        print_json(final)
    raise typer.Exit(exit_code_of(final))


def created(run: Json) -> datetime:
    """When a run was created. Its id may name an earlier moment, such as the start of its window."""
    return instant(run.get("createdAt")) or datetime.min.replace(tzinfo=UTC)


def _latest(newest_ids_first: Iterable[Json], policy: str, wanted: Wanted) -> Json | None:
    best: tuple[bool, bool, datetime] | None = None
    chosen: Json | None = None
    for run in newest_ids_first:
        if best and best[:2] == (True, True) and _cannot_be_newer(run, best[2]):
            return chosen
        if not _is_of(run, policy):
            continue
        rank = (not part(run, "trigger").get("retryOf"), wanted.fits(run), created(run))
        if best is None or rank > best:
            best, chosen = rank, run
    return chosen


def _cannot_be_newer(run: Json, than: datetime) -> bool:
    """Whether neither this run nor one with an older id was created after a moment."""
    try:
        return RunId.parse(str(run.get("id"))).at + _MAX_DELAY < than
    except ValueError:
        return False


def _is_of(run: Json, policy: str) -> bool:
    return not policy or run.get("policy") == policy


def machine_key(client: ApiClient, run_id: str, machine: str) -> str:
    """The key of a machine that a person named by key, by ARM id or by its name alone."""
    if _MACHINE_KEY.fullmatch(machine):
        return machine
    by = "id" if machine.startswith("/") else "name"
    found = [row for row in client.machines(run_id) if fold(str(row.get(by, ""))) == fold(machine)]
    if not found:
        raise NotFoundError(f"The run has no machine {machine}")
    if len(found) > 1:
        listed = ", ".join(str(row["id"]) for row in found)
        raise RefusedError(f"The run has {len(found)} machines named {machine}; give the id of one: {listed}")
    return str(found[0]["key"])
