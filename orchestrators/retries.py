"""How often a failing activity is tried again.

Expected failures of Azure come back as values; an exception means that storage or the worker failed, which passes.
"""

from __future__ import annotations

from datetime import timedelta

from durabletask import task

RETRY = task.RetryPolicy(
    first_retry_interval=timedelta(seconds=2),
    max_number_of_attempts=5,
    backoff_coefficient=2,
    max_retry_interval=timedelta(minutes=1),
)

RETRY_RESULT = task.RetryPolicy(
    first_retry_interval=timedelta(seconds=2),
    max_number_of_attempts=12,
    backoff_coefficient=2,
    max_retry_interval=timedelta(minutes=2),
)
"""For everything that a run is made of: an outage of a quarter of an hour must lose no result, and end nothing."""
