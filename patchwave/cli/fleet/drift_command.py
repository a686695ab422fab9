"""``patchwave doctor``: what silently goes wrong in the fleet, and the commands that mend it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Annotated, cast

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from patchwave.cli.errors import ExitCode
from patchwave.cli.json_fields import Json, items, part
from patchwave.cli.output import plain
from patchwave.cli.rendering import moment, number_of
from patchwave.cli.service import Service, command

drift = typer.Typer(add_completion=False)

MAX_SHOWN = 20
"""Findings of one kind in the form for people, unless all are asked for; the rest is counted, and in the JSON."""


@command(drift, "doctor")
def doctor(
    service: Service,
    kinds: Annotated[
        list[str] | None, typer.Option("--kind", help="Only findings of this kind, such as same_start; repeatable.")
    ] = None,
    subject: Annotated[
        str, typer.Option("--subject", help="Only of machines and configurations whose id holds this text.")
    ] = "",
    stale_days: Annotated[
        int, typer.Option("--stale-days", min=1, max=365, help="Assessments older than so many days are stale.")
    ] = 7,
    whole: Annotated[
        bool, typer.Option("--all", help=f"Show every finding, not only the first {MAX_SHOWN} of a kind.")
    ] = False,
) -> None:
    """Find machines with no patcher or several, schedules without effect, and stale settings; with the fix of each.

    Exits with 1 when there are findings.
    """
    asked = {"kind": ",".join(kinds or []), "subject": subject, "staleDays": str(stale_days)}
    report = service.client.get("fleet", "doctor", slow=True, **asked)
    service.show(report, lambda _: doctor_view(report, None if whole else MAX_SHOWN), soft_wrap=True)
    if items(report, "findings"):
        raise typer.Exit(ExitCode.NEEDS_PERSON)


def doctor_view(report: Json, most: int | None = None) -> RenderableType:
    """Kind by kind: each finding with its evidence, and under it the command that mends it; so many of a kind."""
    findings = items(report, "findings")
    parts: list[RenderableType] = [_summary(report)]
    for kind in dict.fromkeys(str(finding.get("kind", "")) for finding in findings):
        of_kind = [finding for finding in findings if finding.get("kind") == kind]
        count = part(report, "findingsByKind").get(kind, len(of_kind))
        parts += [Text(), Text(f"{plain(kind).replace('_', ' ')} ({count})", style="bold yellow")]
        parts += _lines(of_kind[:most])
        if len(of_kind[:most]) < count:
            parts.append(Text(f"and {count - len(of_kind[:most])} more: --all", style="bright_black"))
    parts += [Text(plain(note), style="yellow") for note in cast("list[object]", report.get("notes") or [])]
    return Group(*parts)


def _summary(report: Json) -> Text:
    counts = cast("dict[str, int]", part(report, "findingsByKind"))
    machines, schedules = report.get("machines", 0), report.get("configurations", 0)
    line = Text(f"{moment(report.get('at'))}  {number_of(machines, 'machine')}, {number_of(schedules, 'schedule')}: ")
    if not counts:
        return line.append("nothing is wrong", style="green")
    return line.append(number_of(sum(counts.values()), "finding"), style="yellow")


def _lines(findings: list[Json]) -> Iterator[RenderableType]:
    """Three lines for each finding. A fix is one line however long it is, so that it can be copied and piped."""
    for finding in findings:
        yield Text(plain(finding.get("subject", "")).rpartition("/")[2])
        yield Text(f"  {plain(finding.get('evidence', ''))}")
        yield Text(f"  {plain(finding.get('fix', ''))}", style="cyan")
