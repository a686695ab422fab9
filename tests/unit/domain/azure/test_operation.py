"""Following one operation: which URL may be polled, what a poll says, and which operation is ours."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from patchwave.domain.azure.errors import ArmFailure, ErrorClass, classify
from patchwave.domain.azure.operation import (
    OperationKind,
    PollState,
    UnsafeUrl,
    check_operation_url,
    operation_id,
    read_location,
    read_operation,
)
from patchwave.domain.azure.patch_results import PatchSummary
from patchwave.domain.runs.intent import Intent, Origin, is_ours, is_unanswered, origin
from tests.support.azure_bodies import (
    ASYNC_URL,
    IN_PROGRESS,
    LOCATION_URL,
    MANAGER,
    OPERATION,
    SUBSCRIPTION,
    assessment,
    ended,
    failed,
    refusal,
)

NOW = datetime(2026, 11, 21, 2, 0, tzinfo=UTC)
SKEW = timedelta(minutes=5)
PATH = f"/subscriptions/{SUBSCRIPTION}/providers/Microsoft.Compute/locations/westeurope/operations/{OPERATION}"


def is_followed(url: str, manager: str = MANAGER) -> bool:
    try:
        return check_operation_url(url, manager, SUBSCRIPTION) == url
    except UnsafeUrl:
        return False


def test_point_3_a_signed_url_of_over_3_kb_is_followed_byte_for_byte() -> None:
    for url in (ASYNC_URL, LOCATION_URL):
        assert 3_000 < len(url) < 3_500
        assert check_operation_url(url, MANAGER, SUBSCRIPTION) is url


@pytest.mark.parametrize(
    "url",
    [
        f"{MANAGER}{PATH}",
        f"{MANAGER}{PATH}?monitor=true&api-version=2021-03-01",
        f"{MANAGER}:443{PATH}?api-version=2025-04-01",
        f"HTTPS://MANAGEMENT.azure.com{PATH}",
        f"{MANAGER}{PATH.upper().replace('/SUBSCRIPTIONS', '/Subscriptions')}",
        f"{MANAGER}{PATH}?c=%2e%2e%2f&s=a%3D..",
    ],
)
def test_urls_of_the_manager_are_followed(url: str) -> None:
    assert is_followed(url)


def test_another_manager_is_another_setting() -> None:
    local = "https://localhost:8443"
    assert is_followed(f"{local}{PATH}?t=1", local)
    assert is_followed(f"{local}{PATH}?t=1", local + "/")
    assert not is_followed(f"https://localhost{PATH}", local)
    assert not is_followed(f"https://localhost:8444{PATH}", local)
    assert not is_followed(f"{MANAGER}{PATH}", local)


OTHER = "99999999-2222-4333-8444-555555555555"
HOSTILE_URLS = [
    "",
    "/",
    PATH,
    "//management.azure.com" + PATH,
    f"http://management.azure.com{PATH}",
    f"ftp://management.azure.com{PATH}",
    f"javascript:{MANAGER}{PATH}",
    f"https://evil.example{PATH}",
    f"https://management.azure.com.evil.example{PATH}",
    f"https://evil-management.azure.com{PATH}",
    f"https://management.azure.com@evil.example{PATH}",
    f"https://evil.example@management.azure.com{PATH}",
    f"https://user:secret@management.azure.com{PATH}",
    f"https://@management.azure.com{PATH}",
    f"https://management.azure.com:8443{PATH}",
    f"https://management.azure.com:0{PATH}",
    f"https://management.azure.com:99999{PATH}",
    f"https://management.azure.com:x{PATH}",
    f"https://management.azure.com.{PATH}",
    f"https://management.azure.com\\@evil.example{PATH}",
    f"https://evil.example\\{PATH}",
    f"https://evil.example#@management.azure.com{PATH}",
    f"https://evil.example?@management.azure.com{PATH}",
    f"https://[::1]{PATH}",
    f"https://[::1{PATH}",
    f"https://169.254.169.254{PATH}",
    f"https://xn--mnagement-43a.azure.com{PATH}",
    f"https://mаnagement.azure.com{PATH}",  # the first a is Cyrillic
    f"https://management。azure.com{PATH}",
    f"{MANAGER}{PATH.replace(SUBSCRIPTION, OTHER)}",
    f"{MANAGER}/subscriptions/{SUBSCRIPTION}",
    f"{MANAGER}/subscriptions/{SUBSCRIPTION}x/operations/1",
    f"{MANAGER}/tenants/{SUBSCRIPTION}/operations/1",
    f"{MANAGER}/x{PATH}",
    f"{MANAGER}/{PATH}",
    f"{MANAGER}/subscriptions/{SUBSCRIPTION}/../{OTHER}/operations/1",
    f"{MANAGER}/subscriptions/{SUBSCRIPTION}/./x",
    f"{MANAGER}/subscriptions/{SUBSCRIPTION}/..",
    f"{MANAGER}/subscriptions/{SUBSCRIPTION}/%2e%2e/{OTHER}/operations/1",
    f"{MANAGER}/subscriptions/{SUBSCRIPTION}/%2E%2E",
    f"{MANAGER}/subscriptions/{SUBSCRIPTION}/.%2e/{OTHER}",
    f"{MANAGER}/subscriptions/{SUBSCRIPTION}/x%2f..%2f..%2f{OTHER}",
    f"{MANAGER}/subscriptions/{SUBSCRIPTION}\\..\\{OTHER}",
    f"{MANAGER}{PATH}#fragment",
    f"{MANAGER}{PATH}#",
    f"{MANAGER}{PATH}\r\nHost: evil.example",
    f"{MANAGER}{PATH}?a=b c",
    f"{MANAGER}{PATH}\t",
    f" {MANAGER}{PATH}",
    f"{MANAGER}{PATH}\0",
    f"{MANAGER}{PATH}?x=ä",
    f"{MANAGER}{PATH}?c=" + "A" * 9_216,
]


@pytest.mark.parametrize("url", HOSTILE_URLS)
def test_a_token_is_never_sent_to_a_hostile_url(url: str) -> None:
    assert not is_followed(url)


hosts = st.sampled_from(["management.azure.com", "evil.example", "management.azure.com.evil.example", "localhost", ""])
schemes = st.sampled_from(["https", "http", "HTTPS", "file", ""])
users = st.sampled_from(["", "", "", "user@", "u:p@", "management.azure.com@", "@"])
ports = st.sampled_from(["", "", ":443", ":80", ":0", ":", ":65536", ":x"])
steps = st.lists(
    st.sampled_from(
        ["..", ".", "%2e%2e", "%2E.", "\\", "%5c", "operations", OPERATION, "", "%00", "ä", " ", "@", "//"]
    ),
    max_size=4,
)
tails = st.sampled_from(["", "?t=1&s=x", "#x", "?x=" + "y" * 9_000, "?@evil.example", "\n"])


@given(schemes, users, hosts, ports, st.sampled_from([SUBSCRIPTION, SUBSCRIPTION.upper(), OTHER]), steps, tails)
def test_only_https_on_the_managers_host_under_the_subscription_is_followed(
    scheme: str, user: str, host: str, port: str, subscription: str, path: list[str], tail: str
) -> None:
    url = f"{scheme}://{user}{host}{port}/subscriptions/{subscription}/" + "/".join(path) + tail
    if not is_followed(url):
        return
    assert scheme.lower() == "https"
    assert host == "management.azure.com"
    assert user == ""
    assert port in ("", ":", ":443")
    assert subscription.lower() == SUBSCRIPTION
    assert not {"..", ".", "%2e%2e", "%2E.", "\\", "ä", " "} & set(path)
    assert len(url) <= 8_192
    assert "#" not in url


def test_the_plain_form_of_the_generated_urls_is_followed() -> None:
    assert is_followed(f"https://management.azure.com/subscriptions/{SUBSCRIPTION}/operations/{OPERATION}?t=1&s=x")


@given(st.text(max_size=300))
def test_any_text_is_refused_as_a_url_without_any_other_error(text: str) -> None:
    assert not is_followed(text)


@pytest.mark.parametrize("url", [url for url in HOSTILE_URLS if len(url) > 40])
def test_point_46_a_refusal_never_holds_the_url(url: str) -> None:
    with pytest.raises(UnsafeUrl) as caught:
        check_operation_url(url + "?s=SIGNATURE", MANAGER, SUBSCRIPTION)
    assert "SIGNATURE" not in str(caught.value)
    assert "evil" not in str(caught.value)


def test_point_9_the_operation_id_is_the_activity_id() -> None:
    assert (
        operation_id(ASYNC_URL)
        == operation_id(LOCATION_URL.upper().replace("/OPERATIONS/", "/operations/"))
        == OPERATION
    )
    assert operation_id(f"{MANAGER}{PATH}") == OPERATION
    assert operation_id(f"{MANAGER}{PATH}/x") == OPERATION
    for url in ("", MANAGER, f"{MANAGER}/operations/short", f"{MANAGER}{PATH}x"):
        assert operation_id(url) == ""


def test_the_location_of_the_documents_has_no_question_mark() -> None:
    assert operation_id(f"{MANAGER}{PATH}&monitor=true&api-version=2024-07-01") == OPERATION
    assert operation_id(f"{MANAGER}{PATH.replace(OPERATION, OPERATION.upper())}&monitor=true") == OPERATION


def test_a_url_may_be_as_long_as_a_request_line() -> None:
    base = f"{MANAGER}{PATH}?c="
    assert is_followed(base + "A" * (8_192 - len(base)))
    assert not is_followed(base + "A" * (8_193 - len(base)))


@pytest.mark.parametrize(
    ("url", "why"),
    [
        (f"{MANAGER}{PATH}?c=" + "A" * 9_000, "longer than 8192"),
        (f"{MANAGER}{PATH}\t", "characters"),
        (f"https://[::1{PATH}", "cannot be read"),
        (f"http://management.azure.com{PATH}", "not https"),
        (f"https://user@management.azure.com{PATH}", "names a user"),
        (f"https://evil.example{PATH}", "not on the Resource Manager host"),
        (f"{MANAGER}{PATH.replace(SUBSCRIPTION, '99999999-2222-4333-8444-555555555555')}", "leaves the subscription"),
        (f"{MANAGER}{PATH}#x", "fragment"),
    ],
)
def test_the_log_has_the_reason_why_a_url_is_not_followed(url: str, why: str) -> None:
    with pytest.raises(UnsafeUrl, match=why):
        check_operation_url(url, MANAGER, SUBSCRIPTION)


@pytest.mark.parametrize("word", ["InProgress", "inprogress", "INPROGRESS"])
def test_a_bare_result_that_is_in_progress_is_no_end(word: str) -> None:
    body = json.dumps({"status": word, "installedPatchCount": 0})
    assert read_location(200, body).state is PollState.RUNNING
    assert read_location(200, body).result == {}


@pytest.mark.parametrize("key", ["properties", "name"])
def test_either_mark_of_the_operations_own_form_is_enough(key: str) -> None:
    assert read_location(200, json.dumps({"status": "Reticulating", key: {}})).state is PollState.RUNNING


@pytest.mark.parametrize("status", [201, 204])
def test_the_location_ends_with_200_alone(status: int) -> None:
    assert read_location(status, json.dumps(assessment())).state is PollState.UNCLEAR


def test_a_201_of_the_operation_is_read_as_a_200_is() -> None:
    assert read_operation(201, ended(assessment())).state is PollState.SUCCEEDED
    assert read_operation(201, "").state is PollState.RUNNING


def test_the_duration_is_known_when_both_ends_are() -> None:
    body = {
        "startTime": "2026-11-21T02:00:00.5Z",
        "endTime": "2026-11-21T02:03:10Z",
        "status": "Succeeded",
        "properties": {"output": {"status": "Succeeded"}},
    }
    assert read_operation(200, json.dumps(body)).took == 189.5
    for missing in ("startTime", "endTime"):
        assert read_operation(200, json.dumps(body | {missing: None})).took is None


def test_a_failed_operation_keeps_its_own_code_before_any_of_ours() -> None:
    told = {"status": "Canceled", "error": {"code": "MaintenanceCanceled", "message": "by a person"}}
    reading = read_operation(200, json.dumps(told))
    assert reading.failure == ArmFailure(status=200, code="MaintenanceCanceled", message="by a person")
    bare = read_operation(200, json.dumps({"status": "Failed"}))
    assert bare.failure == ArmFailure(status=200, code="OperationFailed")


def test_point_7_in_progress_is_running_whatever_else_is_missing() -> None:
    assert read_operation(200, IN_PROGRESS).state is PollState.RUNNING
    assert read_operation(202, "").state is PollState.RUNNING
    assert read_location(202, "").state is PollState.RUNNING
    assert read_location(202, IN_PROGRESS).state is PollState.RUNNING


def test_point_10_and_13_the_first_poll_may_end_it_and_either_url_has_the_result() -> None:
    result = assessment()
    inside = read_operation(200, ended(result))
    bare = read_location(200, json.dumps(result))
    assert inside.state is bare.state is PollState.SUCCEEDED
    assert inside.result == bare.result == result


@pytest.mark.parametrize("properties", ["", ',"properties":null', ',"properties":{}', ',"properties":{"output":null}'])
def test_point_13_an_end_without_a_result_sends_us_to_the_other_url(properties: str) -> None:
    body = f'{{"startTime":"2024-08-26T09:44:18Z","status":"Succeeded","name":"{OPERATION}"{properties}}}'
    assert read_operation(200, body).state is PollState.SUCCEEDED_WITHOUT_RESULT
    assert read_location(200, body).state is PollState.SUCCEEDED_WITHOUT_RESULT


def test_the_operations_own_form_behind_location_is_read_as_such() -> None:
    assert read_location(200, IN_PROGRESS).state is PollState.RUNNING
    assert read_location(200, ended(assessment())).result == assessment()
    assert read_location(200, failed("X", "y")).state is PollState.FAILED


def test_point_14_a_failed_operation_is_http_200_and_read_from_its_body() -> None:
    reading = read_operation(200, failed("VMGuestPatchInternalError", "An internal execution error occurred."))
    assert reading.state is PollState.FAILED
    assert reading.result == {}
    assert reading.failure is not None
    assert (reading.failure.status, reading.failure.code) == (200, "VMGuestPatchInternalError")
    assert classify(reading.failure).kind is ErrorClass.RETRY_LATER


@pytest.mark.parametrize("word", ["Canceled", "Cancelled", "canceled"])
def test_point_15_a_cancelled_operation_has_failed(word: str) -> None:
    reading = read_operation(200, json.dumps({"status": word, "name": OPERATION}))
    assert reading.state is PollState.FAILED
    assert reading.failure is not None
    assert reading.failure.code == "Canceled"


@pytest.mark.parametrize(
    "word", ["Running", "Updating", "Accepted", "Completed", "Success", "OK", "Done", "", "NotStarted"]
)
def test_point_15_unknown_words_mean_that_it_still_runs(word: str) -> None:
    body = {"status": word, "name": OPERATION, "properties": {"output": assessment()}}
    assert read_operation(200, json.dumps(body)).state is PollState.RUNNING


@given(st.text(max_size=20) | st.none() | st.integers() | st.booleans() | st.lists(st.just("Succeeded")))
@example("succeeded ")
@example(["Succeeded"])
@example({"Succeeded": True})
def test_no_word_but_succeeded_is_success(word: Any) -> None:
    body = json.dumps({"status": word, "name": OPERATION, "properties": {"output": assessment()}})
    good = isinstance(word, str) and word.casefold() == "succeeded"
    for read in (read_operation, read_location):
        assert (read(200, body).state is PollState.SUCCEEDED) is good


json_values: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.sampled_from(["Succeeded", "Failed", "x", "\ud800"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["status", "properties", "output", "name", "error", "code", "details"]), inner
        )
    ),
    max_leaves=12,
)
statuses = st.sampled_from([0, 100, 200, 201, 202, 204, 302, 400, 401, 403, 404, 409, 410, 429, 500, 502, 503, 599])


@given(statuses, st.text(max_size=100) | json_values.map(json.dumps))
@example(200, "[" * 200_000)
@example(200, '{"status":' * 200_000)
@example(200, "null")
@example(200, '"Succeeded"')
@example(200, "\ufeff{}")
def test_reading_any_poll_never_raises_and_success_needs_its_word(status: int, body: str) -> None:
    for read in (read_operation, read_location):
        reading = read(status, body, retry_after=3)
        if reading.state is PollState.SUCCEEDED:
            # Of the bare result behind Location the inner word counts, which is judged elsewhere.
            assert read is read_location or '"Succeeded"' in body
            assert status in (200, 201, 202)
            assert isinstance(json.loads(body), dict)
        if reading.state in (PollState.LOST, PollState.UNCLEAR, PollState.FAILED):
            assert reading.failure is not None


@pytest.mark.parametrize(("status", "state"), [(404, PollState.LOST), (410, PollState.LOST), (403, PollState.LOST)])
def test_point_33_and_35_a_record_that_is_gone_or_closed_to_us_is_lost(status: int, state: PollState) -> None:
    body = refusal(
        "AuthorizationFailed", "does not have authorization to perform 'Microsoft.Compute/locations/operations/read'"
    )
    for read in (read_operation, read_location):
        reading = read(status, body)
        assert reading.state is state
        assert reading.failure is not None
        assert reading.failure.status == status


@pytest.mark.parametrize("status", [0, 401, 408, 429, 500, 502, 503, 504])
def test_point_33_a_poll_that_went_wrong_is_polled_again(status: int) -> None:
    for read in (read_operation, read_location):
        reading = read(status, "<html>Bad gateway</html>", retry_after=12)
        assert reading.state is PollState.UNCLEAR
        assert reading.failure is not None
        assert reading.failure.retry_after == 12


@pytest.mark.parametrize("body", ["", "<html></html>", "[]", '"x"', '{"status":"Succ', "null"])
def test_a_200_that_cannot_be_read_is_unclear_and_not_the_end(body: str) -> None:
    assert read_operation(200, body).state is PollState.UNCLEAR
    assert read_location(200, body).state is PollState.UNCLEAR


# --- whose operation is it ----------------------------------------------------------------------------------


def intent(**fields: Any) -> Intent:
    given_fields: dict[str, Any] = {
        "run_id": "20261110T190000Z-monthly",
        "machine_key": "a" * 24,
        "machine_id": "x",
        "kind": OperationKind.INSTALL,
        "created_at": NOW,
        "sent_at": NOW,
        "deadline_at": NOW + timedelta(hours=2),
    }
    return Intent(**(given_fields | fields))


def summary(activity: str, started: datetime | None = None) -> PatchSummary:
    return PatchSummary.model_validate({"installationActivityId": activity, "startTime": started})


def test_an_operation_with_our_id_is_ours_and_any_other_is_not() -> None:
    known = intent(activity_id=OPERATION)
    assert is_ours(known, summary(OPERATION.upper(), NOW - timedelta(days=3)))
    assert not is_ours(known, summary("other", NOW + timedelta(minutes=1)))


def test_without_an_id_only_what_is_new_since_the_intent_is_ours() -> None:
    unknown = intent(previous_activity_id="Before")
    assert is_ours(unknown, summary("new", NOW + timedelta(seconds=10)))
    assert is_ours(unknown, summary("new", NOW - SKEW))
    assert is_ours(unknown, summary("new"))
    assert not is_ours(unknown, summary("new", NOW - SKEW - timedelta(seconds=1)))
    assert not is_ours(unknown, summary("before", NOW + timedelta(seconds=10)))
    assert not is_ours(unknown, summary("", NOW + timedelta(seconds=10)))
    assert not is_ours(unknown, None)


def test_the_skew_of_two_clocks_is_five_minutes() -> None:
    assert is_ours(intent(), summary("new", NOW - timedelta(seconds=300)))
    assert not is_ours(intent(), summary("new", NOW - timedelta(seconds=301)))


# --- after an answer that is no acceptance

BUSY = ArmFailure(status=409, code="Conflict", message="x")
THROTTLED = ArmFailure(status=429)


@pytest.mark.parametrize(
    ("answer", "unanswered"),
    [
        (None, True),
        (ArmFailure(status=0), True),
        (ArmFailure(status=500), True),
        (ArmFailure(status=503), True),
        (ArmFailure(status=499), False),
        (BUSY, False),
        (THROTTLED, False),
        (ArmFailure(status=1), False),
    ],
)
def test_what_is_an_answer(answer: ArmFailure | None, unanswered: bool) -> None:
    assert is_unanswered(intent(answer=answer)) is unanswered


@pytest.mark.parametrize("answer", [None, ArmFailure(status=0), ArmFailure(status=503)])
def test_without_an_answer_what_is_new_since_the_intent_is_ours(answer: ArmFailure | None) -> None:
    unknown = intent(previous_activity_id="Before", answer=answer)
    assert origin(unknown, summary("new", NOW - SKEW)) is Origin.OURS
    assert origin(unknown, summary("new")) is Origin.OURS
    assert origin(unknown, summary("new", NOW - SKEW - timedelta(seconds=1))) is Origin.OTHER
    assert origin(unknown, summary("before", NOW)) is Origin.OTHER
    assert origin(unknown, None) is Origin.OTHER


@pytest.mark.parametrize("answer", [BUSY, THROTTLED])
def test_after_a_refusal_only_what_began_later_is_ours(answer: ArmFailure) -> None:
    refused = intent(previous_activity_id="Before", answer=answer)
    assert origin(refused, summary("new", NOW + timedelta(seconds=9))) is Origin.OURS
    assert origin(refused, summary("new", NOW)) is Origin.OURS
    assert origin(refused, summary("new", NOW - timedelta(seconds=1))) is Origin.UNCLEAR
    assert origin(refused, summary("new", NOW - SKEW)) is Origin.UNCLEAR
    assert origin(refused, summary("new")) is Origin.UNCLEAR
    assert origin(refused, summary("new", NOW - SKEW - timedelta(seconds=1))) is Origin.OTHER
    assert origin(refused, summary("BEFORE", NOW + timedelta(seconds=9))) is Origin.OTHER
    assert origin(refused, summary("", NOW + timedelta(seconds=9))) is Origin.OTHER
    assert origin(refused, None) is Origin.OTHER


def test_a_stamp_in_whole_seconds_may_lie_before_the_intent() -> None:
    refused = intent(created_at=NOW + timedelta(milliseconds=900), answer=BUSY)
    assert origin(refused, summary("new", NOW)) is Origin.OURS


def test_a_known_id_needs_no_time() -> None:
    known = intent(activity_id=OPERATION, answer=BUSY)
    assert origin(known, summary(OPERATION, NOW - timedelta(days=1))) is Origin.OURS
    assert origin(known, summary("other", NOW)) is Origin.OTHER
