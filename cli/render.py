"""The documents of the API as tables and bars. Everything here is a pure function of documents."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import cast

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from cli.documents import Json, counts, items, part
from cli.terminal import plain

FINAL_STATES = frozenset({"completed", "canceled", "stopped", "failed", "empty"})

STAGES = {
    "waiting": "bright_black",
    "assessing": "cyan",
    "assessed": "cyan",
    "installing": "blue",
    "verifying": "magenta",
    "installed": "magenta",
    "restarting": "magenta",
    "done": "green",
}

_RARE_STAGES = frozenset({"installed", "restarting"})
"""Only where a policy restarts machines apart from their installation."""

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
"""The outcomes that somebody has to look at, most urgent first."""

_STATES = {
    "queued": "bright_black",
    "running": "blue",
    "awaiting_approval": "bold yellow",
    "paused": "bold yellow",
    "held": "bold red",
    "awaiting_window": "cyan",
    "completed": "green",
    "canceled": "yellow",
    "stopped": "bold red",
    "failed": "bold red",
}

_HEALTH = {"True": "healthy", "False": "unhealthy"}

_BAR_WIDTH = 32


def needs_person(run: Json) -> int:
    """How many machines of a run somebody has to look at."""
    by_outcome = counts(run, "countsByOutcome")
    return sum(by_outcome.get(outcome, 0) for outcome in NEEDS_PERSON)


def runs_table(runs: Iterable[Json]) -> RenderableType:
    """One line per run."""
    table = _table("run", "mode", "state", "machines", "outcomes", "started", "took", right=("machines", "took"))
    for run in runs:
        table.add_row(
            Text(plain(run.get("id", ""))),
            Text(plain(run.get("mode", ""))),
            _state(run),
            str(run.get("machines", 0)),
            _counts(counts(run, "countsByOutcome")),
            _moment(run.get("startedAt") or run.get("createdAt")),
            took(run),
        )
    return table


def run_facts(run: Json) -> RenderableType:
    """One run: what it is, who started it, when, and how its machines ended."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bright_black")
    grid.add_column(overflow="fold")
    trigger = part(run, "trigger")
    by = " ".join(plain(trigger[key]) for key in ("kind", "by", "detail") if trigger.get(key))
    grid.add_row("run", Text(plain(run.get("id", "")), style="bold"))
    grid.add_row("policy", Text(f"{plain(run.get('policy', ''))}, mode {plain(run.get('mode', ''))}"))
    grid.add_row("state", _state(run))
    for label, key in (("reason", "reason"), ("waiting for", "waitingFor")):
        if run.get(key):
            grid.add_row(label, Text(plain(run[key])))
    grid.add_row("started by", Text(by))
    for label, key in (
        ("created", "createdAt"),
        ("started", "startedAt"),
        ("ended", "endedAt"),
        ("occurrence", "occurrence"),
        ("window ends", "windowEnd"),
        ("cancel asked", "cancelRequestedAt"),
    ):
        if run.get(key):
            grid.add_row(label, _moment(run[key]))
    if run.get("startedAt"):
        grid.add_row("took", took(run))
    for ring, decision in part(run, "decisions").items():
        said = "approved" if decision.get("approved") else "rejected"
        grid.add_row(f"ring {plain(ring)}", _said(said, decision, "comment"))
    for order, steered in part(run, "steered").items():
        grid.add_row(plain(order), _said("", steered, "why"))
    grid.add_row("machines", str(run.get("machines", 0)))
    return Group(grid, outcome_bars(run)) if run.get("countsByOutcome") else grid


def machines_table(machines: Iterable[Json]) -> RenderableType:
    """One line per machine: where it stands or how it ended, and why."""
    table = _table(
        "machine", "group", "region", "os", "outcome", "reason", "found", "installed", "failed", "message",
        right=("found", "installed", "failed"),
    )  # fmt: skip
    for machine in machines:
        assessment = part(machine, "assessment")
        installation = part(machine, "installation")
        found = assessment.get("criticalAndSecurity", 0) + assessment.get("other", 0) if assessment else ""
        table.add_row(
            Text(plain(machine.get("name", "")), overflow="fold"),
            Text(plain(machine.get("resourceGroup", ""))),
            Text(plain(machine.get("location", ""))),
            Text(plain(machine.get("osType", ""))),
            _outcome_or_stage(machine),
            Text(plain(machine.get("reason", ""))),
            str(found),
            str(installation.get("installed", "")),
            str(installation.get("failed", "")),
            Text(plain(machine.get("message", "")), overflow="fold"),
        )
    return table


