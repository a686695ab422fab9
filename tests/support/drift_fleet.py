"""Fleets for tests of the doctor: machines, schedules, assignments and policies, each in one line."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from patchwave.domain.calendar.schedule import Schedule
from patchwave.domain.drift.detect import examine
from patchwave.domain.drift.findings import DriftReport, Finding, FindingKind
from patchwave.domain.drift.inputs import DriftInputs, FleetPolicy
from patchwave.domain.fleet.discovery import DiscoveredMachine
from patchwave.domain.fleet.machine import FleetMachine
from patchwave.domain.fleet.patch_mode import AssessmentMode, PatchMode, PatchSettings
from patchwave.domain.maintenance.assignment import Assignment, ScopeFilter
from patchwave.domain.maintenance.configuration import (
    ConfigurationProperties,
    InstallPatches,
    LinuxPatches,
    MaintenanceConfiguration,
    MaintenanceWindow,
    WindowsPatches,
)
from patchwave.domain.policy.policy import Policy
from patchwave.domain.policy.scope import OsType, Scope

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-web"
CUSTOM_IMAGE = f"{GROUP}/providers/Microsoft.Compute/images/golden"
NOW = datetime(2026, 11, 21, 12, tzinfo=UTC)

BY_PLATFORM = PatchMode.AUTOMATIC_BY_PLATFORM


def machine_id(name: str = "web-01") -> str:
    return f"{GROUP}/providers/Microsoft.Compute/virtualMachines/{name}"


def configuration_id(name: str = "weekly") -> str:
    return f"{GROUP}/providers/Microsoft.Maintenance/maintenanceConfigurations/{name}"


def machine(
    name: str = "web-01",
    mode: PatchMode | None = BY_PLATFORM,
    *,
    os_type: OsType = OsType.LINUX,
    image: str = "",
    created_at: datetime | None = None,
    tags: dict[str, str] | None = None,
    power: str = "running",
    agent_version: str = "",
    allows_extensions: bool = True,
    **settings: Any,
) -> FleetMachine:
    """A machine that is assessed daily, unless told otherwise."""
    settings = {"assessment_mode": AssessmentMode.AUTOMATIC_BY_PLATFORM} | settings
    return FleetMachine(
        DiscoveredMachine(
            id=machine_id(name),
            name=name,
            subscription_id=SUBSCRIPTION,
            resource_group="rg-web",
            location="westeurope",
            os_type=os_type.value,
            tags=tags or {},
            power_state=f"PowerState/{power}",
        ).model_copy(update={"image": image}),
        PatchSettings(os_type=os_type, patch_mode=mode, **settings),
        created_at=created_at,
        agent_version=agent_version,
        allows_extensions=allows_extensions,
    )


def configuration(
    name: str = "weekly",
    *,
    start: str = "2026-01-03 22:00",
    recur: str = "Week Saturday",
    expires: str = "",
    mode: str = "User",
    linux: tuple[str, ...] = ("Critical", "Security"),
    windows: tuple[str, ...] = ("Critical", "Security"),
) -> MaintenanceConfiguration:
    """A schedule in UTC of two hours; Saturdays at 22:00 unless told otherwise."""
    return MaintenanceConfiguration(
        id=configuration_id(name),
        name=name,
        location="westeurope",
        properties=ConfigurationProperties(
            extension_properties={"InGuestPatchMode": mode} if mode else {},
            maintenance_window=MaintenanceWindow(
                start_date_time=start,
                expiration_date_time=expires,
                duration="02:00",
                time_zone="UTC",
                recur_every=recur,
            ),
            install_patches=InstallPatches(
                linux_parameters=LinuxPatches(classifications_to_include=linux),
                windows_parameters=WindowsPatches(classifications_to_include=windows),
            ),
        ),
    )


def assigned(to: str = "weekly", machine: str = "web-01") -> Assignment:
    """The assignment of one machine."""
    return _assignment(machine_id(machine), to, None)


def scoped(to: str = "weekly", **criteria: Any) -> Assignment:
    """A dynamic scope over the subscription."""
    return _assignment(f"/subscriptions/{SUBSCRIPTION}", to, ScopeFilter(**criteria))


def _assignment(resource: str, to: str, criteria: ScopeFilter | None) -> Assignment:
    return Assignment(
        id=f"{resource}/providers/Microsoft.Maintenance/configurationAssignments/{to}-assigned",
        name=f"{to}-assigned",
        maintenance_configuration_id=configuration_id(to),
        resource_id=resource,
        filter=criteria,
    )


def policy(
    name: str = "monthly", *, resting: str = "", recurrence: str = "second Tuesday", **given: Any
) -> FleetPolicy:
    """A policy over the subscription with a schedule."""
    schedule = (
        Schedule(recurrence=recurrence, time="22:00", time_zone="UTC", window=timedelta(hours=4))
        if recurrence
        else None
    )
    scope = Scope(subscriptions=(SUBSCRIPTION,))
    document: dict[str, Any] = {"name": name, "scope": scope, "schedule": schedule} | given
    return FleetPolicy(Policy.model_validate(document, by_name=True), resting)


def facts(*machines: FleetMachine, **rest: Any) -> DriftInputs:
    return DriftInputs(machines=machines, **rest)


def report(fleet: DriftInputs, *, stale_days: int = 7) -> DriftReport:
    return examine(fleet, NOW, stale_days)


def found(fleet: DriftInputs, kind: FindingKind | None = None, *, stale_days: int = 7) -> list[Finding]:
    """The findings of one kind; without one all but stale assessments, which few fleets of tests have."""
    findings = report(fleet, stale_days=stale_days).findings
    if kind is None:
        return [each for each in findings if each.kind is not FindingKind.STALE_ASSESSMENT]
    return [each for each in findings if each.kind is kind]
