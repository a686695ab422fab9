"""What every error of Azure that is known means, read from the form it has on the wire."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from patchwave.domain.azure.errors import (
    ArmFailure,
    ErrorClass,
    ErrorDetail,
    cannot_follow_acceptance,
    classify,
    failure_of_error,
    is_throttling,
    parse_retry_after,
    read_failure,
)
from patchwave.domain.core.outcome import OutcomeKind, Reason
from tests.support.azure_bodies import ESM_ERROR, refusal

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
NOT_ALLOWED = "OperationNotAllowed"
THROTTLE_DETAIL = {
    "code": "TooManyRequests",
    "target": "HighCostGet",
    "message": '{"operationGroup":"HighCostGet","startTime":"2026-11-21T01:59:00+00:00","allowedRequestCount":300,'
    '"measuredRequestCount":1238}',
}
AGENT_TOO_OLD = {
    "code": "1",
    "message": "1 error/s reported.",
    "details": [{"code": "ERROR", "message": "Unsupported older Azure Linux Agent version"}],
}


LOCKED_SCOPE = "/subscriptions/3f2b9a64-71c8-4d05-9e1a-8c6d5f0b7e42/resourceGroups/rg-shop"
LOCKED = (
    f"The scope '{LOCKED_SCOPE}/providers/Microsoft.Compute/virtualMachines/web-01' cannot perform write operation "
    f"because following scope(s) are locked: '{LOCKED_SCOPE}'. Please remove the lock and try again."
)
ASSIGNMENT = (
    "/subscriptions/3f2b9a64-71c8-4d05-9e1a-8c6d5f0b7e42/providers/Microsoft.Authorization/policyAssignments/p1"
)
DENIED = (
    """Resource 'web-01' was disallowed by policy. Policy identifiers: '[{"policyAssignment":{"name":"No changes at """
    f'night","id":"{ASSIGNMENT}"}},"policyDefinition":{{"name":"Deny writes","id":"/providers/x"}}}}]\'.'
)
VIOLATION = {
    "type": "PolicyViolation",
    "info": {
        "evaluationDetails": {"evaluatedExpressions": []},
        "policyDefinitionName": "deny",
        "policyAssignmentId": ASSIGNMENT,
        "policyAssignmentName": "p1",
        "policyAssignmentDisplayName": "No changes at night",
    },
}


NAMED = {"policyAssignmentId": ASSIGNMENT, "policyAssignmentName": "No changes at night"}


def failure_in_operation(code: str, message: str, **error: Any) -> str:
    return refusal(code, message, **error)


