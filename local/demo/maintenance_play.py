"""Plays `patchwave demo-maintenance`: a schedule of Update Manager, a maintenance run, and the doctor."""

from __future__ import annotations

import contextlib
import io
import json
import os
import pty
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rich.console import Console

from local.demo.maintenance_scenario import (
    BY_NAME,
    COPY,
    EXCLUDED,
    EXPECTED,
    FOLDER,
    LEAD,
    LEGACY,
    POLICY,
    RETIRED,
    ROOT,
    SHOP,
    TWICE,
    WEEKLY,
    Fix,
    Report,
    SimulatorView,
    policy,
    stack_options,
)
from local.stack import Stack
from patchwave.cli.client import ApiClient
from patchwave.cli.errors import CommandError, Detail, ExitCode
from patchwave.cli.json_fields import Json, items, part
from patchwave.cli.local.serve_command import running_stack
from patchwave.cli.options import configuration_path
from patchwave.cli.output import open_console, plain
from patchwave.cli.runs.views import FINAL_STATES

_RUNS = ("maintenance", "runs")
_LOOK_SECONDS = 0.3
_TIMEOUT_SECONDS = 90.0
_SHOWN_SECONDS = 15.0
"""How long Resource Graph may take to show what was changed."""
_FIX_SECONDS = 90.0
_AT_ONCE = 3


def play() -> None:
    """All of it, on a stack of its own.

    Raises:
        CommandError: a command ended otherwise than expected, or the report shows a violation.
    """
    console = open_console()
    shutil.rmtree(FOLDER, ignore_errors=True)
    report, began = Report(), time.monotonic()
    with running_stack(stack_options(), console) as stack, ApiClient(stack.url) as client:
        try:
            _Scene(stack, client, console, report).play()
        finally:
            report.write(FOLDER / "report.json")
    broken = report.violations()
    if broken:
        details = tuple(Detail("", sentence) for sentence in broken)
        raise CommandError("The demonstration violated Patchwave's guarantees", ExitCode.NEEDS_PERSON, details)
    patched = sum(bool(row.get("installation")) for row in report.machines)
    console.print(
        f"\n{len(report.machines)} machines were prepared, {patched} patched by their schedule, and all left as they"
        f" were; {len(report.findings_before)} findings were mended by the commands that they name. All of it took"
        f" {time.monotonic() - began:.0f} seconds. Report: {(FOLDER / 'report.json').relative_to(ROOT)}",
        soft_wrap=True,
    )


