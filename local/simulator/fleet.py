"""Fleets: read from what Azure's own tools print, or made up from a seed.

A file may be the JSON of ``az vm list`` (flattened or with ``-d``), of a Resource Graph query (rows, or the answer with
``data``), or of an ARM list (``value`` with ``properties``). Each entry may carry ``simulation`` overrides.
"""

from __future__ import annotations

import json
import random
import re
import uuid
from pathlib import Path
from typing import Any, cast

from pydantic import ValidationError

from local.simulator.clock import Clock
from local.simulator.machine import Machine
from local.simulator.reading import as_list, as_object, dig
from local.simulator.simulation import read_simulation

_ID = re.compile(
    r"/subscriptions/[0-9a-f-]{36}/resourceGroups/[^/]+/providers/Microsoft\.Compute/virtualMachines/[^/]+",
    re.IGNORECASE,
)
_NOT_PROPERTIES = {
    "id", "name", "type", "location", "tags", "zones", "identity", "plan", "resources", "extendedLocation", "managedBy",
    "etag", "resourceGroup", "simulation", "powerState", "fqdns", "publicIps", "privateIps", "macAddresses",
    "properties", "subscriptionId", "tenantId", "kind", "sku", "osType", "vmSize", "placement",
}  # fmt: skip


class FleetError(ValueError):
    """A fleet file that cannot be used; the text says which entry and why."""


def read_fleet(path: Path, clock: Clock, seed: int) -> list[Machine]:
    """Read a fleet file.

    Raises:
        FleetError: not JSON, not one of the three forms, a bad id, a duplicate, or a bad override.
    """
    try:
        document: object = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise FleetError(f"{path}: {error}") from error
    if isinstance(document, dict):
        wrapped = cast(dict[str, Any], document)
        document = wrapped.get("value", wrapped.get("data", wrapped.get("machines")))
    if not isinstance(document, list):
        raise FleetError(f"{path}: expected a list of machines, or an object with 'value' or 'data'")
    machines: list[Machine] = []
    seen: set[str] = set()
    for index, entry in enumerate(cast(list[object], document)):
        machine = _machine(entry, f"{path}: entry {index}", clock, seed)
        if machine.folded in seen:
            raise FleetError(f"{path}: entry {index}: {machine.id} is listed twice (ids are compared without case)")
        seen.add(machine.folded)
        machines.append(machine)
    return machines


def _machine(entry: object, where: str, clock: Clock, seed: int) -> Machine:
    if not isinstance(entry, dict):
        raise FleetError(f"{where}: not an object")
    given = cast(dict[str, Any], entry)
    machine_id = given.get("id")
    if not isinstance(machine_id, str) or not _ID.fullmatch(machine_id):
        raise FleetError(f"{where}: 'id' is not the ARM id of a virtual machine: {machine_id!r}")
    try:
        simulation = read_simulation(given.get("simulation"))
    except ValidationError as error:
        first = error.errors()[0]
        path = ".".join(str(part) for part in first["loc"])
        raise FleetError(f"{where}: simulation.{path}: {first['msg']}") from error
    flat = {key: value for key, value in given.items() if key not in _NOT_PROPERTIES}
    shown = {**flat, **as_object(given.get("properties"))}
    return Machine(
        machine_id=machine_id,
        location=str(given.get("location") or "westeurope").replace(" ", "").lower(),
        os_type=_os_type(given, shown, where),
        simulation=simulation,
        seed=seed,
        clock=clock,
        zones=[str(zone) for zone in as_list(given.get("zones"))],
        tags={str(key): str(value) for key, value in as_object(given.get("tags")).items()},
        given={**{key: given[key] for key in ("identity", "plan") if given.get(key)}, "properties": shown},
        power=_power(given, shown),
    )


def _os_type(given: dict[str, Any], shown: dict[str, Any], where: str) -> str:
    found = given.get("osType") or dig(shown, "storageProfile", "osDisk", "osType")
    if found is None:
        found = "Windows" if dig(shown, "osProfile", "windowsConfiguration") else "Linux"
    if str(found).casefold() not in ("windows", "linux"):
        raise FleetError(f"{where}: osType must be Windows or Linux, not {found!r}")
    return str(found).capitalize()


def _power(given: dict[str, Any], shown: dict[str, Any]) -> str:
    code = str(
        given.get("powerState") or dig(shown, "extended", "instanceView", "powerState", "code") or "running"
    ).casefold()
    return next((state for state in ("deallocated", "stopped") if state in code), "running")


_APPS = ["shop", "billing", "crm", "portal", "search", "media"]
_ROLES = [("web", "Linux"), ("app", "Windows"), ("sql", "Windows"), ("batch", "Linux")]
_REGIONS = ["westeurope", "northeurope", "eastus", "westus", "uksouth", "ukwest"]
_ENVIRONMENTS = ["prod", "prod", "prod", "test", "dev"]


def generate_fleet(count: int, clock: Clock, seed: int) -> list[Machine]:
    """A fleet over several subscriptions and regions; half of it in zones, the rest in availability sets of five."""
    source = random.Random(f"fleet:{seed}")
    subscriptions = [_guid(source) for _ in range(max(2, min(10, count // 1_000)))]
    plain = read_simulation(None)
    machines: list[Machine] = []
    for index in range(count):
        subscription = subscriptions[index % len(subscriptions)]
        region = _REGIONS[index // len(subscriptions) % len(_REGIONS)]
        app = _APPS[source.randrange(len(_APPS))]
        role, os_type = _ROLES[source.randrange(len(_ROLES))]
        environment = _ENVIRONMENTS[source.randrange(len(_ENVIRONMENTS))]
        group = f"rg-{app}-{region}"
        name = f"{role}-{app}-{index:05d}"
        zoned = source.random() < 0.5
        shown: dict[str, Any] = {}
        if not zoned:
            path = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute/availabilitySets"
            shown["availabilitySet"] = {"id": f"{path}/avset-{role}-{index // 60:04d}"}
        machines.append(
            Machine(
                machine_id=f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute"
                f"/virtualMachines/{name}",
                location=region,
                os_type=os_type,
                simulation=plain,
                seed=seed,
                clock=clock,
                zones=[str(1 + index % 3)] if zoned else [],
                tags={"app": app, "env": environment, "role": role},
                given={"properties": shown},
            )
        )
    return machines


def _guid(source: random.Random) -> str:
    return str(uuid.UUID(int=source.getrandbits(128), version=4))
