"""Maintenance configurations, their runs and their assignments, as tables. Pure functions of documents."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from rich.console import Group, RenderableType
from rich.text import Text

from patchwave.cli.json_fields import Json, items, part
from patchwave.cli.output import plain
from patchwave.cli.rendering import Cell, Listing, facts_grid, in_words, last_of, moment, moment_of, notes_of


def configurations_table(views: Iterable[Json]) -> RenderableType:
    """One line per configuration."""
    columns: dict[str, Cell] = {
        "configuration": "name",
        "group": lambda view: _group(view.get("id")),
        "recurs": lambda view: view["window"].get("recurEvery"),
        "window": lambda view: _window(view["window"]),
        "next run (UTC)": _next_run,
        "notes": notes_of,
    }
    rows = ({**view, **part(view, "configuration"), "window": _window_of(view)} for view in views)
    return Listing(rows, columns, prose=["notes"])


def configuration_view(view: Json) -> RenderableType:
    """All that one configuration says."""
    found = part(view, "configuration")
    properties = part(found, "properties")
    window, patches = _window_of(view), part(properties, "installPatches")
    expiration = f", until {window['expirationDateTime']}" if window.get("expirationDateTime") else ""
    next_run = part(view, "nextRun")
    facts = {
        "id": found.get("id"),
        "location": found.get("location"),
        "tags": found.get("tags"),
        "recurs": f"{window.get('recurEvery', '')} from {window.get('startDateTime', '')}{expiration}",
        "window": _window(window),
        "next run": _next_run(view) or "none",
        "cancel until": "" if next_run.get("canceled") else moment(next_run.get("cancelDeadline")),
        "restarts": patches.get("rebootSetting"),
        "Windows": patches.get("windowsParameters"),
        "Linux": patches.get("linuxParameters"),
        "visibility": properties.get("visibility"),
        "patch mode": part(properties, "extensionProperties").get("InGuestPatchMode"),
    }
    return Group(Text(plain(found.get("name", "")), style="bold"), facts_grid(facts), notes_of(view))


def runs_view(found: Json) -> RenderableType:
    """One line per coming run."""
    columns: dict[str, Cell] = {
        "run": "run",
        "starts (UTC)": moment_of("startsAt"),
        "ends": moment_of("endsAt"),
        "cancel until": lambda run: "cancelled" if run.get("canceled") else moment(run.get("cancelDeadline")),
    }
    return Group(Listing(items(found, "runs"), columns), notes_of(found))


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
    columns: dict[str, Cell] = {
        "configuration": last_of("maintenanceConfigurationId"),
        "assigned to": last_of("resourceId"),
        "filter": _filter,
        "next run (UTC)": moment_of("nextRun"),
        "assignment": "name",
        "notes": notes_of,
    }
    rows = ({**each, **part(each, "assignment")} for each in items(found, "assignments"))
    listing = Listing(rows, columns, title=["configuration", "assigned to"], prose=["filter", "notes"])
    return Group(listing, notes_of(found))


def assigned_line(found: Json) -> str:
    """What was assigned, in one line."""
    assignment = part(found, "assignment")
    matching = found.get("matching")
    machines = f" {matching:,} machine{'' if matching == 1 else 's'} now;" if isinstance(matching, int) else ""
    return plain(
        f"{last_of('resourceId')(assignment)} has {last_of('maintenanceConfigurationId')(assignment)}"
        f" (assignment {assignment.get('name', '')});{machines} next run {moment(found.get('nextRun')) or 'never'}"
    )


def removed_lines(found: Json) -> str:
    """What was removed, and by what the machine still has the configuration."""
    lines = [f"removed {plain(each)}" for each in cast("list[str]", found.get("removed") or [])] or ["nothing removed"]
    lines += [
        f"still assigned by the dynamic scope {plain(each.get('id', ''))}: change its filter, or the machine's tags"
        for each in items(found, "stillAssigned")
    ]
    return "\n".join(lines)


def _next_run(view: Json) -> str:
    run = part(view, "nextRun")
    return moment(run.get("startsAt")) + (" (cancelled)" if run.get("canceled") else "")


def _window_of(view: Json) -> Json:
    return part(part(part(view, "configuration"), "properties"), "maintenanceWindow")


def _window(window: Json) -> str:
    return f"{window.get('duration', '')} {window.get('timeZone', '')}".strip()


def _group(identity: object) -> str:
    parts = str(identity).split("/")
    return parts[4] if len(parts) > 4 else ""


def _filter(assignment: Json) -> str:
    if not assignment.get("dynamic"):
        return ""
    return in_words({name: value for name, value in part(assignment, "filter").items() if value}) or "all machines"
