"""A small function app with every trigger that the host serves."""

import asyncio
import json
import os
from collections.abc import Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import azure.durable_functions as df
import azure.functions as func
from durabletask import task

app = df.DFApp(http_auth_level=func.AuthLevel.FUNCTION)


def note(kind: str, document: dict[str, Any]) -> None:
    """Appends one line to the file that the tests read."""
    with Path(os.environ["SAMPLE_NOTES"]).open("a", encoding="utf-8") as notes:
        notes.write(json.dumps({"kind": kind, "pid": os.getpid(), **document}) + "\n")


def answer(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> func.HttpResponse:
    return func.HttpResponse(json.dumps(document), status_code=status, mimetype="application/json", headers=headers)


# HTTP


@app.route("echo/{name?}", methods=["GET", "POST"])
async def echo(req: func.HttpRequest) -> func.HttpResponse:
    return answer(
        {
            "method": req.method,
            "url": req.url,
            "params": dict(req.route_params),
            "query": dict(req.params),
            "header": req.headers.get("X-Sample"),
            "body": req.get_body().decode("latin-1"),
        },
        headers={"X-Answer": "yes"},
    )


@app.route("things/{thing}", methods=["GET"])
async def get_thing(req: func.HttpRequest) -> func.HttpResponse:
    return answer({"thing": req.route_params["thing"]})


@app.route("things/special", methods=["GET"])
async def get_special(req: func.HttpRequest) -> func.HttpResponse:
    return answer({"thing": "the special one"})


@app.route("broken", methods=["GET"])
def broken(req: func.HttpRequest) -> func.HttpResponse:
    raise ValueError("a function that fails")


@app.route("health", methods=["GET"], auth_level=func.AuthLevel.ANONYMOUS)
def health(req: func.HttpRequest) -> func.HttpResponse:
    return answer({"status": "ok", "pid": os.getpid()})


@app.route("start/{name}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def start(req: func.HttpRequest, client: df.DurableFunctionsClient) -> func.HttpResponse:
    instance_id = await client.schedule_new_orchestration(
        req.route_params["name"], input=req.get_json(), instance_id=req.params.get("id")
    )
    return answer({"id": instance_id}, 202)


@app.route("instances/{id}", methods=["GET"])
@app.durable_client_input(client_name="client")
async def get_instance(req: func.HttpRequest, client: df.DurableFunctionsClient) -> func.HttpResponse:
    state = await client.get_orchestration_state(req.route_params["id"])
    if state is None:
        return answer({}, 404)
    failure = state.failure_details
    return answer(
        {
            "status": state.runtime_status.name,
            "output": json.loads(state.serialized_output) if state.serialized_output else None,
            "failure": None if failure is None else [failure.error_type, failure.message],
        }
    )


@app.route("instances/{id}/events/{event}", methods=["POST"])
@app.durable_client_input(client_name="client")
async def raise_event(req: func.HttpRequest, client: df.DurableFunctionsClient) -> func.HttpResponse:
    await client.raise_orchestration_event(req.route_params["id"], req.route_params["event"], data=req.get_json())
    return answer({}, 202)


# Timer and Event Grid


@app.timer_trigger("timer", schedule="%SAMPLE_SCHEDULE%")
async def tick(timer: func.TimerRequest) -> None:
    note("tick", {"pastDue": timer.past_due, "status": getattr(timer, "schedule_status", None)})


@app.event_grid_trigger("event")
async def on_event(event: func.EventGridEvent) -> None:
    if event.subject == "fail":
        raise ValueError("an event that fails")
    note("event", {"id": event.id, "type": event.event_type, "data": event.get_json()})


@app.event_grid_trigger("event")
async def on_cloud_event(event: func.CloudEvent) -> None:
    note("cloudEvent", {"id": event.id, "type": event.type, "data": event.get_json()})


# Durable


@app.activity_trigger(input_name="value")
async def double(value: int) -> int:
    return value * 2


@app.activity_trigger(input_name="value")
async def slow(value: Any) -> dict[str, Any]:
    """Notes its start, sleeps, notes its end: tests kill the worker in between."""
    note("slow started", value)
    await asyncio.sleep(value["seconds"])
    note("slow ended", value)
    return {"pid": os.getpid()}


@app.activity_trigger(input_name="value")
def block(value: Any) -> str:
    """A synchronous activity, on a thread of the worker."""
    note("block", value)
    return str(value["text"])


@app.activity_trigger(input_name="value")
async def fail(value: str) -> None:
    raise TimeoutError(value)


type Steps[T] = Generator[task.Task[Any], Any, T]


@app.orchestration_trigger(context_name="context")
def fan_out(context: task.OrchestrationContext, count: int) -> Steps[int]:
    doubled: list[int] = yield task.when_all([context.call_activity("double", input=n) for n in range(count)])
    return sum(doubled)


@app.orchestration_trigger(context_name="context")
def run_slow(context: task.OrchestrationContext, value: dict[str, Any]) -> Steps[Any]:
    result: Any = yield context.call_activity("slow", input=value)
    text: str = yield context.call_activity("block", input={"text": "done"})
    return [result, text]


@app.orchestration_trigger(context_name="context")
def stuck_turn(context: task.OrchestrationContext, value: dict[str, Any]) -> Steps[str]:
    """Notes its first turn and hangs there until the file ``release`` exists: tests kill the worker meanwhile."""
    import time

    if not context.is_replaying:
        note("turn", {})
        while not Path(value["release"]).exists():
            time.sleep(0.02)
    text: str = yield context.call_activity("block", input={"text": "after the turn"})
    return text


@app.orchestration_trigger(context_name="context")
def failing(context: task.OrchestrationContext, message: str) -> Steps[Any]:
    try:
        yield context.call_activity("fail", input=message)
    except task.TaskFailedError as error:
        return [error.details.error_type, error.details.message, error.details.is_caused_by(TimeoutError)]
    return "no failure"


@app.orchestration_trigger(context_name="context")
def missing(context: task.OrchestrationContext, _: Any) -> Steps[Any]:
    yield context.call_activity("no_such_activity", input=None)


@app.orchestration_trigger(context_name="context")
def whole(context: task.OrchestrationContext, value: dict[str, Any]) -> Steps[Any]:
    """A timer, a fan-out in a sub-orchestration, an external event, then once more as new."""
    yield context.create_timer(timedelta(seconds=0.1))
    total: int = yield context.call_sub_orchestrator("fan_out", input=3)
    seen: list[Any] = value["seen"]
    event: Any = yield context.wait_for_external_event("go")
    seen = [*seen, [total, event]]
    if len(seen) < 2:
        context.continue_as_new({"seen": seen}, save_events=True)
        return None
    return seen
