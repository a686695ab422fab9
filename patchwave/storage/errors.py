"""Errors of the storage; no Azure type crosses this boundary."""

from __future__ import annotations


class StorageError(Exception):
    """Table storage refused a request, and a retry would not help."""


class StorageUnreachable(StorageError):
    """No response, a transient one, or a refused identity, after the library's retries."""


class PreconditionFailed(StorageError):
    """The row has changed since the caller read it (HTTP 412 of the API)."""


class RecordTooLarge(StorageError):
    """The row exceeds the 1 MiB of a table entity, and nothing in it may be cut."""


class RecordMissing(StorageError, LookupError):
    """A required row does not exist."""


class InvalidCursor(ValueError):
    """A paging cursor that is malformed or from another list."""
