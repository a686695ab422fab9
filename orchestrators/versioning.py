"""Versions of the orchestrations that this code can replay, and the check of each instance.

An instance keeps the version that it was started with; its children and later executions inherit it. A change to the
order or kind of an orchestrator's actions raises `contracts.VERSION`. Either branch on ``context.version`` to keep the
old version, or remove that from `SUPPORTED`. An instance of an unsupported version fails at its next turn, before any
action; the watchdog then resumes its run from its rows (docs/adr/0019-recovery-and-versioning.md). Recorded histories
of each supported version are replayed in ``tests/orchestrators/replay_compatibility``.
"""

from __future__ import annotations

import functools
from typing import Any

from orchestrators.runtime import Context, DurableFunction, Steps
from patchwave.domain.workflow.contracts import VERSION

SUPPORTED = frozenset({VERSION})
"""Versions whose recorded histories this code replays action by action."""


class UnsupportedVersion(Exception):
    """The instance was started by code whose histories this code cannot replay."""


def versioned(orchestrator: DurableFunction) -> DurableFunction:
    """The orchestrator, wrapped to fail at once for an instance of an unsupported version."""

    @functools.wraps(orchestrator)
    def checked(context: Context, data: Any) -> Steps[Any]:
        if context.version not in SUPPORTED:
            known = ", ".join(sorted(SUPPORTED))
            raise UnsupportedVersion(f"Version {context.version} of {orchestrator.__name__} is not one of {known}.")
        return (yield from orchestrator(context, data))

    return checked
