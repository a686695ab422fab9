"""Schedules on the calendar: when they fire, whom they patch, and what Resource Graph shows of it and when."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

import pytest

from local.azure_simulator.clock import Clock
from local.azure_simulator.compute.behavior import Simulation
from local.azure_simulator.compute.machine import Machine
from local.azure_simulator.hybrid_compute.behavior import ArcSimulation
from local.azure_simulator.hybrid_compute.machine import AnyMachine, ArcMachine
from local.azure_simulator.maintenance.assignments import Assignment
from local.azure_simulator.maintenance.configurations import Configuration, read_properties
from local.azure_simulator.maintenance.occurrences import Occurrence
from local.azure_simulator.maintenance.provider import Maintenance
from local.azure_simulator.maintenance.scheduler import Schedules
from local.azure_simulator.resource_graph.maintenance_rows import maintenance_rows
from local.azure_simulator.resource_graph.patch_rows import TABLES, patch_rows
from local.azure_simulator.server.errors import ArmError
from local.azure_simulator.server.routing import ArmResponse, Call
from local.azure_simulator.state import AzureState, arc_machine_id

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
GROUP = f"/subscriptions/{SUBSCRIPTION}/resourceGroups/rg"
CONFIGURATION = f"{GROUP}/providers/Microsoft.Maintenance/maintenanceConfigurations/nightly"
STARTED = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
MINUTE, DAY = 60.0, 86_400.0
READY = {"patchMode": "AutomaticByPlatform", "automaticByPlatformSettings": {}}
BYPASS = {"bypassPlatformSafetyChecksOnUserSchedule": True}


class Wall:
    """Time that is moved by hand; the simulator runs at speed 1 on it."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def __call__(self) -> float:
        return self.seconds


class Bench:
    """An Azure of few machines with one schedule."""

    def __init__(self, **machines: dict[str, Any]) -> None:
        self.wall = Wall()
        clock = Clock(1, started_at=STARTED, monotonic=self.wall)
        self.azure = AzureState(
            [self._machine(name, clock, each) for name, each in machines.items()], clock, "https://x"
        )
        self.schedules = Schedules(self.azure)
        self.published: list[tuple[str, str]] = []

    def _machine(self, name: str, clock: Clock, simulation: dict[str, Any]) -> AnyMachine:
        """An Arc machine when its name says so, else a virtual machine."""
        simulation = {"pendingPatches": 2, "installMinutes": 10, "rebootRequired": False} | simulation
        if name.startswith("arc"):
            return ArcMachine(
                machine_id=arc_machine_id(SUBSCRIPTION, "rg", name),
                location="westeurope",
                os_type="Linux",
                simulation=ArcSimulation.model_validate(simulation),
                seed=1,
                clock=clock,
                tags={"role": name},
            )
        settings = simulation.pop("settings", READY | {"automaticByPlatformSettings": BYPASS})
        return Machine(
            machine_id=f"{GROUP}/providers/Microsoft.Compute/virtualMachines/{name}",
            location="westeurope",
            os_type="Linux",
            simulation=Simulation.model_validate(simulation or {}),
            seed=1,
            clock=clock,
            tags={"role": name},
            given={"properties": {"osProfile": {"linuxConfiguration": {"patchSettings": settings}}}},
        )

    def listen(self) -> None:
        self.schedules.publish = lambda kind, occurrence: self.published.append((kind, occurrence.name))

    def schedule(self, start: str = "2026-11-21 13:00", name: str = "nightly", **window: str) -> Configuration:
        """A configuration for Linux, whose dates are UTC."""
        document = {
            "maintenanceScope": "InGuestPatch",
            "extensionProperties": {"InGuestPatchMode": "User"},
            "maintenanceWindow": {"startDateTime": start, "duration": "02:00", "timeZone": "UTC", "recurEvery": "Day"}
            | window,
            "installPatches": {
                "linuxParameters": {"classificationsToInclude": ["Critical", "Security", "Other"]},
                "rebootSetting": "Never",
            },
        }
        clock = self.azure.clock
        properties, read = read_properties(document, "rg", name, clock.calendar())
        one = CONFIGURATION.replace("nightly", name)
        now = clock.now()
        made = Configuration(one, SUBSCRIPTION, "rg", name, "westeurope", properties, read, now, now)
        self.schedules.put(made)
        return made

    def assign(self, configuration: Configuration, scope: str, filter_: dict[str, Any] | None = None) -> None:
        made = Assignment(scope, "a", configuration.folded, "westeurope", filter_, self.azure.clock.now())
        self.schedules.assignments[f"{configuration.folded} {made.folded}"] = made

    def assign_all(self, configuration: Configuration) -> None:
        for machine in self.azure.machines.values():
            self.assign(configuration, machine.id)

    def at(self, minutes: float) -> None:
        """Go to so many minutes after the start."""
        self.wall.seconds = minutes * MINUTE
        self.schedules.settle()

    def cancel(self, name: str) -> ArmResponse:
        """PUT ``Cancel`` to the run of this name."""
        path = f"{CONFIGURATION}/providers/Microsoft.Maintenance/applyUpdates/{name}"
        body = b'{"properties": {"status": "Cancel"}}'
        call = Call("PUT", path, "api-version=2025-11-01", body, {}, {"run": name})
        return Maintenance(self.schedules).cancel_run(call)

    @property
    def only(self) -> Occurrence:
        (found,) = self.schedules.occurrences.values()
        return found

    def statuses(self, occurrence: Occurrence | None = None) -> dict[str, str]:
        found = occurrence or self.only
        clock = self.azure.clock
        return {
            each.machine.name: found.machine_status(folded, clock.now(), clock)[0]
            for folded, each in found.machines.items()
        }

    def rows(self, kind: str) -> list[dict[str, Any]]:
        return [row for row in maintenance_rows(self.schedules, None) if row["type"] == kind]


