"""Run command on a machine: send a script into its guest, and poll its result.

Uses the action call, not the managed resource: it leaves no resource behind, and its output comes with the operation.
A machine runs one command at a time, and responds 409 to a second one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from patchwave.azure.compute import ComputeClients, Submission
from patchwave.azure.pipeline import ArmResponse
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.operation import PollReading, PollState, UnsafeUrl, check_operation_url, read_operation
from patchwave.domain.core.documents import parse_object
from patchwave.domain.core.ids import MachineId

RUN_COMMAND_API_VERSION = "2025-04-01"


class RunCommands(ComputeClients):
    """Scripts in guests, sent and polled."""

    async def send(self, machine: MachineId, command_id: str, lines: Sequence[str]) -> Submission:
        """POST runCommand. The caller must have declared it: nothing shows later whether a script ran."""
        begin = self._compute(machine.subscription_id).virtual_machines.begin_run_command
        body: Any = {"commandId": command_id, "script": list(lines)}
        options: dict[str, Any] = {"polling": False, "api_version": RUN_COMMAND_API_VERSION}
        call = partial(begin, machine.resource_group, machine.name, body, **options)
        return await self._write(machine.subscription_id, f"run {machine.folded}", call)

    async def poll(self, machine: MachineId, async_url: str, location_url: str) -> PollReading:
        """Poll an accepted command once. `patchwave.domain.machine.script.read_script_end` parses the result.

        An unsafe URL, to which no token may be sent, reads as a lost operation.
        """
        if not (async_url or location_url):
            return PollReading(state=PollState.LOST)
        try:
            if async_url:
                reply = await self._get_operation(machine, async_url)
                reading = read_operation(reply.status, reply.body, retry_after=reply.retry_after)
                if reading.state is not PollState.SUCCEEDED_WITHOUT_RESULT or not location_url:
                    return reading.model_copy(update={"retry_after": reply.retry_after})
            return _read_result(await self._get_operation(machine, location_url))
        except UnsafeUrl as refusal:
            return PollReading(
                state=PollState.LOST, failure=ArmFailure(status=0, code="UnsafeUrl", message=str(refusal))
            )

    async def _get_operation(self, machine: MachineId, url: str) -> ArmResponse:
        check_operation_url(url, self._settings.manager_url, machine.subscription_id)
        return await self._get(url)


def _read_result(reply: ArmResponse) -> PollReading:
    """The Location of a run command: 202 while it runs, then ``{"value": [...]}`` without a status."""
    if reply.status == 200:
        found = parse_object(reply.body)
        if found is not None and "value" in found:
            return PollReading(state=PollState.SUCCEEDED, result=found)
    return read_operation(reply.status, reply.body, retry_after=reply.retry_after).model_copy(
        update={"retry_after": reply.retry_after}
    )
