"""The result of an attempt that another one may follow."""

from __future__ import annotations

from patchwave.domain.core.documents import Document


class Attempt(Document):
    """The result of an attempt.

    ``wait_seconds``: when over 0, the time until the next one. ``counts_as_attempt`` is false for throttling, and for
    waits with a limit of their own.
    """

    wait_seconds: float = 0
    counts_as_attempt: bool = True
