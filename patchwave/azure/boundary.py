"""Enforces the subscription boundary: the last step of every client before a request to Resource Manager."""

from __future__ import annotations

from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.core.pipeline import PipelineRequest
from azure.core.pipeline.policies import SansIOHTTPPolicy

from patchwave.domain.policy.boundary import Boundary


class OutsideBoundary(HttpResponseError):
    """The request was not sent. Clients return it as a failure with this code (`patchwave.domain.policy.boundary`)."""


class BoundaryPolicy(SansIOHTTPPolicy[Any, Any]):
    """Blocks requests that the boundary does not allow."""

    def __init__(self, boundary: Boundary) -> None:
        super().__init__()
        self._boundary = boundary

    def on_request(self, request: PipelineRequest[Any]) -> None:
        """Check the request right before it is sent.

        Raises:
            OutsideBoundary: it would change something outside the boundary.
        """
        sent = request.http_request
        content = getattr(sent, "content", None)
        body = content if isinstance(content, str | bytes) else ""
        refusal = self._boundary.reason_not_to_send(sent.method, sent.url, body)
        if refusal:
            raise OutsideBoundary(refusal)
