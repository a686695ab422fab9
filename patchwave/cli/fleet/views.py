"""What is shown of patch modes: a fleet, who is not eligible, and changes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import cast

from rich.console import Group, RenderableType
from rich.text import Text

from patchwave.cli.json_fields import Json, by_name, items, part
from patchwave.cli.output import plain
from patchwave.cli.rendering import Cell, Listing, command_line, facts_grid, facts_in_words, in_words, moment, number_of

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
    columns: dict[str, Cell] = {
        "machine": "name",
        "system": "osType",
        "patch mode": lambda machine: part(machine, "settings").get("patchMode") or "?",
        "assessment": lambda machine: part(machine, "settings").get("assessmentMode") or "?",
        "bypass": lambda machine: in_words(part(machine, "settings").get("bypass")) or "?",
        "agent": _agent,
        "image": _image,
        "patched by": lambda machine: _word(machine.get("patchedBy")),
        "why": "sentence",
    }
    counts = part(found, "counts")
    summary = Text(f"{number_of(counts.get('machines', 0), 'machine')}: {facts_in_words(part(counts, 'byPatcher'))}")
    if counts.get("mistakes"):
        summary.append(f"; on {counts['mistakes']} of them a schedule fails", style="bold red")
    notes = [Text(plain(note), style="yellow") for note in cast("list[object]", found.get("notes") or [])]
    machines = sorted(items(found, "machines"), key=by_name)
    listing = Listing(machines, columns, title=["machine", "system", "patched by"], prose=["image", "why"])
    return Group(listing, Text(), summary, *notes)


def eligibility_view(found: Json) -> RenderableType:
    """Which machines are not eligible and why, and those whose image is not in the table."""
    columns: dict[str, Cell] = {
        "machine": "name",
        "system": "osType",
        "image": _image,
        "agent": _agent,
        "is taken": _verdict,
        "why": _obstacles,
    }
    line = (
        f"{found.get('eligible', 0)} of {found.get('machines', 0)} machines are eligible, by the table of images of"
        f" {plain(found.get('tableReadOn', ''))}"
    )
    unknown = found.get("unknown")
    more = f"; of {unknown} of them not everything is known" if unknown else ""
    machines = [*sorted(items(found, "ineligible"), key=by_name), *sorted(items(found, "unlisted"), key=by_name)]
    return Group(Listing(machines, columns, prose=["image", "why"]), Text(), Text(line + more))


def change_view(change: Json, machines: Iterable[Json] = ()) -> RenderableType:
    """A change, and its machines where there are any."""
    facts: dict[str, object] = {
        "change": change.get("id"),
        "state": f"{change.get('state', '')} {change.get('message', '')}".strip(),
        "sets": part(change, "wanted"),
        "machines": f"{change.get('machines', 0)}, {change.get('toChange', 0)} to change",
        "ended": facts_in_words(part(change, "countsByEnd")) or "none",
    }
    facts |= {
        what: command_line("", command) for what in ("planned", "started", "stopped") if (command := part(change, what))
    }
    columns: dict[str, Cell] = {
        "machine": "name",
        "system": "osType",
        "before": _before,
        "end": lambda machine: _word(machine.get("end") or "to change"),
        "why": lambda machine: machine.get("message") or machine.get("note"),
    }
    grid, listed = facts_grid(facts), sorted(machines, key=by_name)
    return Group(grid, Text(), Listing(listed, columns, title=["machine", "end"], prose=["why"])) if listed else grid


def changes_table(changes: Iterable[Json]) -> RenderableType:
    """One line for each change."""
    columns: dict[str, Cell] = {
        "change": "id",
        "state": "state",
        "planned": lambda change: moment(part(change, "planned").get("at")),
        "actor": lambda change: part(change, "planned").get("actor"),
        "machines": "machines",
        "ended": "countsByEnd",
    }
    return Listing(changes, columns, right=["machines"])


def stuck_view(found: Json) -> RenderableType:
    """One line for each machine that needs a person, or a few where it does not fit."""
    columns: dict[str, Cell] = {
        "machine": "name",
        "group": "resourceGroup",
        "windows": lambda machine: part(machine, "lastWindow").get("failedWindows"),
        "since": lambda machine: moment(part(machine, "lastWindow").get("since")),
        "reason": lambda machine: part(machine, "lastWindow").get("reason"),
        "left out": "isLeftOut",
        "error": lambda machine: part(machine, "lastWindow").get("error"),
        "newest outcome": lambda machine: f"{_word(machine.get('outcome'))}: {machine.get('message', '')}",
    }
    machines = items(found, "machines")
    if not machines:
        return Text("No machine needs a person after its last windows.")
    return Listing(machines, columns, right=["windows"], prose=["error", "newest outcome"])


def reset_view(known: Json) -> RenderableType:
    """What was known of a machine that was reset."""
    facts = {"forgotten": number_of(known.get("failedWindows", 0), "failed window"), "last": known.get("reason")}
    return facts_grid(facts | {"in run": known.get("runId")})


def _agent(machine: Json) -> object:
    return machine.get("agentVersion") or "?"


def _before(machine: Json) -> str:
    before = part(machine, "before")
    return f"{before.get('patchMode') or '?'}{', bypass' if before.get('bypass') else ''}"


def _obstacles(machine: Json) -> str:
    """What keeps a machine from guest patching, and how an image was judged that the table lacks."""
    eligibility = part(machine, "eligibility")
    said = [str(each.get("sentence", "")) for each in items(eligibility, "obstacles")]
    return " ".join([*said, str(eligibility.get("imageNote") or "")]).strip()


def _verdict(machine: Json) -> Text:
    """Whether guest patching takes a machine: an image that the table lacks is unknown, unless Azure's answers tell."""
    eligibility = part(machine, "eligibility")
    if items(eligibility, "obstacles"):
        return Text("no", style="bold red")
    return _word("unknown") if eligibility.get("imageSupport") == "unknown" else Text("yes")


def _image(machine: Json) -> str:
    """A marketplace image without its version, or the name of a custom one."""
    image = str(machine.get("image") or "?")
    return image.rpartition("/")[2] if image.startswith("/") else ":".join(image.split(":")[:3])


def _word(word: object) -> Text:
    text = plain(word or "")
    return Text(text.replace("_", " "), style=_STYLES.get(text, ""))
