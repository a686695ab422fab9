"""The machines of a run as tables. Everything here is a pure function of documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import cast

from rich.console import Group, RenderableType
from rich.text import Text

from patchwave.cli.json_fields import Json, items, part
from patchwave.cli.output import plain
from patchwave.cli.rendering import Cell, Listing, command_line, facts_grid, facts_in_words, moment, new_table

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
    columns: dict[str, Cell] = {
        "machine": "name",
        "group": "resourceGroup",
        "region": "location",
        "os": "osType",
        "outcome": _outcome_or_stage,
        "reason": "reason",
        "patches": _patches,
        "message": _message,
    }
    title = ["machine", "outcome", "reason"]
    return Listing(machines, columns, title=title, prose=["message"], labelled=False)


def machine_facts(machine: Json) -> RenderableType:
    """One machine of a run with every patch."""
    facts: dict[str, object] = {
        "machine": machine.get("name"),
        "id": machine.get("id"),
        "region": machine.get("location"),
        "os": machine.get("osType"),
        "outcome": _outcome_or_stage(machine),
        "reason": machine.get("reason"),
        "message": machine.get("message"),
        "waiting for": machine.get("waitingFor"),
    }
    if machine.get("skipCommand"):
        facts["skip"] = command_line("", part(machine, "skipCommand"))
    if machine.get("wave"):
        facts["place"] = _place(machine)
    if last := part(machine, "lastWindow"):
        facts["last window"] = f"{moment(last.get('occurrence'))} {last.get('outcome')}: {last.get('reason')}"
        facts["failed windows"] = last.get("failedWindows") or None
    for label in ("assessment", "installation"):
        found = part(machine, label)
        facts[label] = {key: value for key, value in found.items() if value not in (0, False) and key != "errors"}
        errors = (
            ": ".join(str(each[key]) for key in ("code", "message") if each.get(key)) for each in items(found, "errors")
        )
        facts[f"{label} reports"] = Text("\n").join(Text(plain(error)) for error in errors)
    for label, key in (("before", "healthBefore"), ("after", "healthAfter")):
        if health := part(machine, key):
            word = _HEALTH.get(str(health.get("healthy")), "unknown")
            facts[f"health {label}"] = f"{word} {health.get('reason', '')}".rstrip()
    facts |= {
        "script before": machine.get("preScriptOutput"),
        "script after": machine.get("postScriptOutput"),
        "way back": machine.get("rollbackInstructions"),
    }
    columns: dict[str, Cell] = {
        "patch": "name",
        "version": "version",
        "kb": "kbId",
        "classification": "classifications",
        "assessed": _assessed_state,
        "installed": "installationState",
        "reboot": "rebootBehavior",
    }
    parts: list[RenderableType] = [facts_grid(facts)]
    if attempts := items(machine, "attempts"):
        parts.append(_attempts_table(attempts))
    if machine.get("patches"):
        parts.append(Listing(items(machine, "patches"), columns))
    return Group(*parts) if len(parts) > 1 else parts[0]


def attention_table(attention: Sequence[Json], total: int, *, one_line: bool = False) -> RenderableType:
    """The machines that need a person, and how many more there are."""
    columns: dict[str, Cell] = {
        "machine": "name",
        "outcome": _outcome_or_stage,
        "reason": "reason",
        "message": "message",
    }
    more = [Text(f"and {total - len(attention)} more", style="bright_black")] if total > len(attention) else []
    if not one_line:
        listing = Listing(attention, columns, title=["machine", "outcome", "reason"], prose=["message"])
        return Group(Text("needs a person", style="bright_black"), listing, *more)
    table = new_table("needs a person", "outcome", "reason", "message")
    for machine in attention:
        message = Text(plain(machine.get("message", "")), no_wrap=True, overflow="ellipsis")
        reason = Text(plain(machine.get("reason", "")))
        table.add_row(Text(plain(machine.get("name", ""))), _outcome_or_stage(machine), reason, message)
    return Group(table, *more)


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


def _patches(machine: Json) -> str:
    assessment, installation = part(machine, "assessment"), part(machine, "installation")
    patches = {"found": assessment.get("criticalAndSecurity", 0) + assessment.get("other", 0)} if assessment else {}
    patches |= {what: installation[what] for what in ("installed", "failed") if what in installation}
    return ", ".join(f"{count} {what}" for what, count in patches.items())


def _message(machine: Json) -> str:
    """How it ended, or what it waits for."""
    waits = plain(machine.get("waitingFor", ""))
    return plain(machine.get("message", "")) or (f"waits for {waits}" if waits else "")


def _assessed_state(patch: Json) -> object:
    """What the assessment says of a patch; that it needs Ubuntu Pro stands in the state that Patchwave gives it."""
    return "NeedsSubscription" if patch.get("state") == "NeedsSubscription" else patch.get("assessmentState")


def _attempts_table(attempts: Sequence[Json]) -> RenderableType:
    """One line for each request that was sent to Azure, or a few where it does not fit."""
    columns: dict[str, Cell] = {
        "attempt": lambda attempt: f"{attempt.get('operation')} {attempt.get('number')}",
        "sent": lambda attempt: moment(attempt.get("sentAt")),
        "Azure": "state",
        "with": lambda attempt: facts_in_words(_parameters(attempt)),
        "answer": "answer",
    }
    return Listing(attempts, columns, title=["attempt", "sent", "Azure"], prose=["with", "answer"], labelled=False)


def _parameters(attempt: Json) -> Json:
    """The body of the request, with the selection of its system beside the rest."""
    body = part(attempt, "parameters")
    selection = part(body, "windowsParameters") | part(body, "linuxParameters")
    return {name: value for name, value in body.items() if not name.endswith("Parameters")} | selection


def _place(machine: Json) -> str:
    """Where the machine stands in the plan of its run, and why."""
    place = f"ring {machine.get('ring')}, phase {machine.get('phase')}, {machine.get('lane')}, wave {machine['wave']}"
    why = "; ".join(cast("list[str]", machine.get("placementReasons") or []))
    return plain(f"{place}: {why}" if why else place)
