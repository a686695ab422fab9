"""The textbook flat fan-out: one orchestrator for the whole fleet, an activity per call, a timer between two polls.

Written as the tutorials on fan-out/fan-in and on monitors teach it. Activities are retried three times; the SDK
retries beneath them, as it does by default. Times are divided by ``FLAT_SPEED``, the speed of the simulated clock.
"""

import os
from collections.abc import Generator
from datetime import timedelta
from typing import Any

import azure.durable_functions as df
import azure.functions as func
import requests
from azure.core.exceptions import AzureError
from azure.identity import DefaultAzureCredential
from azure.mgmt.compute import ComputeManagementClient
from azure.mgmt.compute.models import LinuxParameters, VirtualMachineInstallPatchesParameters, WindowsParameters
from durabletask import task

SPEED = float(os.environ["FLAT_SPEED"])
ENDPOINT = os.environ["PATCHWAVE_RESOURCE_MANAGER"]
SCOPE = f"{ENDPOINT}/.default"
BETWEEN_POLLS = timedelta(seconds=60 / SPEED)
RETRY = task.RetryPolicy(first_retry_interval=timedelta(seconds=5 / SPEED), max_number_of_attempts=3)

app = df.DFApp(http_auth_level=func.AuthLevel.ANONYMOUS)
credential = DefaultAzureCredential()
compute = ComputeManagementClient(
    credential, os.environ["FLAT_SUBSCRIPTION"], base_url=ENDPOINT, credential_scopes=[SCOPE]
)


@app.route("start", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start(req: func.HttpRequest, client: df.DurableFunctionsClient) -> func.HttpResponse:
    return func.HttpResponse(await client.schedule_new_orchestration("patch_fleet"), status_code=202)


@app.route("instances/{id}", methods=["GET"])
@app.durable_client_input(client_name="client")
async def status(req: func.HttpRequest, client: df.DurableFunctionsClient) -> func.HttpResponse:
    state = await client.get_orchestration_state(req.route_params["id"])
    if state is None:
        return func.HttpResponse(status_code=404)
    if state.runtime_status.name == "COMPLETED":
        return func.HttpResponse(state.serialized_output or "0")
    return func.HttpResponse(state.runtime_status.name, status_code=202)


@app.orchestration_trigger(context_name="context")
def patch_fleet(context: task.OrchestrationContext, _: Any) -> Generator[task.Task[Any], Any, int]:
    """Assess all machines, then install on all; how many installations succeeded."""
    machines: list[Any] = yield context.call_activity("list_machines", input=None)
    succeeded = 0
    for begin in ("assess", "install"):
        urls: list[str] = yield _call_all(context, begin, machines)
        pending: list[str] = [url for url in urls if url]
        succeeded = 0
        while pending:
            yield context.create_timer(BETWEEN_POLLS)
            states: list[str] = yield _call_all(context, "poll", pending)
            succeeded += states.count("Succeeded")
            pending = [url for url, state in zip(pending, states, strict=True) if state == "InProgress"]
    return succeeded


def _call_all(context: task.OrchestrationContext, activity: str, inputs: list[Any]) -> task.Task[Any]:
    calls: list[task.Task[Any]] = [context.call_activity(activity, input=each, retry_policy=RETRY) for each in inputs]
    return task.when_all(calls)


@app.activity_trigger(input_name="nothing")
def list_machines(nothing: Any) -> Any:
    listed: list[Any] = list(compute.virtual_machines.list_all())
    return [{"name": each.name, "group": each.id.split("/")[4], "windows": _is_windows(each)} for each in listed]


@app.activity_trigger(input_name="machine")
def assess(machine: Any) -> str:
    return _begin(compute.virtual_machines.begin_assess_patches, machine["group"], machine["name"])


@app.activity_trigger(input_name="machine")
def install(machine: Any) -> str:
    wanted = ["Critical", "Security"]
    is_windows = machine["windows"]
    parameters = VirtualMachineInstallPatchesParameters(
        maximum_duration=timedelta(hours=4),
        reboot_setting="IfRequired",
        windows_parameters=WindowsParameters(classifications_to_include=wanted) if is_windows else None,
        linux_parameters=None if is_windows else LinuxParameters(classifications_to_include=wanted),
    )
    return _begin(compute.virtual_machines.begin_install_patches, machine["group"], machine["name"], parameters)


@app.activity_trigger(input_name="url")
def poll(url: str) -> str:
    token = credential.get_token(SCOPE).token
    answer = requests.get(url, headers={"Authorization": f"Bearer {token}"}, timeout=60)
    answer.raise_for_status()
    return str(answer.json()["status"])


def _begin(call: Any, *arguments: Any) -> str:
    """The operation's address; nothing when Azure refused, so that one machine does not end the run of all."""
    urls: list[str] = []

    def note(reply: Any) -> None:
        # The hook sees refusals as well, before the client raises them.
        urls.append(reply.http_response.headers.get("Azure-AsyncOperation", ""))

    try:
        call(*arguments, polling=False, raw_response_hook=note)
    except AzureError:
        return ""
    return urls[-1]


def _is_windows(machine: Any) -> bool:
    return machine.storage_profile.os_disk.os_type == "Windows"
