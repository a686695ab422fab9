"""What is shown of the patch status of a fleet, and of one machine."""

from __future__ import annotations

from typing import cast

from rich.console import Group, RenderableType
from rich.text import Text

from patchwave.cli.json_fields import Json, items, part
from patchwave.cli.output import plain
from patchwave.cli.rendering import (
    Cell,
    Listing,
    facts_grid,
    facts_in_words,
    in_words,
    instant,
    moment,
    notes_of,
    number_of,
)

_STYLES = {
    "Failed": "bold red",
    "CompletedWithWarnings": "yellow",
    "Succeeded": "green",
    "failed": "bold red",
    "blocked": "yellow",
    "in progress": "yellow",
    "unknown": "yellow",
}
_COUNTED = (("installed", "installed"), ("failed", "failed"), ("pending", "pending"))


def status_view(found: Json) -> RenderableType:
    """One machine with all of it where it was read itself, else one line for each, and the fleet in numbers."""
    machines = items(found, "machines")
    if [part(each, "status").get("level") for each in machines] == ["machine"]:
        return Group(_one(machines[0]), notes_of(found))
    columns: dict[str, Cell] = {
        "machine": "name",
        "available": lambda machine: _available(part(part(machine, "status"), "assessment")),
        "assessed": lambda machine: _age(part(part(machine, "status"), "assessment")),
        "last installation": lambda machine: _installed(part(part(machine, "status"), "installation")),
        "reboot": lambda machine: "pending" if part(machine, "status").get("rebootPending") else "",
        "enablement": lambda machine: _word(part(machine, "enablement").get("state")),
        "next": lambda machine: _next(machine),
    }
    table = Listing(machines, columns, title=["machine", "reboot"], prose=["next"])
    parts: list[RenderableType] = [table, Text(), _summary(part(found, "counts"))]
    if found.get("cursor"):
        parts.append(Text(f"and more: the first {len(machines)} are shown", style="bright_black"))
    return Group(*parts, notes_of(found))


def _summary(counts: Json) -> Text:
    line = Text(f"{number_of(cast('int', counts.get('machines', 0)), 'machine')}: ")
    facts = {
        "with critical or security updates": counts.get("pending"),
        "reboot pending": counts.get("rebootPending"),
        "not assessed": counts.get("notAssessed"),
    }
    line.append(", ".join(f"{count or 0} {what}" for what, count in facts.items()))
    line.append(f"; last installations: {facts_in_words(part(counts, 'byResult'))}")
    return line.append(f"; enablement: {_plain(facts_in_words(part(counts, 'byEnablement')))}")


def _one(machine: Json) -> RenderableType:
    """Everything of one machine, with the level that it was read at."""
    status = part(machine, "status")
    assessment, installation = part(status, "assessment"), part(status, "installation")
    settings = part(machine, "settings")
    return facts_grid(
        {
            "machine": machine.get("id"),
            "read from": "the machine's instance view",
            "power": machine.get("powerState"),
            "patch mode": settings.get("patchMode"),
            "assessment mode": settings.get("assessmentMode"),
            "enablement": Text.assemble(
                _word(part(machine, "enablement").get("state")),
                f": {plain(part(machine, 'enablement').get('sentence', ''))}",
            ),
            "extension": _extension(part(status, "extension")),
            "available": _available(assessment) if assessment else "not assessed",
            "assessed": _when(assessment),
            "assessment errors": _errors(assessment),
            "installation": _installed(installation) if installation else "none is known",
            "installed at": _when(installation),
            "installation errors": _errors(installation),
            "reboot pending": "not known" if status.get("rebootPending") is None else status.get("rebootPending"),
            "patched by": _word(machine.get("patchedBy")),
            "next": "\n".join(_coming(each) for each in items(machine, "nextPatching")) or machine.get("sentence"),
        }
    )


def _available(assessment: Json) -> str:
    if not assessment:
        return "?"
    urgent, other = assessment.get("criticalAndSecurity", 0), assessment.get("other", 0)
    return f"{urgent} critical/security, {other} other"


def _age(assessment: Json) -> str:
    hours = assessment.get("ageHours")
    if not isinstance(hours, int | float):
        return ""
    return f"{hours:.0f} h ago" if hours < 48 else f"{hours / 24:.0f} d ago"


def _installed(installation: Json) -> Text:
    """The result, the counts that are not zero, and the day."""
    if not installation:
        return Text()
    status = str(installation.get("resultStatus") or "?")
    counts = ", ".join(f"{installation[key]} {word}" for key, word in _COUNTED if installation.get(key))
    at = instant(installation.get("startedAt"))
    text = Text(plain(status), style=_STYLES.get(status, ""))
    return text.append(f"{': ' if counts else ''}{counts}{f', {at:%Y-%m-%d}' if at else ''}", style="default")


def _when(last: Json) -> str:
    """From when to when, with the result's own status and who started it."""
    if not last:
        return ""
    begin, end = moment(last.get("startedAt")), moment(last.get("endedAt")) or "in progress"
    said = [f"{begin} to {end}", _age(last), f"result {in_words(last.get('resultStatus')) or '?'}"]
    if last.get("startedBy"):
        said.append(f"started by {in_words(last['startedBy'])}")
    return ", ".join(filter(None, said))


def _errors(last: Json) -> str:
    said = ([in_words(each.get("code")), in_words(each.get("message"))] for each in items(last, "errors"))
    return "\n".join(": ".join(filter(None, parts)) for parts in said)


def _extension(extension: Json) -> str:
    if not extension:
        return "not installed"
    return " ".join(filter(None, (in_words(extension.get(key)) for key in ("type", "version", "state"))))


def _next(machine: Json) -> str:
    coming = items(machine, "nextPatching")
    return _coming(coming[0]) if coming else "nothing"


def _coming(each: Json) -> str:
    name = in_words(each.get("name")) or _plain(str(each.get("source", "")))
    return " ".join(filter(None, (name, moment(each.get("at")) or "at a time that Azure does not tell")))


def _word(word: object) -> Text:
    text = _plain(plain(word or ""))
    return Text(text, style=_STYLES.get(text, ""))


def _plain(text: str) -> str:
    return text.replace("_", " ")
