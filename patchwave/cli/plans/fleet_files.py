"""Fleet files: machines as Azure's own tools print them, read for a plan.

The same forms that the simulator takes: the JSON of ``az vm list`` (with or without ``-d``), of
``az connectedmachine list``, of a Resource Graph query (rows, or the answer with ``data``), of an ARM list
(``value``), or ``{"machines": […]}``, which may carry ``zoneMappings``, ``regionPairs`` and ``scaleSets`` beside them.
An entry may have ``simulation`` overrides. Scale sets may stand among the machines: a Flexible one is its members, a
Uniform one is left out of the plan by name.

People's exports are never quite clean, so a machine that cannot be read is left out and reported by its position,
a machine that is listed twice is merged, and unknown fields are read over.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Set
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import cast

from patchwave.cli.errors import Detail, RefusedError
from patchwave.cli.json_fields import Json
from patchwave.domain.core.documents import list_or_empty, object_or_none, str_or_empty
from patchwave.domain.core.folding import fold
from patchwave.domain.core.ids import MachineType, is_scale_set_id
from patchwave.domain.core.region_pairs import KNOWN_PAIRS, region_name
from patchwave.domain.fleet.discovery import evaluate_duplicates, read_row
from patchwave.domain.fleet.scale_sets import ScaleSet, read_scale_set
from patchwave.domain.planning.dry_run import FoundMachine
from patchwave.domain.planning.topology import Topology

_LISTS = ("machines", "value", "data")
_MAX_SHOWN = 20
_POWER_STATES = ("hibernated", "deallocated", "deallocating", "stopped", "stopping", "starting", "creating", "running")
_LINKS = {"skiptoken": "skip token", "nextlink": "nextLink"}
_EXPORT_EVERYTHING = (
    "Export all machines of a subscription with `az vm list --subscription ID -o json > fleet.json`, which follows"
    " every page; `az graph query` and a single GET of Resource Manager stop after the first one."
)


class _BrokenMachine(ValueError):
    """An entry that is no machine, or says something impossible; the text is for people."""


@dataclass(slots=True)
class Fleet:
    """What a fleet file says. ``notes`` tell what was left out or merged, each with its position in the file."""

    machines: list[FoundMachine] = field(default_factory=list[FoundMachine])
    zones: dict[tuple[str, str, str], str] = field(default_factory=dict[tuple[str, str, str], str])
    """Physical zone by subscription, region and logical zone."""
    pairs: dict[str, str] = field(default_factory=dict[str, str])
    """The region that each of these regions is paired with."""
    scale_sets: list[ScaleSet] = field(default_factory=list[ScaleSet])
    """The Flexible ones of the file."""
    notes: list[str] = field(default_factory=list[str])

    @property
    def topology(self) -> Topology:
        """The pairs that Microsoft documents, but for those of the file, and the zones that it maps."""
        return Topology.of((KNOWN_PAIRS | self.pairs).items(), self.zones, self.scale_sets)


def read_fleet(path: Path, standard_input: bytes | None = None) -> Fleet:
    """The fleet in a file, or in what came on standard input for ``-``.

    Raises:
        RefusedError: the file cannot be read, is not JSON, is no fleet or only one page of it, or none of its machines
            can be read.
    """
    try:
        raw = (standard_input or b"") if str(path) == "-" else path.read_bytes()
    except OSError as error:
        raise RefusedError(f"{path} cannot be read: {error}") from error
    try:
        # Given bytes, the reader finds out UTF-16 and the byte order mark that PowerShell writes.
        document: object = json.loads(raw)
    except (ValueError, RecursionError) as error:
        raise RefusedError(f"{path} is not JSON: {error}") from error
    return _read(document, str(path))


def _read(document: object, path: str) -> Fleet:
    fleet = Fleet()
    name, listed = "", document
    sets: list[object] = []
    if isinstance(document, dict):
        wrapped = cast("Json", document)
        name = next((key for key in _LISTS if isinstance(wrapped.get(key), list)), "")
        listed = wrapped.get(name)
        sets = list_or_empty(wrapped.get("scaleSets"))
        _refuse_cut(wrapped, len(list_or_empty(listed)), path)
        _read_topology(wrapped, fleet)
    if not isinstance(listed, list):
        raise RefusedError(
            f"{path} holds no fleet: expected a list of machines, or an object with machines, value or data"
        )
    entries = cast("list[object]", listed)
    places = [(f"{name}[{index}]", entry) for index, entry in enumerate(entries)]
    places += [(f"scaleSets[{index}]", entry) for index, entry in enumerate(sets)]
    merged: dict[str, tuple[str, Json]] = {}
    problems: list[Detail] = []
    for where, entry in places:
        try:
            row = _row(entry)
        except _BrokenMachine as broken:
            problems.append(Detail(where, str(broken)))
            continue
        folded = fold(str(row["id"]))
        first, known = merged.setdefault(folded, (where, row))
        if known is not row:
            merged[folded] = (first, _merge(known, row))
            fleet.notes.append(f"{where} is {first} again ({known['id']}): merged; where they differ, {first} is right")
    if entries and not merged:
        more = len(problems) - _MAX_SHOWN
        details = problems[:_MAX_SHOWN] + ([Detail("", f"and {more} more")] if more > 0 else [])
        raise RefusedError(f"{path} holds no machine that can be read", tuple(details))
    fleet.notes += [f"{problem.path} is left out: {problem.message}" for problem in problems]
    flexible = {fold(row["scaleSetId"]) for _, row in merged.values() if row["scaleSetId"]}
    for where, row in merged.values():
        if _is_flexible_set(row, flexible):
            fleet.scale_sets += filter(None, [read_scale_set(row)])
            continue
        try:
            fleet.machines.append(_machine(row))
        except _BrokenMachine as broken:
            fleet.notes.append(f"{where} is left out: {broken}")
    rows = [row for _, row in merged.values() if MachineType.of(str(row["id"])) is MachineType.AZURE]
    judged = evaluate_duplicates([found.machine for found in fleet.machines], rows)
    fleet.machines = [replace(found, machine=machine) for found, machine in zip(fleet.machines, judged, strict=True)]
    return fleet


def _refuse_cut(wrapped: Json, rows: int, path: str) -> None:
    """A page of a longer list is no fleet: the plan would leave out the machines of the other pages.

    Raises:
        RefusedError: the answer names a following page, says that it was cut, or counts more rows than it holds.
    """
    folded = {name.lower().strip("$").replace("_", "").rpartition(".")[2]: value for name, value in wrapped.items()}
    total = folded.get("totalrecords")
    if _is_count(total) and cast("int", total) > rows:
        said = f"it holds {rows:,} of {total:,} rows"
    elif name := next((name for name in _LINKS if folded.get(name)), ""):
        said = f"its {_LINKS[name]} leads to more machines"
    elif str(folded.get("resulttruncated", "")).lower() == "true":
        said = "it says itself that rows were cut off (resultTruncated)"
    else:
        return
    raise RefusedError(f"{path} is only a part of the fleet: {said}. {_EXPORT_EVERYTHING}")


def _read_topology(wrapped: Json, fleet: Fleet) -> None:
    for index, entry in enumerate(list_or_empty(wrapped.get("zoneMappings"))):
        fields = [
            str_or_empty(_object(entry).get(key))
            for key in ("subscriptionId", "location", "logicalZone", "physicalZone")
        ]
        if all(fields):
            subscription, location, logical, physical = fields
            fleet.zones[subscription, location, logical] = physical
        else:
            fleet.notes.append(
                f"zoneMappings[{index}] is left out: it needs subscriptionId, location, logicalZone and physicalZone"
            )
    for index, entry in enumerate(list_or_empty(wrapped.get("regionPairs"))):
        pair = [str_or_empty(region) for region in list_or_empty(entry)]
        if len(pair) == 2 and all(pair):
            fleet.pairs[region_name(pair[0])] = region_name(pair[1])
        else:
            fleet.notes.append(f"regionPairs[{index}] is left out: a pair is a list of two regions")


def _row(entry: object) -> Json:
    """The columns of our own Resource Graph query, and what else a plan can use, from any of the forms.

    Raises:
        _BrokenMachine: no object, or without the id of a machine.
    """
    if not isinstance(entry, dict):
        raise _BrokenMachine("not an object")
    given = cast("Json", entry)
    shown = given | _object(given.get("properties"))
    simulation = _object(given.get("simulation"))
    os_profile = _object(shown.get("osProfile"))
    configured = "Windows" if os_profile.get("windowsConfiguration") else ""
    windows = _object(os_profile.get("windowsConfiguration"))
    model = _object(shown.get("virtualMachineProfile"))
    profile = _object(shown.get("storageProfile")) or _object(model.get("storageProfile"))
    disk = _object(profile.get("osDisk"))
    domains = [simulation.get("updateDomain"), *(part.get("platformUpdateDomain") for part in _views(shown))]
    faults = [shown.get("faultDomain"), *(part.get("platformFaultDomain") for part in (shown, *_views(shown)))]
    row: Json = {
        "id": given.get("id"),
        "name": given.get("name"),
        "resourceGroup": given.get("resourceGroup"),
        "location": region_name(str_or_empty(given.get("location"))),
        "zones": _zones(given.get("zones")),
        "tags": _object(given.get("tags")),
        "osType": str_or_empty(shown.get("osType")) or str_or_empty(disk.get("osType")) or configured,
        "powerState": _status(given, shown, simulation) or _power(shown, simulation),
        "vmId": shown.get("vmId"),
        "vmUuid": shown.get("vmUuid"),
        "cloudProvider": _object(shown.get("cloudMetadata")).get("provider"),
        "imageReference": shown.get("imageReference") or _object(shown.get("storageProfile")).get("imageReference"),
        "windowsTimeZone": str_or_empty(shown.get("windowsTimeZone")) or str_or_empty(windows.get("timeZone")),
        "availabilitySetId": _set(shown, "availabilitySet"),
        "scaleSetId": _set(shown, "virtualMachineScaleSet") or str_or_empty(shown.get("scaleSetId")),
        "faultDomain": next((each for each in faults if each not in (None, "", -1)), None),
        "faultDomains": shown.get("platformFaultDomainCount"),
        "model": "virtualMachineProfile" in shown,
        "extensions": _object(model.get("extensionProfile")).get("extensions"),
        "orchestrationMode": str_or_empty(shown.get("orchestrationMode")),
        "instances": shown.get("instances", _object(given.get("sku")).get("capacity")),
        "updateDomain": next((domain for domain in domains if domain is not None), None),
        "pending": _pending(shown, simulation),
        "minutes": _minutes(simulation),
    }
    if read_row(row).problem and not is_scale_set_id(str_or_empty(given.get("id"))):
        raise _BrokenMachine(f"{given.get('id')!r} is not the id of a machine")
    return row


def _is_flexible_set(row: Json, named: Set[str]) -> bool:
    """Whether it is a Flexible scale set, which is its members; Azure takes one that names no mode for Uniform."""
    if not is_scale_set_id(str(row["id"])):
        return False
    return str(row["orchestrationMode"]).lower() == "flexible" or fold(str(row["id"])) in named


def _merge(first: Json, second: Json) -> Json:
    """Both rows of a machine as one: the first wins, the second fills what it leaves open."""
    merged = {key: second.get(key) if value in (None, "", [], {}) else value for key, value in first.items()}
    tags = {fold(str(name)) for name in first["tags"]}
    return merged | {"tags": first["tags"] | {k: v for k, v in second["tags"].items() if fold(str(k)) not in tags}}


def _machine(row: Json) -> FoundMachine:
    """Read a row that is known to have an id.

    Raises:
        _BrokenMachine: no location, an unknown system, or numbers that are none.
    """
    # The simulator takes a machine that says nothing of its system for Linux, and so must its plan.
    machine = read_row(row | {"osType": row["osType"].capitalize() or "Linux"})
    if not machine.location:
        raise _BrokenMachine("it has no location")
    if machine.is_uniform_set:
        return FoundMachine(machine)
    if machine.os_type not in ("Windows", "Linux"):
        raise _BrokenMachine(f"osType must be Windows or Linux, not {row['osType']!r}")
    update_domain, pending, minutes = row["updateDomain"], row["pending"], row["minutes"]
    if not (update_domain is None or _is_count(update_domain)):
        raise _BrokenMachine(f"its update domain must be a whole number, not {update_domain!r}")
    if not (pending is None or _is_count(pending)):
        raise _BrokenMachine(f"pendingPatches must be a number or a list of patches, not {pending!r}")
    if not (minutes is None or (_is_number(minutes) and minutes >= 0)):
        raise _BrokenMachine(f"installMinutes and rebootMinutes must be numbers of minutes, not {minutes!r}")
    return FoundMachine(machine, update_domain, pending, None if minutes is None else minutes * 60.0)


def _views(shown: Json) -> Iterator[Json]:
    """Where the instance view of a machine may stand: expanded, extended by Resource Graph, or beside the rest."""
    yield _object(shown.get("instanceView"))
    yield _object(_object(shown.get("extended")).get("instanceView"))
    yield shown


def _zones(value: object) -> list[object]:
    return [value] if isinstance(value, str) and value else list_or_empty(value)


def _set(shown: Json, name: str) -> str:
    """The ARM id of a set that the machine is in, such as ``availabilitySet``; empty without one."""
    named = shown.get(name)
    return str_or_empty(shown.get(f"{name}Id")) or str_or_empty(named) or str_or_empty(_object(named).get("id"))


def _status(given: Json, shown: Json, simulation: Json) -> str:
    """The status of an Arc machine; empty for virtual machines."""
    if MachineType.of(str(given.get("id"))) is not MachineType.ARC:
        return ""
    return str_or_empty(simulation.get("status")) or str_or_empty(shown.get("status"))


def _power(shown: Json, simulation: Json) -> str:
    """The power state as Resource Manager's code, from any of the words that the tools print; empty: not said."""
    said = str_or_empty(simulation.get("power")) or str_or_empty(shown.get("powerState"))
    is_hibernated = False
    for view in _views(shown):
        codes = [str_or_empty(_object(status).get("code")) for status in list_or_empty(view.get("statuses"))]
        said = said or str_or_empty(_object(view.get("powerState")).get("code"))
        said = said or next((code for code in codes if code.lower().startswith("powerstate/")), "")
        is_hibernated = is_hibernated or any(code.lower() == "hibernationstate/hibernated" for code in codes)
    word = next((state for state in _POWER_STATES if state in said.lower()), "")
    if is_hibernated and word in ("deallocated", "stopped"):
        word = "hibernated"
    return f"PowerState/{word}" if word else ""


