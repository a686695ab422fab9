"""The boundary on the wire: the last step before a request to Resource Manager leaves, in every client of the app."""

from __future__ import annotations

from typing import Any

from azure.core.exceptions import HttpResponseError
from azure.core.pipeline import PipelineRequest
from azure.core.pipeline.policies import SansIOHTTPPolicy

from patchwave.domain.policy.boundary import Boundary


class OutsideBoundary(HttpResponseError):
    """A request was not sent. Clients read it as a failure with this code (`patchwave.domain.policy.boundary`)."""


class BoundaryPolicy(SansIOHTTPPolicy[Any, Any]):
    """Sends nothing that the boundary does not allow."""

    def __init__(self, boundary: Boundary) -> None:
        super().__init__()
        self._boundary = boundary

    def on_request(self, request: PipelineRequest[Any]) -> None:
        """Look at the request as it is about to be sent.

        Raises:
            OutsideBoundary: it would change something that this app must not change.
        """
        sent = request.http_request
        content = getattr(sent, "content", None)
        body = content if isinstance(content, str | bytes) else ""
        refusal = self._boundary.reason_not_to_send(sent.method, sent.url, body)
        if refusal:
            raise OutsideBoundary(refusal)
