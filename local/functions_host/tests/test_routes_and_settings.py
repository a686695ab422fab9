"""Route templates, host.json, settings in bindings, and the messages for the worker library."""

import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from local.functions_host.functions import Function
from local.functions_host.host_json import HostJson, HostJsonError, expand_settings, load_host_json, parse_time_span
from local.functions_host.http.routes import Routes
from local.functions_host.worker import messages


def _function(route: str | None, methods: list[str] | None = None, name: str = "f") -> Function:
    trigger: dict[str, Any] = {"type": "httpTrigger", "name": "req", "methods": methods}
    if route is not None:
        trigger["route"] = route
    return Function(name, name, trigger, [trigger])


@pytest.mark.parametrize(
    ("route", "path", "parameters"),
    [
        (None, "/api/f", {}),
        ("runs/{id}", "/api/runs/a%20b", {"id": "a b"}),
        ("runs/{id}", "/api/RUNS/x/", {"id": "x"}),
        ("runs/{id}", "/api/runs", None),
        ("runs/{id}", "/api/runs/a/b", None),
        ("runs/{id?}", "/api/runs", {}),
        ("n/{n:int}", "/api/n/12", {"n": "12"}),
        ("n/{n:int}", "/api/n/twelve", None),
        ("g/{g:guid}", "/api/g/0d1a2b3c-0000-4000-8000-000000000000", {"g": "0d1a2b3c-0000-4000-8000-000000000000"}),
        ("files/{*rest}", "/api/files/a/b.txt", {"rest": "a/b.txt"}),
        ("dots.v1", "/api/dotsxv1", None),
    ],
)
def test_matching(route: str | None, path: str, parameters: dict[str, str] | None) -> None:
    found = Routes([_function(route)], "api").match("GET", path)
    assert (None if found is None else found[1]) == parameters


def test_the_more_specific_route_wins_whatever_the_order() -> None:
    free, literal, number = (
        _function("policies/{name}", name="free"),
        _function("policies/schema", name="literal"),
        _function("policies/{n:int}", name="number"),
    )
    for functions in ([free, literal, number], [number, literal, free]):
        routes = Routes(functions, "api")
        answers = [routes.match("GET", f"/api/policies/{last}") for last in ("schema", "7", "x")]
        assert [found[0].name for found in answers if found] == ["literal", "number", "free"]


def test_one_path_with_two_methods_is_two_functions() -> None:
    routes = Routes([_function("runs", ["GET"], "list"), _function("runs", ["POST"], "start")], "")
    assert [found[0].name for m in ("GET", "POST") if (found := routes.match(m, "/runs"))] == ["list", "start"]
    assert routes.match("PUT", "/runs") is None


@pytest.mark.parametrize("route", ["a/{b:regex(x)}", "a/{b}.json"])
def test_templates_that_are_not_supported_are_refused(route: str) -> None:
    with pytest.raises(HostJsonError, match="not supported"):
        Routes([_function(route)], "api")


def _host_json(folder: Path, document: object) -> HostJson:
    (folder / "host.json").write_text(document if isinstance(document, str) else json.dumps(document))
    return load_host_json(folder)


def test_host_json(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HUB", "hub1")
    settings = _host_json(
        tmp_path,
        {
            "version": "2.0",
            "functionTimeout": "00:10:00",
            "extensions": {
                "http": {"routePrefix": ""},
                "durableTask": {
                    "hubName": "%HUB%",
                    "maxConcurrentActivityFunctions": 3,
                    "maxConcurrentOrchestratorFunctions": 2,
                    "overridableExistingInstanceStates": "AnyState",
                },
            },
            "logging": {"logLevel": {"default": "Warning", "a.b": "None"}},
        },
    )
    assert settings == HostJson(
        route_prefix="",
        function_timeout=timedelta(minutes=10),
        hub_name="hub1",
        max_activities=3,
        max_orchestrators=2,
        replace_live_instances=True,
        log_levels={"": "WARNING", "a.b": "CRITICAL"},
    )


def test_host_json_defaults(tmp_path: Path) -> None:
    assert load_host_json(tmp_path) == HostJson()
    assert _host_json(tmp_path, {"version": "2.0", "functionTimeout": "-1"}).function_timeout is None


@pytest.mark.parametrize("document", ["{", "[]", {}, {"version": "2.0", "functionTimeout": "soon"}])
def test_an_unusable_host_json_is_refused(tmp_path: Path, document: object) -> None:
    with pytest.raises(HostJsonError):
        _host_json(tmp_path, document)


def test_time_spans_and_settings() -> None:
    assert parse_time_span("1.02:03:04") == timedelta(days=1, hours=2, minutes=3, seconds=4)
    assert expand_settings("a%B%c%D%", {"B": "1", "D": "2"}) == "a1c2"
    with pytest.raises(HostJsonError, match="NOPE"):
        expand_settings("%NOPE%", {})


def test_typed_data_is_one_of_its_fields() -> None:
    data = messages.TypedData(json="{}")
    assert (data.WhichOneof("data"), data.json, data.string) == ("json", "{}", None)
    assert messages.TypedData().WhichOneof("data") is None
    for wrong in ({"json": "{}", "string": ""}, {"text": ""}):
        with pytest.raises(TypeError):
            messages.TypedData(**wrong)