TABLE = [
    # Virtual machine states and operations that exclude each other
    (
        409,
        refusal(
            NOT_ALLOWED,
            "Operation 'installPatches' is not allowed on VM 'vm-1' since another operation is in progress.",
        ),
        "busy",
        "operation_conflict",
    ),
    (
        409,
        refusal(NOT_ALLOWED, "The operation requires the VM to be running (or set to run)."),
        "not-running",
        "not_running",
    ),
    (
        409,
        refusal(
            NOT_ALLOWED,
            "Operation 'installPatches' is not allowed on VM 'vm-1' since the VM is either "
            "deallocated or marked to be deallocated.",
        ),
        "not-running",
        "not_running",
    ),
    (
        409,
        refusal(
            NOT_ALLOWED,
            "Cannot modify extensions in the VM when the VM is not running.",
            innererror={"internalErrorCode": "CannotModifyExtensionsWhenVMNotRunning"},
        ),
        "not-running",
        "not_running",
    ),
    (
        409,
        refusal(NOT_ALLOWED, "Refused.", internalErrorCode="CannotModifyExtensionsWhenVMNotRunning"),
        "not-running",
        "not_running",
    ),
    (
        409,
        refusal(NOT_ALLOWED, "An ongoing operation is changing power state of Virtual Machine 'vm-1'."),
        "retry-later",
        "operation_conflict",
    ),
    (
        409,
        refusal(
            NOT_ALLOWED, "Operation 'installPatches' is not allowed on VM 'vm-1' since the VM is marked for deletion."
        ),
        "gone",
        "not_found",
    ),
    (
        409,
        refusal(NOT_ALLOWED, "Operation 'installPatches' is not allowed on VM 'vm-1' since the VM is generalized."),
        "unsupported",
        "unsupported",
    ),
    (
        409,
        refusal(
            "Conflict",
            "Run command extension execution is in progress. Please wait for completion before invoking a run command.",
        ),
        "busy",
        "operation_conflict",
    ),
    (
        409,
        refusal(
            "Conflict", "The request failed due to conflict with a concurrent request. To resolve it, see the address."
        ),
        "busy",
        "operation_conflict",
    ),
    (409, refusal("SomethingNew", "An unknown sentence."), "busy", "operation_conflict"),
    (409, "", "busy", "operation_conflict"),
    # Throttling, with and without the wrapper
    (
        429,
        json.dumps(
            {
                "code": NOT_ALLOWED,
                "message": "The server rejected the request because too many requests have been "
                "received for this subscription.",
                "details": [THROTTLE_DETAIL],
            }
        ),
        "throttled",
        "throttled",
    ),
    (429, refusal(NOT_ALLOWED, "Too many requests.", details=[THROTTLE_DETAIL]), "throttled", "throttled"),
    (
        429,
        refusal(NOT_ALLOWED, "Operation is not allowed since another operation is in progress."),
        "throttled",
        "throttled",
    ),
    (429, "", "throttled", "throttled"),
    # What is not supported
    (
        400,
        refusal("InvalidParameter", "The selected VM image is not supported for VM Guest patch operations."),
        "unsupported",
        "unsupported",
    ),
    (
        200,
        failure_in_operation(
            "VMGuestPatchInternalError", "CPU Architecture 'arm64' was not found in the extension repository."
        ),
        "unsupported",
        "unsupported",
    ),
    (
        409,
        refusal("BadRequest", "CPU Architecture 'arm64' was not found in the extension repository."),
        "unsupported",
        "unsupported",
    ),
    (200, json.dumps({"error": AGENT_TOO_OLD}), "unsupported", "unsupported"),
    (
        200,
        json.dumps({"error": {"code": "1", "message": "x", "details": [{"code": "CL_PYTHON_TOO_OLD", "message": ""}]}}),
        "unsupported",
        "unsupported",
    ),
    # Failed operations, which arrive as HTTP 200
    (
        200,
        failure_in_operation("VMGuestPatchInternalError", "An internal execution error occurred. Please retry later."),
        "retry-later",
        "operation_failed",
    ),
    (
        200,
        failure_in_operation("VMAgentStatusCommunicationError", "VM has reported a failure when processing extension."),
        "not-running",
        "agent_not_ready",
    ),
    (
        200,
        failure_in_operation("VMExtensionProvisioningTimeout", "Provisioning of VM extension has timed out."),
        "retry-later",
        "operation_failed",
    ),
    (
        200,
        failure_in_operation("VMExtensionProvisioningError", "VM has reported a failure when processing extension."),
        "retry-later",
        "operation_failed",
    ),
    (
        200,
        failure_in_operation(
            "VMExtensionHandlerNonTransientError", "The handler for VM extension has reported terminal failure."
        ),
        "retry-later",
        "operation_failed",
    ),
    (
        409,
        refusal("ResourceUpdateBlockedOnPlatformUpdate", "The resource is being updated by the platform."),
        "retry-later",
        "operation_conflict",
    ),
    (
        200,
        json.dumps(
            {
                "error": {
                    "code": "1",
                    "message": "x",
                    "details": [
                        {
                            "code": "NEWER_OPERATION_SUPERSEDED",
                            "message": "Execution was stopped due to a newer operation taking precedence.",
                        }
                    ],
                }
            }
        ),
        "failed",
        "superseded",
    ),
    (
        200,
        json.dumps(
            {"error": {"code": "1", "message": "x", "details": [{"code": "PACKAGE_MANAGER_FAILURE", "message": "apt"}]}}
        ),
        "failed",
        "operation_failed",
    ),
    (
        200,
        json.dumps({"error": {"code": "1", "message": "x", "details": [{"code": "OPERATION_FAILED", "message": "y"}]}}),
        "failed",
        "operation_failed",
    ),
    (200, json.dumps({"error": ESM_ERROR}), "failed", "operation_failed"),
    # Deleted since the discovery
    (
        404,
        refusal(
            "ResourceNotFound",
            "The Resource 'Microsoft.Compute/virtualMachines/vm-1' under resource group 'rg' was not found.",
        ),
        "gone",
        "not_found",
    ),
    (404, refusal("NotFound", "Not found."), "gone", "not_found"),
    (404, "<html><body>Not Found</body></html>", "gone", "not_found"),
    (
        404,
        json.dumps({"Error": {"Code": "InvalidScheduledEventId", "Message": "Scheduled event not found"}}),
        "gone",
        "not_found",
    ),
    (200, failure_in_operation("VMNotFound", "The VM was not found."), "gone", "not_found"),
    # Rights
    (
        403,
        refusal(
            "AuthorizationFailed",
            "The client 'x' with object id 'x' does not have authorization to perform "
            "action 'Microsoft.Compute/virtualMachines/assessPatches/action' over scope '/subscriptions/s' "
            "or the scope is invalid. If access was recently granted, please refresh your credentials.",
        ),
        "forbidden",
        "forbidden",
    ),
    (
        403,
        refusal(NOT_ALLOWED, "The operation requires the VM to be running (or set to run)."),
        "forbidden",
        "forbidden",
    ),
    (
        401,
        refusal("ExpiredAuthenticationToken", "The access token expiry UTC time is earlier than current UTC time."),
        "retry-later",
        "forbidden",
    ),
    # Locks and policies
    (409, refusal("ScopeLocked", LOCKED), "forbidden", "scope_locked"),
    (200, failure_in_operation("ScopeLocked", LOCKED), "forbidden", "scope_locked"),
    (403, refusal("RequestDisallowedByPolicy", DENIED), "forbidden", "disallowed_by_policy"),
    (200, failure_in_operation("RequestDisallowedByPolicy", DENIED), "forbidden", "disallowed_by_policy"),
    # What a person has to mend
    (
        400,
        refusal(
            "InvalidParameter",
            "Hotpatch updates require platform safety checks. The "
            "'BypassPlatformSafetyChecksOnUserSchedule' flag must be set to false.",
        ),
        "failed",
        "operation_failed",
    ),
    (
        400,
        refusal(
            "InvalidParameter",
            "The entry in 'kbNumbersToInclude' with value '1111' is not valid. It must be a KBID such as KB4512508.",
            target="windowsParameters.kbNumbersToInclude",
        ),
        "failed",
        "operation_failed",
    ),
    (
        409,
        refusal(
            "MissingSubscriptionRegistration",
            "The subscription is not registered to use namespace 'Microsoft.Compute'.",
        ),
        "failed",
        "operation_failed",
    ),
    (400, refusal("BadRequest", "Subscription is not registered."), "failed", "operation_failed"),
    # Maintenance
    (
        200,
        failure_in_operation("ShutdownOrUnresponsive", "The machine was shut down or unresponsive."),
        "not-running",
        "not_running",
    ),
    (
        200,
        failure_in_operation(
            "MaintenanceFailed", "Schedule timeout, waiting for an ongoing update to complete the resource"
        ),
        "retry-later",
        "operation_conflict",
    ),
    (
        200,
        failure_in_operation(
            "MaintenanceCanceled", "Maintenance cancelled using cancellation API at 2026-11-10T19:00:00Z"
        ),
        "failed",
        "operation_failed",
    ),
    (
        200,
        failure_in_operation(
            "MaintenanceCanceled", "Maintenance cancelled due to internal platform failure at 2026-11-10T19:00:00Z"
        ),
        "failed",
        "operation_failed",
    ),
    # Windows Update
    *[
        (
            200,
            failure_in_operation("WindowsUpdateError", f"The search failed with {code}."),
            "failed",
            "operation_failed",
        )
        for code in ("0x8024402C", "0x8024401C", "0x8024402F", "0x8024002E", "0x80070422", "0x80072EE2", "0x80070005")
    ],
    (
        200,
        failure_in_operation("WindowsUpdateError", "The search failed with 0x8024001E."),
        "retry-later",
        "operation_failed",
    ),
    # No proper answer
    *[
        (status, body, "retry-later", "unreachable")
        for status in (0, 408, 500, 502, 503, 504)
        for body in ("", "<html>Bad gateway</html>", refusal("InternalServerError", "x"))
    ],
    # The unknown is never retried for ever, nor called success
    (200, failure_in_operation("SomethingNew", "An unknown sentence."), "failed", "operation_failed"),
    (400, "", "failed", "operation_failed"),
    (418, "teapot", "failed", "operation_failed"),
]


