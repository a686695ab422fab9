"""Errors of services. The text is for the caller; the API maps each class to an HTTP status."""

from __future__ import annotations

from collections.abc import Sequence

from patchwave.domain.core.validation import Problem


class ServiceError(Exception):
    """A service refuses the request. ``errors`` list the details; ``retry_after`` is in seconds."""

    def __init__(self, detail: str, *, errors: Sequence[Problem] = (), retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.errors = tuple(errors)
        self.retry_after = retry_after


class InvalidRequest(ServiceError):
    """The request is malformed."""


class NotFound(ServiceError):
    """The requested object does not exist."""


class NotPermitted(ServiceError):
    """The caller's role does not cover this request."""


class KeyReused(ServiceError):
    """The idempotency key was used for another request."""


class EngineUnavailable(ServiceError):
    """The durable engine did not accept an orchestration."""


class TooManyReads(ServiceError):
    """This worker has its maximum of concurrent fleet reads."""


class FleetTooLarge(ServiceError):
    """The scope has more machines than one response can hold."""


class FleetUnreadable(ServiceError):
    """Resource Graph refuses to list the fleet."""


class FleetTooSlow(ServiceError):
    """Reading the fleet took too long for an HTTP caller."""
