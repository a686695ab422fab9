"""What is shown of patch modes: a fleet, who is not eligible, and changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from rich.console import Group, RenderableType
from rich.text import Text

from patchwave.cli.json_fields import Json, by_name, items, part
from patchwave.cli.output import plain
from patchwave.cli.rendering import (
    FirstThatFits,
    command_line,
    entry,
    facts_in_words,
    in_words,
    moment,
    new_grid,
    new_table,
    number_of,
)

_STYLES = {
    "none": "bold red",
    "unknown": "yellow",
    "changed": "green",
    "unchanged": "bright_black",
    "refused": "yellow",
    "skipped": "yellow",
    "failed": "bold red",
}


def modes_view(found: Json) -> RenderableType:
    """One line for each machine, or a few where it does not fit, and the fleet in numbers."""
    table = new_table("machine", "system", "patch mode", "assessment", "bypass", "agent", "image", "patched by", "why")
    narrow: list[RenderableType] = []
    for machine in sorted(items(found, "machines"), key=by_name):
        settings = part(machine, "settings")
        name = Text(plain(machine.get("name", "")))
        system = Text(plain(machine.get("osType", "")))
        mode = Text(plain(settings.get("patchMode") or "?"))
        assessment = Text(plain(settings.get("assessmentMode") or "?"))
        bypass = in_words(settings.get("bypass"))
        agent = Text(plain(machine.get("agentVersion") or "?"))
        image = Text(plain(_image(machine)), overflow="fold")
        patched_by = _word(machine.get("patchedBy"))
        why = Text(plain(machine.get("sentence", "")), overflow="fold")
        table.add_row(name, system, mode, assessment, bypass, agent, image, patched_by, why)
        facts = Text(f"{mode}, assessment {assessment}, bypass {bypass or '?'}, agent {agent}")
        narrow.append(entry([name, system, patched_by], [facts], [image], [why]))
    counts = part(found, "counts")
    summary = Text(f"{number_of(counts.get('machines', 0), 'machine')}: {facts_in_words(part(counts, 'byPatcher'))}")
    if counts.get("mistakes"):
        summary.append(f"; on {counts['mistakes']} of them a schedule fails", style="bold red")
    notes = [Text(plain(note), style="yellow") for note in cast("list[object]", found.get("notes") or [])]
    return Group(FirstThatFits(table, Group(*narrow), prose=["image", "why"]), Text(), summary, *notes)


def eligibility_view(found: Json) -> RenderableType:
    """Who is not eligible and why."""
    table = new_table("machine", "system", "image", "agent", "why not")
    for machine in sorted(items(found, "ineligible"), key=by_name):
        sentences = [plain(each.get("sentence", "")) for each in items(part(machine, "eligibility"), "obstacles")]
        table.add_row(
            Text(plain(machine.get("name", ""))),
            Text(plain(machine.get("osType", ""))),
            Text(plain(_image(machine)), overflow="fold"),
            Text(plain(machine.get("agentVersion") or "?")),
            Text(" ".join(sentences), overflow="fold"),
        )
    line = (
        f"{found.get('eligible', 0)} of {found.get('machines', 0)} machines are eligible, by the table of images as"
        f" read on {plain(found.get('tableReadOn', ''))}"
    )
    unknown = found.get("unknown")
    more = f"; of {unknown} of them Azure does not tell everything" if unknown else ""
    return Group(table, Text(), Text(line + more))


def change_view(change: Json, machines: Iterable[Json] = ()) -> RenderableType:
    """A change, and its machines where there are any."""
    grid = new_grid()
    grid.add_row("change", Text(plain(change.get("id", ""))))
    grid.add_row(
        "state", Text(" ".join(filter(None, (plain(change.get("state", "")), plain(change.get("message", ""))))))
    )
    grid.add_row("sets", Text(facts_in_words(part(change, "wanted"))))
    grid.add_row("machines", Text(f"{change.get('machines', 0)}, {change.get('toChange', 0)} to change"))
    grid.add_row("ended", Text(facts_in_words(part(change, "countsByEnd")) or "none"))
    for what in ("planned", "started", "stopped"):
        if command := part(change, what):
            grid.add_row(what, command_line("", command))
    table = new_table("machine", "system", "before", "end", "why")
    for machine in sorted(machines, key=by_name):
        before = part(machine, "before")
        table.add_row(
            Text(plain(machine.get("name", ""))),
            Text(plain(machine.get("osType", ""))),
            Text(plain(before.get("patchMode") or "?") + (", bypass" if before.get("bypass") else "")),
            _word(machine.get("end") or "to change"),
            Text(plain(machine.get("message") or machine.get("note") or ""), overflow="fold"),
        )
    return Group(grid, Text(), table) if table.rows else grid


def changes_table(changes: Iterable[Json]) -> RenderableType:
    """One line for each change."""
    table = new_table("change", "state", "planned", "actor", "machines", "ended", right=["machines"])
    for change in changes:
        planned = part(change, "planned")
        table.add_row(
            Text(plain(change.get("id", ""))),
            Text(plain(change.get("state", ""))),
            moment(planned.get("at")),
            Text(plain(planned.get("actor", ""))),
            str(change.get("machines", 0)),
            Text(facts_in_words(part(change, "countsByEnd"))),
        )
    return table


def _image(machine: Json) -> str:
    """A marketplace image without its version, or the name of a custom one."""
    image = str(machine.get("image") or "?")
    return image.rpartition("/")[2] if image.startswith("/") else ":".join(image.split(":")[:3])


def _word(word: object) -> Text:
    text = plain(word or "")
    return Text(text.replace("_", " "), style=_STYLES.get(text, ""))