def test_a_schedule_is_announced_and_fires_on_the_calendar() -> None:
    bench = Bench(one={})
    bench.assign_all(bench.schedule())
    bench.at(19)
    assert not bench.schedules.occurrences
    bench.at(20)
    assert bench.only.name == "20261121130000"
    assert bench.statuses() == {"one": "Pending"}
    bench.at(60)
    assert bench.statuses() == {"one": "InProgress"}
    bench.at(75)
    assert bench.statuses() == {"one": "Succeeded"}
    machine = next(bench.azure.settled())
    assert machine.pending == []
    assert machine.accepted == {"assess": 0, "install": 0}
    bench.at(24 * 60 + 20)
    assert list(bench.schedules.occurrences)[1].endswith("/20261122130000")


@pytest.mark.parametrize(
    ("machine", "status"),
    [
        ({"settings": {"patchMode": "ImageDefault"}}, "Failed"),
        ({"settings": READY}, "Failed"),
        ({"power": "deallocated"}, "ShutdownOrUnresponsive"),
        ({"agent": "notReady"}, "ShutdownOrUnresponsive"),
        ({"busy": True}, "Failed"),
        ({"installFails": True}, "Failed"),
        ({"installWarns": True}, "CompletedWithWarnings"),
        ({"neverEnds": True}, "Failed"),
    ],
)
def test_each_machine_ends_as_its_state_allows(machine: dict[str, Any], status: str) -> None:
    bench = Bench(one=machine, two={})
    bench.assign_all(bench.schedule())
    bench.at(60)
    bench.at(60 + 121)
    assert bench.statuses() == {"one": status, "two": "Succeeded"}
    expected = "Succeeded" if status == "CompletedWithWarnings" else "Failed"
    assert bench.only.status(bench.azure.clock.now(), bench.azure.clock) == expected


