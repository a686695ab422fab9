"""No client of Azure writes outside of the boundary: every call of every client is made, and none is left out.

The calls go to a real server, which keeps what arrives. A call that was added is missing here: the first test fails.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr

import patchwave
from patchwave.azure.hybrid_compute import HybridMachines
from patchwave.azure.locations import Locations
from patchwave.azure.maintenance import Maintenance
from patchwave.azure.patch_settings import PatchSettings
from patchwave.azure.pipeline import ArmPipeline
from patchwave.azure.resource_graph import ResourceGraph
from patchwave.azure.resource_health import ResourceHealth
from patchwave.azure.run_command import RunCommands
from patchwave.azure.snapshots import Snapshots
from patchwave.azure.virtual_machines import ResourceManager
from patchwave.azure.vm_agents import AgentVersions
from patchwave.domain.azure.errors import ArmFailure
from patchwave.domain.azure.install_request import InstallParameters, LinuxParameters, RebootSetting
from patchwave.domain.azure.operation import PollReading, PollState
from patchwave.domain.core.ids import ConfigurationId, MachineId
from patchwave.domain.fleet.discovery import DiscoveryQuery
from patchwave.domain.fleet.patch_mode import PatchMode, WantedSettings
from patchwave.domain.machine.snapshot import OsDisk, SnapshotId, snapshot_body
from patchwave.domain.maintenance.assignment import Assignment
from patchwave.domain.maintenance.configuration import MaintenanceConfiguration
from patchwave.domain.policy.scope import OsType
from patchwave.settings import Settings
from tests.support.arm_server import ARC, Credential, Server, servers
from tests.support.factories import SUBSCRIPTION, intent, machine

__all__ = ["servers"]

ELSEWHERE = "99999999-2222-4333-8444-555555555555"
MACHINE = MachineId.parse(machine(1).id)
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg-a/providers"
SNAPSHOT = SnapshotId.parse(f"{GROUP}/Microsoft.Compute/snapshots/s")
DISK = OsDisk(id=f"{GROUP}/Microsoft.Compute/disks/d", location="westeurope")
CONFIGURATION = ConfigurationId.parse(f"{GROUP}/Microsoft.Maintenance/maintenanceConfigurations/weekly")
SCHEDULE = MaintenanceConfiguration.model_validate(
    {"id": str(CONFIGURATION), "location": "westeurope", "properties": {"maintenanceScope": "InGuestPatch"}}
)
ASSIGNMENT = Assignment.model_validate(
    {
        "id": f"{MACHINE.text}/providers/Microsoft.Maintenance/configurationAssignments/a",
        "name": "a",
        "location": "westeurope",
        "resourceId": MACHINE.text,
        "maintenanceConfigurationId": str(CONFIGURATION),
    }
)
INSTALL = InstallParameters(
    maximum_duration=timedelta(hours=1),
    reboot_setting=RebootSetting.NEVER,
    linux_parameters=LinuxParameters(package_name_masks_to_include=["openssl"]),
)
INSTALLED = PollReading(
    state=PollState.SUCCEEDED, result={"installationActivityId": "a", "installedPatchCount": 1, "status": "Succeeded"}
)
MODES = WantedSettings(patch_mode=PatchMode.AUTOMATIC_BY_PLATFORM)


async def _every_page(client: Any) -> list[object]:
    return [page async for page in client.pages([DiscoveryQuery(text="resources")])]


type Call = Callable[[Any], Awaitable[object]]

READS: dict[tuple[type, str], Call] = {
    (ResourceManager, "read_machine"): lambda client: client.read_machine(MACHINE),
    (ResourceManager, "read_patch_status"): lambda client: client.read_patch_status(MACHINE),
    (ResourceManager, "poll"): lambda client: client.poll(MACHINE, "", ""),
    (ResourceManager, "check"): lambda client: client.check(),
    (HybridMachines, "read"): lambda client: client.read(ARC, settles=True),
    (HybridMachines, "complete"): lambda client: client.complete(ARC, INSTALLED),
    (Snapshots, "read_os_disk"): lambda client: client.read_os_disk(MACHINE),
    (Snapshots, "read_snapshot"): lambda client: client.read_snapshot(SNAPSHOT),
    (RunCommands, "poll"): lambda client: client.poll(MACHINE, "", ""),
    (PatchSettings, "read"): lambda client: client.read(MACHINE),
    (Maintenance, "read"): lambda client: client.read(CONFIGURATION),
    (Maintenance, "list"): lambda client: client.list(SUBSCRIPTION),
    (Maintenance, "assignments_of"): lambda client: client.assignments_of(MACHINE),
    (Maintenance, "read_assignment"): lambda client: client.read_assignment(MACHINE.text, "a"),
    (ResourceGraph, "page"): lambda client: client.page("resources"),
    (ResourceGraph, "page_in_turn"): lambda client: client.page_in_turn("resources"),
    (ResourceGraph, "pages"): _every_page,
    (ResourceHealth, "availability"): lambda client: client.availability(MACHINE),
    (ResourceHealth, "fired_alerts"): lambda client: client.fired_alerts(MACHINE, timedelta(hours=1)),
    (Locations, "read"): lambda client: client.read([SUBSCRIPTION]),
    (AgentVersions, "read"): lambda client: client.read([SUBSCRIPTION]),
}
WRITES: dict[tuple[type, str], Call] = {
    (ResourceManager, "assess"): lambda client: client.assess(MACHINE, "westeurope", intent("run-1")),
    (ResourceManager, "install"): lambda client: client.install(MACHINE, "westeurope", INSTALL, intent("run-1")),
    (ResourceManager, "start"): lambda client: client.start(MACHINE),
    (ResourceManager, "restart"): lambda client: client.restart(MACHINE),
    (ResourceManager, "stop"): lambda client: client.stop(MACHINE, deallocate=True),
    (HybridMachines, "assess"): lambda client: client.assess(ARC, "id-1"),
    (HybridMachines, "install"): lambda client: client.install(ARC, INSTALL, "id-1"),
    (Snapshots, "take_snapshot"): lambda client: client.take_snapshot(
        SNAPSHOT, snapshot_body(DISK, {}, incremental=True)
    ),
    (Snapshots, "delete_snapshot"): lambda client: client.delete_snapshot(SNAPSHOT),
    (RunCommands, "send"): lambda client: client.send(MACHINE, "RunShellScript", ["exit 0"]),
    (PatchSettings, "change"): lambda client: client.change(MACHINE, OsType.LINUX, MODES),
    (Maintenance, "write"): lambda client: client.write(SCHEDULE),
    (Maintenance, "remove"): lambda client: client.remove(CONFIGURATION),
    (Maintenance, "assign"): lambda client: client.assign(ASSIGNMENT),
    (Maintenance, "unassign"): lambda client: client.unassign(MACHINE.text, "a"),
    (Maintenance, "cancel"): lambda client: client.cancel(CONFIGURATION, "20261208210000"),
}
_BUILT_ON = re.compile(r"\b(ArmPipeline|ComputeClients|MaintenanceManagementClient)\b")
_PARTS = ("patchwave.azure.pipeline", "patchwave.azure.compute")
"""What the clients are built of: no client of its own."""
_DEPLOYED = ("activities", "orchestrators", "patchwave", "triggers")


def sources() -> dict[str, str]:
    """The text of every deployed module, by its name."""
    root = Path(str(patchwave.__file__)).parents[1]
    files = [path for folder in _DEPLOYED for path in (root / folder).rglob("*.py")]
    found = {path.relative_to(root).with_suffix(""): path for path in [*files, *root.glob("*.py")]}
    return {".".join(name.parts): path.read_text(encoding="utf-8") for name, path in found.items()}


def modules_that(pattern: str) -> set[str]:
    return {name for name, text in sources().items() if re.search(pattern, text)}


def calls_of_clients() -> set[tuple[type, str]]:
    """Every public call of every client that is built on the pipeline to Resource Manager."""
    found: set[tuple[type, str]] = set()
    for name in modules_that(_BUILT_ON.pattern) - set(_PARTS):
        module = importlib.import_module(name)
        for kind in vars(module).values():
            if not inspect.isclass(kind) or kind.__module__ != module.__name__:
                continue
            for method, function in vars(kind).items():
                is_call = inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function)
                if is_call and not method.startswith("_") and method != "close":
                    found.add((kind, method))
    return found


def named(calls: dict[tuple[type, str], Call]) -> dict[str, Any]:
    return {"argvalues": list(calls.items()), "ids": [f"{kind.__name__}.{method}" for kind, method in calls]}


async def make(call: tuple[type, str], run: Call, manager: Server, **settings: str) -> object:
    given = Settings(resource_manager=manager.url, tables_connection=SecretStr("x"), **settings)  # pyright: ignore[reportArgumentType] - all of these are texts
    kind: Any = call[0]
    takes_pipeline = "pipeline" in inspect.signature(kind).parameters
    client = kind(given, ArmPipeline(given, Credential()) if takes_pipeline else Credential())
    try:
        return await run(client)
    finally:
        await client.close()


def test_every_call_of_every_client_is_a_read_or_a_write_here() -> None:
    assert calls_of_clients() == READS.keys() | WRITES.keys()
    assert not READS.keys() & WRITES.keys()


def test_a_client_of_azure_is_made_in_one_way_only() -> None:
    """With the options that hold the boundary, or as the one pipeline that has it among its policies."""
    made: list[tuple[str, str]] = []
    for name, text in sources().items():
        for node in ast.walk(ast.parse(text)):
            called = ast.unparse(node.func) if isinstance(node, ast.Call) else ""
            if re.search(r"(ManagementClient|PipelineClient|AsyncPipeline)$", called):
                made.append((name, called))
    assert sorted(made) == [
        ("patchwave.azure.compute", "ComputeManagementClient"),
        ("patchwave.azure.maintenance", "MaintenanceManagementClient"),
        ("patchwave.azure.pipeline", "AsyncARMPipelineClient"),
    ]
    assert "**sdk_options(self._settings)" in sources()["patchwave.azure.compute"]
    assert "sdk_options(self._settings)" in sources()["patchwave.azure.maintenance"]


def test_no_other_module_has_the_identity_with_which_azure_is_changed() -> None:
    """A writer that is none of these clients would need the credential, a token, or a library of Azure's."""
    assert modules_that(r"\bopen_credential\(") == {
        "patchwave.azure.credentials",
        "patchwave.storage.engine.store",
        "patchwave.wiring",
    }
    assert modules_that(r"(from|import) azure\.identity\b|Credential\(") == {"patchwave.azure.credentials"}
    assert modules_that(r"\bget_token|\bmanager_scope\b") == {"patchwave.azure.pipeline", "patchwave.settings"}
    assert modules_that(r"(from|import) azure\.mgmt\b") == {
        "patchwave.azure.compute",
        "patchwave.azure.maintenance",
        "patchwave.azure.pipeline",
    }


