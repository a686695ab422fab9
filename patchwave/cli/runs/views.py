"""Runs as tables, bars and lines. Everything here is a pure function of documents."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from patchwave.cli.json_fields import Json, counts, part
from patchwave.cli.output import plain
from patchwave.cli.rendering import Cell, Listing, command_line, facts_grid, facts_in_words, instant, moment, number_of
from patchwave.cli.runs.machine_views import NEEDS_PERSON, OUTCOMES, STAGES, attention_table

FINAL_STATES = frozenset({"completed", "canceled", "stopped", "failed", "empty"})

_RARE_STAGES = frozenset({"installed", "restarting"})
"""Only where a policy restarts machines apart from their installation."""

_STATES = {
    "queued": "bright_black",
    "running": "blue",
    "awaiting_approval": "bold yellow",
    "paused": "bold yellow",
    "held": "bold red",
    "awaiting_window": "cyan",
    "awaiting_run": "cyan",
    "completed": "green",
    "canceled": "yellow",
    "stopped": "bold red",
    "failed": "bold red",
}

_BAR_WIDTH = 32
_SHORT_DIGEST = 12


def needs_person(run: Json) -> int:
    """How many machines of a run need a person."""
    by_outcome = counts(run, "countsByOutcome")
    return sum(by_outcome.get(outcome, 0) for outcome in NEEDS_PERSON)


def runs_table(runs: Iterable[Json]) -> RenderableType:
    """One line per run; two where they do not fit, so that the id of a run is always whole."""
    columns: dict[str, Cell] = {
        "run": "id",
        "mode": "mode",
        "state": _state,
        "machines": _machines,
        "started": lambda run: moment(run.get("startedAt") or run.get("createdAt")),
        "took": took,
    }
    return Listing(runs, columns, right=["took"], labelled=False)


def run_facts(run: Json) -> RenderableType:
    """One run: what it is, who started it, when, and how its machines ended."""
    trigger = part(run, "trigger")
    facts: dict[str, object] = {
        "run": Text(plain(run.get("id", "")), style="bold"),
        "policy": f"{run.get('policy', '')}, mode {run.get('mode', '')}",
        **rules_of(run),
        "state": _state(run),
        "reason": run.get("reason"),
        "waiting for": run.get("waitingFor"),
        "started by": " ".join(str(trigger[key]) for key in ("kind", "actor", "detail") if trigger.get(key)),
        "created": moment(run.get("createdAt")),
        "started": moment(run.get("startedAt")),
        "ended": moment(run.get("endedAt")),
        "occurrence": moment(run.get("occurrence")),
        "window ends": moment(run.get("windowEnd")),
        "cancel asked": moment(run.get("cancelRequestedAt")),
        "exported": moment(run.get("exportedAt")),
        "took": took(run),
    }
    for ring, decision in part(run, "decisions").items():
        facts[f"ring {ring}"] = command_line("approved" if decision.get("approved") else "rejected", decision)
    facts |= {name: command_line("", last) for name, last in part(run, "lastCommands").items()}
    grid = facts_grid(facts | {"machines": run.get("machines", 0)})
    return Group(grid, outcome_bars(run)) if run.get("countsByOutcome") else grid


def rules_of(run: Json) -> dict[str, str]:
    """The author of a run's rules, and what an approver has to see of them; empty where unknown."""
    origin, snapshot = part(run, "policyOrigin"), part(run, "policySnapshot")
    facts: dict[str, str] = {}
    if origin:
        source = f"version {origin['version']}" if origin.get("version") else "from a request"
        changed = ", changed by the start" if origin.get("changedDigest") else ""
        digest = str(origin.get("changedDigest") or origin.get("digest", ""))[:_SHORT_DIGEST]
        facts["rules"] = f"{source} by {origin.get('author') or 'an unknown author'}{changed}, digest {digest}"
    if snapshot:
        facts["scope"] = facts_in_words(part(snapshot, "scope"))
        hooks = part(snapshot, "hooks")
        scripts = {
            f"{when} on {system}": len(str(part(hooks, when)[system]))
            for when in ("before", "after")
            for system in ("linux", "windows")
            if part(hooks, when).get(system)
        }
        facts["scripts"] = ", ".join(f"{name} ({size} characters)" for name, size in scripts.items()) or "none"
    return facts


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


def progress_line(run: Json) -> str:
    """The same as one line, for logs and pipes."""
    state = plain(run.get("state", ""))
    if run.get("waitingFor") and state not in FINAL_STATES:
        state = f"{state}: {plain(run['waitingFor'])}"
    stages = counts(run, "countsByStage")
    done = stages.get("done", 0)
    busy = ", ".join(f"{stages[stage]} {stage}" for stage in STAGES if stage != "done" and stages.get(stage))
    outcomes = _counts(counts(run, "countsByOutcome")).plain
    parts = [state, f"{done}/{run.get('machines', 0)} done"]
    return "; ".join([*parts, *(part for part in (busy, outcomes) if part)])


def took(run: Json) -> str:
    """How long a run has taken, as ``1:02:03``; empty when it has not started."""
    started = instant(run.get("startedAt"))
    if started is None:
        return ""
    ended = instant(run.get("endedAt")) or datetime.now(UTC)
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


def _state(run: Json) -> Text:
    state = run.get("state", "")
    return Text(plain(state), style=_STATES.get(state, ""))


def _machines(run: Json) -> Text:
    outcomes = _counts(counts(run, "countsByOutcome"))
    return Text(number_of(run.get("machines", 0), "machine")) + (Text(": ") + outcomes if outcomes else Text())


def _counts(by_outcome: dict[str, int]) -> Text:
    parts = Text()
    known = [outcome for outcome in OUTCOMES if outcome in by_outcome]
    for outcome in [*known, *(each for each in by_outcome if each not in OUTCOMES)]:
        parts.append(", " if parts else "")
        parts.append(f"{by_outcome[outcome]} {plain(outcome)}", style=OUTCOMES.get(outcome, ""))
    return parts
