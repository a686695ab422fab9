"""Refusals of Azure as answers of this API, for functions that ask Azure while their caller waits."""

from __future__ import annotations

import math

from patchwave.api.http import Refusal, no_such
from patchwave.domain.azure.errors import ArmFailure, ErrorClass, classify
from patchwave.domain.core.outcome import Reason

AZURE_REFUSES = {
    409: "Azure refuses it as things are; its own text is in the answer.",
    502: "Azure refuses, most often for want of a role; its own text is in the answer.",
    503: "Azure or the storage cannot be reached now, or limits requests: come again after Retry-After.",
}
BOUNDARY_REFUSES = {403: "The caller may not do this, or it is outside of the boundary: PATCHWAVE_SUBSCRIPTIONS."}


def refused(failure: ArmFailure, what: str) -> Refusal:
    """The answer to a request that Azure refused, about a thing such as ``maintenance configuration``."""
    if failure.status == 404:
        return no_such(what)
    verdict = classify(failure)
    if verdict.kind in (ErrorClass.THROTTLED, ErrorClass.RETRY_LATER):
        wait = math.ceil(failure.retry_after or 15)
        return Refusal(503, f"Azure cannot answer now. ({failure.text})", headers={"Retry-After": str(max(wait, 1))})
    if verdict.reason is Reason.OUTSIDE_BOUNDARY:
        return Refusal(403, failure.message)
    if failure.status in (400, 409):
        return Refusal(failure.status, f"Azure refuses the {what}. ({failure.text})")
    if verdict.reason is Reason.FORBIDDEN:
        return Refusal(
            502,
            f"The {what} is missing, or the app's identity lacks a role: see docs/reference/security.md."
            f" ({failure.text})",
        )
    return Refusal(502, f"Azure refuses the {what}. ({failure.text})")