def machine_facts(machine: Json) -> RenderableType:
    """One machine of a run with every patch."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bright_black")
    grid.add_column(overflow="fold")
    for label, key in (("machine", "name"), ("id", "id"), ("region", "location"), ("os", "osType")):
        grid.add_row(label, Text(plain(machine.get(key, ""))))
    grid.add_row("outcome", _outcome_or_stage(machine))
    for label, key in (("reason", "reason"), ("message", "message")):
        if machine.get(key):
            grid.add_row(label, Text(plain(machine[key])))
    if machine.get("skip"):
        grid.add_row("skip", _said("", part(machine, "skip"), "why"))
    if machine.get("wave"):
        grid.add_row("place", Text(_place(machine)))
    for label in ("assessment", "installation"):
        facts = {key: value for key, value in part(machine, label).items() if value not in (0, False)}
        if facts:
            grid.add_row(label, Text(_facts(facts)))
    for label, key in (("before", "healthBefore"), ("after", "healthAfter")):
        health = part(machine, key)
        if health:
            word = _HEALTH.get(str(health.get("healthy")), "unknown")
            grid.add_row(f"health {label}", Text(f"{word} {plain(health.get('why', ''))}".rstrip()))
    for label, key in (("script before", "beforeOutput"), ("script after", "afterOutput"), ("way back", "rollback")):
        if machine.get(key):
            grid.add_row(label, Text(plain(machine[key])))
    table = _table("patch", "version", "kb", "classification", "state", "reboot")
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


def audit_table(lines: Iterable[Json]) -> RenderableType:
    """One line per order and per act of a gate."""
    table = _table("at", "action", "by", "detail")
    for line in lines:
        table.add_row(
            _moment(line.get("at")),
            Text(plain(line.get("action", ""))),
            Text(plain(line.get("by", ""))),
            Text(_shown(line.get("detail")), overflow="fold"),
        )
    return table


def policies_table(policies: Iterable[Json]) -> RenderableType:
    """One line per policy."""
    table = _table("policy", "enabled", "machines at once", "schedule", "description", right=("machines at once",))
    for policy in policies:
        table.add_row(
            Text(plain(policy.get("name", ""))),
            "no" if policy.get("enabled") is False else "yes",
            plain(policy.get("maxConcurrent", "")),
            Text(_schedule(part(policy, "schedule"))),
            Text(plain(policy.get("description", "")), overflow="fold"),
        )
    return table


def progress_view(run: Json, attention: Sequence[Json], height: int | None = None) -> RenderableType:
    """What ``watch`` shows: the run, a bar per stage and outcome, and the machines that need a person.

    With a ``height`` it is cut to about so many lines, a line per machine; without one it shows everything.
    """
    title = Text.assemble(
        (plain(run.get("id", "")), "bold"),
        f"  {plain(run.get('mode', ''))}  ",
        _state(run),
        (f"  {took(run)}" if run.get("startedAt") else "", "bright_black"),
    )
    final = run.get("state") in FINAL_STATES
    if run.get("cancelRequestedAt") and not final:
        title.append("  cancel asked, waiting for what is running", style="yellow")
    elif run.get("stopReason") and not final:
        title.append("  a gate ends it, waiting for what is running", style="yellow")
    elif run.get("waitingFor") and not final:
        title.append(f"  {plain(run['waitingFor'])}", style="yellow")
    parts: list[RenderableType] = [title]
    if run.get("reason"):
        parts.append(Text(plain(run["reason"]), style="yellow"))
    if run.get("machines") and not final:
        parts.append(stage_bars(run))
    outcomes = counts(run, "countsByOutcome")
    if outcomes:
        parts.append(outcome_bars(run))
    if attention:
        left = None if height is None else max(1, height - len(STAGES) - len(outcomes) - len(parts) - 2)
        parts.append(attention_table(attention[:left], needs_person(run), one_line=height is not None))
    return Group(*parts)


def stage_bars(run: Json) -> RenderableType:
    """A bar per stage; the last one is how far the run is."""
    by_stage = counts(run, "countsByStage")
    rows = [
        (stage, by_stage.get(stage, 0), style)
        for stage, style in STAGES.items()
        if stage not in _RARE_STAGES or by_stage.get(stage)
    ]
    return _bars(rows, run.get("machines", 0))


def outcome_bars(run: Json) -> RenderableType:
    """A bar per outcome that occurred."""
    by_outcome = counts(run, "countsByOutcome")
    known = [(outcome, by_outcome[outcome], style) for outcome, style in OUTCOMES.items() if by_outcome.get(outcome)]
    # A newer service may know more outcomes than this command.
    known += [(plain(outcome), count, "") for outcome, count in by_outcome.items() if outcome not in OUTCOMES]
    return _bars(known, run.get("machines", 0))


def attention_table(attention: Sequence[Json], total: int, *, one_line: bool = False) -> RenderableType:
    """The machines that need a person, and how many more there are."""
    table = _table("needs a person", "outcome", "reason", "message")
    for machine in attention:
        table.add_row(
            Text(plain(machine.get("name", "")), overflow="fold"),
            _outcome_or_stage(machine),
            Text(plain(machine.get("reason", ""))),
            Text(plain(machine.get("message", "")), no_wrap=one_line, overflow="ellipsis" if one_line else "fold"),
        )
    if total > len(attention):
        table.add_row(Text(f"and {total - len(attention)} more", style="bright_black"), "", "", "")
    return table


def reasons_table(machines: Iterable[Json]) -> RenderableType:
    """How many machines ended with each outcome and reason."""
    found = Counter((str(machine.get("outcome")), str(machine.get("reason"))) for machine in machines)
    table = _table("outcome", "reason", "machines", right=("machines",))
    order = [*OUTCOMES, *(outcome for outcome, _ in found if outcome not in OUTCOMES)]
    for outcome, reason in sorted(found, key=lambda each: (order.index(each[0]), each[1])):
        style = OUTCOMES.get(outcome, "")
        table.add_row(Text(plain(outcome), style=style), Text(plain(reason)), str(found[outcome, reason]))
    return table


def progress_line(run: Json) -> str:
    """The same as one line, for logs and pipes."""
    stages = counts(run, "countsByStage")
    done = stages.get("done", 0)
    busy = ", ".join(f"{stages[stage]} {stage}" for stage in STAGES if stage != "done" and stages.get(stage))
    outcomes = _counts(counts(run, "countsByOutcome")).plain
    parts = [plain(run.get("state", "")), f"{done}/{run.get('machines', 0)} done"]
    return "; ".join([*parts, *(part for part in (busy, outcomes) if part)])


def took(run: Json) -> str:
    """How long a run has taken, as ``1:02:03``; empty when it has not started."""
    started = _instant(run.get("startedAt"))
    if started is None:
        return ""
    ended = _instant(run.get("endedAt")) or datetime.now(UTC)
    return str(timedelta(seconds=max(0, int((ended - started).total_seconds()))))


def _bars(rows: Iterable[tuple[str, int, str]], total: int) -> RenderableType:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(min_width=22)
    grid.add_column(width=_BAR_WIDTH)
    grid.add_column(justify="right")
    for name, count, style in rows:
        bar = ProgressBar(
            total=max(1, total), completed=count, width=_BAR_WIDTH, complete_style=style, finished_style=style
        )
        grid.add_row(Text(name, style=style), bar, str(count))
    return grid


def _table(*columns: str, right: tuple[str, ...] = ()) -> Table:
    table = Table(box=None, header_style="bright_black", pad_edge=False, padding=(0, 2, 0, 0))
    for column in columns:
        table.add_column(column, justify="right" if column in right else "left")
    return table


def _outcome_or_stage(machine: Json) -> Text:
    outcome = machine.get("outcome")
    if outcome:
        return Text(plain(outcome), style=OUTCOMES.get(outcome, ""))
    stage = machine.get("stage", "")
    return Text(plain(stage), style=STAGES.get(stage, ""))


def _state(run: Json) -> Text:
    state = run.get("state", "")
    return Text(plain(state), style=_STATES.get(state, ""))


def _place(machine: Json) -> str:
    """Where the machine stands in the plan of its run, and why."""
    place = f"ring {machine.get('ring')}, phase {machine.get('phase')}, {machine.get('lane')}, wave {machine['wave']}"
    why = "; ".join(cast("list[str]", machine.get("why") or []))
    return plain(f"{place}: {why}" if why else place)


def _shown(value: object) -> str:
    """A value of a document in words; empty when it says nothing."""
    match value:
        case None:
            return ""
        case bool():
            return "yes" if value else "no"
        case dict():
            return _facts(cast("Json", value))
        case list():
            return ", ".join(_shown(each) for each in cast("list[object]", value))
        case _:
            return plain(value)


def _facts(facts: Json) -> str:
    """The keys that say something with their values; what is below a key in brackets."""
    said = {key: _shown(value) for key, value in facts.items()}
    return ", ".join(
        f"{plain(key)} ({words})" if isinstance(facts[key], dict) else f"{plain(key)} {words}"
        for key, words in said.items()
        if words
    )


def _said(what: str, order: Json, why: str) -> Text:
    """What somebody ordered, who it was, when, and why."""
    line = Text(" ".join(filter(None, (what, f"by {plain(order.get('by', ''))}", _moment(order.get("at"))))))
    if order.get(why):
        line.append(f": {plain(order[why])}")
    return line


def _counts(by_outcome: dict[str, int]) -> Text:
    parts = Text()
    known = [outcome for outcome in OUTCOMES if outcome in by_outcome]
    for outcome in [*known, *(each for each in by_outcome if each not in OUTCOMES)]:
        parts.append(", " if parts else "")
        parts.append(f"{by_outcome[outcome]} {plain(outcome)}", style=OUTCOMES.get(outcome, ""))
    return parts


def _schedule(schedule: Json) -> str:
    if not schedule:
        return "on request"
    at = f"{schedule.get('recurrence', '')} at {schedule.get('time', '')} {schedule.get('timeZone', '')}"
    return plain(f"{at}, window {schedule.get('window', '')}")


def _moment(text: object) -> str:
    instant = _instant(text)
    return instant.strftime("%Y-%m-%d %H:%M:%SZ") if instant else ""


def _instant(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text)).astimezone(UTC)
    except ValueError:
        return None
