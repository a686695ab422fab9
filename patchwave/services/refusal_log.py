"""The trace of refused calls (401 and 403) in the audit log: enough to see a try, and too little to fill the storage.

A worker writes one line for each hour, function, caller, reason and policy; the same call again in that hour writes
nothing, and the lines of several workers are one and the same. Of many callers `MAX_LINES` an hour are kept one by
one, the others together. Of what a caller wrote, a line has at most the subscription that lies outside of the boundary,
and the name of a stored policy.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from weakref import WeakKeyDictionary

from patchwave.domain.core.ids import is_policy_name
from patchwave.domain.core.principal import Signed
from patchwave.storage import Storage, open_storage

REFUSED_CALLS = "refused~calls"
"""The partition of the audit log; no policy and no run has such a name."""
TRACED = frozenset({401, 403})
MAX_LINES = 200
"""In an hour and worker, so that a worker writes 5,000 lines a day at most. They are removed by their age."""
_PATIENCE_SECONDS = 2.0
"""How long the answer waits for the line, which the log has in any case."""
_LOG = logging.getLogger("patchwave.refused")


@dataclass(slots=True)
class _Hour:
    """The lines of one hour that this worker has written."""

    at: datetime
    lines: set[tuple[str, ...]] = field(default_factory=set[tuple[str, ...]])


_WRITTEN: WeakKeyDictionary[Storage, _Hour] = WeakKeyDictionary()


async def note_refused(
    function: str, identify: Callable[[], Signed | None], status: int, why: str, policy: str = ""
) -> None:
    """Leave a trace of a call that was refused. It never fails, whatever the storage does.

    ``policy`` is the one that the address names; the line has it where it is stored.
    """
    try:
        caller = identify() or Signed(by="unknown")
        _LOG.info("Refused (%d): %s of %s: %s", status, function, caller.by_id or "unknown", why)
        async with asyncio.timeout(_PATIENCE_SECONDS):
            storage = open_storage()
            is_stored = is_policy_name(policy) and await storage.policies.get(policy) is not None
            await _write(storage, function, caller, status, why, policy if is_stored else "")
    except Exception:
        _LOG.warning("A refused call left no line in the audit log.", exc_info=True)


async def _write(storage: Storage, function: str, caller: Signed, status: int, why: str, policy: str) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    written = _WRITTEN.get(storage)
    if written is None or written.at != hour:
        written = _WRITTEN[storage] = _Hour(hour)
    line = (function, caller.by, caller.by_id, str(status), why, policy)
    if line not in written.lines and len(written.lines) >= MAX_LINES:
        function, caller, why, policy = "", Signed(by="others"), "more callers than are kept one by one", ""
        line = (function, caller.by, caller.by_id, str(status), why, policy)
    if line in written.lines:
        return
    # Before the write, so that a storage that does not answer is asked once.
    written.lines.add(line)
    detail = {"function": function, "status": status, "why": why} | ({"policy": policy} if policy else {})
    await storage.audit.add(REFUSED_CALLS, "call_refused", **caller.who, at=hour, detail=detail)
