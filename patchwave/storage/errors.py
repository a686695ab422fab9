"""What can go wrong with the records, in our own words: no Azure type crosses this boundary."""

from __future__ import annotations


class StorageError(Exception):
    """Table storage refused a request in a way that a repetition will not change."""


class StorageUnreachable(StorageError):
    """No answer, an answer that says "not now", or one that refuses our identity; the library's retries are spent."""


class PreconditionFailed(StorageError):
    """The row is not the one the caller has seen (HTTP 412 of the API)."""


class RecordTooLarge(StorageError):
    """The row is over the 1 MiB of a table entity and holds nothing that may be cut."""


class RecordMissing(StorageError, LookupError):
    """A row that must exist does not."""


class InvalidCursor(ValueError):
    """A paging cursor that these records did not hand out for this list."""
