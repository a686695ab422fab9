"""The machines of a run as tables. Everything here is a pure function of documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import cast

from rich.console import Group, RenderableType
from rich.text import Text

from patchwave.cli.json_fields import Json, items, part
from patchwave.cli.output import plain
from patchwave.cli.rendering import FirstThatFits, command_line, entry, facts_in_words, new_grid, new_table

STAGES = {
    "waiting": "bright_black",
    "assessing": "cyan",
    "ready": "cyan",
    "installing": "blue",
    "verifying": "magenta",
    "installed": "magenta",
    "restarting": "magenta",
    "done": "green",
}

OUTCOMES = {
    "failed": "bold red",
    "timed_out": "bold red",
    "unknown": "bold red",
    "left_running": "yellow",
    "reboot_required": "yellow",
    "patched_with_warnings": "yellow",
    "skipped": "yellow",
    "canceled": "bright_black",
    "patched": "green",
    "nothing_to_install": "green",
    "assessed": "green",
}
"""Every outcome with its colour, what is most urgent first."""

NEEDS_PERSON = tuple(list(OUTCOMES)[:7])
"""The outcomes that need a person, most urgent first."""

_HEALTH = {"True": "healthy", "False": "unhealthy"}


def machines_table(machines: Iterable[Json]) -> RenderableType:
    """One line per machine, or a few where it does not fit: where it stands or how it ended, and why."""
    table = new_table(
        "machine", "group", "region", "os", "outcome", "reason", "found", "installed", "failed", "message",
        right=("found", "installed", "failed"),
    )  # fmt: skip
    narrow: list[RenderableType] = []
    for machine in machines:
        assessment = part(machine, "assessment")
        installation = part(machine, "installation")
        name = Text(plain(machine.get("name", "")), overflow="fold")
        where = [Text(plain(machine.get(key, ""))) for key in ("resourceGroup", "location", "osType")]
        outcome, reason = _outcome_or_stage(machine), Text(plain(machine.get("reason", "")))
        patches = {
            "found": assessment.get("criticalAndSecurity", 0) + assessment.get("other", 0) if assessment else "",
            "installed": installation.get("installed", ""),
            "failed": installation.get("failed", ""),
        }
        message = Text(_message(machine), overflow="fold")
        table.add_row(name, *where, outcome, reason, *(str(count) for count in patches.values()), message)
        counted = ", ".join(f"{count} {what}" for what, count in patches.items() if count != "")
        narrow.append(entry([name, outcome, reason], [*where, Text(counted)], [message]))
    return FirstThatFits(table, Group(*narrow), prose=["message"])


def machine_facts(machine: Json) -> RenderableType:
    """One machine of a run with every patch."""
    grid = new_grid()
    for label, key in (("machine", "name"), ("id", "id"), ("region", "location"), ("os", "osType")):
        grid.add_row(label, Text(plain(machine.get(key, ""))))
    grid.add_row("outcome", _outcome_or_stage(machine))
    for label, key in (("reason", "reason"), ("message", "message"), ("waiting for", "waitingFor")):
        if machine.get(key):
            grid.add_row(label, Text(plain(machine[key])))
    if machine.get("skipCommand"):
        grid.add_row("skip", command_line("", part(machine, "skipCommand")))
    if machine.get("wave"):
        grid.add_row("place", Text(_place(machine)))
    for label in ("assessment", "installation"):
        found = part(machine, label)
        facts = {key: value for key, value in found.items() if value not in (0, False) and key != "errors"}
        if facts:
            grid.add_row(label, Text(facts_in_words(facts)))
        for error in items(found, "errors"):
            text = ": ".join(plain(error[key]) for key in ("code", "message") if error.get(key))
            grid.add_row(f"{label} reports", Text(text))
    for label, key in (("before", "healthBefore"), ("after", "healthAfter")):
        health = part(machine, key)
        if health:
            word = _HEALTH.get(str(health.get("healthy")), "unknown")
            grid.add_row(f"health {label}", Text(f"{word} {plain(health.get('reason', ''))}".rstrip()))
    for label, key in (
        ("script before", "preScriptOutput"),
        ("script after", "postScriptOutput"),
        ("way back", "rollbackInstructions"),
    ):
        if machine.get(key):
            grid.add_row(label, Text(plain(machine[key])))
    table = new_table("patch", "version", "kb", "classification", "state", "reboot")
    for patch in items(machine, "patches"):
        table.add_row(
            Text(plain(patch.get("name", "")), overflow="fold"),
            Text(plain(patch.get("version", ""))),
            Text(plain(patch.get("kbId", ""))),
            Text(", ".join(plain(each) for each in cast("list[str]", patch.get("classifications") or []))),
            Text(plain(patch.get("state", ""))),
            Text(plain(patch.get("rebootBehavior", ""))),
        )
    return Group(grid, table) if machine.get("patches") else grid


def attention_table(attention: Sequence[Json], total: int, *, one_line: bool = False) -> RenderableType:
    """The machines that need a person, and how many more there are."""
    table = new_table("needs a person", "outcome", "reason", "message")
    narrow: list[RenderableType] = [Text("needs a person", style="bright_black")]
    for machine in attention:
        name = Text(plain(machine.get("name", "")), overflow="fold")
        outcome, reason = _outcome_or_stage(machine), Text(plain(machine.get("reason", "")))
        message = Text(plain(machine.get("message", "")), no_wrap=one_line, overflow="ellipsis" if one_line else "fold")
        table.add_row(name, outcome, reason, message)
        narrow.append(entry([name, outcome, reason], [message]))
    if total > len(attention):
        more = Text(f"and {total - len(attention)} more", style="bright_black")
        table.add_row(more, "", "", "")
        narrow.append(more)
    return table if one_line else FirstThatFits(table, Group(*narrow), prose=["message"])


def reasons_table(machines: Iterable[Json]) -> RenderableType:
    """How many machines ended with each outcome and reason."""
    found = Counter((str(machine.get("outcome")), str(machine.get("reason"))) for machine in machines)
    table = new_table("outcome", "reason", "machines", right=("machines",))
    order = [*OUTCOMES, *(outcome for outcome, _ in found if outcome not in OUTCOMES)]
    for outcome, reason in sorted(found, key=lambda each: (order.index(each[0]), each[1])):
        style = OUTCOMES.get(outcome, "")
        table.add_row(Text(plain(outcome), style=style), Text(plain(reason)), str(found[outcome, reason]))
    return table


def _outcome_or_stage(machine: Json) -> Text:
    outcome = machine.get("outcome")
    if outcome:
        return Text(plain(outcome), style=OUTCOMES.get(outcome, ""))
    stage = machine.get("stage", "")
    return Text(plain(stage), style=STAGES.get(stage, ""))


def _message(machine: Json) -> str:
    """How it ended, or what it waits for."""
    waits = plain(machine.get("waitingFor", ""))
    return plain(machine.get("message", "")) or (f"waits for {waits}" if waits else "")


def _place(machine: Json) -> str:
    """Where the machine stands in the plan of its run, and why."""
    place = f"ring {machine.get('ring')}, phase {machine.get('phase')}, {machine.get('lane')}, wave {machine['wave']}"
    why = "; ".join(cast("list[str]", machine.get("placementReasons") or []))
    return plain(f"{place}: {why}" if why else place)
