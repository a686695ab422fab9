"""``Microsoft.Maintenance``: configurations, assignments, and runs of a schedule.

Recorded habits: everything is answered at once with 200, a DELETE has an empty body (204 when there was nothing), a PUT
of ``applyUpdates`` on a machine with nothing pending answers ``null`` and a GET of it ``Completed``, ids come back in
other letters than they were sent in, and errors have capital letters.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any, cast

from local.azure_simulator.compute.machine_views import merged
from local.azure_simulator.maintenance.assignments import Assignment, read_filter
from local.azure_simulator.maintenance.configurations import Configuration, invalid, maintenance_error, read_properties
from local.azure_simulator.maintenance.occurrences import CANCELLED
from local.azure_simulator.maintenance.scheduler import Schedules, find_configuration
from local.azure_simulator.server import errors
from local.azure_simulator.server.errors import ArmError
from local.azure_simulator.server.json_readers import dig, object_or_none
from local.azure_simulator.server.routing import ArmResponse, Call, Route, compact

_SUBSCRIPTION = "/subscriptions/{subscription}"
_GROUP = _SUBSCRIPTION + "/resourceGroups/{group}"
_MACHINE = _GROUP + "/providers/Microsoft.Compute/virtualMachines/{machine}"
_ARC_MACHINE = _GROUP + "/providers/Microsoft.HybridCompute/machines/{machine}"
_PROVIDER = "/providers/Microsoft.Maintenance"
_APPLY_UPDATES = "Microsoft.Maintenance/applyUpdates"
_VERBS = {"GET": "read", "DELETE": "delete", "PUT": "write", "PATCH": "write"}
_CANCEL_SINCE = "2023-09-01-preview"
_CONFIGURATION = _GROUP + _PROVIDER + "/maintenanceConfigurations/{configuration}"


class Maintenance:
    """Handlers of ``Microsoft.Maintenance``."""

    def __init__(self, schedules: Schedules) -> None:
        self.schedules = schedules
        self.azure = schedules.azure

    def routes(self) -> list[Route]:
        made = [
            Route("PUT", _CONFIGURATION, "maintenance", self.put_configuration),
            Route("PATCH", _CONFIGURATION, "maintenance", self.update_configuration),
            Route("GET", _CONFIGURATION, "maintenance", self.get_configuration),
            Route("DELETE", _CONFIGURATION, "maintenance", self.delete_configuration),
        ]
        for scope in (_SUBSCRIPTION, _GROUP):
            made += [
                Route("GET", scope + _PROVIDER + "/maintenanceConfigurations", "list", self.list_configurations),
                Route("GET", scope + _PROVIDER + "/applyUpdates", "list", self.nothing),
            ]
        for scope in (_SUBSCRIPTION, _GROUP, _MACHINE, _ARC_MACHINE):
            assignment = scope + _PROVIDER + "/configurationAssignments/{assignment}"
            made += [
                Route("GET", scope + _PROVIDER + "/configurationAssignments", "list", self.list_assignments),
                Route("PUT", assignment, "assignment", self.put_assignment),
                Route("PATCH", assignment, "assignment", self.update_assignment),
                Route("GET", assignment, "assignment", self.get_assignment),
                Route("DELETE", assignment, "assignment", self.delete_assignment),
            ]
        made += [
            Route("GET", _SUBSCRIPTION + _PROVIDER + "/publicMaintenanceConfigurations", "list", self.nothing),
            Route("GET", _MACHINE + _PROVIDER + "/updates", "list", self.nothing),
            Route("PUT", _MACHINE + _PROVIDER + "/applyUpdates/{run}", "maintenance", self.apply_nothing),
            Route("GET", _MACHINE + _PROVIDER + "/applyUpdates/{run}", "maintenance", self.get_applied),
            Route("PUT", _CONFIGURATION + _PROVIDER + "/applyUpdates/{run}", "maintenance", self.cancel_run),
            Route("GET", _CONFIGURATION + _PROVIDER + "/applyUpdates/{run}", "maintenance", self.get_run),
        ]
        return made

    def nothing(self, call: Call) -> ArmResponse:
        self._check_scope(call)
        return compact({"value": []})

    def apply_nothing(self, call: Call) -> ArmResponse:
        """A machine here never has pending platform maintenance."""
        self._check_scope(call)
        return ArmResponse(200, "null")

    def get_applied(self, call: Call) -> ArmResponse:
        """The same as a GET; only ``default`` exists."""
        self._check_scope(call)
        if call.captured["run"].casefold() != "default":
            raise _no_run(call)
        path = call.path.rstrip("/")
        properties = {"status": "Completed", "resourceId": _split(call)[0], "lastUpdateTime": "0001-01-01T00:00:00"}
        return compact({"properties": properties, "id": path, "name": call.captured["run"], "type": _APPLY_UPDATES})

    # -- configurations ---------------------------------------------------------------------------------------------

    def put_configuration(self, call: Call) -> ArmResponse:
        """Create or replace."""
        name, body, clock = call.captured["configuration"], _body(call), self.azure.clock
        self._check_scope(call)
        if not body.get("location"):
            raise invalid("The location property is required.")
        properties, window = read_properties(body.get("properties"), call.group, name, clock.calendar())
        found = self.schedules.configurations.get(call.key)
        made = Configuration(
            id=call.path.rstrip("/"),
            subscription_id=call.subscription,
            resource_group=call.group,
            name=name,
            location=str(body["location"]),
            properties=properties,
            window=window,
            created=clock.now() if found is None else found.created,
            changed=clock.now(),
            tags=_tags(body),
        )
        self.schedules.put(made)
        return compact(made.document(lowered=False))

    def update_configuration(self, call: Call) -> ArmResponse:
        """PATCH: merge the body into the configuration."""
        found, body, clock = self._configuration(call), _body(call), self.azure.clock
        laid = merged(found.properties, object_or_none(body.get("properties")))
        properties, window = read_properties(laid, found.resource_group, found.name, clock.calendar())
        tags = _tags(body) if "tags" in body else found.tags
        made = replace(found, properties=properties, window=window, changed=clock.now(), tags=tags)
        self.schedules.put(made)
        return compact(made.document(lowered=True))

    def get_configuration(self, call: Call) -> ArmResponse:
        return compact(self._configuration(call).document(lowered=True))

    def delete_configuration(self, call: Call) -> ArmResponse:
        self._check_scope(call)
        return ArmResponse(200) if self.schedules.remove(call.key) else ArmResponse(204)

    def list_configurations(self, call: Call) -> ArmResponse:
        """List a subscription or a resource group, without pages (2 MB were recorded in one response)."""
        self._check_scope(call)
        found = [
            each.document(lowered=True)
            for each in self.schedules.configurations.values()
            if call.covers(each.subscription_id, each.resource_group)
        ]
        return compact({"value": found})

    def _configuration(self, call: Call) -> Configuration:
        self._check_scope(call)
        return find_configuration(self.schedules, call.path)

    # -- runs -------------------------------------------------------------------------------------------------------

    def cancel_run(self, call: Call) -> ArmResponse:
        """PUT ``{"properties": {"status": "Cancel"}}``: 201 for a run that was not known yet, and 200.

        A run that has started gets the same response, and continues.
        """
        configuration, clock = find_configuration(self.schedules, _split(call)[0]), self.azure.clock
        if call.api_version < _CANCEL_SINCE:
            raise invalid(f"The api-version '{call.api_version}' cannot cancel a run; use {_CANCEL_SINCE} or later.")
        if dig(_body(call), "properties", "status") != "Cancel":
            raise invalid("Only the status 'Cancel' can be set on a run of a maintenance configuration.")
        was_known, run = len(self.schedules.occurrences), call.captured["run"]
        if _is_run_name(run) and run <= f"{clock.calendar():%Y%m%d%H%M%S}":
            return compact(self._run(configuration, run, CANCELLED))
        found = self.schedules.coming(configuration, run)
        if found is None:
            raise _no_run(call)
        if found.cancelled is None:
            if clock.now() > found.cut_off:
                raise invalid(f"The maintenance run '{found.name}' can no longer be cancelled: its cut-off has passed.")
            self.schedules.cancel(found)
        is_new = len(self.schedules.occurrences) > was_known
        return compact(self._run(configuration, found.name, CANCELLED), 201 if is_new else 200)

    def get_run(self, call: Call) -> ArmResponse:
        configuration = find_configuration(self.schedules, _split(call)[0])
        found = self.schedules.coming(configuration, call.captured["run"])
        if found is None:
            raise _no_run(call)
        now = self.azure.clock.now()
        shown = self._run(configuration, found.name, found.status(now, self.azure.clock))
        return compact(shown | {"name": found.name})

    def _run(self, configuration: Configuration, run: str, status: str) -> dict[str, Any]:
        """The response of a cancellation: the name is the configuration's, and the run the last part of the id."""
        return {
            "properties": {"status": status, "resourceId": configuration.document(lowered=False)["id"]},
            "id": f"{configuration.folded}{_PROVIDER}/applyUpdates/{run}".lower(),
            "name": configuration.name,
            "type": _APPLY_UPDATES,
        }

    # -- assignments ------------------------------------------------------------------------------------------------

    def put_assignment(self, call: Call) -> ArmResponse:
        """Create or replace the assignment of a machine, or a dynamic scope."""
        self._check_scope(call)
        body = _body(call)
        filter_ = None
        if "machine" not in call.captured:
            filter_ = read_filter(dig(body, "properties", "filter"), in_group=bool(call.group))
        elif not body.get("location"):
            raise invalid("The location property is required.")
        wanted = str(dig(body, "properties", "maintenanceConfigurationId") or "").rstrip("/")
        find_configuration(self.schedules, wanted)
        scope, name = _split(call)
        made = Assignment(scope, name, wanted, body.get("location"), filter_, self.azure.clock.now())
        self.schedules.assignments[call.key] = made
        return compact(made.document(is_put=True))

    def update_assignment(self, call: Call) -> ArmResponse:
        """PATCH of a dynamic scope: another filter."""
        found, body = self._assignment(call), _body(call)
        if found.filter is None:
            raise invalid("Only the assignment of a subscription or a resource group can be updated.")
        laid = merged(found.filter, object_or_none(dig(body, "properties", "filter")))
        found.filter = read_filter(laid, in_group=bool(call.group))
        return compact(found.document(is_put=True))

    def get_assignment(self, call: Call) -> ArmResponse:
        return compact(self._assignment(call).document(is_put=False))

    def delete_assignment(self, call: Call) -> ArmResponse:
        """Delete an assignment, also of a deleted machine, which is how stale ones are removed."""
        self.azure.subscription(call.subscription)
        return ArmResponse(200) if self.schedules.unassign(call.key) else ArmResponse(204)

    def list_assignments(self, call: Call) -> ArmResponse:
        """Of one machine, of one resource group as a dynamic scope, or everything in a subscription."""
        self._check_scope(call)
        scope = _split(call)[0].casefold()
        found = [
            each.document(is_put=False)
            for each in self.schedules.assignments.values()
            if each.scope.casefold() == scope or (not call.group and each.scope.casefold().startswith(scope + "/"))
        ]
        return compact({"value": found})

    def _assignment(self, call: Call) -> Assignment:
        self._check_scope(call)
        found = self.schedules.assignments.get(call.key)
        if found is None:
            message = f"Configuration assignment '{call.captured['assignment']}' was not found."
            raise maintenance_error(404, "NotFound", message)
        return found

    def _check_scope(self, call: Call) -> None:
        """Require that the subscription and the machine exist.

        A resource group without machines is accepted, because none can be created here.
        """
        if "machine" in call.captured:
            is_arc = call.path.split("/")[6].casefold() == "microsoft.hybridcompute"
            find = self.azure.arc_machine if is_arc else self.azure.machine
            machine = find(call.subscription, call.group, call.captured["machine"])
            if machine.simulation.forbidden:
                action = f"Microsoft.Maintenance/configurationAssignments/{_VERBS[call.method]}"
                raise errors.forbidden(action, machine.id, self.azure.client_id)
        else:
            self.azure.subscription(call.subscription)


def _is_run_name(text: str) -> bool:
    return len(text) == 14 and text.isascii() and text.isdigit()


def _no_run(call: Call) -> ArmError:
    return maintenance_error(404, "NotFound", f"Maintenance run '{call.captured['run']}' was not found.")


def _split(call: Call) -> tuple[str, str]:
    """The scope of an assignment's path, or of a list of them, and the name."""
    at = call.path.casefold().rindex(_PROVIDER.casefold() + "/")
    return call.path[:at], call.captured.get("assignment", "")


def _body(call: Call) -> dict[str, Any]:
    body = call.json()
    if not isinstance(body, dict):
        raise invalid("The request content was invalid: the body must be a JSON object.")
    return cast(dict[str, Any], body)


def _tags(body: dict[str, Any]) -> dict[str, str]:
    return {str(key): str(value) for key, value in object_or_none(body.get("tags")).items()}
