"""A scheduled run: its configuration, its id and its start."""

from __future__ import annotations

from datetime import UTC, datetime

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
CONFIGURATION = (
    f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-updates"
    "/providers/Microsoft.Maintenance/maintenanceConfigurations/weekly"
)
ID = f"{CONFIGURATION}/providers/microsoft.maintenance/applyupdates/20261121030000"
START = datetime(2026, 11, 21, 3, 0, tzinfo=UTC)
