"""docs/contributing/simulator.md names what the simulator has: nothing that is not there, and nothing left out."""

from __future__ import annotations

import re
from typing import get_args

import pytest
from pydantic import BaseModel

from local import ROOT
from local.azure_simulator import __main__ as command
from local.azure_simulator.clock import Clock
from local.azure_simulator.compute.behavior import AgentState, PatchSimulation, PendingPatch, PowerState, Simulation
from local.azure_simulator.hybrid_compute.behavior import ArcSimulation, ConnectionStatus
from local.azure_simulator.maintenance.event_grid import Delivery
from local.azure_simulator.server.app import SimulatorApp
from local.azure_simulator.server.faults import Effect, Faults, Match, Operation, Rule
from local.azure_simulator.server.identity import Identity
from local.azure_simulator.state import AzureState

DOC = (ROOT / "docs/contributing/simulator.md").read_text(encoding="utf-8")


def between(start: str, end: str) -> str:
    return DOC.partition(start)[2].partition(end)[0]


def quoted(text: str) -> set[str]:
    return set(re.findall(r"`([^`]+)`", text))


def aliases(model: type[BaseModel]) -> set[str]:
    return {field.alias or name for name, field in model.model_fields.items()}


def operations() -> set[str]:
    return set(get_args(Operation.__value__))


def test_fault_operations_are_those_of_the_simulator() -> None:
    assert quoted(between("`operation` (", ")")) == operations()


@pytest.mark.parametrize("operation", sorted(operations()))
def test_each_fault_operation_is_taken(operation: str) -> None:
    assert Faults(1).add({"match": {"operation": operation}, "effect": {"status": 500}})["match"] == {
        "operation": operation
    }


def test_every_route_can_be_met_by_a_fault() -> None:
    azure = AzureState([], Clock(1), "https://x")
    served = {route.operation for route in SimulatorApp(azure, Identity(azure), lambda _: None).routes}
    assert served
    assert served <= operations()


def test_matches_and_effects_are_those_of_the_simulator() -> None:
    rule = between("`match`: ", "## What it leaves out")
    named = quoted(rule) - operations() - {"before", "after"}
    assert named | {"after", "effect", "match"} == aliases(Match) | aliases(Effect) | aliases(Rule)


def test_keys_of_arc_machines_are_those_of_the_simulator() -> None:
    table = between("An Arc machine has", "## Patch settings")
    named = {word for line in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for word in quoted(line)}
    assert named == aliases(ArcSimulation) - aliases(PatchSimulation)
    [left_out] = re.findall(r"all keys above but (.*?);", table, re.DOTALL)
    assert quoted(left_out) == aliases(Simulation) - aliases(PatchSimulation) - {"agent"}
    [status] = re.findall(r"^\| `status` \| (.*) \|$", table, re.MULTILINE)
    assert quoted(status) == set(get_args(ConnectionStatus))


def test_keys_of_simulation_are_those_of_the_simulator() -> None:
    table = between("Each machine may carry `simulation`", "An Arc machine has")
    named = {word for line in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE) for word in quoted(line)} - {"true"}
    assert named == aliases(Simulation)
    [power] = re.findall(r"^\| `power` \| (.*) \|$", table, re.MULTILINE)
    assert set(get_args(PowerState)) <= quoted(power)
    [agent] = re.findall(r"^\| `agent` \| (.*) \|$", table, re.MULTILINE)
    assert quoted(agent) == set(get_args(AgentState))
    [patch] = re.findall(r"^\| `pendingPatches` \| .*?`\{(.*?)\}`.* \|$", table, re.MULTILINE)
    assert set(patch.split(", ")) == aliases(PendingPatch)


def test_options_of_deliveries_are_those_of_the_simulator() -> None:
    row = between('`POST /_sim/maintenance` `{"configuration", …}` | how its events are delivered: ', "takes its")
    assert quoted(row) - {"EventGrid", "CloudEvents", "pascal", "camel"} == aliases(Delivery) | {"withoutPatchMode"}


def test_options_of_the_command_are_those_of_the_simulator() -> None:
    table = between("| option | default | meaning |", "Clients need")
    taken = set(re.findall(r"--[a-z-]+", command._parser().format_help())) - {"--help"}  # pyright: ignore[reportPrivateUsage]
    assert set(re.findall(r"--[a-z][a-z-]*", table)) == taken
