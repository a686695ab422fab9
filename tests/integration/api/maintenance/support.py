"""What the tests of schedules share: the calls that several of them make, and their names for things."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from patchwave.api import maintenance_assignments, maintenance_configurations
from tests.support.http_calls import Answer, call
from tests.support.maintenance_samples import CONFIGURATION, EXAMPLE, MACHINE, SUBSCRIPTION, changed

OTHER = MACHINE.replace("win-atscalepatching-1", "linux-2")


def place(name: str = "TestAzureInGuestAdv2") -> dict[str, Any]:
    return {"subscriptionId": SUBSCRIPTION, "resourceGroup": "atscalepatching", "configuration": name}


def coming(hours: float = 2, **window: Any) -> dict[str, Any]:
    """A configuration whose first run comes in so many hours, in UTC."""
    starts = datetime.now(UTC) + timedelta(hours=hours)
    changes = {"startDateTime": f"{starts:%Y-%m-%d %H:%M}", "timeZone": "UTC"} | window
    return changed("properties.maintenanceWindow", EXAMPLE["properties"]["maintenanceWindow"] | changes)


async def put(name: str = "TestAzureInGuestAdv2", body: dict[str, Any] | None = None) -> Answer:
    return await call(
        maintenance_configurations.put_configuration, body=body or coming(), query={"actor": "ana"}, **place(name)
    )


async def assign(**body: Any) -> Answer:
    return await call(
        maintenance_assignments.put_assignment, body={"configurationId": CONFIGURATION} | body, query={"actor": "ana"}
    )


async def audit() -> list[str]:
    found = await call(maintenance_configurations.list_configuration_audit, **place())
    return [line["action"] for line in found.json["audit"]]


async def callers() -> set[tuple[str, str, bool]]:
    """Who did what is in the audit log of the configuration."""
    found = await call(maintenance_configurations.list_configuration_audit, **place())
    return {(line["actor"], line["actorId"], line["proven"]) for line in found.json["audit"]}
