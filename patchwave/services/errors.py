"""Errors of services. The text of each is for the caller; the API maps the class to an HTTP status."""

from __future__ import annotations

from collections.abc import Sequence

from patchwave.domain.core.validation import Problem


class ServiceError(Exception):
    """A request that a service refuses. ``errors`` name what exactly is wrong; ``retry_after`` is in seconds."""

    def __init__(self, detail: str, *, errors: Sequence[Problem] = (), retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.errors = tuple(errors)
        self.retry_after = retry_after


class InvalidRequest(ServiceError):
    """The request is of another form than the service takes."""


class NotFound(ServiceError):
    """What the request names does not exist."""


class NotPermitted(ServiceError):
    """The caller's role does not cover this request."""


class KeyReused(ServiceError):
    """An idempotency key was used for another request before."""


class EngineUnavailable(ServiceError):
    """The durable engine did not take an orchestration."""


class TooManyReads(ServiceError):
    """This worker reads the fleet for as many callers as it may."""


class FleetTooLarge(ServiceError):
    """The scope has more machines than one response holds."""


class FleetUnreadable(ServiceError):
    """Resource Graph refuses to list the fleet."""


class FleetTooSlow(ServiceError):
    """Reading the fleet took longer than a caller can wait."""
