"""The questions about schedules that Resource Graph answers: texts only, values enter as literals.

``maintenanceresources`` knows assignments and runs, minutes late; configurations themselves are ``resources``. Rows are
ordered by id, because pages of an unordered query may overlap. The grammar is that of
`patchwave.domain.fleet.discovery`.
"""

from collections.abc import Sequence

from patchwave.domain.core.ids import ConfigurationId, MachineId
from patchwave.domain.fleet.discovery import literal, same_as, starts_with
from patchwave.domain.fleet.packed_rows import PackedTable

CONFIGURATIONS = "microsoft.maintenance/maintenanceconfigurations"
ASSIGNMENTS = "microsoft.maintenance/configurationassignments"
MACHINE_UPDATES = "microsoft.maintenance/applyupdates"
"""One row for each machine of a run."""
RUN_UPDATES = "microsoft.maintenance/maintenanceconfigurations/applyupdates"
"""One row for each run."""
INSTALLATIONS = "microsoft.compute/virtualmachines/patchinstallationresults"
"""One row for each installation on a machine, kept for 30 days."""
INSTALLED_PATCHES = "microsoft.compute/virtualmachines/patchinstallationresults/softwarepatches"
INSTALLATIONS_PER_QUERY = 10
"""Whose patches one query asks for: ids are long, and a page holds a thousand patches."""


def all_configurations() -> str:
    """Every configuration: ``id, name, location, tags, properties``."""
    return _query("resources", CONFIGURATIONS, columns="id, name, location, tags, properties")


def all_assignments() -> str:
    """Every assignment, of machines and dynamic scopes: ``id, name, properties``."""
    return _query("maintenanceresources", ASSIGNMENTS, columns="id, name, properties")


PACKED_ASSIGNMENTS = PackedTable(
    table="maintenanceresources",
    kind=ASSIGNMENTS,
    behind="/providers/microsoft.maintenance/configurationassignments/",
    columns={"id": "id", "name": "name", "properties": "properties"},
)
"""`all_assignments`, packed: of thousands of machines with one each, they are a page or two."""


def dynamic_scopes() -> str:
    """Every dynamic scope: ``id, name, properties``."""
    # The resource of a dynamic scope is a subscription or a group, whose ids name no provider.
    condition = "not (properties.resourceId contains '/providers/')"
    return _query("maintenanceresources", ASSIGNMENTS, condition, columns="id, name, properties")


def assignments_of_configuration(configuration: ConfigurationId) -> str:
    """What a configuration is assigned to: ``id, name, properties``."""
    condition = same_as("properties.maintenanceConfigurationId", str(configuration))
    return _query("maintenanceresources", ASSIGNMENTS, condition, columns="id, name, properties")


def assignment_with_id(assignment_id: str) -> str:
    """One assignment: ``id, name, properties``."""
    return _query("maintenanceresources", ASSIGNMENTS, same_as("id", assignment_id), columns="id, name, properties")


def assignments_of_machine(machine: MachineId, configuration: ConfigurationId | None = None) -> str:
    """The assignments that name the machine, of one configuration or of all: ``id, name, properties``.

    With a configuration it is the documented way to find what has to be deleted.
    """
    conditions = [same_as("properties.resourceId", machine.text)]
    if configuration is not None:
        conditions.insert(0, same_as("properties.maintenanceConfigurationId", str(configuration)))
    return _query("maintenanceresources", ASSIGNMENTS, *conditions, columns="id, name, properties")


def machines_of_run(correlation_id: str) -> str:
    """The machines of one run and how each ended: ``id, resourceId, properties``.

    Args:
        correlation_id: ``{configuration}/providers/microsoft.maintenance/applyupdates/{yyyyMMddHHmmss}``.
    """
    condition = same_as("properties.correlationId", correlation_id)
    columns = "id, resourceId = tostring(properties.resourceId), properties"
    return _query("maintenanceresources", MACHINE_UPDATES, condition, columns=columns)


def run_with_id(correlation_id: str) -> str:
    """One run: ``id, properties``. The correlation id is that of `machines_of_run`."""
    condition = same_as("properties.correlationId", correlation_id)
    return _query("maintenanceresources", RUN_UPDATES, condition, columns="id, properties")


def canceled_runs(configuration: ConfigurationId | None = None) -> str:
    """The runs that are cancelled, of one configuration or of all: ``id, properties``."""
    conditions = ["properties.status =~ 'Cancelled'"]
    if configuration is not None:
        conditions.insert(0, same_as("properties.maintenanceConfigurationId", str(configuration)))
    return _query("maintenanceresources", RUN_UPDATES, *conditions, columns="id, properties")


def installations_of_run(correlation_id: str) -> str:
    """The installations of one run, without their patches: ``id, properties``."""
    condition = same_as("properties.maintenanceRunId", correlation_id)
    return _query("patchinstallationresources", INSTALLATIONS, condition, columns="id, properties")


def patches_of_installations(ids: Sequence[str]) -> str:
    """The patches of these installations: ``id, properties``; the id begins with that of the installation."""
    condition = " or ".join(starts_with("id", f"{text}/") for text in ids)
    return _query("patchinstallationresources", INSTALLED_PATCHES, condition, columns="id, properties")


def _query(table: str, kind: str, *conditions: str, columns: str) -> str:
    lines = [table, f"| where type =~ {literal(kind)}"]
    lines += [f"| where {condition}" for condition in conditions]
    return "\n".join([*lines, f"| project {columns}", "| order by id asc"])
