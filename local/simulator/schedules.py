"""What Microsoft.Maintenance keeps: configurations and assignments, and which machine belongs to which."""

from __future__ import annotations

from local.simulator.assignments import Assignment
from local.simulator.configurations import Configuration
from local.simulator.machine import Machine
from local.simulator.world import World


class Schedules:
    """All configurations and assignments, by folded id."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.configurations: dict[str, Configuration] = {}
        self.assignments: dict[str, Assignment] = {}

    def put(self, configuration: Configuration) -> None:
        """Take a new or changed configuration."""
        self.configurations[configuration.folded] = configuration

    def remove(self, folded: str) -> bool:
        """Forget a configuration. Its assignments stay, as stale ones do in Azure; false when there is none."""
        return self.configurations.pop(folded, None) is not None

    def machines_of(self, configuration: Configuration) -> list[Machine]:
        """The machines that are assigned now, each once, in the fleet's order."""
        mine = [each for each in self.assignments.values() if each.configuration == configuration.folded]
        return [
            machine
            for machine in self.world.machines.values()
            if not machine.simulation.gone and any(each.holds(machine) for each in mine)
        ]
