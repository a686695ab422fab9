"""Policies, their occurrences with reasons, and freezes, as tables. Pure functions of documents."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime
from typing import Any, cast

from rich.console import Group, RenderableType
from rich.text import Text

from patchwave.cli.json_fields import Json, items, part
from patchwave.cli.output import plain
from patchwave.cli.rendering import Cell, Listing

_DECISIONS = {"run": "green", "continue": "green", "frozen": "cyan"}
"""Colours; whatever else keeps an occurrence from running is yellow."""


def policies_table(policies: Iterable[Json]) -> RenderableType:
    """One line per policy."""
    columns: dict[str, Cell] = {
        "policy": "name",
        "enabled": lambda policy: policy.get("enabled") is not False,
        "machines at once": "maxConcurrent",
        "schedule": _schedule,
        "description": "description",
    }
    return Listing(policies, columns, right=["machines at once"], prose=["description"])


def occurrences_view(calendar: Json) -> RenderableType:
    """One line per occurrence of a policy, by the clock of its schedule."""
    columns: dict[str, Cell] = {
        "opens": lambda each: _local(each.get("localTime")),
        "closes (UTC)": lambda each: _short(each.get("windowEnd")),
        "mode": "mode",
        "decision": _decision,
        "run": lambda each: Text(plain(each.get("runId", "")) if each.get("willRun") else "", style="bright_black"),
        "why": "reason",
    }
    title = Text(plain(calendar.get("policy", "")), style="bold")
    if calendar.get("enabled") is False:
        title.append("  disabled", style="yellow")
    if pause := part(calendar, "pause"):
        title.append(f"  paused by {plain(pause.get('actor', ''))}: {plain(pause.get('reason', ''))}", style="yellow")
    if not items(calendar, "occurrences"):
        return Group(title, Text("nothing is scheduled", style="bright_black"))
    listed = items(calendar, "occurrences")
    table = Listing(listed, columns, title=["opens", "decision"], prose=["why"])
    following = [each for each in listed if each.get("willRun")]
    hours = items(following[0], "zoneHours") if following else []
    return Group(title, table, *([Text(), _zone_hours_table(hours)] if hours else []))


def _zone_hours_table(hours: Iterable[Json]) -> RenderableType:
    """The hours of the next occurrence, where machines read their own clocks."""
    columns: dict[str, Cell] = {
        "next opens (UTC)": lambda each: _short(each.get("opensAt")),
        "closes (UTC)": lambda each: _short(each.get("closesAt")),
        "on the clocks of": lambda each: ", ".join(cast("list[str]", each.get("timeZones") or [])),
    }
    return Listing(hours, columns, title=["next opens (UTC)"], prose=["on the clocks of"])


def overrides_line(overrides: Json) -> str:
    """What holds a policy back at present, in one line."""
    name = plain(overrides.get("policy", ""))
    pause = part(overrides, "pause")
    said = [f"paused by {plain(pause.get('actor', ''))}: {plain(pause.get('reason', ''))}"] if pause else []
    said += [
        f"skips {_short(skip.get('occurrence'))} UTC, by {plain(skip.get('actor'))}: {plain(skip.get('reason'))}"
        for skip in items(overrides, "skips")
    ]
    return f"policy {name}: {'; '.join(said) or 'follows its schedule'}"


def freezes_table(freezes: Iterable[Json]) -> RenderableType:
    """One line per freeze."""
    columns: dict[str, Cell] = {
        "freeze": "name",
        "from": "from",
        "to": "to",
        "zone": "timeZone",
        "policies": lambda freeze: freeze.get("policies") or "all",
        "machines": lambda freeze: _tags(part(freeze, "tags")),
        "reason": "reason",
    }
    return Listing(freezes, columns, prose=["reason"])


def _decision(occurrence: Json) -> Text:
    decision = plain(occurrence.get("decision", ""))
    return Text(decision, style=_DECISIONS.get(decision, "yellow"))


def _schedule(policy: Json) -> str:
    own, assess = part(policy, "schedule"), part(policy, "assess")
    verb = "assesses " if policy.get("mode") == "assess" else ""
    said = [verb + _times(own)] if own else []
    said += [f"assesses {_times(assess)}"] if assess else []
    return "; ".join(said) or "on request"


def _times(schedule: Json) -> str:
    at = f"{schedule.get('recurrence', '')} at {schedule.get('time', '')} {schedule.get('timeZone', '')}"
    return f"{at}, window {schedule.get('window', '')}"


def _tags(tags: Json) -> str:
    if not tags:
        return "all"
    word = " or " if tags.get("match") == "any" else " and "
    values = cast("dict[str, list[str]]", tags.get("values") or {})
    return word.join(f"{name}={'|'.join(wanted)}" for name, wanted in values.items())


def _local(text: Any) -> Text:
    """A local time with its weekday and offset, since that is what people compare with their calendar.

    One without an offset is that of each machine's own clock.
    """
    try:
        moment = datetime.fromisoformat(str(text))
    except ValueError:
        return Text(plain(text))
    return Text(f"{moment:%a %Y-%m-%d %H:%M} {moment:%:z}" if moment.tzinfo else f"{moment:%a %Y-%m-%d %H:%M} there")


def _short(text: Any) -> str:
    try:
        return f"{datetime.fromisoformat(str(text)):%Y-%m-%d %H:%M}"
    except ValueError:
        return plain(text)
