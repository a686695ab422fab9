"""Errors of services. The text is for the caller; the API maps each class to an HTTP status."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager

from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.core.validation import Problem


class ServiceError(Exception):
    """A service refuses the request. ``errors`` list the details; ``retry_after`` is in seconds."""

    def __init__(self, detail: str, *, errors: Sequence[Problem] = (), retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.errors = tuple(errors)
        self.retry_after = retry_after


class InvalidRequest(ServiceError):
    """The request is malformed."""


class InvalidQuery(InvalidRequest):
    """A parameter of the request is malformed; ``name`` is that of the API."""

    def __init__(self, name: str, message: str) -> None:
        super().__init__("The query is not valid.", errors=[Problem(path=name, message=message)])


class NotFound(ServiceError):
    """The requested object does not exist."""


class NotPermitted(ServiceError):
    """The caller's role does not cover this request."""


class Conflict(ServiceError):
    """The request contradicts the current state."""


class KeyReused(ServiceError):
    """The idempotency key was used for another request."""


class EngineUnavailable(ServiceError):
    """The durable engine did not accept an orchestration."""


class TooManyReads(ServiceError):
    """This worker has its maximum of concurrent fleet reads."""


class FleetTooLarge(ServiceError):
    """The scope has more machines than one response can hold."""


class FleetUnreadable(ServiceError):
    """Resource Graph refuses a query."""


class FleetTooSlow(ServiceError):
    """Azure took too long for an HTTP caller."""


class AzureRefused(ServiceError):
    """Azure refuses a request about a thing, such as ``maintenance configuration``."""

    def __init__(self, failure: ArmFailure, what: str) -> None:
        super().__init__(f"Azure refuses the {what}. ({failure.text})")
        self.failure = failure
        self.what = what


NARROW = "repeat the request, or narrow the scope"


@asynccontextmanager
async def time_limit(what: str, seconds: float, advice: str = "repeat the request") -> AsyncGenerator[None]:
    """Bounds the reads of a request.

    Raises:
        FleetTooSlow: ``what`` could not be read in so many ``seconds``.
    """
    try:
        async with asyncio.timeout(seconds):
            yield
    except TimeoutError:
        text = f"{what} could not be read in {seconds:.0f} seconds; {advice}."
        raise FleetTooSlow(text, retry_after=60) from None


def result_of[Result](found: Result | ArmFailure, what: str) -> Result:
    """The result of a request to Azure.

    Raises:
        AzureRefused: it failed.
    """
    if isinstance(found, ArmFailure):
        raise AzureRefused(found, what)
    return found