@pytest.mark.parametrize(("status", "body", "kind", "reason"), TABLE)
def test_the_table_of_errors(status: int, body: str, kind: str, reason: str) -> None:
    verdict = classify(read_failure(status, body))
    assert (verdict.kind.value, verdict.reason.value) == (kind, reason)
    assert verdict.sentence.endswith((".", "it.", ")"))


def test_the_table_reaches_every_class() -> None:
    assert {kind for _, _, kind, _ in TABLE} == {kind.value for kind in ErrorClass}


@pytest.mark.parametrize(("status", "body", "kind", "reason"), TABLE)
def test_the_raw_text_is_kept_for_the_record(status: int, body: str, kind: str, reason: str) -> None:
    failure = read_failure(status, body)
    outcome = classify(failure).to_outcome(failure)
    assert outcome.reason.value == reason
    assert outcome.outcome in (OutcomeKind.SKIPPED, OutcomeKind.FAILED)
    skipped = kind in ("busy", "not-running", "unsupported", "forbidden", "gone")
    assert (outcome.outcome is OutcomeKind.SKIPPED) is skipped
    assert failure.code in outcome.message
    assert failure.message[:200] in outcome.message


# --- locks and policies are named


def test_the_lock_is_named() -> None:
    failure = read_failure(409, refusal("ScopeLocked", LOCKED))
    outcome = classify(failure).to_outcome(failure)
    assert outcome.outcome is OutcomeKind.SKIPPED
    assert outcome.message.startswith(
        f"A lock on {LOCKED_SCOPE} keeps the machine from being changed: remove the lock, or leave the machine out. "
        "(HTTP 409 ScopeLocked: The scope "
    )
    assert cannot_follow_acceptance(failure)


def test_every_lock_is_named() -> None:
    two = read_failure(
        409, refusal("ScopeLocked", "following scope(s) are locked: '/subscriptions/s', '/x/{0}'. Please")
    )
    assert classify(two).sentence.startswith("A lock on /subscriptions/s, /x/{0} keeps ")
    none = read_failure(409, refusal("ScopeLocked", "It is locked."))
    assert classify(none).sentence.startswith("A lock keeps ")