@pytest.mark.parametrize(("call", "run"), **named(WRITES))
async def test_no_write_leaves_the_boundary(servers: tuple[Server, Server], call: tuple[type, str], run: Call) -> None:
    manager, _ = servers
    answer = await make(call, run, manager, subscriptions=ELSEWHERE)
    assert manager.seen == []
    failure: Any = answer if isinstance(answer, ArmFailure) else getattr(answer, "failure", None)
    assert (failure.status, failure.code) == (0, "OutsideBoundary")
    assert f"{SUBSCRIPTION} is not in PATCHWAVE_SUBSCRIPTIONS" in failure.message
    # It surely was not sent, so nothing is asked or waited for.
    assert getattr(answer, "is_open", False) is False


@pytest.mark.parametrize(("call", "run"), **named(WRITES))
async def test_a_write_within_the_boundary_is_sent(
    servers: tuple[Server, Server], call: tuple[type, str], run: Call
) -> None:
    """So that the test before shows the boundary, and not a call that never is a write."""
    manager, _ = servers
    await make(call, run, manager, subscriptions=f"{ELSEWHERE}, {SUBSCRIPTION.upper()}")
    assert [method for method, _, _ in manager.seen if method != "GET"] != []


@pytest.mark.parametrize(("call", "run"), **named(READS))
async def test_a_read_changes_nothing_and_is_not_kept_back(
    servers: tuple[Server, Server], call: tuple[type, str], run: Call
) -> None:
    manager, _ = servers
    manager.answer = (200, {}, '{"data": [], "value": []}')
    await make(call, run, manager, subscriptions=ELSEWHERE)
    for method, path, _ in manager.seen:
        assert method == "GET" or (method, path) == ("POST", "/providers/Microsoft.ResourceGraph/resources")
    assert manager.seen != [] or call[1] == "poll"


