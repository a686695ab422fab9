"""The workbench runs orchestrators as the app has them."""

from collections.abc import Generator
from datetime import timedelta
from typing import Any

import azure.durable_functions as df
import pytest
from durabletask import task
from durabletask.client import OrchestrationStatus

from local.functions_host.durable.workbench import Workbench

type Steps[T] = Generator[task.Task[Any], Any, T]

blueprint = df.Blueprint()


@blueprint.orchestration_trigger(context_name="context")
def poll(context: task.OrchestrationContext, times: int) -> Steps[str]:
    for _ in range(times):
        yield context.create_timer(timedelta(hours=1))
        answer: str = yield context.call_activity("ask", input={"at": context.current_utc_datetime.isoformat()})
        if answer == "done":
            return answer
    return "never"


def parent(context: task.OrchestrationContext, _: Any) -> Steps[Any]:
    done: Any = yield context.call_sub_orchestrator("poll", input=50)
    try:
        yield context.call_activity("raise", input=None)
    except task.TaskFailedError as error:
        return [done, error.details.error_type, context.instance_id]
    return None


def test_decorated_and_plain_orchestrators_with_fake_activities() -> None:
    answers = iter(["wait"] * 30 + ["done"])

    async def ask(_: Any) -> str:
        return next(answers)

    def refuse(_: Any) -> None:
        raise TimeoutError

    with Workbench([poll, parent], {"ask": ask, "raise": refuse}) as bench:
        ended = bench.run("parent", instance_id="p")
    assert ended.status is OrchestrationStatus.COMPLETED
    assert ended.output == ["done", "builtins.TimeoutError", "p"]
    assert len(bench.calls_of("ask")) == 31
    assert [type(event).__name__ for event in ended.history][-1] == "ExecutionCompletedEvent"


def test_a_value_that_the_functions_codec_refuses_fails() -> None:
    def outside(_: task.OrchestrationContext, __: Any) -> Any:
        return timedelta(1)

    with Workbench([outside]) as bench:
        ended = bench.run("outside")
    assert ended.status is OrchestrationStatus.FAILED
    assert ended.failure is not None


def test_the_client_needs_an_open_workbench() -> None:
    with pytest.raises(RuntimeError, match="with statement"):
        Workbench([parent]).start("parent")