@pytest.mark.parametrize(
    "body",
    [
        refusal("RequestDisallowedByPolicy", DENIED, target="web-01"),
        refusal("RequestDisallowedByPolicy", "Denied.", additionalInfo=[VIOLATION, VIOLATION, {"type": "x"}, None]),
        refusal("RequestDisallowedByPolicy", "Denied.", additionalInfo=[VIOLATION | {"info": NAMED}]),
    ],
)
def test_the_policy_assignment_is_named(body: str) -> None:
    failure = read_failure(403, body)
    outcome = classify(failure).to_outcome(failure)
    assert (outcome.outcome, outcome.reason) == (OutcomeKind.SKIPPED, Reason.DISALLOWED_BY_POLICY)
    assert outcome.message.startswith(
        f"A policy of Azure denies it: the assignment 'No changes at night' ({ASSIGNMENT}) has to exempt the machine "
        "or allow this. (HTTP 403 RequestDisallowedByPolicy: "
    )


@pytest.mark.parametrize(
    ("info", "named"),
    [
        ({"policyAssignmentName": "p1"}, "the assignment 'p1' has"),
        ({"policyAssignmentId": "/p"}, "the assignment (/p) has"),
        ({}, "the assignment has"),
        (None, "the assignment has"),
    ],
)
def test_a_policy_is_named_as_far_as_it_is_known(info: object, named: str) -> None:
    body = refusal("RequestDisallowedByPolicy", "Denied.", additionalInfo=[{"type": "PolicyViolation", "info": info}])
    assert named in classify(read_failure(403, body)).sentence


def test_a_policy_that_the_message_names_without_its_id() -> None:
    body = refusal("RequestDisallowedByPolicy", '\'[{"policyAssignment":{"name":"Only this"}}]\'')
    assert "the assignment 'Only this' has" in classify(read_failure(403, body)).sentence


# --- every detail of Azure is kept

DEEP = {
    "code": "OperationNotAllowed",
    "message": "Refused.",
    "target": "vm-1",
    "details": [
        {
            "code": "Outer",
            "message": "first",
            "target": "osProfile",
            "details": [{"code": "Within", "message": "third"}],
            "innererror": {"code": "ofDetail"},
        },
        {"code": "Second", "message": "second"},
    ],
    "innererror": {
        "exceptiontype": "System.TimeoutException",
        "errordetail": "at Compute.Run()",
        "innererror": {"code": "Deepest", "message": "the root of it", "target": "disk"},
    },
}


def test_target_inner_errors_and_details_of_every_level_are_kept() -> None:
    failure = read_failure(409, json.dumps({"error": DEEP}))
    assert failure == ArmFailure(
        status=409,
        code="OperationNotAllowed",
        message="Refused.",
        target="vm-1",
        details=[
            ErrorDetail("Outer", "first", "osProfile"),
            ErrorDetail("Second", "second"),
            ErrorDetail("Within", "third"),
        ],
        inner=[
            ErrorDetail("System.TimeoutException", "at Compute.Run()"),
            ErrorDetail("Deepest", "the root of it", "disk"),
            ErrorDetail("ofDetail"),
        ],
    )
    assert ArmFailure.model_validate(json.loads(json.dumps(failure.to_wire()))) == failure
    assert failure.text == (
        "HTTP 409 OperationNotAllowed: Refused. [vm-1]; Outer: first [osProfile]; Second: second; Within: third; "
        "System.TimeoutException: at Compute.Run(); Deepest: the root of it [disk]; ofDetail"
    )


def test_the_target_of_a_refused_parameter_is_kept() -> None:
    body = refusal("InvalidParameter", "The entry is not valid.", target="windowsParameters.kbNumbersToInclude")
    failure = read_failure(400, body)
    assert failure.target == "windowsParameters.kbNumbersToInclude"
    assert "[windowsParameters.kbNumbersToInclude]" in classify(failure).to_outcome(failure).message


def test_a_failure_that_was_stored_before_details_had_targets_is_read() -> None:
    stored = {"status": 409, "code": "C", "message": "m", "details": [["a", "b"]], "retryAfter": None}
    assert ArmFailure.model_validate(stored).details == [ErrorDetail("a", "b", "")]


def test_inner_errors_do_not_decide_the_class() -> None:
    body = refusal("SomethingNew", "x", innererror={"code": "VMNotFound", "message": "either deallocated or marked"})
    failure = read_failure(409, body)
    assert classify(failure).kind is ErrorClass.BUSY
    assert not cannot_follow_acceptance(failure)


def test_the_code_that_compute_hides_is_a_detail() -> None:
    inside = read_failure(409, refusal("x", "y", details=[{"code": "a", "internalErrorCode": "VMNotFound"}]))
    assert inside.details == [ErrorDetail("a"), ErrorDetail("VMNotFound")]
    assert classify(inside).kind is ErrorClass.GONE


