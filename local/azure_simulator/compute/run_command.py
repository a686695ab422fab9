"""The run command action: accepted calls, and a script's result.

No script is run. Its output is derived from its ``echo`` and ``Write-Output`` lines, in which a variable stands for the
exit code of the machine's overrides. Sources: recordings of ``az vm run-command invoke`` for the
two forms of the result, azure-powershell issue 15845 for the refusal of a second command.
"""

from __future__ import annotations

import re
from typing import Any

from local.azure_simulator.compute.guest_agent import Completion
from local.azure_simulator.compute.machine import Machine
from local.azure_simulator.server import errors
from local.azure_simulator.server.json_readers import list_or_empty, object_or_none

_COMMANDS = {"Linux": "RunShellScript", "Windows": "RunPowerShellScript"}
_PRINT = re.compile(r"^\s*(?:echo|Write-Output)\s+(?P<text>.*?)\s*$", re.IGNORECASE)
_VARIABLE = re.compile(r"\$\{?\w+\}?")


def run_command(machine: Machine, body: Any, now: float) -> Completion:
    """The result of an accepted command.

    Raises:
        ArmError: 400 for an unknown command, 409 during another one or when the machine cannot run any.
    """
    request = object_or_none(body)
    command = str(request.get("commandId", ""))
    if command.casefold() != _COMMANDS[machine.os_type].casefold():
        raise errors.invalid_parameter(f"The command '{command}' is not supported on this machine.", "commandId")
    machine.settle(now)
    if machine.power != "running":
        raise errors.not_running()
    if machine.simulation.agent == "missing":
        raise errors.extensions_disallowed()
    if now < machine.command_until:
        raise errors.refusal(
            409,
            "Conflict",
            "Run command extension execution is in progress. Please wait for completion before invoking a run command.",
        )
    seconds = machine.simulation.script_minutes * 60
    machine.command_until = now + seconds
    said = "\n".join(
        _printed([str(line) for line in list_or_empty(request.get("script"))], machine.simulation.script_exit)
    )
    result = _result(machine.os_type, said)

    def ended(activity_id: str, started: str, modified: str) -> dict[str, Any]:
        return result

    return Completion(seconds, result=ended, touches_guest=False)


def _printed(script: list[str], exit_code: int) -> list[str]:
    lines = [line for part in script for line in part.split("\n")]
    found = [match["text"].strip("\"'") for match in map(_PRINT.match, lines) if match]
    return [_VARIABLE.sub(str(exit_code), text) for text in found]


def _result(os_type: str, said: str) -> dict[str, Any]:
    """Linux returns both streams in one message, Windows one entry for each."""
    entry = {"level": "Info", "displayStatus": "Provisioning succeeded"}
    if os_type == "Linux":
        message = f"Enable succeeded: \n[stdout]\n{said}\n\n[stderr]\n"
        return {"value": [{"code": "ProvisioningState/succeeded"} | entry | {"message": message}]}
    return {
        "value": [
            {"code": "ComponentStatus/StdOut/succeeded"} | entry | {"message": said},
            {"code": "ComponentStatus/StdErr/succeeded"} | entry | {"message": ""},
        ]
    }
