"""Machines that failed in too many windows in a row, and the command to forget that."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from azure.functions import HttpRequest, HttpResponse

from patchwave.api.endpoint import PageSpec, ResponseSpec, route
from patchwave.api.http import PageQuery, route_of
from patchwave.api.problems import no_such
from patchwave.api.requests import COMMAND, CommandQuery, read_command
from patchwave.domain.core.documents import Document, UtcDatetime
from patchwave.domain.core.ids import is_machine_key
from patchwave.domain.core.outcome import OutcomeKind
from patchwave.domain.core.principal import Role
from patchwave.domain.runs.window_results import WindowResult
from patchwave.storage import Storage


class StuckMachine(Document):
    """A machine that needs a person, with its newest outcome in any run and its last failed window.

    ``is_left_out``: later windows leave it out, until it is patched by hand or reset.
    """

    id: str
    key: str
    name: str
    subscription_id: str = ""
    resource_group: str = ""
    location: str = ""
    os_type: str = ""
    run_id: str
    at: UtcDatetime
    outcome: OutcomeKind
    reason: str
    message: str = ""
    last_window: WindowResult
    is_left_out: bool


_MACHINES = PageSpec(
    "StuckMachinePage", "machines", StuckMachine, "Machines that failed in too many windows in a row, by key."
)


@route("GET", "fleet/needs-person", _MACHINES.response, role=Role.READER)
async def list_stuck_machines(req: HttpRequest, storage: Storage, query: PageQuery) -> HttpResponse:
    """The machines that need a person after their last windows, a page at a time."""
    del req
    page = await storage.history.list_needing_person(query.limit, query.cursor)
    return _MACHINES.respond([_stuck(state).to_wire() for state in page.items], page)


@route(
    "POST",
    "fleet/needs-person/{machineKey}/reset",
    ResponseSpec(200, WindowResult),
    role=Role.OPERATOR,
    body=COMMAND,
    problems={404: "No window is known in which the machine failed."},
)
async def reset_machine(req: HttpRequest, storage: Storage, query: CommandQuery) -> WindowResult:
    """Forget the windows in which a machine failed, so that the next one takes it again: 200 with what was known."""
    command, key = read_command(req, query, datetime.now(UTC)), route_of(req, "machineKey")
    known = await storage.history.reset_windows(key) if is_machine_key(key) else None
    if known is None:
        raise no_such("machine with a failed window")
    detail = {"machine": key, "reason": command.reason, "failedWindows": known.failed_windows}
    await storage.audit.add(known.run_id, "machine_reset", **command.who, at=command.at, detail=detail)
    return known


def _stuck(state: dict[str, Any]) -> StuckMachine:
    columns = {name: value for name, value in state.items() if name in _COLUMNS}
    result = WindowResult.model_validate(state["windowResult"])
    return StuckMachine.model_validate(columns | {"lastWindow": result, "isLeftOut": not result.installed})


_COLUMNS = {info.alias for info in StuckMachine.model_fields.values()}