class _Scene:
    """The parts of the demonstration, in order; each fills its part of the report."""

    def __init__(self, stack: Stack, client: ApiClient, console: Console, report: Report) -> None:
        self._client = client
        self._console = console
        self._report = report
        self._simulator: SimulatorView = SimulatorView(stack)
        self._run_id = ""
        """The run around the scheduled one."""
        self._environment = os.environ | {
            "PATCHWAVE_URL": stack.url,
            "PATCHWAVE_KEY": "",
            "PATH": os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")]),
            "COLUMNS": str(console.width),
        }

    def play(self) -> None:
        """All of it."""
        self._schedule()
        self._prepare()
        self._maintain()
        self._neglect()
        self._examine()

    # --- the schedule

    def _schedule(self) -> None:
        self._title("A schedule of Update Manager, and the machines that have it")
        self._report.power["before"] = self._simulator.power()
        tomorrow = self._simulator.calendar() + LEAD * 24
        self._create(WEEKLY, f"{tomorrow:%Y-%m-%d %H:%M}", "--exclude-package", "linux-image-*")
        for machine in BY_NAME:
            self._run("maintenance", "assign", WEEKLY, machine)
        self._run("maintenance", "assign", WEEKLY, SHOP, "--tag", "patch=weekly", "--location", "westeurope")
        self._say("Two machines have it by name, four by their tag. What Patchwave does around its runs is a policy:")
        file = FOLDER / f"{POLICY}.yaml"
        file.write_text(json.dumps(policy(), indent=2) + "\n", encoding="utf-8")
        self._console.print(file.read_text(encoding="utf-8"), end="")
        self._run("policy", "apply", "-f", str(file))
        start = self._simulator.calendar() + LEAD
        self._run(
            *("maintenance", "configuration", "change", WEEKLY),
            *("--set", f"properties.maintenanceWindow.startDateTime={start:%Y-%m-%d %H:%M}"),
            quiet=True,
        )
        self._run("maintenance", "configuration", "runs", WEEKLY, "-n", "2")
        self._run("fleet", "modes")

    def _create(self, name: str, start: str, *more: str, quiet: bool = False) -> None:
        chosen = [word for system in ("--windows", "--linux") for each in _CLASSES for word in (system, each)]
        self._run(
            *("maintenance", "configuration", "create", name, "--location", "westeurope", "--start", start),
            *("--time-zone", "UTC", "--recur-every", "Week", "--duration", "02:00", *chosen, *more),
            quiet=quiet,
        )

    # --- before, during and after the run

    def _prepare(self) -> None:
        self._title("Forty minutes before the start: the pre event, and the work before")
        found = self._until("the pre event", lambda: next(self._client.pages(*_RUNS, key="runs", limit=1), None))
        self._run_id = str(found["runId"])
        self._say("The pre event came, and was answered at once. A run of the policy does the work before:")
        self._until("the end of the work before", lambda: self._occurrence().get("preparedAt"))
        self._run("maintenance", "runs", "show", self._run_id)
        rows = list(self._client.machines(self._run_id))
        started = ", ".join(plain(row["name"]) for row in rows if row.get("poweredOn"))
        scripted = sum(bool(row.get("preScriptOutput")) for row in rows)
        self._say(
            f"{started or 'No machine'} was stopped and runs now; on {scripted} machines the script of the policy ran."
        )

    def _maintain(self) -> None:
        self._title("The scheduled run, and the work after")
        run_id, report = self._run_id, self._report
        self._until("the scheduled run", lambda: (self._simulator.occurrence() or {}).get("status") == "InProgress")
        report.power["during"] = self._simulator.power()
        self._say("Update Manager patches. Patchwave waits for the post event.")
        self._until("the post event", lambda: self._occurrence().get("postEventAt"))
        self._say("The post event came. Patchwave copies the results, assesses, and puts the power back.")
        report.run = self._until("the end of the run", self._ended)
        report.machines = list(self._client.machines(run_id))
        for row in report.machines:
            report.patches[str(row["id"])] = items(
                self._client.get("runs", run_id, "machines", str(row["key"])), "patches"
            )
        report.occurrence, report.deliveries = self._simulator.occurrence() or {}, self._simulator.deliveries()
        report.power["after"] = self._simulator.power()
        self._run("maintenance", "runs", "show", run_id)
        for row in (row for row in report.machines if row.get("poweredOn")):
            self._say(
                f"{row['name']} was started, is {row['outcome']}, and is {report.power['after'][row['id']]} again."
            )
        self._say("Update Manager called one machine done that is not. This is what became of its patches:")
        self._run("run", "machines", run_id, EXCLUDED.rpartition("/")[2])

    # --- the doctor

    def _neglect(self) -> None:
        """What happens to fleets over the years, in a few seconds."""
        self._title("A neglected fleet")
        window = part(
            part(part(self._client.get(*configuration_path(WEEKLY)), "configuration"), "properties"),
            "maintenanceWindow",
        )
        start = str(window["startDateTime"])[:16]
        self._say(
            "A copy of the schedule for one machine, a schedule that is deleted under its machine, and an old one:"
        )
        self._create(COPY, start, quiet=True)
        self._run("maintenance", "assign", COPY, TWICE)
        self._create(RETIRED, start, quiet=True)
        self._run("maintenance", "assign", RETIRED, TWICE)
        self._run("maintenance", "configuration", "delete", RETIRED)
        self._create(LEGACY, start, quiet=True)
        self._simulator.take_patch_mode(LEGACY)

    def _examine(self) -> None:
        self._title("The doctor, before")
        wanted = {(kind, subject.lower()) for kind, subject in EXPECTED}
        report = self._report
        report.findings_before = self._findings(lambda found: wanted <= _names(found))
        self._run("doctor", code=ExitCode.NEEDS_PERSON)
        self._title("The commands that it names")
        by_subject: dict[str, list[str]] = {}
        for finding in report.findings_before:
            by_subject.setdefault(str(finding["subject"]).lower(), []).append(str(finding["fix"]))
        # Commands about one thing in the order in which the doctor names them, those about different ones at once.
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            for fixes in pool.map(self._mend, by_subject.values()):
                for fix in fixes:
                    self._console.print(f"$ {fix.command}", soft_wrap=True, style="cyan")
                    self._console.print(fix.output.rstrip(), soft_wrap=True)
                report.fixes += fixes
        self._title("The doctor, after")
        report.findings_after = self._findings(lambda found: not found)
        self._run("doctor", code=ExitCode.NEEDS_PERSON if report.findings_after else ExitCode.OK)

    def _findings(self, is_complete: Callable[[list[Json]], bool]) -> list[Json]:
        """What the doctor finds, once Resource Graph shows all of it."""
        until = time.monotonic() + _SHOWN_SECONDS
        while True:
            found = items(self._client.get("fleet", "doctor", slow=True), "findings")
            if is_complete(found) or time.monotonic() > until:
                return found
            time.sleep(_LOOK_SECONDS)

    def _mend(self, commands: list[str]) -> list[Fix]:
        return [self._fix(command) for command in commands]

    def _fix(self, command: str) -> Fix:
        """Run a command as a person does: at a terminal, with a yes to what it asks."""
        person, terminal = pty.openpty()
        os.write(person, b"y\n")
        try:
            ended = subprocess.run(
                ["/bin/sh", "-c", command],
                env=self._environment,
                stdin=terminal,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=_FIX_SECONDS,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return Fix(command, ExitCode.UNREACHABLE, f"It did not end within {_FIX_SECONDS:.0f} seconds.")
        finally:
            os.close(person)
            os.close(terminal)
        return Fix(command, ended.returncode, ended.stdout)

    # --- shared

    def _run(self, *arguments: str, code: int = 0, quiet: bool = False) -> None:
        """A command of the product, as a person would type it, with what it prints unless it is to be quiet.

        Raises:
            CommandError: it ended otherwise than expected.
        """
        from patchwave.cli.app import run

        self._console.print(f"$ {shlex.join(['patchwave', *arguments])}", soft_wrap=True, style="cyan")
        before = {name: os.environ.get(name) for name in _ADDRESS}
        os.environ.update({name: self._environment[name] for name in _ADDRESS})
        try:
            with contextlib.redirect_stdout(io.StringIO()) if quiet else contextlib.nullcontext():
                ended = run(list(arguments))
        finally:
            for name, value in before.items():
                os.environ.pop(name) if value is None else os.environ.update({name: value})
        if ended != code:
            raise CommandError(f"It ended with exit code {ended}, not {code}", ExitCode.NEEDS_PERSON)

    def _title(self, text: str) -> None:
        self._console.print(f"\n{text}\n", style="bold")

    def _say(self, text: str) -> None:
        self._console.print(text, soft_wrap=True)

    def _occurrence(self) -> Json:
        return part(self._client.get(*_RUNS, self._run_id), "occurrence")

    def _ended(self) -> Json | None:
        run = self._client.get(*_RUNS, self._run_id)
        return run if run.get("state") in FINAL_STATES else None

    def _until[Found](self, what: str, look: Callable[[], Found | None]) -> Found:
        until = time.monotonic() + _TIMEOUT_SECONDS
        while not (found := look()):
            if time.monotonic() > until:
                raise CommandError(f"Waited {_TIMEOUT_SECONDS:.0f} seconds for {what}", ExitCode.NEEDS_PERSON)
            time.sleep(_LOOK_SECONDS)
        return found


_CLASSES = ("Critical", "Security")
_ADDRESS = ("PATCHWAVE_URL", "PATCHWAVE_KEY")


def _names(findings: list[Json]) -> set[tuple[str, str]]:
    return {(str(each["kind"]), str(each["subject"]).lower()) for each in findings}