def test_depth_and_number_of_details_are_bounded() -> None:
    error: dict[str, Any] = {"code": "leaf", "innererror": {"code": "leaf"}}
    for _ in range(6):
        error = {"code": "level", "details": [error] * 2, "innererror": {"code": "level", "innererror": error}}
    failure = read_failure(409, json.dumps({"error": error}))
    assert len(failure.details) == 10
    assert len(failure.inner) <= 10
    chain: dict[str, Any] = {"code": "0"}
    for number in range(1, 9):
        chain = {"code": str(number), "details": [chain], "innererror": {"code": str(number), "innererror": chain}}
    bounded = read_failure(409, json.dumps({"error": chain}))
    assert [part.code for part in bounded.details] == ["7", "6", "5", "4", "3"]


def test_a_failure_without_a_status_has_only_known_facts() -> None:
    assert ArmFailure(status=0, code="ServerDisconnectedError", message="gone").text == "ServerDisconnectedError: gone"
    assert ArmFailure(status=0, message="gone").text == "gone"
    assert ArmFailure(status=503).text == "HTTP 503"
    assert ErrorDetail(target="disk").text == " [disk]"


# --- what cannot have come after an acceptance

STATES = [
    "The operation requires the VM to be running (or set to run).",
    "Operation 'x' is not allowed on VM 'vm-1' since the VM is either deallocated or marked to be deallocated.",
    "Cannot modify extensions in the VM when the VM is not running.",
    "Operation 'x' is not allowed on VM 'vm-1' since the VM is marked for deletion.",
    "Operation 'x' is not allowed on VM 'vm-1' since the VM is generalized.",
    "The selected VM image is not supported for VM Guest patch operations.",
    "CPU Architecture 'arm64' was not found in the extension repository.",
    "Hotpatch updates require platform safety checks.",
    "The subscription is not registered to use namespace 'Microsoft.Compute'.",
]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
@pytest.mark.parametrize("body", ["", "<html></html>", refusal("Conflict", "Another operation is in progress.")])
def test_a_refusal_by_a_check_cannot_follow_an_acceptance(status: int, body: str) -> None:
    assert cannot_follow_acceptance(read_failure(status, body))


@pytest.mark.parametrize("message", STATES)
def test_a_409_that_names_a_state_of_the_machine_cannot_follow_an_acceptance(message: str) -> None:
    assert cannot_follow_acceptance(read_failure(409, refusal(NOT_ALLOWED, message)))
    assert cannot_follow_acceptance(read_failure(409, refusal(NOT_ALLOWED, "x", details=[{"message": message}])))


@pytest.mark.parametrize("code", ["CannotModifyExtensionsWhenVMNotRunning", "VMNotFound", "SubscriptionNotRegistered"])
def test_a_409_may_name_the_state_by_its_code(code: str) -> None:
    assert cannot_follow_acceptance(read_failure(409, refusal(code, "x")))


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html></html>",
        refusal("Conflict", "The request failed due to conflict with a concurrent request."),
        refusal(NOT_ALLOWED, "Operation 'x' is not allowed on VM 'vm-1' since another operation is in progress."),
        refusal("OperationInProgress", "x"),
        refusal("SomethingNew", "A sentence that is new."),
        # Our own start or restart may be what changes the power state, and our own installation what reports the rest.
        refusal(NOT_ALLOWED, "An ongoing operation is changing power state of Virtual Machine 'vm-1'."),
        refusal("ResourceUpdateBlockedOnPlatformUpdate", "The resource is being updated by the platform."),
        refusal("VMAgentStatusCommunicationError", "VM has reported a failure when processing extension."),
        refusal("NEWER_OPERATION_SUPERSEDED", "Execution was stopped due to a newer operation taking precedence."),
        refusal("CL_AGENT_TOO_OLD", "x"),
    ],
)
def test_any_other_409_may_follow_an_acceptance(body: str) -> None:
    assert not cannot_follow_acceptance(read_failure(409, body))


@pytest.mark.parametrize("status", [0, 200, 307, 402, 405, 408, 410, 412, 418, 422, 429, 500, 502, 503, 504, 599])
@pytest.mark.parametrize("message", STATES)
def test_no_other_status_proves_that_nothing_was_accepted(status: int, message: str) -> None:
    assert not cannot_follow_acceptance(read_failure(status, refusal(NOT_ALLOWED, message)))


def test_the_order_of_words_and_their_case_do_not_matter() -> None:
    for body in (
        refusal(NOT_ALLOWED, "THE OPERATION REQUIRES THE VM TO BE RUNNING"),
        refusal("x", "y", details=[{"code": "cannotmodifyextensionswhenvmnotrunning"}]),
        refusal("x", "y", details=[None, "text", {"message": "The operation requires the VM to be running."}]),
    ):
        assert classify(read_failure(409, body)).kind is ErrorClass.NOT_RUNNING


