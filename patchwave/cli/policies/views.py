"""Policies, their occurrences with reasons, and freezes, as tables. Pure functions of documents."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, cast

from rich.console import Group, RenderableType
from rich.text import Text

from patchwave.cli.json_fields import Json, items, part
from patchwave.cli.output import plain
from patchwave.cli.rendering import new_table

_DECISIONS = {"run": "green", "continue": "green", "frozen": "cyan"}
"""Colours; whatever else keeps an occurrence from running is yellow."""


def policies_table(policies: Iterable[Json]) -> RenderableType:
    """One line per policy."""
    table = new_table("policy", "enabled", "machines at once", "schedule", "description", right=("machines at once",))
    for policy in policies:
        table.add_row(
            Text(plain(policy.get("name", ""))),
            "no" if policy.get("enabled") is False else "yes",
            plain(policy.get("maxConcurrent", "")),
            Text(_schedule(part(policy, "schedule"))),
            Text(plain(policy.get("description", "")), overflow="fold"),
        )
    return table


def occurrences_view(calendar: Json) -> RenderableType:
    """One line per occurrence of a policy, by the clock of its schedule."""
    table = new_table("opens", "closes (UTC)", "", "run", "why")
    for each in items(calendar, "occurrences"):
        decision = plain(each.get("decision", ""))
        table.add_row(
            _local(each.get("localTime")),
            _short(each.get("windowEnd")),
            Text(decision, style=_DECISIONS.get(decision, "yellow")),
            Text(plain(each.get("runId", "")) if each.get("willRun") else "", style="bright_black"),
            Text(plain(each.get("reason", "")), overflow="fold"),
        )
    title = Text(plain(calendar.get("policy", "")), style="bold")
    if calendar.get("enabled") is False:
        title.append("  disabled", style="yellow")
    pause = part(calendar, "pause")
    if pause:
        title.append(f"  paused by {plain(pause.get('actor', ''))}: {plain(pause.get('reason', ''))}", style="yellow")
    if not items(calendar, "occurrences"):
        return Group(title, Text("nothing is scheduled", style="bright_black"))
    return Group(title, table)


def orders_line(controls: Json) -> str:
    """What holds a policy back at present, in one line."""
    name = plain(controls.get("policy", ""))
    pause = part(controls, "pause")
    said = [f"paused by {plain(pause.get('actor', ''))}: {plain(pause.get('reason', ''))}"] if pause else []
    said += [
        f"skips {_short(skip.get('occurrence'))} UTC, by {plain(skip.get('actor', ''))}:"
        f" {plain(skip.get('reason', ''))}"
        for skip in items(controls, "skips")
    ]
    return f"policy {name}: {'; '.join(said) or 'follows its schedule'}"


def freezes_table(freezes: Iterable[Json]) -> RenderableType:
    """One line per freeze."""
    table = new_table("freeze", "from", "to", "zone", "policies", "machines", "reason")
    for freeze in freezes:
        table.add_row(
            Text(plain(freeze.get("name", ""))),
            Text(plain(freeze.get("from", ""))),
            Text(plain(freeze.get("to", ""))),
            Text(plain(freeze.get("timeZone", ""))),
            Text(plain(", ".join(cast("list[str]", freeze.get("policies") or ["all"])))),
            Text(plain(_tags(part(freeze, "tags")))),
            Text(plain(freeze.get("reason", "")), overflow="fold"),
        )
    return table


def _schedule(schedule: Json) -> str:
    if not schedule:
        return "on request"
    at = f"{schedule.get('recurrence', '')} at {schedule.get('time', '')} {schedule.get('timeZone', '')}"
    return plain(f"{at}, window {schedule.get('window', '')}")


def _tags(tags: Json) -> str:
    if not tags:
        return "all"
    word = " or " if tags.get("match") == "any" else " and "
    values = cast("dict[str, list[str]]", tags.get("values") or {})
    return word.join(f"{name}={'|'.join(wanted)}" for name, wanted in values.items())


def _local(text: Any) -> Text:
    """A local time with its weekday and offset, since that is what people compare with their calendar."""
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return Text(plain(text))
    return Text(f"{moment:%a %Y-%m-%d %H:%M} {moment:%:z}")


def _short(text: Any) -> str:
    try:
        return f"{datetime.fromisoformat(str(text)):%Y-%m-%d %H:%M}"
    except ValueError:
        return plain(text)
