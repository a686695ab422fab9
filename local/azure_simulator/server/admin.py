"""``/_sim``: the simulator's own controls and its log of requests. Nothing of it exists in Azure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from local.azure_simulator.maintenance.admin import MaintenanceAdmin
from local.azure_simulator.state import AzureState


class Admin:
    """Handlers below ``/_sim``."""

    def __init__(self, azure: AzureState, maintenance: MaintenanceAdmin) -> None:
        self.azure = azure
        self.maintenance = maintenance

    async def handle(self, request: Request) -> Response:
        """Answer one request; problems are plain JSON with ``error``."""
        part, _, rest = request.path_params.get("path", "").strip("/").partition("/")
        if request.method == "GET":
            try:
                return self._read(part, rest, request)
            except ValueError as error:
                return _problem(400, f"{type(error).__name__}: {error}")
        if request.method == "DELETE" and part == "faults":
            removed = self.azure.faults.remove(rest or None)
            return Response(status_code=204) if removed else _problem(404, f"no rule {rest}")
        if request.method != "POST":
            return _problem(405, "GET, POST and DELETE only")
        try:
            body: object = await request.json()
        except ValueError as error:
            return _problem(400, f"not JSON: {error}")
        try:
            if part in ("maintenance", "event-grid"):
                document = cast(dict[str, Any], body if isinstance(body, dict) else {})
                return JSONResponse(await self.maintenance.write(f"{part}/{rest}".rstrip("/"), document))
            return self._write(part, body)
        except ValidationError as error:
            return _problem(400, [f"{'.'.join(map(str, each['loc']))}: {each['msg']}" for each in error.errors()])
        except (KeyError, TypeError, ValueError) as error:
            return _problem(400, f"{type(error).__name__}: {error}")

    def _read(self, part: str, rest: str, request: Request) -> Response:
        azure, query = self.azure, request.query_params
        if part == "requests":
            found = azure.request_log.documents(
                since=int(query.get("since") or 0),
                method=query.get("method", ""),
                path=query.get("path", ""),
                operation=query.get("operation", ""),
                limit=int(query.get("limit") or 0),
            )
            return JSONResponse({"count": azure.request_log.count, "requests": found})
        if part == "state":
            wanted = query.get("id", "").casefold()
            machines = [each for each in azure.settled() if not wanted or each.folded == wanted]
            return JSONResponse({"machines": [azure.state(machine) for machine in machines]})
        documents: dict[str, Callable[[], Any]] = {
            "": self._overview,
            "accepted": azure.accepted,
            "metrics": azure.metrics.document,
            "maintenance": self.maintenance.document,
            "operations": lambda: {"operations": azure.intervals(query.get("kind", ""))},
            "faults": lambda: {"faults": azure.faults.documents()},
        }
        if part in documents:
            return JSONResponse(documents[part]())
        return _problem(404, f"nothing at /_sim/{part}{'/' if rest else ''}{rest}")

    def _write(self, part: str, body: object) -> Response:
        if part == "faults":
            if isinstance(body, list):
                made = [self.azure.faults.add(each) for each in cast(list[object], body)]
                return JSONResponse({"faults": made}, 201)
            return JSONResponse(self.azure.faults.add(body), 201)
        document = cast(dict[str, Any], body if isinstance(body, dict) else {})
        if part == "metrics":
            self.azure.metrics.reset()
            return JSONResponse(self.azure.metrics.document())
        if part == "machines":
            machine = self.azure.change(str(document["id"]), dict(document["simulation"]))
            return JSONResponse(self.azure.state(machine))
        if part == "limits":
            if "enabled" in document:
                self.azure.throttle.enabled = bool(document["enabled"])
            for name, limit in cast(dict[str, dict[str, Any]], document.get("policies") or {}).items():
                self.azure.throttle.limit(name, float(limit["refillPerMinute"]), int(limit["burst"]))
            return JSONResponse(self._overview()["limits"])
        return _problem(404, f"nothing to post at /_sim/{part}")

    def _overview(self) -> dict[str, Any]:
        azure = self.azure
        return {
            "machines": len(azure.machines),
            "subscriptions": [machines[0].subscription_id for machines in azure.by_subscription.values()],
            "speed": azure.clock.speed,
            "simulatedSeconds": round(azure.clock.now(), 3),
            "startedAt": azure.clock.stamp(0),
            "calendar": f"{azure.clock.calendar():%Y-%m-%dT%H:%M:%S}Z",
            "seed": azure.seed,
            "requests": azure.request_log.count,
            "limits": {
                "enabled": azure.throttle.enabled,
                "policies": {
                    policy.name: {"refillPerMinute": policy.refill_per_minute, "burst": policy.burst}
                    for policy in azure.throttle.policies.values()
                },
            },
        }


def _problem(status: int, detail: Any) -> Response:
    return JSONResponse({"error": detail}, status)
