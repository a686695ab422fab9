"""A client of the app's HTTP API (docs/reference/api.md), the same for the local stack and for Azure.

Documents are handed on as the service wrote them (camelCase JSON objects), so that ``-o json`` shows the whole of them
and a newer service can add keys.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Self, cast
from urllib.parse import quote, urlsplit

import httpx

from patchwave.cli.errors import Detail, NotFoundError, RefusedError, UnreachableError
from patchwave.cli.json_fields import Json, items
from patchwave.cli.options import given

PAGE = 500
"""Rows asked for at a time."""
_NAMED = 5
"""Rows that cannot be read, of one page, that are named."""
PLAN_SECONDS = 230
"""Azure Functions cuts an HTTP answer off after this; a plan of a large fleet takes a while."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class ApiClient:
    """Requests to the API by path, and the calls that are more than one request.

    Raises (every method):
        NotFoundError: the service answered 404.
        RefusedError: the service answered another 4xx; its problem document's errors are in ``details``.
        UnreachableError: no answer, an answer of 5xx, or an answer that is not the service's.
    """

    def __init__(
        self,
        url: str,
        key: str = "",
        *,
        token: str = "",
        timeout_seconds: float = 30,
        warn: Callable[[str], object] = lambda _: None,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise RefusedError(
                f"{url!r} is not the address of a Patchwave service, such as https://NAME.azurewebsites.net"
            )
        if (key or token) and parts.scheme == "http" and parts.hostname not in _LOOPBACK:
            what = "token" if token else "key"
            raise RefusedError(f"The {what} is not sent to {parts.hostname} without encryption: use https")
        self.url = url.rstrip("/")
        self._warn = warn
        self._warned: set[str] = set()
        authorization = {"x-functions-key": key, "Authorization": token and f"Bearer {token}"}
        self._http = httpx.Client(
            base_url=self.url, headers=given(**authorization), timeout=httpx.Timeout(timeout_seconds, connect=10)
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def get(self, *path: str, slow: bool = False, **query: str) -> Json:
        """The document at a path below ``/api``; of the query what is not empty. ``slow``: it may take minutes."""
        return _document(self._send("GET", path, slow=slow, query=query))

    def exists(self, *path: str) -> bool:
        """Whether there is a document at a path."""
        try:
            self.get(*path)
        except NotFoundError:
            return False
        return True

    def post(self, *path: str, json: Json, slow: bool = False, **query: str) -> Json:
        """What the service answers to a request."""
        return _document(self._send("POST", path, json=json, slow=slow, query=query))

    def put(
        self, *path: str, json: Json, etag: str = "", only_create: bool = False, slow: bool = False, **query: str
    ) -> tuple[Json, bool]:
        """The stored document, as sent where the service does not return it, and whether it is new.

        With an ETag, only this version is replaced; with ``only_create`` none is.
        """
        headers = {"If-Match": etag} if etag else {"If-None-Match": "*"} if only_create else {}
        response = self._send("PUT", path, json=json, headers=headers, slow=slow, query=query)
        return (_document(response) if response.content else json), response.status_code == 201

    def patch(self, *path: str, json: Json, **query: str) -> Json:
        """The document as it is after a merge patch."""
        return _document(self._send("PATCH", path, json=json, query=query))

    def delete(self, *path: str, etag: str = "", slow: bool = False, **query: str) -> Json:
        """What the service answers to a deletion, with an ETag of this version only; empty where it answers nothing."""
        response = self._send("DELETE", path, headers={"If-Match": etag} if etag else {}, slow=slow, query=query)
        return _document(response) if response.content else {}

    def audit(self, *path: str, limit: int | None = None) -> list[Json]:
        """The audit log of the resource at a path, oldest first."""
        return list(self.pages(*path, "audit", key="audit", limit=limit))

    def start_run(self, request: Json, idempotency_key: str = "", *, reason: str = "", actor: str = "") -> Json:
        """Start a run and return its document; a repeated key, or a run that is live already, gives the first run."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        response = self._send("POST", ("runs",), json=request, headers=headers, query=given(reason=reason, actor=actor))
        run_id = urlsplit(_header(response, "Location")).path.rstrip("/").rpartition("/")[2]
        return self.run(run_id) if run_id else _document(response)

    def run(self, run_id: str) -> Json:
        """One run with its policy snapshot."""
        return self.get("runs", run_id)

    def send_run_command(self, run_id: str, command: str, reason: str, actor: str, ring: str = "") -> Json:
        """Send a run a command (pause, resume, cancel, approve, reject); the run as the service describes it then."""
        return self.post("runs", run_id, command, json=given(reason=reason, actor=actor, ring=ring))

    def machines(self, run_id: str, outcome: str = "", limit: int | None = None) -> Iterator[Json]:
        """The machines of a run, page by page, of one outcome or of all."""
        return self.pages("runs", run_id, "machines", key="machines", limit=limit, outcome=outcome)

    def policy(self, name: str) -> tuple[Json, str]:
        """A policy and its ETag."""
        response = self._send("GET", ("policies", name))
        return _document(response), _header(response, "ETag")

    def apply_policy(self, name: str, policy: Json, *, reason: str = "", actor: str = "") -> tuple[Json, bool]:
        """Create a policy or change it from the version that is there now; the policy, and whether it is new.

        With the ETag, a concurrent change is refused instead of lost.
        """
        try:
            _, etag = self.policy(name)
        except NotFoundError:
            etag = ""
        return self.put("policies", name, json=policy, etag=etag, only_create=not etag, reason=reason, actor=actor)

    def pages(
        self, *path: str, key: str, limit: int | None = None, unreadable: list[str] | None = None, **query: str
    ) -> Iterator[Json]:
        """The rows under a key, page by page, up to a limit; keys of rows that cannot be read go to ``unreadable``."""
        left, cursor = limit, ""
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            page = _document(self._send("GET", path, query={**query, "limit": str(size), "cursor": cursor}))
            damaged = cast("list[str]", page.get("unreadable") or [])
            if unreadable is not None:
                unreadable += damaged
            if damaged:
                named = ", ".join(damaged[:_NAMED]) + (", ..." if len(damaged) > _NAMED else "")
                text = f"{len(damaged)} stored rows cannot be read and are left out of {key}: {named}"
                # A list that is watched comes again and again.
                if text not in self._warned:
                    self._warned.add(text)
                    self._warn(text)
            # The service may answer with more than was asked for.
            rows = items(page, key)[:left]
            yield from rows
            left = None if left is None else left - len(rows)
            cursor = page.get("cursor") or ""
            if not cursor:
                return

    def _send(
        self,
        method: str,
        path: Iterable[str],
        *,
        json: Json | None = None,
        headers: dict[str, str] | None = None,
        slow: bool = False,
        query: dict[str, str] | None = None,
    ) -> httpx.Response:
        """Send a request to the resource at a path; of the query only what is not empty."""
        timeout = httpx.Timeout(PLAN_SECONDS, connect=10) if slow else self._http.timeout
        url = "/api/" + "/".join(quote(part, safe="~") for part in path)
        try:
            response = self._http.request(
                method, url, params=given(**query or {}), json=json, headers=headers, timeout=timeout
            )
        except httpx.TimeoutException as error:
            raise UnreachableError(f"{self.url} did not answer in time") from error
        except httpx.TransportError as error:
            raise UnreachableError(f"{self.url} cannot be reached: {error}") from error
        if response.is_success:
            return response
        problem = _problem(response)
        sentence = _sentence(response, problem)
        if response.status_code == 404:
            raise NotFoundError(sentence, _details(problem))
        if response.is_client_error:
            raise RefusedError(sentence, _details(problem))
        raise UnreachableError(sentence)


def _header(response: httpx.Response, name: str) -> str:
    return str(response.headers.get(name, ""))


def _document(response: httpx.Response) -> Json:
    try:
        found = response.json()
    except ValueError as error:
        raise UnreachableError(f"{response.url.host} answered something that is not JSON: is it Patchwave?") from error
    if not isinstance(found, dict):
        raise UnreachableError(f"{response.url.host} answered something unexpected: is it Patchwave?")
    return cast("Json", found)


def _problem(response: httpx.Response) -> Json:
    """The RFC 9457 document of a refusal; empty when the answer came from something in between."""
    try:
        return _document(response)
    except UnreachableError:
        return {}


def _sentence(response: httpx.Response, problem: Json) -> str:
    said = ". ".join(str(problem[key]).rstrip(".") for key in ("title", "detail") if problem.get(key))
    if said and response.status_code == 401:
        return f"{said} (401): set PATCHWAVE_TOKEN to a token that has not expired"
    if said:
        return f"{said} ({response.status_code})"
    if response.status_code in (401, 403):
        return (
            f"{response.url.host} wants another key ({response.status_code}): set --key or PATCHWAVE_KEY,"
            " and PATCHWAVE_TOKEN where people sign in"
        )
    if response.is_redirect:
        return f"{response.url.host} redirects to {_header(response, 'Location')}: give that address as --url"
    return f"{response.url.host} answered {response.status_code} {response.reason_phrase}"


def _details(problem: Json) -> tuple[Detail, ...]:
    errors = items(problem, "errors")
    return tuple(Detail(str(error.get("path", "")), str(error.get("message", ""))) for error in errors)
