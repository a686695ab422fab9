"""Following one long-running operation: which URL may be polled, and what an answer to a poll says.

Safety rules 4 and 5 of the design: two levels of status, unknown words never mean success, and a bearer token is
only ever sent to the configured Resource Manager host.
"""

import re
from enum import Enum, StrEnum, auto
from urllib.parse import unquote, urlsplit

from pydantic import Field

from patchwave.domain.azure.errors import ArmFailure, failure_of_error, read_failure
from patchwave.domain.core.documents import Document, Json, object_or_none, parse_instant, parse_object

MAX_URL = 8_192
"""Signed operation URLs are over 3 KB today; a URL beyond the request-line limit of proxies is no Azure URL."""


class UnsafeUrl(ValueError):
    """An operation URL that must not be followed. The message never holds the URL, which is signed."""


def check_operation_url(url: str, manager_url: str, subscription_id: str) -> str:
    """Return the URL, byte for byte, if a token may be sent to it.

    Raises:
        UnsafeUrl: it is not https on the Resource Manager host, leaves the subscription, names a user, or is too long.
    """
    if len(url) > MAX_URL:
        raise UnsafeUrl(f"the operation URL is longer than {MAX_URL} characters")
    # Not character by character: signed URLs are long, and looking through them took a fifth of a worker's time.
    if not (url.isascii() and url.isprintable()) or " " in url or "\\" in url:
        raise UnsafeUrl("the operation URL holds characters that no URL has")
    try:
        parts, manager = urlsplit(url), urlsplit(manager_url)
        port, manager_port = (443 if each.port is None else each.port for each in (parts, manager))
    except ValueError as error:
        raise UnsafeUrl("the operation URL cannot be read") from error
    if parts.scheme != "https":
        raise UnsafeUrl("the operation URL is not https")
    if "@" in parts.netloc:
        raise UnsafeUrl("the operation URL names a user")
    if (parts.hostname, port) != (manager.hostname, manager_port):
        raise UnsafeUrl("the operation URL is not on the Resource Manager host")
    # Dots and slashes can be encoded too: what a server may decode is what counts.
    steps_aside = {".", ".."} & set(unquote(parts.path).split("/"))
    if steps_aside or not parts.path.lower().startswith(f"/subscriptions/{subscription_id.lower()}/"):
        raise UnsafeUrl("the operation URL leaves the subscription of the machine")
    if "#" in url:
        raise UnsafeUrl("the operation URL has a fragment")
    return url


def operation_id(url: str) -> str:
    """The operation's id, which is the activity id everywhere else; empty when the URL has none.

    The documents show a Location without a question mark: ``…/operations/{id}&monitor=true``. Those of Arc machines are
    ``…/updateCenterOperationResults/{id}``.
    """
    found = re.search(r"/(?:operations|updateCenterOperationResults)/([0-9a-fA-F-]{36})(?:[?/&]|$)", url)
    return found[1].lower() if found else ""


class PollState(Enum):
    """What a poll says of the operation. It is never stored."""

    RUNNING = auto()
    SUCCEEDED = auto()
    """Ended well on the outer level; the result inside says whether patches did."""
    SUCCEEDED_WITHOUT_RESULT = auto()
    """Ended, but the result stands behind the other URL."""
    FAILED = auto()
    LOST = auto()
    """Azure no longer tells (record expired, or polls are forbidden): ask the machine instead."""
    UNCLEAR = auto()
    """No usable answer this time: poll again, within limits."""


class PollReading(Document):
    """One answer to a poll, read. ``result`` is the inner result, ``failure`` what went wrong."""

    state: PollState
    result: Json = Field(default_factory=dict)
    failure: ArmFailure | None = None
    retry_after: float | None = None
    """Seconds that Azure asks to wait before the next poll."""
    took: float | None = None
    """Seconds from its start to its end, of an operation that has ended."""


_RUNNING_STATUSES = (200, 201, 202)


def read_operation(status: int, body: str, *, retry_after: float | None = None) -> PollReading:
    """Read an answer of the Azure-AsyncOperation URL.

    Words that are neither success nor failure mean that it still runs: a deadline ends the wait, never a guess.
    """
    if status in _RUNNING_STATUSES:
        fields = parse_object(body)
        if fields is None:
            return _unclear(status, body, retry_after) if status == 200 else PollReading(state=PollState.RUNNING)
        word = str(fields.get("status", "")).casefold()
        if word == "succeeded":
            return _succeeded(fields)
        if word in ("failed", "canceled", "cancelled"):
            return _failed(fields, word)
        return PollReading(state=PollState.RUNNING)
    return _read_refusal(status, body, retry_after)


def read_location(status: int, body: str, *, retry_after: float | None = None) -> PollReading:
    """Read an answer of the Location URL: 202 while it runs, then the bare result."""
    if status == 202:
        return PollReading(state=PollState.RUNNING)
    if status == 200:
        fields = parse_object(body)
        if fields is None or "status" not in fields:
            return _unclear(status, body, retry_after)
        # Some services answer the operation's own form here; the bare result has no properties.output.
        if "properties" in fields or "name" in fields:
            return read_operation(status, body, retry_after=retry_after)
        if str(fields["status"]).casefold() == "inprogress":
            return PollReading(state=PollState.RUNNING)
        return PollReading(state=PollState.SUCCEEDED, result=fields)
    return _read_refusal(status, body, retry_after)


def _succeeded(fields: Json) -> PollReading:
    output = object_or_none((object_or_none(fields.get("properties")) or {}).get("output"))
    if output is None:
        return PollReading(state=PollState.SUCCEEDED_WITHOUT_RESULT)
    began, ended = parse_instant(fields.get("startTime")), parse_instant(fields.get("endTime"))
    took = (ended - began).total_seconds() if began and ended else None
    return PollReading(state=PollState.SUCCEEDED, result=output, took=took)


def _failed(fields: Json, word: str) -> PollReading:
    failure = failure_of_error(200, object_or_none(fields.get("error")) or {})
    if not failure.code:
        failure = failure.model_copy(update={"code": "Canceled" if word.startswith("cancel") else "OperationFailed"})
    return PollReading(state=PollState.FAILED, failure=failure)


def _read_refusal(status: int, body: str, retry_after: float | None) -> PollReading:
    failure = read_failure(status, body, retry_after=retry_after)
    # 403: the role may start operations but not read them (locations/operations/read is often forgotten).
    return PollReading(state=PollState.LOST if status in (403, 404, 410) else PollState.UNCLEAR, failure=failure)


def _unclear(status: int, body: str, retry_after: float | None) -> PollReading:
    return PollReading(state=PollState.UNCLEAR, failure=read_failure(status, body, retry_after=retry_after))


class OperationKind(StrEnum):
    """The two long-running patch operations."""

    ASSESS = "assess"
    INSTALL = "install"
