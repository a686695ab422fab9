"""A small Patchwave service for the command's tests: the documents of the API over real HTTP, from a script."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

type Json = dict[str, Any]

SUBSCRIPTION = "11111111-2222-3333-4444-555555555555"


MOMENT = "2026-11-10T19:30:00.000Z"
ORDERED: dict[str, Json] = {
    "pause": {"state": "paused", "pausedFromState": "running", "pausedAt": MOMENT},
    "resume": {"state": "running", "pausedFromState": None, "pausedAt": None},
    "cancel": {"cancelRequestedAt": MOMENT},
    "approve": {"state": "running", "waitingFor": ""},
    "reject": {"state": "running", "waitingFor": ""},
}
"""What an order changes in the document of a run."""


def run_document(run_id: str, state: str = "completed", **changes: Any) -> Json:
    """A run as GET /api/runs/{id} gives it."""
    return {
        "id": run_id,
        "policy": "monthly",
        "mode": "patch",
        "state": state,
        "reason": "",
        "trigger": {"kind": "http", "actor": "key:default", "detail": ""},
        "createdAt": "2026-11-10T19:00:00.000Z",
        "startedAt": "2026-11-10T19:00:01.000Z",
        "endedAt": "2026-11-10T20:02:04.000Z" if state in ("completed", "failed", "canceled", "empty") else None,
        "occurrence": None,
        "windowEnd": None,
        "cancelRequestedAt": None,
        "machines": 4,
        "countsByOutcome": {"patched": 4},
        "countsByStage": {"done": 4},
        **changes,
    }


def machine_document(name: str, outcome: str | None, reason: str = "ok", **changes: Any) -> Json:
    """A machine's row as GET /api/runs/{id}/machines gives it."""
    return {
        "id": f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-web/providers/Microsoft.Compute/virtualMachines/{name}",
        "key": f"{abs(hash(name)):024x}"[-24:],
        "name": name,
        "subscriptionId": SUBSCRIPTION,
        "resourceGroup": "rg-web",
        "location": "westeurope",
        "osType": "Linux",
        "stage": "done" if outcome else "installing",
        "outcome": outcome,
        "reason": reason if outcome else "",
        "message": f"What to do about {name}." if outcome else "",
        "assessment": {"status": "Succeeded", "criticalAndSecurity": 3, "other": 2},
        "installation": None,
        "queuedAt": None,
        "startedAt": None,
        "endedAt": None,
        **changes,
    }