def test_point_29_throttling_is_decided_by_status_with_and_without_wrapper() -> None:
    plain = {"code": NOT_ALLOWED, "message": "m", "details": [THROTTLE_DETAIL]}
    for body in (json.dumps(plain), json.dumps({"error": plain})):
        failure = read_failure(429, body, retry_after=17)
        assert (failure.code, failure.message, failure.retry_after) == (NOT_ALLOWED, "m", 17)
        assert failure.details[0][0] == "TooManyRequests"
        assert classify(failure).kind is ErrorClass.THROTTLED
        assert classify(failure.model_copy(update={"status": 409})).kind is ErrorClass.BUSY


@pytest.mark.parametrize("retry_after", [None, 5.0])
@pytest.mark.parametrize("code", ["Conflict", NOT_ALLOWED, "OperationInProgress", "New"])
def test_point_30_any_409_that_names_no_state_is_busy(code: str, retry_after: float | None) -> None:
    failure = read_failure(409, refusal(code, "Words."), retry_after=retry_after)
    assert classify(failure).kind is ErrorClass.BUSY
    assert failure.retry_after == retry_after


def test_point_31_an_operation_that_a_newer_one_stopped_is_superseded() -> None:
    error = {
        "code": "1",
        "message": "1 error/s reported.",
        "details": [
            {
                "code": "NEWER_OPERATION_SUPERSEDED",
                "message": "Execution was stopped due to a newer operation taking precedence.",
            }
        ],
    }
    assert classify(failure_of_error(200, error)).reason is Reason.SUPERSEDED


def test_point_34_missing_and_forbidden_are_indistinguishable_and_the_sentence_has_both() -> None:
    body = refusal("AuthorizationFailed", "The client 'x' does not have authorization to perform action 'y'.")
    verdict = classify(read_failure(403, body))
    assert verdict.kind is ErrorClass.FORBIDDEN
    assert "missing" in verdict.sentence
    assert "right" in verdict.sentence


@pytest.mark.parametrize("status", [200, 409])
@pytest.mark.parametrize(
    "message",
    [
        "The operation requires the VM to be running (or set to run).",
        "Operation 'assessPatches' is not allowed on VM 'vm' since the VM is either deallocated or marked to be "
        "deallocated.",
    ],
)
def test_point_37_refusals_of_stopped_machines_come_at_once_and_from_the_operation(status: int, message: str) -> None:
    verdict = classify(read_failure(status, refusal(NOT_ALLOWED, message)))
    assert (verdict.kind, verdict.reason) == (ErrorClass.NOT_RUNNING, Reason.NOT_RUNNING)


def test_point_41_errors_with_capital_letters_are_read() -> None:
    body = '{"Error":{"Code":"InvalidScheduledEventId","Message":"Scheduled event not found"}}'
    failure = read_failure(400, body)
    assert (failure.code, failure.message) == ("InvalidScheduledEventId", "Scheduled event not found")
    assert read_failure(200, "null") == ArmFailure(status=200, message="null")


def test_a_page_of_a_proxy_is_kept_without_its_marks() -> None:
    assert read_failure(502, "<html><h1>502</h1>\r\n Bad   gateway</html>").message == "502 Bad gateway"


def test_long_texts_are_cut_with_a_mark() -> None:
    failure = read_failure(400, refusal("C", "x" * 10_000, details=[{"message": "y" * 10_000}] * 50))
    assert failure.message.endswith("[cut]")
    assert len(failure.details) == 10
    for text in (failure.message, failure.text, classify(failure).to_outcome(failure).message):
        assert len(text) == 2_000
        assert text.endswith(" … [cut]")


def test_half_a_character_pair_does_not_reach_the_storage() -> None:
    failure = read_failure(400, r'{"error":{"code":"\ud800","message":"a\udfffb","details":[{"code":"\ud800"}]}}')
    assert failure.text.encode()


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(["error", "Error", "code", "Code", "message", "details", "x"]), inner)
    ),
    max_leaves=12,
)
statuses = st.sampled_from([0, 200, 201, 202, 204, 301, 400, 401, 403, 404, 409, 410, 429, 500, 503, 599])


@given(statuses, st.text(max_size=200) | json_values.map(json.dumps))
@example(500, "[" * 200_000)
@example(400, '{"error":' * 200_000)
@example(400, '{"error":{"code":NaN,"message":Infinity}}')
@example(400, "1" * 5_000)
def test_reading_any_error_answer_never_raises(status: int, body: str) -> None:
    failure = read_failure(status, body)
    assert failure.status == status
    assert ArmFailure.model_validate(failure.to_wire()) == failure
    assert failure.text.encode() is not None
    assert classify(failure).to_outcome(failure).message


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, None),
        ("", None),
        ("soon", None),
        ("0", 0),
        ("10", 10),
        ("30", 30),
        ("120", 120),
        (" 7 ", 7),
        ("1.5", 1.5),
        ("-5", None),
        ("nan", None),
        ("inf", None),
        ("99999999", 3_600),
        (format_datetime(NOW + timedelta(seconds=90), usegmt=True), 90),
        (format_datetime(NOW - timedelta(seconds=90), usegmt=True), None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", 3_600),
        ("Mon, 01 Jan 99999 00:00:00 GMT", None),
    ],
)
def test_point_8_retry_after_in_both_forms_is_honoured_and_capped(value: str | None, seconds: float | None) -> None:
    assert parse_retry_after(value, NOW) == seconds


