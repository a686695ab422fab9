"""Maintenance configurations, their runs and their assignments, as tables. Pure functions of documents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from rich.console import Group, RenderableType
from rich.text import Text

from patchwave.cli.json_fields import Json, items, part
from patchwave.cli.output import plain
from patchwave.cli.rendering import in_words, moment, new_grid, new_table


def configurations_table(views: Iterable[Json]) -> RenderableType:
    """One line per configuration."""
    table = new_table("configuration", "group", "recurs", "window", "next run (UTC)", "notes")
    for view in views:
        found = part(view, "configuration")
        window = part(part(found, "properties"), "maintenanceWindow")
        table.add_row(
            Text(plain(found.get("name", ""))),
            Text(_group(found.get("id"))),
            Text(plain(window.get("recurEvery", ""))),
            Text(_window(window)),
            _next_run(view),
            _notes(view),
        )
    return table


def configuration_view(view: Json) -> RenderableType:
    """All that one configuration says."""
    found = part(view, "configuration")
    properties = part(found, "properties")
    window, patches = part(properties, "maintenanceWindow"), part(properties, "installPatches")
    expiration = f", until {plain(window['expirationDateTime'])}" if window.get("expirationDateTime") else ""
    facts = {
        "id": found.get("id"),
        "location": found.get("location"),
        "tags": found.get("tags"),
        "recurs": f"{plain(window.get('recurEvery', ''))} from {plain(window.get('startDateTime', ''))}{expiration}",
        "window": _window(window),
        "next run": _next_run(view) or "none",
        "cancel until": ""
        if part(view, "nextRun").get("canceled")
        else moment(part(view, "nextRun").get("cancelDeadline")),
        "restarts": patches.get("rebootSetting"),
        "Windows": patches.get("windowsParameters"),
        "Linux": patches.get("linuxParameters"),
        "visibility": properties.get("visibility"),
        "patch mode": part(properties, "extensionProperties").get("InGuestPatchMode"),
    }
    grid = new_grid()
    for label, value in facts.items():
        if said := in_words(value):
            grid.add_row(label, Text(said))
    return Group(Text(plain(found.get("name", "")), style="bold"), grid, _notes(view))


def runs_view(found: Json) -> RenderableType:
    """One line per coming run."""
    table = new_table("run", "starts (UTC)", "ends", "cancel until")
    for run in items(found, "runs"):
        table.add_row(
            plain(run.get("run", "")),
            moment(run.get("startsAt")),
            moment(run.get("endsAt")),
            "cancelled" if run.get("canceled") else moment(run.get("cancelDeadline")),
        )
    return Group(table, _notes(found))


def canceled_line(name: str, found: Json) -> str:
    """What was cancelled, or that it was cancelled before."""
    starts = moment(part(found, "run").get("startsAt"))
    if found.get("already"):
        return (
            f"the run of {name} that would start at {starts} was cancelled already; name a later one with --run to"
            " cancel that"
        )
    return f"the run of {name} that would start at {starts} is cancelled"


def assignments_table(found: Json) -> RenderableType:
    """One line per assignment."""
    table = new_table("configuration", "assigned to", "filter", "next run (UTC)", "assignment", "notes")
    for each in items(found, "assignments"):
        assignment = part(each, "assignment")
        table.add_row(
            Text(_last(assignment.get("maintenanceConfigurationId"))),
            Text(_last(assignment.get("resourceId"))),
            Text(_filter(each, part(assignment, "filter")), overflow="fold"),
            moment(each.get("nextRun")),
            Text(plain(assignment.get("name", ""))),
            _notes(each),
        )
    return Group(table, _notes(found))


def assigned_line(found: Json) -> str:
    """What was assigned, in one line."""
    assignment = part(found, "assignment")
    next_run = moment(found.get("nextRun")) or "never"
    matching = found.get("matching")
    machines = f" {matching:,} machine{'' if matching == 1 else 's'} now;" if isinstance(matching, int) else ""
    return (
        f"{_last(assignment.get('resourceId'))} has {_last(assignment.get('maintenanceConfigurationId'))}"
        f" (assignment {plain(assignment.get('name', ''))});{machines} next run {next_run}"
    )


def removed_lines(found: Json) -> str:
    """What was removed, and by what the machine still has the configuration."""
    lines = [f"removed {plain(each)}" for each in cast("list[str]", found.get("removed") or [])] or ["nothing removed"]
    lines += [
        f"still assigned by the dynamic scope {plain(each.get('id', ''))}: change its filter, or the machine's tags"
        for each in items(found, "stillAssigned")
    ]
    return "\n".join(lines)


def _notes(document: Json) -> Text:
    return Text(plain(" ".join(cast("list[str]", document.get("notes") or []))), style="yellow", overflow="fold")


def _next_run(view: Json) -> str:
    run = part(view, "nextRun")
    return moment(run.get("startsAt")) + (" (cancelled)" if run.get("canceled") else "")


def _window(window: Json) -> str:
    return plain(f"{window.get('duration', '')} {window.get('timeZone', '')}".strip())


def _group(identity: object) -> str:
    parts = str(identity).split("/")
    return plain(parts[4]) if len(parts) > 4 else ""


def _last(identity: object) -> str:
    return plain(str(identity).rpartition("/")[2])


def _filter(each: Json, criteria: Json) -> str:
    if not each.get("dynamic"):
        return ""
    return in_words({name: value for name, value in criteria.items() if value}) or "all machines"
