"""Region pairs and zone mappings, read from the simulator over HTTPS; and what stands in for a missing answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import httpx
import pytest

from patchwave.azure.locations import Locations
from tests.support.azure import Access
from tests.support.simulator import as_client, running

FIRST, SECOND = "11111111-2222-4333-8444-555555555555", "99999999-2222-4333-8444-555555555555"
MAPPED = {"subscriptionId": SECOND, "location": "westeurope", "logicalZone": "1", "physicalZone": "westeurope-az7"}


def machine(subscription: str) -> dict[str, str]:
    group = f"/subscriptions/{subscription}/resourceGroups/rg"
    return {"id": f"{group}/providers/Microsoft.Compute/virtualMachines/vm", "location": "westeurope"}


@pytest.fixture(scope="module")
def simulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The ready document of a simulator with two subscriptions; one has a zone mapping from its fleet file."""
    folder = tmp_path_factory.mktemp("locations")
    fleet = {
        "machines": [machine(FIRST), machine(SECOND)],
        "zoneMappings": [MAPPED],
        "regionPairs": [["italynorth", "swedencentral"]],
    }
    with running(folder, fleet) as document:
        yield document


@pytest.fixture
async def locations(simulator: dict[str, Any]) -> AsyncIterator[Locations]:
    access = Access(simulator)
    opened = Locations(access.settings, access.pipeline())
    yield opened
    await opened.close()


@pytest.fixture
def spoil(simulator: dict[str, Any]) -> Iterator[Callable[[str, dict[str, Any]], None]]:
    """Spoils every answer to the locations of a subscription, until the test ends."""
    with httpx.Client(**as_client(simulator)) as http:

        def add(subscription: str, effect: dict[str, Any]) -> None:
            rule = {"match": {"path": f"/subscriptions/{subscription}/locations"}, "effect": effect}
            assert http.post("/_sim/faults", json=rule).is_success

        yield add
        assert http.delete("/_sim/faults").is_success


async def test_pairs_and_zones_of_two_subscriptions(locations: Locations):
    topology = await locations.read([FIRST, SECOND.upper()])
    assert topology.conflicts("westeurope") == {"northeurope"}
    assert {"westus", "westus3"} <= topology.conflicts("eastus")
    assert topology.physical_zone(SECOND, "westeurope", "1") == "westeurope-az7"
    mine = [topology.physical_zone(FIRST, "westeurope", zone) for zone in "123"]
    assert sorted(mine) == ["westeurope-az1", "westeurope-az2", "westeurope-az3"]
    assert not topology.physical_zone(FIRST, "westus", "1")


async def test_pairs_of_azure_replace_the_built_in_ones(locations: Locations):
    topology = await locations.read([FIRST])
    assert "italynorth" in topology.conflicts("swedencentral")
    # The simulator knows nothing of this region.
    assert topology.conflicts("uaenorth") == {"uaecentral"}


@pytest.mark.parametrize(
    "effect",
    [
        {"status": 503},
        {"status": 403},
        {"drop": "before"},
        {"status": 200, "body": "no JSON", "contentType": "text/plain"},
        {"status": 200, "body": {"value": [None, {"name": 5}, {"name": "eastus", "metadata": []}]}},
    ],
    ids=["busy", "forbidden", "no answer", "no JSON", "another form"],
)
async def test_without_an_answer_the_pairs_stay_and_zones_are_unknown(
    spoil: Callable[[str, dict[str, Any]], None], locations: Locations, effect: dict[str, Any]
):
    spoil(SECOND, effect)
    topology = await locations.read([FIRST, SECOND])
    assert topology.physical_zone(FIRST, "westeurope", "1")
    assert not topology.physical_zone(SECOND, "westeurope", "1")
    assert topology.conflicts("northeurope") == {"westeurope"}


async def test_an_unknown_subscription_is_no_failure(locations: Locations):
    topology = await locations.read(["00000000-0000-0000-0000-000000000000"])
    assert topology.zones == {}
    assert topology.conflicts("ukwest") == {"uksouth"}


async def test_nothing_to_ask(locations: Locations):
    assert (await locations.read([])).conflicts("eastus2") == {"centralus"}