def test_a_dynamic_scope_takes_the_machines_that_fit_when_the_run_starts() -> None:
    bench = Bench(web={}, db={})
    filter_ = {"osTypes": ["linux"], "tagSettings": {"tags": {"Role": ["web", "app"]}, "filterOperator": "All"}}
    bench.assign(bench.schedule(), f"/subscriptions/{SUBSCRIPTION}", filter_)
    bench.at(30)
    assert bench.statuses() == {"web": "Pending"}
    bench.azure.machines[f"{GROUP}/providers/Microsoft.Compute/virtualMachines/db".casefold()].tags["role"] = "app"
    bench.at(61)
    assert bench.statuses() == {"web": "InProgress", "db": "InProgress"}


def test_of_two_schedules_that_start_together_one_fires() -> None:
    bench = Bench(one={})
    for name in ("first", "second"):
        bench.assign_all(bench.schedule(name=name))
    bench.at(61)
    assert [len(each.machines) for each in bench.schedules.occurrences.values()] == [1, 0]


def test_a_schedule_that_has_just_been_made_passes_over_a_start() -> None:
    bench = Bench(one={})
    bench.assign_all(bench.schedule("2026-11-21 12:14"))
    bench.at(60)
    assert not bench.schedules.occurrences
    bench.at(24 * 60)
    assert bench.only.name == "20261122121400"


def test_a_schedule_ends_when_it_expires() -> None:
    bench = Bench(one={})
    made = bench.schedule(expirationDateTime="2026-11-23 13:00")
    bench.at(10 * 24 * 60)
    assert len(bench.schedules.occurrences) == 2
    assert bench.schedules.next_start(made, bench.azure.clock.calendar()) is None


def test_events_are_published_and_a_late_change_cancels_the_run() -> None:
    bench = Bench(one={})
    bench.listen()
    bench.assign_all(bench.schedule())
    bench.at(20)
    assert bench.published == [("Pre", "20261121130000")]
    bench.at(80)
    assert bench.published[1:] == [("Post", "20261121130000")]
    bench.at(24 * 60 + 30)
    bench.schedule()
    bench.at(24 * 60 + 90)
    assert bench.statuses(list(bench.schedules.occurrences.values())[1]) == {"one": "Cancelled"}
    assert bench.published[2:] == [("Pre", "20261122130000")]


def test_a_run_that_was_announced_follows_a_change_of_its_schedule() -> None:
    bench = Bench(one={})
    bench.assign_all(bench.schedule())
    bench.at(25)
    bench.schedule("2026-11-21 14:00")
    bench.at(121)
    first, second = bench.schedules.occurrences.values()
    assert (bench.statuses(first), bench.statuses(second)) == ({"one": "Cancelled"}, {"one": "InProgress"})


def test_a_cancelled_run_patches_nothing_and_sends_no_post() -> None:
    bench = Bench(one={})
    bench.listen()
    bench.assign_all(bench.schedule())
    bench.at(30)
    bench.schedules.cancel(bench.only)
    bench.at(90)
    assert bench.statuses() == {"one": "Cancelled"}
    assert [kind for kind, _ in bench.published] == ["Pre"]
    assert len(next(bench.azure.settled()).pending) == 2


def test_a_run_is_cancelled_until_a_minute_before_its_start() -> None:
    """Recorded with eight minutes left; the published event says one minute."""
    bench = Bench(one={})
    bench.assign_all(bench.schedule())
    bench.at(59.5)
    with pytest.raises(ArmError) as refused:
        bench.cancel("20261121130000")
    assert refused.value.status == 400
    assert "cut-off" in str(refused.value)
    with pytest.raises(ArmError) as unknown:
        bench.cancel("20261122130001")
    assert unknown.value.status == 404
    bench.at(24 * 60 + 58.9)
    assert bench.cancel("20261122130000").status == 200
    bench.at(24 * 60 + 70)
    assert bench.statuses(list(bench.schedules.occurrences.values())[1]) == {"one": "Cancelled"}


