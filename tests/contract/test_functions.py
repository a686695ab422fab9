"""The app as Azure's own worker library finds it: exactly these functions, with these triggers and keys."""

from __future__ import annotations

import inspect
import json
import subprocess
import sys
from typing import Any

import pytest

from local import ROOT
from patchwave.api.endpoint import ROUTES
from patchwave.domain.workflow import contracts
from tests.support.function_index import HTTP, registered

# A process of its own: the library keeps the functions of an app for the life of the process.
_INDEX = """
import asyncio, importlib, json, sys
from types import SimpleNamespace
from local.functions_host.worker import messages

async def main():
    library = importlib.import_module("azure_functions_runtime")
    properties = {"host": "127.0.0.1", "protos": messages}

    async def call(entry_point, **fields):
        request = SimpleNamespace(**{entry_point: SimpleNamespace(**fields)})
        return await getattr(library, entry_point)(SimpleNamespace(request=request, properties=properties))

    await call("worker_init_request", function_app_directory=sys.argv[1], capabilities={})
    answer = await call("functions_metadata_request", function_app_directory=sys.argv[1])
    if answer.result.status != messages.StatusResult.Success:
        sys.exit(answer.result.exception.message)
    print(json.dumps({f.name: [json.loads(text) for text in f.raw_bindings] for f in answer.function_metadata_results}))

asyncio.run(main())
"""

OTHER_TRIGGERS = {
    "start_scheduled_runs": "timerTrigger",
    "delete_expired_snapshots": "timerTrigger",
    "supervise_runs": "timerTrigger",
    "purge_expired_records": "timerTrigger",
    "maintenance_event": "eventGridTrigger",
}
ORCHESTRATORS = {each.name for each in vars(contracts).values() if isinstance(each, contracts.Orchestration)}
ACTIVITIES = {each.name for each in vars(contracts).values() if isinstance(each, contracts.Activity)}
BUILT_IN = {"BuiltIn__HttpActivity", "BuiltIn__HttpPollOrchestrator"}


@pytest.fixture(scope="module")
def functions() -> dict[str, list[dict[str, Any]]]:
    """The bindings of every function, by its name."""
    found = subprocess.run(
        [sys.executable, "-c", _INDEX, str(ROOT)], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )
    assert found.returncode == 0, found.stderr
    return json.loads(found.stdout.splitlines()[-1])


def trigger_of(bindings: list[dict[str, Any]]) -> dict[str, Any]:
    (trigger,) = [each for each in bindings if each["type"].casefold().endswith("trigger")]
    return trigger


def test_the_app_has_exactly_these_functions(functions: dict[str, Any]) -> None:
    assert set(functions) == {*HTTP, *OTHER_TRIGGERS, *ORCHESTRATORS, *ACTIVITIES, *BUILT_IN}


@pytest.mark.parametrize("name", sorted(HTTP))
def test_routes_methods_and_keys(functions: dict[str, Any], name: str) -> None:
    trigger = trigger_of(functions[name])
    route, method = HTTP[name]
    assert trigger["type"] == "httpTrigger"
    assert trigger["route"] == route
    assert [each.casefold() for each in trigger["methods"]] == [method]
    assert trigger["authLevel"].casefold() == ("anonymous" if name == "health" else "function")


def test_every_http_function_is_registered_by_the_one_decorator(functions: dict[str, Any]) -> None:
    of_http = {name for name, bindings in functions.items() if trigger_of(bindings)["type"] == "httpTrigger"}
    assert of_http == ROUTES.keys()


@pytest.mark.parametrize("name", sorted(OTHER_TRIGGERS))
def test_the_timer_and_the_event_trigger(functions: dict[str, Any], name: str) -> None:
    trigger = trigger_of(functions[name])
    assert trigger["type"] == OTHER_TRIGGERS[name]
    if name == "start_scheduled_runs":
        assert trigger["schedule"] == "0 */5 * * * *"
        assert trigger["useMonitor"]
        assert not trigger["runOnStartup"]


@pytest.mark.parametrize("name", sorted(ORCHESTRATORS | ACTIVITIES))
def test_durable_functions_are_registered_under_their_names(functions: dict[str, Any], name: str) -> None:
    expected = "orchestrationTrigger" if name in ORCHESTRATORS else "activityTrigger"
    assert trigger_of(functions[name])["type"] == expected


def test_functions_that_start_or_control_runs_get_the_durable_client(functions: dict[str, Any]) -> None:
    with_client = {name for name, bindings in functions.items() if any(b["type"] == "durableClient" for b in bindings)}
    assert with_client == {
        "start_run",
        "pause_run",
        "resume_run",
        "cancel_run",
        "approve_ring",
        "reject_ring",
        "retry_machine",
        "start_mode_change",
        "resume_policy",
        "run_policy_now",
        "run_webhook",
        "start_scheduled_runs",
        "supervise_runs",
        "purge_expired_records",
        "maintenance_event",
    }


def test_every_function_is_asynchronous() -> None:
    """Turns of orchestrations have the worker's one thread for themselves (ADR 27)."""
    waiting = {name for name, one in registered().items() if not inspect.iscoroutinefunction(one.get_user_function())}
    assert waiting == {"BuiltIn__HttpActivity"}, "the library brings that one, and nothing here calls it"
    sample = json.loads((ROOT / "local.settings.sample.json").read_text("utf-8"))
    assert sample["Values"]["PYTHON_THREADPOOL_THREAD_COUNT"] == "1"
