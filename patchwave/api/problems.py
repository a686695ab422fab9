"""Problem details (RFC 9457) for errors of the API, of services, and of Azure."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Any

from azure.functions import HttpResponse

from patchwave.api.auth import Forbidden, Unauthenticated
from patchwave.domain.azure.errors import ArmFailure, classify
from patchwave.domain.core.command import InvalidTransition, SelfApproval
from patchwave.domain.core.outcome import Reason
from patchwave.domain.core.validation import Problem, listed
from patchwave.domain.policy.policy import PolicyError
from patchwave.domain.scheduling.freeze import FreezeError
from patchwave.services import errors
from patchwave.services.errors import ServiceError
from patchwave.storage import InvalidCursor, PreconditionFailed, RecordTooLarge, StorageUnreachable

_STATUS: Mapping[type[ServiceError], int] = {
    errors.InvalidRequest: 400,
    errors.NotPermitted: 403,
    errors.NotFound: 404,
    errors.Conflict: 409,
    errors.KeyReused: 422,
    errors.FleetTooLarge: 422,
    errors.TooManyReads: 429,
    errors.FleetUnreadable: 502,
    errors.EngineUnavailable: 503,
    errors.FleetTooSlow: 503,
}
_LOG = logging.getLogger("patchwave.http")

AZURE_PROBLEMS = {
    409: "Azure refuses it in the present state; the response has Azure's text.",
    502: "Azure refuses, usually because a role is missing; the response has Azure's text.",
    503: "Azure or the storage cannot be reached now, or limits requests: retry after Retry-After.",
}
BOUNDARY_PROBLEMS = {403: "The caller may not do this, or it is outside of the boundary: PATCHWAVE_SUBSCRIPTIONS."}


class ApiProblem(Exception):
    """A request fails with a problem: HTTP status, one sentence, and details.

    ``why`` is the exception's text, for details that only the log may contain.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        errors: Sequence[Problem] = (),
        headers: Mapping[str, str] | None = None,
        why: str = "",
    ) -> None:
        super().__init__(why or detail)
        self.status = status
        self.detail = detail
        self.errors = tuple(listed(errors))
        self.headers = dict(headers or {})

    def to_response(self) -> HttpResponse:
        """The problem document."""
        problem: dict[str, Any] = {
            "type": "about:blank",
            "title": HTTPStatus(self.status).phrase,
            "status": self.status,
            "detail": self.detail,
        }
        if self.errors:
            problem["errors"] = [error.to_wire() for error in self.errors]
        return HttpResponse(
            json.dumps(problem), status_code=self.status, headers=self.headers, mimetype="application/problem+json"
        )


def to_problem(error: Exception) -> ApiProblem:
    """The problem for an error, without internal details."""
    match error:
        case ApiProblem():
            return error
        case errors.AzureRefused():
            return azure_problem(error.failure, error.what)
        case ServiceError():
            headers = {"Retry-After": str(error.retry_after)} if error.retry_after else {}
            status = next(_STATUS[each] for each in type(error).mro() if each in _STATUS)
            return ApiProblem(status, str(error), errors=error.errors, headers=headers)
        case PolicyError():
            return ApiProblem(400, "The policy is not valid.", errors=error.errors)
        case FreezeError():
            return ApiProblem(400, "The freeze is not valid.", errors=error.errors)
        case InvalidCursor():
            return ApiProblem(400, "The cursor is not one that this list gave.")
        case Unauthenticated():
            # The response does not reveal details of the refusal; the log has them.
            return ApiProblem(401, "Sign in.", headers={"WWW-Authenticate": "Bearer"})
        case Forbidden():
            return ApiProblem(403, "You may not do this.")
        case SelfApproval():
            return ApiProblem(403, str(error))
        case InvalidTransition():
            return ApiProblem(409, str(error))
        case PreconditionFailed():
            return ApiProblem(412, "The policy is not the one you have seen: read it again, then repeat the change.")
        case RecordTooLarge():
            return ApiProblem(413, "The document is too large to be stored.")
        case StorageUnreachable():
            _LOG.warning("Storage cannot be used: %s", error)
            return ApiProblem(503, "The storage of the records cannot be reached.", headers={"Retry-After": "15"})
        case _:
            _LOG.error("Unexpected failure", exc_info=error)
            return ApiProblem(500, "Patchwave failed on this request; its log has the reason.")


def invalid_body(*problems: Problem) -> ApiProblem:
    """400 for a body that is valid JSON, but not a valid document."""
    return ApiProblem(400, "The request is not valid.", errors=problems)


def invalid_query(name: str, message: str) -> ApiProblem:
    """400 for an invalid query parameter."""
    return ApiProblem(400, "The query is not valid.", errors=[Problem(path=name, message=message)])


def no_such(what: str) -> ApiProblem:
    """404 for a thing that does not exist."""
    return ApiProblem(404, f"There is no such {what}.")


def azure_problem(failure: ArmFailure, what: str) -> ApiProblem:
    """The problem for a request that Azure refused, about a thing such as ``maintenance configuration``."""
    if failure.status == 404:
        return no_such(what)
    verdict = classify(failure)
    if verdict.kind.is_transient:
        wait = math.ceil(failure.retry_after or 15)
        return ApiProblem(503, f"Azure cannot answer now. ({failure.text})", headers={"Retry-After": str(max(wait, 1))})
    if verdict.reason is Reason.OUTSIDE_BOUNDARY:
        return ApiProblem(403, failure.message)
    if failure.status in (400, 409):
        return ApiProblem(failure.status, f"Azure refuses the {what}. ({failure.text})")
    if verdict.reason is Reason.FORBIDDEN:
        return ApiProblem(
            502,
            f"The {what} is missing, or the app's identity lacks a role: see docs/reference/security.md."
            f" ({failure.text})",
        )
    return ApiProblem(502, f"Azure refuses the {what}. ({failure.text})")
