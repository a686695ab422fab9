"""ARM errors of the simulator with Azure's texts: status, body and headers.

Bodies follow recordings where available (InvalidParameter, ResourceNotFound, the 429 without a wrapper), else the
published error tables. Resource Manager's own errors have ``x-ms-failure-cause: gateway``; those of the Compute
provider do not.
"""

from __future__ import annotations

import json
from typing import Any


class ArmError(Exception):
    """An error response: HTTP status, JSON body and extra headers."""

    def __init__(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        super().__init__(f"{status}: {json.dumps(body)}")
        self.status = status
        self.body = body
        self.headers = headers or {}


def refusal(status: int, code: str, message: str, *, target: str | None = None, gateway: bool = False) -> ArmError:
    """An error in the usual ``{"error": {...}}`` wrapper."""
    error: dict[str, Any] = {"code": code, "message": message}
    if target is not None:
        error["target"] = target
    return ArmError(status, {"error": error}, {"x-ms-failure-cause": "gateway"} if gateway else None)


def _gateway(status: int, code: str, message: str) -> ArmError:
    return refusal(status, code, message, gateway=True)


def not_allowed(message: str, target: str | None = None) -> ArmError:
    return refusal(409, "OperationNotAllowed", message, target=target)


def not_authenticated(detail: str) -> ArmError:
    made = _gateway(401, "AuthenticationFailed", f"Authentication failed. {detail}")
    made.headers["WWW-Authenticate"] = 'Bearer error="invalid_token", error_description="Authentication failed."'
    return made


def wrong_audience(audience: str, accepted: str) -> ArmError:
    message = (
        f"The access token has been obtained for wrong audience or resource '{audience}'. "
        f"It should exactly match with one of the allowed audiences '{accepted}'."
    )
    return _gateway(401, "InvalidAuthenticationTokenAudience", message)


def no_such_route(path: str) -> ArmError:
    return _gateway(404, "InvalidResourceType", f"The resource path '{path}' is not served by this simulator.")


def missing_api_version() -> ArmError:
    message = "The api-version query parameter (?api-version=) is required for all requests."
    return _gateway(400, "MissingApiVersionParameter", message)


def subscription_not_found(subscription_id: str) -> ArmError:
    return _gateway(404, "SubscriptionNotFound", f"The subscription '{subscription_id}' could not be found.")


def group_not_found(group: str) -> ArmError:
    return _gateway(404, "ResourceGroupNotFound", f"Resource group '{group}' could not be found.")


def resource_not_found(kind: str, name: str, group: str) -> ArmError:
    message = (
        f"The Resource '{kind}/{name}' under resource group '{group}' was not found. "
        "For more details please go to https://aka.ms/ARMResourceNotFoundFix"
    )
    return _gateway(404, "ResourceNotFound", message)


def operation_not_found(operation_id: str) -> ArmError:
    return refusal(404, "NotFound", f"The entity was not found in this Azure location: operation {operation_id}.")


def forbidden(action: str, scope: str, client_id: str) -> ArmError:
    message = (
        f"The client '{client_id}' with object id '{client_id}' does not have authorization to perform action "
        f"'{action}' over scope '{scope}' or the scope is invalid. If access was recently granted, please refresh "
        "your credentials."
    )
    return _gateway(403, "AuthorizationFailed", message)


def altered_operation_url() -> ArmError:
    return refusal(400, "InvalidOperationUri", "The signature of the operation URL does not match its contents.")


def invalid_parameter(message: str, target: str) -> ArmError:
    return refusal(400, "InvalidParameter", message, target=target)


def unreadable_body(detail: str) -> ArmError:
    return refusal(400, "InvalidRequestContent", f"The request content was invalid and could not be read: {detail}")


def property_is_fixed(name: str) -> ArmError:
    return refusal(409, "PropertyChangeNotAllowed", f"Changing property '{name}' is not allowed.", target=name)


def unsupported_image() -> ArmError:
    message = (
        "The selected VM image is not supported for VM Guest patch operations. For list of supported images, "
        "please refer: https://aka.ms/VMGuestPatchingCompatibleImages"
    )
    return invalid_parameter(message, "imageReference")


def busy(operation: str, name: str) -> ArmError:
    return not_allowed(f"Operation '{operation}' is not allowed on VM '{name}' since another operation is in progress.")


def extension_busy(extension: str) -> ArmError:
    """The conflict of two operations on an Arc machine; published for extensions."""
    message = (
        f"An extension of type {extension} is still processing. Only one instance of an extension may be in progress "
        "at a time for the same resource. Please retry after sometime."
    )
    return refusal(409, "HCRP409", message)


def not_running() -> ArmError:
    return not_allowed("The operation requires the VM to be running (or set to run).")


def deallocated(operation: str, name: str) -> ArmError:
    return not_allowed(
        f"Operation '{operation}' is not allowed on VM '{name}' since the VM is either deallocated or marked to be "
        "deallocated."
    )


def changing_power(name: str) -> ArmError:
    return not_allowed(f"An ongoing operation is changing power state of Virtual Machine '{name}'.")


def extensions_disallowed() -> ArmError:
    return not_allowed(
        "This operation cannot be performed when extension operations are disallowed. To allow, please ensure VM "
        "Agent is installed on the VM and the osProfile.allowExtensionOperations property is true."
    )


def compute_throttled(policy: str, allowed: int, window: tuple[str, str], retry_after: int) -> ArmError:
    """The Compute provider's 429: no ``error`` wrapper, JSON inside a string, Retry-After always."""
    measured = {
        "operationGroup": policy,
        "startTime": window[0],
        "endTime": window[1],
        "allowedRequestCount": allowed,
        "measuredRequestCount": allowed + 1,
    }
    message = "The server rejected the request because too many requests have been received for this subscription."
    detail = {"code": "TooManyRequests", "target": policy, "message": json.dumps(measured, separators=(",", ":"))}
    body = {"code": "OperationNotAllowed", "message": message, "details": [detail]}
    return ArmError(429, body, {"Retry-After": str(retry_after)})


def manager_throttled(subscription_id: str, retry_after: int) -> ArmError:
    """Resource Manager's own 429, before any provider."""
    message = (
        f"Number of requests for subscription '{subscription_id}' exceeded the limit. Please try again after "
        f"'{retry_after}' seconds."
    )
    made = _gateway(429, "SubscriptionRequestsThrottled", message)
    made.headers["Retry-After"] = str(retry_after)
    return made