def _pending(shown: Json, simulation: Json) -> object:
    """How many patches are pending: what the file says for the simulator, else the machine's latest assessment."""
    pending = simulation.get("pendingPatches")
    if pending is not None:
        return len(cast("list[object]", pending)) if isinstance(pending, list) else pending
    for view in _views(shown):
        summary = _object(_object(view.get("patchStatus")).get("availablePatchSummary"))
        counts = [summary.get("criticalAndSecurityPatchCount"), summary.get("otherPatchCount")]
        if all(map(_is_count, counts)) and str(summary.get("status", "Succeeded")).lower() == "succeeded":
            return sum(cast("list[int]", counts))
    return None


def _minutes(simulation: Json) -> object:
    """How long the simulator takes over an installation; ``None`` when it makes that up."""
    install, reboot = simulation.get("installMinutes"), simulation.get("rebootMinutes")
    patches = list_or_empty(simulation.get("pendingPatches"))
    if install is None and patches:
        each = [_object(patch).get("minutes") for patch in patches]
        install = sum(cast("list[float]", each)) if all(map(_is_number, each)) else None
    if install is None:
        return None
    if not _is_number(install) or not (reboot is None or _is_number(reboot)):
        return [install, reboot]
    return cast("float", install) + cast("float", reboot or 0)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _object(value: object) -> Json:
    return object_or_none(value) or {}
