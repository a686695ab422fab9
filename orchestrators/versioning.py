"""Which versions of the orchestrations this code can replay, and what becomes of an instance of another one.

An instance carries the version it was started with; its children and later generations inherit it. A change that makes
an orchestrator do other things, or the same in another order, raises `contracts.VERSION`: ask ``context.version`` where
the behaviour changed to go on supporting the old version, or take that out of `SUPPORTED`. An instance of a version
that is not supported fails at its next turn, before it has done anything; the watchdog then goes on with its run from
the records (docs/adr/0019-recovery-and-versioning.md). Recorded histories of each supported version are replayed in
``tests/orchestrators/replay_compatibility``.
"""

from __future__ import annotations

import functools
from typing import Any

from orchestrators.runtime import Context, DurableFunction, Steps
from patchwave.domain.workflow.contracts import VERSION

SUPPORTED = frozenset({VERSION})
"""Versions whose recorded histories this code replays action by action."""


class UnsupportedVersion(Exception):
    """An instance was started by code whose histories this code cannot replay."""


def versioned(orchestrator: DurableFunction) -> DurableFunction:
    """The same orchestrator, which fails at once when it is given an instance of a version that is not supported."""

    @functools.wraps(orchestrator)
    def checked(context: Context, data: Any) -> Steps[Any]:
        if context.version not in SUPPORTED:
            known = ", ".join(sorted(SUPPORTED))
            raise UnsupportedVersion(f"Version {context.version} of {orchestrator.__name__} is not one of {known}.")
        return (yield from orchestrator(context, data))

    return checked