@dataclass
class Service:
    """The service's state, which a test sets, and what it was asked, which a test reads."""

    runs: dict[str, list[Json]] = field(default_factory=dict[str, list[Json]])
    """Per run the documents that successive GETs give; the last one stays."""
    machines: dict[str, list[Json]] = field(default_factory=dict[str, list[Json]])
    policies: dict[str, tuple[Json, int]] = field(default_factory=dict[str, tuple[Json, int]])
    audit: list[Json] = field(default_factory=list[Json])
    plan: Json = field(default_factory=dict[str, Any])
    requests: list[Json] = field(default_factory=list[Json])
    answers: list[Response] = field(default_factory=list[Response])
    """Answers to give, in turn, before any other."""

    def asked(self, method: str, path: str) -> list[Json]:
        """The requests of a method to a path, oldest first."""
        return [each for each in self.requests if each["method"] == method and each["path"] == path]

    async def answer(self, request: Request) -> Response:
        """Record the request and give the next scripted answer, or the route's own."""
        body = await request.body()
        self.requests.append(
            {
                "method": request.method,
                "path": request.url.path,
                "query": dict(request.query_params),
                "headers": dict(request.headers),
                "body": json.loads(body) if body else None,
            }
        )
        if self.answers:
            return self.answers.pop(0)
        parts = request.url.path.strip("/").split("/")[1:]
        match request.method, parts:
            case "POST", ["runs"]:
                run_id = "20261110T190000Z-monthly"
                self.runs.setdefault(run_id, [run_document(run_id)])
                return Response(status_code=202, headers={"Location": f"/api/runs/{run_id}", "Retry-After": "2"})
            case "GET", ["runs"]:
                newest = [documents[-1] for _, documents in sorted(self.runs.items(), reverse=True)]
                return self._page(request, "runs", newest)
            case "GET", ["runs", run_id] if run_id in self.runs:
                script = self.runs[run_id]
                return JSONResponse(script.pop(0) if len(script) > 1 else script[0])
            case "POST", ["runs", run_id, order] if run_id in self.runs:
                document = {**self.runs[run_id][-1], **ORDERED[order]}
                self.runs[run_id] = [document]
                return JSONResponse(document, status_code=202)
            case "POST", ["runs", run_id, "machines", key, order]:
                for row in self.machines.get(run_id, []):
                    if row["key"] == key:
                        retry = run_document(f"{run_id}-retry", "queued")
                        rules = {"policySnapshot": {"scope": {"subscriptions": ["s-1"]}}}
                        self.runs[retry["id"]] = [retry | rules, run_document(retry["id"])]
                        skipped = {**row, "skipCommand": {"actor": "ana", "reason": "being rebuilt", "at": MOMENT}}
                        return JSONResponse(skipped if order == "skip" else retry, status_code=202)
            case "GET", ["runs", run_id, "audit"] if run_id in self.runs:
                return self._page(request, "audit", self.audit)
            case "GET", ["runs", _, "plan"] if self.plan:
                return JSONResponse(self.plan)
            case "GET", ["runs", run_id, "machines"] if run_id in self.runs:
                outcome = request.query_params.get("outcome")
                rows = [row for row in self.machines.get(run_id, []) if outcome in (None, row["outcome"])]
                return self._page(request, "machines", rows)
            case "GET", ["runs", run_id, "machines", key]:
                for row in self.machines.get(run_id, []):
                    if row["key"] == key:
                        patches = [{"name": "openssl", "version": "3.0.2", "classifications": ["Security"]}]
                        return JSONResponse({"patches": patches} | row)
            case "GET", ["policies"]:
                return JSONResponse({"policies": [policy for policy, _ in self.policies.values()]})
            case method, ["policies", name]:
                return self._policy(method, name, request, body)
            case _:
                pass
        return problem(404, "Not found", "There is no such thing")

    def _policy(self, method: str, name: str, request: Request, body: bytes) -> Response:
        stored, version = self.policies.get(name, ({}, 0))
        if method == "PUT":
            expected = request.headers.get("if-match") or request.headers.get("if-none-match")
            if expected != (f'"{version}"' if version else "*"):
                return problem(412, "Precondition failed", "The policy was changed by another user")
            self.policies[name] = (json.loads(body), version + 1)
            return JSONResponse(json.loads(body), 200 if version else 201, {"ETag": f'"{version + 1}"'})
        if not version:
            return problem(404, "Not found", f"There is no policy {name}")
        if method == "DELETE":
            if request.headers.get("if-match") != f'"{version}"':
                return problem(412, "Precondition failed", "The policy was changed by another user")
            del self.policies[name]
            return Response(status_code=204)
        return JSONResponse(stored, headers={"ETag": f'"{version}"'})

    def _page(self, request: Request, key: str, rows: list[Json]) -> Response:
        start = int(request.query_params.get("cursor", "0"))
        # A service has a largest page of its own; 100 makes the tests page.
        end = start + min(100, int(request.query_params.get("limit", "100")))
        return JSONResponse({key: rows[start:end], "cursor": str(end) if end < len(rows) else None})


def problem(status: int, title: str, detail: str, *errors: tuple[str, str]) -> Response:
    """A problem document as the service writes it."""
    listed = [{"path": path, "message": message} for path, message in errors]
    document = {"type": "about:blank", "title": title, "status": status, "detail": detail, "errors": listed}
    return JSONResponse(document, status, media_type="application/problem+json")


def text_answer(status: int, text: str) -> Response:
    """What a gateway in between answers."""
    return PlainTextResponse(text, status)


@dataclass
class Front:
    """A server on a free loopback port, in a thread, before whichever service a test put behind it."""

    service: Service = field(default_factory=Service)
    url: str = ""

    @contextmanager
    def running(self) -> Generator[Front]:
        """Serve until the block ends."""

        async def answer(request: Request) -> Response:
            return await self.service.answer(request)

        app = Starlette(routes=[Route("/api/{path:path}", answer, methods=["GET", "POST", "PUT", "PATCH", "DELETE"])])
        server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="error", lifespan="off"))
        thread = threading.Thread(target=server.run, daemon=True)
        thread.start()
        while not server.started:
            time.sleep(0.005)
        self.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.should_exit = True
            thread.join(5)