def test_cancelling_a_run_that_has_begun_is_answered_as_done_and_changes_nothing() -> None:
    bench = Bench(one={})
    bench.assign_all(bench.schedule())
    bench.at(65)
    answer = bench.cancel("20261121130000")
    assert (answer.status, json.loads(answer.body or "")) == (
        200,
        {
            "properties": {
                "status": "Cancelled",
                "resourceId": f"/subscriptions/{SUBSCRIPTION}/resourcegroups/rg/providers/Microsoft.Maintenance"
                "/maintenanceConfigurations/nightly",
            },
            "id": f"{CONFIGURATION}/providers/microsoft.maintenance/applyupdates/20261121130000".lower(),
            "name": "nightly",
            "type": "Microsoft.Maintenance/applyUpdates",
        },
    )
    bench.at(75)
    assert bench.statuses() == {"one": "Succeeded"}


def test_resource_graph_shows_a_run_late_and_not_for_ever() -> None:
    bench = Bench(one={}, two={"power": "stopped"})
    bench.assign_all(bench.schedule())
    run, machine = "microsoft.maintenance/maintenanceconfigurations/applyupdates", "microsoft.maintenance/applyupdates"
    assert bench.rows("microsoft.maintenance/configurationassignments") == []
    bench.at(20.5)
    assert len(bench.rows("microsoft.maintenance/configurationassignments")) == 2
    assert bench.rows(run) == []
    bench.at(21)
    assert [row["properties"]["status"] for row in bench.rows(machine)] == ["Pending", "Pending"]
    bench.at(62)
    bench.at(80)
    (row,) = bench.rows(run)
    assert row["properties"]["status"] == "Failed"
    assert row["properties"]["resourceUpdateSummary"]["successful"] == 1
    assert row["properties"]["correlationId"] == row["id"] == bench.only.id
    (done, stopped) = bench.rows(machine)
    assert (done["properties"]["status"], stopped["properties"]["status"]) == ("Succeeded", "ShutdownOrUnresponsive")
    assert stopped["properties"]["errorMessage"]
    (installed,) = [each for each in patch_rows(bench.azure, TABLES[1], None) if "softwarepatches" not in each["type"]]
    assert installed["properties"]["maintenanceRunId"] == bench.only.id
    assert installed["properties"]["startedBy"] == "Platform"
    patches = [each for each in patch_rows(bench.azure, TABLES[1], None) if "softwarepatches" in each["type"]]
    assert [each["properties"]["installationState"] for each in patches] == ["Installed", "Installed"]
    bench.schedules.remove(CONFIGURATION.casefold())
    bench.at(32 * 24 * 60)
    assert bench.rows(run) == []
    assert list(patch_rows(bench.azure, TABLES[1], None)) == []


def test_a_removed_assignment_is_shown_a_little_longer() -> None:
    bench = Bench(one={})
    bench.assign_all(bench.schedule())
    bench.at(5)
    (key,) = bench.schedules.assignments
    bench.schedules.unassign(key)
    assert len(bench.rows("microsoft.maintenance/configurationassignments")) == 1
    bench.at(6)
    assert bench.rows("microsoft.maintenance/configurationassignments") == []


def test_a_machine_that_was_created_again_is_unresponsive_to_its_old_assignment() -> None:
    bench = Bench(one={})
    bench.assign_all(bench.schedule())
    bench.at(5)
    bench.azure.change(next(bench.azure.settled()).id, {"recreated": True})
    bench.at(61)
    assert bench.statuses() == {"one": "ShutdownOrUnresponsive"}


def test_what_is_set_on_the_machine_wins_over_the_reboot_setting_of_the_schedule() -> None:
    own = READY | {"automaticByPlatformSettings": BYPASS | {"rebootSetting": "Always"}}
    bench = Bench(one={"settings": own}, two={})
    bench.assign_all(bench.schedule())
    bench.at(60)
    bench.at(90)
    results = [each.operation.result(bench.azure.clock) for each in bench.only.machines.values() if each.operation]
    assert [result and result["rebootStatus"] for result in results] == ["Completed", "NotNeeded"]


