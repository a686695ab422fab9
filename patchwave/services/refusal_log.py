"""Audits refused calls (401 and 403): enough to see an attempt, and bounded in size.

A worker writes one entry per hour, function, caller, reason and policy; repeated calls write nothing, and equal entries
of several workers are one. At most `MAX_LINES` entries an hour are separate, the others are combined. Of the caller's
input, an entry only has a subscription outside of the boundary, and the name of a stored policy.
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
from patchwave.storage import Storage
from patchwave.wiring import Services

REFUSED_CALLS = "refused~calls"
"""Partition of the audit log; no policy and no run can have such a name."""
TRACED = frozenset({401, 403})
MAX_LINES = 200
"""Per hour and worker: at most 5,000 entries a day. Retention removes them by age."""
_TIMEOUT_SECONDS = 2.0
"""How long the response waits for the entry, which is logged in any case."""
_LOG = logging.getLogger("patchwave.refused")


@dataclass(slots=True)
class _Hour:
    """The entries of one hour that this worker has written."""

    at: datetime
    lines: set[tuple[str, ...]] = field(default_factory=set[tuple[str, ...]])


_WRITTEN: WeakKeyDictionary[Storage, _Hour] = WeakKeyDictionary()


async def note_refused(
    services: Services, function: str, identify: Callable[[], Signed | None], status: int, why: str, policy: str = ""
) -> None:
    """Audit a refused call. Never fails.

    ``policy`` comes from the URL; the entry only has it if it is stored.
    """
    try:
        caller = identify() or Signed(actor="unknown")
        _LOG.info("Refused (%d): %s of %s: %s", status, function, caller.actor_id or "unknown", why)
        async with asyncio.timeout(_TIMEOUT_SECONDS):
            storage = services.storage
            is_stored = is_policy_name(policy) and await storage.policies.get(policy) is not None
            await _write(storage, function, caller, status, why, policy if is_stored else "")
    except Exception:
        _LOG.warning("A refused call left no line in the audit log.", exc_info=True)


async def _write(storage: Storage, function: str, caller: Signed, status: int, why: str, policy: str) -> None:
    hour = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    written = _WRITTEN.get(storage)
    if written is None or written.at != hour:
        written = _WRITTEN[storage] = _Hour(hour)
    line = (function, caller.actor, caller.actor_id, str(status), why, policy)
    if line not in written.lines and len(written.lines) >= MAX_LINES:
        function, caller, why, policy = "", Signed(actor="others"), "more callers than are kept one by one", ""
        line = (function, caller.actor, caller.actor_id, str(status), why, policy)
    if line in written.lines:
        return
    # Set before the write, so that an unreachable storage is tried once.
    written.lines.add(line)
    detail = {"function": function, "status": status, "reason": why} | ({"policy": policy} if policy else {})
    await storage.audit.add(REFUSED_CALLS, "call_refused", **caller.who, at=hour, detail=detail)
