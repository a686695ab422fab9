"""Arc machines without contact: what waits, for how long, and what Azure learns in the end."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from local.azure_simulator.clock import Clock
from local.azure_simulator.hybrid_compute.behavior import ArcSimulation
from local.azure_simulator.hybrid_compute.machine import ArcMachine
from local.azure_simulator.hybrid_compute.provider import HybridCompute
from local.azure_simulator.resource_graph.patch_rows import patch_rows
from local.azure_simulator.server.errors import ArmError
from local.azure_simulator.server.routing import ArmResponse, Call, Router
from local.azure_simulator.state import AzureState, arc_machine_id

SUBSCRIPTION = "11111111-2222-4333-8444-555555555555"
ONE = arc_machine_id(SUBSCRIPTION, "rg", "srv")
STARTED = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
MINUTE, HOUR = 60.0, 3_600.0
PATCHES = [{"name": "curl", "version": "8.1", "minutes": 1}]


class Bench:
    """One Linux machine, on a clock that is moved by hand. Its operations take ten minutes."""

    def __init__(self, sku: str = "", **simulation: Any) -> None:
        self.now = 0.0
        clock = Clock(1, started_at=STARTED, monotonic=lambda: self.now)
        usual = {"pendingPatches": PATCHES, "assessMinutes": 10, "installMinutes": 10, "rebootRequired": False}
        machine = ArcMachine(
            machine_id=ONE,
            location="westeurope",
            os_type="Linux",
            simulation=ArcSimulation.model_validate(usual | simulation),
            seed=1,
            clock=clock,
            given={"properties": {"osSku": sku}},
        )
        self.azure = AzureState([machine], clock, "https://x", graph_lag=0)
        self._router = Router(HybridCompute(self.azure).routes())

    def call(self, method: str, url: str, body: object = None) -> ArmResponse:
        parts = urlsplit(url)
        query = parts.query or "api-version=2024-07-10"
        call = Call(method, parts.path, query, b"" if body is None else json.dumps(body).encode(), {})
        route, call.captured = self._router.find(method, parts.path)
        assert route is not None, url
        answer = route.handler(call)
        assert isinstance(answer, ArmResponse)
        return answer

    def install(self) -> str:
        """The URL of an accepted installation."""
        chosen = {"classificationsToInclude": ["Security"]}
        body = {"maximumDuration": "PT2H", "rebootSetting": "Never", "linuxParameters": chosen}
        return self.call("POST", f"{ONE}/installPatches", body).headers["Location"]

    def assess(self) -> str:
        return self.call("POST", f"{ONE}/assessPatches", {}).headers["Location"]

    def result(self, url: str) -> dict[str, Any] | None:
        """The result; none while the operation runs."""
        answer = self.call("GET", url)
        return None if answer.status == 202 else json.loads(answer.body or "")

    def status(self) -> str:
        return json.loads(self.call("GET", ONE).body or "")["properties"]["status"]

    def set(self, **simulation: Any) -> None:
        self.azure.change(ONE, simulation)

    def pending(self) -> int:
        self.azure.machines[ONE.lower()].settle(self.now)
        return len(self.azure.machines[ONE.lower()].pending)


def test_an_operation_waits_six_hours_for_a_machine_without_contact() -> None:
    bench = Bench(status="Disconnected")
    url = bench.install()
    [row] = patch_rows(bench.azure, "patchinstallationresources", None)
    assert row["properties"]["status"] == "InProgress"
    bench.now = 6 * HOUR - 1
    assert bench.result(url) is None
    bench.now = 6 * HOUR
    result = bench.result(url)
    assert result is not None
    assert (result["status"], result["installedPatchCount"]) == ("Failed", 0)
    assert result["errorDetails"]["code"] == "OperationTimedOut"
    assert bench.pending() == 1
    [row] = patch_rows(bench.azure, "patchinstallationresources", None)
    assert row["properties"]["status"] == "Failed"


def test_the_work_begins_when_the_machine_is_back() -> None:
    bench = Bench(status="Disconnected")
    url = bench.install()
    bench.now = 2 * HOUR
    bench.set(status="Connected")
    assert bench.status() == "Connected"
    bench.now = 2 * HOUR + 9 * MINUTE
    assert bench.result(url) is None
    bench.now = 2 * HOUR + 11 * MINUTE
    result = bench.result(url)
    assert result is not None
    assert (result["status"], result["installedPatchCount"]) == ("Succeeded", 1)
    assert bench.pending() == 0


def test_a_machine_that_comes_back_too_late_does_nothing() -> None:
    bench = Bench(status="Disconnected", operationTimeoutMinutes=30)
    url = bench.install()
    bench.now = 31 * MINUTE
    bench.set(status="Connected")
    bench.now = 2 * HOUR
    result = bench.result(url)
    assert result is not None
    assert result["status"] == "Failed"
    assert bench.pending() == 1
    assert bench.result(bench.assess()) is None, "it takes operations again"


def test_a_machine_works_on_without_contact_and_reports_when_it_is_back() -> None:
    bench = Bench(disconnectsAfterMinutes=5, reconnectsAfterMinutes=60)
    url = bench.install()
    bench.now = 64 * MINUTE
    assert bench.result(url) is None
    bench.now = 65 * MINUTE
    result = bench.result(url)
    assert result is not None
    assert (result["status"], result["installedPatchCount"]) == ("Succeeded", 1)


def test_a_loss_of_contact_shows_after_fifteen_minutes() -> None:
    bench = Bench(disconnectsAfterMinutes=5, reconnectsAfterMinutes=60)
    bench.install()
    seen: dict[int, str] = {}
    for minute in (0, 5, 19, 20, 64, 65):
        bench.now = minute * MINUTE
        seen[minute] = bench.status()
    assert seen == {
        0: "Connected",
        5: "Connected",
        19: "Connected",
        20: "Disconnected",
        64: "Disconnected",
        65: "Connected",
    }


def test_a_machine_that_never_comes_back_has_its_patches_all_the_same() -> None:
    bench = Bench(disconnectsAfterMinutes=5)
    url = bench.install()
    bench.now = 6 * HOUR
    result = bench.result(url)
    assert result is not None
    assert (result["status"], result["errorDetails"]["code"]) == ("Failed", "OperationTimedOut")
    assert bench.status() == "Disconnected"
    assert bench.pending() == 0
    url = bench.assess()
    bench.set(status="Connected")
    bench.now += 10 * MINUTE
    result = bench.result(url)
    assert result is not None
    assert result["availablePatchCountByClassification"] == {"security": 0, "critical": 0, "other": 0}


def test_an_installation_that_ends_before_the_loss_is_reported() -> None:
    bench = Bench(disconnectsAfterMinutes=30)
    url = bench.install()
    bench.now = 11 * MINUTE
    result = bench.result(url)
    assert result is not None
    assert result["status"] == "Succeeded"
    bench.now = 45 * MINUTE
    assert bench.status() == "Disconnected"


def test_contact_that_is_lost_by_hand_during_an_operation() -> None:
    bench = Bench()
    url = bench.install()
    bench.now = 5 * MINUTE
    bench.set(status="Disconnected")
    bench.now = 30 * MINUTE
    assert bench.result(url) is None
    bench.set(status="Connected")
    result = bench.result(url)
    assert result is not None
    assert result["installedPatchCount"] == 1


def test_an_assessment_has_contact_until_a_planned_loss() -> None:
    bench = Bench(disconnectsAfterMinutes=15, reconnectsAfterMinutes=45)
    bench.install()
    bench.now = 12 * MINUTE
    url = bench.assess()
    bench.now = 59 * MINUTE
    assert bench.result(url) is None
    bench.now = 60 * MINUTE
    assert bench.result(url) is not None


def test_an_expired_machine_takes_no_operations() -> None:
    bench = Bench(status="Expired")
    assert bench.status() == "Expired"
    for begin in (bench.install, bench.assess):
        with pytest.raises(ArmError) as refused:
            begin()
        assert refused.value.status == 409
        assert refused.value.body["error"]["code"] == "HCRP409"
    bench.set(status="Connected")
    bench.install()


def test_the_last_change_of_the_status() -> None:
    bench = Bench(disconnectsAfterMinutes=5, reconnectsAfterMinutes=60)
    bench.install()
    for minute, changed in ((1, "12:00"), (30, "12:20"), (70, "13:05")):
        bench.now = minute * MINUTE
        properties = json.loads(bench.call("GET", ONE).body or "")["properties"]
        assert properties["lastStatusChange"].startswith(f"2026-11-21T{changed}:00")
    bench.assess()
    properties = json.loads(bench.call("GET", ONE).body or "")["properties"]
    assert properties["lastStatusChange"].startswith("2026-11-21T13:05:00")


def test_requests_have_a_bucket_of_their_own_per_region() -> None:
    bench = Bench(assessMinutes=600)
    bench.azure.throttle.limit("subscription-resource-requests", 60, 2)
    url = bench.assess()
    assert bench.call("GET", url).headers["x-ms-ratelimit-remaining-subscription-resource-requests"] == "0"
    with pytest.raises(ArmError) as refused:
        bench.call("GET", url)
    assert (refused.value.status, refused.value.headers["Retry-After"]) == (429, "1")
    assert refused.value.body["error"]["code"] == "SubscriptionRequestsThrottled"
    bench.now += 1
    assert bench.call("GET", url).status == 202


@pytest.mark.parametrize(
    ("sku", "service"),
    [
        ("Ubuntu 22.04.4 LTS", "APT"),
        ("Red Hat Enterprise Linux 9.4", "YUM"),
        ("SUSE Linux Enterprise Server 15 SP5", "Zypper"),
        ("", "APT"),
    ],
)
def test_the_service_that_patches_a_linux_machine(sku: str, service: str) -> None:
    bench = Bench(sku)
    url = bench.assess()
    bench.now = 11 * MINUTE
    result = bench.result(url)
    assert result is not None
    assert result["patchServiceUsed"] == service


def test_a_result_that_was_not_reported_is_followed_by_no_assessment() -> None:
    bench = Bench(disconnectsAfterMinutes=5)
    bench.install()
    bench.now = 7 * HOUR
    assert list(patch_rows(bench.azure, "patchassessmentresources", None)) == []


@pytest.mark.parametrize("status", ["Error", "AwaitingConnection"])
def test_a_status_that_is_not_about_contact(status: str) -> None:
    bench = Bench(status=status)
    url = bench.assess()
    assert bench.status() == status
    bench.now = 5 * HOUR
    assert bench.result(url) is None
