"""The Hybrid Compute provider: Arc machines, their patch operations and results, and the operations' URL.

Recorded habits: a patch operation has one URL, in ``Location``, with a Retry-After of a minute. While the operation
runs, a poll answers 202 with a new signature, and then 200 with the bare result. A PATCH answers with the machine
``Updating``, and without an operation. Assumed: a failure is a result with the status ``Failed``, and
``patchAssessmentResults/latest`` has the result as its properties.
"""

from __future__ import annotations

import math

from local.azure_simulator.compute.install_request import InstallRequest, read_install_request
from local.azure_simulator.compute.operations import Operation
from local.azure_simulator.hybrid_compute import views
from local.azure_simulator.hybrid_compute.machine import ArcMachine
from local.azure_simulator.hybrid_compute.machine_update import update_machine
from local.azure_simulator.server import errors
from local.azure_simulator.server.json_readers import object_or_none
from local.azure_simulator.server.paging import take_page
from local.azure_simulator.server.routing import ArmResponse, Call, Route, compact
from local.azure_simulator.state import AzureState

RETRY_SECONDS = 60
"""Simulated seconds of Retry-After (recorded)."""
_PROVIDER = "/providers/Microsoft.HybridCompute"
_SUBSCRIPTION = "/subscriptions/{subscription}"
_GROUP = _SUBSCRIPTION + "/resourceGroups/{group}"
_MACHINE = _GROUP + _PROVIDER + "/machines/{machine}"
_QUOTA = "subscription-resource-requests"


class HybridCompute:
    """Handlers of ``Microsoft.HybridCompute``."""

    def __init__(self, azure: AzureState) -> None:
        self.azure = azure

    def routes(self) -> list[Route]:
        poll = _SUBSCRIPTION + _PROVIDER + "/locations/{location}/updateCenterOperationResults/{operation}"
        return [
            Route("GET", _SUBSCRIPTION + _PROVIDER + "/machines", "list", self.list_machines),
            Route("GET", _GROUP + _PROVIDER + "/machines", "list", self.list_machines),
            Route("GET", _MACHINE, "read", self.get),
            Route("PATCH", _MACHINE, "update", self.update),
            Route("GET", _MACHINE + "/extensions", "read", self.list_extensions),
            Route("GET", _MACHINE + "/patchAssessmentResults/latest", "read", self.latest_assessment),
            Route("POST", _MACHINE + "/assessPatches", "assess", self.assess),
            Route("POST", _MACHINE + "/installPatches", "install", self.install),
            Route("GET", poll, "poll", self.poll),
        ]

    @property
    def _now(self) -> float:
        return self.azure.clock.now()

    # -- reads ------------------------------------------------------------------------------------------------------

    def list_machines(self, call: Call) -> ArmResponse:
        machines = [each for each in self.azure.scope(call.subscription, call.group) if isinstance(each, ArcMachine)]
        shown, more = take_page(call, self.azure.base_url, [each for each in machines if not each.simulation.is_gone])
        now = self._now
        for machine in shown:
            machine.settle(now)
        return compact({"value": [views.model(machine, now, in_list=True) for machine in shown]} | more)

    def get(self, call: Call) -> ArmResponse:
        return compact(views.model(self._machine(call, "read"), self._now))

    def list_extensions(self, call: Call) -> ArmResponse:
        return compact({"value": views.extensions(self._machine(call, "extensions/read"))})

    def latest_assessment(self, call: Call) -> ArmResponse:
        machine = self._machine(call, "patchAssessmentResults/read")
        if not machine.assessments:
            raise errors.resource_not_found(f"{machine.TYPE}/patchAssessmentResults", "latest", machine.resource_group)
        kind = "patchAssessmentResults"
        made = {"id": f"{machine.id}/{kind}/latest", "name": "latest", "type": f"{machine.TYPE}/{kind}"}
        return compact(made | {"properties": views.result(machine, machine.assessments[-1])})

    # -- writes -----------------------------------------------------------------------------------------------------

    def update(self, call: Call) -> ArmResponse:
        """PATCH of tags and patch settings."""
        machine = self._machine(call, "write")
        update_machine(machine, call.json(), self._now)
        return compact(views.model(machine, self._now, is_updating=True))

    def assess(self, call: Call) -> ArmResponse:
        machine = self._machine(call, "assessPatches/action")
        quota = self._charge(call, machine.location)
        if call.json() not in (None, {}):
            raise errors.unreadable_body("An assessment takes no parameters.")
        return self._accepted(self._begin(call, machine, "assess", None), quota)

    def install(self, call: Call) -> ArmResponse:
        machine = self._machine(call, "installPatches/action")
        quota = self._charge(call, machine.location)
        body = call.json()
        request = read_install_request(body, machine.os_type, call.api_version, machine.simulation.rejects_kb)
        if object_or_none(body).get("maximumDuration") is None:
            message = "Required parameter 'maximumDuration' is missing (null)."
            raise errors.invalid_parameter(message, "maximumDuration")
        return self._accepted(self._begin(call, machine, "install", request), quota)

    def _begin(self, call: Call, machine: ArcMachine, kind: str, request: InstallRequest | None) -> Operation:
        completion = machine.plan(kind, request, self._now)
        operation = self.azure.operations.begin(kind, machine, completion, call.api_version)
        operation.forbidden = machine.simulation.forbidden_polls
        machine.begin(operation)
        return operation

    def _accepted(self, operation: Operation, quota: dict[str, str]) -> ArmResponse:
        """202, as for the POST and for each poll until the end."""
        wait = self.azure.retry_after
        if wait is None:
            wait = max(1, math.ceil(self.azure.clock.real_seconds(RETRY_SECONDS)))
        location = self.azure.operations.result_url(operation)
        return ArmResponse(202, headers={"Location": location, "Retry-After": str(wait)} | quota)

    def poll(self, call: Call) -> ArmResponse:
        """Poll an operation: 202 until the bare result."""
        wanted, location = call.captured["operation"], call.captured["location"]
        operation = self.azure.operations.polled_result(wanted, call.subscription, location, call.raw_query)
        if operation.forbidden:
            scope = f"/subscriptions/{operation.subscription_id}"
            action = "Microsoft.HybridCompute/locations/updateCenterOperationResults/read"
            raise errors.forbidden(action, scope, self.azure.client_id)
        quota = self._charge(call, operation.location)
        machine, now = self.azure.machines[operation.machine], self._now
        machine.settle(now)
        if not operation.is_over(now) or not isinstance(machine, ArcMachine):
            return self._accepted(operation, quota)
        answer = compact(views.result(machine, operation))
        answer.headers |= quota
        return answer

    # -- helpers ----------------------------------------------------------------------------------------------------

    def _machine(self, call: Call, action: str) -> ArcMachine:
        machine = self.azure.arc_machine(call.subscription, call.group, call.captured["machine"])
        if machine.simulation.forbidden:
            raise errors.forbidden(f"{machine.TYPE}/{action}", machine.id, self.azure.client_id)
        return machine

    def _charge(self, call: Call, location: str) -> dict[str, str]:
        """Take a token of the requests that Resource Manager passes on to the provider in a region.

        Raises:
            ArmError: 429, with Retry-After.
        """
        charge = self.azure.throttle.take([(_QUOTA, f"{call.subscription.casefold()}/{location}")])
        headers = {f"x-ms-ratelimit-remaining-{_QUOTA}": str(charge.remaining[_QUOTA])}
        if charge.refused_by is not None:
            refused = errors.manager_throttled(call.subscription, charge.retry_after)
            refused.headers |= headers
            raise refused
        return headers
