"""Snapshots of OS disks: their names and tags, what Azure says of one, and how to roll a machine back with it.

The name follows from the run and the machine, so that a repeated PUT meets the snapshot of the first. Names have at
most 80 characters of ``a-z A-Z 0-9 _ -`` (REST page "Snapshots - Create Or Update").
"""

import hashlib
import re
import shlex
from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, NamedTuple, Self

from pydantic import AliasPath, BeforeValidator, Field

from patchwave.domain.azure.patch_results import Text
from patchwave.domain.core.documents import (
    Document,
    ExternalDocument,
    Json,
    format_instant,
    object_or_none,
    parse_instant,
    strings_or_empty,
)
from patchwave.domain.core.ids import GUID, RESOURCE_GROUP_NAME, MachineId, is_machine_key, is_run_id

RUN_TAG = "patchwave-run"
MACHINE_TAG = "patchwave-machine"
EXPIRES_TAG = "patchwave-expires"
EXPIRING_QUERY = (
    "resources | where type =~ 'microsoft.compute/snapshots'"
    f" | where isnotempty(tags['{EXPIRES_TAG}']) and isnotempty(tags['{RUN_TAG}'])"
    f" | project id, tags, expires = tostring(tags['{EXPIRES_TAG}']) | order by expires asc, id asc"
)
"""The snapshots that may be ours, for Resource Graph; the tags of each are looked at before anything is deleted.

Times of our one form sort as texts, so those whose time is over come first.
"""

_PREFIX = "patchwave-"
_SNAPSHOT_ID = re.compile(
    rf"/subscriptions/(?P<subscription>{GUID})/resourceGroups/(?P<group>{RESOURCE_GROUP_NAME})"
    r"/providers/Microsoft\.Compute/snapshots/(?P<name>[A-Za-z0-9_-]{1,80})",
    re.IGNORECASE,
)