def test_of_a_deleted_machine_only_its_assignment_is_left() -> None:
    bench = Bench(one={})
    bench.assign_all(bench.schedule())
    bench.at(90)
    bench.azure.change(next(bench.azure.settled()).id, {"deleted": True})
    assert not list(bench.azure.settled())
    assert bench.rows("microsoft.maintenance/applyupdates") == []
    assert list(patch_rows(bench.azure, TABLES[1], None)) == []
    assert len(bench.rows("microsoft.maintenance/configurationassignments")) == 1
    bench.at(24 * 60 + 61)
    assert bench.statuses(list(bench.schedules.occurrences.values())[1]) == {}


def test_a_query_for_the_patches_of_some_results_gets_them_all_and_makes_no_others() -> None:
    bench = Bench(one={}, two={}, three={})
    bench.assign_all(bench.schedule())
    bench.at(60)
    bench.at(90)
    everything = list(patch_rows(bench.azure, TABLES[1], None))
    results = [row["id"] for row in everything if row["type"].endswith("results")]
    asked = f"{TABLES[1]} | where id startswith '{results[0]}/' or id startswith '{results[2].upper()}/' | project id"
    made = [row["id"] for row in patch_rows(bench.azure, TABLES[1], None, asked)]
    patches = [row["id"] for row in everything if row["type"].endswith("softwarepatches")]
    assert len(patches) == 6
    assert [each for each in made if each not in results] == [each for each in patches if results[1] not in each]
    alone = f"{TABLES[1]} | where type =~ 'microsoft.compute/virtualmachines/patchinstallationresults' | count"
    assert [row["id"] for row in patch_rows(bench.azure, TABLES[1], None, alone)] == results
    other = f"{TABLES[1]} | where id startswith 'a' and name == 'b'"
    assert len(list(patch_rows(bench.azure, TABLES[1], None, other))) == len(everything)


def test_a_schedule_patches_arc_machines_without_a_patch_mode() -> None:
    bench = Bench(one={}, arc={})
    bench.assign_all(bench.schedule())
    bench.at(60)
    bench.at(80)
    assert bench.statuses() == {"one": "Succeeded", "arc": "Succeeded"}
    [arc] = [machine for machine in bench.azure.settled() if machine.name == "arc"]
    assert arc.pending == []
    ids = [row["properties"]["resourceId"] for row in bench.rows("microsoft.maintenance/applyupdates")]
    assert arc.folded in ids
    [row] = [
        row
        for row in patch_rows(bench.azure, TABLES[1], None)
        if row["type"] == "microsoft.hybridcompute/machines/patchinstallationresults"
    ]
    assert (row["properties"]["startedBy"], row["properties"]["installedPatchCount"]) == ("Platform", 2)
    assert row["properties"]["maintenanceRunId"] == bench.only.id


@pytest.mark.parametrize(
    ("machine", "status"),
    [
        ({"status": "Disconnected"}, "ShutdownOrUnresponsive"),
        ({"status": "Expired"}, "ShutdownOrUnresponsive"),
        ({"disconnectsAfterMinutes": 5}, "Failed"),
        ({"disconnectsAfterMinutes": 5, "reconnectsAfterMinutes": 30}, "Succeeded"),
        ({"busy": True}, "Failed"),
        ({"agent": "old"}, "Failed"),
    ],
)
def test_each_arc_machine_ends_as_its_contact_allows(machine: dict[str, Any], status: str) -> None:
    bench = Bench(arc=machine)
    bench.assign_all(bench.schedule())
    bench.at(60)
    bench.at(60 + 121)
    assert bench.statuses() == {"arc": status}


@pytest.mark.parametrize(
    ("types", "found"),
    [
        ([], {"one", "arc"}),
        (["Microsoft.Compute/virtualMachines", "Microsoft.HybridCompute/machines"], {"one", "arc"}),
        (["microsoft.hybridcompute/machines"], {"arc"}),
        (["microsoft.compute/virtualmachines"], {"one"}),
    ],
)
def test_a_dynamic_scope_names_the_types_of_its_machines(types: list[str], found: set[str]) -> None:
    bench = Bench(one={}, arc={})
    bench.assign(bench.schedule(), f"/subscriptions/{SUBSCRIPTION}", {"resourceTypes": types})
    bench.at(30)
    assert set(bench.statuses()) == found
