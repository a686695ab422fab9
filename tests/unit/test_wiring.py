"""The services that functions are given."""

from __future__ import annotations

import asyncio
import inspect
from functools import cached_property

import azure.functions as func
import pytest

from patchwave.api.endpoint import guarded
from patchwave.azure.clients import close_clients
from patchwave.settings import Settings
from patchwave.wiring import Services, current_services

SETTINGS = Settings(tables_endpoint="https://account.table.core.windows.net")


async def test_each_service_is_created_once() -> None:
    services = Services(SETTINGS)
    names = [name for name, made in vars(Services).items() if isinstance(made, property | cached_property)]
    assert {"settings", "storage", "resource_manager", "resource_graph"} <= set(names)
    for name in names:
        assert getattr(services, name) is getattr(services, name)
    await services.close()
    await close_clients()


def test_an_event_loop_has_its_own_services() -> None:
    async def twice() -> tuple[Services, Services]:
        return current_services(), current_services()

    first, again = asyncio.run(twice())
    other, _ = asyncio.run(twice())
    assert first is again
    assert first is not other


def test_a_test_replaces_what_it_names() -> None:
    graph = object()
    assert Services(SETTINGS, resource_graph=graph).resource_graph is graph
    with pytest.raises(TypeError, match="Services has no graph"):
        Services(SETTINGS, graph=graph)


async def test_a_route_is_given_the_services_of_the_loop() -> None:
    async def shown(req: func.HttpRequest, services: Services) -> func.HttpResponse:
        given.append(services)
        return func.HttpResponse()

    given: list[Services] = []
    handler = guarded(shown, None)
    request = func.HttpRequest("GET", "https://example.org/api", body=b"")
    other = Services(SETTINGS)
    await handler(req=request)
    await handler(req=request, services=other)
    assert given == [current_services(), other]
    assert list(inspect.signature(handler).parameters) == ["req"]