@given(st.text(max_size=40) | st.floats().map(str) | st.integers().map(str) | st.datetimes().map(format_datetime))
@example("Fri, 31 Dec 9999 23:59:59 -2359")
@example("Mon, 01 Jan 0001 00:00:00 +2359")
@example("Mon, 01 Jan 2026 00:00:00 +9999999999")
@example("Mon, 01 Jan 2026 99999999999999999999:00:00")
def test_a_wait_is_never_negative_nor_over_an_hour(value: str) -> None:
    seconds = parse_retry_after(value, NOW)
    assert seconds is None or 0 <= seconds <= 3_600


# --- one test per code and per text, each alone in a failed operation

GONE = "The machine no longer exists or is being deleted."
STOPPED = "The machine is not running: start it, or let the policy start stopped machines."
GUEST = "The guest cannot run the patch extension: bring the VM agent, Python, sudo or systemd up to date."
UNREGISTERED = "The subscription is not registered for this: register the provider Microsoft.Compute."
EXTENSION = "A VM extension did not finish: when it persists, remove the patch extension and try again."
ANOTHER = "Another operation is running on the machine."
GENERALIZED = "The machine was generalized and cannot be patched; exclude it."
SUPERSEDED = "Another operation on the machine took precedence and stopped this one."
HOST = "Azure is updating the host of the machine."
NO_SERVER = "Windows Update cannot reach its server: check proxy, WSUS address and network."
NO_SERVICE = "The Windows Update service is disabled on the machine."
NO_ANSWER = "Azure did not answer properly."

KINDS: dict[str, tuple[ErrorClass, Reason]] = {
    GONE: (ErrorClass.GONE, Reason.NOT_FOUND),
    "The machine no longer exists.": (ErrorClass.GONE, Reason.NOT_FOUND),
    GENERALIZED: (ErrorClass.UNSUPPORTED, Reason.UNSUPPORTED),
    STOPPED: (ErrorClass.NOT_RUNNING, Reason.NOT_RUNNING),
    "The VM agent does not report: check that it runs and reaches Azure.": (
        ErrorClass.NOT_RUNNING,
        Reason.AGENT_NOT_READY,
    ),
    "The power state of the machine is changing.": (ErrorClass.RETRY_LATER, Reason.OPERATION_CONFLICT),
    HOST: (ErrorClass.RETRY_LATER, Reason.OPERATION_CONFLICT),
    "Azure guest patching does not support the image of this machine.": (ErrorClass.UNSUPPORTED, Reason.UNSUPPORTED),
    "Azure guest patching has no extension for the processor of this machine.": (
        ErrorClass.UNSUPPORTED,
        Reason.UNSUPPORTED,
    ),
    GUEST: (ErrorClass.UNSUPPORTED, Reason.UNSUPPORTED),
    SUPERSEDED: (ErrorClass.FAILED, Reason.SUPERSEDED),
    EXTENSION: (ErrorClass.RETRY_LATER, Reason.OPERATION_FAILED),
    "The machine was shutting down.": (ErrorClass.RETRY_LATER, Reason.OPERATION_FAILED),
    "Azure reported an internal error: when it persists, check the VM agent, or the processor type (Arm64).": (
        ErrorClass.RETRY_LATER,
        Reason.OPERATION_FAILED,
    ),
    ANOTHER: (ErrorClass.BUSY, Reason.OPERATION_CONFLICT),
    "Azure is limiting requests; Patchwave waits as long as Azure asks.": (ErrorClass.THROTTLED, Reason.THROTTLED),
    "The token was refused; check the identity of the app when this persists.": (
        ErrorClass.RETRY_LATER,
        Reason.FORBIDDEN,
    ),
    "The machine is missing, or the identity of the app lacks the right to do this: grant it the patching role.": (
        ErrorClass.FORBIDDEN,
        Reason.FORBIDDEN,
    ),
    NO_ANSWER: (ErrorClass.RETRY_LATER, Reason.UNREACHABLE),
}
"""What is made of the failures that one sentence explains; of the others that the operation failed."""


def assert_explained(failure: ArmFailure, sentence: str) -> None:
    verdict = classify(failure)
    expected = KINDS.get(sentence, (ErrorClass.FAILED, Reason.OPERATION_FAILED))
    assert (verdict.sentence, verdict.kind, verdict.reason) == (sentence, *expected)