@pytest.mark.parametrize("place", [f"/subscriptions/{SUBSCRIPTION}", GROUP.removesuffix("/providers")])
async def test_no_dynamic_scope_is_written_outside_of_the_boundary(servers: tuple[Server, Server], place: str) -> None:
    """The SDK has other operations for each kind of place."""
    manager, _ = servers
    scope = Assignment.model_validate(
        {"id": f"{place}/providers/Microsoft.Maintenance/configurationAssignments/a", "name": "a", "resourceId": place}
        | {"location": "global", "maintenanceConfigurationId": str(CONFIGURATION)}
        | {"filter": {"locations": ["westeurope"], "tagSettings": {"tags": {"env": ["test"]}}}}
    )
    calls: list[tuple[str, Call]] = [
        ("assign", lambda client: client.assign(scope)),
        ("unassign", lambda client: client.unassign(place, "a")),
    ]
    for name, run in calls:
        answer: Any = await make((Maintenance, name), run, manager, subscriptions=ELSEWHERE)
        assert (answer.status, answer.code) == (0, "OutsideBoundary")
    assert manager.seen == []
    for name, run in calls:
        await make((Maintenance, name), run, manager, subscriptions=SUBSCRIPTION)
    assert [method for method, _, _ in manager.seen] == ["PUT", "DELETE"]


async def test_a_snapshot_goes_to_listed_groups_only(servers: tuple[Server, Server]) -> None:
    manager, _ = servers
    other = SnapshotId(SNAPSHOT.subscription_id, "loot", "s")
    call = (Snapshots, "take_snapshot")
    body = snapshot_body(DISK, {}, incremental=True)
    answer: Any = await make(call, lambda client: client.take_snapshot(other, body), manager)
    assert manager.seen == []
    assert "PATCHWAVE_SNAPSHOT_GROUPS" in answer.failure.message
    await make(call, lambda client: client.take_snapshot(other, body), manager, snapshot_groups="rg-b, LOOT")
    assert [method for method, _, _ in manager.seen] == ["PUT"]
