"""A client of the app's HTTP API, the same for the local stack and for Azure.

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

PAGE = 500
"""Rows asked for at a time."""
_NAMED = 5
"""Rows that cannot be read, of one page, that are named."""
PLAN_SECONDS = 230
"""Azure Functions cuts an HTTP answer off after this; a plan of a large fleet takes a while."""

_LOOPBACK = ("localhost", "127.0.0.1", "::1")


class ApiClient:
    """Calls of the API, one method each.

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
        self._url = url.rstrip("/")
        self._warn = warn
        self._warned: set[str] = set()
        self._http = httpx.Client(
            base_url=self._url,
            headers=_given(**{"x-functions-key": key, "Authorization": f"Bearer {token}" if token else ""}),
            timeout=httpx.Timeout(timeout_seconds, connect=10),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._http.close()

    def start_run(self, request: Json, idempotency_key: str = "", *, reason: str = "", actor: str = "") -> Json:
        """Start a run and return its document; a repeated key, or a run that is live already, gives the first run."""
        headers = {"Idempotency-Key": idempotency_key} if idempotency_key else {}
        said = _given(reason=reason, actor=actor)
        response = self._send("POST", "/api/runs", json=request, headers=headers, params=said)
        run_id = urlsplit(_header(response, "Location")).path.rstrip("/").rpartition("/")[2]
        return self.run(run_id) if run_id else _document(response)

    def run(self, run_id: str) -> Json:
        """One run with its policy snapshot."""
        return _document(self._send("GET", f"/api/runs/{_segment(run_id)}"))

    def runs(self, limit: int) -> list[Json]:
        """The runs with the newest ids, newest first."""
        return list(self._pages("/api/runs", "runs", {}, limit))

    def each_run(self) -> Iterator[Json]:
        """All runs, in the order of their ids, newest first, read as far as they are looked at."""
        return self._pages("/api/runs", "runs", {}, None)

    def send_run_command(self, run_id: str, command: str, reason: str, actor: str, ring: str = "") -> Json:
        """Pause, resume or cancel a run, or approve or reject one of its rings; the run afterwards."""
        body = _given(reason=reason, actor=actor, ring=ring)
        return _document(self._send("POST", f"/api/runs/{_segment(run_id)}/{command}", json=body))

    def send_machine_command(self, run_id: str, machine_key: str, command: str, reason: str, actor: str) -> Json:
        """Skip a machine (its row), or retry it (the new run)."""
        path = f"/api/runs/{_segment(run_id)}/machines/{_segment(machine_key)}/{command}"
        return _document(self._send("POST", path, json=_given(reason=reason, actor=actor)))

    def run_audit(self, run_id: str, limit: int | None = None) -> Iterator[Json]:
        """Who ordered what in a run and what its gates did, oldest first."""
        return self._pages(f"/api/runs/{_segment(run_id)}/audit", "audit", {}, limit)

    def evidence(self, run_id: str, unreadable: list[str]) -> Iterator[Json]:
        """Everything that is kept of a run, record by record; keys of rows that cannot be read go to ``unreadable``."""
        return self._pages(f"/api/runs/{_segment(run_id)}/evidence", "records", {}, None, unreadable=unreadable)

    def acknowledge_export(self, run_id: str, records: int) -> Json:
        """Say that so many records of a run's evidence, all of them, are kept here; the run."""
        path = f"/api/runs/{_segment(run_id)}/evidence/exported"
        return _document(self._send("POST", path, json={"records": records}, timeout_seconds=PLAN_SECONDS))

    def refused_calls(self, limit: int | None = None) -> Iterator[Json]:
        """Who was not let in where, and why, oldest first."""
        return self._pages("/api/audit/refused", "audit", {}, limit)

    def run_plan(self, run_id: str) -> Json:
        """The plan that a run follows."""
        return _document(self._send("GET", f"/api/runs/{_segment(run_id)}/plan", timeout_seconds=PLAN_SECONDS))

    def machines(self, run_id: str, outcome: str = "", limit: int | None = None) -> Iterator[Json]:
        """The machines of a run, page by page, of one outcome or of all."""
        parameters = {"outcome": outcome} if outcome else {}
        return self._pages(f"/api/runs/{_segment(run_id)}/machines", "machines", parameters, limit)

    def machine(self, run_id: str, machine_key: str) -> Json:
        """One machine of a run with every patch."""
        return _document(self._send("GET", f"/api/runs/{_segment(run_id)}/machines/{_segment(machine_key)}"))

    def plan_dry_run(self, request: Json) -> Json:
        """What a run of a policy would do on the fleet as it is now; nothing is stored or started."""
        return _document(self._send("POST", "/api/plans", json=request, timeout_seconds=PLAN_SECONDS))

    def doctor(self, kinds: Iterable[str], subject: str, stale_days: int) -> Json:
        """What silently goes wrong in the fleet, of some kinds of findings or of all."""
        asked = _given(kind=",".join(kinds), subject=subject) | {"staleDays": str(stale_days)}
        return _document(self._send("GET", "/api/fleet/doctor", params=asked, timeout_seconds=PLAN_SECONDS))

    def policies(self) -> list[Json]:
        """Every policy."""
        return list(self._pages("/api/policies", "policies", {}, None))

    def policy(self, name: str) -> tuple[Json, str]:
        """A policy and its ETag."""
        response = self._send("GET", f"/api/policies/{_segment(name)}")
        return _document(response), _header(response, "ETag")

    def put_policy(
        self, name: str, policy: Json, etag: str = "", *, reason: str = "", actor: str = ""
    ) -> tuple[Json, bool]:
        """Create a policy (no ETag) or change the one that has this ETag; the policy, and whether it is new."""
        condition = {"If-Match": etag} if etag else {"If-None-Match": "*"}
        said = _given(reason=reason, actor=actor)
        response = self._send("PUT", f"/api/policies/{_segment(name)}", json=policy, headers=condition, params=said)
        return (_document(response) if response.content else policy), response.status_code == 201

    def apply_policy(self, name: str, policy: Json, *, reason: str = "", actor: str = "") -> tuple[Json, bool]:
        """Create a policy or change it from the version that is there now; the policy, and whether it is new.

        With the ETag, a concurrent change is refused instead of lost.
        """
        try:
            _, etag = self.policy(name)
        except NotFoundError:
            etag = ""
        return self.put_policy(name, policy, etag, reason=reason, actor=actor)

    def delete_policy(self, name: str, etag: str, *, reason: str = "", actor: str = "") -> None:
        """Delete the policy that has this ETag; runs that it started go on with their own copy."""
        condition = {"If-Match": etag} if etag else {}
        said = _given(reason=reason, actor=actor)
        self._send("DELETE", f"/api/policies/{_segment(name)}", headers=condition, params=said)

    def import_policy(self, configuration: str, name: str) -> Json:
        """What a maintenance configuration is as policies, and what becomes of each field; nothing is stored."""
        body = _given(configurationId=_configuration_id(configuration), name=name)
        return _document(self._send("POST", "/api/policies/import", json=body, timeout_seconds=PLAN_SECONDS))

    def export_policy(self, name: str, configuration: str, location: str, allow_loss: list[str]) -> Json:
        """What a policy is as a maintenance configuration with its assignments; nothing is changed in Azure."""
        body = {"configurationId": _configuration_id(configuration), "location": location, "allowLoss": allow_loss}
        return _document(self._send("POST", f"/api/policies/{_segment(name)}/export", json=body))

    def occurrences(self, policy: str, count: int) -> Json:
        """What a policy does next, and why an occurrence will not run."""
        return _document(
            self._send("GET", f"/api/policies/{_segment(policy)}/occurrences", params={"count": str(count)})
        )

    def send_policy_command(self, policy: str, what: str, reason: str, actor: str) -> Json:
        """``pause``, ``resume``, ``skip-next`` or ``run-now``; the overrides of the schedule, or the run."""
        return _document(
            self._send("POST", f"/api/policies/{_segment(policy)}/{what}", json={"reason": reason, "actor": actor})
        )

    def unskip_next(self, policy: str, reason: str, actor: str) -> Json:
        """Take back that the next occurrence of a policy is skipped; the overrides of its schedule afterwards."""
        parameters = {"reason": reason, "actor": actor}
        return _document(self._send("DELETE", f"/api/policies/{_segment(policy)}/skip-next", params=parameters))

    def policy_audit(self, name: str, limit: int | None = None) -> Iterator[Json]:
        """Who changed and ordered what about a policy, and why it was not started, oldest first."""
        return self._pages(f"/api/policies/{_segment(name)}/audit", "audit", {}, limit)

    def freeze_audit(self, name: str, limit: int | None = None) -> Iterator[Json]:
        """Who changed a freeze, and why, oldest first."""
        return self._pages(f"/api/freezes/{_segment(name)}/audit", "audit", {}, limit)

    def freezes(self) -> list[Json]:
        """Every freeze."""
        return items(_document(self._send("GET", "/api/freezes")), "freezes")

    def put_freeze(self, name: str, freeze: Json, actor: str) -> tuple[Json, bool]:
        """Create or replace a freeze; the freeze, and whether it is new."""
        response = self._send("PUT", f"/api/freezes/{_segment(name)}", json=freeze, params={"actor": actor})
        return _document(response), response.status_code == 201

    def delete_freeze(self, name: str, reason: str, actor: str) -> None:
        """Delete a freeze."""
        self._send("DELETE", f"/api/freezes/{_segment(name)}", params={"reason": reason, "actor": actor})

    def configurations(self, subscription: str = "", group: str = "") -> Iterator[Json]:
        """Maintenance configurations with their next runs, of one subscription (and group) or of all."""
        cursor = ""
        while True:
            asked = _given(subscription=subscription, resourceGroup=group, cursor=cursor)
            page = _document(self._send("GET", "/api/maintenance/configurations", params=asked))
            yield from items(page, "configurations")
            cursor = page.get("cursor") or ""
            if not cursor:
                return

    def configuration(self, name: str) -> Json:
        """One maintenance configuration, by its ARM id or ``SUBSCRIPTION/GROUP/NAME``, with its next runs."""
        return _document(self._send("GET", _configuration_path(name)))

    def put_configuration(
        self, name: str, configuration: Json, actor: str, *, only_create: bool = False
    ) -> tuple[Json, bool]:
        """Create a maintenance configuration or, unless only that is asked for, replace the one that is there.

        The body is Azure's own. Returned are what Azure made of it, and whether it is new.
        """
        headers = {"If-None-Match": "*"} if only_create else {}
        path = _configuration_path(name)
        response = self._send("PUT", path, json=configuration, params=_given(actor=actor), headers=headers)
        return _document(response), response.status_code == 201

    def change_configuration(self, name: str, change: Json, actor: str) -> Json:
        """Apply a merge patch to a maintenance configuration."""
        return _document(self._send("PATCH", _configuration_path(name), json=change, params=_given(actor=actor)))

    def delete_configuration(self, name: str, reason: str, actor: str) -> None:
        """Delete a maintenance configuration."""
        self._send("DELETE", _configuration_path(name), params={"reason": reason, "actor": actor})

    def coming_runs(self, name: str, count: int) -> Json:
        """When a maintenance configuration runs next."""
        return _document(self._send("GET", f"{_configuration_path(name)}/runs", params={"count": str(count)}))

    def cancel_scheduled_run(self, name: str, run: str, reason: str, actor: str) -> Json:
        """Cancel one coming run of a maintenance configuration, the next one unless it is named."""
        body = {"reason": reason, "actor": actor}
        return _document(self._send("POST", f"{_configuration_path(name)}/cancel", json=body, params=_given(run=run)))

    def configuration_audit(self, name: str, limit: int | None = None) -> Iterator[Json]:
        """Who changed a maintenance configuration and its assignments, and why, oldest first."""
        return self._pages(f"{_configuration_path(name)}/audit", "audit", {}, limit)

    def maintenance_runs(self, limit: int | None = None) -> Iterator[Json]:
        """Maintenance runs, newest first."""
        return self._pages("/api/maintenance/runs", "runs", {}, limit)

    def maintenance_run(self, run_id: str) -> Json:
        """One of them, by the run around it."""
        return _document(self._send("GET", f"/api/maintenance/runs/{_segment(run_id)}"))

    def maintenance_run_machines(self, run_id: str, *, status_mismatch: bool = False) -> Iterator[Json]:
        """Its machines, or those that Update Manager called done and that are not."""
        asked = _given(statusMismatch="true" if status_mismatch else "")
        return self._pages(f"/api/maintenance/runs/{_segment(run_id)}/machines", "machines", asked, None)

    def assignments(self, *, machine: str = "", configuration: str = "") -> Json:
        """What a machine is assigned to, or what a maintenance configuration is assigned to."""
        asked = _given(machine=machine, configuration=_configuration_id(configuration) if configuration else "")
        return _document(self._send("GET", "/api/maintenance/assignments", params=asked, timeout_seconds=PLAN_SECONDS))

    def assign(self, configuration: str, request: Json, actor: str) -> Json:
        """Assign a maintenance configuration to a machine or a dynamic scope."""
        body = {"configurationId": _configuration_id(configuration), **request}
        path = "/api/maintenance/assignments"
        return _document(self._send("PUT", path, json=body, params=_given(actor=actor), timeout_seconds=PLAN_SECONDS))

    def unassign(self, configuration: str, machine: str, reason: str, actor: str) -> Json:
        """Remove a machine from a maintenance configuration."""
        asked = {
            "configuration": _configuration_id(configuration),
            "machine": machine,
            "reason": reason,
            "actor": actor,
        }
        return _document(
            self._send("DELETE", "/api/maintenance/assignments", params=asked, timeout_seconds=PLAN_SECONDS)
        )

    def delete_assignment(self, assignment: str, reason: str, actor: str) -> Json:
        """Remove one assignment of a machine or a dynamic scope."""
        asked = {"assignment": assignment, "reason": reason, "actor": actor}
        return _document(
            self._send("DELETE", "/api/maintenance/assignments", params=asked, timeout_seconds=PLAN_SECONDS)
        )

    def fleet_modes(self, asked: dict[str, str]) -> Json:
        """What each machine is set to and what will patch it."""
        return _document(self._send("GET", "/api/fleet/modes", params=asked, timeout_seconds=PLAN_SECONDS))

    def fleet_eligibility(self, asked: dict[str, str]) -> Json:
        """The machines that guest patching does not take, and why not."""
        return _document(self._send("GET", "/api/fleet/eligibility", params=asked, timeout_seconds=PLAN_SECONDS))

    def plan_mode_change(self, request: Json) -> Json:
        """Plan a change of patch modes; nothing is changed."""
        return _document(self._send("POST", "/api/fleet/mode-changes", json=request, timeout_seconds=PLAN_SECONDS))

    def send_mode_change_command(self, change_id: str, what: str, reason: str, actor: str) -> Json:
        """``start`` or ``stop`` a change of patch modes; the change afterwards."""
        path = f"/api/fleet/mode-changes/{_segment(change_id)}/{what}"
        return _document(self._send("POST", path, json={"reason": reason, "actor": actor}))

    def mode_change(self, change_id: str) -> Json:
        """One change of patch modes."""
        return _document(self._send("GET", f"/api/fleet/mode-changes/{_segment(change_id)}"))

    def mode_changes(self, limit: int | None = None) -> Iterator[Json]:
        """Changes of patch modes, newest first."""
        return self._pages("/api/fleet/mode-changes", "changes", {}, limit)

    def mode_change_machines(self, change_id: str, end: str = "", limit: int | None = None) -> Iterator[Json]:
        """The machines of a change, page by page, of one end or of all."""
        path = f"/api/fleet/mode-changes/{_segment(change_id)}/machines"
        return self._pages(path, "machines", _given(end=end), limit)

    def mode_change_audit(self, change_id: str, limit: int | None = None) -> Iterator[Json]:
        """Who planned, started and stopped a change, oldest first."""
        return self._pages(f"/api/fleet/mode-changes/{_segment(change_id)}/audit", "audit", {}, limit)

    def _pages(
        self,
        path: str,
        key: str,
        parameters: dict[str, str],
        limit: int | None,
        *,
        unreadable: list[str] | None = None,
    ) -> Iterator[Json]:
        left = limit
        cursor = ""
        while left is None or left > 0:
            size = PAGE if left is None else min(PAGE, left)
            asked = {**parameters, "limit": str(size), **({"cursor": cursor} if cursor else {})}
            page = _document(self._send("GET", path, params=asked))
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
        path: str,
        *,
        params: dict[str, str] | None = None,
        json: Json | None = None,
        headers: dict[str, str] | None = None,
        timeout_seconds: float | None = None,
    ) -> httpx.Response:
        timeout = self._http.timeout if timeout_seconds is None else httpx.Timeout(timeout_seconds, connect=10)
        try:
            response = self._http.request(method, path, params=params, json=json, headers=headers, timeout=timeout)
        except httpx.TimeoutException as error:
            raise UnreachableError(f"{self._url} did not answer in time") from error
        except httpx.TransportError as error:
            raise UnreachableError(f"{self._url} cannot be reached: {error}") from error
        if response.is_success:
            return response
        problem = _problem(response)
        sentence = _sentence(response, problem)
        if response.status_code == 404:
            raise NotFoundError(sentence, _details(problem))
        if response.is_client_error:
            raise RefusedError(sentence, _details(problem))
        raise UnreachableError(sentence)


def _configuration_id(name: str) -> str:
    """The ARM id of a maintenance configuration, which people may write as ``SUBSCRIPTION/GROUP/NAME``."""
    parts = name.strip("/").split("/")
    if len(parts) == 8:
        return f"/{name.strip('/')}"
    if len(parts) != 3:
        raise RefusedError(f"{name!r} is no maintenance configuration: write its ARM id, or SUBSCRIPTION/GROUP/NAME")
    subscription, group, last = parts
    return (
        f"/subscriptions/{subscription}/resourceGroups/{group}"
        f"/providers/Microsoft.Maintenance/maintenanceConfigurations/{last}"
    )


def _configuration_path(name: str) -> str:
    parts = _configuration_id(name).split("/")
    return "/api/maintenance/configurations/" + "/".join(_segment(parts[index]) for index in (2, 4, 8))


def _given(**texts: str) -> Json:
    return {name: text for name, text in texts.items() if text}


def _segment(text: str) -> str:
    return quote(text, safe="~")


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
