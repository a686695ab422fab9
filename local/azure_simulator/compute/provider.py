"""The Compute provider: machines, their instance views, power, patch operations, and the operations' URLs."""

from __future__ import annotations

import math
from typing import Any

from local.azure_simulator.compute import machine_views, scale_sets
from local.azure_simulator.compute.guest_agent import Completion
from local.azure_simulator.compute.install_request import read_install_request
from local.azure_simulator.compute.machine import Machine
from local.azure_simulator.compute.machine_update import update_machine
from local.azure_simulator.compute.run_command import run_command
from local.azure_simulator.server import errors
from local.azure_simulator.server.paging import take_page
from local.azure_simulator.server.routing import ArmResponse, Call, Route, compact, pretty
from local.azure_simulator.server.throttle import Charge
from local.azure_simulator.state import AvailabilitySet, AzureState

_ACTION = "Microsoft.Compute/virtualMachines"
_GROUP = "/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute"
_MACHINE = _GROUP + "/virtualMachines/{machine}"


class Compute:
    """Handlers of ``Microsoft.Compute``."""

    def __init__(self, azure: AzureState) -> None:
        self.azure = azure

    def routes(self) -> list[Route]:
        subscription = "/subscriptions/{subscription}/providers/Microsoft.Compute"
        made = [
            Route("GET", subscription + "/virtualMachines", "list", self.list_machines),
            Route("GET", _GROUP + "/virtualMachines", "list", self.list_machines),
            Route("GET", _MACHINE, "read", self.get),
            Route("GET", _MACHINE + "/instanceView", "read", self.instance_view),
            Route("PATCH", _MACHINE, "update", self.update),
            Route("PUT", _MACHINE, "update", self.update),
            Route("POST", _MACHINE + "/assessPatches", "assess", self.assess),
            Route("POST", _MACHINE + "/installPatches", "install", self.install),
            Route("POST", _MACHINE + "/runCommand", "script", self.run_command),
            Route("GET", subscription + "/locations/{location}/operations/{operation}", "poll", self.poll),
            Route("GET", subscription + "/availabilitySets", "list", self.list_sets),
            Route("GET", _GROUP + "/availabilitySets", "list", self.list_sets),
            Route("GET", _GROUP + "/availabilitySets/{set}", "read", self.get_set),
            Route("GET", subscription + "/virtualMachineScaleSets", "list", self.list_scale_sets),
            Route("GET", _GROUP + "/virtualMachineScaleSets", "list", self.list_scale_sets),
            Route("GET", _GROUP + "/virtualMachineScaleSets/{set}", "read", self.get_scale_set),
        ]
        kinds = ("start", "powerOff", "deallocate", "restart")
        return made + [Route("POST", f"{_MACHINE}/{kind}", "power", self.change_power) for kind in kinds]

    @property
    def _now(self) -> float:
        return self.azure.clock.now()

    # -- reads ------------------------------------------------------------------------------------------------------

    def list_machines(self, call: Call) -> ArmResponse:
        scope = self.azure.scope(call.subscription, call.group)
        charge = self._charge(call, scope[0].location, "HighCostGetSubscriptionMaximum")
        machines = [each for each in scope if isinstance(each, Machine) and not each.simulation.is_gone]
        page, more = take_page(call, self.azure.base_url, machines)
        now = self._now
        at = now if call.query.get("statusOnly", "").casefold() == "true" or _is_expanded(call) else None
        shown: list[dict[str, Any]] = []
        for machine in page:
            machine.settle(now)
            shown.append(machine_views.model(machine, instance_view_at=at, shout_group=True))
        body: dict[str, Any] = {"value": shown} | more
        return _with(pretty(body), charge)

    def get(self, call: Call) -> ArmResponse:
        machine, charge = self._read(call)
        shown = machine_views.model(machine, instance_view_at=self._now if _is_expanded(call) else None)
        made = _with(pretty(shown), charge)
        made.headers["ETag"] = '"1"'
        return made

    def instance_view(self, call: Call) -> ArmResponse:
        machine, charge = self._read(call)
        return _with(pretty(machine_views.instance_view(machine, self._now)), charge)

    def _read(self, call: Call) -> tuple[Machine, Charge]:
        machine = self._machine(call)
        names = ("LowCostGetResource", "LowCostGetSubscriptionMaximum")
        charge = self._charge(call, machine.location, *names, resource=machine.folded)
        self._authorize(machine, f"{_ACTION}/read")
        return machine, charge

    # -- writes -----------------------------------------------------------------------------------------------------

    def update(self, call: Call) -> ArmResponse:
        """PATCH or PUT of an existing machine: 200 with the machine ``Updating``, and an operation."""
        machine, charge = self._write(call, "UpdateVM")
        self._authorize(machine, f"{_ACTION}/write")
        completion = update_machine(machine, call.json(), self._now)
        headers = self._accepted(call, machine, "update", completion, charge).headers
        del headers["Location"]  # the result is the machine itself
        made = pretty(machine_views.model(machine, is_updating=True))
        made.headers |= headers | self._retry_soon()
        return made

    def change_power(self, call: Call) -> ArmResponse:
        folded = call.path.rstrip("/").rpartition("/")[2].casefold()
        kind = {"poweroff": "powerOff"}.get(folded, folded)
        machine, charge = self._write(call, "DeleteVM" if kind == "deallocate" else "UpdateVM")
        self._authorize(machine, f"{_ACTION}/{kind}/action")
        answer = self._accepted(call, machine, kind, machine.change_power(kind, self._now), charge)
        answer.headers |= self._retry_soon()
        return answer

    def assess(self, call: Call) -> ArmResponse:
        machine, charge = self._patch_call(call, "assessPatches")
        return self._accepted(call, machine, "assess", machine.plan("assess", None, self._now), charge)

    def install(self, call: Call) -> ArmResponse:
        machine, charge = self._patch_call(call, "installPatches")
        request = read_install_request(call.json(), machine.os_type, call.api_version, machine.simulation.rejects_kb)
        return self._accepted(call, machine, "install", machine.plan("install", request, self._now), charge)

    def run_command(self, call: Call) -> ArmResponse:
        self._authorize(self._machine(call), f"{_ACTION}/runCommand/action")
        machine, charge = self._write(call, "UpdateVM")
        return self._accepted(call, machine, "script", run_command(machine, call.json(), self._now), charge)

    def _write(self, call: Call, policy: str) -> tuple[Machine, Charge]:
        machine = self._machine(call)
        names = (f"{policy}SubscriptionMaximum", f"{policy}Resource")
        return machine, self._charge(call, machine.location, *names, resource=machine.folded)

    def _patch_call(self, call: Call, action: str) -> tuple[Machine, Charge]:
        """Take tokens. ARM errors other than 404, 403 and 429 come later, so they cost a token (recorded for a 400)."""
        machine = self._machine(call)
        self._authorize(machine, f"{_ACTION}/{action}/action")
        names = ("VMGuestPatchOperationSubscriptionMaximum", "VMGuestPatchOperationResource")
        return machine, self._charge(call, machine.location, *names, resource=machine.folded)

    def _accepted(self, call: Call, machine: Machine, kind: str, completion: Completion, charge: Charge) -> ArmResponse:
        operation = self.azure.operations.begin(kind, machine, completion, call.api_version)
        operation.forbidden = machine.simulation.forbidden_polls
        if kind in ("assess", "install"):
            machine.begin(operation)
        polling, location = self.azure.operations.urls(operation)
        answer = _with(ArmResponse(202), charge)
        answer.headers |= {"Azure-AsyncOperation": polling, "Location": location, "Azure-AsyncNotification": "Enabled"}
        answer.headers |= self._retry_after()
        return answer

    def _retry_after(self) -> dict[str, str]:
        return {} if self.azure.retry_after is None else {"Retry-After": str(self.azure.retry_after)}

    def _retry_soon(self) -> dict[str, str]:
        """Ten simulated seconds, for operations other than those of patches."""
        return {"Retry-After": str(max(1, math.ceil(self.azure.clock.real_seconds(10))))}

    # -- operations -------------------------------------------------------------------------------------------------

    def poll(self, call: Call) -> ArmResponse:
        """Poll an operation: the status document, or 202 until the bare result."""
        wanted, location = call.captured["operation"], call.captured["location"]
        operation, is_location = self.azure.operations.polled(wanted, call.subscription, location, call.raw_query)
        if operation.forbidden:
            scope = f"/subscriptions/{operation.subscription_id}"
            raise errors.forbidden("Microsoft.Compute/locations/operations/read", scope, self.azure.client_id)
        names = ("GetOperationResource", "GetOperationSubscriptionMaximum")
        charge = self._charge(call, operation.location, *names, resource=operation.id)
        clock, now = self.azure.clock, self._now
        self.azure.machines[operation.machine].settle(now)
        is_over = operation.is_over(now)
        if not is_location:
            answer = ArmResponse(200, operation.status_body(clock, now))
        elif not is_over:
            _, location = self.azure.operations.urls(operation)
            answer = ArmResponse(202, headers={"Location": location})
        elif operation.completion.status != "Succeeded":
            answer = pretty({"error": operation.completion.error}, 409)
        else:
            result = operation.result(clock)
            answer = ArmResponse(200) if result is None else compact(result)
        if not is_over:
            answer.headers |= self._retry_after() if operation.kind in ("assess", "install") else self._retry_soon()
        return _with(answer, charge)

    # -- availability sets ------------------------------------------------------------------------------------------

    def list_sets(self, call: Call) -> ArmResponse:
        machines = self.azure.scope(call.subscription, call.group)
        charge = self._charge(call, machines[0].location, "HighCostGetSubscriptionMaximum")
        found = [each for each in self.azure.sets.values() if call.covers(each.subscription_id, each.resource_group)]
        return _with(pretty({"value": [_set_document(each) for each in found]}), charge)

    def get_set(self, call: Call) -> ArmResponse:
        self.azure.group(call.subscription, call.group)
        found = self.azure.sets.get(call.key)
        if found is None:
            raise errors.resource_not_found("Microsoft.Compute/availabilitySets", call.captured["set"], call.group)
        charge = self._charge(call, found.location, "LowCostGetSubscriptionMaximum")
        return _with(pretty(_set_document(found)), charge)

    # -- scale sets -------------------------------------------------------------------------------------------------

    def list_scale_sets(self, call: Call) -> ArmResponse:
        found = [each for each in self.azure.scale_sets if call.covers(each.subscription_id, each.resource_group)]
        if not found:
            self.azure.scope(call.subscription, call.group)
        charge = self._charge(call, found[0].location if found else "", "HighCostGetSubscriptionMaximum")
        return _with(pretty({"value": [each.document() for each in found]}), charge)

    def get_scale_set(self, call: Call) -> ArmResponse:
        found = self.azure.scale_sets.find(call.path)
        if found is None:
            self.azure.group(call.subscription, call.group)
            raise errors.resource_not_found(scale_sets.TYPE, call.captured["set"], call.group)
        charge = self._charge(call, found.location, "LowCostGetSubscriptionMaximum")
        return _with(pretty(found.document()), charge)

    # -- helpers ----------------------------------------------------------------------------------------------------

    def _machine(self, call: Call) -> Machine:
        return self.azure.machine(call.subscription, call.group, call.captured["machine"])

    def _authorize(self, machine: Machine, action: str) -> None:
        if machine.simulation.forbidden:
            raise errors.forbidden(action, machine.id, self.azure.client_id)

    def _charge(self, call: Call, location: str, *policies: str, resource: str = "") -> Charge:
        """Take tokens: per resource, or per subscription and region.

        Raises:
            ArmError: 429 in the provider's form, with Retry-After.
        """
        subscription = f"{call.subscription.casefold()}/{location}"
        keys = [(name, resource if name.endswith("Resource") else subscription) for name in policies]
        charge = self.azure.throttle.take(keys)
        if charge.refused_by is not None:
            stamp, now = self.azure.clock.stamp, self._now
            policy, window = charge.refused_by, (stamp(now - 60), stamp(now))
            refused = errors.compute_throttled(policy.name, policy.burst, window, charge.retry_after)
            refused.headers["x-ms-ratelimit-remaining-resource"] = _remaining(charge)
            raise refused
        return charge


def _remaining(charge: Charge) -> str:
    return ",".join(f"Microsoft.Compute/{name};{left}" for name, left in charge.remaining.items())


def _with(answer: ArmResponse, charge: Charge) -> ArmResponse:
    answer.headers["x-ms-ratelimit-remaining-resource"] = _remaining(charge)
    return answer


def _is_expanded(call: Call) -> bool:
    return "instanceview" in call.query.get("$expand", "").casefold()


def _set_document(each: AvailabilitySet) -> dict[str, Any]:
    return {
        "name": each.name,
        "id": each.id,
        "type": "Microsoft.Compute/availabilitySets",
        "location": each.location,
        "properties": {
            "platformUpdateDomainCount": 5,
            "platformFaultDomainCount": 3,
            "virtualMachines": [{"id": machine.id.upper()} for machine in each.members],
        },
        "sku": {"name": "Aligned"},
    }