@pytest.mark.parametrize(
    ("code", "sentence"),
    [
        ("VMNotFound", GONE),
        ("NotFound", GONE),
        ("ResourceNotFound", GONE),
        ("ResourceGroupNotFound", GONE),
        ("CannotModifyExtensionsWhenVMNotRunning", STOPPED),
        ("ShutdownOrUnresponsive", STOPPED),
        ("VMAgentStatusCommunicationError", "The VM agent does not report: check that it runs and reaches Azure."),
        ("ResourceUpdateBlockedOnPlatformUpdate", HOST),
        ("CL_AGENT_TOO_OLD", GUEST),
        ("CL_PYTHON_TOO_OLD", GUEST),
        ("CL_SUDO_CHECK_FAILED", GUEST),
        ("CL_SYSTEMD_NOT_PRESENT", GUEST),
        ("MissingSubscriptionRegistration", UNREGISTERED),
        ("SubscriptionNotRegistered", UNREGISTERED),
        ("NEWER_OPERATION_SUPERSEDED", SUPERSEDED),
        (
            "VMGuestPatchInternalError",
            "Azure reported an internal error: when it persists, check the VM agent, or the processor type (Arm64).",
        ),
        ("VMExtensionProvisioningTimeout", EXTENSION),
        ("VMExtensionProvisioningError", EXTENSION),
        ("VMExtensionHandlerNonTransientError", EXTENSION),
        ("Conflict", ANOTHER),
        ("OperationInProgress", ANOTHER),
        ("SomethingNew", "Azure refused or failed the operation; the text says why."),
    ],
)
def test_each_code_has_its_sentence(code: str, sentence: str) -> None:
    assert_explained(ArmFailure(status=200, code=code), sentence)
    assert_explained(ArmFailure(status=200, details=[ErrorDetail(code.upper())]), sentence)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("marked for deletion", GONE),
        ("is generalized", GENERALIZED),
        ("has been generalized", GENERALIZED),
        ("marked as generalized", GENERALIZED),
        ("requires the VM to be running", STOPPED),
        ("either deallocated or marked to be deallocated", STOPPED),
        ("when the VM is not running", STOPPED),
        ("changing power state", "The power state of the machine is changing."),
        ("Schedule timeout, waiting for an ongoing update", HOST),
        (
            "image is not supported for VM guest patch",
            "Azure guest patching does not support the image of this machine.",
        ),
        (
            "was not found in the extension repository",
            "Azure guest patching has no extension for the processor of this machine.",
        ),
        ("Unsupported older Azure Linux Agent version", GUEST),
        (
            "Hotpatch updates require platform safety checks",
            "Hotpatch needs platform safety checks: set bypassPlatformSafetyChecksOnUserSchedule to false on the "
            "machine.",
        ),
        ("Subscription is not registered", UNREGISTERED),
        ("newer operation taking precedence", SUPERSEDED),
        ("Maintenance cancelled", "The maintenance was cancelled in Azure."),
        ("0x8024001E", "The machine was shutting down."),
        ("0x8024402C", NO_SERVER),
        ("0x8024401C", NO_SERVER),
        ("0x8024402F", NO_SERVER),
        ("0x80072EE2", NO_SERVER),
        ("0x8024002E", NO_SERVICE),
        ("0x80070422", NO_SERVICE),
        ("0x80070005", "Windows Update was denied access: check rights and free disk space."),
        ("another operation is in progress", ANOTHER),
        ("conflict with a concurrent request", ANOTHER),
    ],
)
def test_each_text_has_its_sentence(text: str, sentence: str) -> None:
    assert_explained(ArmFailure(status=200, message=f"Operation: {text}, says Azure."), sentence)
    assert_explained(ArmFailure(status=200, details=[ErrorDetail("x", text.upper())]), sentence)


@pytest.mark.parametrize(
    ("status", "sentence"),
    [
        (429, "Azure is limiting requests; Patchwave waits as long as Azure asks."),
        (401, "The token was refused; check the identity of the app when this persists."),
        (
            403,
            "The machine is missing, or the identity of the app lacks the right to do this: "
            "grant it the patching role.",
        ),
        (404, "The machine no longer exists."),
        (410, "The machine no longer exists."),
        (409, ANOTHER),
        (0, NO_ANSWER),
        (408, NO_ANSWER),
        (500, NO_ANSWER),
        (502, NO_ANSWER),
        (503, NO_ANSWER),
        (504, NO_ANSWER),
    ],
)
def test_each_status_has_its_sentence(status: int, sentence: str) -> None:
    assert_explained(ArmFailure(status=status), sentence)


@pytest.mark.parametrize(
    ("failure", "expected"),
    [
        (ArmFailure(status=429), True),
        (ArmFailure(status=429, code="LocallyThrottled", retry_after=12), True),
        (ArmFailure(status=429, code="OperationNotAllowed", retry_after=0), True),
        (ArmFailure(status=503, retry_after=5), True),
        (ArmFailure(status=503, retry_after=0), True),
        (ArmFailure(status=503), True),
        (ArmFailure(status=500, retry_after=5), False),
        (ArmFailure(status=409, code="TooManyRequests"), False),
        (ArmFailure(status=0), False),
    ],
)
def test_failures_that_are_throttling(failure: ArmFailure, expected: bool) -> None:
    assert is_throttling(failure) is expected
