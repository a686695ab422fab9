"""Fleets: read from the output of Azure's tools, or generated from a seed.

A file may be the JSON of ``az vm list`` (flattened or with ``-d``) or ``az connectedmachine list``, of a Resource Graph
query (rows, or the answer with ``data``), or of an ARM list (``value`` with ``properties``), or ``{"machines": […]}``,
which may carry ``zoneMappings``, ``regionPairs`` and ``scaleSets`` beside them. Virtual machines, Arc machines and
scale sets may stand together: their ids tell them apart. Each machine may carry ``simulation`` overrides.
"""

from __future__ import annotations

import json
import random
import re
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from pydantic import ValidationError

from local.azure_simulator.arm.names import folded
from local.azure_simulator.arm.regions import Geography
from local.azure_simulator.clock import Clock
from local.azure_simulator.compute.behavior import PatchSimulation, Simulation
from local.azure_simulator.compute.machine import Machine
from local.azure_simulator.compute.scale_sets import SET_ID, ScaleSet, read_scale_set
from local.azure_simulator.hybrid_compute.behavior import ArcSimulation, ConnectionStatus
from local.azure_simulator.hybrid_compute.machine import ArcMachine
from local.azure_simulator.server.json_readers import dig, list_or_empty, object_or_none

_ID = re.compile(
    r"/subscriptions/[0-9a-f-]{36}/resourceGroups/[^/]+/providers"
    r"/(?:Microsoft\.Compute/virtualMachines|(?P<arc>Microsoft\.HybridCompute/machines))/[^/]+",
    re.IGNORECASE,
)
_NOT_PROPERTIES = {
    "id", "name", "type", "location", "tags", "zones", "identity", "plan", "resources", "extendedLocation", "managedBy",
    "etag", "resourceGroup", "simulation", "powerState", "fqdns", "publicIps", "privateIps", "macAddresses",
    "properties", "subscriptionId", "tenantId", "kind", "sku", "osType", "vmSize", "placement",
}  # fmt: skip
_MAX_SHOWN = 5


class FleetError(ValueError):
    """An unusable fleet file, or machine in it; the text has the reason."""


@dataclass(slots=True)
class Fleet:
    """The content of a fleet file. ``notes`` list omitted and merged machines with their positions."""

    machines: list[Machine] = field(default_factory=list[Machine])
    scale_sets: list[ScaleSet] = field(default_factory=list[ScaleSet])
    arc_machines: list[ArcMachine] = field(default_factory=list[ArcMachine])
    geography: Geography = field(default_factory=Geography)
    notes: list[str] = field(default_factory=list[str])


def read_fleet(path: Path, clock: Clock, seed: int) -> Fleet:
    """Read a fleet file. Unusable machines are left out, and duplicates are merged.

    Raises:
        FleetError: not JSON, an unknown form, or without a usable machine.
    """
    try:
        # Given bytes, the JSON parser detects UTF-16 and the byte order mark that PowerShell writes.
        document: object = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise FleetError(f"{path}: {error}") from error
    fleet = Fleet()
    name, listed = "", document
    if isinstance(document, dict):
        wrapped = cast(dict[str, Any], document)
        name = next((key for key in ("machines", "value", "data") if isinstance(wrapped.get(key), list)), "")
        listed = wrapped.get(name)
        fleet.geography = _geography(wrapped, fleet.notes)
        for index, entry in enumerate(list_or_empty(wrapped.get("scaleSets"))):
            _add_scale_set(fleet, f"scaleSets[{index}]", object_or_none(entry))
    if not isinstance(listed, list):
        raise FleetError(f"{path}: expected a list of machines, or an object with 'machines', 'value' or 'data'")
    entries = cast(list[object], listed)
    merged: dict[str, tuple[str, dict[str, Any]]] = {}
    for index, entry in enumerate(entries):
        where = f"{name}[{index}]"
        machine_id = object_or_none(entry).get("id")
        if isinstance(machine_id, str) and SET_ID.fullmatch(machine_id):
            _add_scale_set(fleet, where, object_or_none(entry))
            continue
        if not isinstance(machine_id, str) or not _ID.fullmatch(machine_id):
            fleet.notes.append(f"{where} is left out: {machine_id!r} is not the id of a virtual or Arc machine")
            continue
        first, known = merged.get(folded(machine_id), (where, None))
        given = object_or_none(entry)
        if known is not None:
            given = _merge(known, given)
            fleet.notes.append(f"{where} is {first} again ({known['id']}): merged; where they differ, {first} is right")
        merged[folded(machine_id)] = (first, given)
    for where, given in merged.values():
        try:
            if _is_arc(given):
                fleet.arc_machines.append(_arc_machine(given, clock, seed))
            else:
                fleet.machines.append(_machine(given, clock, seed))
        except FleetError as error:
            fleet.notes.append(f"{where} is left out: {error}")
    if entries and not (fleet.machines or fleet.arc_machines or fleet.scale_sets):
        shown = "; ".join(fleet.notes[:_MAX_SHOWN])
        raise FleetError(f"{path}: none of its {len(entries)} machines can be used: {shown}")
    return fleet


