"""``patchwave doctor``: what silently goes wrong in the fleet, and the commands that mend it."""

from __future__ import annotations

from typing import Annotated, cast

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from cli.documents import Json, items, part
from cli.errors import ExitCode
from cli.tables import moment, new_table
from cli.terminal import DEFAULT_URL, KeyOption, OutputFormat, OutputOption, UrlOption, open_client, plain, show

MOST_SHOWN = 20
"""Findings of one kind in the table form; the rest is counted, and in the JSON."""


def doctor(
    kinds: Annotated[
        list[str] | None, typer.Option("--kind", help="Only findings of this kind, such as same_start; repeatable.")
    ] = None,
    subject: Annotated[
        str, typer.Option("--subject", help="Only of machines and configurations whose id holds this text.")
    ] = "",
    stale_days: Annotated[
        int, typer.Option("--stale-days", min=1, max=365, help="Assessments older than so many days are stale.")
    ] = 7,
    output: OutputOption = OutputFormat.TABLE,
    url: UrlOption = DEFAULT_URL,
    key: KeyOption = "",
) -> None:
    """Find machines that nobody patches or two do, schedules that do nothing, and what is stale; with the fix of each.

    Exits with 1 when there are findings.
    """
    with open_client(url, key) as client:
        report = client.doctor(kinds or [], subject, stale_days)
    show(output, report, lambda: doctor_view(report))
    if items(report, "findings"):
        raise typer.Exit(ExitCode.NEEDS_PERSON)


def doctor_view(report: Json) -> RenderableType:
    """Kind by kind: each finding with its evidence, and under it the command that mends it."""
    findings = items(report, "findings")
    parts: list[RenderableType] = [_summary(report)]
    for kind in dict.fromkeys(str(finding.get("kind", "")) for finding in findings):
        of_kind = [finding for finding in findings if finding.get("kind") == kind]
        count = part(report, "findingsByKind").get(kind, len(of_kind))
        parts += [Text(), Text(f"{plain(kind).replace('_', ' ')} ({count})", style="bold yellow"), _table(of_kind)]
    parts += [Text(plain(note), style="yellow") for note in cast("list[object]", report.get("notes") or [])]
    return Group(*parts)


def _summary(report: Json) -> Text:
    counts = cast("dict[str, int]", part(report, "findingsByKind"))
    looked = f"{_count(report.get('machines', 0), 'machine')}, {_count(report.get('configurations', 0), 'schedule')}"
    line = Text(f"{moment(report.get('at'))}  {plain(looked)}: ")
    if not counts:
        return line.append("nothing is wrong", style="green")
    return line.append(_count(sum(counts.values()), "finding"), style="yellow")


def _count(number: object, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def _table(findings: list[Json]) -> RenderableType:
    table = new_table("what", "evidence and fix")
    for finding in findings[:MOST_SHOWN]:
        evidence = Text(plain(finding.get("evidence", "")), overflow="fold")
        # In one piece, so that it can be copied.
        fix = Text(plain(finding.get("fix", "")), style="cyan", overflow="fold")
        table.add_row(Text(_name(finding), overflow="fold"), Group(evidence, fix))
    if len(findings) > MOST_SHOWN:
        table.add_row(Text(f"and {len(findings) - MOST_SHOWN} more", style="bright_black"))
    return table


def _name(finding: Json) -> str:
    return plain(finding.get("subject", "")).rpartition("/")[2]