class SnapshotId(NamedTuple):
    """Where a snapshot is. Ids are compared in lower case."""

    subscription_id: str
    resource_group: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read an ARM id.

        Raises:
            ValueError: it is not the id of a snapshot.
        """
        found = _SNAPSHOT_ID.fullmatch(text)
        if found is None or ".." in text:
            raise ValueError("not a snapshot id")
        return cls(found["subscription"].lower(), found["group"], found["name"])

    @property
    def text(self) -> str:
        return (
            f"/subscriptions/{self.subscription_id}/resourceGroups/{self.resource_group}"
            f"/providers/Microsoft.Compute/snapshots/{self.name}"
        )


def snapshot_of(run_id: str, machine: MachineId, resource_group: str | None) -> SnapshotId:
    """The one snapshot that a run takes of a machine."""
    readable = re.sub(r"[^A-Za-z0-9_-]", "-", machine.name)[:24]
    name = f"{_PREFIX}{run_id[:16]}-{readable}-{_digest(run_id, machine.key)}"
    return SnapshotId(machine.subscription_id, resource_group or machine.resource_group, name)


def snapshot_tags(run_id: str, machine_key: str, expires: datetime) -> dict[str, str]:
    """The tags that make a snapshot ours, and say until when."""
    return {RUN_TAG: run_id, MACHINE_TAG: machine_key, EXPIRES_TAG: format_instant(expires)}


def expired_run(snapshot: SnapshotId, tags: Mapping[str, str], now: datetime) -> str | None:
    """The run that took this snapshot, when it is ours and its time is over; else ``None``.

    Tags get copied, by people and by policies that inherit them: only a snapshot whose name follows from its tags
    is ours.
    """
    run_id, machine_key = tags.get(RUN_TAG, ""), tags.get(MACHINE_TAG, "")
    expires = parse_instant(tags.get(EXPIRES_TAG))
    if not is_run_id(run_id) or not is_machine_key(machine_key) or expires is None or expires > now:
        return None
    name = snapshot.name.lower()
    is_ours = name.startswith(_PREFIX) and name.endswith("-" + _digest(run_id, machine_key))
    return run_id if is_ours else None


def _digest(run_id: str, machine_key: str) -> str:
    return hashlib.sha256(f"{run_id}~{machine_key}".encode()).hexdigest()[:12]


class OsDisk(Document):
    """The OS disk of a machine, as far as a snapshot and its use need it."""

    id: str
    location: str
    sku: str = ""
    zone: str = ""

    @classmethod
    def read(cls, machine: Json) -> Self | None:
        """Read the model view of a machine; ``None`` when no snapshot can be taken of its disk.

        An ephemeral disk lives on the host, an unmanaged one is a blob: neither can be a snapshot's source.
        """
        view = _Machine.model_validate(machine)
        if not view.disk_id or view.ephemeral is not None:
            return None
        zone = view.zones[0] if view.zones else ""
        return cls(id=view.disk_id, location=view.location, sku=view.sku, zone=zone)


def _number(value: object) -> float | None:
    try:
        return float(value) if isinstance(value, int | float) else None
    except OverflowError:
        return None


class _Machine(ExternalDocument):
    location: Text = ""
    zones: Annotated[tuple[str, ...], BeforeValidator(strings_or_empty)] = ()
    disk_id: Text = Field(
        default="", validation_alias=AliasPath("properties", "storageProfile", "osDisk", "managedDisk", "id")
    )
    sku: Text = Field(
        default="",
        validation_alias=AliasPath("properties", "storageProfile", "osDisk", "managedDisk", "storageAccountType"),
    )
    ephemeral: Annotated[Json | None, BeforeValidator(object_or_none)] = Field(
        default=None, validation_alias=AliasPath("properties", "storageProfile", "osDisk", "diffDiskSettings")
    )


class SnapshotView(ExternalDocument):
    """What ``GET snapshots/{name}`` says."""

    tags: Annotated[dict[str, Text] | None, BeforeValidator(object_or_none)] = None
    state: Text = Field(default="", validation_alias=AliasPath("properties", "provisioningState"))
    completion: Annotated[float | None, BeforeValidator(_number)] = Field(
        default=None, validation_alias=AliasPath("properties", "completionPercent")
    )

    @property
    def is_ready(self) -> bool:
        """Whether a disk can be made of it: some disks are copied in the background after the PUT."""
        return self.state.casefold() == "succeeded" and (self.completion is None or self.completion >= 100)

    @property
    def has_failed(self) -> bool:
        """Whether it will never be ready."""
        return self.state.casefold() in ("failed", "canceled", "deleting")

    def belongs_to(self, run_id: str, machine_key: str) -> bool:
        tags = self.tags or {}
        return (tags.get(RUN_TAG), tags.get(MACHINE_TAG)) == (run_id, machine_key)

    def expires(self) -> datetime | None:
        return parse_instant((self.tags or {}).get(EXPIRES_TAG))


def snapshot_body(disk: OsDisk, tags: Mapping[str, str], *, incremental: bool) -> Json:
    """The body of the PUT. Export over the network is off: the snapshot holds all that the disk holds."""
    return {
        "location": disk.location,
        "tags": dict(tags),
        "properties": {
            "creationData": {"createOption": "Copy", "sourceResourceId": disk.id},
            "incremental": incremental,
            "networkAccessPolicy": "DenyAll",
            "publicNetworkAccess": "Disabled",
        },
    }


def rollback_advice(machine: MachineId, disk: OsDisk, snapshot: SnapshotId, expires: datetime | None) -> str:
    """How to roll the machine back: which snapshot, and the two commands that swap the OS disk.

    Azure swaps the disk of a deallocated machine only.
    """
    disk_name = shlex.quote(f"{machine.name[:60]}-{snapshot.name[-12:]}")
    place = f" --zone {shlex.quote(disk.zone)}" if disk.zone else ""
    place += f" --sku {shlex.quote(disk.sku)}" if disk.sku else ""
    where = f"--subscription {machine.subscription_id} -g {shlex.quote(machine.resource_group)}"
    until = f" (kept until {format_instant(expires)})" if expires else ""
    return (
        f"To put the machine back to before this run, use the snapshot {snapshot.name}{until}: deallocate the"
        f" machine, run `az disk create {where} -n {disk_name} --source {shlex.quote(snapshot.text)}{place}`"
        f" and `az vm update {where} -n {shlex.quote(machine.name)} --os-disk {disk_name}`,"
        " then start it. The disk it has now stays as it is."
    )