def _add_scale_set(fleet: Fleet, where: str, given: dict[str, Any]) -> None:
    found = read_scale_set(given)
    if isinstance(found, str):
        fleet.notes.append(f"{where} is left out: {found}")
    elif any(other.key == found.key for other in fleet.scale_sets):
        fleet.notes.append(f"{where} is left out: {found.id} is listed already")
    else:
        fleet.scale_sets.append(found)


def _merge(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    """Both entries of a machine: the second one only fills gaps of the first."""
    made = dict(first)
    for key, value in second.items():
        below = made.get(key)
        if isinstance(below, dict) and isinstance(value, dict):
            made[key] = _merge(cast(dict[str, Any], below), cast(dict[str, Any], value))
        elif below in (None, "", [], {}):
            made[key] = value
    return made


def _geography(wrapped: dict[str, Any], notes: list[str]) -> Geography:
    zones: dict[tuple[str, str, str], str] = {}
    for index, entry in enumerate(list_or_empty(wrapped.get("zoneMappings"))):
        mapping = object_or_none(entry)
        fields = [mapping.get(key) for key in ("subscriptionId", "location", "logicalZone", "physicalZone")]
        if all(isinstance(each, str) and each for each in fields):
            subscription, location, logical, physical = map(str, fields)
            zones[subscription.casefold(), _region(location), logical] = physical
        else:
            notes.append(
                f"zoneMappings[{index}] is left out: it needs subscriptionId, location, logicalZone and physicalZone"
            )
    pairs: dict[str, str] = {}
    for index, entry in enumerate(list_or_empty(wrapped.get("regionPairs"))):
        pair = list_or_empty(entry)
        if len(pair) == 2 and all(isinstance(each, str) and each for each in pair):
            pairs[_region(pair[0])] = _region(pair[1])
        else:
            notes.append(f"regionPairs[{index}] is left out: a pair is a list of two regions")
    return Geography(zones, pairs)


def _region(text: str) -> str:
    return text.replace(" ", "").lower()


def _is_arc(given: dict[str, Any]) -> bool:
    found = _ID.fullmatch(str(given["id"]))
    return found is not None and found["arc"] is not None


def _simulation[S: PatchSimulation](given: dict[str, Any], kind: type[S]) -> S:
    try:
        return kind.model_validate(given.get("simulation") or {})
    except ValidationError as error:
        # Report the alternative of the union whose validation came furthest: it is the intended one.
        meant = max(error.errors(), key=lambda each: len(each["loc"]))
        path = ".".join(str(part) for part in meant["loc"] if "[" not in str(part))
        raise FleetError(f"simulation.{path}: {meant['msg']}") from error


def _common(given: dict[str, Any]) -> tuple[str, str, dict[str, str]]:
    """Id, region and tags of an entry."""
    if not given.get("location"):
        raise FleetError("it has no location")
    tags = {str(key): str(value) for key, value in object_or_none(given.get("tags")).items()}
    return str(given["id"]), _region(str(given["location"])), tags


def _arc_machine(given: dict[str, Any], clock: Clock, seed: int) -> ArcMachine:
    """An Arc machine with a valid id; errors as for ``_machine``."""
    simulation = _simulation(given, ArcSimulation)
    machine_id, location, tags = _common(given)
    flat = {key: value for key, value in given.items() if key not in _NOT_PROPERTIES - {"osType"}}
    shown = {**flat, **object_or_none(given.get("properties"))}
    system = shown.get("osType") or shown.get("osName")
    if system is None:
        system = "Windows" if dig(shown, "osProfile", "windowsConfiguration") else "Linux"
    status = str(shown.get("status") or "Connected")
    if status not in get_args(ConnectionStatus):
        raise FleetError(f"status must be one of {', '.join(get_args(ConnectionStatus))}, not {status!r}")
    return ArcMachine(
        machine_id=machine_id,
        location=location,
        os_type=_system(system),
        simulation=simulation,
        seed=seed,
        clock=clock,
        tags=tags,
        given={**{key: given[key] for key in ("identity", "kind") if given.get(key)}, "properties": shown},
        status=cast(ConnectionStatus, status),
    )


def _machine(given: dict[str, Any], clock: Clock, seed: int) -> Machine:
    """A virtual machine with a valid id.

    Raises:
        FleetError: an unknown or impossible override, or an unknown system.
    """
    simulation = _simulation(given, Simulation)
    machine_id, location, tags = _common(given)
    flat = {key: value for key, value in given.items() if key not in _NOT_PROPERTIES}
    shown = {**flat, **object_or_none(given.get("properties"))}
    return Machine(
        machine_id=machine_id,
        location=location,
        os_type=_os_type(given, shown),
        simulation=simulation,
        seed=seed,
        clock=clock,
        zones=[str(zone) for zone in list_or_empty(given.get("zones"))],
        tags=tags,
        given={**{key: given[key] for key in ("identity", "plan") if given.get(key)}, "properties": shown},
        power=_power(given, shown),
    )


def _os_type(given: dict[str, Any], shown: dict[str, Any]) -> str:
    found = given.get("osType") or dig(shown, "storageProfile", "osDisk", "osType")
    if found is None:
        found = "Windows" if dig(shown, "osProfile", "windowsConfiguration") else "Linux"
    return _system(found)


def _system(found: object) -> str:
    if str(found).casefold() not in ("windows", "linux"):
        raise FleetError(f"osType must be Windows or Linux, not {found!r}")
    return str(found).capitalize()


def _power(given: dict[str, Any], shown: dict[str, Any]) -> str:
    code = given.get("powerState") or dig(shown, "extended", "instanceView", "powerState", "code")
    return next((state for state in ("deallocated", "stopped") if state in str(code).casefold()), "running")


_APPS = ["shop", "billing", "crm", "portal", "search", "media"]
_ROLES = [("web", "Linux"), ("app", "Windows"), ("sql", "Windows"), ("batch", "Linux")]
_REGIONS = ["westeurope", "northeurope", "eastus", "westus", "uksouth", "ukwest"]
_ENVIRONMENTS = ["prod", "prod", "prod", "test", "dev"]


def generate_fleet(count: int, clock: Clock, seed: int) -> list[Machine]:
    """A fleet over several subscriptions and regions; half of it in zones, the rest in availability sets of five."""
    source = random.Random(f"fleet:{seed}")
    subscriptions = [_guid(source) for _ in range(max(2, min(10, count // 1_000)))]
    plain = Simulation()
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
        compute = f"/subscriptions/{subscription}/resourceGroups/{group}/providers/Microsoft.Compute"
        if not zoned:
            shown["availabilitySet"] = {"id": f"{compute}/availabilitySets/avset-{role}-{index // 60:04d}"}
        machines.append(
            Machine(
                machine_id=f"{compute}/virtualMachines/{name}",
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
